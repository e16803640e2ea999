"""The command `poolwise.calibrate`: what it refuses, what it logs, how it goes on after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Run

from poolwise.calibration import findings as calibration_findings
from poolwise.calibration import note, pipeline
from poolwise.calibration import ranks as sbc
from poolwise.calibration.fits import Recovered
from poolwise.config import Calibration, check_as, hydra_fault
from poolwise.errors import ConfigError, FitError
from poolwise.inference import checkpoint
from poolwise.paths import CONF, register_resolvers

pytestmark = pytest.mark.fit

TINY = (
    *("pooling=unpooled", "simulations=25", "batch=10", "draws=19", "thin=2"),
    *("sampler.num_warmup=100", "device.num_devices=1"),
)


def composed(*overrides: str) -> Calibration:
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return check_as(Calibration, compose("calibrate", overrides=list(overrides)))


def runs(outputs: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("cookies").experiment_id])


def ranks(folder: Path) -> bytes:
    return (folder / "artifacts" / "tables" / "ranks.csv").read_bytes()


@pytest.fixture(scope="module")
def logged(tmp_path_factory, migrated_store):
    """A calibration of 25 tables, made once: (outputs, run of MLflow, folder of its artifacts)."""
    outputs = tmp_path_factory.mktemp("calibrated") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POOLWISE_OUTPUTS", str(outputs))
        run = pipeline.calibrate(composed(*TINY), list(TINY))
    return outputs, MlflowClient(run.uri).get_run(run.run_id), run.artifacts


def test_config_has_the_choices_of_a_run():
    own, run = (yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in ("calibrate", "config"))
    told = [
        {k: v for each in part["defaults"] if isinstance(each, dict) for k, v in each.items()} for part in (own, run)
    ]
    left_out = {"experiments", "override hydra/help"}
    assert {k: v for k, v in told[0].items() if k not in left_out} == {
        k: v for k, v in told[1].items() if k not in left_out
    }


def test_all_faults_of_a_config_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        composed("simulations=3", "thin=0", "+draw=99")
    lines = str(caught.value).splitlines()
    assert any(line.startswith("simulations is 3; it must be") for line in lines)
    assert any(line.startswith("thin is 0; it must be") for line in lines)
    assert "unknown key draw. Did you mean draws?" in lines


def test_unknown_key_is_refused_with_the_nearest():
    error = Exception("Could not override 'simulation'.\nKey 'simulation' is not in struct")
    assert str(hydra_fault(error, Calibration)) == "unknown key simulation. Did you mean simulations?"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["simulation=5"], "ConfigError: unknown key simulation. Did you mean simulations?\n"),
        (
            ["sampler=exact"],
            "ConfigError: a calibration tests chains of NUTS, and sampler=exact has none. Leave sampler= out.\n",
        ),
        (["-m", "thin=1,2"], "ConfigError: -m requests a sweep, but a calibration takes one model."),
        (["data=table", "data.path=no.csv", "data.group=a", "data.count=b"], "DataError: no.csv: no such file."),
    ],
)
def test_wrong_request_ends_with_2_and_one_message_before_anything_is_made(command, outputs, arguments, told):
    done = command(*arguments, module="poolwise.calibrate")
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1
    assert not (outputs / "runs").exists()
    assert not (outputs / "calibrations").exists()


def test_a_dry_run_fits_nothing(command, outputs):
    done = command("sweep.dry_run=true", "simulations=20", module="poolwise.calibrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"would simulate 20 tables like .*cookies\.csv and fit the .* model to each\n", done.stdout)
    assert not (outputs / "calibrations").exists()
    assert not (outputs / "runs").exists()


def test_a_calibration_logs_verdict_and_headline_metrics(logged):
    _, run, _ = logged
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "calibration"
    assert run.data.tags["verdict"] == "calibrated"
    assert run.data.tags["verdict_reasons"] == "none"
    metrics = run.data.metrics
    assert (metrics["calibrated"], metrics["simulations"], metrics["lost_simulations"]) == (1.0, 25.0, 0.0)
    named = {"sbc_p_min", "divergent_simulations", "seconds", "ess_per_draw_min", "ess_per_draw_median", "sbc_p/lam.1"}
    assert named <= metrics.keys()
    assert metrics["sbc_p_min"] == min(value for name, value in metrics.items() if name.startswith("sbc_p/"))


def test_a_calibration_logs_the_settings_that_it_used(logged):
    _, run, folder = logged
    assert run.data.params["simulations"] == "25"
    assert run.data.params["sampler.num_warmup"] == "100"
    assert "sampler.num_samples" not in run.data.params
    assert yaml.safe_load((folder / "config/resolved.yaml").read_text())["draws"] == 19
    assert yaml.safe_load((folder / "config/overrides.yaml").read_text()) == list(TINY)


def test_a_calibration_leaves_ranks_table_figure_and_note(logged):
    _, run, folder = logged
    table, verdict = pd.read_csv(folder / "tables/ranks.csv"), pd.read_csv(folder / "tables/calibration.csv")
    assert len(table) == 25
    assert table[[f"rank {name}" for name in verdict["quantity"]]].to_numpy().max() <= 19
    assert list(verdict["quantity"]) == [*(f"lam.{label}" for label in range(1, 6)), "log likelihood"]
    ks = sbc.judge(table[["rank lam.1"]].to_numpy(), ("lam.1",), num_draws=19)
    assert verdict.loc[0, "p"] == pytest.approx(ks["p"].item())
    assert (folder / "figures/ecdf_pit.png").read_bytes().startswith(b"\x89PNG")
    assert "| lam.1 |" in run.data.tags["mlflow.note.content"]


def test_a_finished_calibration_leaves_no_checkpoint(logged):
    outputs, *_ = logged
    assert not list((outputs / "calibrations").glob("*"))


def test_a_stopped_calibration_goes_on_to_the_same_ranks(logged, outputs, monkeypatch, capsys):
    def save_and_stop(folder, snapshot, save=checkpoint.save):
        save(folder, snapshot)
        if snapshot.steps == 20:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", save_and_stop)
        pipeline.calibrate(composed(*TINY))
    assert [run.info.status for run in runs(outputs)] == ["KILLED"]
    run = pipeline.calibrate(composed(*TINY, "batch=6"))  # how many at a time is no part of what is calibrated
    assert "resuming after 20 of 25 simulations" in capsys.readouterr().out
    assert (run.artifacts / "tables/ranks.csv").read_bytes() == (logged[2] / "tables/ranks.csv").read_bytes()
    assert not list((outputs / "calibrations").glob("*"))


def test_ranks_kept_by_other_code_are_not_gone_on_with(monkeypatch):
    job = pipeline.start(composed(*TINY), TINY)
    before = pipeline.describe(job).tags["calibration_fingerprint"]
    monkeypatch.setattr(pipeline, "MODULES", ("poolwise.calibration.simulation",))  # not the fits
    assert pipeline.describe(job).tags["calibration_fingerprint"] != before


def test_a_store_that_is_down_loses_nothing(outputs, capsys):
    run = pipeline.calibrate(composed(*TINY, "tracking.uri=http://127.0.0.1:9"))
    assert run.is_spooled
    kept = MlflowClient(run.uri).get_run(run.store_run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.tags["verdict"] == "calibrated"
    assert "waits   for http://127.0.0.1:9" in capsys.readouterr().out


def test_a_simulation_that_was_not_fitted_makes_a_variant_miscalibrated(logged):
    found = fabricated(lost=[3])
    findings = calibration_findings.examine(found)
    assert findings.status == "miscalibrated"
    assert findings.reasons == ("1 of 40 simulations could not be fitted: no finite start, draw or table",)
    table = calibration_findings.ranks_table(found)
    assert table.loc[table["rank mu"].isna(), "simulation"].tolist() == [3]


def test_a_calibration_in_which_nothing_was_fitted_says_so():
    with pytest.raises(FitError, match="none of 40 simulations could be fitted"):
        calibration_findings.examine(fabricated(lost=range(40)))


def test_reasons_name_the_quantity_and_how():
    found = fabricated()
    found.rank[:20] = 0
    findings = calibration_findings.examine(found)
    assert findings.reasons == (findings.reasons[0],)
    assert findings.reasons[0].startswith("mu: small values are missed: ")
    assert calibration_findings.metrics(findings)["calibrated"] == 0.0
    assert note.judgement(findings)[0].startswith("miscalibrated: smallest p under 1e-")


@pytest.mark.parametrize(
    ("p", "told"), [(0.5, "0.50"), (0.00125, "0.0013"), (3e-7, "under 1e-6"), (1e-12, "under 1e-12")]
)
def test_p_values_are_readable(p, told):
    assert note.p_text(p) == told


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on_to_the_same_ranks_on_other_devices(outputs, command, tmp_path):
    arguments = [each for each in TINY if "num_devices" not in each] + ["simulations=200", "batch=2"]
    begin = [sys.executable, "-m", "poolwise.calibrate", *arguments, "device.num_devices=1"]
    process = subprocess.Popen(begin, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait(lambda: len(list((outputs / "calibrations").rglob("*.npz"))) > 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = command(*arguments, "device.num_devices=2", module="poolwise.calibrate")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("resuming after ")
    whole = command(*arguments, "device.num_devices=2", module="poolwise.calibrate")
    assert whole.stdout.startswith("unpooled poisson: 200 simulated tables")
    killed, resumed, anew = sorted(
        (path.parent for path in (outputs / "runs").glob("*/record.json")), key=lambda path: path.stat().st_ctime
    )
    assert ranks(resumed) == ranks(anew)
    assert json.loads((killed / "record.json").read_text())["status"] == "RUNNING"
    assert sorted(run.info.status for run in runs(outputs)) == ["FINISHED", "FINISHED", "KILLED"]


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def fabricated(*, lost=()) -> Recovered:
    """Forty simulations of one quantity with uniform ranks, these without a fit."""
    rank = np.random.default_rng(0).permutation(np.arange(40) % 20)[:, None]
    is_fitted = np.ones(40, bool)
    is_fitted[list(lost)] = False
    return Recovered(
        names=("mu",),
        truth=np.ones((40, 1)),
        rank=rank,
        ess=np.full((40, 1), 18.0),
        autocorrelation=np.zeros((40, 1)),
        divergences=np.zeros(40, int),
        is_fitted=is_fitted,
        num_draws=19,
        seconds=1.0,
    )
