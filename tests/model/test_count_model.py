"""The densities: two routes, one number; and their limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpyro.infer.util import log_density
from scipy import stats

from poolwise.counts.cells import counts_from_rows
from poolwise.counts.statistics import sufficient_statistics
from poolwise.model.count_model import SITES, WITHOUT_MEAN, count_model, sites_of, without_mean
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.poisson import POISSON
from poolwise.model.poolings import POOLINGS
from poolwise.model.priors import prior_values
from poolwise.model.special import concentration_of
from support import PRIORS, VARIANTS, model_of

pytestmark = pytest.mark.fit


@st.composite
def tables(draw):
    """Counts of one to four groups with two exposures, rates for the groups, and a concentration."""
    num_rows = draw(st.integers(1, 30))
    groups = draw(st.lists(st.integers(0, 3), min_size=num_rows, max_size=num_rows))
    counts = draw(st.lists(st.integers(0, 40) | st.just(3000), min_size=num_rows, max_size=num_rows))
    exposures = draw(st.lists(st.sampled_from([1.0, 2.5]), min_size=num_rows, max_size=num_rows))
    table = counts_from_rows([str(group) for group in groups], counts, exposures)
    lam = draw(st.lists(st.floats(0.01, 500), min_size=table.num_groups, max_size=table.num_groups))
    return table, np.array(lam), draw(st.floats(0.05, 1e4))


def law_of(phi):
    """The Poisson, or the negative binomial with this concentration; and its parameters."""
    return (LIKELIHOODS["poisson"], {}) if phi is None else (LIKELIHOODS["negative_binomial"], {"phi": phi})


def log_likelihood(count, rate, phi):
    likelihood, params = law_of(phi)
    return likelihood.log_prob(count, rate, params)


def by_statistics(table, lam, phi):
    likelihood, params = law_of(phi)
    return float(likelihood.log_likelihood(sufficient_statistics(table), jnp.asarray(lam), params))


def by_cell(table, lam, phi):
    rate = table.cell_exposure * lam[table.cell_group]
    return float(table.cell_multiplicity @ log_likelihood(table.cell_count.astype(float), rate, phi))


def by_row_with_scipy(table, lam, phi):
    group, exposure, count = table.rows()
    rate = exposure * lam[group]
    one = stats.poisson.logpmf(count, rate) if phi is None else stats.nbinom.logpmf(count, phi, phi / (phi + rate))
    return float(np.sum(one))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@given(tables())
def test_density_is_the_same_by_statistics_cells_and_rows(likelihood, drawn):
    table, lam, phi = drawn
    phi = phi if likelihood == "negative_binomial" else None
    rows = pytest.approx(by_row_with_scipy(table, lam, phi), rel=1e-10, abs=1e-10)
    assert by_statistics(table, lam, phi) == rows
    assert by_cell(table, lam, phi) == rows


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_collapsed_model_has_the_density_of_the_generative_one(pooling, likelihood, cookies):
    model = model_of(pooling, likelihood, parameterisation="centred")
    values = prior_values(PRIORS, sites=sites_of(pooling, likelihood))
    rates = 9.0 if pooling == "pooled" else np.array([9.3, 6.2, 9.5, 8.9, 11.8])
    point = {"lam": rates, "mu": 9.1, "sigma": 2.1, "delta": 0.14}
    group, exposure, count = cookies.rows()
    by_rows, _ = log_density(model.generative, (group, exposure, values, cookies.num_groups, count), {}, point)
    collapsed, _ = log_density(model.log_joint, (sufficient_statistics(cookies), values), {}, point)
    # NumPyro's own NegativeBinomial2 errs by up to 7e-7 a row in float64 (150 rows)
    assert float(collapsed) == pytest.approx(float(by_rows), rel=1e-10, abs=0 if likelihood == "poisson" else 1e-4)


@pytest.mark.parametrize("delta", [1e-3, 1e-6, 1e-12, 0.0])
def test_negative_binomial_tends_to_the_poisson(delta):
    count, rate = np.array([0.0, 1.0, 9.0, 200.0]), np.array([0.5, 3.0, 9.0, 180.0])
    # log NB - log Poisson = delta^2 ((y - r)^2 - y) / 2 + O(delta^4)
    expected = log_likelihood(count, rate, None) + delta**2 * ((count - rate) ** 2 - count) / 2
    found = log_likelihood(count, rate, concentration_of(jnp.float64(delta)))
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-13 + 1e6 * delta**4)


def test_hierarchical_rates_have_mean_mu_and_standard_deviation_sigma():
    mu, sigma = 9.0, 2.0
    rates = stats.gamma(mu**2 / sigma**2, scale=sigma**2 / mu)
    assert (rates.mean(), rates.std()) == pytest.approx((mu, sigma))
    model, values = (
        model_of("hierarchical", "poisson", parameterisation="centred"),
        prior_values(PRIORS, sites=("mu", "sigma")),
    )
    table = counts_from_rows(["a"], [3])

    def density(lam):
        point = {"mu": mu, "sigma": sigma, "lam": np.array([lam])}
        return float(log_density(model.log_joint, (sufficient_statistics(table), values), {}, point)[0])

    likelihood = stats.poisson.logpmf(3, 11.0) - stats.poisson.logpmf(3, 7.0)
    assert density(11.0) - density(7.0) - likelihood == pytest.approx(rates.logpdf(11.0) - rates.logpdf(7.0))


def joint_of(table, likelihood, parameterisation, point):
    """Log joint density of a hierarchical model, and the rates."""
    model, values = (
        model_of("hierarchical", likelihood, parameterisation=parameterisation),
        prior_values(PRIORS, sites=sites_of("hierarchical", likelihood)),
    )
    log_joint, trace = log_density(model.log_joint, (sufficient_statistics(table), values), {}, point)
    return log_joint, trace["lam"]["value"]


@pytest.mark.parametrize("exposures", [None, [1.0, 2.5, 1.0, 30.0, 0.2]], ids=["one exposure", "several"])
@pytest.mark.parametrize("sigma", [0.3, 2.1, 40.0])
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_standardised_rates_have_the_density_of_the_sampled_ones(likelihood, sigma, exposures):
    table = counts_from_rows(["a", "a", "b", "b", "c"], [3, 12, 0, 0, 41], exposures)
    point, z = {"mu": 9.1, "sigma": sigma, "delta": 0.4}, jnp.array([-1.3, 0.4, 2.0])
    log_joint, lam = joint_of(table, likelihood, "standardised", point | {"z": z})
    slopes = jax.jacfwd(lambda z: joint_of(table, likelihood, "standardised", point | {"z": z})[1])(z)
    expected = joint_of(table, likelihood, "centred", point | {"lam": lam})[0] + np.sum(np.log(np.diag(slopes)))
    assert np.count_nonzero(slopes) == 3  # a rate depends on its own z alone
    assert float(log_joint) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_standardised_rates_have_no_funnel(likelihood, cookies):
    # for small sigma: z standard normal, whatever sigma is, and every rate at mu
    z = np.array([-1.3, 0.4, 2.0, 0.1, 0.0])

    def joint(sigma, z):
        point = {"mu": 9.1, "sigma": sigma, "delta": 0.4, "z": z}
        return float(joint_of(cookies, likelihood, "standardised", point)[0])

    assert joint(1e-8, z) - joint(1e-8, 0 * z) == pytest.approx(-np.sum(z**2) / 2, abs=1e-5)
    assert joint(1e-16, z) - joint(1e-16, 0 * z) == pytest.approx(-np.sum(z**2) / 2, abs=1e-9)
    assert joint(1e-16, z) == pytest.approx(joint(1e-8, z), abs=1e-5)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 2.0, 6.0])
def test_mean_is_moved_in_its_standard_deviations_given_sigma(sigma):
    # from 1 / sqrt(events), 0.035, to sigma / (mu sqrt(G)), 0.32
    table = counts_from_rows(list("aaaabbc"), [30, 31, 29, 30, 58, 63, 605], [3.0] * 4 + [6.0] * 2 + [60.0])
    model, values = model_of("hierarchical", "poisson"), prior_values(PRIORS, sites=("mu", "sigma"))
    point = {"mu": 10.0, "sigma": sigma, "z": np.zeros(3)}
    _, trace = log_density(model.log_joint, (sufficient_statistics(table), values), {}, point)
    log_mu = np.linspace(-1.5, 4.5, 2001)
    statistics = sufficient_statistics(table)
    density = [float(POISSON.log_marginal(statistics, mu, (mu / sigma) ** 2, {})) for mu in np.exp(log_mu)]
    weight = np.exp(np.array(density) - max(density))
    mean, square = (np.average(each, weights=weight) for each in (log_mu, log_mu**2))
    assert float(trace["mu"]["fn"].scale) == pytest.approx(np.sqrt(square - mean**2), rel=0.25)


@pytest.mark.parametrize("exposures", [None, [1.0, 2.5, 1.0, 30.0, 0.2]], ids=["one exposure", "several"])
@pytest.mark.parametrize("phi", [None, 0.8])
def test_information_is_the_variance_of_the_score(phi, exposures):
    # E[-d^2 log p / d(log lam)^2] = sum of the means r, over 1 + r / phi
    table = counts_from_rows(["a", "a", "b", "b", "c"], [3, 12, 0, 0, 41], exposures)
    lam = np.array([4.0, 0.2, 11.0])
    group, exposure, _ = table.rows()
    rate = exposure * lam[group]
    expected = np.bincount(group, rate if phi is None else rate / (1 + rate / phi))
    likelihood, params = law_of(phi)
    found = likelihood.information(sufficient_statistics(table), jnp.asarray(lam), params)
    assert np.allclose(found, expected, rtol=1e-13)


def test_sites_of_each_variant_are_those_of_its_formula():
    expected = {
        ("pooled", "poisson"): ("lam",),
        ("unpooled", "negative_binomial"): ("lam", "delta"),
        ("hierarchical", "poisson"): ("mu", "sigma"),
        ("hierarchical", "negative_binomial"): ("mu", "sigma", "delta"),
    }
    assert {variant: sites_of(*variant) for variant in expected} == expected
    every = (sites_of(*variant) for variant in itertools.product(POOLINGS, LIKELIHOODS))
    assert set().union(*every, {"beta"}) == set(SITES)
    assert sites_of("pooled", "poisson", has_covariates=True) == ("lam", "beta")


def test_sigma_falls_off_by_twice_the_groups_with_an_event():
    # so that one event gives sigma a mean and an sd under a half-Cauchy prior, whose own tail is sigma^-2
    def log_marginal(sigma, totals):
        statistics = {"group_total": np.array(totals, float), "group_exposure": np.full(len(totals), 3.0)}
        return float(POISSON.log_marginal(statistics | {"constant": 0.0}, 5.0, (5.0 / sigma) ** 2, {}))

    for totals, groups in (([0, 0], 0), ([5], 1), ([5, 0, 0], 1), ([5, 7, 9, 0], 3)):
        slope = (log_marginal(1e6, totals) - log_marginal(1e5, totals)) / np.log(10.0)
        assert slope == pytest.approx(-2 * groups, abs=0.01)


@pytest.mark.parametrize(("has_events", "heavy"), [(True, ()), (False, ("sigma",))])
def test_without_an_event_a_half_cauchy_sigma_has_no_mean(has_events, heavy):
    priors = PRIORS | {"sigma": {"name": "HalfCauchy", "scale": 1.0}}
    values = prior_values(priors, sites=("mu", "sigma"))
    found = without_mean(model_of("hierarchical", "poisson", priors), values, has_events=has_events)
    assert found == (*WITHOUT_MEAN, *heavy)


@pytest.mark.parametrize("has_events", [True, False])
def test_a_half_cauchy_sigma_of_a_log_normal_population_has_no_mean_with_events_either(has_events):
    # mu and sigma may grow together at no cost: see test_marginal_log_normal
    priors = PRIORS | {"sigma": {"name": "HalfCauchy", "scale": 1.0}, "delta": {"name": "HalfCauchy", "scale": 1.0}}
    values = prior_values(priors, sites=("mu", "sigma", "delta"))
    families = {site: priors[site]["name"] for site in values}
    model = count_model("hierarchical", "negative_binomial", families, population="log_normal")
    heavy = ("sigma",) if has_events else ("sigma", "delta")
    assert without_mean(model, values, has_events=has_events) == (*WITHOUT_MEAN, *heavy)


@pytest.mark.parametrize("pooling", ["pooled", "hierarchical"])
def test_a_half_cauchy_delta_has_no_mean_behind_a_hurdle_whatever_the_counts(pooling):
    priors = PRIORS | {"delta": {"name": "HalfCauchy", "scale": 1.0}}
    for likelihood, heavy in (("negative_binomial", ()), ("hurdle_negative_binomial", ("delta",))):
        model = model_of(pooling, likelihood, priors)
        values = prior_values(priors, sites=sites_of(pooling, likelihood))
        assert without_mean(model, values, has_events=True) == (*WITHOUT_MEAN, *heavy)
