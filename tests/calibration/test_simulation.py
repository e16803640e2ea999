"""Simulated tables: drawn from the prior and the model, and the same for every way to fit them."""

import numpy as np
import pytest
from scipy import stats

from poolwise.calibration.simulation import simulate
from poolwise.counts.cells import counts_from_rows
from poolwise.counts.statistics import SUFFICIENT, sufficient_statistics
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, model_of, same_bits

pytestmark = pytest.mark.fit

TABLE = counts_from_rows(["a", "a", "a", "b", "b"], [1, 9, 40, 0, 2], [0.5, 1.0, 0.5, 1.0, 2.0])


def simulated(pooling, likelihood, *, parameterisation=None, priors=PRIORS, table=TABLE, **given):
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    return simulate(model_of(pooling, likelihood, priors, parameterisation), table, values, **({"seed": 0} | given))


def test_statistics_of_a_table_are_those_of_its_rows():
    group, exposure, count = TABLE.rows()
    found = SUFFICIENT.of_table(count.astype(float), group, exposure, TABLE.row_x) | SUFFICIENT.design(TABLE)
    known = sufficient_statistics(TABLE)
    assert found.keys() == known.keys()
    for name in found:
        np.testing.assert_allclose(found[name], known[name], err_msg=name)


def test_all_tables_share_the_design(cookies):
    found = simulated("hierarchical", "negative_binomial", table=cookies, simulations=20)
    known = sufficient_statistics(cookies)
    assert same_bits(found.design, {name: known[name] for name in found.design})
    assert found.statistics["value_rows"].sum(axis=1).tolist() == [cookies.num_rows] * 20


def test_truths_follow_the_prior():
    found = simulated("hierarchical", "negative_binomial", simulations=4000)
    assert stats.kstest(found.truth["mu"], stats.gamma(2, scale=5).cdf).pvalue > 0.001
    assert stats.kstest(found.truth["sigma"], stats.expon().cdf).pvalue > 0.001
    assert stats.kstest(found.truth["delta"], stats.halfnorm(scale=0.5).cdf).pvalue > 0.001


def test_poisson_totals_are_about_exposure_times_rate():
    found = simulated("unpooled", "poisson", simulations=400)
    mean = found.truth["lam"] * found.design["group_exposure"]  # (M, G)
    places = stats.poisson.cdf(found.statistics["group_total"] - 1, mean)
    places += np.random.default_rng(0).random(mean.shape) * stats.poisson.pmf(found.statistics["group_total"], mean)
    assert stats.kstest(places.reshape(-1), "uniform").pvalue > 0.001


def test_negative_binomial_counts_are_wider_by_delta():
    table = counts_from_rows(["a"] * 2000, [0] * 2000)
    found = simulated("pooled", "negative_binomial", table=table, simulations=60)
    lam, delta = found.truth["lam"], found.truth["delta"]
    square = (found.statistics["value"] ** 2 * found.statistics["value_rows"]).sum(axis=1) / 2000
    variance = square - (found.statistics["group_total"][:, 0] / 2000) ** 2
    assert np.median(variance / (lam + (delta * lam) ** 2)) == pytest.approx(1, abs=0.05)


def test_tables_are_the_same_for_every_form_of_the_rates_and_any_number():
    few = simulated("hierarchical", "poisson", parameterisation="marginal", simulations=3)
    many = simulated("hierarchical", "poisson", simulations=7)
    assert same_bits(few.truth, {name: each[:3] for name, each in many.truth.items()})
    assert np.array_equal(few.statistics["stratum_total"], many.statistics["stratum_total"][:3])


def test_another_seed_gives_other_tables():
    one, other = (simulated("pooled", "poisson", simulations=5, seed=seed) for seed in (0, 1))
    assert not np.any(one.truth["lam"] == other.truth["lam"])


def test_tables_beyond_exact_counts_are_marked():
    priors = PRIORS | {"lam": {"name": "LogNormal", "loc": 36.7, "scale": 1.0}}  # 2**53 is exp(36.7)
    found = simulated("pooled", "poisson", priors=priors, simulations=40)
    assert 0 < found.is_possible.sum() < 40
    assert np.all(found.truth["lam"][~found.is_possible] > 2**50)
    assert np.all(np.isfinite(found.statistics["constant"]))
