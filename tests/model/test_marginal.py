"""Rates integrated out: the density against quadrature and limits, the rates against the distribution they are of."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import integrate, stats
from scipy.special import gammaln

from poolwise.counts.cells import counts_from_rows
from poolwise.model import count_model
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.special import concentration_of
from support import (
    SAMPLER,
    assert_moments_are_exact,
    digests_elsewhere,
    fit_cookies,
    model_of,
    same_bits,
    shared_shapes,
)

pytestmark = pytest.mark.fit

SHORT = replace(SAMPLER, num_warmup=150, num_samples=200, checkpoint_every=100)
DELTAS = [None, 0.4, *(pytest.param(delta, marks=pytest.mark.slow) for delta in (0.05, 2.0))]
TABLES = {
    "one row": counts_from_rows(["a"], [4]),
    "no count": counts_from_rows(["a", "b", "b"], [0, 0, 0]),
    "groups of different size": counts_from_rows(["a", "b", "b", "b", "c", "c"], [3, 0, 12, 7, 1, 0]),
    "large counts": counts_from_rows(["a", "b"], [20_000, 31_000]),
    "several exposures": counts_from_rows(["a", "a", "a", "b", "b"], [1, 9, 40, 0, 2], [0.1, 1.0, 5.0, 1.0, 0.3]),
    "exposures far apart": counts_from_rows(["a", "a", "b", "b"], [0, 900, 3, 70_000], [1e-4, 100.0, 1.0, 1e4]),
}


def law_of(delta):
    """The Poisson if delta is None, else the negative binomial; and its parameters."""
    if delta is None:
        return LIKELIHOODS["poisson"], {}
    return LIKELIHOODS["negative_binomial"], {"delta": delta, "phi": concentration_of(delta)}


@jax.jit
def log_marginal(statistics, mu, sigma, delta):
    """Log marginal likelihood by the module under test; compiled once for every shape of table."""
    likelihood, params = law_of(delta)
    return likelihood.log_marginal(statistics, mu, concentration_of(sigma / mu), params)


def density(table, mu, sigma, delta):
    return log_marginal(shared_shapes(table), mu, sigma, delta)


def on_log_scale(at, statistics, is_poisson):
    """The same at the logarithms of mu, sigma and delta."""
    mu, sigma, delta = jnp.exp(at)
    return log_marginal(statistics, mu, sigma, None if is_poisson else delta)


values_of = jax.jit(jax.vmap(on_log_scale, (0, None, None)), static_argnums=2)
slopes_of = jax.jit(jax.vmap(jax.grad(on_log_scale), (0, None, None)), static_argnums=2)


def log_integrand(table, group, mu, sigma, delta):
    """Log of gamma density times likelihood of the rows of a group, as a function of log lam; by SciPy."""
    rows, exposure, count = table.rows()
    exposure, count = exposure[rows == group], count[rows == group]
    rates = stats.gamma(mu**2 / sigma**2, scale=sigma**2 / mu)

    def value(log_lam):
        lam = np.exp(log_lam)
        mean = lam[..., None] * exposure
        if delta is None:
            likelihood = stats.poisson.logpmf(count, mean)
        else:
            phi = delta**-2
            spread = (count + phi) * np.log1p(mean / phi)
            choose = gammaln(count + phi) - gammaln(phi) - gammaln(count + 1.0)
            likelihood = count * (np.log(mean) - np.log(phi)) - spread + choose
        return rates.logpdf(lam) + log_lam + likelihood.sum(-1)

    return value


def grid(table, group, *parameters):
    """Nodes of log lam, 40 000 or so across all that matters, and log weights that add up to the marginal's."""
    value = log_integrand(table, group, *parameters)
    wide = np.linspace(-600.0, 30.0, 40_001)
    heights = value(wide)
    kept = wide[heights > heights.max() - 60.0]
    step = wide[1] - wide[0]
    nodes = np.linspace(kept[0] - step, kept[-1] + step, 40_001)
    return nodes, value(nodes) + np.log(nodes[1] - nodes[0])


