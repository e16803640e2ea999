"""Places of left-out rows in their predictions, and the band of uniform places."""

import numpy as np

from poolwise.checks.loo_pit import LEVELS, LooPit, band


def test_band_holds_even_samples_as_often_as_it_says():
    low, high, _ = band(60)
    places = np.sort(np.random.default_rng(5).uniform(size=(4000, 60)), axis=1)
    share = np.stack([np.searchsorted(each, LEVELS, side="right") for each in places]) / 60
    inside = np.mean(np.all((low - 1e-12 <= share) & (share <= high + 1e-12), axis=1))
    assert abs(inside - 0.94) < 0.02  # standard error 0.004, and the band is itself simulated


def test_mean_and_variance_are_those_of_the_randomised_places():
    rng = np.random.default_rng(0)
    low, width, rows = rng.uniform(0, 0.5, 20), rng.uniform(0, 0.5, 20), rng.integers(1, 5, 20)
    pit = LooPit(low, low + width, rows)
    draws = np.repeat(low, rows)[:, None] + np.repeat(width, rows)[:, None] * rng.uniform(size=(rows.sum(), 20_000))
    assert abs(pit.mean - draws.mean()) < 0.001
    assert abs(pit.variance - draws.var()) < 0.001


def test_coverage_is_the_share_of_rows_inside_a_central_interval():
    pit = LooPit(np.array([0.45, 0.02]), np.array([0.55, 0.03]), np.array([3, 1]))
    table, _ = pit.coverage
    assert table["covered"].loc[0.5] == 0.75  # the three rows in the middle
    assert table["covered"].loc[0.99] == 1.0
