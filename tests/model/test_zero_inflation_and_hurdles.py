"""Zero inflation and hurdles at the ends of their parameters, where a mixture or a truncation loses its digits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from poolwise.model.likelihoods import EVERY_LIKELIHOOD, LIKELIHOODS, likelihood_of
from poolwise.model.likelihoods.negative_binomial import LARGEST_CLUSTER, logarithmic

RATES = (1e-6, 1e-3, 1.0, 40.0, 1e3, 1e6)
SHARES = (1e-12, 1e-3, 0.3, 1 - 1e-3, 1 - 1e-12)
DELTAS = (0.0, 1e-8, 1e-3, 0.6, 20.0)  # phi from 1e30 to 0.0025
WITH_ZEROS = [each for each in EVERY_LIKELIHOOD if each.zeros_site]


def concentration(overdispersion, phi, rate):
    return phi * rate if overdispersion == "proportional" else phi


def log_base(count, rate, phi):
    """Log probability of the base at few counts: a product over the events, exact for any concentration."""
    if phi is None:
        return stats.poisson(rate).logpmf(count)
    steps = [np.log1p(np.arange(k) / phi).sum() for k in np.atleast_1d(count)]
    spread = (count + phi) * np.log1p(rate / phi)
    return special.xlogy(count, rate) - spread + np.array(steps) - special.gammaln(np.atleast_1d(count) + 1.0)


def log_zero(rate, phi):
    return -rate if phi is None else -phi * np.log1p(rate / phi)


def expected(likelihood, share, count, rate, phi):
    other = np.log1p(-share) + log_base(count, rate, phi)
    if likelihood.zeros_site == "zi":
        return np.where(count == 0, np.logaddexp(np.log(share), np.log1p(-share) + log_zero(rate, phi)), other)
    return np.where(count == 0, np.log(share), other - np.log(-np.expm1(log_zero(rate, phi))))


def settings(likelihood):
    """(sites, phi of the base at a rate) over the ends of their ranges."""
    deltas = DELTAS if likelihood.overdispersion else (None,)
    for share, delta in itertools.product(SHARES, deltas):
        sites = {likelihood.zeros_site: share} | ({} if delta is None else {"delta": delta})
        params = sites | {name: np.asarray(x) for name, x in likelihood.derived(sites).items()}
        yield share, params, params.get("phi")


@pytest.mark.parametrize("likelihood", WITH_ZEROS, ids=lambda each: f"{each.name} {each.overdispersion or ''}")
class TestEveryLikelihoodWithZeros:
    def test_probabilities_are_right_at_the_ends_of_the_parameters(self, likelihood):
        for (share, params, phi), rate in itertools.product(settings(likelihood), RATES):
            count = np.array([0, 1, 2, 7, int(rate), int(rate + 3 * np.sqrt(rate))])
            known = None if phi is None else concentration(likelihood.overdispersion, phi, rate)
            found = likelihood.log_prob(count.astype(float), rate, params)
            right = expected(likelihood, share, count, rate, known)
            # sums of terms like y log r, whose own rounding is 2e-16 of them
            rounding = 1e-15 * (count * abs(np.log(rate)) + rate + special.gammaln(count + 1.0))
            assert np.all(np.abs(found - right) <= 1e-9 * np.abs(right) + 1e-12 + rounding), (share, params, rate)

    def test_gradients_are_finite_at_the_ends_of_the_parameters(self, likelihood):
        def total(rate, sites, count):
            params = sites | likelihood.derived(sites)
            return likelihood.log_prob(count, rate, likelihood.at(params, 2.5))

        slope = jax.jit(jax.grad(total, (0, 1)))
        for (_, params, _), rate in itertools.product(settings(likelihood), (0.0, 1e-300, 1e-100, *RATES)):
            sites = {site.name: jnp.asarray(params[site.name]) for site in likelihood.sites}
            for count in (0.0, 1.0, 9.0) if rate else (0.0,):
                found = jax.tree.leaves(slope(rate, sites, count))
                assert np.all(np.isfinite(found)), (params, rate, count)

    def test_below_and_at_least_are_complementary_tails(self, likelihood):
        for (share, params, phi), rate in itertools.product(settings(likelihood), RATES[:4]):
            count = np.array([0.0, 1, 2, 7, 60])
            known = None if phi is None else concentration(likelihood.overdispersion, phi, rate)
            found = likelihood.below(count, rate, params)
            pmf = np.exp(expected(likelihood, share, np.arange(60), rate, known))
            right = np.concatenate([[0.0], np.cumsum(pmf)])[count.astype(int)]
            np.testing.assert_allclose(found, right, atol=2e-8 if phi is not None and phi > 1e8 else 1e-11)


@pytest.mark.parametrize(
    "likelihood", EVERY_LIKELIHOOD[:4], ids=lambda each: f"{each.name} {each.overdispersion or ''}"
)
class TestEveryBase:
    @pytest.mark.parametrize(("rate", "delta"), [(0.05, 0.6), (3.0, 0.6), (3.0, 2.5), (60.0, 0.6), (0.4, 1e-5)])
    def test_positive_counts_are_drawn_from_the_truncated_law(self, likelihood, rate, delta):
        sites = {"delta": delta} if likelihood.overdispersion else {}
        params, size = sites | likelihood.derived(sites), 200_000
        params = {name: np.asarray(x) for name, x in params.items()}
        drawn = likelihood.sample_positive(np.full(size, rate), params, np.random.default_rng(3))
        phi = None if not sites else concentration(likelihood.overdispersion, 1 / delta**2, rate)
        law = stats.poisson(rate) if phi is None else stats.nbinom(phi, phi / (phi + rate))
        edges = np.unique(law.isf(law.sf(0) * np.array([0.9, 0.7, 0.5, 0.3, 0.1, 0.01, 1e-3])).astype(int))
        edges = edges[edges >= 1]
        shares = np.diff(np.concatenate([[0.0], (law.cdf(edges) - law.pmf(0)) / law.sf(0), [1.0]]))
        counted = np.diff(np.concatenate([[0], [(drawn <= edge).sum() for edge in edges], [size]]))
        is_told = shares * size > 5
        assert drawn.min() >= 1
        z = (counted - shares * size) / np.sqrt(shares * (1 - shares) * size + 1e-9)
        assert np.all(np.abs(z[is_told]) < 4.5)

    @pytest.mark.parametrize("rate", [1e-150, 1e-12, 1e12, 1e18])
    def test_positive_counts_of_any_rate_are_positive_integers(self, likelihood, rate):
        for delta in (0.0, 1e-3, 1.0, 1e3) if likelihood.overdispersion else (None,):
            sites = {} if delta is None else {"delta": delta}
            params = {name: np.asarray(x) for name, x in (sites | likelihood.derived(sites)).items()}
            drawn = likelihood.sample_positive(np.full(1000, rate), params, np.random.default_rng(0))
            assert drawn.dtype.kind == "i" and np.all(drawn >= 1)

    @pytest.mark.parametrize("rate", [1e-12, 1e-6, 0.02, 1.0, 60.0])
    def test_upper_tail_keeps_its_digits(self, likelihood, rate):
        sites = {"delta": 0.6} if likelihood.overdispersion else {}
        params = {name: np.asarray(x) for name, x in (sites | likelihood.derived(sites)).items()}
        phi = None if not sites else concentration(likelihood.overdispersion, 1 / 0.36, rate)
        law = stats.poisson(rate) if phi is None else stats.nbinom(phi, phi / (phi + rate))
        pmf = np.exp(log_base(np.arange(2000), rate, phi))
        found = likelihood.at_least(np.array([0.0, 1, 2, 5]), rate, params)
        np.testing.assert_allclose(found, [pmf[k:].sum() if k else 1.0 for k in (0, 1, 2, 5)], rtol=1e-9)
        assert found[1] == pytest.approx(law.sf(0), rel=1e-6)


@pytest.mark.parametrize("rate", [1e-9, 4.0])
def test_the_law_of_a_hurdle_is_drawn_from_while_it_is_traced(rate):
    likelihood, params = LIKELIHOODS["hurdle_negative_binomial"], {"hurdle": 0.3, "delta": 0.6, "phi": 1 / 0.36}

    def drawn(key, rates):
        return likelihood.distribution(rates, params).sample(key)

    keys = jax.random.split(jax.random.key(2), 3)
    found = np.asarray(jax.jit(jax.vmap(drawn, (0, None)))(keys, jnp.full(2000, rate)))
    assert found.shape == (3, 2000) and len({each.tobytes() for each in found}) == 3
    assert abs(np.mean(found == 0) - 0.3) < 5 * np.sqrt(0.21 / 6000)
    np.testing.assert_array_equal(found[1], drawn(keys[1], jnp.full(2000, rate)))


@pytest.mark.parametrize("log_spread", [1e-8, 0.3, 3.0])
def test_clusters_are_logarithmic(log_spread):
    drawn = logarithmic(np.full(200_000, log_spread), np.random.default_rng(1))
    law = stats.logser(-np.expm1(-log_spread))
    for k in (1, 2, 5):
        share = law.cdf(k)
        assert abs(np.mean(drawn <= k) - share) < 5 * np.sqrt(share * (1 - share) / 200_000) + 1e-12


def test_clusters_of_a_vanishing_concentration_are_capped():
    assert np.all(logarithmic(np.full(1000, 60.0), np.random.default_rng(0)) <= LARGEST_CLUSTER)


@pytest.mark.parametrize("overdispersion", ["row", "unit", "proportional"])
def test_a_hurdle_bounds_no_large_delta(overdispersion):
    # log P(y | y > 0) falls like -log log delta: less than one power of delta in all, so `as_heavy_as_prior` names it
    likelihood = likelihood_of("hurdle_negative_binomial", overdispersion)

    def log_prob(delta):
        sites = {"hurdle": 0.3, "delta": delta}
        return float(likelihood.log_prob(7.0, 5.0, sites | likelihood.derived(sites)))

    slope = (log_prob(1e12) - log_prob(1e11)) / np.log(10.0)
    assert -0.05 < slope < 0.0
    assert likelihood.as_heavy_as_prior == ("delta",)
    plain = LIKELIHOODS["negative_binomial"]
    ends = [float(plain.log_prob(7.0, 5.0, {"phi": delta**-2})) for delta in (1e3, 1e4)]
    assert (ends[1] - ends[0]) / np.log(10.0) == pytest.approx(-2.0, abs=0.01)


@pytest.mark.parametrize("name", ["hurdle_poisson", "hurdle_negative_binomial"])
def test_a_hurdle_gives_a_one_no_small_probability_at_a_small_rate(name):
    likelihood = LIKELIHOODS[name]
    sites = {"hurdle": 0.3} | ({"delta": 0.6} if likelihood.overdispersion else {})
    found = likelihood.log_prob(np.array([1.0, 2.0]), 1e-9, sites | likelihood.derived(sites))
    assert found[0] == pytest.approx(np.log(0.7), abs=1e-8)
    assert found[1] < -20
    assert likelihood.least_telling == 2


@pytest.mark.parametrize("name", ["hurdle_poisson", "hurdle_negative_binomial"])
def test_below_keeps_its_digits_at_a_small_rate(name):
    likelihood, rate = LIKELIHOODS[name], 1e-13
    found = likelihood.below(np.array([1.0, 2.0]), rate, {"hurdle": 0.3, "delta": 0.6, "phi": 1 / 0.36})
    np.testing.assert_allclose(found, [0.3, 1.0], atol=1e-12)  # a second event has a probability near rate / 2


def test_a_hurdle_of_the_base_s_own_zeros_is_the_base():
    rate, delta = 3.0, 0.7
    zero = float(np.exp(LIKELIHOODS["negative_binomial"].log_prob(0.0, rate, {"phi": 1 / delta**2})))
    params = {"hurdle": zero, "delta": delta, "phi": 1 / delta**2}
    count = np.arange(30.0)
    np.testing.assert_allclose(
        LIKELIHOODS["hurdle_negative_binomial"].log_prob(count, rate, params),
        LIKELIHOODS["negative_binomial"].log_prob(count, rate, params),
        rtol=1e-12,
    )
