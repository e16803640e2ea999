"""The exact oracle: against a second implementation, SciPy's quadrature, its own other routes, and limits."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp

import exact_reference
from poolwise.checks.exact import solve as exact
from poolwise.checks.exact.solve import NotExact, reason_against, solve
from poolwise.counts.cells import Counts, counts_from_rows
from poolwise.model import priors as laws
from poolwise.model.count_model import POOLINGS, count_model, sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, VARIANTS, groups_of, model_of

pytestmark = pytest.mark.fit

MARGINAL_AND_ELPD = {  # of the cookies: 700 x 1400 and 1200 x 300 grids, computed before this project's code
    ("pooled", "poisson"): (-423.99152861771, -421.97780824976),
    ("unpooled", "poisson"): (-401.94837951723, -394.77865079207),
    ("hierarchical", "poisson"): (-401.68421757551, -394.83092930670),
    ("pooled", "negative_binomial"): (-416.07050084501, -413.09101571250),
    ("unpooled", "negative_binomial"): (-401.89579463129, -394.15495934075),
    ("hierarchical", "negative_binomial"): (-401.60594808, -394.24386725),
}
# a hierarchical negative binomial of few rows spreads over four dimensions: a minute of quadrature
LARGEST_SLOW = [*VARIANTS[:-1], pytest.param(*VARIANTS[-1], marks=pytest.mark.slow)]
GAUSS = np.polynomial.legendre.leggauss(200)
OTHER = {  # no conjugacy, bounds, heavy tails
    "lam": {"name": "LogNormal", "loc": 1.0, "scale": 1.0},
    "mu": {"name": "Weibull", "scale": 5.0, "concentration": 2.0},
    "sigma": {"name": "HalfCauchy", "scale": 2.0},
    "delta": {"name": "Uniform", "low": 0.1, "high": 1.0},
}


def answer(pooling: str, likelihood: str, counts: Counts, priors: dict = PRIORS) -> exact.Exact:
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    return solve(model_of(pooling, likelihood, priors), counts, values)


def small(*, without_group: str = "", without_row: int = -1) -> Counts:
    """Seven rows of three groups with different exposures, less some."""
    rows = list(zip("aabbbcc", [3, 5, 0, 2, 9, 7, 7], [1.0, 2.5, 1.0, 0.5, 3.0, 1.0, 1.0], strict=True))
    kept = [row for i, row in enumerate(rows) if i != without_row and row[0] != without_group]
    return counts_from_rows(*zip(*kept, strict=True))


@pytest.fixture(scope="module")
def of_cookies(cookies):
    """`of_cookies(pooling, likelihood)`: solved once."""
    return functools.cache(lambda pooling, likelihood: answer(pooling, likelihood, cookies))


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_cookies_agree_with_the_published_numbers(pooling, likelihood, of_cookies):
    found, (log_marginal, elpd_loo) = of_cookies(pooling, likelihood), MARGINAL_AND_ELPD[pooling, likelihood]
    tolerance = 5e-7 if (pooling, likelihood) == ("hierarchical", "negative_binomial") else 5e-9
    assert found.log_marginal == pytest.approx(log_marginal, abs=tolerance)
    assert found.elpd_loo == pytest.approx(elpd_loo, abs=tolerance * 10)
    assert found.error <= exact.TOLERANCE


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_cookies_agree_with_the_reference_in_every_moment_and_cell(pooling, likelihood, of_cookies, exact_of, cookies):
    found, expected = of_cookies(pooling, likelihood), exact_of(pooling, likelihood)
    for site in expected.mean:
        np.testing.assert_allclose(found.mean[site], expected.mean[site], rtol=1e-7)
        np.testing.assert_allclose(found.sd[site], expected.sd[site], rtol=1e-6)
    assert found.mean.keys() == expected.mean.keys() == found.sd.keys()
    by_row = np.repeat(found.cell_elpd, cookies.cell_multiplicity)
    np.testing.assert_allclose(by_row, np.repeat(expected.elpd, expected.multiplicity), atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_recorded_reference_is_what_the_reference_computes(pooling, likelihood, cookies, exact_of):
    found, recorded = exact_reference.exact(pooling, likelihood, groups_of(cookies)), exact_of(pooling, likelihood)
    for name, value in vars(recorded).items():
        pairs = value.items() if isinstance(value, dict) else [(name, value)]
        for key, each in pairs:
            computed = getattr(found, name)[key] if isinstance(value, dict) else getattr(found, name)
            assert computed is each is None or np.allclose(computed, each, rtol=1e-10, atol=1e-10), key


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_new_group_of_a_hierarchy_agrees_with_the_reference(likelihood, of_cookies, exact_of):
    # 9.103477 and 3.860460 (Poisson), 9.104651 and 4.104927 (negative binomial)
    expected = exact_of("hierarchical", likelihood)
    found = of_cookies("hierarchical", likelihood).new_group
    assert found == pytest.approx((expected.new_group_mean, expected.new_group_sd), rel=1e-7)


def test_unpooled_poisson_groups_left_out_make_up_the_marginal(of_cookies):
    # independent groups: log p(y_g | y_-g) = log p(y_g)
    found = of_cookies("unpooled", "poisson")
    assert found.leave_group_out.sum() == pytest.approx(-401.94837951723, abs=1e-9)


@pytest.mark.parametrize("priors", [PRIORS, OTHER], ids=["notebook", "other"])
@pytest.mark.parametrize(("pooling", "likelihood"), LARGEST_SLOW)
def test_left_out_rows_and_groups_are_ratios_of_marginals(pooling, likelihood, priors):
    whole = answer(pooling, likelihood, small(), priors)
    less_group = answer(pooling, likelihood, small(without_group="b"), priors)
    less_row = answer(pooling, likelihood, small(without_row=1), priors)
    assert whole.leave_group_out[1] == pytest.approx(whole.log_marginal - less_group.log_marginal, abs=2e-6)
    assert whole.cell_elpd[1] == pytest.approx(whole.log_marginal - less_row.log_marginal, abs=2e-6)


@pytest.mark.parametrize(("pooling", "likelihood"), LARGEST_SLOW)
def test_groups_far_from_each_other_are_left_out_as_well(pooling, likelihood):
    # rates of 5 and 50: the posterior of one group has no mass where that of both has
    both = counts_from_rows(list("aaabbb"), [4, 6, 5, 52, 48, 50])
    whole = answer(pooling, likelihood, both)
    for g, rows in enumerate(([52, 48, 50], [4, 6, 5])):
        rest = answer(pooling, likelihood, counts_from_rows(list("aaa"), rows))
        assert whole.leave_group_out[g] == pytest.approx(whole.log_marginal - rest.log_marginal, abs=2e-6)


# Brute force: Gauss-Legendre sums over fixed ranges, the densities by SciPy, one row after the other.


def law(site: str, priors: dict):
    return laws.law(priors[site]["name"], {key: value for key, value in priors[site].items() if key != "name"})


def gauss(low: float, high: float, num: int) -> tuple[np.ndarray, np.ndarray]:
    x, weight = np.polynomial.legendre.leggauss(num)
    return low + (high - low) * (x + 1) / 2, weight * (high - low) / 2


def likelihood_of_groups(counts: Counts, lam: np.ndarray, delta: np.ndarray | None = None) -> np.ndarray:
    """p(y_g | lam, delta) of every group, (G, ...); lam and delta broadcast."""
    product = np.ones((counts.num_groups, *np.broadcast_shapes(lam.shape, np.shape(delta))))
    for g, exposure, count in zip(*counts.rows(), strict=True):
        noise = stats.poisson(exposure * lam) if delta is None else negative_binomial(exposure * lam, delta)
        product[g] *= noise.pmf(count)
    return product


def negative_binomial(mean: np.ndarray, delta: np.ndarray):
    return stats.nbinom(delta**-2, 1 / (1 + delta**2 * mean))


def test_negative_binomials_agree_with_brute_force():
    delta, weight = gauss(0.1, 1.0, 16)
    lam, step = np.exp(np.linspace(-9.0, 7.0, 400)), 16 / 399
    by_lam = law("lam", OTHER).pdf(lam) * lam * step  # (L,)
    weight = weight * law("delta", OTHER).pdf(delta)
    factor = likelihood_of_groups(small(), lam, delta[:, None])  # (G, D, L)
    pooled = factor.prod(axis=0) @ by_lam * weight  # (D,)
    unpooled = np.prod(factor @ by_lam, axis=0) * weight
    for pooling, z in (("pooled", pooled), ("unpooled", unpooled)):
        found = answer(pooling, "negative_binomial", small(), OTHER)
        assert found.log_marginal == pytest.approx(np.log(z.sum()), abs=1e-7)
        assert found.mean["delta"] == pytest.approx(z @ delta / z.sum(), rel=1e-6)
        assert found.sd["delta"] == pytest.approx(
            np.sqrt(z @ delta**2 / z.sum() - (z @ delta / z.sum()) ** 2), rel=1e-5
        )


def test_hierarchical_poisson_agrees_with_brute_force():
    # sigma = 2 tan(angle) makes the HalfCauchy uniform; given mu and sigma the total of a group is negative binomial
    (mu, weight), (angle, by_angle) = gauss(0.0, 40.0, 200), gauss(0.0, np.pi / 2, 400)
    sigma, counts = 2 * np.tan(angle)[:, None], small()
    joint = (weight * law("mu", OTHER).pdf(mu)) * (by_angle * 2 / np.pi)[:, None]  # (S, M)
    group, exposure, count = counts.rows()
    for g in range(counts.num_groups):
        total, each = exposure[group == g].sum(), count[group == g]
        joint *= negative_binomial(total * mu, sigma / mu).pmf(each.sum())
        joint *= stats.multinomial.pmf(each, each.sum(), exposure[group == g] / total)
    found = answer("hierarchical", "poisson", counts, OTHER)
    assert found.log_marginal == pytest.approx(np.log(joint.sum()), abs=1e-6)
    assert found.mean["mu"] == pytest.approx(np.sum(joint * mu) / joint.sum(), rel=1e-6)
    assert found.mean["sigma"] == pytest.approx(np.sum(joint * sigma) / joint.sum(), rel=1e-4)


def test_hierarchical_negative_binomial_agrees_with_brute_force():
    priors = OTHER | {"sigma": {"name": "Gamma", "concentration": 3.0, "rate": 2.0}}
    (mu, by_mu), (sigma, by_sigma), (delta, by_delta) = gauss(0.0, 25.0, 40), gauss(0.0, 14.0, 40), gauss(0.1, 1.0, 8)
    quantile, by_quantile = gauss(0.0, 1.0, 40)
    quantile, by_quantile = quantile**2 * (3 - 2 * quantile), by_quantile * 6 * quantile * (1 - quantile)
    by_mu, by_sigma, by_delta = (
        weight * law(site, priors).pdf(x)
        for site, x, weight in (("mu", mu, by_mu), ("sigma", sigma, by_sigma), ("delta", delta, by_delta))
    )
    shape = (mu / sigma[:, None]) ** 2  # (S, M)
    lam = stats.gamma.ppf(quantile, shape[..., None], scale=(mu / shape)[..., None])  # (S, M, Q)
    log_z = np.array(
        [np.prod(likelihood_of_groups(small(), lam, d) @ by_quantile, axis=0) @ by_mu @ by_sigma for d in delta]
    )
    found = answer("hierarchical", "negative_binomial", small(), priors)
    assert found.log_marginal == pytest.approx(np.log(log_z @ by_delta), abs=1e-4)
    assert found.mean["delta"] == pytest.approx((log_z * by_delta) @ delta / (log_z @ by_delta), rel=1e-4)


# Two routes and limits.


@pytest.mark.parametrize("pooling", ["pooled", "unpooled"])
def test_closed_form_and_quadrature_agree(pooling, cookies):
    # an Exponential is taken as a gamma, in closed form; the same law as a Weibull is integrated
    closed = PRIORS | {"lam": {"name": "Exponential", "rate": 0.2}}
    numeric = PRIORS | {"lam": {"name": "Weibull", "scale": 5.0, "concentration": 1.0}}
    one, other = (answer(pooling, "poisson", cookies, priors) for priors in (closed, numeric))
    assert one.error == 0.0 and other.error <= exact.TOLERANCE
    np.testing.assert_allclose(one.cell_elpd, other.cell_elpd, atol=1e-8)
    np.testing.assert_allclose(one.leave_group_out, other.leave_group_out, atol=1e-6)
    np.testing.assert_allclose(one.mean["lam"], other.mean["lam"], rtol=1e-8)
    np.testing.assert_allclose(one.sd["lam"], other.sd["lam"], rtol=1e-6)
    assert one.new_group == pytest.approx(other.new_group, rel=1e-7)


def million() -> Counts:
    """A million rows of five groups, in 131 cells: Poisson counts."""
    rng = np.random.default_rng(0)
    rate = np.array([6.0, 8.0, 9.0, 10.0, 12.0])
    return counts_from_rows(np.repeat(list("abcde"), 200_000), rng.poisson(np.repeat(rate, 200_000)))


def test_rounding_of_a_million_rows_is_no_lack_of_agreement():
    # log p(y) near -2.5e6 has an error of 1e-9, so that a difference of two, times a million rows, has 1e-3
    counts = million()
    numeric = PRIORS | {"lam": {"name": "Weibull", "scale": 5.0, "concentration": 1.0}}
    closed = PRIORS | {"lam": {"name": "Exponential", "rate": 0.2}}
    one, other = (answer("unpooled", "poisson", counts, priors) for priors in (closed, numeric))
    assert other.log_marginal == pytest.approx(one.log_marginal, rel=1e-14)
    assert other.elpd_loo == pytest.approx(one.elpd_loo, abs=5e-3)
    np.testing.assert_allclose(other.leave_group_out, one.leave_group_out, rtol=1e-13)
    assert exact.TOLERANCE < other.error < 5e-3


def test_a_million_rows_are_settled_by_two_grids(monkeypatch):
    # error relative to log p(y) near -2.5e6; the finer grids are a reference
    rng, made = np.random.default_rng(1), []
    rate, group = rng.gamma(9.0, 1.0, 4), rng.integers(0, 4, 1_000_000)
    counts = counts_from_rows(group, rng.poisson(rate[group]))
    integrate = exact._integrate
    monkeypatch.setattr(exact, "_integrate", lambda *args: made.append(args) or integrate(*args))
    coarse = answer("unpooled", "negative_binomial", counts)
    assert len(made) == 2
    assert coarse.error < exact.RELATIVE * abs(coarse.log_marginal)
    monkeypatch.setattr(exact, "STEPS", (0.29, 0.24))
    fine = answer("unpooled", "negative_binomial", counts)
    assert abs(coarse.elpd_loo - fine.elpd_loo) < coarse.error
    assert abs(coarse.log_marginal - fine.log_marginal) < coarse.error


@pytest.mark.parametrize("moving", ["log_z", "cell_elpd"])
def test_refinement_that_does_not_help_is_stopped(monkeypatch, moving):
    integrate, made = exact._integrate, []

    def unsettled(*args):
        made.append(integrate(*args))
        return replace(made[-1], **{moving: getattr(made[-1], moving) + (-1) ** len(made)})

    monkeypatch.setattr(exact, "_integrate", unsettled)
    monkeypatch.setattr(exact, "WORK", 0)
    with pytest.raises(exact.NotExact):
        answer("unpooled", "negative_binomial", small())
    assert len(made) == 3 < len(exact.STEPS)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_dispersion_is_the_poisson(pooling):
    priors = PRIORS | {"delta": {"name": "HalfNormal", "scale": 1e-6}}
    poisson, limit = answer(pooling, "poisson", small()), answer(pooling, "negative_binomial", small(), priors)
    assert limit.log_marginal == pytest.approx(poisson.log_marginal, abs=1e-7)
    np.testing.assert_allclose(limit.cell_elpd, poisson.cell_elpd, atol=1e-6)
    np.testing.assert_allclose(limit.leave_group_out, poisson.leave_group_out, atol=1e-6)
    assert limit.new_group == pytest.approx(poisson.new_group, rel=1e-6)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_no_spread_between_groups_is_the_pooled_model(likelihood):
    priors = PRIORS | {"sigma": {"name": "HalfNormal", "scale": 1e-5}}
    pooled, limit = answer("pooled", likelihood, small()), answer("hierarchical", likelihood, small(), priors)
    assert limit.log_marginal == pytest.approx(pooled.log_marginal, abs=1e-6)
    np.testing.assert_allclose(limit.leave_group_out, pooled.leave_group_out, atol=2e-6)
    np.testing.assert_allclose(limit.mean["lam"], pooled.mean["lam"], rtol=1e-6)


def test_poisson_rows_of_a_group_may_be_merged():
    # given their total, Poisson counts are multinomial with the exposures as probabilities
    split = answer("hierarchical", "poisson", counts_from_rows(list("aab"), [3, 5, 4], [1.0, 3.0, 2.0]))
    merged = answer("hierarchical", "poisson", counts_from_rows(list("ab"), [8, 4], [4.0, 2.0]))
    difference = stats.multinomial.logpmf([3, 5], 8, [0.25, 0.75])
    assert split.log_marginal - merged.log_marginal == pytest.approx(difference, abs=1e-8)
    np.testing.assert_allclose(split.mean["lam"], merged.mean["lam"], rtol=1e-8)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_one_row_alone_is_left_out_to_nothing(pooling, likelihood):
    found = answer(pooling, likelihood, counts_from_rows(["a"], [4], [2.0]))
    assert found.cell_elpd[0] == pytest.approx(found.log_marginal, abs=1e-6)
    assert found.leave_group_out[0] == pytest.approx(found.log_marginal, abs=1e-6)


def test_a_moment_that_does_not_exist_is_no_number():
    heavy = OTHER | {"lam": {"name": "HalfCauchy", "scale": 1.0}, "delta": {"name": "HalfCauchy", "scale": 1.0}}
    zeros = answer("pooled", "negative_binomial", counts_from_rows(list("ab"), [0, 0]), heavy)
    assert np.isnan(zeros.mean["delta"]) and np.isnan(zeros.sd["lam"])
    assert np.isnan(answer("unpooled", "poisson", small(), heavy).new_group).all()
    assert np.isfinite(answer("pooled", "poisson", small(), heavy).new_group).all()


# Several modes: priors in another unit than the data. The posterior has one mode at each.


def brute_force(counts: Counts, step: float = 0.1) -> tuple[float, float, float, float]:
    """Log p(y), means of mu and sigma and elpd_loo of a hierarchical Poisson of one row a group, default priors.

    Sums over a plain grid of log mu and log sigma, the factors by SciPy's negative binomial.
    """
    log_mu, log_sigma = np.arange(-20, 4.5, step)[:, None], np.arange(-30, 4.5, step)[None]
    mu, shape = np.exp(log_mu), np.exp(np.minimum(2 * (log_mu - log_sigma), 30))
    _, exposure, count = counts.rows()
    log_f = [negative_binomial(e * mu, 1 / np.sqrt(shape)).logpmf(y) for y, e in zip(count, exposure, strict=True)]
    log_f = [np.maximum(each, -1e5) for each in log_f]  # no probability at all
    log_prior = stats.gamma.logpdf(mu, 2, scale=5) + log_mu - np.exp(log_sigma) + log_sigma
    joint = log_prior + np.sum(log_f, axis=0)
    log_z = logsumexp(joint)
    means = (np.exp(logsumexp(joint + x) - log_z) for x in (log_mu, log_sigma))
    elpd = sum(log_z - logsumexp(joint - each) for each in log_f)
    return log_z + 2 * np.log(step), *means, elpd


@pytest.mark.parametrize(
    ("totals", "exposure"),
    [
        ([4, 4, 4, 5, 5, 5, 5, 5, 5, 6, 6, 6], 500_000.0),  # both modes matter: 0.2% of the mass makes the mean of mu
        ([3, 9, 1, 6, 12, 2], 40_000.0),  # most of the mass where the prior is
        ([2, 7, 4, 5], 300.0),  # modes that touch
    ],
)
def test_two_modes_agree_with_brute_force(totals, exposure):
    counts = counts_from_rows(range(len(totals)), totals, np.full(len(totals), exposure))
    found, (log_marginal, mu, sigma, elpd) = answer("hierarchical", "poisson", counts), brute_force(counts)
    assert found.log_marginal == pytest.approx(log_marginal, abs=1e-6)
    assert found.elpd_loo == pytest.approx(elpd, abs=1e-5)
    assert (found.mean["mu"], found.mean["sigma"]) == pytest.approx((mu, sigma), rel=1e-5)


@pytest.mark.parametrize("exposure", [1e3, 1e5, 1e7])
def test_overdispersion_that_spans_two_units_agrees_with_sums_over_delta(exposure):
    # lam ~ Gamma(2, 0.2) and counts near 5 in this exposure: only a large delta joins them
    counts = counts_from_rows(list("abcd"), [5, 4, 6, 5], np.full(4, exposure))
    delta, weight = gauss(0.0, 8.0, 120)
    lam = np.exp(np.linspace(np.log(1e-3 / exposure), 6.0, 1500))
    by_lam = stats.gamma.pdf(lam, 2, scale=5) * lam * np.log(lam[1] / lam[0])
    z = weight * stats.halfnorm.pdf(delta, scale=0.5)
    for count in (5, 4, 6, 5):
        z = z * (negative_binomial(exposure * lam, delta[:, None]).pmf(count) @ by_lam)
    found = answer("unpooled", "negative_binomial", counts)
    assert found.log_marginal == pytest.approx(np.log(z.sum()), abs=1e-4)
    assert found.mean["delta"] == pytest.approx(z @ delta / z.sum(), rel=1e-4)


# Log-normal populations.


def log_normal(likelihood: str, counts: Counts, priors: dict = PRIORS) -> exact.Exact:
    families = {site: priors[site]["name"] for site in sites_of("hierarchical", likelihood)}
    model = count_model("hierarchical", likelihood, families, population="log_normal")
    return solve(model, counts, prior_values(priors, sites=tuple(families)))


def log_normal_sums(counts: Counts, priors: dict) -> tuple[float, float, float, np.ndarray]:
    """Log p(y), means of mu and sigma, and log p(y_g | y_-g) of Poisson counts, by sums over a plain grid."""
    mu, sigma = (
        each.ravel() for each in np.meshgrid(np.exp(np.linspace(-4, 6, 160)), np.exp(np.linspace(-16, 6, 340)))
    )
    step = (10 / 159) * (22 / 339)
    s = np.sqrt(np.log1p((sigma / mu) ** 2))
    z, weight = np.polynomial.hermite_e.hermegauss(150)  # E f(z) of a standard normal z
    lam = np.exp(np.log(mu)[:, None] - s[:, None] ** 2 / 2 + s[:, None] * z)
    group, exposure, count = counts.rows()
    f = np.ones((counts.num_groups, *lam.shape))
    for g, e, y in zip(group, exposure, count, strict=True):
        f[g] *= stats.poisson.pmf(y, e * lam)
    f = f @ (weight / weight.sum())  # (G, N)
    prior = law("mu", priors).pdf(mu) * mu * law("sigma", priors).pdf(sigma) * sigma * step
    joint = prior * f.prod(axis=0)
    rest = np.array([prior @ np.delete(f, g, axis=0).prod(axis=0) for g in range(len(f))])
    z = joint.sum()
    return np.log(z), joint @ mu / z, joint @ sigma / z, np.log(z / rest)


@pytest.mark.parametrize(
    "sigma", [{"name": "Exponential", "rate": 1.0}, {"name": "LogNormal", "loc": 2.0, "scale": 0.7}]
)
def test_log_normal_population_agrees_with_sums_over_a_plain_grid(sigma):
    priors = PRIORS | {"sigma": sigma}
    found, (log_marginal, mu, sd, left_out) = log_normal("poisson", small(), priors), log_normal_sums(small(), priors)
    assert found.log_marginal == pytest.approx(log_marginal, abs=1e-5)
    assert (found.mean["mu"], found.mean["sigma"]) == pytest.approx((mu, sd), rel=1e-5)
    np.testing.assert_allclose(found.leave_group_out, left_out, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["poisson", pytest.param("negative_binomial", marks=pytest.mark.slow)])
def test_left_out_rows_and_groups_of_a_log_normal_population_are_ratios_of_marginals(likelihood):
    whole = log_normal(likelihood, small())
    less_group, less_row = (
        log_normal(likelihood, small(**less)) for less in ({"without_group": "b"}, {"without_row": 1})
    )
    assert whole.leave_group_out[1] == pytest.approx(whole.log_marginal - less_group.log_marginal, abs=2e-6)
    assert whole.cell_elpd[1] == pytest.approx(whole.log_marginal - less_row.log_marginal, abs=2e-6)


def test_log_normal_negative_binomial_without_dispersion_is_the_poisson(cookies):
    priors = PRIORS | {"delta": {"name": "HalfNormal", "scale": 1e-7}}
    limit, poisson = log_normal("negative_binomial", cookies, priors), log_normal("poisson", cookies)
    assert limit.log_marginal == pytest.approx(poisson.log_marginal, abs=1e-6)  # a tenth of the tolerance
    assert limit.elpd_loo == pytest.approx(poisson.elpd_loo, abs=1e-6)


# Refusals.


def test_counts_that_float64_cannot_tell_apart_are_refused():
    with pytest.raises(NotExact, match="the quadrature of pooled negative binomial does not converge"):
        answer("pooled", "negative_binomial", counts_from_rows(list("ab"), [2**50, 2**51]))


def test_what_a_smaller_step_does_not_help_is_given_up_early(monkeypatch):
    made, integrate = [], exact._integrate
    monkeypatch.setattr(exact, "_integrate", lambda *arguments: made.append(1) or integrate(*arguments))
    with pytest.raises(NotExact):
        answer("pooled", "negative_binomial", counts_from_rows(list("ab"), [2**50, 2**51]))
    assert len(made) < len(exact.STEPS)


def test_more_quadratures_than_seconds_allow_are_refused(monkeypatch):
    # each of two groups far apart needs a grid of its own
    monkeypatch.setattr(exact, "WORK", 0)
    with pytest.raises(NotExact, match="2 left-out groups need their own quadrature"):
        answer("hierarchical", "poisson", counts_from_rows(list("aaabbb"), [4, 6, 5, 52, 48, 50]))


def test_a_table_is_refused_for_its_cells_only_where_they_cost():
    wide = counts_from_rows([str(g) for g in range(300)], range(300))
    assert reason_against(model_of("hierarchical", "negative_binomial"), wide) == (
        "300 cells (distinct group, exposure and count); for a hierarchical negative binomial model it takes too long "
        "above 150"
    )
    assert reason_against(model_of("hierarchical", "poisson"), wide) == ""
    assert reason_against(model_of("unpooled", "negative_binomial"), wide) == ""


def test_a_reason_is_found_before_any_work(monkeypatch):
    monkeypatch.setattr(exact, "most_cells", lambda model: 2)
    assert "too long above 2" in reason_against(model_of("pooled", "poisson"), small())
    assert reason_against(model_of("pooled", "poisson"), counts_from_rows(["a"], [1])) == ""


def test_a_bounded_spread_of_the_rates_is_answered_or_refused_in_words(cookies):
    priors = {**PRIORS, "sigma": {"name": "Uniform", "low": 0.0, "high": 3.0}}
    sigma, mu = (nodes * scale + shift for nodes, scale, shift in ((GAUSS[0], 1.5, 1.5), (GAUSS[0], 11.0, 12.0)))
    group, _, count = cookies.rows()
    total, rows = np.bincount(group, count), np.bincount(group)
    a, b = mu[:, None] ** 2 / sigma**2, mu[:, None] / sigma**2
    log_f = stats.gamma.logpdf(mu, 2, scale=5)[:, None] - np.log(3.0) + np.zeros_like(a)
    for s, n in zip(total, rows, strict=True):
        log_f += a * np.log(b) - gammaln(a) + gammaln(a + s) - (a + s) * np.log(b + n)
    log_f += np.log(GAUSS[1] * 11.0)[:, None] + np.log(GAUSS[1] * 1.5)
    expected = logsumexp(log_f) - gammaln(count + 1.0).sum()
    try:
        assert answer("hierarchical", "poisson", cookies, priors).log_marginal == pytest.approx(expected, abs=1e-4)
    except NotExact as error:
        assert "does not converge" in str(error)
