"""Which groups differ, in words: the sentences follow from the joint draws, with hard labels too."""

import numpy as np
import pytest
import xarray as xr

from pictures import HARD_LABELS
from poolwise.checks.group_contrasts import PAIRS, group_rates
from poolwise.checks.groups import GroupsFound, name_of, probability, result


def found_of(draws, labels=None, column="plant") -> GroupsFound:
    """The groups with these draws, (G, S), one row of one unit each."""
    draws = np.asarray(draws, float)
    labels = np.array(labels or [chr(97 + i) for i in range(len(draws))], object)
    lam = np.moveaxis(draws[:, None], 0, 2)
    cells = {"group": np.arange(len(draws)), "multiplicity": 1 + 0 * np.arange(len(draws))}
    cells |= {"count": np.full(len(draws), 3), "exposure": np.ones(len(draws))}
    posterior = xr.Dataset({"lam": (("chain", "draw", "group"), lam)}, coords={"group": labels})
    rates = group_rates(posterior, xr.Dataset({f"cell_{name}": ("cell", each) for name, each in cells.items()}))
    return result(rates, column).value


def normal(*means, size=4000, sd=1.0):
    """Independent draws around these means."""
    return np.random.default_rng(0).normal(np.array(means)[:, None], sd, (len(means), size)) + 100


def test_clear_groups_are_named_and_close_ones_are_said_to_be_alike():
    # a is far above, e far below, and b, c, d lie within a third of a standard deviation
    assert found_of(normal(10, 0.3, 0.1, 0, -10)).lines == (
        "plant a has the highest rate with probability over 99.9%; "
        "plant e has the lowest rate with probability over 99.9%",
        "it is known with probability above 95% which of two rates is higher for 7 of 10 pairs of plants",
        "plants that cannot be told apart: b, c and d",
    )


def test_extreme_that_is_not_clear_is_one_of_a_few_with_their_probabilities():
    # the higher of two normal rates with equal means is either with probability 1/2, to 3 Monte Carlo errors
    words = found_of(normal(10, 10, 0)).extremes
    assert words.startswith("plant ") and " or " in words and "has the highest rate; plant c has the lowest" in words
    p = found_of(normal(10, 10, 0)).ranking["p_highest"]
    assert p.iloc[0] == pytest.approx(0.5, abs=0.03)


def test_extreme_of_many_equal_groups_is_counted_and_not_listed():
    words = found_of(normal(*np.zeros(12))).extremes
    assert "any of 12 plants may have the highest rate, most probably " in words


def test_a_group_that_only_some_fall_short_of_is_named_with_them():
    # b is uncertain: it cannot be told from a, which sets of neighbours by mean do not show
    sd = np.array([1.0, 1.0, 6.0, 1.0])[:, None]
    draws = np.random.default_rng(0).normal(np.array([[5.0], [0.2], [0.1], [0.0]]), sd, (4, 4000)) + 100
    found = found_of(draws, ["a", "c", "b", "d"])
    assert found.alike == "plant a has a higher rate than c and d; no other two plants can be told apart"


def test_equal_groups_cannot_be_told_apart():
    assert found_of(normal(0, 0, 0)).alike == "no two of the 3 plants can be told apart"


def test_two_groups_are_one_pair():
    assert found_of(normal(10, 0)).lines == (
        "plant a has the highest rate with probability over 99.9%",
        "it is known with probability above 95% which of the two rates is higher",
    )
    assert "it is not known with probability above 95%" in found_of(normal(0, 0)).decided


def test_many_groups_are_counted_above_and_below_the_overall_rate():
    found = found_of(normal(*np.r_[10.0, -10.0, np.zeros(PAIRS)]), [f"p{i}" for i in range(PAIRS + 2)])
    assert found.decided == (
        f"1 of {PAIRS + 2} plants have a rate above the overall rate and 1 below it, each with probability above 95%"
    )
    assert found.alike == ""


def test_rates_that_vary_together_are_told_apart_though_their_intervals_overlap():
    base = normal(0)[0]
    found = found_of([base + 0.2, base])
    assert found.rates.low[0] < found.rates.high[1]
    assert found.num_decided == 1


def test_kind_of_a_group_is_not_said_twice():
    assert found_of(normal(10, 0), ["Plant 7", "8"]).extremes.startswith("Plant 7 has the highest")


def test_sentences_with_hard_labels_are_printable_lines():
    found = found_of(normal(*range(0, 40, 5)), HARD_LABELS)
    assert all(line.isprintable() and not line.endswith(".") for line in found.lines)
    assert name_of("Zürich, Süd") == "“Zürich, Süd”"  # its comma is not that of a list


@pytest.mark.parametrize(("value", "words"), [(0.0, "under 0.1%"), (1.0, "over 99.9%"), (0.5, "50%"), (0.976, "97.6%")])
def test_share_of_draws_is_never_certain(value, words):
    assert probability(value) == words
