"""Power-scaling against ArviZ on trees, against exact posteriors, and its words."""

import logging

import arviz_stats
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from poolwise.checks import power_scaling
from poolwise.inference.datatree import to_tree
from poolwise.inference.engines.base import Fit
from poolwise.inference.predictive import pointwise_log_likelihood
from poolwise.model.count_model import sites_of
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL
from poolwise.model.priors import prior_values
from support import PRIORS, model_of, posterior_and_cells


def table_of(draws, counts, pooling, likelihood, priors=PRIORS):
    posterior, cells = posterior_and_cells(draws, counts)
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    return power_scaling.power_scaling(posterior, counts, cells, model_of(pooling, likelihood, priors), values)


def drawn(law, shape=(4, 4000)):
    """Independent draws of the rates in the place of a fit."""
    lam = law.rvs(shape, random_state=np.random.default_rng(0))
    return Fit({"lam": lam}, {"lp": np.zeros(shape[:2])})


@pytest.fixture(scope="module")
def nb_table(fit_of, cookies):
    return table_of(fit_of("hierarchical", "negative_binomial"), cookies, "hierarchical", "negative_binomial")


def test_sensitivities_are_those_of_arviz(nb_table, fit_of, cookies, caplog):
    draws = fit_of("hierarchical", "negative_binomial")
    tree = to_tree(draws.posterior, draws.sample_stats, cookies)
    posterior = tree["posterior"]
    densities = {  # written out with SciPy
        "mu": stats.gamma.logpdf(posterior["mu"], 2, scale=5),
        "sigma": stats.expon.logpdf(posterior["sigma"]),
        "delta": stats.halfnorm.logpdf(posterior["delta"], scale=0.5),
    }
    dims = ("chain", "draw")
    tree["log_prior"] = xr.DataTree(xr.Dataset({name: (dims, value) for name, value in densities.items()}))
    cells = pointwise_log_likelihood(NEGATIVE_BINOMIAL, *posterior_and_cells(draws, cookies))
    rows = np.moveaxis(np.repeat(np.concatenate(list(cells)), cookies.cell_multiplicity, axis=0), 0, 2)
    tree["log_likelihood"] = xr.DataTree(xr.Dataset({"y": ((*dims, "row"), rows)}))
    names = ["mu", "sigma", "delta", "lam"]
    with caplog.at_level(logging.CRITICAL):
        theirs = arviz_stats.psense_summary(tree, var_names=names, alphas=(0.8, 1.25), round_to=12)
    ours = nb_table.loc[["mu", "sigma", "delta", *(f"lam.{g}" for g in range(1, 6))]]
    assert np.allclose(ours["prior"], theirs.loc[ours_to_theirs(ours.index), "prior"], atol=1e-9)
    assert np.allclose(ours["likelihood"], theirs.loc[ours_to_theirs(ours.index), "likelihood"], atol=1e-9)


def ours_to_theirs(names):
    return [f"lam[{name.removeprefix('lam.')}]" if name.startswith("lam.") else name for name in names]


def distance(before, after, ends):
    """Cumulative Jensen-Shannon distance of two laws between the extreme draws, as the reference normalises it."""
    x = np.linspace(*ends, 40_001)
    found = []
    for p, q in ((before.cdf(x), after.cdf(x)), (before.sf(x), after.sf(x))):
        m = (p + q) / 2
        found.append(np.sqrt(np.sum(p * np.log2(p / m) + q * np.log2(q / m)) / np.sum(p + q)))
    return max(found)


@pytest.mark.parametrize(("component", "at"), [("prior", (1, 0)), ("likelihood", (0, 1))])
def test_sensitivities_of_a_conjugate_fit_are_exact(component, at, cookies):
    # pooled Poisson under Gamma(200, 40): prior^a likelihood^b is Gamma(199 a + 1373 b + 1, 40 a + 150 b)
    priors = PRIORS | {"lam": {"name": "Gamma", "concentration": 200.0, "rate": 40.0}}
    before = stats.gamma(1573, scale=1 / 190)
    draws = drawn(before)
    found = table_of(draws, cookies, "pooled", "poisson", priors).loc["lam", component]
    ends = draws.posterior["lam"].min(), draws.posterior["lam"].max()
    lower, upper = (
        distance(before, stats.gamma(199 * a + 1373 * b + 1, scale=1 / (40 * a + 150 * b)), ends)
        for a, b in (tuple(alpha if is_scaled else 1 for is_scaled in at) for alpha in (0.8, 1.25))
    )
    assert found == pytest.approx((lower + upper) / 2 / np.log2(1.25), rel=0.05)


