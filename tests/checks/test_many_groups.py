"""More groups than rates can be stored for: the same findings from the rates given the other parameters."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import exact_reference
from poolwise.checks import findings, power_scaling
from poolwise.checks.base import Settings
from poolwise.checks.group_contrasts import RANK_HIGH, RANK_LOW
from poolwise.checks.summary import HIGH, LOW
from poolwise.counts.cells import counts_from_rows
from poolwise.inference import rates
from poolwise.inference.datatree import STORED_DRAW, joint
from poolwise.inference.engines import ENGINES
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from poolwise.runs.arviz_tree import to_arviz
from support import ONE_DEVICE, PRIORS, SAMPLER, groups_of, model_of

pytestmark = pytest.mark.fit

NUM_GROUPS, STORED = 30, 30 * 4 * 25  # rates at 25 draws of each chain
CHECKS = frozenset({"groups", "sensitivity", "model_check"})


@pytest.fixture(scope="module")
def table():
    """Thirty groups of two rows; several show the same total."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(rng.gamma(4.0, 1.0, NUM_GROUPS)[:, None], (NUM_GROUPS, 2))
    return counts_from_rows(np.repeat([f"g{g:02d}" for g in range(NUM_GROUPS)], 2), counts.ravel())


def examined(table, likelihood="poisson", *, engine="exact", parameterisation="marginal", stored=STORED, **lengths):
    """A judged fit with so many rates stored."""
    model = model_of("hierarchical", likelihood, parameterisation=parameterisation)
    values = prior_values(PRIORS, sites=sites_of("hierarchical", likelihood))
    sampler = replace(SAMPLER, name=engine, **lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "STORED", stored)
        draws = ENGINES[engine].sample(model, table, values, seed=0, sampler=sampler, device=ONE_DEVICE)
    settings = Settings(seed=0, sampler=sampler, device=ONE_DEVICE, checks=CHECKS, num_draws=100)
    return findings.examine(model, table, values, draws, settings)


@pytest.fixture(scope="module")
def many(table):
    return examined(table)


@pytest.fixture(scope="module")
def whole(table):
    return examined(table, stored=rates.STORED)


@pytest.fixture(scope="module")
def exact(table):
    return exact_reference.exact("hierarchical", "poisson", groups_of(table))


def test_rates_are_stored_at_evenly_spaced_draws_with_all_other_parameters(many, whole):
    found = joint(many.posterior)
    assert many.posterior[STORED_DRAW].values.tolist() == np.linspace(0, 3999, 25).round().tolist()
    assert found["lam"].sizes == {"chain": 4, "draw": 25, "group": NUM_GROUPS}
    assert many.posterior["mu"].sizes["draw"] == 4000
    at = many.posterior[STORED_DRAW].values
    assert np.array_equal(found["mu"].values, whole.posterior["mu"].values[:, at])


def test_a_posterior_with_all_rates_is_joint_as_it_is(whole):
    assert joint(whole.posterior) is whole.posterior


def test_rates_are_summarised_at_all_draws(many, exact):
    table = many.summary.loc[[f"lam.g{g:02d}" for g in range(NUM_GROUPS)]]
    off = (table["mean"] - exact.mean["lam"]) / table["mcse_mean"]
    assert off.abs().max() < 4
    off = (table["sd"] - exact.sd["lam"]) / table["mcse_sd"]
    assert off.abs().max() < 4
    assert table["mcse_mean"].max() < 0.05 * table["sd"].min()


def test_groups_that_are_alike_have_one_answer(many, table):
    total = table.cell_multiplicity * table.cell_count
    total = np.bincount(table.cell_group, total)
    of_total = many.summary.loc[[f"lam.g{g:02d}" for g in range(NUM_GROUPS)], "mean"].groupby(total).nunique()
    assert len(of_total) < NUM_GROUPS and of_total.eq(1).all()


def test_a_summary_has_the_order_of_one_with_all_rates(many, whole):
    assert many.summary.index.equals(whole.summary.index)
    assert many.summary.columns.equals(whole.summary.columns)


def test_elpd_is_integrated_and_within_its_error(many, exact):
    assert abs(many.loo.elpd - exact.elpd_loo) < 4 * many.loo.mcse < 0.2
    assert abs(many.loo.p_loo - exact.p_loo) < 0.1
    assert np.isnan(many.loo.k_max_psis)


