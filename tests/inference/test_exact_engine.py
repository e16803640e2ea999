"""Independent draws against exact posteriors, on any number of devices, and what the engine refuses."""

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import exact_reference
from poolwise.checks.exact import solve
from poolwise.counts.cells import counts_from_rows
from poolwise.errors import FitError
from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.exact import EXACT_ENGINE
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import DEVICE, PRIORS, SAMPLER, VARIANTS, groups_of, model_of, same_bits

pytestmark = pytest.mark.fit


def drawn(counts, pooling, likelihood, *, priors=PRIORS, seed=0, num_samples=4000, num_devices=2):
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    return EXACT_ENGINE.sample(
        model_of(pooling, likelihood, priors),
        counts,
        values,
        seed=seed,
        sampler=replace(SAMPLER, name="exact", num_samples=num_samples),
        device=replace(DEVICE, num_devices=num_devices),
    )


def assert_moments(draws, mean, sd):
    """Means and standard deviations within four Monte Carlo errors of independent draws."""
    for name, expected in mean.items():
        sample = draws.posterior[name].reshape(-1, *draws.posterior[name].shape[2:])
        error = np.asarray(sd[name]) / np.sqrt(len(sample))
        assert np.all(np.abs(sample.mean(axis=0) - expected) < 4 * error), f"mean of {name}"
        kurtosis = np.mean((sample - sample.mean(axis=0)) ** 4, axis=0) / np.var(sample, axis=0) ** 2
        error = np.asarray(sd[name]) * np.sqrt((kurtosis - 1) / 4 / len(sample))
        assert np.all(np.abs(sample.std(axis=0) - sd[name]) < 4 * error), f"sd of {name}"


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_posterior_of_the_cookies_is_the_exact_one(cookies, pooling, likelihood, exact_of):
    exact = exact_of(pooling, likelihood)
    assert_moments(drawn(cookies, pooling, likelihood), exact.mean, exact.sd)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_draws_are_independent(cookies, pooling, likelihood):
    for name, each in drawn(cookies, pooling, likelihood).posterior.items():
        sample = np.moveaxis(each.reshape(*each.shape[:2], -1), 2, 0)
        assert np.all(array_stats.ess(sample, method="bulk") > 0.9 * each[..., :1].size), name
        assert all(len(np.unique(one)) == one.size for one in sample), name  # no proposal is kept twice


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_devices_change_no_bit_and_the_seed_changes_all(cookies, pooling, likelihood):
    one = drawn(cookies, pooling, likelihood, num_samples=3000, num_devices=1)
    two = drawn(cookies, pooling, likelihood, num_samples=3000, num_devices=2)
    other = drawn(cookies, pooling, likelihood, num_samples=3000, seed=1)
    assert same_bits(one.posterior, two.posterior) and same_bits(one.sample_stats, two.sample_stats)
    assert not np.any(one.posterior["lam"] == other.posterior["lam"])


def test_both_modes_of_a_posterior_have_their_share():
    # 5 events in 500,000 a group, under priors per event: one mode near 1e-5, one at the scale of the priors
    table = counts_from_rows([f"g{g}" for g in range(12)], np.array([5, 4, 6] * 4), np.full(12, 5e5))
    model, values = model_of("hierarchical", "poisson"), prior_values(PRIORS, sites=("mu", "sigma"))
    exact = solve.solve(model, table, values)
    draws = drawn(table, "hierarchical", "poisson", num_samples=100_000)
    mu = draws.posterior["mu"]
    assert abs(mu.mean() - exact.mean["mu"]) < 4 * exact.sd["mu"] / np.sqrt(mu.size)
    # the mean of mu is that of the second mode, near 0.5, which has 0.24% of the mass
    assert 0.0019 < np.mean(mu > 1e-3) < 0.0028


