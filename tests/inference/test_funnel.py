"""Predictive limits of the observed rate of a group, against exact quantiles."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from poolwise.inference.funnel import SHARES, funnel
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.priors import prior_values
from support import PRIORS, model_of

EXPOSURES = np.array([2.0, 30.0, 4000.0])


def limits(pooling, likelihood="poisson", *, row_exposure=1.0, weights=(1.0, 3.0), **sites):
    model = model_of(pooling, likelihood)
    values = prior_values(PRIORS, sites=[site for site, _ in model.families])
    dims = ("chain", "draw", "group")
    draws = {name: np.broadcast_to(value, (4, 1000, *np.shape(value))) for name, value in sites.items()}
    posterior = xr.Dataset({name: (dims[: each.ndim], each) for name, each in draws.items()})
    found = funnel(
        model, posterior, values, weights=np.array(weights), exposures=EXPOSURES, row_exposure=row_exposure, seed=0
    )
    return found * EXPOSURES[:, None]  # totals


def assert_are_quantiles(totals, *laws):
    """Every limit is the interpolated quantile of a law, to a Monte Carlo error of its probability."""
    for found, law in zip(totals, laws, strict=True):
        whole = np.ceil(np.maximum(found, 0))
        below = np.where(found > 0, law.cdf(whole - 1) + (found - whole + 1) * law.pmf(whole), law.cdf(0))
        error = 4 * np.sqrt(np.array(SHARES) * (1 - np.array(SHARES)) / 160_000) + 1e-4
        assert np.all((np.abs(below - SHARES) < error) | ((found == 0) & (below >= SHARES)))


def test_limits_of_a_known_pooled_rate_are_poisson_quantiles():
    assert_are_quantiles(limits("pooled", lam=3.0), *(stats.poisson(3.0 * e) for e in EXPOSURES))


def test_limits_of_a_known_population_integrate_over_its_rates():
    # a total at exposure e is negative binomial with shape 9 and mean 9 e
    found = limits("hierarchical", mu=9.0, sigma=3.0, alpha=9.0, beta=1.0, lam=np.array([9.0, 9.0]))
    assert_are_quantiles(found, *(stats.nbinom(9.0, 1 / (1 + e)) for e in EXPOSURES))


def test_limits_of_unpooled_rates_are_those_of_their_weighted_mean():
    # (1 * 2 + 3 * 6) / 4 = 5
    assert_are_quantiles(limits("unpooled", lam=np.array([2.0, 6.0])), *(stats.poisson(5.0 * e) for e in EXPOSURES))


def test_rows_of_a_negative_binomial_add_up():
    # 2, 30 and 4000 rows of mean 3 and concentration 4: the sum has n times both
    found = limits("pooled", "negative_binomial", lam=3.0, delta=0.5, phi=4.0)
    assert_are_quantiles(found, *(stats.nbinom(4.0 * e, 4 / 7) for e in EXPOSURES))


def test_fewer_larger_rows_of_a_negative_binomial_are_wider():
    # 1, 1 and 40 rows of exposure 100
    found = limits("pooled", "negative_binomial", lam=3.0, delta=0.5, phi=4.0, row_exposure=100.0)
    expected = [stats.nbinom(4.0 * n, 4 / (4 + 3 * e / n)) for e, n in zip(EXPOSURES, (1, 1, 40), strict=True)]
    assert_are_quantiles(found, *expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_median_of_a_large_group_is_near_the_mean_of_any_likelihood(name):
    likelihood = LIKELIHOODS[name]
    sites = {"delta": 0.2, "phi": 25.0, "zi": 0.1, "hurdle": 0.1, "xi": -0.2}
    params = {key: np.array(sites[key]) for key in likelihood.parameters}
    found = limits("pooled", name, lam=3.0, **params)
    mean = float(likelihood.distribution(3.0, params).mean)
    assert found[2, 2] / 4000 == pytest.approx(mean, rel=0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_rates_as_small_and_as_large_as_floats_have_limits(likelihood):
    # a population far wider than its mean: most rates underflow
    mu, sigma, delta = 500.0, 1e5, 0.3
    known = {"mu": mu, "sigma": sigma, "alpha": (mu / sigma) ** 2, "beta": mu / sigma**2, "lam": np.full(2, mu)}
    known |= {"delta": delta, "phi": 1 / delta**2} if likelihood == "negative_binomial" else {}
    assert np.all(np.isfinite(limits("hierarchical", likelihood, **known)))
