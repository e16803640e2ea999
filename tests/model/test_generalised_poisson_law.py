"""Consul's generalised Poisson law against sums in 60 digits, at rates and dispersions of every kind."""

import functools
from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from poolwise.counts.cells import counts_from_rows
from poolwise.model import generalised_poisson_law as law
from poolwise.model.likelihoods import LIKELIHOODS

GENERALISED_POISSON = LIKELIHOODS["generalised_poisson"]
UNDER = [-0.99, -0.9, -0.5, -0.3, -0.1, -0.05]
SMALL = [1e-6, 0.02, 0.1, 0.4, 0.7, 1.0, 2.0, 5.0, 9.3]


@functools.cache
def terms(rate, xi, number, first=0):
    """P of `number` counts in 60 digits, not normalised; 0 for a count that is not possible. 0 to 3 always are."""
    with localcontext(prec=60):
        rate, xi = Decimal(rate), Decimal(xi)
        xi = max(xi, -rate / (4 - rate)) if rate < 2 else xi
        theta, found, factorial = rate * (1 - xi), [], Decimal(int(special.factorial(first, exact=True)))
        for k in range(first, first + number):
            factorial *= max(k, 1) if k > first else 1
            w = theta + xi * k
            found.append(theta * w ** (k - 1) * (-w).exp() / factorial if w > Decimal("1e-50") else Decimal(0))
        return found


def log_prob(count, rate, xi):
    return np.asarray(law.GeneralisedPoissonLaw(rate, xi).log_prob(np.asarray(count, float)))


