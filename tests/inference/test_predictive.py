"""What the model says of counts, against closed forms and quadrature."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy import stats

from poolwise.counts.cells import counts_from_rows
from poolwise.figures.bins import count_quantile
from poolwise.inference import predictive
from poolwise.inference.datatree import to_tree
from poolwise.inference.engines.base import Fit
from poolwise.inference.rates import evenly_spaced
from poolwise.inference.streams import named_generator
from poolwise.inference.tables import Tables
from poolwise.model.count_model import sites_of
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.priors import prior_values
from poolwise.model.special import mean_one_gamma
from support import PRIORS, VARIANTS, model_of

pytestmark = pytest.mark.fit


def tree_of(draws, counts):
    return to_tree(draws.posterior, draws.sample_stats, counts)


def new_group_of(fit_of, cookies, pooling, likelihood, *, exposure=1.0, **asked):
    posterior = tree_of(fit_of(pooling, likelihood), cookies)["posterior"].to_dataset()
    values = prior_values(PRIORS, sites=sites_of(pooling, likelihood))
    return predictive.new_group(model_of(pooling, likelihood), posterior, values, exposure=exposure, seed=0, **asked)


def replicated(draws, counts, *, num_draws=1000, seed=0):
    tree = tree_of(draws, counts)
    model = model_of("pooled", "negative_binomial" if "phi" in draws.posterior else "poisson")
    rng = named_generator(seed, "posterior_predictive")
    posterior, rows = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    return predictive.posterior_predictive(model, posterior, rows, num_draws=num_draws, rng=rng)["y"]


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_pointwise_log_likelihood_is_scipys(pooling, likelihood, fit_of, cookies):
    tree = tree_of(fit_of(pooling, likelihood), cookies)
    found = np.concatenate(
        list(
            predictive.pointwise_log_likelihood(
                LIKELIHOODS[likelihood], tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
            )
        )
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
    kept = evenly_spaced(4000, 5)
    some = posterior.isel(draw=kept)
    found = np.concatenate(list(predictive.pointwise_log_below(LIKELIHOODS[likelihood], some, cells)))
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
    wide, poisson = LIKELIHOODS["negative_binomial"], LIKELIHOODS["poisson"]
    assert wide.below(np.array(0.0), rate, {"phi": phi}).tolist() == [0] * 3
    assert poisson.below(np.array(0.0), rate, {}).tolist() == [0] * 3
    assert wide.below(np.array(6.0), rate, {"phi": phi}) == pytest.approx(stats.poisson.cdf(5, 4.0), abs=1e-7)


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
    monkeypatch.setattr(predictive, "REPLICATED", 150 * 40)
    assert replicated(fit_of("pooled", "poisson"), cookies).size == 150 * 40
    monkeypatch.setattr(predictive, "REPLICATED", 150)
    assert replicated(fit_of("pooled", "poisson"), cookies).size == 150 * 20


def test_the_same_seed_repeats_the_same_counts(fit_of, cookies):
    draws = fit_of("pooled", "poisson")
    assert replicated(draws, cookies).equals(replicated(draws, cookies))
    assert not replicated(draws, cookies).equals(replicated(draws, cookies, seed=1))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_new_group_of_a_hierarchy_has_the_exact_mean_and_sd(likelihood, fit_of, exact_of, cookies):
    exact = exact_of("hierarchical", likelihood)
    found = new_group_of(fit_of, cookies, "hierarchical", likelihood)
    draws = fit_of("hierarchical", likelihood).posterior
    mu, square = draws["mu"], draws["mu"] ** 2 + draws["sigma"] ** 2  # moments of the rate given mu and sigma
    noise = mu if likelihood == "poisson" else mu + square / draws["phi"]
    assert abs(found.mean - exact.new_group_mean) < 4 * array_stats.mcse(mu, method="mean")
    # var = E[square + noise] - (E mu)^2: its error is that of square + noise - 2 (E mu) mu; that of sd, by 1 / (2 sd)
    error = array_stats.mcse(square + noise - 2 * found.mean * mu, method="mean") / (2 * found.sd)
    assert abs(found.sd - exact.new_group_sd) < 4 * error


def test_new_groups_rates_are_spread_as_the_moments_say(fit_of, cookies):
    found = new_group_of(fit_of, cookies, "hierarchical", "poisson")
    # of a count with mean lam: E lam and var lam = var - E lam; 16000 draws of lam
    variance = found.sd**2 - found.mean
    assert abs(found.rate.mean() - found.mean) < 4 * np.sqrt(variance / 16_000)
    assert found.rate.var() == pytest.approx(variance, rel=0.2)


def test_new_group_of_a_pooled_model_has_the_common_rate(fit_of, cookies):
    # Gamma(1375, 150.2) posterior: the count is NegativeBinomial(1375, 150.2 / 151.2)
    found = new_group_of(fit_of, cookies, "pooled", "poisson")
    exact = stats.nbinom(1375, 150.2 / 151.2)
    assert np.allclose(found.table["probability"], exact.pmf(found.table["count"]), atol=2e-4)
    assert (found.mean, found.sd) == pytest.approx((exact.mean(), exact.std()), rel=2e-3)


def test_new_group_of_unpooled_rates_is_the_prior_and_says_so(fit_of, cookies):
    # Gamma(2, 0.2): mean 10, so the count has mean 10 and variance 50 + 10
    found = new_group_of(fit_of, cookies, "unpooled", "poisson")
    assert not found.is_informed_by_data
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
    assert len(table) <= predictive.TABLE_ROWS
    assert table["cumulative"].iloc[-1] == pytest.approx(1.0, abs=2e-3)
    median = table["count"][(table["cumulative"] >= 0.5).argmax()]
    assert median == pytest.approx(915_200, rel=0.01)  # the median rate, 9.152, times 1e5


def test_middle_of_a_new_groups_counts_is_right_for_a_long_tail():
    # lam ~ LogNormal(log 10, 2) at exposure 100: a count of hundreds is near its mean, so log y ~ Normal(log 1000, 2)
    family = {"name": "LogNormal", "loc": np.log(10.0), "scale": 2.0}
    model = model_of("unpooled", "poisson", PRIORS | {"lam": family})
    values = prior_values({"lam": family}, sites=("lam",))
    draws = {"lam": np.ones((4, 4000, 1))}  # of the data; a new group has the prior
    posterior = tree_of(Fit(draws, {"lp": np.zeros((4, 4000))}), counts_from_rows(["a"], [1]))["posterior"].to_dataset()
    table = predictive.new_group(model, posterior, values, exposure=100.0, seed=0).table
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        error = np.sqrt(level * (1 - level) / 16_000) / stats.norm.pdf(stats.norm.ppf(level)) * 2  # of log y
        assert abs(np.log(count_quantile(table, level)) - np.log(1000) - 2 * stats.norm.ppf(level)) < 4 * error + 0.02
    assert np.allclose(table["probability"].cumsum(), table["cumulative"])


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ({"name": "HalfCauchy", "scale": 5.0}, (False, False)),
        ({"name": "InverseGamma", "concentration": 1.5, "rate": 5.0}, (True, False)),
        ({"name": "InverseGamma", "concentration": 2.5, "rate": 5.0}, (True, True)),
    ],
)
def test_new_group_of_a_heavy_prior_has_no_moments_that_do_not_exist(family, expected):
    # InverseGamma(c) has a mean for c > 1 and a variance for c > 2; a count has those of its rate
    model = model_of("unpooled", "poisson", PRIORS | {"lam": family})
    values = prior_values({"lam": family}, sites=("lam",))
    draws = Fit({"lam": np.ones((4, 100, 1))}, {"lp": np.zeros((4, 100))})
    posterior = tree_of(draws, counts_from_rows(["a"], [1]))["posterior"].to_dataset()
    new, named = (predictive.new_group(model, posterior, values, exposure=1.0, seed=0, label=x) for x in (None, "a"))
    assert (np.isfinite(new.mean), np.isfinite(new.sd)) == expected
    assert np.isfinite([named.mean, named.sd]).all()


def test_an_infinite_concentration_adds_no_spread():
    rng = np.random.default_rng(0)
    assert np.all(mean_one_gamma(np.array([np.inf, 1e30]), rng) == pytest.approx(1.0))


# What lies above, and groups that are in the data.


def test_above_is_the_closed_form_of_a_pooled_model(fit_of, cookies):
    # Gamma(1375, 150.2) posterior: the count is NegativeBinomial(1375, 150.2 / 151.2)
    found = new_group_of(fit_of, cookies, "pooled", "poisson", above=(0, 9, 15))
    assert [k for k, _ in found.above] == [0, 9, 15]
    expected = stats.nbinom(1375, 150.2 / 151.2).sf([0, 9, 15])
    assert [probability for _, probability in found.above] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_above_is_what_the_table_leaves(pooling, likelihood, fit_of, cookies):
    found = new_group_of(fit_of, cookies, pooling, likelihood, above=(3, 12))
    cumulative = found.table.set_index("count")["cumulative"]
    assert dict(found.above) == pytest.approx({k: 1 - cumulative[k] for k in (3, 12)}, abs=1e-9)


def test_above_is_a_probability_of_a_count_at_its_exposure(fit_of, cookies):
    # the median rate is 9.152; a count of so great an exposure is near its mean
    found = new_group_of(fit_of, cookies, "pooled", "poisson", exposure=1e5, above=(915_200,))
    assert found.above[0][1] == pytest.approx(0.5, abs=0.02)


def test_a_group_of_the_data_is_predicted_from_its_own_rate(fit_of, cookies):
    # unpooled: lam[g] ~ Gamma(2 + total, 0.2 + rows), so the count is negative binomial
    group, _, count = cookies.rows()
    total, rows = count[group == 4].sum(), np.sum(group == 4)
    exact = stats.nbinom(2 + total, (0.2 + rows) / (1.2 + rows))
    found = new_group_of(fit_of, cookies, "unpooled", "poisson", label="5", above=(12,))
    assert (found.label, found.is_informed_by_data) == ("5", True)
    assert (found.mean, found.sd) == pytest.approx((exact.mean(), exact.std()), rel=3e-3)
    assert found.above[0][1] == pytest.approx(exact.sf(12), rel=0.01)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_a_group_of_a_hierarchy_has_the_moments_of_its_rate(likelihood, fit_of, cookies):
    draws = fit_of("hierarchical", likelihood).posterior
    lam, spread = draws["lam"][..., 2], draws.get("delta", np.zeros(()))
    found = new_group_of(fit_of, cookies, "hierarchical", likelihood, label="3")
    assert found.mean == pytest.approx(lam.mean())
    assert found.sd**2 == pytest.approx(lam.var() + (lam + (spread * lam) ** 2).mean())
    assert np.array_equal(found.rate, lam.reshape(-1))


def test_a_group_of_a_pooled_model_has_the_rate_of_all(fit_of, cookies):
    new, named = (new_group_of(fit_of, cookies, "pooled", "poisson", label=label) for label in (None, "3"))
    assert (named.label, named.mean, named.sd) == ("3", new.mean, new.sd)


# What the priors say.

DRAWS = 20_000


def prior_of(counts, pooling, likelihood="poisson", *, num_draws=DRAWS, priors=PRIORS, seed=0):
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    draws = {"lam": np.ones((1, 4) if pooling == "pooled" else (1, 4, counts.num_groups))}
    cells = to_tree(draws, {"energy": np.ones((1, 4))}, counts)["constant_data"].to_dataset()
    model = model_of(pooling, likelihood, priors)
    return predictive.prior(model, values, cells, num_draws=num_draws, seed=seed)


def near(draws, mean, sd):
    """Whether independent draws have the mean, within four of its errors."""
    return abs(draws.mean() - mean) < 4 * sd / np.sqrt(draws.size)


def test_prior_of_a_pooled_model_is_one_rate(cookies):
    # Gamma(2, 0.2): mean 10, variance 50
    parameters, y = prior_of(cookies, "pooled")
    assert parameters["lam"].dims == ("chain", "draw")
    assert near(parameters["lam"].values, 10.0, np.sqrt(50))
    assert parameters["lam"].values.var() == pytest.approx(50, rel=0.1)
    assert y["y"].sizes == {"chain": 1, "draw": DRAWS, "cell": 55}
    assert near(y["y"].values[..., 0], 10.0, np.sqrt(60))
    assert y["y"].values.var() == pytest.approx(60, rel=0.1)


def test_prior_of_unpooled_rates_is_one_for_each_group(cookies):
    parameters, y = prior_of(cookies, "unpooled")
    lam = parameters["lam"].values[0]
    assert lam.shape == (DRAWS, 5)
    assert near(lam, 10.0, np.sqrt(50))
    assert abs(np.corrcoef(lam.T)[0, 1]) < 4 / np.sqrt(DRAWS)
    # a cell has the rate of its group
    ratio = y["y"].values[0].mean(axis=0) / lam.mean(axis=0)[cookies.cell_group]
    assert ratio == pytest.approx(np.ones(55), abs=4 * np.sqrt(10) / 10 / np.sqrt(DRAWS))


def test_prior_of_a_hierarchy_has_rates_around_a_mean_of_their_own(cookies):
    # mu: mean 10, variance 50; sigma: mean 1, E sigma^2 = 2; so lam has mean 10, variance 52, correlation 50 / 52
    parameters, y = prior_of(cookies, "hierarchical")
    mu, sigma, lam = (parameters[name].values[0] for name in ("mu", "sigma", "lam"))
    assert near(mu, 10.0, np.sqrt(50))
    assert near(sigma, 1.0, 1.0)
    # one draw's five rates lie around its mu with variance sigma^2, of mean 2 (sd 20, as E sigma^4 = 24 and more)
    assert abs(np.mean((lam - mu[:, None]) ** 2) - 2.0) < 0.5
    assert abs(np.corrcoef(lam.T)[0, 1] - 50 / 52) < 0.01
    assert near(y["y"].values[0][:, 0], 10.0, np.sqrt(62))


def test_prior_of_a_wide_noise_is_wider(cookies):
    # HalfNormal(0.5): E delta^2 = 0.25; var y = 10 + 50 + 0.25 * (50 + 100)
    parameters, y = prior_of(cookies, "pooled", "negative_binomial")
    assert near(parameters["delta"].values, 0.5 * np.sqrt(2 / np.pi), 0.5)
    assert near(y["y"].values[..., 0], 10.0, np.sqrt(97.5))
    assert y["y"].values[..., 0].var() == pytest.approx(97.5, rel=0.15)


def test_prior_counts_grow_with_exposure():
    counts = counts_from_rows(["a", "b"], [1, 2], [1.0, 100.0])
    _, y = prior_of(counts, "pooled")
    small, large = y["y"].values[0].mean(axis=0)
    assert large / small == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_prior_of_the_heaviest_tails_is_finite(likelihood, cookies):
    # a HalfCauchy has no mean: of 20000 draws some are near 1e4 scales, and sigma may be 1e8 times mu, or 1e-8
    cauchy = {"name": "HalfCauchy", "scale": 1e12}
    priors = {"mu": cauchy, "sigma": cauchy, "delta": {"name": "HalfCauchy", "scale": 5.0}}
    parameters, y = prior_of(cookies, "hierarchical", likelihood, priors=priors)
    assert all(np.isfinite(parameters[name].values).all() for name in parameters)
    assert y["y"].values.dtype.kind == "i"
    assert y["y"].values.min() >= 0
    assert y["y"].values.max() > 2**50  # it did go that far


def test_many_cells_get_fewer_prior_draws_but_twenty(cookies, monkeypatch):
    monkeypatch.setattr(predictive, "REPLICATED", 55 * 40)
    assert prior_of(cookies, "hierarchical")[1]["y"].shape == (1, 40, 55)
    monkeypatch.setattr(predictive, "REPLICATED", 55)
    parameters, y = prior_of(cookies, "hierarchical")
    assert (parameters["lam"].shape, y["y"].shape) == ((1, 20, 5), (1, 20, 55))
    assert prior_of(cookies, "hierarchical", num_draws=7)[1]["y"].shape == (1, 7, 55)


def test_prior_draws_are_repeated_by_their_seed(cookies):
    one, again, other = (prior_of(cookies, "unpooled", num_draws=50, seed=seed) for seed in (1, 1, 2))
    assert all(each.equals(same) for each, same in zip(one, again, strict=True))
    assert not any(each.equals(same) for each, same in zip(one, other, strict=True))


@pytest.mark.parametrize("rows", [None, np.random.default_rng(1).integers(0, 5, (3, 40))])
@pytest.mark.parametrize("largest", [9, 2**30])
def test_quantiles_of_tables_are_numpys(rows, largest):
    count = np.random.default_rng(0).integers(0, 10, (3, 40))
    count[0, 0], levels = largest, [0.005, 0.3, 0.5, 0.995]
    weights = None if rows is None else rows.ravel()
    expected = np.quantile(count.ravel(), levels, weights=weights, method="inverted_cdf")
    assert Tables(count, np.zeros(40), np.ones(40), rows).quantiles(levels).tolist() == expected.tolist()