def test_only_top_level_priors_are_scaled():
    lam = drawn(stats.gamma(2), (2, 50, 3)).posterior["lam"]
    sites = {"mu": lam[..., 0], "sigma": lam[..., 1], "lam": lam}
    dims = ("chain", "draw", "group")
    posterior = xr.Dataset({name: (dims[: value.ndim], value) for name, value in sites.items()})
    values = prior_values(PRIORS, sites=("mu", "sigma"))
    found = power_scaling.log_priors(posterior, model_of("hierarchical", "poisson"), values)
    assert list(found) == ["mu", "sigma"]
    assert found["mu"] == pytest.approx(stats.gamma.logpdf(sites["mu"], 2, scale=5))
    assert found["sigma"] == pytest.approx(-sites["sigma"])


def test_prior_of_independent_rates_is_the_sum_of_theirs():
    lam = drawn(stats.gamma(2), (2, 50, 3)).posterior["lam"]
    posterior = xr.Dataset({"lam": (("chain", "draw", "group"), lam)})
    found = power_scaling.log_priors(posterior, model_of("unpooled", "poisson"), prior_values(PRIORS, sites=("lam",)))
    assert found["lam"] == pytest.approx(stats.gamma.logpdf(lam, 2, scale=5).sum(axis=2))


def test_parameters_without_a_mean_are_left_out(nb_table):
    assert list(nb_table.index) == ["delta", *(f"lam.{g}" for g in range(1, 6)), "mu", "sigma"]


def test_five_groups_say_less_of_their_spread_than_its_prior(nb_table):
    assert nb_table.loc["sigma", "diagnosis"] == power_scaling.DOMINANT
    assert (nb_table.loc["lam.1":"lam.5", "diagnosis"] == power_scaling.NOTHING).all()
    assert nb_table.loc["sigma", "prior.sigma"] > 10 * nb_table.loc["sigma", "prior.mu"]
    assert power_scaling.lines(nb_table) == []  # no more than of any five groups
    assert power_scaling.tag(nb_table) == ""


def test_a_prior_far_from_the_data_is_named_with_its_numbers(cookies):
    priors = PRIORS | {"lam": {"name": "Gamma", "concentration": 400.0, "rate": 100.0}}  # 4.0 +- 0.2 chips
    total = np.bincount(cookies.cell_group, cookies.cell_multiplicity * cookies.cell_count)
    draws = drawn(stats.gamma(400 + total, scale=1 / 130), (4, 4000, 5))
    table = table_of(draws, cookies, "unpooled", "poisson", priors)
    assert (table["diagnosis"] == power_scaling.BOTH).all()
    assert power_scaling.tag(table) == ""
    (line,) = power_scaling.lines(table)
    assert line.startswith("prior.lam and the data both move lam.5, ")
    assert line.endswith("; compare with another prior.lam")
    assert "conflict" not in line


@pytest.mark.parametrize("num_rows", [1, 6])
def test_tables_from_the_prior_raise_no_remark_on_independent_rates(num_rows):
    # 50 tables of ten groups: Gamma(2, 0.2) rates have the posterior Gamma(2 + total, 0.2 + rows)
    rng, remarks = np.random.default_rng(0), 0
    for _ in range(50):
        counts = rng.poisson(rng.gamma(2, 5, (10, 1)), (10, num_rows))
        lam = rng.gamma(2 + counts.sum(1), 1 / (0.2 + num_rows), (4, 250, 10))
        log_prior = stats.gamma.logpdf(lam, 2, scale=5).sum(2)
        prior = power_scaling._sensitivities(log_prior, list(np.moveaxis(lam, 2, 0)))
        table = pd.DataFrame({"prior.lam": prior, "prior": prior, "likelihood": 1.0})
        table.index = [f"lam.{g}" for g in range(10)]
        remarks += bool(power_scaling.lines(table.assign(diagnosis=power_scaling.BOTH)))
    assert remarks <= 3  # 1 in 100 is meant; Binomial(50, 0.01) exceeds 3 in 0.2% of cases


