"""A killed fit, started again: the same draws, in the same run, at the cost of a chunk."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from poolwise import resume
from poolwise.record import Record

# chunks of some milliseconds, so many that a kill falls between them
FIT = ("sampler.num_warmup=300", "sampler.num_samples=3000", "sampler.checkpoint_every=20", "plots=none")
LAST = 165  # chunks


def start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "poolwise.run", *FIT, *arguments],
        cwd=outputs.parent,
        env=os.environ | {"POOLWISE_OUTPUTS": str(outputs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def chunks(outputs: Path) -> int:
    return len(list((outputs / "runs").glob("*/checkpoint/*.npz")))


def wait_for(process: subprocess.Popen[str], condition) -> None:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)


def killed(outputs: Path, at: int, *arguments: str) -> None:
    """Start, and kill -9 once there are so many chunks."""
    process = start(outputs, *arguments)
    wait_for(process, lambda: chunks(outputs) >= at)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()


def finished(outputs: Path, *arguments: str) -> str:
    """Start, and let it end; returns what was printed."""
    process = start(outputs, *arguments)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


def runs(outputs: Path) -> list:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("cookies").experiment_id])


@pytest.fixture(scope="module")
def undisturbed(migrated_store, tmp_path_factory) -> str:
    """The hash of the draws of the fit when nothing happens to it."""
    import shutil

    outputs = tmp_path_factory.mktemp("undisturbed") / "outputs"
    shutil.copytree(migrated_store, outputs)
    finished(outputs)
    (run,) = runs(outputs)
    return run.data.tags["posterior_sha256"]


def test_a_killed_fit_ends_with_the_same_draws_in_the_same_run(outputs, undisturbed):
    killed(outputs, 40)
    (before,) = runs(outputs)
    printed = finished(outputs)
    (run,) = runs(outputs)
    assert f"resuming run {run.info.run_id} at step " in printed
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert run.data.tags["posterior_sha256"] == undisturbed
    (folder,) = (outputs / "runs").iterdir()
    assert not (folder / "checkpoint").exists()


def test_a_resumed_fit_logs_every_progress_once(outputs):
    killed(outputs, 100)
    finished(outputs)
    (run,) = runs(outputs)
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    steps = [each.step for each in client.get_metric_history(run.info.run_id, "progress/r_hat_max")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12000


def test_a_fit_killed_before_its_first_chunk_begins_again_in_the_same_run(outputs, undisturbed):
    process = start(outputs)
    wait_for(process, lambda: list((outputs / "runs").glob("*/artifacts/environment/stack.json")))
    process.kill()
    process.communicate()
    finished(outputs)
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_resuming_on_other_devices_and_with_other_chunks_changes_no_draw(outputs, undisturbed):
    killed(outputs, 60, "device.num_devices=1")
    printed = finished(outputs, "device.num_devices=4", "sampler.checkpoint_every=77")
    assert "as a new run: other settings" in printed  # a logged parameter cannot change
    tags = [run.data.tags for run in runs(outputs) if run.info.status == "FINISHED"]
    assert [each["posterior_sha256"] for each in tags] == [undisturbed]


def test_resuming_on_other_devices_goes_on_in_the_same_run(outputs, undisturbed):
    killed(outputs, 60, "device.num_devices=1")
    finished(outputs, "device.num_devices=4")
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_a_torn_checkpoint_costs_its_chunk_alone(outputs, undisturbed):
    killed(outputs, 50)
    (checkpoint,) = (outputs / "runs").glob("*/checkpoint")
    last = sorted(checkpoint.glob("*.npz"))[-1]
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size // 2)
    printed = finished(outputs)
    assert f"at step {int(last.name[:9]) - 20} of each chain" in printed
    (run,) = runs(outputs)
    assert run.data.tags["posterior_sha256"] == undisturbed


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_chunk_end_and_the_run_can_go_on(outputs, undisturbed, sent, code):
    process = start(outputs)
    wait_for(process, lambda: chunks(outputs) >= 30)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "stopping after this chunk" in errors
    (run,) = runs(outputs)
    assert run.info.status == "KILLED"
    assert 30 <= chunks(outputs) < LAST
    finished(outputs)
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)
    assert run.data.tags["verdict"] in ("trusted", "suspect")


def test_reuse_false_begins_anew(outputs):
    killed(outputs, 40)
    assert "resuming" not in finished(outputs, "reuse=false")
    assert sorted(run.info.status for run in runs(outputs)) == ["FINISHED", "KILLED"]


def test_a_run_that_is_at_work_is_left_alone(outputs):
    process = start(outputs, "sampler.num_samples=100000000")
    try:
        wait_for(process, lambda: chunks(outputs) >= 5)
        other = start(outputs, "sampler.num_samples=100000000")
        wait_for(other, lambda: len(list((outputs / "runs").iterdir())) == 2)
        other.kill()
        assert "resuming" not in other.communicate()[0]
    finally:
        process.kill()
        process.communicate()


def test_a_run_begun_on_another_stack_is_named_and_begun_anew(outputs):
    killed(outputs, 40)
    (file,) = (outputs / "runs").glob("*/artifacts/environment/stack.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cpu": "Abacus"}))
    printed = finished(outputs)
    assert "starting over: run " in printed
    assert "fitted with cpu Abacus, here" in printed
    assert sorted(run.info.status for run in runs(outputs)) == ["FINISHED", "KILLED"]


def test_a_fit_of_other_settings_is_not_gone_on_with(outputs):
    killed(outputs, 40)
    printed = finished(outputs, "seed=1")
    assert "resuming" not in printed
    assert "starting over" not in printed


def test_a_full_disk_ends_the_run_and_the_next_start_goes_on(outputs, undisturbed, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('FULL'):\n"
        "    fsync, calls = os.fsync, [0]\n"
        "    def full(descriptor):\n"
        "        calls[0] += 1\n"
        "        if calls[0] > 60: raise OSError(28, 'No space left on device')\n"
        "        return fsync(descriptor)\n"
        "    os.fsync = full\n"
    )
    process = subprocess.run(
        [sys.executable, "-m", "poolwise.run", *FIT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "FULL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "No space left on device. Make room and start the same command again" in process.stderr
    printed = finished(outputs)
    assert "resuming run" in printed
    (run,) = runs(outputs)
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)


def test_folders_that_hold_no_record_are_passed_over(tmp_path):
    folder = tmp_path / "runs" / "half"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"status": "RUNN')
    record = Record("n", "e", {}, {"draws_fingerprint": "0" * 64, "data_sha256": ""})
    assert resume.find(record, stack={}, ingredients={}, uri="", outputs=tmp_path) is None


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_draw(outputs, undisturbed):
    rng, killed_at = np.random.default_rng(20), []
    for _ in itertools.repeat(None, 20):
        process = start(outputs)
        began = chunks(outputs)
        wait_for(process, lambda began=began: chunks(outputs) > began or process.poll() is not None)
        time.sleep(float(rng.exponential(0.02)))
        process.kill()
        process.communicate()
        killed_at.append(chunks(outputs))
    finished(outputs)
    (run,) = runs(outputs)
    assert len(set(killed_at)) > 10
    assert (run.info.status, run.data.tags["posterior_sha256"]) == ("FINISHED", undisturbed)
