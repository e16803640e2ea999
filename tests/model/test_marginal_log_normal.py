"""Log-normal rates: the density, the rates and the posterior of every parameterisation against SciPy's quadrature."""

import functools
import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpyro.infer.util import log_density
from scipy import integrate, stats
from scipy.special import gammaln, logsumexp

from poolwise.counts.cells import counts_from_rows
from poolwise.inference.engines import ENGINES
from poolwise.model.count_model import count_model, sites_of
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.mixings.log_normal import LOG_NORMAL
from poolwise.model.poolings import pooling_of
from poolwise.model.priors import law, prior_values
from poolwise.model.special import log_normal_scale
from support import ONE_DEVICE, PRIORS, SAMPLER, by_parameter, shared_shapes

pytestmark = pytest.mark.fit

POOLING = pooling_of("hierarchical", "log_normal")
TABLES = {
    "one row": counts_from_rows(["a"], [4]),
    "no count": counts_from_rows(["a", "b", "b"], [0, 0, 0]),
    "several exposures": counts_from_rows(["a", "a", "a", "b", "b"], [1, 9, 40, 0, 2], [0.1, 1.0, 5.0, 1.0, 0.3]),
    "a million": counts_from_rows(["a", "b", "b"], [10**6, 0, 10**6], [1.0, 1e4, 1e4]),
}
FEW = counts_from_rows(list("aabbbcd"), [3, 8, 0, 2, 1, 31, 12], [1.0, 2.0, 1.0, 1.0, 0.5, 3.0, 1.0])
WIDE = PRIORS | {"sigma": {"name": "LogNormal", "loc": 1.5, "scale": 0.5}}  # of sigma / mu from 0.2 on: a grid holds it


def params_of(delta):
    return {} if delta is None else {"delta": delta, "phi": delta**-2.0}


def likelihood_of(delta):
    return LIKELIHOODS["poisson" if delta is None else "negative_binomial"]


def log_pmf(count, mean, delta):
    """By SciPy, or in a form that holds for any concentration."""
    if delta is None:
        return stats.poisson.logpmf(count, mean)
    phi = delta**-2.0
    choose = gammaln(count + phi) - gammaln(phi) - gammaln(count + 1.0)
    return count * (np.log(mean) - np.log(phi)) - (count + phi) * np.log1p(mean / phi) + choose


def grid(table, group, mu, sigma, delta):
    """Nodes of log lam, 40 000 across all that matters, and log weights that add up to the integral's."""
    rows, exposure, count = table.rows()
    exposure, count = exposure[rows == group], count[rows == group]
    s = np.sqrt(np.log1p((sigma / mu) ** 2))
    m = np.log(mu) - s * s / 2

    def value(x):
        likelihood = sum(log_pmf(y, np.exp(x) * e, delta) for y, e in zip(count, exposure, strict=True))
        return likelihood - ((x - m) / s) ** 2 / 2 - np.log(s) - np.log(2 * np.pi) / 2

    ends = np.array([-10.0, 10.0]) * s + m, np.log((count.sum() + 0.5) / exposure.sum()) + np.array([-40.0, 3.0])
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    for _ in range(5):  # zooming in on what is within exp(-45) of the top
        x = np.linspace(low, high, 40_001)
        heights = value(x)
        kept = x[heights > heights.max() - 45.0]
        low, high = kept[0] - (x[1] - x[0]), kept[-1] + (x[1] - x[0])
    return x, heights + np.log(x[1] - x[0])


@functools.partial(jax.jit, static_argnums=(4,))
def log_marginal(statistics, mu, sigma, params, likelihood):
    return LOG_NORMAL.log_marginal(likelihood, statistics, POOLING.law_at(mu, sigma), params)


