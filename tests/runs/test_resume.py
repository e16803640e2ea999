"""A killed fit, started again: the same draws, in the same run, at the cost of a chunk."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Run

from poolwise.config import check
from poolwise.errors import FitError
from poolwise.inference import checkpoint
from poolwise.paths import CONF, register_resolvers
from poolwise.provenance.recorded_run import of_run
from poolwise.runs import pipeline, resume
from poolwise.tracking.record import Record

# chunks of some milliseconds, so many that a kill falls between them
FIT = ("sampler.num_warmup=300", "sampler.num_samples=3000", "sampler.checkpoint_every=20", "plots=none")
CHUNKS = 165


def runs(outputs: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("cookies").experiment_id])


def statuses(outputs: Path) -> list[str]:
    return sorted(run.info.status for run in runs(outputs))


def chunks(outputs: Path) -> list[Path]:
    return sorted((outputs / "runs").glob("*/checkpoint/*.npz"))


# In this process: a fit that is stopped after a chunk, as by Ctrl-C.


def fit(*overrides: str) -> None:
    """`python -m poolwise.run`, in this process."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*FIT, *overrides])
    pipeline.run(check(composed), [*FIT, *overrides])


@pytest.fixture
def stop_after(monkeypatch) -> Callable[..., None]:
    """`stop_after(40, "seed=1")`: a fit that ends once so many chunks are saved."""

    def stopped(number: int, *overrides: str, error: type[BaseException] = KeyboardInterrupt) -> None:
        save, saved = checkpoint.save, [0]

        def counting(folder, snapshot):
            save(folder, snapshot)
            saved[0] += 1
            if saved[0] == number:
                raise error

        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", counting)
            with pytest.raises(error):
                fit(*overrides)

    return stopped


@pytest.fixture(scope="module")
def undisturbed(migrated_store, tmp_path_factory) -> str:
    """The hash of the draws when nothing happens to the fit."""
    folder = tmp_path_factory.mktemp("undisturbed") / "outputs"
    shutil.copytree(migrated_store, folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("POOLWISE_OUTPUTS", str(folder))
        fit()
    (run,) = runs(folder)
    return run.data.tags["posterior_sha256"]


def test_a_stopped_fit_ends_with_the_same_draws_in_the_same_run(outputs, stop_after, undisturbed, capsys):
    stop_after(40)
    (before,) = runs(outputs)
    fit()
    (run,) = runs(outputs)
    assert f"resuming run {run.info.run_id} at step 800 of each chain" in capsys.readouterr().out
    assert (before.info.status, run.info.status) == ("KILLED", "FINISHED")
    assert run.data.tags["posterior_sha256"] == undisturbed
    assert run.data.tags["verdict"] != "failed"
    assert chunks(outputs) == []


def test_a_resumed_fit_logs_every_progress_once(outputs, stop_after):
    stop_after(100)
    fit()
    (run,) = runs(outputs)
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    steps = [each.step for each in client.get_metric_history(run.info.run_id, "progress/r_hat_max")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12000


def test_a_fit_whose_analysis_failed_keeps_its_draws(outputs, undisturbed, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "examine", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit()
    assert (statuses(outputs), len(chunks(outputs))) == (["FAILED"], CHUNKS)
    monkeypatch.setattr(checkpoint, "save", lambda folder, snapshot: pytest.fail("it drew again"))
    fit()
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_other_chunks_and_figures_go_on_in_a_run_of_their_own(outputs, stop_after, undisturbed, capsys):
    stop_after(60)
    (old,) = runs(outputs)
    fit("sampler.checkpoint_every=77", "checks.progress=3")
    assert "as a new run: other settings or store" in capsys.readouterr().out  # a logged parameter cannot change
    assert statuses(outputs) == ["FINISHED", "KILLED"]
    (run,) = (run for run in runs(outputs) if run.info.status == "FINISHED")
    assert (run.data.tags["posterior_sha256"], run.data.tags["draws_from"]) == (undisturbed, old.info.run_id)


@pytest.mark.parametrize("left", [0.5, 0.0], ids=["half", "nothing"])
def test_a_torn_chunk_costs_itself_alone(outputs, stop_after, undisturbed, capsys, left):
    stop_after(50)
    last = chunks(outputs)[-1]
    os.truncate(last, int(last.stat().st_size * left))
    fit()
    assert "at step 980 of each chain" in capsys.readouterr().out
    assert runs(outputs)[0].data.tags["posterior_sha256"] == undisturbed


def test_a_full_disk_ends_the_run_and_the_next_start_goes_on(outputs, undisturbed, monkeypatch):
    sync, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > 60:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(FitError, match="No space left on device"):
            fit()
    assert statuses(outputs) == ["FAILED"]
    fit()
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_reuse_false_begins_anew(outputs, stop_after, capsys):
    stop_after(10)
    fit("reuse=false")
    assert "resuming" not in capsys.readouterr().out
    assert statuses(outputs) == ["FINISHED", "KILLED"]


@pytest.mark.parametrize("overrides", [("seed=1",), ("prior.mu.rate=0.3",), ("sampler.target_accept=0.8",)])
def test_a_fit_of_other_settings_is_not_gone_on_with(outputs, stop_after, capsys, overrides):
    stop_after(10)
    fit(*overrides)
    printed = capsys.readouterr().out
    assert "resuming" not in printed
    assert "starting from the beginning" not in printed


def test_a_fit_begun_on_another_stack_is_named_and_begun_anew(outputs, stop_after, capsys):
    stop_after(10)
    (file,) = (outputs / "runs").glob("*/artifacts/environment/stack.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cpu": "Abacus", "num_devices": 16}))
    fit()
    printed = capsys.readouterr().out
    assert "starting from the beginning: run " in printed
    assert "fitted with cpu Abacus, here" in printed
    assert "num_devices" not in printed  # on any number of devices the draws are the same
    assert statuses(outputs) == ["FINISHED", "KILLED"]


def test_a_fit_begun_with_another_version_is_named_and_begun_anew(outputs, stop_after, capsys):
    stop_after(10)
    (folder,) = (outputs / "runs").iterdir()
    file, record = folder / "artifacts" / "environment" / "fingerprint.json", folder / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"numpyro": "0.1.0"}))
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"tags": told["tags"] | {"draws_fingerprint": "0" * 64}}))
    fit()
    assert "fitted with numpyro 0.1.0, here" in capsys.readouterr().out
    assert statuses(outputs) == ["FINISHED", "KILLED"]