def test_rates_of_a_hierarchy_take_no_prior_and_are_not_named():
    rows = {"lam.a": (0.5, 0.5, 0.5), "sigma": (0.31, 0.31, 0.4), "mu": (0.29, 0.29, 0.4)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["prior.sigma", "prior", "likelihood"])
    table = table.assign(**{"prior.mu": 0.0}, diagnosis=power_scaling.BOTH)
    (line,) = power_scaling.lines(table)
    assert line.startswith("prior.sigma and the data both move sigma (power-scaling: prior 0.31, likelihood 0.40)")


def test_a_flat_prior_has_no_say(cookies):
    priors = PRIORS | {"lam": {"name": "Uniform", "low": 0.0, "high": 50.0}}
    table = table_of(drawn(stats.gamma(1374, scale=1 / 150)), cookies, "pooled", "poisson", priors)
    assert table.loc["lam", "prior"] == 0
    assert table.loc["lam", "diagnosis"] == power_scaling.NOTHING


def test_weights_that_cannot_be_smoothed_are_made_nearer_to_one_or_given_up():
    rng = np.random.default_rng(0)
    draws = rng.exponential(1.0, (4, 1000))
    near = power_scaling._sensitivities(6.0 * draws, [draws])[0]  # exp(0.25 * 6 x): tail index 1.5; at 0.01, 0.06
    assert np.isfinite(near) and near > 0.05
    assert np.isnan(power_scaling._sensitivities(200.0 * draws, [draws])[0])
    standing = np.zeros((4, 1000))
    standing[0, 0] = 1.0  # chains that moved once: a tail of one value
    assert np.isnan(power_scaling._sensitivities(standing, [draws])[0])


def test_many_parameters_are_looked_at_in_evenly_spaced_draws(fit_of, cookies, monkeypatch):
    draws = fit_of("hierarchical", "negative_binomial")
    places = np.linspace(0, draws.posterior["mu"].shape[1] - 1, 1000).round().astype(int)
    spaced = Fit(
        *({name: value[:, places] for name, value in each.items()} for each in (draws.posterior, draws.sample_stats))
    )
    expected = table_of(spaced, cookies, "hierarchical", "negative_binomial")
    monkeypatch.setattr(power_scaling, "WORK", 4000 * 11)  # with alpha, beta and phi
    pd.testing.assert_frame_equal(table_of(draws, cookies, "hierarchical", "negative_binomial"), expected)


@pytest.mark.parametrize(
    ("prior", "likelihood", "expected"),
    [
        (0.01, 0.20, power_scaling.NOTHING),
        (0.01, 0.01, power_scaling.NOTHING),
        (0.05, 0.05, power_scaling.BOTH),
        (0.20, 0.04, power_scaling.DOMINANT),
        (np.nan, 0.20, power_scaling.UNKNOWN),
    ],
)
def test_diagnosis_follows_the_threshold(prior, likelihood, expected):
    assert power_scaling.diagnosis(prior, likelihood) == expected


def test_words_name_prior_parameters_and_numbers():
    rows = {"mu": (0.01, 0.37, 0.37, 0.01), "sigma": (0.01, 0.50, 0.51, 0.03), "lam": (0.0, 0.0, 0.0, 0.3)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["prior.mu", "prior.sigma", "prior", "likelihood"])
    table["diagnosis"] = [power_scaling.diagnosis(*pair) for pair in table[["prior", "likelihood"]].values]
    assert power_scaling.tag(table) == "prior.sigma: sigma, mu"
    assert power_scaling.lines(table) == [
        "prior.sigma moves sigma, mu, the likelihood hardly (power-scaling: at most prior 0.51, likelihood 0.03); "
        "compare with another prior.sigma"
    ]


def test_long_lists_of_parameters_are_cut():
    rows = {f"lam.{g}": (0.4, 0.4, 0.3) for g in range(8)}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["prior.lam", "prior", "likelihood"])
    (line,) = power_scaling.lines(table.assign(diagnosis=power_scaling.BOTH))
    assert "both move lam.0, lam.1, lam.2, lam.3, lam.4 and 3 more (" in line
