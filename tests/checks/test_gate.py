"""The judgement: LOO by cells against LOO by rows and against exact LOO, its Monte Carlo error, the gate."""

import re
from dataclasses import replace

import arviz_stats
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from arviz_stats.base import array_stats

from poolwise.checks import gate
from poolwise.checks.conditions import Condition
from poolwise.checks.exact import solve
from poolwise.checks.loo import Loo, loo_below, psis_loo, weighted_sum
from poolwise.checks.summary import convergence, parameters, summarise
from poolwise.counts.cells import counts_from_rows
from poolwise.inference import predictive
from poolwise.inference.datatree import to_tree
from poolwise.inference.rates import evenly_spaced
from poolwise.model.count_model import sites_of
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL
from poolwise.model.priors import prior_values
from support import PRIORS, SAMPLER, VARIANTS, fit_cookies, model_of, posterior_and_cells

GOOD = {"r_hat": 1.0, "ess_bulk": 5000.0, "ess_tail": 5000.0}


def loo_of(draws, counts, likelihood):
    blocks = predictive.pointwise_log_likelihood(LIKELIHOODS[likelihood], *posterior_and_cells(draws, counts))
    return psis_loo(blocks, counts.cell_multiplicity, r_eff=1.0)


@pytest.fixture(scope="module")
def nb_loo(fit_of, cookies):
    return loo_of(fit_of("hierarchical", "negative_binomial"), cookies, "negative_binomial")


@pytest.fixture(scope="module")
def row_loo(fit_of, cookies):
    """ArviZ's own LOO of the same fit, by rows."""
    draws = fit_of("hierarchical", "negative_binomial")
    tree = to_tree(draws.posterior, draws.sample_stats, cookies)
    blocks = predictive.pointwise_log_likelihood(NEGATIVE_BINOMIAL, *posterior_and_cells(draws, cookies))
    rows = np.repeat(np.concatenate(list(blocks)), cookies.cell_multiplicity, axis=0)
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "row"), np.moveaxis(rows, 0, 2))}))
    return arviz_stats.loo(tree, pointwise=True, reff=1.0)


def test_loo_by_cells_is_loo_by_rows(nb_loo, row_loo):
    assert (nb_loo.elpd, nb_loo.se, nb_loo.p_loo) == pytest.approx((row_loo.elpd, row_loo.se, row_loo.p), rel=1e-10)


def test_loo_of_a_cell_is_loo_of_each_of_its_rows(nb_loo, row_loo, cookies):
    assert np.allclose(np.repeat(nb_loo.cell_elpd, cookies.cell_multiplicity), row_loo.elpd_i, rtol=1e-12)


def test_pareto_k_of_a_cell_is_that_of_each_of_its_rows(nb_loo, row_loo, cookies):
    assert np.allclose(np.repeat(nb_loo.pareto_k, cookies.cell_multiplicity), row_loo.pareto_k, rtol=1e-12)


# LOO-PIT.


def below_of(draws, counts, likelihood, *, num_draws=1000):
    posterior, cells = posterior_and_cells(draws, counts)
    some = posterior.isel(draw=evenly_spaced(posterior.sizes["draw"], num_draws))
    given = LIKELIHOODS[likelihood], some, cells
    return loo_below(predictive.pointwise_log_likelihood(*given), predictive.pointwise_log_below(*given), r_eff=1.0)


def log_marginal(counts, multiplicity, pooling, likelihood, count=None):
    """Log p of a table with other multiplicities, and with one row of one more cell where `count` is (group, count)."""
    group, value = counts.cell_group, counts.cell_count
    rows = list(zip(np.repeat(group, multiplicity), np.repeat(value, multiplicity), strict=True))
    table = counts_from_rows(*zip(*(rows if count is None else [*rows, count]), strict=True))
    values = prior_values(PRIORS, sites=sites_of(pooling, likelihood))
    return solve.solve(model_of(pooling, likelihood), table, values).log_marginal