def test_a_run_that_is_gone_from_the_store_is_not_gone_on_in(outputs, stop_after, undisturbed):
    stop_after(30)
    (old,) = runs(outputs)
    MlflowClient(f"sqlite:///{outputs}/mlflow.db").delete_run(old.info.run_id)
    fit()
    (run,) = runs(outputs)
    assert run.info.run_id != old.info.run_id
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_folders_that_hold_no_record_are_passed_over(tmp_path):
    folder = tmp_path / "runs" / "half"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"status": "RUNN')
    record = Record("n", "e", {}, {"draws_fingerprint": "0" * 64, "data_sha256": ""})
    assert resume.find(record, stack={}, ingredients={}, uri="", outputs=tmp_path) is None


def test_folders_of_other_draws_without_chunks_are_not_opened(tmp_path):
    told = {"status": "KILLED", "run_id": "r1", "tags": {"draws_fingerprint": "0" * 64}}
    for name, chunks in (("a-00000000-r1", False), ("b-11111111-r2", False), ("c-22222222-r3", True)):
        (folder := tmp_path / name).mkdir()
        (folder / "record.json").write_text(json.dumps(told))
        if chunks:
            (folder / "checkpoint").mkdir()
    found = {folder.name for folder, _ in resume._unfinished(tmp_path, "0" * 64)}
    assert found == {"a-00000000-r1", "c-22222222-r3"}


# In processes of their own: real kills.


def start(outputs: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "poolwise.run", *FIT, *overrides],
        cwd=outputs.parent,
        env=os.environ | {"POOLWISE_OUTPUTS": str(outputs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)


def end(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


@pytest.mark.slow
def test_a_fit_killed_at_once_and_on_the_way_goes_on_on_other_devices(outputs, undisturbed):
    process = start(outputs, "device.num_devices=1")
    wait_until(process, lambda: list((outputs / "runs").glob("*/artifacts/environment/stack.json")))
    process.kill()
    process.communicate()
    (first,) = runs(outputs)
    process = start(outputs, "device.num_devices=1")
    wait_until(process, lambda: len(chunks(outputs)) >= 60)
    process.kill()
    assert "at its beginning" in process.communicate()[0]
    assert statuses(outputs) == ["RUNNING"]
    assert "at step " in end(start(outputs, "device.num_devices=4"))
    (run,) = runs(outputs)
    assert (run.info.run_id, run.info.status) == (first.info.run_id, "FINISHED")
    assert run.data.tags["posterior_sha256"] == undisturbed
    # parameters are of the first start, the config of the last: no contradiction to who reads the run back
    uri = f"sqlite:///{outputs}/mlflow.db"
    assert of_run(run.info.run_id, uri=uri).settings["device"]["num_devices"] == 4


@pytest.mark.process
def test_a_signal_lets_the_chunk_end_and_the_fit_can_go_on(outputs, undisturbed):
    for sent, code, at in ((signal.SIGINT, 130, 20), (signal.SIGTERM, 143, 50)):
        process = start(outputs)
        wait_until(process, lambda at=at: len(chunks(outputs)) >= at)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "stopping after this chunk" in errors
        assert re.search(r"stopped at step [\d,]+ of [\d,]+; the same command goes on", errors)
        assert statuses(outputs) == ["KILLED"]
        assert at <= len(chunks(outputs)) < CHUNKS
    end(start(outputs))
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


@pytest.mark.process
def test_a_fit_that_is_at_work_is_left_alone(outputs, capsys):
    process = start(outputs, "sampler.num_samples=100000000")
    try:
        wait_until(process, lambda: chunks(outputs))
        other = start(outputs, "sampler.num_samples=100000000")
        wait_until(other, lambda: len(list((outputs / "runs").iterdir())) == 2)
        other.kill()
        assert "resuming" not in other.communicate()[0]
        assert statuses(outputs) == ["RUNNING", "RUNNING"]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_five_kills_at_random_moments_change_no_draw(outputs, undisturbed):
    rng, left = np.random.default_rng(20), []
    for _ in range(5):
        process, before = start(outputs), len(chunks(outputs))
        wait_until(process, lambda before=before: len(chunks(outputs)) > before)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.exponential(0.02))
        process.kill()
        process.communicate()
        left.append(len(chunks(outputs)))
    end(start(outputs))
    (run,) = runs(outputs)
    print(f"chunks after each kill: {left}")
    assert left == sorted(set(left))  # every start went on from where the one before was
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)
