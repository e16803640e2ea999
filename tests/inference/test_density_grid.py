"""Grids of densities whose mass, moments and modes are known."""

import numpy as np
import pytest
from scipy import stats

from poolwise.inference import density_grid
from poolwise.inference.density_grid import NoGridError

CORRELATED = stats.multivariate_normal([1.0, 2.0], [[1.0, 0.9], [0.9, 1.0]])
FAR = stats.multivariate_normal([6.0, -5.0], [[0.02, 0.0], [0.0, 0.3]])
THREE = stats.multivariate_normal([1.0, 2.0, 3.0], [[1.0, 0.5, 0.3], [0.5, 2.0, 0.1], [0.3, 0.1, 0.5]])


def funnel(points):
    """Log of e^v standard exponential, x given v normal with a sd near e^v / 2."""
    return points[:, 1] - np.exp(points[:, 1]) + stats.norm.logpdf(points[:, 0], 0, np.exp(points[:, 1]) / 2 + 0.1)


DENSITIES = {  # log density, normalised, and the number of variables
    "narrow": (lambda points: stats.norm.logpdf(points[:, 0], 3.0, 1e-5), 1),
    "skewed": (lambda points: stats.gumbel_l.logpdf(points[:, 0]), 1),
    "correlated": (CORRELATED.logpdf, 2),
    "two modes": (
        lambda points: np.logaddexp(np.log(0.3) + CORRELATED.logpdf(points), np.log(0.7) + FAR.logpdf(points)),
        2,
    ),
    "funnel": (funnel, 2),
    "three": (THREE.logpdf, 3),
}


def found(name):
    log_density, num = DENSITIES[name]
    return log_density, density_grid.find(log_density, np.full(num, -10.0), np.full(num, 10.0))


def drawn(name, num=200_000, seed=0):
    """Draws by rejection from the grid, and the share kept."""
    log_density, grid = found(name)
    rng = np.random.default_rng(seed)
    points, log_q = grid.draw(num, rng)
    log_ratio = log_density(points) - log_q
    limit = density_grid.limit_of(log_ratio)
    is_kept = np.log(rng.random(num)) < log_ratio - limit
    return points[is_kept], is_kept.mean()


@pytest.mark.parametrize("name", DENSITIES)
def test_interpolant_has_the_mass_of_the_density_and_nearly_all_its_draws_are_kept(name):
    _, grid = found(name)
    assert abs(grid.log_total) < 0.04
    assert drawn(name)[1] > 0.8


def test_draws_of_one_variable_have_its_distribution():
    points, _ = drawn("narrow")
    assert stats.kstest((points[:, 0] - 3.0) / 1e-5, stats.norm.cdf).pvalue > 1e-3
    points, _ = drawn("skewed")
    assert stats.kstest(points[:, 0], stats.gumbel_l.cdf).pvalue > 1e-3


def test_draws_of_several_variables_have_the_moments_of_their_law():
    points, _ = drawn("three")
    error = np.sqrt(np.diag(THREE.cov) / len(points))
    assert np.all(np.abs(points.mean(axis=0) - THREE.mean) < 4 * error)
    assert np.cov(points.T) == pytest.approx(THREE.cov, abs=0.03)
    whitened = np.linalg.solve(np.linalg.cholesky(THREE.cov), (points - THREE.mean).T)
    for each in whitened:
        assert stats.kstest(each, stats.norm.cdf).pvalue > 1e-3


def test_both_of_two_modes_far_apart_have_their_share():
    points, _ = drawn("two modes")
    share = np.mean(points[:, 0] > 4.5)
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / len(points))


def test_funnel_is_followed_to_its_neck():
    points, _ = drawn("funnel")
    assert stats.kstest(np.exp(points[:, 1]), stats.expon.cdf).pvalue > 1e-3
    z = points[:, 0] / (np.exp(points[:, 1]) / 2 + 0.1)
    assert stats.kstest(z, stats.norm.cdf).pvalue > 1e-3


def test_box_is_extended_to_a_mode_outside():
    grid = density_grid.find(CORRELATED.logpdf, np.array([-20.0, 5.0]), np.array([-10.0, 6.0]))
    assert abs(grid.log_total) < 0.04


def test_log_density_of_draws_is_that_of_the_interpolant():
    _, grid = found("correlated")
    points, log_q = grid.draw(100_000, np.random.default_rng(1))
    # the mean of 1 / q over the draws of q in a region is the area of the region
    inside = np.all(np.abs(points - CORRELATED.mean) < 1.0, axis=1)  # an area of 4, with bounded weights
    assert np.mean(np.where(inside, np.exp(-log_q), 0.0)) == pytest.approx(4.0, rel=0.02)


def test_limit_leaves_the_stated_mass_above_it():
    ratio = np.array([1.0] * 9_999 + [3.0])
    limit = np.exp(density_grid.limit_of(np.log(ratio)))
    excess = np.maximum(0.0, ratio - limit).sum() / ratio.sum()
    assert limit == pytest.approx(3.0)
    assert excess <= density_grid.EXCESS
    many = np.random.default_rng(0).gamma(50, 1 / 50, 100_000)
    limit = np.exp(density_grid.limit_of(np.log(many)))
    excess = np.maximum(0.0, many - limit).sum() / many.sum()
    assert 0.5 * density_grid.EXCESS < excess <= density_grid.EXCESS


@pytest.mark.parametrize(
    ("log_density", "words"),
    [
        (lambda points: np.full(len(points), -np.inf), "zero wherever"),
        (lambda points: points[:, 0], "does not fall off"),
    ],
)
def test_density_without_a_grid_is_refused(log_density, words):
    with pytest.raises(NoGridError, match=words):
        density_grid.find(log_density, np.array([-1.0]), np.array([1.0]))