@pytest.mark.parametrize("xi", [-0.95, -0.4, -0.05, -1e-9, 0.0, 1e-3, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("rate", [1e-6, 0.1, 0.5, 1.0, 9.3, 60.0])
def test_log_probabilities_are_those_of_sums_in_60_digits(rate, xi):
    known = terms(rate, xi, 150)
    with localcontext(prec=60):
        whole = sum(terms(rate, xi, 60)) if xi < 0 and rate < 60 else Decimal(1)  # 60: the miss is below 1e-60
        expected = np.array([float((p / whole).ln()) if p else -np.inf for p in known])
    np.testing.assert_allclose(log_prob(np.arange(150), rate, xi), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("xi", [-0.7, 0.0, 0.4])
@pytest.mark.parametrize(("rate", "first"), [(1e-3, 3000), (3000.0, 2950)])
def test_log_probabilities_of_large_counts_are_those_of_60_digits(rate, first, xi):
    known = terms(rate, xi, 3, first)
    expected = [float(p.ln()) if p else -np.inf for p in known]
    np.testing.assert_allclose(log_prob(first + np.arange(3), rate, xi), expected, rtol=1e-9)


@pytest.mark.parametrize("xi", [-0.7, -1e-3, 0.0, 0.4])
def test_log_probabilities_at_a_rate_of_a_million_are_those_of_60_digits(xi):
    # log y! by Stirling's series, whose first omitted term is below 1e-35
    count, found = [995_000, 1_000_000, 1_004_000], []
    with localcontext(prec=60):
        theta = Decimal(10) ** 6 * (1 - Decimal(xi))
        half_log_two_pi = Decimal("0.918938533204672741780329736405617639861397473637783412817152")
        for y in map(Decimal, count):
            w = theta + Decimal(xi) * y
            log_factorial = (y + Decimal("0.5")) * y.ln() - y + half_log_two_pi + 1 / (12 * y) - 1 / (360 * y**3)
            found.append(float(theta.ln() + (y - 1) * w.ln() - w - log_factorial))
    np.testing.assert_allclose(log_prob(count, 1e6, xi), found, rtol=1e-9)


@pytest.mark.parametrize("xi", UNDER)
@pytest.mark.parametrize("rate", [*SMALL, 20.0, 1000.0])
def test_law_is_normalised_wherever_its_sum_misses_one(rate, xi):
    number = int(rate + 20 * np.sqrt(rate) + 60)
    miss = float(sum(terms(rate, xi, number)) - 1)
    assert law.few_possible(rate, xi) or abs(miss) < 1e-12
    assert abs(miss) < 0.005
    assert np.exp(log_prob(np.arange(number + 5), rate, xi)).sum() == pytest.approx(1.0, abs=2e-13)


@pytest.mark.parametrize("xi", UNDER)
@pytest.mark.parametrize("rate", SMALL)
def test_moments_are_sums_over_the_possible_counts(rate, xi):
    known = np.array([float(p) for p in terms(rate, xi, 200)])
    mean, square = (known @ np.arange(200.0) ** power / known.sum() for power in (1, 2))
    found = GENERALISED_POISSON.moments_at(np.array(rate), {"xi": np.array(xi)})
    np.testing.assert_allclose(found, (mean, square), rtol=1e-10, atol=1e-12)


def test_mean_and_variance_of_few_possible_counts_are_only_about_those_of_many():
    rate, xi = np.meshgrid(np.geomspace(1e-6, 1e3, 400), np.linspace(-0.999, 0.0, 200))
    found = law.GeneralisedPoissonLaw(rate, xi)
    bounded = np.maximum(xi, -rate / (4 - np.minimum(rate, 2)))
    off, of_variance = np.abs(found.mean / rate - 1), np.abs(found.variance * (1 - bounded) ** 2 / rate - 1)
    assert 0.004 < off.max() < 0.005 and off[rate > 5].max() < 1e-6
    assert 0.02 < of_variance.max() < 0.03


def test_a_strong_dispersion_at_a_small_rate_stands_for_its_bound():
    # at r = 1 the counts 0 to 3 are possible from xi = -1/3 on
    np.testing.assert_allclose(log_prob(np.arange(6), 1.0, -0.9), log_prob(np.arange(6), 1.0, -1 / 3), rtol=1e-12)
    assert np.isfinite(log_prob([0, 1, 2, 3], 1e-6, -0.99)).all() and np.isneginf(log_prob(4, 1e-6, -0.99))


def test_a_count_that_is_not_possible_has_probability_0():
    # theta = 1.3 and xi = -0.3: the counts from 0 to 4 have theta + xi y > 0
    assert np.isneginf(log_prob([5, 30, 1000], 1.0, -0.3)).all() and np.isfinite(log_prob([0, 4], 1.0, -0.3)).all()


@pytest.mark.filterwarnings("error")
def test_gradients_are_numbers_everywhere():
    count, rate, xi = np.meshgrid(
        [0.0, 1, 2, 5, 30, 1000],
        [1e-300, 1e-6, 0.2, 0.5, 3, 17, 60, 1e4, 1e129],
        [-0.999999, -0.5, -1e-12, 0, 0.5, 1 - 1e-12],
    )
    one = jax.grad(lambda y, r, x: law.GeneralisedPoissonLaw(r, x).log_prob(y), argnums=(1, 2))
    for found in jax.jit(jax.vmap(one))(count.ravel(), rate.ravel(), xi.ravel()):
        assert np.isfinite(found).all()


@pytest.mark.parametrize(("count", "rate", "xi"), [(3, 6.0, -0.4), (0, 0.3, -0.2), (2, 1.5, -0.5), (5, 9.0, 0.3)])
def test_gradients_are_differences(count, rate, xi):
    by_rate, by_xi = jax.grad(lambda r, x: law.GeneralisedPoissonLaw(r, x).log_prob(float(count)), (0, 1))(rate, xi)
    h = 1e-6
    assert by_rate == pytest.approx((log_prob(count, rate + h, xi) - log_prob(count, rate - h, xi)) / (2 * h), abs=1e-8)
    assert by_xi == pytest.approx((log_prob(count, rate, xi + h) - log_prob(count, rate, xi - h)) / (2 * h), abs=1e-8)


def test_no_row_of_an_impossible_count_adds_nothing():
    # cells that leave-one-out empties keep their place
    statistics = GENERALISED_POISSON.statistics.of(counts_from_rows(["a", "a"], [0, 30]))
    statistics |= {"cell_rows": np.array([1.0, 0.0])}
    found = jax.value_and_grad(
        lambda lam: GENERALISED_POISSON.log_likelihood(statistics, lam[None], {"xi": jnp.asarray(-0.3)})
    )(1.0)
    assert found[0] == pytest.approx(float(log_prob(0, 1.0, -0.3)), rel=1e-14) and np.isfinite(found[1])


LARGE = [(300, -0.99), (400, -0.5), (1000, 0.0), (1000, 0.5), (50, 0.9), (1, 0.95), (5, 0.99), (2000, 0.9)]


@pytest.mark.parametrize(("rate", "xi"), LARGE)
def test_below_of_large_counts_is_the_sum_of_all_terms(rate, xi):
    count = np.arange(6000.0)
    expected = np.append(0.0, np.cumsum(np.exp(log_prob(count, float(rate), xi))))[:-1]
    np.testing.assert_allclose(law.below(count, float(rate), np.array(xi)), expected, atol=1e-10)


@pytest.mark.parametrize("rate", [1e9, 2.0**53])
@pytest.mark.parametrize("xi", [-0.9, 0.0, 0.5])
def test_below_of_huge_counts_is_normal(rate, xi):
    place = np.array([-8.0, -3.0, 0.0, 2.0, 9.0])
    found = law.below(np.round(rate + place * np.sqrt(rate) / (1 - xi)), rate, np.array(xi))
    np.testing.assert_allclose(found, stats.norm.cdf(place), atol=1e-4)  # its skewness is below 1e-4


@pytest.mark.parametrize("xi", [-0.5, 0.5])
def test_below_is_0_or_1_where_no_count_is_in_the_bulk(xi):
    assert law.below(np.array([8e5, 1.2e6]), 1e6, np.array(xi)).tolist() == [0.0, 1.0]


def chi_square_p(drawn, expected):
    """P of Pearson's statistic of counts against their probabilities, in classes of at least 20 expected."""
    observed = np.bincount(drawn, minlength=expected.size)[: expected.size]
    is_kept = expected * drawn.size > 20
    rest = [drawn.size - observed[is_kept].sum(), drawn.size * (1 - expected[is_kept].sum())]
    observed, expected = np.append(observed[is_kept], rest[0]), np.append(expected[is_kept] * drawn.size, rest[1])
    return stats.chi2.sf(np.sum((observed - expected) ** 2 / np.maximum(expected, 1.0)), observed.size - 1)


@pytest.mark.parametrize("xi", [-0.9, -0.3, -0.05, 0.0, 0.4, 0.8])
@pytest.mark.parametrize("rate", [0.6, 1.7, 6.0, 40.0])
def test_draws_have_the_probabilities(rate, xi):
    known = np.array([float(p) for p in terms(rate, xi, 200)])
    drawn = law.drawn(np.full(200_000, rate), np.array(xi), np.random.default_rng(0))
    assert chi_square_p(drawn, known / (known.sum() if xi < 0 else 1.0)) > 1e-4


@pytest.mark.parametrize(("rate", "xi"), [(1.7, -0.6), (6.0, 0.5)])
def test_draws_of_the_distribution_have_the_probabilities(rate, xi):
    known = np.array([float(p) for p in terms(rate, xi, 200)])
    drawn = law.GeneralisedPoissonLaw(rate, xi).sample(jax.random.key(0), (100_000,))
    assert chi_square_p(np.asarray(drawn).astype(int), known / (known.sum() if xi < 0 else 1.0)) > 1e-4


@pytest.mark.parametrize("rate", [1e6, 2.0**53])
@pytest.mark.parametrize("xi", [-0.9, -0.1, 0.5])
def test_draws_at_huge_rates_have_the_mean_and_variance(rate, xi):
    off = law.drawn(np.full(50_000, rate), np.array(xi), np.random.default_rng(1)) - int(rate)
    sd = np.sqrt(rate) / (1 - xi)
    assert abs(off.mean()) < 5 * sd / np.sqrt(50_000)
    assert off.std() == pytest.approx(sd, rel=5 / np.sqrt(100_000))


@pytest.mark.parametrize("xi", UNDER)
@pytest.mark.parametrize("rate", [0.6, 1.7, 9.3, 60.0])
def test_law_is_log_concave_for_less_noise(rate, xi):
    # so that its draws may be those of a rejection from a flat top with exponential tails
    log_probability = log_prob(np.arange(2000), rate, xi)
    assert np.all(np.diff(log_probability[np.isfinite(log_probability)], 2) < 0)


@pytest.mark.parametrize("xi", [0.0, 0.3])
def test_rows_of_one_rate_add_up(xi):
    one, two = (np.exp(log_prob(np.arange(100), rate, xi)) for rate in (2.0, 5.0))
    np.testing.assert_allclose(np.convolve(one, two)[:100], np.exp(log_prob(np.arange(100), 7.0, xi)), rtol=1e-10)