@pytest.mark.parametrize("likelihood", ["poisson", pytest.param("negative_binomial", marks=pytest.mark.slow)])
def test_table_without_any_event_has_its_posterior(likelihood):
    table = counts_from_rows(["a", "a", "b", "c"], np.zeros(4, int))
    exact = exact_reference.exact("hierarchical", likelihood, groups_of(table))
    assert_moments(drawn(table, "hierarchical", likelihood, num_samples=10_000), exact.mean, exact.sd)


def test_one_group_has_its_posterior():
    table = counts_from_rows(["a"] * 4, np.array([3, 0, 1, 2]))
    exact = exact_reference.exact("hierarchical", "poisson", groups_of(table))
    assert_moments(drawn(table, "hierarchical", "poisson"), exact.mean, exact.sd)


def test_precise_counts_far_from_the_prior_have_their_posterior():
    # the mass lies at a mean far below the counts, with a spread far above it: mu 0.00027, rates of a million
    table = counts_from_rows(["a"] * 3 + ["b"] * 3, np.random.default_rng(0).poisson(1e6, 6))
    model, values = model_of("hierarchical", "poisson"), prior_values(PRIORS, sites=("mu", "sigma"))
    exact = solve.solve(model, table, values)
    assert_moments(drawn(table, "hierarchical", "poisson"), exact.mean, exact.sd)


def test_mass_above_the_bound_is_what_is_stated(cookies):
    log_ratio = drawn(cookies, "hierarchical", "poisson").sample_stats["log_ratio"]
    assert np.mean(np.maximum(0.0, -np.expm1(-log_ratio))) < 3e-4
    assert 1 / np.mean(np.exp(-np.minimum(log_ratio, 0.0))) > 0.9


def test_zero_inflation_has_a_pooled_engine_and_a_reason_against_others():
    assert not ENGINES["exact"].refusal(model_of("pooled", "zero_inflated_poisson"))
    for pooling in ("unpooled", "hierarchical"):
        words = ENGINES["exact"].refusal(model_of(pooling, "zero_inflated_poisson"))
        assert words.endswith("use sampler=nuts.") and "cannot integrate out" in words


def test_rates_without_a_gamma_prior_are_refused_where_they_are_integrated_out():
    priors = PRIORS | {"lam": {"name": "LogNormal", "loc": 2.0, "scale": 1.0}}
    assert "LogNormal prior" in ENGINES["exact"].refusal(model_of("unpooled", "poisson", priors))
    assert not ENGINES["exact"].refusal(model_of("pooled", "poisson", priors))


def test_bounded_and_heavy_priors_have_their_posterior(cookies):
    priors = PRIORS | {
        "sigma": {"name": "Uniform", "low": 0.5, "high": 2.5},
        "mu": {"name": "HalfCauchy", "scale": 5.0},
    }
    draws = drawn(cookies, "hierarchical", "poisson", priors=priors)
    mu, sigma = np.linspace(2.0, 25.0, 1151)[:, None], np.linspace(0.5, 2.5, 401)
    log_posterior = stats.halfcauchy.logpdf(mu, scale=5.0) + np.zeros_like(sigma)
    for each in groups_of(cookies):  # the total of a group is negative binomial
        chance = mu / (mu + len(each) * sigma**2)
        log_posterior += stats.nbinom.logpmf(each.sum(), (mu / sigma) ** 2, chance)
    weight = np.exp(log_posterior - log_posterior.max())
    weight[:, [0, -1]] /= 2  # trapezoid
    exact = {"mu": np.sum(weight * mu) / weight.sum(), "sigma": np.sum(weight * sigma) / weight.sum()}
    sigma = draws.posterior["sigma"]
    assert sigma.min() > 0.5 and sigma.max() < 2.5
    for name in ("mu", "sigma"):
        sample = draws.posterior[name]
        assert abs(sample.mean() - exact[name]) < 4 * sample.std() / np.sqrt(sample.size)


def test_posterior_on_no_grid_is_a_fit_error(cookies, monkeypatch):
    monkeypatch.setattr("poolwise.inference.density_grid.EXTENDED", 0)
    with pytest.raises(FitError, match="sampler=nuts"):
        drawn(cookies, "pooled", "poisson")