@pytest.mark.parametrize(
    ("pooling", "likelihood"), [("pooled", "poisson"), ("hierarchical", "poisson"), ("unpooled", "negative_binomial")]
)
def test_probability_below_a_row_left_out_is_exact(pooling, likelihood, fit_of, cookies):
    # P(Y < y | y_-c) = sum over k < y of p(y_-c, k) / p(y_-c)
    found = below_of(fit_of(pooling, likelihood), cookies, likelihood)
    for cell in (2, 16, 53):
        rest = cookies.cell_multiplicity - (np.arange(55) == cell)
        without = log_marginal(cookies, rest, pooling, likelihood)
        group, count = cookies.cell_group[cell], cookies.cell_count[cell]
        each = [log_marginal(cookies, rest, pooling, likelihood, (group, k)) - without for k in range(count)]
        assert np.exp(found[cell]) == pytest.approx(np.exp(each).sum(), abs=0.0015)


def test_rows_left_out_lie_uniformly_between_the_probabilities_below_and_up_to_them(fit_of, cookies, nb_loo):
    below = np.exp(below_of(fit_of("hierarchical", "negative_binomial"), cookies, "negative_binomial"))
    middle = below + np.exp(nb_loo.cell_elpd) / 2
    assert np.all((below >= 0) & (below + np.exp(nb_loo.cell_elpd) <= 1.001))
    assert np.average(middle, weights=cookies.cell_multiplicity) == pytest.approx(0.5, abs=0.05)


def test_some_draws_tell_the_probability_below_as_well_as_all(fit_of, cookies):
    draws = fit_of("hierarchical", "poisson")
    some, every = (np.exp(below_of(draws, cookies, "poisson", num_draws=num)) for num in (1000, 4000))
    assert np.abs(some - every).max() < 0.002


def test_loo_does_not_depend_on_the_blocks_it_comes_in(fit_of, cookies, nb_loo, monkeypatch):
    monkeypatch.setattr("poolwise.inference.predictive.BLOCK", 7 * 16_000)  # 55 cells in blocks of seven
    blocked = loo_of(fit_of("hierarchical", "negative_binomial"), cookies, "negative_binomial")
    assert (blocked.elpd, blocked.mcse) == pytest.approx((nb_loo.elpd, nb_loo.mcse), rel=1e-12)


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_elpd_loo_is_near_the_exact_one(pooling, likelihood, fit_of, exact_of, cookies):
    exact, found = exact_of(pooling, likelihood), loo_of(fit_of(pooling, likelihood), cookies, likelihood)
    assert abs(found.elpd - exact.elpd_loo) < 0.15
    assert abs(found.p_loo - exact.p_loo) < 0.15


@pytest.mark.fit
def test_monte_carlo_error_of_elpd_loo_is_its_spread_over_seeds(cookies):
    quick = replace(SAMPLER, num_warmup=500, num_samples=1000, checkpoint_every=500)
    fits = (fit_cookies(cookies, "unpooled", "poisson", seed=seed, sampler=quick) for seed in range(60))
    found = [loo_of(each, cookies, "poisson") for each in fits]
    ratio = np.std([each.elpd for each in found], ddof=1) / np.mean([each.mcse for each in found])
    assert 0.7 < ratio < 1.35  # 60 seeds: 59 ratio^2 is chi-squared, its 99.9% range gives 0.71 to 1.32


def test_se_of_one_row_is_not_a_number():
    found = psis_loo([np.random.default_rng(0).standard_normal((1, 4, 100))], np.array([1]), r_eff=1.0)
    assert np.isnan(found.se)


def test_a_cell_without_a_tail_is_bad_and_harms_no_other():
    # chains that never move give the same likelihood at every draw; then elpd is that of any draw, log 0.25
    standing, moving = np.log(np.full((1, 4, 100), 0.25)), np.random.default_rng(0).standard_normal((3, 4, 100))
    found = psis_loo([np.concatenate([standing, moving])], np.array([2, 1, 1, 1]), r_eff=1.0)
    alone = psis_loo([moving], np.array([1, 1, 1]), r_eff=1.0)
    assert found.cell_elpd == pytest.approx([np.log(0.25), *alone.cell_elpd])
    assert found.bad_rows == 2 + alone.bad_rows


def test_weighted_sum_is_that_of_the_rows():
    by_cell, rows = np.array([-1.0, -2.5, -4.0]), np.array([3, 1, 2])
    each = np.repeat(by_cell, rows)
    expected = each.sum(), np.sqrt(6) * each.std(ddof=1)
    assert weighted_sum(by_cell, rows) == pytest.approx(expected)