@pytest.mark.parametrize("delta", [None, 0.4, 2.0])
@pytest.mark.parametrize("ratio", [1e-4, 1e-2, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("name", TABLES)
def test_density_is_the_integral_over_the_rates(name, ratio, delta):
    table = TABLES[name]
    for mu in (0.5, 9.0):
        expected = sum(logsumexp(grid(table, g, mu, ratio * mu, delta)[1]) for g in range(table.num_groups))
        statistics = shared_shapes(table)
        found = float(log_marginal(statistics, mu, ratio * mu, params_of(delta), likelihood_of(delta)))
        # 1e-8, or the rounding of counts of a million: their terms are of order 1e7
        assert found == pytest.approx(expected, abs=1e-8, rel=1e-14 * 1e7 / max(1.0, abs(expected)) + 1e-13)


def test_negative_binomial_without_dispersion_is_the_poisson():
    for name, ratio in itertools.product(TABLES, (1e-3, 0.5, 10.0)):
        statistics = shared_shapes(TABLES[name])
        poisson = float(log_marginal(statistics, 9.0, 9.0 * ratio, {}, LIKELIHOODS["poisson"]))
        limit = float(
            log_marginal(statistics, 9.0, 9.0 * ratio, {"phi": jnp.asarray(1e30)}, LIKELIHOODS["negative_binomial"])
        )
        assert limit == pytest.approx(poisson, abs=1e-8, rel=1e-9)


@pytest.mark.parametrize("delta", [None, 0.4])
def test_density_and_slopes_hold_from_no_spread_to_any(delta):
    statistics, likelihood = shared_shapes(TABLES["several exposures"]), likelihood_of(delta)

    def at(log_mu, log_ratio):
        mu = jnp.exp(log_mu)
        return log_marginal(statistics, mu, mu * jnp.exp(log_ratio), params_of(delta), likelihood)

    one_rate = float(likelihood.log_likelihood(statistics, jnp.full(2, 4.0), params_of(delta)))
    assert float(at(np.log(4.0), -460.0)) == pytest.approx(one_rate, rel=1e-14)
    both = jax.jit(jax.vmap(jax.grad(at, (0, 1))))
    log_ratio = np.linspace(-460.0, 230.0, 139)
    assert all(np.isfinite(each).all() for each in both(np.full(139, 1.4), log_ratio))
    point, step = np.array([1.4, -0.3]), 1e-4
    for i, slope in enumerate(both(point[:1], point[1:])):
        move = step * np.eye(2)[i]
        assert float(slope[0]) == pytest.approx(float(at(*(point + move)) - at(*(point - move))) / (2 * step), rel=1e-6)


def test_scale_of_a_log_normal_is_accurate_for_any_ratio():
    ratio = np.array([0.0, 1e-300, 1e-12, 1e-8, 1e-3, 1.0, 50.0, 1e300])
    expected = np.where(ratio < 1e-6, ratio, np.sqrt(np.logaddexp(0.0, 2 * np.log(np.maximum(ratio, 1e-6)))))
    np.testing.assert_allclose(log_normal_scale(jnp.asarray(ratio)), expected, rtol=1e-12)
    assert np.isfinite(jax.vmap(jax.grad(log_normal_scale))(jnp.asarray(ratio))).all()


@functools.partial(jax.jit, static_argnums=(5,))
def drawn_rates(keys, statistics, mu, sigma, params, likelihood):
    return jax.vmap(lambda key: LOG_NORMAL.draw_rates(key, likelihood, statistics, POOLING.law_at(mu, sigma), params))(
        keys
    )


@pytest.mark.parametrize("delta", [None, 0.4])
@pytest.mark.parametrize(("mu", "sigma"), [(9.0, 0.05), (9.0, 4.0), (0.5, 5.0)])
@pytest.mark.parametrize("name", TABLES)
def test_rates_are_drawn_from_their_distribution_given_the_rest(name, mu, sigma, delta):
    # Kolmogorov-Smirnov against the distribution function by quadrature, fixed seed
    table, keys = TABLES[name], jax.random.split(jax.random.key(0), 10_000)
    draws = np.asarray(drawn_rates(keys, shared_shapes(table), mu, sigma, params_of(delta), likelihood_of(delta)))
    for group in range(table.num_groups):
        nodes, log_weight = grid(table, group, mu, sigma, delta)
        below = integrate.cumulative_simpson(np.exp(log_weight - log_weight.max()), x=nodes, initial=0.0)
        test = stats.kstest(np.log(draws[:, group]), lambda x, n=nodes, b=below: np.interp(x, n, b / b[-1]))
        assert test.pvalue > 1e-4


# The posterior of a small table.


def prior_density(site, x, priors):
    return law(priors[site]["name"], {k: v for k, v in priors[site].items() if k != "name"}).pdf(x)


@functools.cache
def posterior_by_quadrature(likelihood):
    """Site -> mean and sd, from sums over log mu, log sigma, log delta and a grid of log lam; densities by SciPy."""
    deltas = [None] if likelihood == "poisson" else list(np.exp(np.linspace(np.log(5e-3), np.log(2.5), 60)))
    mu, sigma = (each.ravel() for each in np.meshgrid(np.exp(np.linspace(-1, 5, 90)), np.exp(np.linspace(-1, 4.5, 90))))
    log_lam = np.linspace(-9.0, 6.0, 1501)
    s = np.sqrt(np.log1p((sigma / mu) ** 2))
    of_rate = stats.norm.pdf(log_lam, (np.log(mu) - s**2 / 2)[:, None], s[:, None])  # (N, K)
    rows, exposure, count = FEW.rows()
    weight = prior_density("mu", mu, WIDE) * mu * prior_density("sigma", sigma, WIDE) * sigma
    total, sums = 0.0, {}
    for delta in deltas:
        by_row = np.array([log_pmf(y, np.exp(log_lam) * e, delta) for y, e in zip(count, exposure, strict=True)])
        by_group = np.exp(np.array([by_row[rows == g].sum(axis=0) for g in range(FEW.num_groups)]))  # (G, K)
        f = of_rate @ by_group.T  # (N, G)
        joint = weight * f.prod(axis=1) * (1.0 if delta is None else prior_density("delta", delta, WIDE) * delta)
        total += joint.sum()
        values = {"mu": mu[:, None], "sigma": sigma[:, None]} | ({} if delta is None else {"delta": delta})
        powers = {(site, k): joint @ np.broadcast_to(x**k, (len(mu), 1)) for site, x in values.items() for k in (1, 2)}
        for k in (1, 2):
            powers["lam", k] = joint @ (of_rate @ (by_group * np.exp(k * log_lam)).T / f)
        sums = {key: sums.get(key, 0.0) + each for key, each in powers.items()}
    mean = {site: sums[site, 1] / total for site in (*values, "lam")}
    return {site: (mean[site], np.sqrt(sums[site, 2] / total - mean[site] ** 2)) for site in mean}


def model_and_values(likelihood, parameterisation=None, priors=WIDE):
    families = {site: priors[site]["name"] for site in sites_of("hierarchical", likelihood)}
    model = count_model("hierarchical", likelihood, families, parameterisation, population="log_normal")
    return model, prior_values(priors, sites=tuple(families))


@pytest.mark.parametrize(
    ("how", "likelihood"),
    [
        *((how, "poisson") for how in ("standardised", "centred", "marginal", "exact")),
        ("standardised", "negative_binomial"),
        *(pytest.param(how, "negative_binomial", marks=pytest.mark.slow) for how in ("marginal", "centred", "exact")),
    ],
)
def test_posterior_is_that_of_the_quadrature(how, likelihood):
    is_nuts = how != "exact"
    model, values = model_and_values(likelihood, how if is_nuts else None)
    sampler = replace(SAMPLER, name="nuts" if is_nuts else "exact", num_warmup=1000, num_samples=2500)
    draws = ENGINES[sampler.name].sample(model, FEW, values, seed=1, sampler=sampler, device=ONE_DEVICE).posterior
    for site, moments in posterior_by_quadrature(likelihood).items():
        sample = by_parameter(draws[site])
        found = {"mean": sample.mean((1, 2)), "sd": sample.std((1, 2), ddof=1)}
        for (kind, each), expected in zip(found.items(), moments, strict=True):
            z = (each - expected) / array_stats.mcse(sample, method=kind)
            assert np.all(np.abs(z) <= 4), (kind, site, z)


def test_stored_parameters_are_those_of_mu_and_sigma():
    model, values = model_and_values("poisson")
    draws = ENGINES["exact"].sample(
        model, FEW, values, seed=0, sampler=replace(SAMPLER, name="exact", num_samples=50), device=ONE_DEVICE
    )
    mu, sigma, m, s = (draws.posterior[name] for name in ("mu", "sigma", "m", "s"))
    known = stats.lognorm(s, scale=np.exp(m))
    np.testing.assert_allclose((known.mean(), known.std()), (mu, sigma), rtol=1e-9)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 6.0, 30.0])
