"""Sweeps under every launcher: statuses, links, exit codes, also when a job fails or its worker dies.

Each launcher needs its plugin: `launchers` and `optuna` are in requirements.lock, `ray` has a lock of its own
(docs/clusters.md); where one is missing its tests are skipped.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from poolwise.tracking import store

pytestmark = pytest.mark.slow

TINY = ("sampler.num_samples=200", "plots=none", "sweep.compare=false", "device.num_devices=1")
SHORT = ("sampler.num_warmup=150", "sampler.checkpoint_every=100")
# from a location of -1e160 every rate is infinitely unlikely: the fit finds no start, which no pre-flight can know
ONE_FAILS = ("pooling=pooled", "prior/lam=log_normal", "prior.lam.loc=2.1,-1e160,2.2")
LONG = ("sampler.num_warmup=400000", "sampler.checkpoint_every=1000", "pooling=pooled", "seed=0,1,2")  # some seconds


def needs(distribution: str) -> pytest.MarkDecorator:
    try:
        version(distribution)
    except PackageNotFoundError:
        return pytest.mark.skip(reason=f"{distribution} is not installed")
    return pytest.mark.skipif(False, reason="")


WORKERS = [
    pytest.param("joblib_workers", marks=needs("hydra-joblib-launcher")),
    pytest.param("submitit_workers", marks=needs("hydra-submitit-launcher")),
    pytest.param("ray_workers", marks=needs("hydra-ray-launcher")),
]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Ray writes a token into the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))


def all_runs(outputs: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


def family(outputs: Path) -> tuple[Run, list[Run]]:
    """The only parent, and its children; every run is one or the other."""
    (parent,) = [run for run in all_runs(outputs) if run.data.tags.get("kind") == "sweep"]
    others = [run for run in all_runs(outputs) if run.info.run_id != parent.info.run_id]
    assert {run.data.tags.get("mlflow.parentRunId") for run in others} <= {parent.info.run_id}
    return parent, others


def statuses(runs: list[Run]) -> Counter[str]:
    return Counter(run.info.status for run in runs)


def sampling(outputs: Path) -> Run | None:
    """A run of which the process has begun to draw."""
    begun = {path.parent.name[-6:] for path in (outputs / "runs").glob("*/state.json") if "warm-up" in path.read_text()}
    return next((run for run in all_runs(outputs) if run.info.run_id[:6] in begun), None)


@pytest.mark.parametrize("launcher", WORKERS)  # of the basic launcher in test_sweep
def test_a_job_that_fails_ends_only_itself(process, outputs, launcher):
    done = process("-m", f"hydra/launcher={launcher}", *TINY, *SHORT, *ONE_FAILS)
    assert done.returncode == 1, done.stderr
    parent, children = family(outputs)
    assert parent.info.status == "FAILED"
    assert statuses(children) == {"FINISHED": 2, "FAILED": 1}
    (failed,) = [run for run in children if run.info.status == "FAILED"]
    assert failed.data.params["prior.lam.loc"] == "-1e+160"
    traceback = Path(failed.info.artifact_uri.removeprefix("file://")) / "failure/traceback.txt"
    assert "FitError: chains 0, 1, 2, 3: no starting point" in traceback.read_text()
    assert f"SweepError: job 1 {failed.info.run_name}: FAILED (run {failed.info.run_id})" in done.stderr


@pytest.mark.parametrize("launcher", WORKERS)
def test_a_sweep_whose_worker_was_killed_can_be_continued(process, outputs, tmp_path, launcher):
    arguments = ("-m", f"hydra/launcher={launcher}", *TINY, *LONG)
    started = [sys.executable, "-m", "poolwise.run", *arguments]
    sweep = subprocess.Popen(started, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while (run := sampling(outputs)) is None and sweep.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert run, sweep.communicate(timeout=120)[0]
    worker = int(run.data.tags[store.PROCESS].rpartition(":")[2])
    assert worker != sweep.pid
    os.kill(worker, signal.SIGKILL)
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1, printed
    parent, children = family(outputs)
    assert parent.info.status == "FAILED"
    assert statuses(children)["RUNNING"] == 0
    assert {each.info.run_id: each.info.status for each in children}[run.info.run_id] == "KILLED"
    ended = statuses(children)["FINISHED"]

    again = process(*arguments)
    assert again.returncode == 0, again.stderr
    parent, children = family(outputs)
    assert parent.info.status == "FINISHED"
    finished = [each.data.tags["run_fingerprint"] for each in children if each.info.status == "FINISHED"]
    assert len(finished) == len(set(finished)) == 3 > ended
    assert statuses(children).keys() <= {"FINISHED", "KILLED"}


@needs("hydra-optuna-sweeper")
def test_a_search_maximises_elpd_loo(process, outputs):
    done = process("experiments=prior_scale_search", "hydra.sweeper.n_trials=3", *TINY, *SHORT)
    assert done.returncode == 0, done.stderr
    parent, children = family(outputs)
    assert parent.info.status == "FINISHED"
    assert statuses(children) == {"FINISHED": 3}
    (results,) = (outputs / "sweeps").glob("*/optimization_results.yaml")
    found = yaml.safe_load(results.read_text())
    best = max(children, key=lambda run: run.data.metrics["elpd_loo"])
    assert found["best_value"] == pytest.approx(best.data.metrics["elpd_loo"])
    assert found["best_params"]["prior.sigma.scale"] == pytest.approx(float(best.data.params["prior.sigma.scale"]))


@needs("hydra-optuna-sweeper")
def test_a_trial_that_fails_does_not_end_a_search(process, outputs):
    priors = ("pooling=pooled", "likelihood=poisson", "prior/lam=log_normal", "prior.lam.loc=choice(2.3,-1e160)")
    done = process("experiments=prior_scale_search", "hydra.sweeper.n_trials=4", *TINY, *SHORT, *priors)
    assert done.returncode == 1, done.stderr
    parent, children = family(outputs)
    assert parent.info.status == "FAILED"
    assert statuses(children).keys() == {"FINISHED", "FAILED"}
    assert "Traceback" not in done.stderr
