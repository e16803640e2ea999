"""Effects of covariates: every density against sums and integrals by SciPy; predictions at stated covariates."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import integrate, stats

from poolwise.counts.cells import counts_from_rows
from poolwise.counts.covariates import row_at
from poolwise.inference import predictive
from poolwise.inference.datatree import to_tree
from poolwise.model import effects
from poolwise.model.count_model import count_model, sites_of
from poolwise.model.likelihoods import EVERY_LIKELIHOOD
from poolwise.model.marginal_quadrature import RateIntegral, Rows
from poolwise.model.poolings import EVERY_POOLING
from poolwise.model.poolings.base import MARGINAL
from poolwise.model.priors import prior_values
from support import PRIORS

TABLE = counts_from_rows(
    list("aaaabbbbcc"),
    [3, 5, 0, 2, 7, 1, 9, 4, 2, 2],
    [1, 1, 2, 2, 0.5, 1, 3, 3, 1, 1],
    covariates={"drug": list("yynnyynnny"), "age": ["1", "1", "4", "2", "1", "3", "3", "3", "0", "2"]},
    reference={"drug": "n"},
)
BETA = np.array([0.7, -0.4])
SITES = {"delta": 0.6, "zi": 0.2, "hurdle": 0.25, "xi": 0.15, "mu": 3.0, "sigma": 1.4}
LAM = np.array([2.5, 3.5, 1.2])


def model_of(pooling, likelihood, parameterisation=None):
    sites = sites_of(pooling.name, likelihood.name, has_covariates=True)
    found = count_model(
        pooling.name,
        likelihood.name,
        {site: PRIORS[site]["name"] for site in sites},
        parameterisation,
        population=pooling.population,
        overdispersion=likelihood.overdispersion,
        effects=TABLE.effects,
    )
    return found, prior_values(PRIORS, sites=sites)


def point_of(pooling, beta=BETA):
    lam = {"lam": LAM[0] if pooling.is_shared else LAM}
    return SITES | lam | dict(zip(map(effects.site_of, TABLE.effects), beta, strict=True))


def named(plug_in):
    return " ".join(filter(None, (plug_in.name, getattr(plug_in, "overdispersion", None) or plug_in.qualifier)))


every_likelihood = pytest.mark.parametrize("likelihood", EVERY_LIKELIHOOD, ids=named)
every_pooling = pytest.mark.parametrize("pooling", EVERY_POOLING, ids=lambda each: each.title)


def by_row(likelihood, lam, beta):
    """The log probability of all rows, by SciPy where the likelihood is Poisson or negative binomial."""
    group, exposure, count = TABLE.rows()
    rate = exposure * np.exp(TABLE.row_x @ beta) * lam[group]
    if likelihood.name == "poisson":
        return stats.poisson(rate).logpmf(count).sum()
    phi = {"row": 1.0, "unit": exposure, "proportional": rate}[likelihood.overdispersion] / SITES["delta"] ** 2
    return stats.nbinom(phi, phi / (phi + rate)).logpmf(count).sum()


@every_pooling
@every_likelihood
def test_a_row_has_the_rate_of_its_group_times_the_factor_of_its_covariates(likelihood, pooling):
    model, values = model_of(pooling, likelihood, "centred")
    group, exposure, count = TABLE.rows()
    point = point_of(pooling)
    rows = (group, exposure, values, TABLE.num_groups, count, TABLE.row_x)
    expected, _ = log_density(model.generative, rows, {}, point)
    found, _ = log_density(model.log_joint, (model.statistics_of(TABLE), values), {}, point)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)  # NumPyro's own NegativeBinomial2 errs by 7e-7


@pytest.mark.parametrize(
    "likelihood", [each for each in EVERY_LIKELIHOOD if each.name in ("poisson", "negative_binomial")], ids=named
)
def test_counts_have_the_probability_of_scipy(likelihood):
    model, _ = model_of(EVERY_POOLING[1], likelihood, "centred")
    draw = {name: jnp.asarray(value) for name, value in point_of(EVERY_POOLING[1]).items()}
    params = draw | dict(likelihood.derived(draw))
    exposed = model.exposed(likelihood.statistics.of(TABLE), draw)
    assert float(likelihood.log_likelihood(exposed, LAM, params)) == pytest.approx(
        by_row(likelihood, LAM, BETA), rel=1e-10
    )


MARGINAL_FORMS = [
    (pooling, likelihood)
    for pooling in EVERY_POOLING
    for likelihood in EVERY_LIKELIHOOD
    if MARGINAL in pooling.offered(likelihood)
]


@pytest.mark.parametrize(("pooling", "likelihood"), MARGINAL_FORMS, ids=lambda each: named(each))
def test_rates_are_integrated_out_at_the_effects(pooling, likelihood):
    model, values = model_of(pooling, likelihood, MARGINAL)
    statistics = model.likelihood.statistics.of(TABLE)
    ratio = SITES["sigma"] / SITES["mu"]
    s = np.sqrt(np.log1p(ratio**2))
    law = {
        "gamma": stats.gamma(ratio**-2, scale=SITES["mu"] * ratio**2),
        "log_normal": stats.lognorm(s, scale=SITES["mu"] * np.exp(-(s**2) / 2)),
    }[pooling.population]

    def of_group(g, beta):
        def height(log_lam):
            lam = np.where(np.arange(3) == g, np.exp(log_lam), LAM)
            whole = by_row(likelihood, lam, beta) - shift
            return np.exp(whole + law.logpdf(np.exp(log_lam)) + log_lam)

        shift = by_row(likelihood, LAM, beta)
        # log of the integral over this rate, relative to the others' fixed rates
        return np.log(integrate.quad(height, -6, 5, limit=400, points=[np.log(LAM[g])])[0])

    def expected(beta):
        whole = sum(of_group(g, beta) for g in range(3)) + by_row(likelihood, LAM, beta)
        return whole + stats.norm.logpdf(beta).sum()

    def found(beta):
        return float(log_density(model.log_joint, (statistics, values), {}, point_of(pooling, beta))[0])

    other = np.array([-0.2, 0.5])
    assert found(BETA) - found(other) == pytest.approx(expected(BETA) - expected(other), abs=1e-6)
    given = {name: np.full((1, 1), value) for name, value in point_of(pooling).items() if name != "lam"}
    given |= {"alpha": np.full((1, 1), ratio**-2), "m": np.log(law.median()) * np.ones((1, 1)), "s": np.full((1, 1), s)}
    given |= {"phi": np.full((1, 1), SITES["delta"] ** -2)}
    integral = RateIntegral.of(model, values, given)
    rows = Rows.of(TABLE, TABLE.cell_group == 1)
    group = TABLE.rows()[0]
    of_others = by_row(likelihood, LAM, BETA) - _of_rows(likelihood, group == 1)
    whole = of_group(1, BETA) + by_row(likelihood, LAM, BETA) - of_others
    assert integral.log_marginal(rows).item() == pytest.approx(whole, abs=1e-6)


def _of_rows(likelihood, chosen):
    """The log probability of some rows."""
    group, exposure, count = (each[chosen] for each in TABLE.rows())
    rate = exposure * np.exp(TABLE.row_x[chosen] @ BETA) * LAM[group]
    if likelihood.name == "poisson":
        return stats.poisson(rate).logpmf(count).sum()
    phi = {"row": 1.0, "unit": exposure, "proportional": rate}[likelihood.overdispersion] / SITES["delta"] ** 2
    return stats.nbinom(phi, phi / (phi + rate)).logpmf(count).sum()


def test_groups_that_are_alike_have_the_same_covariates():
    table = counts_from_rows(list("aabbccdd"), [1, 2] * 4, covariates={"x": list("01011001")})
    for likelihood in EVERY_LIKELIHOOD:
        alike = likelihood.statistics.alike(table)
        assert alike.kind.tolist() == [0, 0, 1, 0] if likelihood.name == "poisson" else True
        assert len(alike.first) == 2
        beta = jnp.array([0.3])
        kinds = effects.exposed(likelihood.statistics, likelihood.statistics.of_kinds(table), beta)
        whole = effects.exposed(likelihood.statistics, likelihood.statistics.of(table), beta)
        for name in ("constant",) if "constant" in whole else ():
            assert float(kinds[name]) == pytest.approx(float(whole[name]), rel=1e-12)


# Predictions.


def tree_of(likelihood=EVERY_LIKELIHOOD[0], num_draws=40):
    rng = np.random.default_rng(0)
    shape = (2, num_draws)
    model, _ = model_of(EVERY_POOLING[1], likelihood)
    posterior = {"lam": LAM * rng.gamma(50, 1 / 50, (*shape, 3))}
    posterior |= {effects.site_of(name): rng.normal(b, 0.1, shape) for name, b in zip(TABLE.effects, BETA, strict=True)}
    return model, to_tree(posterior, {"lp": np.zeros(shape)}, TABLE), posterior


def test_log_likelihood_is_that_of_scipy_at_every_draw():
    model, tree, posterior = tree_of()
    cells = tree["constant_data"].to_dataset()
    blocks = predictive.pointwise_log_likelihood(model.likelihood, tree["posterior"].to_dataset(), cells)
    beta = np.stack([posterior[effects.site_of(name)] for name in TABLE.effects], axis=-1)  # (chain, draw, P)
    rate = np.exp(beta @ TABLE.cell_x.T) * posterior["lam"][..., TABLE.cell_group] * TABLE.cell_exposure
    expected = stats.poisson(rate).logpmf(TABLE.cell_count)
    np.testing.assert_allclose(np.concatenate(list(blocks)), np.moveaxis(expected, -1, 0), rtol=1e-10)


def test_simulated_tables_have_the_rates_of_their_rows():
    model, tree, posterior = tree_of(num_draws=4000)
    rows, draws = tree["constant_data"].to_dataset(), tree["posterior"].to_dataset()
    y = predictive.replicated(model.likelihood, draws, rows, np.random.default_rng(1))["y"].values
    group, exposure, _ = TABLE.rows()
    beta = np.stack([posterior[effects.site_of(name)] for name in TABLE.effects], axis=-1)
    rate = (np.exp(beta @ TABLE.row_x.T) * posterior["lam"][..., group] * exposure).mean(axis=(0, 1))
    error = y.std(axis=(0, 1)) / np.sqrt(8000)
    assert np.all(np.abs(y.mean(axis=(0, 1)) - rate) < 4.5 * error)


def test_a_group_is_predicted_at_stated_covariates():
    model, tree, posterior = tree_of()
    given = {"exposure": 2.0, "seed": 0, "label": "b"}
    draws = tree["posterior"].to_dataset()
    usual = predictive.new_group(model, draws, {}, **given)
    x = row_at(TABLE.covariates, {"drug": "y"})
    found = predictive.new_group(model, draws, {}, **given, x=x)
    factor = np.exp(posterior["beta.drug.y"].reshape(-1))
    np.testing.assert_allclose(found.rate, usual.rate * factor)
    assert found.mean == pytest.approx(2 * (usual.rate * factor).mean())
    assert usual.mean == pytest.approx(2 * usual.rate.mean())  # the mean age and the reference level
