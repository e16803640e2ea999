"""What every likelihood promises, held for all of them. A new one adds a row to `CASES`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy import special, stats

from poolwise.counts.cells import counts_from_rows
from poolwise.model.count_model import SITES, count_model
from poolwise.model.likelihoods import EVERY_LIKELIHOOD, LIKELIHOODS, likelihood_of
from poolwise.model.marginal_quadrature import RateIntegral, Rows
from poolwise.model.sites import Support


@dataclass(frozen=True)
class Case:
    """A likelihood with values of its sites, SciPy's distribution at rate r and exposure e, and values at which it is
    the Poisson."""

    name: str
    reference: Callable[[float, float], Callable]  # (rate, exposure) -> pmf(count) as a function
    overdispersion: str | None = None
    sites: dict[str, float] = field(default_factory=dict)
    poisson_at: dict[str, float] = field(default_factory=dict)


def negative_binomial(mean, concentration):
    return stats.nbinom(concentration, concentration / (concentration + mean))


def generalised_poisson(mean, xi):
    """Pmf for xi < 0, normalised over the counts that are possible: at least 0 to 3."""
    xi = max(xi, -mean / (4 - mean)) if mean < 2 else xi
    theta, possible = mean * (1 - xi), np.arange(int(np.ceil(mean * (1 - xi) / -xi - 1e-9)))
    w = theta + xi * possible
    pmf = np.exp(np.log(theta) + (possible - 1) * np.log(w) - w - special.gammaln(possible + 1))
    pmf = np.append(pmf / pmf.sum(), np.zeros(4000))
    return lambda count: pmf[count]


# concentration at rate r and exposure e, for delta = 0.6
CONCENTRATIONS = {
    "row": lambda r, e: 1 / 0.36,
    "unit": lambda r, e: e / 0.36,
    "proportional": lambda r, e: r / 0.36,
}
BASES = [(None, {}, lambda r, e: stats.poisson(r))] + [
    (overdispersion, {"delta": 0.6}, lambda r, e, law=law: negative_binomial(r, law(r, e)))
    for overdispersion, law in CONCENTRATIONS.items()
]


def inflated(base):
    """0 with probability 0.3, else a count of the base."""
    return lambda k: 0.3 * (k == 0) + 0.7 * base.pmf(k)


def with_hurdle(base):
    """0 with probability 0.3, else a positive count of the base."""
    return lambda k: np.where(k == 0, 0.3, 0.7 * base.pmf(k) / base.sf(0))


CASES = [
    Case(
        kind.format("negative_binomial" if overdispersion else "poisson"),
        lambda r, e, law=law, base=base: law(base(r, e)),
        overdispersion,
        own | sites,
        dict.fromkeys(sites, 1e-09) | limit,
    )
    for kind, own, law, limit in (
        ("{}", {}, lambda base: base.pmf, {}),
        ("zero_inflated_{}", {"zi": 0.3}, inflated, {"zi": 1e-12}),
        ("hurdle_{}", {"hurdle": 0.3}, with_hurdle, {"hurdle": np.exp(-9.3)}),  # P(0) at the rate of the limit
    )
    for overdispersion, sites, base in BASES
] + [
    Case(
        "generalised_poisson",
        lambda r, e: generalised_poisson(r, -0.3),
        sites={"xi": -0.3},
        poisson_at={"xi": 1e-12},
    ),
]
EXPOSURE = 2.5
RATES = [0.02, 1.0, 9.3, 60.0]
COUNTS = np.arange(400)
TABLE = counts_from_rows(
    ["a"] * 5 + ["b"] * 4 + ["c"] * 6,
    [0, 3, 3, 0, 7, 12, 9, 0, 9, 1, 0, 0, 2, 0, 4],
    [1.0, 1, 1, 2, 2, 1, 1, 3, 1] + [0.5] * 6,
)


@pytest.fixture(params=CASES, ids=lambda case: f"{case.name} {case.overdispersion or ''}".strip())
def case(request):
    return request.param


@pytest.fixture
def likelihood(case):
    return likelihood_of(case.name, case.overdispersion)


def params_of(likelihood, sites):
    return sites | {name: np.asarray(x) for name, x in likelihood.derived(jax.tree.map(jnp.asarray, sites)).items()}


@pytest.fixture
def params(case, likelihood):
    return params_of(likelihood, case.sites)


@pytest.fixture
def at_exposure(likelihood, params):
    return likelihood.at(params, EXPOSURE)


def test_every_likelihood_has_a_row():
    rows = [(case.name, case.overdispersion) for case in CASES]
    assert sorted(rows, key=str) == sorted(((each.name, each.overdispersion) for each in EVERY_LIKELIHOOD), key=str)


def test_registered_under_its_own_name_and_a_short_one(case, likelihood):
    assert likelihood.name == case.name
    assert len({each.short for each in LIKELIHOODS.values()}) == len(LIKELIHOODS)


def test_sites_have_values_in_their_support_and_names_of_their_own(case, likelihood):
    assert case.sites.keys() == {site.name for site in likelihood.sites}
    inside = {Support.POSITIVE: (0, np.inf), Support.UNIT: (0, 1), Support.SIGNED_UNIT: (-1, 1)}
    for name, value in case.sites.items():
        low, high = inside[SITES[name].support]
        assert low < value < high


def test_parameters_are_the_sites_and_what_is_derived(likelihood, params):
    assert set(likelihood.parameters) == set(params)


def test_parameters_are_named_without_a_warning_in_single_precision(likelihood):
    with jax.enable_x64(False):  # a warning is an error in this suite
        assert set(likelihood.parameters) >= {site.name for site in likelihood.sites}


@pytest.mark.parametrize("rate", RATES)
def test_probabilities_are_those_of_scipy(case, likelihood, at_exposure, rate):
    found = np.exp(likelihood.log_prob(COUNTS.astype(float), rate, at_exposure))
    np.testing.assert_allclose(found, case.reference(rate, EXPOSURE)(COUNTS), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("rate", RATES)
def test_log_prob_is_that_of_the_distribution(likelihood, params, rate):
    counts = COUNTS[:150].astype(float)
    np.testing.assert_allclose(
        likelihood.log_prob(counts, rate, params),
        likelihood.distribution(rate, params).log_prob(counts),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("rate", RATES)
def test_probabilities_sum_to_one(likelihood, params, rate):
    total = logsumexp(likelihood.log_prob(np.arange(4000.0), rate, params))
    assert abs(float(total)) < 1e-9


@pytest.mark.parametrize("rate", RATES)
def test_below_is_the_sum_of_all_smaller_counts(case, likelihood, at_exposure, rate):
    counts = np.array([0, 1, 2, 5, 30])
    found = likelihood.below(counts.astype(float), np.full(5, rate), at_exposure)
    pmf = case.reference(rate, EXPOSURE)
    np.testing.assert_allclose(found, [pmf(np.arange(k)).sum() for k in counts], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_samples_have_the_mean_and_variance_of_the_distribution(likelihood, params, rate):
    number = 100_000
    drawn = likelihood.sample(np.full(number, rate), params, np.random.default_rng(1))
    law = likelihood.distribution(rate, params)
    mean, variance = float(law.mean), float(law.variance)
    assert abs(drawn.mean() - mean) <= 5 * np.sqrt(variance / number)  # 0 where no count but 0 is possible
    fourth = float(np.mean((drawn - mean) ** 4.0))
    assert abs(drawn.var() - variance) <= 5 * np.sqrt(max(fourth - variance**2, variance) / number)
    assert drawn.dtype.kind in "iu"


def test_moments_are_those_of_the_distribution_averaged_over_rates(likelihood, params):
    rate = np.random.default_rng(2).gamma(3.0, 2.0, 50)
    mean, square = likelihood.moments_at(rate, params)
    found = likelihood.moments(np.mean(rate), np.mean(rate**2), params)
    if found is not None:
        np.testing.assert_allclose(found, [np.mean(mean), np.mean(square)], rtol=1e-10)


def test_moments_at_a_rate_are_those_of_the_probabilities(case, likelihood, at_exposure):
    counts = np.arange(3000)
    mean, square = likelihood.moments_at(np.array(RATES), at_exposure)
    for i, rate in enumerate(RATES):
        probability = case.reference(rate, EXPOSURE)(counts)
        np.testing.assert_allclose([mean[i], square[i]], [probability @ counts, probability @ counts**2.0], rtol=1e-9)


def test_sum_of_the_table_is_the_sum_over_its_rows(likelihood, params):
    lam = jnp.array([1.3, 6.0, 0.8])
    group, exposure, count = TABLE.rows()
    rows = likelihood.log_prob(count.astype(float), exposure * lam[group], likelihood.at(params, exposure)).sum()
    found = likelihood.log_likelihood(likelihood.statistics.of(TABLE), lam, params)
    np.testing.assert_allclose(found, rows, rtol=1e-11)


def test_statistics_of_simulated_rows_are_those_of_a_table(likelihood, params):
    lam, statistics = jnp.array([1.3, 6.0, 0.8]), likelihood.statistics
    group, exposure, count = TABLE.rows()
    both = statistics.design(TABLE) | statistics.of_table(count.astype(float), group, exposure, TABLE.row_x)
    np.testing.assert_allclose(
        likelihood.log_likelihood(both, lam, params),
        likelihood.log_likelihood(statistics.of(TABLE), lam, params),
        rtol=1e-12,
    )


def test_information_is_positive(likelihood, params):
    found = likelihood.information(likelihood.statistics.of(TABLE), jnp.array([1.3, 6.0, 0.8]), params)
    assert found.shape == (3,)
    assert np.all(found > 0)


def test_limit_is_the_poisson(case, likelihood):
    if case.sites:
        found = likelihood.log_prob(np.arange(60.0), 9.3, params_of(likelihood, case.poisson_at))
        np.testing.assert_allclose(found, stats.poisson(9.3).logpmf(np.arange(60)), rtol=1e-6)


@pytest.mark.parametrize("shape", [0.7, 12.0])
def test_marginal_likelihood_is_the_integral_over_the_rate(likelihood, params, shape):
    mu = 4.0
    given = {name: np.full((1, 1), value) for name, value in params.items()}
    posterior = given | {"mu": np.full((1, 1), mu), "alpha": np.full((1, 1), shape)}
    families = {"mu": "Gamma", "sigma": "Exponential"} | {site.name: "HalfNormal" for site in likelihood.sites}
    model = count_model("hierarchical", likelihood.name, families, overdispersion=likelihood.overdispersion)
    rows = Rows.of(TABLE, np.arange(4))
    found = RateIntegral.of(model, {}, posterior).log_marginal(rows)
    log_lam, step = np.linspace(-40, 8, 20_001, retstep=True)
    log_density = stats.gamma(shape, scale=mu / shape).logpdf(np.exp(log_lam)) + log_lam
    for exposure, count, rows_of_cell in zip(rows.exposure, rows.count, rows.multiplicity, strict=True):
        of_row = likelihood.at(params, exposure)
        log_density = log_density + rows_of_cell * likelihood.log_prob(float(count), exposure * np.exp(log_lam), of_row)
    np.testing.assert_allclose(found.item(), float(logsumexp(log_density) + np.log(step)), rtol=1e-6)


def test_words_are_sentences_and_formulas_name_the_count(likelihood):
    assert likelihood.meaning.endswith(".")
    assert "y<sub>i</sub>" in likelihood.formula[0][0]
    assert all(site.meaning and site.symbol for site in likelihood.sites)