def by_quadrature(table, *parameters):
    return sum(np.logaddexp.reduce(grid(table, group, *parameters)[1]) for group in range(table.num_groups))


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(("mu", "sigma"), [(9.0, 2.0), (9.0, 0.2), (2.0, 6.0), (30.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("name", TABLES)
def test_density_is_the_integral_over_the_rates(name, mu, sigma, delta):
    expected = by_quadrature(TABLES[name], mu, sigma, delta)
    assert float(density(TABLES[name], mu, sigma, delta)) == pytest.approx(expected, rel=1e-9, abs=1e-8)


def test_poisson_and_negative_binomial_without_dispersion_agree_over_the_prior():
    # the closed form against the quadrature, 600 draws of the prior and sigma down to nothing; every table
    rng = np.random.default_rng(0)
    mu, sigma = rng.gamma(2.0, 5.0, 600), rng.exponential(1.0, 600)
    sigma[:200] = np.logspace(-20, -2, 200)
    for name, table in TABLES.items():
        at, statistics = np.log([mu, sigma, np.full(600, 1e-30)]).T, shared_shapes(table)
        closed = values_of(at, statistics, True)
        summed = values_of(at, statistics, False)
        off = np.abs(summed - closed) / np.maximum(1.0, 1e-6 * np.abs(closed))
        assert np.max(off) < 1e-7, name
        assert np.median(off) < 1e-10, name


@pytest.mark.parametrize("delta", [1e-2, 1e-4, 1e-8])
def test_small_dispersion_tends_to_the_poisson(delta, cookies):
    # log NB = log Poisson + delta^2 E[sum((y - r)^2 - y)] / 2 + ...: quadratic in delta, so a hundredth at a tenth
    mu, sigma = 9.1, 2.1
    off = float(density(cookies, mu, sigma, delta) - density(cookies, mu, sigma, None))
    per_square = float(density(cookies, mu, sigma, 1e-3) - density(cookies, mu, sigma, None)) * 1e6
    assert off == pytest.approx(per_square * delta**2, rel=0.05, abs=1e-9)
    assert abs(per_square) > 100.0


@pytest.mark.parametrize("delta", [None, 0.3])
@pytest.mark.parametrize("sigma", [1e-2, 1e-4, 1e-8, 1e-16, 0.0])
def test_small_sigma_tends_to_one_rate_for_all(sigma, delta, cookies):
    # E[L(lam)] = L(mu) (1 + sigma^2 (l'' + l'^2) / 2 + ...) for each group, and for all
    statistics, mu = shared_shapes(cookies), 9.1
    law, params = law_of(delta)

    def likelihood(lam):
        return law.log_likelihood(statistics, lam, params)

    lam = jnp.full(5, mu)
    bend = float(jnp.sum(jnp.diag(jax.hessian(likelihood)(lam)) + jax.grad(likelihood)(lam) ** 2))
    expected = float(likelihood(lam)) + sigma**2 * bend / 2
    assert float(density(cookies, mu, sigma, delta)) == pytest.approx(expected, rel=1e-12, abs=1e4 * sigma**3 + 1e-10)


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(("mu", "sigma"), [(9.0, 2.0), (9.0, 1e-3), (2.0, 6.0), (0.5, 2.0)])
@pytest.mark.parametrize("name", TABLES)
def test_slopes_are_those_of_the_density(name, mu, sigma, delta):
    of = shared_shapes(TABLES[name]), delta is None
    at, step = np.log([mu, sigma, delta or 1.0]), 1e-3
    (found,) = slopes_of(at[None], *of)
    shifts = np.concatenate([np.eye(3), -np.eye(3), 2 * np.eye(3), -2 * np.eye(3)]) * step
    values = np.asarray(values_of(at + shifts, *of))
    up, down, far_up, far_down = np.split(values, 4)
    expected = (8 * (up - down) - (far_up - far_down)) / (12 * step)
    noise = 1e-15 * np.abs(values).max() / step
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 + 10 * noise)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("name", TABLES)
def test_density_and_slopes_are_finite_wherever_the_prior_goes(name, likelihood):
    rng = np.random.default_rng(1)
    at = np.log([rng.gamma(2.0, 5.0, 1000), rng.exponential(1.0, 1000), np.abs(rng.normal(0.0, 0.5, 1000))])
    at[0, 300:400] = rng.uniform(np.log(1e-6), 6.0, 100)
    at[1, :200] = rng.uniform(np.log(1e-200), 5.0, 200)
    at[2, 200:400] = rng.uniform(np.log(1e-100), 2.0, 200)

    of = shared_shapes(TABLES[name]), likelihood == "poisson"
    assert np.all(np.isfinite(values_of(at.T, *of)))
    assert np.all(np.isfinite(slopes_of(at.T, *of)))


@functools.cache
def draw_rates(likelihood):
    return jax.jit(model_of("hierarchical", likelihood, parameterisation="marginal").draw_rates)


def rates_of(table, mu, sigma, delta, num_draws):
    """Draws of the rates given the rest, (D, G)."""
    likelihood, params = law_of(delta)
    given = {name: jnp.full(num_draws, each) for name, each in ({"mu": mu, "sigma": sigma} | params).items()}
    draw = draw_rates(likelihood.name)
    return np.asarray(draw(jax.random.key(0), given, shared_shapes(table)))


@pytest.mark.parametrize("delta", DELTAS)
@pytest.mark.parametrize(("mu", "sigma"), [(9.0, 2.0), (9.0, 0.05), (2.0, 6.0), (0.5, 2.0)])
@pytest.mark.parametrize("name", TABLES)
def test_rates_are_drawn_from_their_distribution_given_the_rest(name, mu, sigma, delta):
    # Kolmogorov-Smirnov against the distribution function by quadrature; 96 x (1 to 3) tests of fixed seed
    table = TABLES[name]
    draws = rates_of(table, mu, sigma, delta, 10_000)
    for group in range(table.num_groups):
        nodes, log_weight = grid(table, group, mu, sigma, delta)
        weight = np.exp(log_weight - log_weight.max())
        below = integrate.cumulative_simpson(weight, x=nodes, initial=0.0)
        test = stats.kstest(np.log(draws[:, group]), lambda x, n=nodes, b=below: np.interp(x, n, b / b[-1]))
        assert test.pvalue > 1e-4


def test_rates_follow_mu_for_tiny_sigma(cookies):
    lam = rates_of(cookies, 9.1, 1e-12, 0.3, 1000)
    assert lam.mean() == pytest.approx(9.1, rel=1e-12)
    assert lam.std() == pytest.approx(1e-12, rel=0.05)


@pytest.mark.parametrize("delta", [None, 0.4])
def test_rates_do_not_depend_on_the_length_of_a_block_but_for_rounding(delta, cookies, monkeypatch):
    whole = rates_of(cookies, 9.1, 2.1, delta, 100)
    monkeypatch.setattr(count_model, "BLOCK", 35)  # seven draws of five groups
    draw_rates.cache_clear()
    in_blocks = rates_of(cookies, 9.1, 2.1, delta, 100)
    draw_rates.cache_clear()
    assert np.allclose(whole, in_blocks, rtol=1e-12, atol=0)
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("likelihood", ["poisson", pytest.param("negative_binomial", marks=pytest.mark.slow)])
@pytest.mark.parametrize("parameterisation", ["marginal", pytest.param("centred", marks=pytest.mark.slow)])
def test_posterior_means_and_sds_are_the_exact_ones(parameterisation, likelihood, cookies, exact_of, fit_of):
    # of the standardised rates, the default, in test_nuts
    exact = exact_of("hierarchical", likelihood)
    draws = fit_cookies(cookies, "hierarchical", likelihood, parameterisation=parameterisation).posterior
    assert {name: (each.shape, each.dtype) for name, each in draws.items()} == {
        name: (each.shape, each.dtype) for name, each in fit_of("hierarchical", likelihood).posterior.items()
    }
    assert list(draws) == list(fit_of("hierarchical", likelihood).posterior)
    assert_moments_are_exact(draws, exact)


@pytest.mark.parametrize("parameterisation", ["marginal", pytest.param("standardised", marks=pytest.mark.slow)])
def test_draws_do_not_depend_on_the_length_of_a_chunk(parameterisation, cookies):
    one, other = (
        fit_cookies(
            cookies,
            "hierarchical",
            "poisson",
            parameterisation=parameterisation,
            sampler=replace(SHORT, checkpoint_every=chunk),
        )
        for chunk in (100, 7)
    )
    assert same_bits(one.posterior, other.posterior)


@pytest.mark.slow
def test_draws_do_not_depend_on_the_number_of_devices():
    # of standardised rates in test_nuts; here rates are drawn after sampling as well
    sampler = replace(SAMPLER, num_warmup=150, num_samples=200)
    asked = {"pooling": "hierarchical", "likelihood": "negative_binomial", "parameterisation": "marginal"}
    asked |= {"seed": 3, "sampler": sampler}
    assert len(digests_elsewhere(1, 4, **asked)) == 1


@pytest.mark.parametrize(
    ("parameterisation", "likelihood", "holds"),
    [
        ("centred", "poisson", False),
        *(
            (parameterisation, each.name, True)
            for parameterisation in ("standardised", "marginal")
            for each in LIKELIHOODS.values()
            if each.has_marginal
        ),
    ],
)
def test_small_sigma_is_reached_by_all_but_the_centred_rates(parameterisation, likelihood, holds):
    # eight groups of one row each, all counts equal: sigma may be 0, and the centred form has its funnel there
    table = counts_from_rows(list("abcdefgh"), [9] * 8)
    found = fit_cookies(table, "hierarchical", likelihood, parameterisation=parameterisation)
    lowest = array_stats.ess(found.posterior["sigma"], method="quantile", prob=0.02)
    assert (found.sample_stats["diverging"].sum() == 0 and lowest > 400) == holds
