"""Every likelihood against the exact posterior by quadrature: NUTS, and leave-one-out.

The law of one count of each likelihood is written with SciPy; a new likelihood adds a line to `LAWS`.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

import exact_reference
import quadrature_reference
from poolwise.checks import integrated_loo, loo
from poolwise.checks.agreement import threshold
from poolwise.checks.summary import relative_efficiency, summarise
from poolwise.counts.cells import counts_from_rows
from poolwise.inference import predictive
from poolwise.inference.engines.nuts import sample
from poolwise.model.count_model import count_model, without_mean
from poolwise.model.likelihoods import EVERY_LIKELIHOOD, likelihood_of
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER, moment_errors, posterior_and_cells

pytestmark = pytest.mark.fit


def negative_binomial(count, mean, concentration):
    return stats.nbinom.logpmf(count, concentration, concentration / (concentration + mean))


def zero_inflated(base, y, r, e, *, zi, **given):
    """0 with probability zi, else a count of the base."""
    of_base = base(y, r, e, **given)
    return np.where(y == 0, np.log(zi + (1 - zi) * np.exp(of_base)), np.log1p(-zi) + of_base)


def behind_hurdle(base, y, r, e, *, hurdle, **given):
    """0 with probability hurdle, else a positive count of the base."""
    positive = np.log1p(-hurdle) + base(y, r, e, **given) - np.log(-np.expm1(base(0.0, r, e, **given)))
    return np.where(y == 0, np.log(hurdle), positive)


def generalised_poisson(count, rate, xi):
    """With a sum over all possible counts as its norm where xi < 0; 0 to 3 always are."""

    def term(count, theta, xi):
        w = theta + xi * count
        inside = np.where(w > 1e-12 * theta, w, 1.0)
        found = np.log(theta) + (count - 1) * np.log(inside) - inside - special.gammaln(count + 1)
        return np.where(w > 1e-12 * theta, found, -np.inf)

    xi = np.where(rate < 2, np.maximum(xi, -rate / (4 - np.minimum(rate, 2))), xi)
    theta = rate * (1 - xi)
    possible = np.where(xi < 0, -theta / np.where(xi < 0, xi, -1.0), np.inf)
    total = np.where(possible <= 60, sum(np.exp(term(k, theta, xi)) for k in range(61)), 1.0)
    return term(count, theta, xi) - np.log(total)


BASES = {
    ("poisson", None): lambda y, r, e: stats.poisson.logpmf(y, r),
    ("negative_binomial", "row"): lambda y, r, e, delta: negative_binomial(y, r, delta**-2.0),
    ("negative_binomial", "unit"): lambda y, r, e, delta: negative_binomial(y, r, e * delta**-2.0),
    ("negative_binomial", "proportional"): lambda y, r, e, delta: negative_binomial(y, r, r * delta**-2.0),
}
OF_ZEROS = {  # with the priors of conf/prior/notebook.yaml
    "zero_inflated": (zero_inflated, {"zi": stats.beta(1.0, 4.0)}),
    "hurdle": (behind_hurdle, {"hurdle": stats.beta(1.0, 1.0)}),
}
OF_BASE = {"poisson": {}, "negative_binomial": {"delta": stats.halfnorm(scale=0.5)}}
LAWS = {
    **{(name, choice): (base, OF_BASE[name]) for (name, choice), base in BASES.items()},
    **{
        (f"{kind}_{name}", choice): (functools.partial(law, base), prior | OF_BASE[name])
        for kind, (law, prior) in OF_ZEROS.items()
        for (name, choice), base in BASES.items()
    },
    ("generalised_poisson", None): (
        lambda y, r, e, xi: generalised_poisson(y, r, xi),
        {"xi": stats.truncnorm(-1 / 0.3, 1 / 0.3, 0.0, 0.3)},
    ),
}
RATE = stats.gamma(2.0, scale=5.0)
FOURTH = replace(SAMPLER, num_samples=1000)  # of the draws: integrated values are computed at each of them
EVERY_LAW = pytest.mark.parametrize(("name", "overdispersion"), LAWS)
BOTH = pytest.mark.parametrize("pooling", ["pooled", "unpooled"])
SMALL = counts_from_rows(
    ["a"] * 7 + ["b"] * 6 + ["c"] * 5,
    [6, 4, 9, 0, 5, 13, 21, 4, 8, 3, 11, 0, 9, 12, 30, 17, 25, 2],
    [1.0, 1, 1, 1, 0.5, 2.5, 4, 1, 1, 0.5, 2, 0.5, 2, 1, 3, 1.5, 2.5, 0.25],
)


def groups_of(table):
    group, exposure, count = table.rows()
    return [(count[group == g].astype(float), exposure[group == g]) for g in range(table.num_groups)]


@functools.cache
def exact(name, overdispersion, pooling, table, **sizes):
    log_pmf, priors = LAWS[name, overdispersion]
    if len(priors) > 1:  # as good to the digits below, in a quarter of the time
        sizes = {"num_rates": 250, "num_nodes": 32} | sizes
    return quadrature_reference.posterior(
        log_pmf, groups_of(table), is_pooled=pooling == "pooled", lam=RATE, given=priors, **sizes
    )


def fitted(name, overdispersion, pooling, table):
    """The draws of NUTS, and leave-one-out as a run computes it, without refits."""
    families = {site: prior["name"] for site, prior in PRIORS.items()}
    model = count_model(pooling, name, families, overdispersion=overdispersion)
    values = prior_values(PRIORS, sites=tuple(site for site, _ in model.families))
    draws = sample(model, table, values, seed=5, sampler=FOURTH, device=ONE_DEVICE)
    posterior, cells = posterior_and_cells(draws, table)
    summary = summarise(posterior, without_mean(model, values, has_events=True))
    r_eff = relative_efficiency(summary, num_draws=posterior.sizes["chain"] * posterior.sizes["draw"])
    blocks = predictive.pointwise_log_likelihood(model.likelihood, posterior, cells)
    found = loo.psis_loo(blocks, table.cell_multiplicity, r_eff=r_eff)
    return draws, integrated_loo.integrated_where_doubtful(found, posterior, table, model, values, r_eff=r_eff)


def largest_error(draws, reference):
    """The largest |z| of means and standard deviations, and the number of them."""
    errors = np.concatenate([np.ravel(each) for each in moment_errors(draws.posterior, reference).values()])
    return np.abs(errors).max(), errors.size


def test_every_likelihood_has_a_law():
    assert LAWS.keys() == {(each.name, each.overdispersion) for each in EVERY_LIKELIHOOD}


@pytest.mark.parametrize(("name", "overdispersion"), [("poisson", None), ("negative_binomial", "row")])
@BOTH
def test_reference_is_that_of_the_other_quadrature_on_the_cookies(pooling, name, overdispersion, cookies):
    found, known = exact(name, overdispersion, pooling, cookies), exact_reference.recorded(pooling, name)
    assert found.log_marginal == pytest.approx(known.log_marginal, abs=1e-6)
    assert found.elpd_loo == pytest.approx(known.elpd_loo, abs=1e-6)
    for site in known.mean:
        np.testing.assert_allclose(found.mean[site], known.mean[site], rtol=1e-6)
        np.testing.assert_allclose(found.sd[site], known.sd[site], rtol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "name", "overdispersion"),
    [
        *(
            (pooling, *law)
            for pooling in ("pooled", "unpooled")
            for law, (_, priors) in LAWS.items()
            if len(priors) < 2
        ),
        pytest.param("pooled", "zero_inflated_negative_binomial", "row", marks=pytest.mark.slow),
        pytest.param("unpooled", "hurdle_negative_binomial", "unit", marks=pytest.mark.slow),
    ],
)
def test_reference_does_not_depend_on_its_grids(name, overdispersion, pooling):
    finer_sizes = (700, 80) if len(LAWS[name, overdispersion][1]) < 2 else (400, 48)
    found = exact(name, overdispersion, pooling, SMALL)
    finer = exact(
        name, overdispersion, pooling, SMALL, **dict(zip(("num_rates", "num_nodes"), finer_sizes, strict=True))
    )
    assert found.log_marginal == pytest.approx(finer.log_marginal, abs=1e-5)
    assert found.elpd_loo == pytest.approx(finer.elpd_loo, abs=1e-4)
    for site in found.mean:
        np.testing.assert_allclose(found.mean[site], finer.mean[site], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.sd[site], finer.sd[site], rtol=1e-4)


@EVERY_LAW
def test_law_is_that_of_the_likelihood(name, overdispersion):
    likelihood, (log_pmf, priors) = likelihood_of(name, overdispersion), LAWS[name, overdispersion]
    count, rate, exposure = np.arange(9.0), np.geomspace(0.5, 30, 9), np.geomspace(0.2, 5, 9)
    given = {site: np.asarray(prior.ppf(0.3)) for site, prior in priors.items()}
    params = likelihood.at(given | likelihood.derived(given), exposure)
    np.testing.assert_allclose(
        likelihood.log_prob(count, rate, params), log_pmf(count, rate, exposure, **given), rtol=1e-9
    )


SHORT = [("poisson", None), ("negative_binomial", "row"), ("negative_binomial", "unit")]  # seconds each


@pytest.mark.parametrize(
    ("pooling", "name", "overdispersion"),
    [
        pytest.param(pooling, *law, marks=() if law in SHORT else pytest.mark.slow)
        for pooling in ("pooled", "unpooled")
        for law, (_, priors) in LAWS.items()
        if len(priors) < 2 or law[1] == "row"  # laws of two parameters take minutes
    ],
)
def test_nuts_and_loo_are_exact_on_a_small_table_with_exposures(name, overdispersion, pooling):
    reference = exact(name, overdispersion, pooling, SMALL)
    draws, found = fitted(name, overdispersion, pooling, SMALL)
    largest, number = largest_error(draws, reference)
    off = found.elpd - reference.elpd_loo
    print(f"{name} {overdispersion} {pooling}: largest |z| {largest:.2f}, elpd_loo {off:+.4f} (mcse {found.mcse:.4f})")
    assert largest < threshold(number)
    assert abs(off) < min(0.15, 4 * found.mcse + 0.01)
