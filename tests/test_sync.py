"""`python -m poolwise.sync`, and real runs at a real server that is killed and started again."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from mlflow import MlflowClient

from poolwise.tracking import run as tracking
from poolwise.tracking import spool
from poolwise.tracking.record import Record

NOBODY = "http://127.0.0.1:9"  # an address that nobody answers


@pytest.fixture
def waiting(outputs) -> tracking.Run:
    """A run in the spool of `NOBODY`."""
    uri = spool.place(NOBODY, outputs)
    shutil.copy(outputs / "mlflow.db", uri.removeprefix("sqlite:///"))  # MLflow takes a second to make one
    with tracking.logged_run(Record("n", "cookies", {}, {}), uri=uri, outputs=outputs) as run:
        pass
    return run


def test_sync_with_nothing_to_send_says_so(command):
    done = command(module="poolwise.sync")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no runs to send\n", "")


def test_sync_to_a_store_that_is_gone_names_it_and_what_waits(command, waiting):
    done = command(module="poolwise.sync")
    assert done.returncode == 1
    assert re.search(rf"TrackingError: 1 runs wait for {NOBODY}: .*refused", done.stderr)
    assert "No run is lost" in done.stderr


def test_sync_sends_to_the_store_that_it_is_given(command, waiting, tmp_path):
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    done = command("--tracking-uri", other, module="poolwise.sync")
    assert done.returncode == 0, done.stderr
    client = MlflowClient(other)
    (run,) = client.search_runs([client.get_experiment_by_name("cookies").experiment_id])
    assert done.stdout == f"sent    {waiting.run_id} to {other} as run {run.info.run_id}\n"


# a real server -------------------------------------------------------------------------------------------------------

# chunks of some milliseconds, so many that a run can be frozen between them
FIT = ("sampler.num_warmup=150", "sampler.num_samples=3000", "sampler.checkpoint_every=20", "plots=none")
SYNC = "poolwise.sync"
SWEEP = ("-m", "seed=1,2,3", *FIT)


class Server:
    """`mlflow server` with a database behind it, as `make ui` starts it, in a process group of its own."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            time.sleep(0.2)
        pytest.fail((self.folder / "log").read_text())

    def kill(self) -> None:
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Scenario:
    """Runs that share a folder of outputs, and what was printed."""

    name: str
    server: Server
    outputs: Path
    before: set[str] = field(default_factory=set)  # ids that the server gave before it was killed
    printed: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    seen: dict[str, list[str]] = field(default_factory=dict)  # statuses on the server, by moment
    process: subprocess.Popen | None = None

    def start(self, *arguments: str) -> None:
        is_run = arguments != (SYNC,)
        command = ["poolwise.run", *arguments, f"data.name={self.name}"] if is_run else [SYNC]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.outputs.parent,
            env=os.environ | {"POOLWISE_OUTPUTS": str(self.outputs), "MLFLOW_TRACKING_URI": self.server.uri},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self) -> None:
        assert self.process
        self.printed.append(self.process.communicate(timeout=300)[0])
        self.codes.append(self.process.returncode)

    def freeze(self, when: Callable[[], bool]) -> None:
        assert self.process
        deadline = time.monotonic() + 120
        while not when() and time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.002)
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.communicate()

    def records(self) -> list[tuple[Path, dict]]:
        found = []
        for path in sorted((self.outputs / "runs").glob("*/record.json")):
            found.append((path.parent, json.loads(path.read_text())))
        return found

    def is_sampling(self, number: int = 1) -> bool:
        """Whether so many fits have begun and the last of them draws."""
        states = sorted((self.outputs / "runs").glob("*/state.json"), key=lambda path: path.stat().st_mtime)
        if len(states) < number:
            return False
        told = json.loads(states[-1].read_text())
        return told["stage"] == "sampling" and 1000 < told.get("draws", 0) < 6000

    def is_in_spool(self) -> bool:
        return any("spool" in told["store"] for _, told in self.records())

    def runs(self) -> list:
        client = MlflowClient(self.server.uri)
        found = client.get_experiment_by_name(self.name)
        return client.search_runs([found.experiment_id]) if found else []

    def statuses(self) -> list[str]:
        return sorted(run.info.status for run in self.runs())

    def look(self, moment: str) -> None:
        self.seen[moment] = self.statuses()
        if moment == "before":
            self.before = {run.info.run_id for run in self.runs()}

    def waiting(self) -> int:
        found = list((self.outputs / "spool").glob("*/mlflow.db"))
        client = MlflowClient(f"sqlite:///{found[0]}") if found else None
        return len(client.search_runs([each.experiment_id for each in client.search_experiments()])) if client else 0


