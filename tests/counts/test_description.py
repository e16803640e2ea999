"""Counts to tables and words, before any model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolwise.counts import description
from poolwise.counts.cells import counts_from_rows


def table(*groups, exposures=None):
    labels = [label for label, counts in zip("abcdef", groups, strict=False) for _ in counts]
    return counts_from_rows(labels, [count for counts in groups for count in counts], exposures)


def test_summary_of_the_cookies(cookies):
    row = description.summary(cookies).iloc[0]
    assert (row["rows"], row["groups"], row["min"], row["max"]) == (150, 5, 1, 21)
    assert row["mean"] == pytest.approx(1373 / 150)


def test_by_group_describes_every_group():
    found = description.by_group(table([1, 3, 8], [4, 4]))
    assert found.loc["a", ["rows", "min", "max", "median", "mean"]].tolist() == [3, 1, 8, 3, 4]
    assert found.loc["a", "var"] == pytest.approx(13)  # (9 + 1 + 16) / 2
    assert found.loc["b", "var_over_mean"] == 0


def test_by_group_with_exposures_gives_rates():
    found = description.by_group(table([2, 4], [9], exposures=[1.0, 2.0, 3.0]))
    assert found["rate"].tolist() == [2.0, 3.0]


def test_dispersion_without_exposure_is_the_variance_over_the_mean():
    counts = [1, 3, 8, 0, 9]
    alone, _ = description.dispersion(table(counts))
    assert alone.ratio == pytest.approx(np.var(counts, ddof=1) / np.mean(counts))
    assert alone.freedom == 4


def test_dispersion_of_poisson_counts_is_within_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(3)
    exposure = rng.uniform(0.5, 3.0, 20)
    inside = 0
    for _ in range(200):
        alone, _ = description.dispersion(counts_from_rows(["a"] * 20, rng.poisson(4 * exposure), exposure))
        inside += alone.verdict == "alike"
    assert abs(inside / 200 - 0.94) < 0.06  # standard error 0.017


def test_variance_of_the_statistic_is_that_of_multinomial_tables():
    # Haldane's formula, by simulation: total 30 over three rows with exposures 1, 2 and 3
    exposure = np.array([1.0, 2.0, 3.0])
    _, freedom, spread, simulated = description._pearson(
        np.zeros(3, int), exposure, np.array([5.0, 10.0, 15.0]), np.ones(3, int)
    )
    tables = np.random.default_rng(0).multinomial(30, exposure / 6, size=200_000)
    square = np.sum((tables - 30 * exposure / 6) ** 2 / (30 * exposure / 6), axis=1)
    assert square.mean() == pytest.approx(freedom[0], rel=0.01)
    assert square.var() == pytest.approx(spread[0], rel=0.02)
    levels = [0.03, 0.5, 0.97]
    assert np.quantile(simulated[:, 0], levels) == pytest.approx(np.quantile(square, levels), rel=0.15)


def test_simulated_tables_keep_the_total_of_every_group():
    # two groups of three rows with 6 and 2 events: the mean of X^2 is 2, its variance Haldane's
    group, exposure = np.repeat([0, 1], 3), np.tile([1.0, 2.0, 3.0], 2)
    _, freedom, spread, simulated = description._pearson(group, exposure, np.array([2, 0, 4, 1, 1, 0]), np.ones(6, int))
    assert simulated.mean(axis=0) == pytest.approx(freedom, abs=5 * np.sqrt(spread.max() / len(simulated)))
    assert simulated.var(axis=0) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("exposures", [None, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_one_event_says_nothing_of_the_spread(exposures):
    counts = table([0, 1, 0], [0, 0], exposures=exposures)
    assert [each.verdict for each in description.dispersion(counts)] == ["alike", "alike"]
    assert "vary about as much as Poisson counts of one rate" in description.hint(counts)


def test_one_event_beside_many_says_nothing_of_its_group():
    assert [each.verdict for each in description.dispersion_by_group(table([900, 870], [0, 1, 0]))] == [
        "alike",
        "alike",
    ]


@pytest.mark.parametrize(("num_rows", "mean"), [(20, 0.05), (20, 0.2), (40, 0.1)])
def test_few_events_are_called_more_or_less_spread_no_more_often_than_said(num_rows, mean):
    rng, found = np.random.default_rng(0), []
    while len(found) < 200:
        counts = rng.poisson(mean, num_rows)
        if counts.any():
            found.append(description.dispersion(table(counts.tolist()))[0].verdict)
    assert max(found.count("more"), found.count("less")) <= 13  # Binomial(200, 0.03) exceeds 13 in 0.5% of cases


@pytest.mark.parametrize(("num_groups", "num_rows"), [(20, 3), (100, 2)])
def test_groups_of_one_wide_rate_differ_no_more_often_than_said(num_groups, num_rows):
    # negative binomial counts of one rate; an analysis of variance calls 7% and 10% of such tables different
    rng, group, found = np.random.default_rng(0), np.repeat(np.arange(num_groups), num_rows), 0
    for _ in range(100):
        counts = rng.poisson(9 * rng.gamma(2, 1 / 2, len(group)))
        found += description._groups_differ(counts_from_rows(group, counts))
    assert found <= 8  # Binomial(100, 0.03) exceeds 8 in 0.3% of cases


def test_permutations_of_many_rows_have_the_moments_of_the_formula():
    # heavy tails and groups of 1 and 19 rows: the kurtosis makes most of the variance
    rng, group = np.random.default_rng(0), np.repeat(np.arange(40), [1, 19] * 20)
    count, one = rng.poisson(9 * rng.gamma(0.3, 1 / 0.3, len(group))), np.ones(len(group), int)
    found = [description._between(group, one, rng.permutation(count), one) for _ in range(4000)]
    between, spread = np.array(found).T
    assert between.mean() == pytest.approx(39, abs=4 * np.sqrt(spread[0] / 4000) + 39 / len(group))
    assert between.var() == pytest.approx(spread[0], rel=0.1)


def test_groups_of_a_large_table_that_differ_are_told_apart(monkeypatch):
    monkeypatch.setattr("poolwise.counts.cells.MOST_ROWS", 0)
    assert "the groups differ" in description.hint(table([9, 10] * 9, [90, 95] * 9))
    assert "enough to explain the differences" in description.hint(table([0, 9, 30], [1, 8, 33]))


def test_a_thousand_billion_rows_are_described_by_their_cells():
    many = counts_from_rows(["a", "a", "b"], [1, 3, 2], None, [10**12, 10**12, 10**12])
    row = description.summary(many).iloc[0]
    assert row[["rows", "mean", "median", "max"]].tolist() == [3 * 10**12, 2, 2, 3]
    assert row["var"] == pytest.approx(2 / 3)
    assert "less than Poisson counts" in description.hint(many)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=20), st.randoms())
def test_dispersion_does_not_depend_on_the_order_of_rows(counts, random):
    shuffled = list(counts)
    random.shuffle(shuffled)
    before, after = (description.dispersion(table(each))[0] for each in (counts, shuffled))
    assert before.ratio == pytest.approx(after.ratio, nan_ok=True)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (([0] * 5,), "every count is zero"),
        (([4],), "there is one row"),
        (([0, 20] * 10, [0, 20] * 10), "suggests a negative binomial"),
        (([9, 10] * 20, [9, 10] * 20), "less than Poisson counts"),
        (([9, 10] * 9, [90, 95] * 9), "the groups differ"),
        (([0, 20] * 10, [20, 60] * 10), "The groups differ by more than that explains"),
        (([0, 20] * 10, [20, 0] * 10), "enough to explain the differences between groups too"),
        (([4], [40], [400]), "without repeated rows in a group"),
    ],
)
def test_hint_says_what_the_spread_hints_at(groups, words):
    assert words in description.hint(table(*groups))


def test_hint_of_the_cookies_is_groups_that_differ_with_poisson_noise(cookies):
    hint = description.hint(cookies)
    assert "1.60 times the mean" in hint
    assert "So the groups differ, and within them the counts vary like Poisson counts." in hint


def test_a_large_table_whose_covariate_differs_by_row_says_what_it_costs():
    size = 6000
    number = counts_from_rows(["a"] * size, [1] * size, covariates={"age": [f"{i}" for i in range(size)]})
    [line] = description.costs_by_row(number)
    assert line.startswith("6,000 of 6,000 rows differ") and "round age, or make levels" in line
    rounded = counts_from_rows(["a"] * size, [1] * size, covariates={"age": [f"{i % 50}" for i in range(size)]})
    assert description.costs_by_row(rounded) == ()
    assert description.costs_by_row(counts_from_rows(["a", "b"], [1, 2])) == ()
