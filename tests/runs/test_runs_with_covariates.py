"""A table with covariates through a whole run: effects against exact sums, records, reproduction, comparison."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hydra import compose, initialize_config_dir
from scipy import stats
from scipy.special import logsumexp

from poolwise.comparison import pipeline as comparison
from poolwise.config import check
from poolwise.errors import ConfigError, DataError
from poolwise.figures.registry import FIGURES
from poolwise.paths import CONF, outputs, register_resolvers
from poolwise.runs import job as job_module
from poolwise.runs import pipeline, rerun
from poolwise.runs.load import load
from poolwise.sweeps.outcomes import by_rows
from poolwise.tracking import store
from poolwise.tracking.credentials import store_uri

pytestmark = pytest.mark.fit

RNG = np.random.default_rng(4)
DRUG = np.array(["placebo", "drug"])[RNG.integers(0, 2, 40)]
AGE = RNG.integers(20, 60, 40)
HOURS = RNG.choice([0.5, 1.0, 2.0], 40)
COUNT = RNG.poisson(4 * HOURS * np.exp(-0.6 * (DRUG == "drug") + 0.02 * (AGE - 40)))
PLANT = np.repeat(list("abcd"), 10)
COLUMNS = ("data=table", "data.group=plant", "data.count=defects", "data.exposure=hours")
COVARIATES = ("data.covariates=[drug,age]", "data.reference={drug: placebo}")
SHORT = ("sampler.num_warmup=500", "sampler.num_samples=2000", "device.num_devices=1")


@pytest.fixture(scope="module")
def place(migrated_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("covariates")
    shutil.copytree(migrated_store, folder / "outputs")
    table = {"plant": PLANT, "hours": HOURS, "drug": DRUG, "age": AGE, "defects": COUNT}
    pd.DataFrame(table).to_csv(folder / "trial.csv", index=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POOLWISE_OUTPUTS", str(folder / "outputs"))
        patched.chdir(folder)
        yield folder


def checked(*overrides):
    register_resolvers()
    overrides = overrides if any(each.startswith("plots=") for each in overrides) else (*overrides, "plots=none")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("config", overrides=[*COLUMNS, "data.path=trial.csv", *SHORT, *overrides]))


def fit(*overrides):
    job = job_module.prepare(checked(*overrides), overrides)
    return pipeline.carry_out(replace(job, uri=store_uri(None, outputs())))


@pytest.fixture(scope="module")
def pooled(place):
    return fit("pooling=pooled", *COVARIATES, "predict.at={drug: drug}", "predict.exposure=2")


@pytest.fixture(scope="module")
def exact():
    """Effects, rate and elpd of a pooled Poisson model, by sums over a grid of both effects and the rate."""
    x = np.column_stack([DRUG == "drug", (AGE - AGE.mean()) / AGE.std()])
    grids = np.linspace(-1.6, 0.4, 121), np.linspace(-0.4, 0.8, 121)
    beta = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1).reshape(-1, 2)
    factor = HOURS * np.exp(beta @ x.T)  # (B, N)
    shape, rate = 2.0 + COUNT.sum(), 0.2 + factor.sum(axis=1)  # of lam given beta: the prior is Gamma(2, 0.2)
    log_p = COUNT @ np.log(factor).T - shape * np.log(rate) + stats.norm.logpdf(beta).sum(axis=1)
    weight = np.exp(log_p - logsumexp(log_p))
    less = 2.0 + COUNT.sum() - COUNT, rate[:, None] - factor  # of lam without a row
    without = log_p[:, None] - COUNT * np.log(factor) + shape * np.log(rate)[:, None] - less[0] * np.log(less[1])
    law = stats.nbinom(less[0], less[1] / (less[1] + factor))  # of the row, given the others and beta
    elpd = logsumexp(without + law.logpmf(COUNT), axis=0) - logsumexp(without, axis=0)
    mean = weight @ beta
    return {"mean": mean, "sd": np.sqrt(weight @ beta**2 - mean**2), "lam": weight @ (shape / rate), "elpd": elpd.sum()}


def read(run, name, **more):
    return pd.read_csv(store.artifact(run.run_id, name, uri=store_uri(None, outputs())), **more)


def test_effects_rates_and_accuracy_are_those_of_the_sums(pooled, exact):
    summary = read(pooled, "tables/summary.csv", index_col="parameter")
    effects = summary.loc[["beta.drug.drug", "beta.age"]]
    assert (np.abs(effects["mean"] - exact["mean"]) < 5 * effects["mcse_mean"]).all()
    assert (np.abs(effects["sd"] - exact["sd"]) < 5 * effects["mcse_sd"]).all()
    assert abs(summary.loc["lam", "mean"] - exact["lam"]) < 5 * summary.loc["lam", "mcse_mean"]
    metrics = pooled.record.metrics
    assert abs(metrics["elpd_loo"] - exact["elpd"]) < min(0.15, 4 * metrics["elpd_loo_mcse"] + 0.01)


def test_ratios_are_in_the_unit_of_the_column(pooled, exact):
    table = read(pooled, "tables/rate_ratios.csv", index_col="effect")
    assert table.loc["drug.drug", "against"] == "placebo"
    assert np.log(table.loc["drug.drug", "ratio"]) == pytest.approx(exact["mean"][0], abs=0.02)
    assert np.log(table.loc["age", "ratio"]) * AGE.std() == pytest.approx(exact["mean"][1], abs=0.02)
    assert table.loc["age", "sd"] == pytest.approx(AGE.std())
    assert pooled.record.metrics["rate_ratio/age"] == pytest.approx(table.loc["age", "ratio"])


def test_everything_says_at_which_covariates(pooled):
    report = store.artifact(pooled.run_id, "report.html", uri=store_uri(None, outputs())).read_text()
    mean = f"{AGE.mean():.4g} (the mean)"
    assert f"with drug placebo, age {mean}" in report  # the rates
    assert f"at exposure 2 hours with drug drug, age {mean}" in report
    assert "the rate ratios of its covariates x" in report
    assert report.count("drug drug against placebo") == 2  # in the answer, and in the table below it
    assert "<bdi>one unit more of age</bdi>" in report
    assert pooled.record.note.count("The rate ratio of one unit more of age is ") == 1
    assert f"with drug drug, age {mean}" in pooled.record.note
    new, summary = pooled.record.metrics["new_group/mean"], read(pooled, "tables/summary.csv", index_col="parameter")
    ratio = read(pooled, "tables/rate_ratios.csv", index_col="effect").loc["drug.drug", "ratio"]
    assert new == pytest.approx(2 * ratio * summary.loc["lam", "mean"], rel=0.05)


@pytest.mark.filterwarnings("ignore:elpd_loo of this run")
def test_arviz_gets_effects_and_the_design(pooled):
    tree = load(pooled.run_id)
    assert {"beta.drug.drug", "beta.age"} <= set(tree["posterior"].data_vars)
    assert tree["constant_data"]["x"].sel(effect="drug.drug").values.tolist() == (DRUG == "drug").tolist()
    assert set(tree["log_prior"].data_vars) == {"lam", "beta"}
    rate = tree["posterior"]["lam"] * np.exp(
        tree["posterior"]["beta.drug.drug"] * tree["constant_data"]["x"].sel(effect="drug.drug")
        + tree["posterior"]["beta.age"] * tree["constant_data"]["x"].sel(effect="age")
    )
    expected = xr.apply_ufunc(lambda rate: stats.poisson(rate * HOURS).logpmf(COUNT), rate.transpose(..., "row"))
    np.testing.assert_allclose(tree["log_likelihood"]["y"].transpose(*expected.dims), expected, rtol=1e-9)


def test_a_run_is_reproduced_bit_for_bit(pooled):
    found = rerun.reproduce(pooled.run_id, uri=store_uri(None, outputs()))
    assert found.verdict == "bit-identical"


def test_runs_with_and_without_covariates_are_ranked_on_the_same_rows(pooled):
    uri = store_uri(None, outputs())
    ids = [pooled.run_id, fit("pooling=pooled").run_id, fit("pooling=pooled", "data.covariates=[age]").run_id]
    made = comparison.compare_runs(comparison.named(ids[:2], uri=uri), uri=uri, outputs=outputs())
    table = pd.read_csv(store.artifact(made, "tables/comparison.csv", uri=uri), keep_default_na=False)
    assert table["run_id"].tolist() == ids[:2]
    a, b = (
        pd.read_csv(store.artifact(run_id, "loo/pointwise.csv", uri=uri)).set_index(["group", "exposure", "count"])
        for run_id in ids[:2]
    )
    apart = (b["elpd"].reindex(a.index) - a["elpd"]).repeat(a["multiplicity"]).to_numpy()
    assert float(table["elpd_diff"].iloc[1]) == pytest.approx(apart.sum())
    assert float(table["dse"].iloc[1]) == pytest.approx(np.sqrt(40) * apart.std())
    made = comparison.compare_runs(comparison.named(ids, uri=uri), uri=uri, outputs=outputs())
    table = pd.read_csv(store.artifact(made, "tables/comparison.csv", uri=uri), keep_default_na=False)
    assert set(table["data.covariates"]) == {"", "['age']", "['drug', 'age']"}
    runs = [store.logged(run_id, uri=uri) for run_id in ids]
    assert by_rows(runs) == [runs]  # a sweep over covariates has one comparison
    assert [run.name for run in runs] == [
        "pooled-pois covariates=[drug,age] at={drug: drug} exposure=2",
        "pooled-pois",
        "pooled-pois covariates=[age]",
    ]


def test_a_table_without_covariates_is_recorded_as_ever(place):
    settings = checked().resolved()
    assert {"covariates", "reference"}.isdisjoint(settings["data"]) and "at" not in settings["predict"]
    assert "beta" not in settings["prior"]
    settings = checked(*COVARIATES).resolved()
    assert settings["data"]["covariates"] == ["drug", "age"]
    assert settings["prior"]["beta"] == {"name": "Normal", "loc": 0.0, "scale": 1.0}
    assert json.loads(json.dumps(settings))["data"]["reference"] == {"drug": "placebo"}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("data.covariates=[dose]",), DataError, "no column 'dose'"),
        (("data.covariates=[drug]", "predict.at={drug: none}"), DataError, "predict.at.drug=none: drug has no level"),
        (("data.covariates=[drug]", "predict.at={age: 40}"), DataError, "predict.at names age, which is no covariate"),
        (("predict.at={age: 40}",), DataError, "the table has none"),
        (("data.covariates=[drug,drug]",), DataError, "named twice"),
        (("data.covariates=[drug]", "sampler.name=exact"), ConfigError, "draws no effects of covariates"),
        (("data.covariates=[drug]", "prior.beta.scale=-1"), ConfigError, "prior.beta.scale is -1.*must be > 0"),
        (
            ("data.covariates=[drug]", "prior.beta.name=Gamma"),
            ConfigError,
            "beta is any real number and accepts one of",
        ),
    ],
)
def test_faults_are_told_before_anything_runs(place, overrides, error, message):
    with pytest.raises(error, match=message):
        fit(*overrides)
    assert not list(Path(outputs()).glob("runs/*fault*"))


def test_every_figure_of_a_hierarchy_with_covariates_is_drawn(place):
    run = fit("likelihood=poisson", *COVARIATES, "plots=full", "checks.leave_group_out=true")
    drawn = {path.stem for path in (run.artifacts / "figures").glob("*.png")}
    assert drawn == set(FIGURES)
    assert "beta.drug.drug" in read(run, "tables/prior_posterior.csv")["parameter"].tolist()
    ranks = pd.read_csv(store.artifact(run.run_id, "tables/summary.csv", uri=store_uri(None, outputs())), index_col=0)
    assert {"beta", "beta.age", "alpha", "mu"} <= set(ranks.index)  # beta is the rate of the gamma population