@pytest.fixture(scope="module")
def story(tmp_path_factory, migrated_store) -> dict[str, Scenario]:
    """Everything that is done while the server is down, up, killed, and up again; each scenario has its own outputs."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(migrated_store / "mlflow.db", folder / "mlflow.db")
    server, all_of = Server(folder), dict[str, Scenario]()

    def scenario(name: str) -> Scenario:
        all_of[name] = Scenario(name, server, tmp_path_factory.mktemp(name) / "outputs")
        return all_of[name]

    try:
        _tell(scenario, server)
        yield all_of
    finally:
        server.kill()
        for each in all_of.values():
            if each.process and each.process.poll() is None:
                each.kill()


def _tell(scenario: Callable[[str], Scenario], server: Server) -> None:
    # the server is down
    a, g, e = scenario("a_down_before"), scenario("g_sweep_down"), scenario("e_next_run")
    at_once((a, *FIT), (g, *SWEEP), (e, *FIT))
    # it is up
    server.start()
    d = scenario("d_killed_after")
    at_once((a, SYNC), (g, SYNC), (e, *FIT, "seed=1"), (d, *FIT))
    b, c, f = scenario("b_killed_during"), scenario("c_back_before_end"), scenario("f_sweep_killed")
    h, i, j = scenario("h_run_killed_too"), scenario("i_and_again_down"), scenario("j_run_killed_first")
    for each in (b, c, h, i, j):
        each.start(*FIT)
        each.freeze(each.is_sampling)
    f.start(*SWEEP)
    f.freeze(lambda: f.is_sampling(3))  # the parent says nothing of stages: two fits and it
    for each in (a, g, e, d, b, c, f, h, i, j):
        each.look("before")
    # it is killed
    server.kill()
    j.kill()
    for each in (h, i, c):
        each.go_on()
        each.freeze(each.is_in_spool)
    h.kill()
    i.kill()
    for each in (b, f):
        each.go_on()
    at_once((i, *FIT), (d, SYNC))
    for each in (b, f):
        each.end()
    # and up again
    server.start()
    c.go_on()
    c.end()
    at_once((b, SYNC), (f, SYNC), (i, SYNC), (h, *FIT), (j, *FIT))
    for each in (a, g, e, d, b, c, f, h, i, j):
        each.look("after")
    print("\n| scenario | on the server when it was killed | in the end | in the spool | exit codes |")
    for each in (a, b, c, d, e, f, g, h, i, j):
        told = [", ".join(each.seen[moment]) or "-" for moment in ("before", "after")]
        print(f"| {each.name} | {' | '.join(told)} | {each.waiting()} | {each.codes} |")


def at_once(*commands: tuple) -> None:
    """Commands in their scenarios, side by side."""
    for scenario, *arguments in commands:
        scenario.start(*arguments)
    for scenario, *_ in commands:
        scenario.end()


def assert_as_told(scenario: Scenario) -> None:
    """Every run that ended is on the server as its folder says, every part of it once."""
    client = MlflowClient(scenario.server.uri)
    stored = {run.info.run_id: run for run in scenario.runs()}
    assert scenario.waiting() == 0
    assert set(scenario.codes) == {0}, scenario.printed
    assert len(stored) == len(scenario.records())
    for folder, told in scenario.records():
        run = stored[told["run_id"]]
        assert told["store"] == scenario.server.uri
        assert run.info.status == told["status"] == "FINISHED"
        assert run.info.end_time >= run.info.start_time
        assert run.data.params == {key: str(value) for key, value in told["params"].items()}
        assert told["tags"].items() <= run.data.tags.items()
        assert run.data.tags["mlflow.note.content"] == told["note"]
        latest = {name: value for _, _, metrics in told["progress"] for name, value in metrics.items()}
        assert run.data.metrics == pytest.approx(latest | told["metrics"], nan_ok=True)
        for name in run.data.metrics:
            # elpd_loo is NaN, which is not compared, until the fit is judged: the first metric stands first in the UI
            history = [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
            logged = [(step, metrics[name]) for step, _, metrics in told["progress"] if name in metrics]
            logged += [(0, told["metrics"][name])] if name in told["metrics"] else []
            assert [each for each in history if each[1] == each[1]] == [
                each for each in logged if each[1] == each[1]
            ], name
        if "draws_fingerprint" in told["tags"]:
            assert len(run.inputs.dataset_inputs) == 1
            assert [step for step, _, _ in told["progress"]][-1] == 12000
        local = Path(client.download_artifacts(run.info.run_id, "")) if (folder / "artifacts").is_dir() else None
        assert local is None or files(local) == files(folder / "artifacts")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_one_run_of_the_same_id(scenario: Scenario) -> None:
    assert_as_told(scenario)
    (run,) = scenario.runs()
    assert {run.info.run_id} == scenario.before


@pytest.mark.slow
def test_a_run_without_a_server_arrives_with_sync(story):
    a = story["a_down_before"]
    assert_as_told(a)
    assert "waits   for http://127.0.0.1" in a.printed[0]
    assert "send    python -m poolwise.sync" in a.printed[0]
    assert re.search(r"^sent    \w{32} to http://127.0.0.1:\d+ as run \w{32}$", a.printed[1], re.M)


@pytest.mark.slow
def test_a_run_whose_server_is_killed_arrives_with_sync_under_its_id(story):
    b = story["b_killed_during"]
    assert "waits   for" in b.printed[0]
    assert_one_run_of_the_same_id(b)


@pytest.mark.slow
def test_a_run_whose_server_is_back_before_its_end_delivers_itself(story):
    c = story["c_back_before_end"]
    assert "the run continues in the spool" in c.printed[0]
    assert "waits   for" not in c.printed[0]
    assert_one_run_of_the_same_id(c)


@pytest.mark.slow
def test_a_server_killed_after_a_run_has_it(story):
    d = story["d_killed_after"]
    assert d.printed[1] == "no runs to send\n"
    assert_one_run_of_the_same_id(d)


@pytest.mark.slow
def test_the_next_run_sends_what_waits(story):
    e = story["e_next_run"]
    assert_as_told(e)
    assert e.seen["before"] == ["FINISHED", "FINISHED"]
    assert "tracking: sent run" in e.printed[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["f_sweep_killed", "g_sweep_down"])
def test_a_sweep_arrives_with_its_structure(story, name):
    scenario = story[name]
    assert_as_told(scenario)
    assert "3 fitted, 0 reused, 0 failed" in scenario.printed[0]
    assert scenario.printed[0].splitlines()[-3].startswith("waits   for")  # the last lines say so
    runs = scenario.runs()
    (parent,) = (run for run in runs if run.data.tags.get("kind") == "sweep")
    fits = [run for run in runs if "draws_fingerprint" in run.data.tags]
    ids = {run.info.run_id for run in fits}
    assert len(ids) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in fits} == {parent.info.run_id}
    assert {run.data.tags["sweep"] for run in fits} == {parent.info.run_id}
    assert set(parent.data.tags["members"].split(",")) == ids
    assert all(
        f"FINISHED | {run.data.metrics['elpd_loo']:.2f} | " in parent.data.tags["mlflow.note.content"] for run in fits
    )
    assert all(f"| {run_id} |" in parent.data.tags["mlflow.note.content"] for run_id in ids)
    assert scenario.before <= {run.info.run_id for run in runs}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h_run_killed_too", "i_and_again_down", "j_run_killed_first"])
def test_a_run_killed_without_its_server_goes_on_in_one_run(story, name):
    scenario = story[name]
    assert "resuming run" in scenario.printed[0]
    assert_one_run_of_the_same_id(scenario)