def test_bad_rows_count_rows_and_not_cells():
    rng = np.random.default_rng(0)
    heavy = -rng.exponential(3.0, (1, 4, 1000))  # importance ratios with tail index 1/3: no mean
    light = -0.01 * rng.standard_normal((1, 4, 1000))
    found = psis_loo([heavy, light], np.array([3, 5]), r_eff=1.0)
    assert found.pareto_k[0] > found.k_threshold > found.pareto_k[1]
    assert found.bad_rows == 3


@pytest.mark.parametrize(("num_draws", "expected"), [(4 * 1000, 0.7), (4 * 100, 1 - 1 / np.log10(400))])
def test_pareto_k_threshold_follows_the_number_of_draws(num_draws, expected):
    ll = 0.01 * np.random.default_rng(0).standard_normal((1, 4, num_draws // 4))
    assert psis_loo([ll], np.array([2]), r_eff=1.0).k_threshold == pytest.approx(expected)


@pytest.fixture(scope="module")
def posterior(fit_of, cookies):
    return posterior_and_cells(fit_of("hierarchical", "negative_binomial"), cookies)[0]


def test_summary_has_the_figures_of_arviz(posterior):
    ours = summarise(posterior)
    theirs = arviz_stats.summary(posterior, ci_kind="hdi", ci_prob=0.94, round_to="none", var_names=["lam"])
    for column, name in {"mean": "mean", "sd": "sd", "r_hat": "r_hat", "ess_bulk": "ess_bulk"}.items():
        assert np.allclose(ours.loc["lam.1":"lam.5", column], theirs[name].astype(float), rtol=1e-12), column


def test_summary_interval_is_the_shortest_with_its_mass(posterior):
    row, draws = summarise(posterior).loc["sigma"], posterior["sigma"].values.ravel()
    inside = (draws >= row["hdi_3%"]) & (draws <= row["hdi_97%"])
    central = np.quantile(draws, 0.97) - np.quantile(draws, 0.03)
    assert inside.mean() == pytest.approx(0.94, abs=1e-3)
    assert row["hdi_97%"] - row["hdi_3%"] < central


def test_summary_leaves_out_means_that_do_not_exist(posterior):
    summary = summarise(posterior)
    assert summary.loc[["alpha", "beta", "phi"], ["mean", "sd", "mcse_mean", "mcse_sd"]].isna().all(axis=None)
    assert summary.loc["phi", "median"] == pytest.approx(np.median(posterior["phi"]))


def test_parameters_are_named_by_their_labels():
    lam = np.zeros((2, 3, 2))
    data = xr.Dataset({"lam": (("chain", "draw", "group"), lam), "mu": (("chain", "draw"), lam[..., 0])})
    assert list(parameters(data.assign_coords(group=["north", "007"]))) == ["lam.north", "lam.007", "mu"]


def stats_of(*, diverging=0, energy=None, depth=3):
    shape = (4, 500)
    energy = np.random.default_rng(0).standard_normal(shape) if energy is None else energy
    flags = np.zeros(shape, bool)
    flags.flat[:diverging] = True
    dims = ("chain", "draw")
    return xr.Dataset(
        {"diverging": (dims, flags), "energy": (dims, energy), "tree_depth": (dims, np.full(shape, depth))}
    )


def loo_with(**changes):
    one = {"elpd": -9.0, "se": 1.0, "p_loo": 1.0, "mcse": 0.1, "k_threshold": 0.7, "bad_rows": 0}
    return Loo(**(one | {"cell_elpd": np.zeros(2), "pareto_k": np.array([0.1, 0.2])} | changes))


def judged(summary=None, stats=None, loo=None):
    table = pd.DataFrame([GOOD, GOOD], index=["mu", "sigma"])
    for (name, column), value in (summary or {}).items():
        table.loc[name, column] = value
    return gate.judge(table, stats_of() if stats is None else stats, loo or loo_with(), max_tree_depth=10)


def test_a_good_fit_is_trusted():
    assert (judged().status, judged().reasons) == ("trusted", ())
    assert [each.passed for each in judged().conditions] == [True] * 7


def test_only_pareto_k_and_elpd_loo_leave_the_draws_beyond_doubt():
    unmet = judged(loo=loo_with(elpd=np.nan)).model_check(())
    assert (unmet.draws_are_trusted, unmet.loo_is_reliable) == (True, False)
    assert [each.is_of_loo for each in judged().conditions] == [False] * 5 + [True] * 2


def independent(log_ratio):
    """The verdict on independent draws with these log ratios, of four chains."""
    ratios = np.resize(np.asarray(log_ratio, float), (4, 500))
    return judged(stats=xr.Dataset({"log_ratio": (("chain", "draw"), ratios), "lp": (("chain", "draw"), ratios)}))


def test_independent_draws_are_judged_by_the_mass_that_their_proposals_miss():
    # half of the kept draws had a ratio of 1, half of 1/2: they stand for 1 and 2 proposals each
    verdict = independent(np.log([1.0, 0.5]))
    assert verdict.status == "trusted"
    assert verdict.engine == pytest.approx({"acceptance": 2 / 3, "excess": 0.0})
    assert verdict.sampling == "independent draws (66.7% of proposals kept)"
    # one draw in 500 stands for twice its mass: half of that is missed
    assert independent(np.log([2.0] + [1.0] * 499)).engine["excess"] == pytest.approx(1e-3)
    suspect = independent(np.log([2.0] + [1.0] * 249))
    assert suspect.reasons == ("the proposals miss 0.20% of the posterior; use sampler=nuts",)


def test_status_and_reasons_are_those_of_the_conditions():
    more = Condition.of(name="another", value="2", limit="at most 1", passed=False, otherwise="another is 2")
    verdict = replace(judged(), conditions=(*judged().conditions, more))
    assert (verdict.status, verdict.reasons) == ("suspect", ("another is 2",))


SLOW_ENERGY = np.cumsum(np.random.default_rng(1).standard_normal((4, 500)), axis=1)  # a random walk


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"summary": {("sigma", "r_hat"): 1.0101}}, r"R-hat of sigma is 1\.010, above 1\.01"),
        ({"summary": {("sigma", "r_hat"): np.nan}}, "R-hat of sigma is nan"),
        ({"summary": {("mu", "ess_bulk"): 399.0}}, "bulk ESS of mu is 399, below 400"),
        ({"summary": {("mu", "ess_tail"): 399.0, ("sigma", "ess_tail"): 100.0}}, r"sigma is 100.*\(and 1 more"),
        ({"stats": stats_of(diverging=1)}, "1 of 2000 transitions diverged"),
        ({"stats": stats_of(energy=SLOW_ENERGY)}, "E-BFMI is 0.0"),
        ({"loo": loo_with(bad_rows=3, pareto_k=np.array([0.1, 0.9]))}, r"above 0\.70 \(worst 0\.90\) for 3 rows"),
        ({"loo": loo_with(bad_rows=2, pareto_k=np.array([0.1, np.nan]))}, "Pareto k is undefined for 2 rows"),
        ({"loo": loo_with(elpd=np.nan)}, "elpd_loo is not finite"),
    ],
)
def test_a_fit_that_misses_the_gate_is_suspect_with_the_reason(changes, reason):
    verdict = judged(**changes)
    assert verdict.status == "suspect"
    assert len(verdict.reasons) == 1
    assert re.search(reason, verdict.reasons[0]), verdict.reasons
    assert [each.sentence for each in verdict.conditions if not each.passed] == [*verdict.reasons]


@pytest.mark.parametrize(
    "changes",
    [{"summary": {("sigma", "r_hat"): 1.01}}, {"summary": {("mu", "ess_bulk"): 400.0}}, {"stats": stats_of(depth=10)}],
    ids=["R-hat at the limit", "ESS at the limit", "deep trees"],
)
def test_the_gate_lets_its_limits_through(changes):
    assert judged(**changes).status == "trusted"


def test_trees_at_their_greatest_depth_are_counted():
    assert judged(stats=stats_of(depth=10)).engine["tree_depth_hits"] == 2000
    assert judged(stats=stats_of(depth=9)).engine["tree_depth_hits"] == 0


def test_convergence_is_that_of_the_worst_parameter(fit_of):
    draws = fit_of("hierarchical", "poisson").posterior
    r_hat, ess = convergence({"mu": draws["mu"], "lam": draws["lam"]})
    each = [draws["mu"], *np.moveaxis(draws["lam"], 2, 0)]
    assert r_hat == pytest.approx(max(array_stats.rhat(one) for one in each))
    assert ess == pytest.approx(min(array_stats.ess(one, method="bulk") for one in each))
