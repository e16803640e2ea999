"""What the model says of counts, against closed forms and quadrature."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

import exact_reference
from poolwise import predict
from poolwise.data import counts_from_rows
from poolwise.model import sites_of
from poolwise.priors import prior_values
from poolwise.tree import to_tree
from support import PRIORS, VARIANTS, model_of


def tree_of(draws, counts):
    return to_tree(draws.posterior, draws.sample_stats, counts)


def new_group_of(fit_of, cookies, pooling, likelihood, *, exposure=1.0):
    posterior = tree_of(fit_of(pooling, likelihood), cookies)["posterior"].to_dataset()
    values = prior_values(PRIORS, sites=sites_of(pooling, likelihood))
    return predict.new_group(model_of(pooling, likelihood), posterior, values, exposure=exposure, seed=0)


def replicated(draws, counts, *, num_draws=1000, seed=0):
    tree = tree_of(draws, counts)
    rng = predict.generator(seed, "posterior_predictive")
    posterior, rows = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    return predict.posterior_predictive(posterior, rows, num_draws=num_draws, rng=rng)["y"]


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_pointwise_log_likelihood_is_scipys(pooling, likelihood, fit_of, cookies):
    tree = tree_of(fit_of(pooling, likelihood), cookies)
    found = np.concatenate(
        list(predict.pointwise_log_likelihood(tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()))
    )
    posterior = tree["posterior"]
    assert found.shape == (55, 4, 4000)
    for cell in (0, 30, 54):
        lam = posterior["lam"].values[2, 17]
        rate = lam if pooling == "pooled" else lam[cookies.cell_group[cell]]
        count = cookies.cell_count[cell]
        if likelihood == "poisson":
            expected = stats.poisson.logpmf(count, rate)
        else:
            phi = posterior["phi"].values[2, 17]
            expected = stats.nbinom.logpmf(count, phi, phi / (phi + rate))
        assert found[cell, 2, 17] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_pointwise_log_below_is_scipys(pooling, likelihood, fit_of, cookies):
    tree = tree_of(fit_of(pooling, likelihood), cookies)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    kept = predict.evenly_spaced(4000, 5)
    found = np.concatenate(list(predict.pointwise_log_below(posterior, cells, draws=kept)))
    assert found.shape == (55, 4, 5)
    lam = posterior["lam"].values[:, kept]  # (chain, draw), or a rate a group
    for cell in (0, 30, 54):
        rate = lam if pooling == "pooled" else lam[..., cookies.cell_group[cell]]
        below = cookies.cell_count[cell] - 1
        expected = stats.poisson.logcdf(below, rate)
        if likelihood == "negative_binomial":
            phi = posterior["phi"].values[:, kept]
            expected = stats.nbinom.logcdf(below, phi, phi / (phi + rate))
        assert found[cell] == pytest.approx(expected, rel=1e-9)


def test_nothing_lies_below_no_event_and_a_huge_concentration_is_the_poisson():
    rate, phi = np.full(3, 4.0), np.array([1e7, 1e9, 1e30])
    assert (
        predict._below(np.array(0.0), rate, phi).tolist()
        == predict._below(np.array(0.0), rate, None).tolist()
        == [0] * 3
    )
    assert predict._below(np.array(6.0), rate, phi) == pytest.approx(stats.poisson.cdf(5, 4.0), abs=1e-7)


def test_replicated_counts_have_the_mean_and_variance_of_the_model(fit_of, cookies):
    # pooled negative binomial: mean lam, variance lam + (delta lam)^2, averaged over the posterior
    draws = fit_of("pooled", "negative_binomial")
    y = replicated(draws, cookies, num_draws=16_000).values
    lam, delta = draws.posterior["lam"], draws.posterior["delta"]
    variance = (lam + (delta * lam) ** 2).mean() + lam.var()
    assert y.mean() == pytest.approx(lam.mean(), rel=0.003)  # 2.4 million counts, sd 3.9: 0.003 is 10 errors
    assert y.var() == pytest.approx(variance, rel=0.01)


def test_replicated_counts_follow_group_and_exposure(cookies, fit_of):
    draws = fit_of("unpooled", "poisson")
    group, _, count = cookies.rows()
    table = counts_from_rows([cookies.labels[g] for g in group], count, np.where(group == 3, 100.0, 1.0))
    y = replicated(draws, table)
    expected = draws.posterior["lam"].mean((0, 1)) * np.array([1, 1, 1, 100, 1])
    found = [y.values[..., table.rows()[0] == g].mean() for g in range(5)]
    assert found == pytest.approx(expected, rel=0.01)


def test_replicated_draws_are_evenly_spaced_and_keep_their_numbers(fit_of, cookies):
    y = replicated(fit_of("pooled", "poisson"), cookies, num_draws=8)
    assert y.sizes == {"chain": 4, "draw": 2, "row": 150}
    assert list(y["draw"].values) == [0, 3999]


def test_large_tables_get_fewer_replicates_but_twenty(fit_of, cookies, monkeypatch):
    monkeypatch.setattr(predict, "REPLICATED", 150 * 40)
    assert replicated(fit_of("pooled", "poisson"), cookies).size == 150 * 40
    monkeypatch.setattr(predict, "REPLICATED", 150)
    assert replicated(fit_of("pooled", "poisson"), cookies).size == 150 * 20


def test_the_same_seed_repeats_the_same_counts(fit_of, cookies):
    draws = fit_of("pooled", "poisson")
    assert replicated(draws, cookies).equals(replicated(draws, cookies))
    assert not replicated(draws, cookies).equals(replicated(draws, cookies, seed=1))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_new_group_of_a_hierarchy_has_the_exact_mean_and_sd(likelihood, fit_of, cookies):
    group, _, count = cookies.rows()
    exact = exact_reference.exact("hierarchical", likelihood, [count[group == g] for g in range(5)])
    found = new_group_of(fit_of, cookies, "hierarchical", likelihood)
    rate = found.rate.reshape(4, -1)
    assert abs(found.mean - exact.new_group_mean) < 4 * array_stats.mcse(rate, method="mean")
    # var = var(rate) + E[noise]: the error of the sd is that of the rate's, times sd(rate) / sd
    error = array_stats.mcse(rate, method="sd") * rate.std() / found.sd + array_stats.mcse(rate, method="mean")
    assert abs(found.sd - exact.new_group_sd) < 4 * error


def test_new_group_of_a_pooled_model_has_the_common_rate(fit_of, cookies):
    # Gamma(1375, 150.2) posterior: the count is NegativeBinomial(1375, 150.2 / 151.2)
    found = new_group_of(fit_of, cookies, "pooled", "poisson")
    exact = stats.nbinom(1375, 150.2 / 151.2)
    assert np.allclose(found.table["probability"], exact.pmf(found.table["count"]), atol=2e-4)
    assert (found.mean, found.sd) == pytest.approx((exact.mean(), exact.std()), rel=2e-3)


def test_new_group_of_unpooled_rates_is_the_prior_and_says_so(fit_of, cookies):
    # Gamma(2, 0.2): mean 10, so the count has mean 10 and variance 50 + 10
    found = new_group_of(fit_of, cookies, "unpooled", "poisson")
    assert not found.learnt
    assert (found.mean, found.sd) == pytest.approx((10.0, np.sqrt(60)), rel=0.03)


def test_new_group_grows_with_its_exposure(fit_of, cookies):
    one, ten = (new_group_of(fit_of, cookies, "pooled", "poisson", exposure=e) for e in (1.0, 10.0))
    assert ten.mean == pytest.approx(10 * one.mean)


def test_new_group_table_sums_to_almost_one(fit_of, cookies):
    table = new_group_of(fit_of, cookies, "hierarchical", "negative_binomial").table
    assert table["cumulative"].iloc[-1] == pytest.approx(1.0, abs=2e-3)
    assert np.allclose(table["probability"].cumsum(), table["cumulative"])


def test_new_group_table_of_large_counts_is_binned_and_complete(fit_of, cookies):
    table = new_group_of(fit_of, cookies, "pooled", "poisson", exposure=1e5).table
    assert len(table) <= predict.TABLE_ROWS
    assert table["cumulative"].iloc[-1] == pytest.approx(1.0, abs=2e-3)
    median = table["count"][(table["cumulative"] >= 0.5).argmax()]
    assert median == pytest.approx(915_200, rel=0.01)  # the median rate, 9.152, times 1e5


def test_an_infinite_concentration_adds_no_spread():
    rng = np.random.default_rng(0)
    assert np.all(predict._mean_one_gamma(np.array([np.inf, 1e30]), rng) == pytest.approx(1.0))