def test_rows_lie_where_they_lie_with_all_rates(many, whole):
    assert np.abs(many.cell_below - whole.cell_below).max() < 0.01


def test_the_fit_is_judged(many):
    assert many.verdict.status == "trusted"
    assert many.model_check.status == "passed"
    assert len(many.tables["ranking"]) == NUM_GROUPS


def test_sensitivity_of_the_other_parameters_is_known(many, whole):
    found = many.tables["sensitivity"]
    assert list(found.index) == ["mu", "sigma"]
    assert np.allclose(found["prior"], whole.tables["sensitivity"].loc[found.index, "prior"], atol=0.02)


def test_the_marginal_likelihood_is_that_of_the_counts_given_mu_and_sigma(many, table):
    # the total S of two rows is negative binomial: alpha successes, probability beta / (beta + 2)
    posterior = many.posterior.isel(chain=[0], draw=[0, 1])
    found = power_scaling.log_marginal(many.model, posterior, table, many.prior_values)[0]
    for s in (0, 1):
        a, b = (float(posterior[name][0, s]) for name in ("alpha", "beta"))
        rows = groups_of(table)
        expected = sum(stats.nbinom.logpmf(each.sum(), a, b / (b + 2)) for each in rows)
        expected += sum(stats.binom.logpmf(each[0], each.sum(), 0.5) for each in rows)
        assert found[s] == pytest.approx(expected, abs=1e-8)


def test_nuts_stores_rates_by_the_same_rule(table, whole):
    found = examined(table, engine="nuts")
    assert found.posterior.sizes[STORED_DRAW] == 25
    rates_of = found.summary.loc[[f"lam.g{g:02d}" for g in range(NUM_GROUPS)]]
    independent = whole.summary.loc[rates_of.index]
    error = np.hypot(rates_of["mcse_mean"], independent["mcse_mean"])
    assert (((rates_of["mean"] - independent["mean"]) / error).abs() < 4.5).all()


@pytest.mark.slow
def test_rates_that_cannot_be_drawn_again_are_summarised_as_stored(table):
    lengths = {"num_warmup": 300, "num_samples": 400}
    found = examined(table, "zero_inflated_poisson", engine="nuts", parameterisation="standardised", **lengths)
    stored = joint(found.posterior)["lam"].sel(group="g03").values
    assert found.summary.at["lam.g03", "mean"] == pytest.approx(stored.mean())


@pytest.mark.slow
@pytest.mark.parametrize(("likelihood", "num_groups"), [("poisson", 4000), ("negative_binomial", 1000)])
def test_intervals_of_rates_and_ranks_hold_the_truth(likelihood, num_groups):
    rng = np.random.default_rng(5)
    true = rng.gamma(4.0, 2.5, num_groups)
    noise = 1.0 if likelihood == "poisson" else rng.gamma(10.0, 0.1, (num_groups, 5))
    counts = rng.poisson(true[:, None] * noise * np.ones((num_groups, 5)))
    labels = [f"g{g:04d}" for g in range(num_groups)]
    found = examined(counts_from_rows(np.repeat(labels, 5), counts.ravel()), likelihood, stored=num_groups * 4 * 100)
    rates_of = found.summary.loc[[f"lam.{label}" for label in labels]]
    assert 0.92 < np.mean((true >= rates_of[LOW]) & (true <= rates_of[HIGH])) < 0.96
    ranks, rank = found.tables["ranking"].loc[labels], 1 + np.argsort(np.argsort(-true))
    assert 0.88 < np.mean((rank >= ranks[RANK_LOW]) & (rank <= ranks[RANK_HIGH])) < 0.92


def test_the_tree_for_arviz_has_all_draws_and_says_where_the_rates_are(many):
    tree = to_arviz(many.tree, model=many.model, values=many.prior_values, group_column="plant", seed=0)
    assert tree["posterior"].sizes == {"chain": 4, "draw": 4000} and set(tree["posterior"].data_vars) == {"mu", "sigma"}
    assert tree["rates"]["lam"].sizes == {"chain": 4, "draw": 25, "plant": NUM_GROUPS}
    assert "stored at some of the draws" in tree.attrs["rates"]
    assert isinstance(tree["posterior"].to_dataset().to_dataframe(), pd.DataFrame)
