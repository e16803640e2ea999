"""The difference of two models: ArviZ and hand-made cases, and pairs that the tables do not determine."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from arviz_stats.loo import compare as arviz_compare
from arviz_stats.utils import ELPDDataLOO

from candidates import candidates, noisy
from poolwise.comparison.candidates import CELL
from poolwise.comparison.differences import difference, is_tie, paired, standard_error
from poolwise.comparison.scores import Scores, rows_left_out


def scores(group, count, elpd, *, exposure=1.0, mcse: float = 0.0) -> Scores:
    """Scores of rows, one a cell or more."""
    rows = pd.DataFrame({"group": group, "exposure": exposure, "count": count, "elpd": elpd})
    cells = rows.groupby(CELL).agg(multiplicity=("elpd", "size"), elpd=("elpd", "first")).sort_index()
    return Scores(cells, mcse)


def arviz_of(one: Scores, other: Scores) -> pd.Series:
    """What ArviZ says of the worse of two models, of their rows."""
    rows = {name: np.repeat(each.values, each.multiplicity.astype(int)) for name, each in (("a", one), ("b", other))}
    results = {
        name: ELPDDataLOO(
            elpd=each.sum(),
            se=np.sqrt(len(each) * each.var(ddof=1)),
            p=2.0,
            n_samples=1000,
            n_data_points=len(each),
            scale="log",
            warning=False,
            good_k=0.7,
            elpd_i=xr.DataArray(each, dims="row"),
        )
        for name, each in rows.items()
    }
    return arviz_compare(results, round_to="none").iloc[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [0.02, 2.0])
def test_difference_equals_that_of_arviz(seed, spread):
    one, other = sorted(map(rows_left_out, candidates(noisy(2, seed=seed, spread=spread))), key=lambda x: -x.total[0])
    found, expected = difference(other, one), arviz_of(one, other)
    for name in ("elpd_diff", "dse", "p_worse"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-8)
    assert found.diag_diff == expected["diag_diff"].replace("elpd_diff", "diff")


def test_few_rows_are_named_before_a_small_difference():
    one, other = scores(list("aab"), [1, 2, 3], [-1, -2, -3]), scores(list("aab"), [1, 2, 3], [-1, -2, -9])
    assert difference(other, one).diag_diff == "N < 100" == arviz_of(one, other)["diag_diff"]
    assert difference(one, one).diag_diff == ""


def test_dse_has_ddof_0():
    # three rows, differences 0 1 1: variance 2 / 9 by 3
    one, other = scores(list("aaa"), [1, 2, 3], [-1, -2, -6]), scores(list("aaa"), [1, 2, 3], [-1, -3, -7])
    assert difference(other, one).dse == pytest.approx(np.sqrt(3 * 2 / 9))


def test_monte_carlo_errors_of_independent_runs_add_in_squares():
    one, other = (scores(["a"], [1], [-1.0], mcse=mcse) for mcse in (0.3, 0.4))
    assert difference(one, other).diff_mcse == pytest.approx(0.5)
    assert difference(one, one).diff_mcse == 0.0


def test_error_by_group_of_hand_made_groups():
    # group sums of the difference 2 and 6 over 2 rows each: residuals -2 and 2, 2 / 1 * (4 + 4)
    one = scores(list("aabb"), [1, 2, 1, 2], [1.0, 1.0, 3.0, 3.0])
    other = scores(list("aabb"), [1, 2, 1, 2], [0.0] * 4)
    assert difference(one, other).dse_groups == pytest.approx(4.0)


def test_error_by_group_of_a_constant_difference_is_zero_however_large_the_groups():
    one, other = scores(list("aaab"), [1, 2, 3, 1], [1.0] * 4), scores(list("aaab"), [1, 2, 3, 1], [0.5] * 4)
    assert difference(one, other).dse_groups == pytest.approx(0.0, abs=1e-12)


def test_error_by_group_is_left_out_where_it_would_be_that_by_row():
    one, other = scores(list("abc"), [1, 2, 3], [-1, -2, -3]), scores(list("abc"), [1, 2, 3], [-1, -2, -9])
    assert np.isnan(difference(one, other).dse_groups)


def test_error_by_group_is_that_of_new_groups_and_the_one_by_row_too_small():
    # difference of a row: effect of its group, sd 1, plus noise, sd 1; 40 groups of 6: variance 40 * (36 + 6) = 1680
    rng, groups, count = np.random.default_rng(0), np.repeat([f"{g:02}" for g in range(40)], 6), np.tile(range(6), 40)
    zero = scores(groups, count, np.zeros(240))
    found = [
        difference(scores(groups, count, np.repeat(rng.normal(size=40), 6) + rng.normal(size=240)), zero)
        for _ in range(400)
    ]
    by_group, by_row = (np.mean([getattr(each, name) ** 2 for each in found]) for name in ("dse_groups", "dse"))
    totals = np.var([each.elpd_diff for each in found])
    # the variance of a sample variance of 39 degrees of freedom, averaged over 400 tables
    assert by_group == pytest.approx(1680, rel=4 * np.sqrt(2 / 39 / 400))
    assert totals == pytest.approx(1680, rel=4 * np.sqrt(2 / 400))
    assert by_row < 1680 / 3


@pytest.mark.parametrize(
    ("difference", "error", "mcse", "expected"),
    [
        (-3.99, 0.1, 0.0, True),
        (-4.0, 0.1, 0.0, False),
        (-30.0, 15.1, 0.0, True),
        (-30.0, 15.0, 0.0, False),
        (3.0, 0.0, 0.0, True),
        (-5.9, 0.1, 1.0, True),  # 4 + 2 Monte Carlo errors
        (-6.1, 0.1, 1.0, False),
        (-9.9, 3.0, 4.0, True),  # 2 sqrt(9 + 16)
        (-12.1, 3.0, 4.0, False),  # and beyond 4 + 8
        (-4.1, 0.1, np.nan, False),  # unknown counts as none
    ],
)
def test_a_tie_is_not_beyond_4_or_under_2_errors_with_monte_carlo_error(difference, error, mcse, expected):
    assert is_tie(difference, error, mcse) is expected


def regrouped(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Scores, Scores]:
    """Seven rows of two groupings, with their values under two models, and the scores of these."""
    rng = np.random.default_rng(seed)
    count, one, other = np.array([3, 3, 3, 3, 5, 5, 5]), np.array(list("aabbaab")), np.array(list("xyxzyyz"))
    values = {
        grouping: {key: rng.normal() for key in itertools.product(set(grouping), {3, 5})} for grouping in ("ab", "xyz")
    }
    a = np.array([values["ab"][each] for each in zip(one, count, strict=True)])
    b = np.array([values["xyz"][each] for each in zip(other, count, strict=True)])
    return count, a, b, scores(one, count, a), scores(other, count, b)


@pytest.mark.parametrize("seed", range(6))
def test_error_across_groupings_is_the_extreme_of_all_pairings(seed):
    count, a, b, one, other = regrouped(seed)
    is_three = count == 3
    errors = [
        standard_error(a, np.concatenate([threes, fives]), np.ones(7))
        for threes in itertools.permutations(b[is_three])
        for fives in itertools.permutations(b[~is_three])
    ]
    assert difference(one, other).dse == pytest.approx(max(errors))
    assert standard_error(*paired(one.cells, other.cells, is_least=True)) == pytest.approx(min(errors))
    assert difference(one, other).elpd_diff == pytest.approx(a.sum() - b.sum())
    assert np.isnan(difference(one, other).dse_groups)


def test_pairs_that_the_tables_determine_are_exact():
    # one group against three: every row of a stratum is one cell there
    count, group = np.array([1, 1, 2, 2, 2]), np.array(list("xyxyz"))
    a, b = np.array([1.0, 1.0, 4.0, 4.0, 4.0]), np.array([0.5, 0.1, 3.0, 2.0, 1.0])
    one, other = scores(["all"] * 5, count, a), scores(group, count, b)
    assert difference(one, other).dse == pytest.approx(np.sqrt(5 * np.var(a - b)))