def test_mean_is_moved_in_its_standard_deviations_given_sigma(sigma):
    table = counts_from_rows(list("aaaabbc"), [30, 31, 29, 30, 58, 63, 605], [3.0] * 4 + [6.0] * 2 + [60.0])
    model, values = model_and_values("poisson", "standardised", PRIORS)
    statistics, point = shared_shapes(table), {"mu": 10.0, "sigma": sigma, "z": np.zeros(3)}
    _, trace = log_density(model.log_joint, (statistics, values), {}, point)
    mu = np.exp(np.linspace(-1.5, 8.0, 2001))
    density = np.array([float(log_marginal(statistics, each, sigma, {}, LIKELIHOODS["poisson"])) for each in mu])
    weight = np.exp(density - density.max())
    mean, square = (np.average(each, weights=weight) for each in (np.log(mu), np.log(mu) ** 2))
    assert float(trace["mu"]["fn"].scale) == pytest.approx(np.sqrt(square - mean**2), rel=0.3)


def test_likelihoods_without_a_concave_form_offer_what_needs_none():
    assert POOLING.offered(LIKELIHOODS["poisson"]) == ["standardised", "centred", "marginal"]
    assert POOLING.offered(LIKELIHOODS["zero_inflated_poisson"]) == ["standardised", "centred"]
    model, _ = model_and_values("zero_inflated_poisson", priors=WIDE | {"zi": {"name": "Uniform"}})
    assert "cannot integrate out" in ENGINES["exact"].refusal(model)


# How the density falls off.


@pytest.mark.parametrize(("totals", "groups"), [([0, 0], 0), ([5], 1), ([5, 0, 0], 1), ([5, 7, 9, 0], 3)])
def test_large_sigma_costs_little(totals, groups):
    # a group with an event has the probability sigma^(-1/4) / sqrt(log sigma), and none where mu^2 / sigma is constant
    table = counts_from_rows(range(len(totals)), totals, [3.0] * len(totals))
    statistics = shared_shapes(table)

    def at(log_mu, log_sigma):
        return float(log_marginal(statistics, np.exp(log_mu), np.exp(log_sigma), {}, LIKELIHOODS["poisson"]))

    one, other = 60.0, 70.0
    expected = groups * (-(other - one) / 4 - 0.5 * np.log(other / one))
    assert at(0.0, other) - at(0.0, one) == pytest.approx(expected, rel=0.02, abs=0.02)
    along = at(other / 2, other) - at(one / 2, one)
    assert abs(along) < 0.5 * len(totals) * np.log(other / one) + 0.1
