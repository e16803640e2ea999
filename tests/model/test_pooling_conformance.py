"""What every pooling promises, held for all of them. A new one adds a row to `CASES`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.util import constrain_fn, log_density, potential_energy
from scipy import stats

from poolwise.counts.cells import counts_from_rows
from poolwise.model.count_model import SITES, count_model
from poolwise.model.likelihoods import EVERY_LIKELIHOOD, LIKELIHOODS
from poolwise.model.poolings import EVERY_POOLING, POOLINGS, pooling_of
from poolwise.model.poolings.base import MARGINAL
from poolwise.model.priors import FAMILIES as FAMILIES_OF
from poolwise.model.priors import law, prior_values
from support import PRIORS

FAMILIES = {name: prior["name"] for name, prior in PRIORS.items()}
RATES = np.repeat([6.0, 9.0, 12.0, 8.0, 15.0, 10.0], 8)
TABLE = counts_from_rows(np.repeat(list("abcdef"), 8), np.random.default_rng(5).poisson(RATES))


@dataclass(frozen=True)
class Case:
    """A pooling with values of its parameters, and the law that a rate then has."""

    name: str
    values: dict[str, object]
    rate: object
    population: str | None = None


S = np.sqrt(np.log(1 + 3.0**2 / 9.0**2))  # of a log-normal with mean 9 and standard deviation 3
M = np.log(9.0) - S**2 / 2
CASES = [
    Case("pooled", {"lam": 7.0}, stats.gamma(2.0, scale=5.0)),
    Case("unpooled", {"lam": np.array([6.0, 9, 12, 8, 15, 10])}, stats.gamma(2.0, scale=5.0)),
    Case(
        "hierarchical",
        {"mu": 9.0, "sigma": 3.0, "alpha": 9.0, "beta": 1.0, "lam": np.array([6.0, 9, 12, 8, 15, 10])},
        stats.gamma(9.0),
        "gamma",
    ),
    Case(
        "hierarchical",
        {"mu": 9.0, "sigma": 3.0, "m": M, "s": S, "lam": np.array([6.0, 9, 12, 8, 15, 10])},
        stats.lognorm(S, scale=np.exp(M)),
        "log_normal",
    ),
]
DERIVED = ("alpha", "beta", "m", "s")


def name_of(case):
    choice = getattr(case, "population", None) or getattr(case, "overdispersion", None) or ""
    return f"{case.name} {choice}".strip()


@pytest.fixture(params=CASES, ids=name_of)
def case(request):
    return request.param


@pytest.fixture
def pooling(case):
    return pooling_of(case.name, case.population)


def model_and_values(pooling, likelihood=LIKELIHOODS["poisson"], parameterisation=None):
    choices = {"population": pooling.population, "overdispersion": likelihood.overdispersion}
    model = count_model(pooling.name, likelihood.name, FAMILIES, parameterisation, **choices)
    return model, prior_values(PRIORS, sites=tuple(site for site, _ in model.families))


def test_every_pooling_has_a_row():
    rows = [(case.name, case.population) for case in CASES]
    assert sorted(rows, key=str) == sorted(((each.name, each.population) for each in EVERY_POOLING), key=str)


def test_registered_under_its_own_name_and_a_short_one(case, pooling):
    assert pooling.name == case.name
    assert len({each.short for each in POOLINGS.values()}) == len(POOLINGS)
    assert len({each.title for each in EVERY_POOLING}) == len(EVERY_POOLING)
    assert all(site.name in SITES for site in pooling.sites)


def test_generative_form_gives_every_group_a_positive_rate(pooling):
    model, values = model_and_values(pooling)
    lam, *_ = handlers.seed(model.parameters, jax.random.key(0))(values, 6)
    assert lam.shape == (6,)
    assert np.all(lam > 0)
    assert (len(np.unique(lam)) == 1) == pooling.is_shared


def test_rates_of_the_generative_form_follow_the_law_of_a_rate(case, pooling):
    model, values = model_and_values(pooling)
    given = {name: jnp.asarray(value) for name, value in case.values.items() if name in ("mu", "sigma")}

    def draw(key):
        return handlers.seed(handlers.substitute(model.parameters, given), key)(values, 3)[0]

    lam = jax.vmap(draw)(jax.random.split(jax.random.key(4), 4000))
    assert stats.kstest(np.asarray(lam[:, 1]), case.rate.cdf).pvalue > 1e-3


@pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD, ids=name_of)
def test_centred_density_is_that_of_the_generative_form(case, pooling, likelihood):
    model, values = model_and_values(pooling, likelihood, "centred")
    group, exposure, count = TABLE.rows()
    point = {site: jnp.asarray(case.values[site]) for site in case.values if site not in DERIVED}
    point |= {site.name: jnp.asarray(0.4) for site in likelihood.sites}
    joint, _ = log_density(model.log_joint, (model.likelihood.statistics.of(TABLE), values), {}, point)
    rows, _ = log_density(model.generative, (group, exposure, values, 6), {"count": count}, point)
    # NumPyro's own negative binomial errs by up to 7e-7 an observation
    assert abs(float(joint - rows)) < 48e-6


@pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD, ids=name_of)
def test_standardised_density_is_the_centred_one_in_other_coordinates(pooling, likelihood):
    if "standardised" not in pooling.offered(likelihood):
        return
    (standardised, values), (centred, _) = (
        model_and_values(pooling, likelihood, each) for each in ("standardised", "centred")
    )
    given = (likelihood.statistics.of(TABLE), values)
    own = {site.name: jnp.asarray(0.2) for site in likelihood.sites}
    start = own | {"mu": jnp.asarray(-0.3), "sigma": jnp.asarray(0.7), "z": jnp.linspace(-1.4, 1.6, 6)}
    flat, unravel = ravel_pytree(start)

    def at(coordinates):
        found = constrain_fn(standardised.log_joint, given, {}, unravel(coordinates), return_deterministic=True)
        return {name: found[name] for name in ("mu", "sigma", "lam", *own)}

    _, log_volume = jnp.linalg.slogdet(jax.jacfwd(lambda coordinates: ravel_pytree(at(coordinates))[0])(flat))
    found = -potential_energy(standardised.log_joint, given, {}, unravel(flat)) - log_volume
    expected, _ = log_density(centred.log_joint, given, {}, at(flat))
    assert float(found) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD, ids=name_of)
def test_offered_parameterisations_have_a_finite_density(case, pooling, likelihood):
    offered = pooling.offered(likelihood)
    assert offered
    assert set(offered) <= set(pooling.parameterisations)
    for parameterisation in offered:
        model, values = model_and_values(pooling, likelihood, parameterisation)
        point = {"z": jnp.zeros(6)} | {k: jnp.asarray(v) for k, v in case.values.items() if k not in DERIVED}
        point |= {site.name: jnp.asarray(0.4) for site in likelihood.sites}
        statistics = model.likelihood.statistics.of(TABLE)
        sites = handlers.trace(handlers.substitute(handlers.seed(model.log_joint, 1), point)).get_trace(
            statistics, values
        )
        assert np.isfinite(float(sites["y"]["fn"].log_factor))


def test_marginal_density_is_the_integral_over_the_law_of_a_rate(case, pooling):
    if MARGINAL not in pooling.offered(LIKELIHOODS["poisson"]):
        return
    model, values = model_and_values(pooling, parameterisation=MARGINAL)
    point = {site: jnp.asarray(case.values[site]) for site in ("mu", "sigma")}
    found, _ = log_density(model.log_joint, (model.statistics_of(TABLE), values), {}, point)
    group, _, count = TABLE.rows()
    lam = np.linspace(0.0, 60.0, 60_001)[1:]  # a thousandth apart
    log_rows = np.array([stats.poisson.logpmf(count[group == g][:, None], lam).sum(axis=0) for g in range(6)])
    log_rates = np.log(np.trapezoid(np.exp(log_rows + case.rate.logpdf(lam)), lam, axis=1)).sum()
    expected = log_rates + stats.gamma.logpdf(point["mu"], 2, scale=5) + stats.expon.logpdf(point["sigma"])
    assert float(found) == pytest.approx(expected, abs=1e-6)


def draws_of(case, number):
    return {name: np.broadcast_to(value, (number, *np.shape(value))) for name, value in case.values.items()}


@pytest.mark.parametrize("sigma", [0.1, 0.5, 9.0, 90.0])
def test_population_has_the_mean_and_the_standard_deviation_of_its_parameters(case, pooling, sigma):
    if not pooling.has_population:
        return
    law_at = {name: float(each) for name, each in pooling.law_at(jnp.asarray(9.0), jnp.asarray(sigma)).items()}
    known = (
        stats.gamma(law_at["shape"], scale=law_at["mu"] / law_at["shape"])
        if "shape" in law_at
        else stats.lognorm(law_at["scale"], scale=np.exp(law_at["loc"]))
    )
    assert (known.mean(), known.std()) == pytest.approx((9.0, sigma), rel=1e-9)


def test_new_group_has_the_rate_that_the_pooling_says(case, pooling):
    model, values = model_and_values(pooling)
    rates = pooling.new_rates(draws_of(case, 4000), dict(model.families), values, np.random.default_rng(0))
    assert rates.shape == (4000,)
    if pooling.is_shared:
        assert np.all(rates == case.values["lam"])
    else:
        assert stats.kstest(rates, case.rate.cdf).pvalue > 1e-3


def test_moments_of_a_new_rate_are_those_of_its_draws(case, pooling):
    model, values = model_and_values(pooling)
    draws = draws_of(case, 40_000)
    rates = pooling.new_rates(draws, dict(model.families), values, np.random.default_rng(0))
    mean, square = pooling.new_rate_moments(draws, rates)
    error = 5 * rates.std() / 200 + 1e-12
    assert abs(mean.mean() - rates.mean()) < error
    assert abs(square.mean() - np.mean(rates**2)) < 5 * np.std(rates**2) / 200 + 1e-12


def test_law_of_a_rate_is_that_of_its_new_groups_or_its_prior(case, pooling):
    model, values = model_and_values(pooling)
    found = model.rate_law(values)
    given = dict(found.values) | {name: case.values[site] for name, site in found.drawn.items()}
    if found.family == "Gamma":
        known = stats.gamma(float(given["shape"]), scale=float(given["mu"] / given["shape"]))
    else:
        known = law(found.family, {name: given[name] for name in FAMILIES_OF[found.family].parameters})
    np.testing.assert_allclose(known.ppf([0.1, 0.5, 0.9]), case.rate.ppf([0.1, 0.5, 0.9]), rtol=1e-9)


def test_words_are_sentences(pooling):
    words = pooling.new_group_words
    assert pooling.meaning.endswith(".")
    assert words.title
    assert words.how_to_read.endswith(".")
    assert all(site.meaning and site.symbol for site in pooling.sites)
