"""The command as a user meets it: a real store, and a fresh process where the process is what counts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import arviz
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from scipy import stats

import poolwise
from poolwise.errors import UnknownRunError
from poolwise.figures.registry import FIGURES
from poolwise.tracking import run as tracking
from poolwise.tracking.record import Record

TINY = ("sampler.num_warmup=150", "sampler.num_samples=200", "sampler.checkpoint_every=100", "plots=none")
SECRET = "hunter2-planted"


def store(outputs: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{outputs}/mlflow.db")


def runs(outputs: Path, experiment: str = "cookies"):
    client = store(outputs)
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id]) if found else []


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory, migrated_store, started):
    """One `sampler=quick` run with every figure: (completed process, outputs, run, folder of its artifacts)."""
    outputs = tmp_path_factory.mktemp("quick") / "outputs"
    shutil.copytree(migrated_store, outputs)
    asked = ("sampler=quick", "likelihood=negative_binomial", "plots=full")
    done = started(*asked, folder=outputs.parent, module="poolwise.run", POOLWISE_OUTPUTS=str(outputs))
    assert done.returncode == 0, done.stderr
    (run,) = runs(outputs)
    return done, outputs, run, Path(run.info.artifact_uri.removeprefix("file://"))


def test_a_run_is_silent_but_for_its_answer(quick_run):
    done, *_ = quick_run
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) <= 22  # verdicts, rates, which differ, predictions, checks, place


def test_the_last_lines_say_verdict_rates_accuracy_and_place(quick_run):
    done, outputs, run, _ = quick_run
    assert re.search(r"^trusted: R-hat at most 1\.0", done.stdout, re.M)
    assert re.search(r"^  5 +11\.\d+ +10\.\d+ to 1\d\.\d+$", done.stdout, re.M)
    assert re.search(r"^elpd_loo -394\.\d\d \+- 9\.\d\d", done.stdout, re.M)
    assert run.info.run_id in done.stdout
    assert str(outputs / "runs") in done.stdout


def test_a_run_logs_the_headline_metrics(quick_run):
    _, _, run, _ = quick_run
    named = {"elpd_loo", "elpd_loo_se", "elpd_loo_mcse", "p_loo", "pareto_k_max", "pareto_k_bad", "r_hat_max"}
    named |= {"ess_bulk_min", "ess_tail_min", "divergences", "bfmi_min", "tree_depth_hits", "ess_per_second"}
    named |= {"seconds_total"}
    assert named <= set(run.data.metrics)
    assert all(np.isfinite(run.data.metrics[name]) for name in named)


def test_a_run_logs_metrics_by_parameter_stage_and_progress(quick_run):
    _, _, run, _ = quick_run
    grouped = {"mean/lam.1", "sd/sigma", "r_hat/delta", "ess_bulk/mu", "seconds/sample", "progress/r_hat_max"}
    assert grouped <= set(run.data.metrics)
    assert not any("/alpha" in name or "/phi" in name for name in run.data.metrics if name.startswith("mean"))


def test_a_run_logs_every_leaf_of_its_config_as_a_parameter(quick_run):
    _, _, run, folder = quick_run
    leaves = pd.json_normalize(yaml.safe_load((folder / "config/resolved.yaml").read_text())).columns
    assert set(leaves) == set(run.data.params)
    assert "prior.lam.rate" not in run.data.params  # a hierarchy has no prior of its own on lam


def test_a_run_has_its_tags(quick_run):
    _, _, run, _ = quick_run
    named = {"verdict", "verdict_reasons", "draws_fingerprint", "run_fingerprint", "data_sha256", "posterior_sha256"}
    assert named | {"code_state", "mlflow.note.content"} <= set(run.data.tags)
    assert run.data.tags["verdict"] == "trusted"


def test_elpd_loo_is_the_first_metric_and_what_code_reads_stands_behind_the_verdicts(quick_run):
    _, _, run, _ = quick_run
    shown = [name for name in run.data.tags if not name.startswith("mlflow.")]
    assert next(iter(run.data.metrics)) == "elpd_loo"
    assert shown[:5] == ["verdict", "verdict_reasons", "model_check", "model_check_reasons", "kind"]
    assert shown.index("run_fingerprint") < min(i for i, name in enumerate(shown) if name.startswith("writer."))
    assert sorted(shown)[-3:] == ["writer.heartbeat", "writer.process", "writer.run_key"]


def test_a_run_leaves_every_artifact(quick_run):
    *_, folder = quick_run
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    figures = {
        f"figures/{name}.png" for name in FIGURES if name not in ("leave_group_out", "rate_ratios")
    }  # not asked for
    named = {
        "config/resolved.yaml",
        "config/overrides.yaml",
        "environment/requirements.txt",
        "environment/stack.json",
        "code/commit.json",
        "data/cookies.csv",
        "posterior/posterior.nc",
        "loo/pointwise.csv",
        "tables/summary.csv",
        *(
            f"tables/{name}.csv"
            for name in ("new_group", "counts", "groups", "ranking", "contrasts", "exact", "sensitivity", "statistics")
        ),
        "report.html",
    }
    assert named <= found
    assert {name for name in found if name.startswith("figures/")} == figures


def test_every_table_that_the_report_names_is_written(quick_run):
    *_, folder = quick_run
    named = set(re.findall(r"tables/\w+\.csv", (folder / "report.html").read_text()))
    assert {"tables/summary.csv", "tables/new_group.csv", "tables/counts.csv", "tables/sensitivity.csv"} <= named
    assert [name for name in sorted(named) if not (folder / name).is_file()] == []


def test_a_run_says_how_it_stands_to_the_exact_answer(quick_run):
    done, _, run, folder = quick_run
    assert run.data.tags["exact"] == "agrees"
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("exact answer: the fit agrees"))
    assert f"- {line}" in run.data.tags["mlflow.note.content"].splitlines()
    table = pd.read_csv(folder / "tables/exact.csv", index_col="quantity")
    assert table["z"].abs().max() == pytest.approx(run.data.metrics["exact_z_max"])
    assert table.loc["log marginal likelihood", "exact"] == run.data.metrics["log_marginal_likelihood"]


def test_pointwise_elpd_adds_up_to_the_metric(quick_run):
    _, _, run, folder = quick_run
    table = pd.read_csv(folder / "loo/pointwise.csv")
    columns = ["group", "exposure", "count", "multiplicity", "elpd", "pareto_k", "replaced", "pareto_k_psis"]
    assert list(table.columns) == columns
    assert (table["elpd"] * table["multiplicity"]).sum() == pytest.approx(run.data.metrics["elpd_loo"])


def test_a_logged_run_can_be_loaded_with_its_log_likelihood_by_row(quick_run):
    _, outputs, run, folder = quick_run
    tree = poolwise.load(run.info.run_id, f"sqlite:///{outputs}/mlflow.db")
    values = tree["log_likelihood"]["y"]
    assert (values.dims, values.dtype) == (("chain", "draw", "row"), np.float64)
    table = pd.read_csv(folder / "data/cookies.csv", dtype={"location": str})
    assert list(tree["observed_data"]["y"].values) == list(table["chips"])
    assert list(tree["observed_data"]["location"].values) == list(table["location"])
    rate = tree["posterior"]["lam"].sel(location=list(table["location"])).values  # (4, 1000, 150)
    phi = tree["derived"]["phi"].values[..., None]
    off = np.abs(values.values - stats.nbinom.logpmf(table["chips"], phi, phi / (phi + rate)))
    assert np.median(off) < 1e-13
    assert off.max() < 1e-5  # SciPy's own loss for a concentration that is large


def test_a_stored_tree_is_not_taken_for_one_of_arviz(quick_run):
    *_, folder = quick_run
    tree = arviz.from_netcdf(folder / "posterior/posterior.nc")
    with pytest.raises(TypeError, match="log likelihood not found"):
        arviz.loo(tree)
    with pytest.raises(KeyError, match="prior_predictive"):
        arviz.plot_ppc_dist(tree, group="prior_predictive")


def test_loo_of_arviz_on_a_loaded_run_is_the_logged_one_whatever_jax_is_set_to(quick_run):
    _, outputs, run, folder = quick_run
    ess = pd.read_csv(folder / "tables/summary.csv")["ess_bulk"].mean()
    code = (
        "import arviz, poolwise\n"
        f"tree = poolwise.load({run.info.run_id!r}, 'sqlite:///{outputs}/mlflow.db')\n"
        f"print(arviz.loo(tree).elpd, arviz.loo(tree, reff=min(1.0, {ess} / 4000)).elpd)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    plain, alike = map(float, done.stdout.split())
    logged = run.data.metrics
    assert logged["loo_replaced"] == 0
    assert alike == pytest.approx(logged["elpd_loo"], abs=1e-6)
    assert plain == pytest.approx(logged["elpd_loo"], abs=logged["elpd_loo_mcse"])  # ArviZ has another mean ESS


def test_a_run_without_draws_cannot_be_loaded(outputs):
    uri = f"sqlite:///{outputs}/mlflow.db"
    with tracking.logged_run(Record("grid", "cookies", {}, {"kind": "sweep"}), uri=uri, outputs=outputs) as sweep:
        pass
    with pytest.raises(UnknownRunError, match="has no posterior"):
        poolwise.load(sweep.run_id, uri)


def test_a_log_likelihood_that_is_too_large_is_left_out_with_the_reason(quick_run, monkeypatch):
    _, outputs, run, _ = quick_run
    monkeypatch.setattr("poolwise.runs.arviz_tree.MOST_VALUES", 599_999)
    with pytest.warns(UserWarning, match="left out.*150 rows x 4000 draws are too many values") as said:
        tree = poolwise.load(run.info.run_id, f"sqlite:///{outputs}/mlflow.db")
    assert said[0].filename == __file__
    assert "log_likelihood" not in tree.children
    assert tree["posterior_predictive"]["y"].shape == (4, 250, 150)
    assert tree.attrs["log_likelihood"] == str(said[0].message)


def test_a_run_with_integrated_elpd_says_on_loading_that_arviz_cannot_do_it(quick_run):
    _, outputs, run, _ = quick_run
    uri = f"sqlite:///{outputs}/mlflow.db"
    store(outputs).log_metric(run.info.run_id, "loo_replaced", 150)
    with pytest.warns(UserWarning, match=r"rates integrated out.*Pareto k up to 0\.\d\d.*arviz\.loo") as said:
        tree = poolwise.load(run.info.run_id, uri)
    assert tree.attrs["elpd_loo"] == str(said[0].message)
    store(outputs).log_metric(run.info.run_id, "loo_replaced", 0)


def test_seed_zero_is_a_seed(command, outputs):
    assert command("-m", *TINY, "seed=0,1", "sweep.compare=false").returncode == 0
    fitted = [run.data for run in runs(outputs) if "posterior_sha256" in run.data.tags]
    assert {run.params["seed"] for run in fitted} == {"0", "1"}
    assert len({run.tags["posterior_sha256"] for run in fitted}) == 2


@pytest.mark.process
def test_two_runs_at_once_keep_apart(command, outputs, tmp_path):
    arguments = [sys.executable, "-m", "poolwise.run", *TINY]
    both = [subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert len({run.data.tags["posterior_sha256"] for run in runs(outputs)}) == 1
    assert len(list((outputs / "runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sampler.num_sample=3"], "ConfigError: unknown key sampler.num_sample. Did you mean sampler.num_samples?"),
        (["pooling=partial"], "ConfigError: unknown choice pooling=partial. Choices: hierarchical, pooled, unpooled."),
        (["sampler.num_samples=0"], "ConfigError: sampler.num_samples is 0; it must be"),
        (["data=table", "data.path=none.csv", "data.group=a", "data.count=b"], "DataError: none.csv: no such file"),
        (["device.num_devices=3"], "DeviceError: device.num_devices=3 does not divide sampler.num_chains=4"),
        (
            ["predict.group=6"],
            "ConfigError: predict.group 6 is not a group of the data. Groups are 1, 2, 3, 4, 5.",
        ),
        (["seed=["], "ConfigError: "),
    ],
)
def test_a_wrong_request_ends_with_two_and_one_message(command, outputs, arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert runs(outputs) == []
    assert not (outputs / "runs").exists()


def test_a_platform_that_is_not_there_ends_a_process_with_two_and_one_message(process, outputs):
    done = process("device=gpu")  # a process starts JAX once, so not this one
    assert done.returncode == 2
    assert done.stderr.startswith("DeviceError: device.platform=gpu")
    assert "Traceback" not in done.stderr
    assert not (outputs / "runs").exists()


def test_every_fault_of_a_config_is_told_at_once(command):
    done = command("seed=-1", "sampler.target_accept=2", "+predict.draw=3")
    lines = [line.removeprefix("ConfigError: ").removeprefix("unknown key ") for line in done.stderr.splitlines()]
    assert [line.split(" ")[0].rstrip(".") for line in lines] == ["sampler.target_accept", "predict.draw", "seed"]


def test_a_fit_that_raises_leaves_a_failed_run_with_its_traceback(process, outputs):
    # a prior that ends below the smallest rate with a finite logarithm: no chain finds a start
    uniform = ("prior.lam.name=Uniform", "+prior.lam.low=0", "+prior.lam.high=1e-320")
    done = process(*TINY, "pooling=pooled", *uniform, "~prior.lam.concentration", "~prior.lam.rate")
    assert done.returncode == 1, done.stderr
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["verdict"]) == ("FAILED", "failed")
    text = (Path(run.info.artifact_uri.removeprefix("file://")) / "failure/traceback.txt").read_text()
    assert "FitError: chains 0, 1, 2, 3: no starting point" in text


@pytest.mark.slow  # test_resume sends both signals to a shorter fit
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_from_outside_is_killed(outputs, tmp_path, sent, code):
    arguments = [sys.executable, "-m", "poolwise.run", "sampler.num_samples=100000000"]
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (outputs / "runs").is_dir() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(sent)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == code, printed
    (run,) = runs(outputs)
    assert run.info.status == "KILLED"


@pytest.mark.parametrize(
    ("way", "mode"),
    [
        ("override", ["-m"]),
        ("environment", []),
        pytest.param("override", [], marks=pytest.mark.slow),
        pytest.param("environment", ["-m"], marks=pytest.mark.slow),
    ],
)
def test_credentials_are_recorded_nowhere(command, outputs, tmp_path, way, mode):
    # sqlite takes no password, so the address is one that nobody answers: the runs go to its spool
    uri = f"http://someone:{SECRET}@127.0.0.1:9/"
    arguments = [f"tracking.uri={uri}"] if way == "override" else []
    environment = {"MLFLOW_TRACKING_URI": uri} if way == "environment" else {}
    done = command(*mode, *TINY, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    written = [path for folder in (outputs, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def test_credentials_in_a_config_file_are_refused_unseen(command, outputs, tmp_path):
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "mine.yaml").write_text(f"uri: http://me:{SECRET}@host/\ntable_limit_mb: 1\n")
    done = command(f"hydra.searchpath=[file://{tmp_path}]", "tracking=mine")
    assert done.returncode == 2
    assert "tracking.uri contains a user name or password" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_the_store_named_by_the_environment_is_used(command, outputs, tmp_path):
    other = tmp_path / "other"
    done = command(*TINY, MLFLOW_TRACKING_URI=f"sqlite:///{other}/mlflow.db")
    assert done.returncode == 0, done.stderr
    assert runs(outputs) == []
    assert len(runs(other)) == 1


def test_the_store_named_by_the_config_beats_the_environment(command, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    done = command(*TINY, f"tracking.uri=sqlite:///{one}/mlflow.db", MLFLOW_TRACKING_URI=f"sqlite:///{two}/mlflow.db")
    assert done.returncode == 0, done.stderr
    assert (len(runs(one)), two.exists()) == (1, False)


def test_a_table_of_ones_own_names_its_experiment(command, outputs, tmp_path):
    (tmp_path / "defects.tsv").write_text("plant\tdefects\thours\nnorth, old\t3\t2.5\n007\t0\t1\nnorth, old\t7\t4\n")
    done = command(
        *TINY, "data=table", "data.path=defects.tsv", "data.group=plant", "data.count=defects", "data.exposure=hours"
    )
    assert done.returncode == 0, done.stderr
    (run,) = runs(outputs, "defects")
    assert "mean/lam.north_ old" in run.data.metrics
    assert run.data.params["predict.exposure"] == "2.5"  # the median of 2.5, 1 and 4, recorded as a number
    assert "a new group at exposure 2.5 hours (the median): mean " in done.stdout


def test_priors_in_another_unit_than_the_data_are_said_before_the_fit(command, outputs, tmp_path):
    # 3 events in 1000 hours, a rate near 0.003, under rates of Gamma(2, 1/5), a mean of 10: P(rate < 0.003) = 2e-7
    rows = "".join(f"{group}\t{count}\t1000\n" for group in "abc" for count in (3, 2, 4))
    (tmp_path / "faults.tsv").write_text("line\tfaults\thours\n" + rows)
    table = ("data=table", "data.path=faults.tsv", "data.group=line", "data.count=faults", "data.exposure=hours")
    done = command(*TINY, *table, "pooling=pooled")
    assert done.returncode == 0, done.stderr
    _, warning, *_ = done.stdout.splitlines()
    assert warning.startswith("prior.lam Gamma(concentration 2, rate 0.2) expects rates of ")
    assert "; the data show 0.00306, where its tail probability is " in warning
    (run,) = runs(outputs, "faults")
    note = run.data.tags["mlflow.note.content"].splitlines()
    assert f"- {warning}" in note
    page = Path(run.info.artifact_uri.removeprefix("file://")) / "report.html"
    assert "expects rates of" in page.read_text()


def test_a_group_of_the_data_is_predicted_by_its_label(command, outputs):
    done = command(*TINY, "predict.group=5", "predict.above=[12,15]", "checks.exact=false", "checks.sensitivity=false")
    assert done.returncode == 0, done.stderr
    (run,) = runs(outputs)
    metrics = run.data.metrics
    line = r"^one more count of 5: mean 11\.\d+, sd .*, above 12: 0\.\d+, above 15: 0\.\d+$"
    assert re.search(line, done.stdout, re.M)
    assert 1 > metrics["group/above_12"] > metrics["group/above_15"] > 0
    assert metrics["group/mean"] == pytest.approx(metrics["mean/lam.5"])
    assert run.data.tags["predicted_group"] == "5"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    tables = {path.name for path in (folder / "tables").iterdir()}
    assert {"group.csv", "group_above.csv"} <= tables
    assert not {"new_group.csv", "exact.csv", "sensitivity.csv"} & tables
    assert not list(folder.glob("figures/*"))  # plots=none
    named = set(re.findall(r"tables/(\w+\.csv)", (folder / "report.html").read_text()))
    assert "group.csv" in named
    assert named <= tables


def test_the_resolved_config_makes_the_same_draws(quick_run, command, outputs):
    # what is logged is enough: every leaf of it, given as an override, leads to the same bits
    *_, run, folder = quick_run
    settings = yaml.safe_load((folder / "config/resolved.yaml").read_text())
    leaves = pd.json_normalize({"sampler": settings["sampler"], "prior": settings["prior"]}).iloc[0]
    told = [f"{key}={json.dumps(value.item() if hasattr(value, 'item') else value)}" for key, value in leaves.items()]
    assert command(*told, f"seed={settings['seed']}", "likelihood=negative_binomial", "plots=none").returncode == 0
    (again,) = runs(outputs)
    assert again.data.tags["posterior_sha256"] == run.data.tags["posterior_sha256"]
    assert again.data.tags["draws_fingerprint"] == run.data.tags["draws_fingerprint"]
