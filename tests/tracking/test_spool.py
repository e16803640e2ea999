"""A store that fails, a delivery cut short, a process killed, each at any moment: every run arrives, and once."""

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from mlflow import MlflowClient, MlflowException
from mlflow.entities import ViewType
from omegaconf import OmegaConf

from poolwise.errors import TrackingError
from poolwise.sweeps import parent as sweep_parent
from poolwise.sweeps.request import Request
from poolwise.tracking import liveness, spool, store
from poolwise.tracking import run as tracking
from poolwise.tracking.record import Record

REAL_CONNECT, REAL_PROBE = store.connect, store._probe
SERVER = "http://tracking.example"  # the address under which tests reach a database as if it were a server
PROGRESS = [1.05, 1.01]
GONE = requests.ConnectionError("Connection refused")

type Strikes = Callable[[int], BaseException | None]


class Weather:
    """What becomes of the calls to a store: those for which `strikes` gives an error fail with it."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.calls = 0
        self.strikes: Strikes = lambda call: None
        self.is_answer_lost = False  # the store does what it is asked before it fails
        self.seconds = 0.0  # that a call takes

    def take(self, call: Callable[[], object]) -> object:
        self.calls += 1
        time.sleep(self.seconds)
        error = self.strikes(self.calls)
        if error is None:
            return call()
        if self.is_answer_lost:
            call()
        raise error


class Client:
    """A client in some weather."""

    def __init__(self, client: MlflowClient, weather: Weather):
        self._client, self._weather = client, weather

    def __getattr__(self, name: str):
        call = getattr(self._client, name)
        return lambda *args, **kwargs: self._weather.take(lambda: call(*args, **kwargs))


def gone_from(first: int, error: BaseException = GONE) -> Strikes:
    return lambda call: error if call >= first else None


def once_at(which: int, error: BaseException = GONE) -> Strikes:
    return lambda call: error if call == which else None


class Bench:
    """A folder of outputs and a store reached as `SERVER`, with weather over it and over its spool."""

    def __init__(self, outputs: Path, database: Path):
        self.outputs, self.database = outputs, database
        self.spool = self.ready_spool(SERVER)
        self.server, self.over_spool = Weather(), Weather()
        self.kept: list[tuple[Path, sqlite3.Connection]] = []

    def connect(self, uri: str):
        if uri == SERVER:
            return Client(REAL_CONNECT(f"sqlite:///{self.database}"), self.server)
        return Client(REAL_CONNECT(uri), self.over_spool) if uri == self.spool else REAL_CONNECT(uri)

    def probe(self, uri: str, seconds: float) -> None:
        if uri != SERVER:
            REAL_PROBE(uri, seconds)

    def ready_spool(self, uri: str) -> str:
        """A spool whose database is there, which MLflow would take a second to make."""
        made = spool.place(uri, self.outputs)
        if not (database := Path(made.removeprefix("sqlite:///"))).is_file():
            shutil.copy(self.outputs / "mlflow.db", database)
        return made

    def clear(self) -> None:
        self.server.clear()
        self.over_spool.clear()

    def keep(self) -> None:
        """Remember how everything is now."""
        self.forget()
        self.kept = [
            (path, self._memory(path)) for path in (self.database, Path(self.spool.removeprefix("sqlite:///")))
        ]
        self.kept_files = self.outputs.parent / "kept"
        for name in ("runs", "spool"):
            if (self.outputs / name).is_dir():
                left_out = shutil.ignore_patterns("mlflow.db*")
                shutil.copytree(self.outputs / name, self.kept_files / name, ignore=left_out, dirs_exist_ok=True)

    def restore(self) -> None:
        """Everything as it was, at less cost than another bench."""
        self.clear()
        for path, memory in self.kept:
            with sqlite3.connect(path) as database:
                memory.backup(database)
            database.close()
        shutil.rmtree(self.outputs / "runs", ignore_errors=True)
        if self.kept_files.is_dir():
            shutil.copytree(self.kept_files, self.outputs, dirs_exist_ok=True)

    def forget(self) -> None:
        for _, memory in self.kept:
            memory.close()

    @staticmethod
    def _memory(path: Path) -> sqlite3.Connection:
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        with sqlite3.connect(path) as database:
            database.backup(memory)
        database.close()
        return memory

    def experiment(self, name: str = "cookies") -> str:
        """Of the server, which keeps artifacts at a place of its own."""
        client = REAL_CONNECT(f"sqlite:///{self.database}")
        if found := client.get_experiment_by_name(name):
            return found.experiment_id
        place = self.database.parent / "artifacts" / name
        return client.create_experiment(name, artifact_location=place.as_uri())

    def runs(self, uri: str = "", *, view: int = ViewType.ACTIVE_ONLY) -> list:
        client = REAL_CONNECT(uri or f"sqlite:///{self.database}")
        return client.search_runs([each.experiment_id for each in client.search_experiments()], run_view_type=view)

    def waiting(self) -> list:
        return self.runs(self.spool)

    def deliver(self, **options) -> list[spool.Delivery]:
        return list(spool.deliveries(self.outputs, **options))


@pytest.fixture
def bench(outputs, migrated_store, tmp_path, monkeypatch) -> Iterator[Bench]:
    (tmp_path / "server").mkdir()
    shutil.copy(migrated_store / "mlflow.db", tmp_path / "server" / "mlflow.db")
    made = Bench(outputs, tmp_path / "server" / "mlflow.db")
    made.experiment()
    made.keep()
    monkeypatch.setattr(store, "connect", made.connect)
    monkeypatch.setattr(store, "_probe", made.probe)
    yield made
    made.forget()


def record(**changes) -> Record:
    base = {
        "name": "hier-nb",
        "experiment": "cookies",
        "params": {f"p{i}": i for i in range(120)},
        "tags": {"draws_fingerprint": "0123456789abcdef", "run_fingerprint": "f" * 64},
        "dataset": {"name": "cookies", "digest": "b193690a", "source": "data/cookies.csv"},
    }
    return Record(**(base | changes))


def fit(bench: Bench, what: Record | None = None, *, uri: str = SERVER, **options) -> tracking.Run:
    """A run as the pipeline writes it."""
    what = what or record()
    with tracking.logged_run(what, uri=uri, outputs=bench.outputs, **options) as run:
        run.write("config/resolved.yaml", "seed: 0\n")
        for i, value in list(enumerate(PROGRESS))[len(what.progress) :]:
            run.progress(1000 * (i + 1), {"progress/r_hat_max": value})
        run.write("posterior/posterior.nc", bytes(range(256)))
        run.record.note = run.record.note or "**good**"
        run.record.tags |= {"verdict": "trusted", "verdict_reasons": "none"}
        run.record.metrics |= {f"m{i}": float(i) for i in range(3)}
    return run


def spooled(bench: Bench, what: Record | None = None, **options) -> tracking.Run:
    """A run that was made while the store was gone; it answers again."""
    bench.server.strikes = gone_from(1)
    run = fit(bench, what, **options)
    bench.clear()
    return run


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stored_files(run) -> dict[str, bytes]:
    return files(Path(run.info.artifact_uri.removeprefix("file://")))


def told_by(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text())


def assert_whole(bench: Bench, run, folder: Path, *, uri: str = SERVER) -> None:
    """The stored run is what its folder says, every part of it once."""
    client, told = REAL_CONNECT(f"sqlite:///{bench.database}" if uri == SERVER else uri), told_by(folder)
    assert run.info.status == told["status"] == "FINISHED"
    assert run.info.run_name == told["name"]
    assert run.info.end_time >= run.info.start_time
    assert run.data.params == {key: str(value) for key, value in told["params"].items()}
    assert run.data.metrics == told["metrics"] | told["progress"][-1][2]
    assert told["tags"].items() <= run.data.tags.items()
    assert run.data.tags["mlflow.note.content"] == told["note"]
    history = client.get_metric_history(run.info.run_id, "progress/r_hat_max")
    logged = [(step, time_ms, metrics["progress/r_hat_max"]) for step, time_ms, metrics in told["progress"]]
    assert [(each.step, each.timestamp, each.value) for each in history] == logged
    assert [value for *_, value in logged] == PROGRESS
    for name in told["metrics"]:
        assert len(client.get_metric_history(run.info.run_id, name)) == 1, name
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == told["dataset"]["digest"]
    assert stored_files(run) == files(folder / "artifacts")
    assert (told["run_id"], told["store"]) == (run.info.run_id, uri)


def assert_arrived(bench: Bench, folder: Path) -> None:
    """The run is on the store, whole, the only one that was ever made there, and the spool is empty."""
    (stored,) = bench.runs(view=ViewType.ALL)
    assert stored.info.lifecycle_stage == "active"
    assert_whole(bench, stored, folder)
    assert bench.waiting() == []


# a store that fails at any call --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strikes", "is_answer_lost"),
    [(gone_from, False), (gone_from, True), (once_at, True)],
    ids=["gone", "gone after a lost answer", "one answer lost"],
)
def test_a_store_that_fails_at_any_call_loses_no_run_and_gets_none_twice(bench, strikes, is_answer_lost):
    for call in range(1, 100):
        bench.restore()
        bench.server.strikes, bench.server.is_answer_lost = strikes(call), is_answer_lost
        run = fit(bench)
        num_calls = bench.server.calls
        bench.clear()
        bench.deliver()
        assert_arrived(bench, run.folder)
        if call > num_calls:
            break
    assert call > 15  # it failed at every one of them


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("403: Forbidden"),
        OSError(28, "No space left on device"),
        sqlite3.DatabaseError("database disk image is malformed"),
        sqlite3.OperationalError("attempt to write a readonly database"),
    ],
)
@pytest.mark.parametrize("call", [1, 9, 15])
def test_whatever_a_store_refuses_with_the_run_arrives(bench, error, call):
    bench.server.strikes = gone_from(call, error)
    run = fit(bench)
    assert run.is_spooled
    bench.clear()
    bench.deliver()
    assert_arrived(bench, run.folder)


def test_a_store_that_comes_back_before_the_end_gets_the_run_under_its_id(bench):
    with tracking.logged_run(record(), uri=SERVER, outputs=bench.outputs) as run:
        first = run.run_id
        bench.server.strikes = gone_from(1)
        run.progress(1000, {"progress/r_hat_max": 1.0})
        assert run.is_spooled
        bench.clear()
    (stored,) = bench.runs()
    assert stored.info.run_id == run.run_id == run.store_run_id == first
    assert [line.split()[0] for line in run.location_lines()] == ["run", "folder", "page"]


def test_a_run_that_waits_says_so_with_the_reason(bench):
    bench.server.strikes = gone_from(9)
    lines = {line.split()[0]: line for line in fit(bench).location_lines()}
    assert lines["waits"] == f"waits   for {SERVER}: Connection refused"
    assert "python -m poolwise.sync" in lines["send"]


def test_a_store_that_is_slow_gets_no_more_until_the_fit_is_done(bench, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.05)
    bench.server.seconds = 0.1
    run = fit(bench)
    num_calls = bench.server.calls
    assert run.is_spooled
    assert "slow" in run.outage
    assert num_calls < 15  # of 19
    bench.clear()
    bench.deliver()
    assert_arrived(bench, run.folder)


def test_a_run_that_failed_arrives_as_failed_with_its_traceback(bench):
    bench.server.strikes = gone_from(9)
    with pytest.raises(ValueError, match="no luck"), tracking.logged_run(record(), uri=SERVER, outputs=bench.outputs):
        raise ValueError("no luck")
    bench.clear()
    bench.deliver()
    (run,) = bench.runs()
    assert (run.info.status, run.data.tags["verdict_reasons"]) == ("FAILED", "no luck")
    assert b"ValueError: no luck" in stored_files(run)["failure/traceback.txt"]


@pytest.mark.parametrize("where", ["server", "over_spool"])
def test_ctrl_c_at_any_call_leaves_one_run_that_has_ended(bench, monkeypatch, where):
    # on the way to the store, and on the way to the spool, where the run goes in one step or not at all
    open_run = tracking.Run.open
    for call in range(1, 100):
        bench.restore()

        def armed(run, call=call):
            bench.clear()
            bench.server.strikes = gone_from(3 if where == "over_spool" else 1000)
            getattr(bench, where).strikes = once_at(call, KeyboardInterrupt())
            open_run(run)

        monkeypatch.setattr(tracking.Run, "open", armed)
        try:
            fit(bench)
        except KeyboardInterrupt:
            bench.clear()
            spool.reachable(SERVER, bench.outputs)
            (run,) = bench.runs(view=ViewType.ALL)
            (folder,) = (bench.outputs / "runs").iterdir()
            assert run.info.status == told_by(folder)["status"] != "RUNNING"
            assert bench.waiting() == []
        else:
            break
    assert call > 10


def test_a_lost_answer_to_a_request_that_mlflow_repeats_makes_one_run(bench):
    client, experiment = REAL_CONNECT(f"sqlite:///{bench.database}"), bench.experiment()
    for _ in range(2):
        client.create_run(experiment, 1000, {store.KEY: "k"}, "n")
    run_id = store.create_run(client, experiment, "k", name="n", tags={})
    (run,) = bench.runs()
    assert run.info.run_id == run_id


def test_a_spool_that_fails_too_ends_the_run_and_says_where_it_is(bench):
    bench.server.strikes = bench.over_spool.strikes = gone_from(9)
    with pytest.raises(TrackingError, match=r"No space|Connection refused.* It is in .*runs/hier-nb"):
        fit(bench)
    (folder,) = (bench.outputs / "runs").iterdir()
    assert told_by(folder)["status"] != "FINISHED"


def test_a_run_goes_on_in_its_own_run_whatever_was_logged_of_it(bench):
    # killed between any two calls, then the devices changed, then the store lost again: nothing is logged twice
    with pytest.raises(KeyboardInterrupt), tracking.logged_run(record(), uri=SERVER, outputs=bench.outputs) as run:
        run.progress(1000, {"progress/r_hat_max": PROGRESS[0]})
        raise KeyboardInterrupt
    what = record(params={"device.num_devices": 4, "p0": 0, "late": 1}, progress=run.record.progress)
    bench.server.strikes = gone_from(12)
    again = fit(bench, what, reopen=run.run_id, folder=run.folder)
    bench.clear()
    bench.deliver()
    (stored,) = bench.runs(view=ViewType.ALL)
    assert stored.info.run_id == run.run_id == again.run_id
    assert stored.data.params == {f"p{i}": str(i) for i in range(120)} | {"device.num_devices": "4", "late": "1"}


def test_a_parameter_that_the_store_has_otherwise_does_not_hold_the_run_up(bench):
    bench.server.strikes = gone_from(9)
    fit(bench, record(params={"device.num_devices": 2}))
    bench.clear()
    with sqlite3.connect(bench.spool.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE params SET value = '4'")
    database.close()
    (delivery,) = bench.deliver()
    assert (delivery.waiting, delivery.reason) == (0, "")
    assert bench.runs()[0].data.params == {"device.num_devices": "2"}


# a delivery that is cut short ----------------------------------------------------------------------------------------


class Cut(BaseException):
    """Stands for the end of a process, which no `except` holds up."""


@pytest.mark.parametrize("where", ["server", "over_spool"])
def test_a_delivery_cut_short_at_any_call_is_made_once(bench, where):
    run = spooled(bench)
    bench.keep()
    for call in range(1, 100):
        bench.restore()
        getattr(bench, where).strikes = once_at(call, Cut())
        try:
            bench.deliver()
        except Cut:
            bench.clear()
            bench.deliver()
            assert_arrived(bench, run.folder)
        else:
            break
    assert call > 10


@pytest.mark.parametrize("step", ["shutil.rmtree", "poolwise.tracking.spool.write_whole"])
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_a_delivery_cut_short_between_its_last_steps_is_made_once(bench, monkeypatch, step, is_done):
    run = spooled(bench)
    module, _, name = step.rpartition(".")
    do = getattr(sys.modules[module], name)

    def cut(*args, **kwargs):
        if is_done:
            do(*args, **kwargs)
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(step, cut)
        bench.deliver()
    bench.deliver()
    assert_arrived(bench, run.folder)


@pytest.mark.slow
def test_a_process_killed_at_any_call_leaves_a_run_that_goes_on_in_itself(bench, tmp_path):
    # SIGKILL at every call of a run whose store is lost on the way; forked from a process without JAX and its threads
    script = "import sys, test_spool; test_spool.kill_at_every_call(sys.argv[1], sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(bench.outputs), str(bench.database)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *found, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 30
    assert not last["is_killed"]
    for each in [*found, last]:
        # killed before there was a folder, a run cannot be gone on with: it has ended, and another one was made
        expected = ["FINISHED"] if each["had_folder"] else ["FINISHED", "KILLED"][: 1 + each["had_run"]]
        assert (each["statuses"], each["waiting"]) == (expected, 0), each


def kill_at_every_call(outputs: str, database: str) -> None:
    """Print, for every call at which a run is killed, what is on the store after the next start."""
    kept = Path(outputs).parent / "kept at first"
    for folder in (outputs, Path(database).parent):
        shutil.copytree(folder, kept / Path(folder).name)
    for call in range(1, 200):
        for folder in (outputs, Path(database).parent):
            shutil.rmtree(folder)
            shutil.copytree(kept / Path(folder).name, folder)
        is_killed = forked(lambda call=call: killed_fit(Path(outputs), Path(database), call)) == -signal.SIGKILL
        if forked(lambda is_killed=is_killed: next_start(Path(outputs), Path(database), is_killed=is_killed)):
            sys.exit(f"call {call}")
        if not is_killed:
            break


def forked(do: Callable[[], None]) -> int:
    """Run in a child; its exit code."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            do()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_fit(outputs: Path, database: Path, call: int) -> None:
    """A fit whose store is gone from the ninth call on, killed at a call to store or spool."""
    bench = reached(outputs, database)
    calls = itertools.count(1)

    def strike(own: Strikes) -> Strikes:
        def strikes(number: int) -> BaseException | None:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(number)

        return strikes

    bench.server.strikes, bench.over_spool.strikes = strike(gone_from(9)), strike(lambda call: None)
    fit(bench)


def next_start(outputs: Path, database: Path, *, is_killed: bool) -> None:
    """What `python -m poolwise.run` does when the store is back: deliver, end the dead, go on with what is left."""
    bench = reached(outputs, database)
    had_run = bool(bench.runs() or bench.waiting())
    spool.reachable(SERVER, outputs)
    liveness.mark_dead_killed("cookies", uri=SERVER)
    left = [folder for folder in (outputs / "runs").glob("*") if (folder / "record.json").is_file()]
    if is_killed and left:
        told = told_by(left[0])
        is_same = told["store"] == SERVER
        if told["status"] != "FINISHED":
            what = record(progress=[tuple(entry) for entry in told["progress"]])
            fit(bench, what, **({"reopen": told["run_id"], "folder": left[0]} if is_same else {}))
    elif is_killed:
        fit(bench)
    bench.deliver()
    found = bench.runs(view=ViewType.ALL)
    (finished,) = (run for run in found if run.info.status == "FINISHED")
    (folder,) = (path for path in (outputs / "runs").glob("*") if told_by(path)["run_id"] == finished.info.run_id)
    assert_whole(bench, finished, folder)
    told = {"statuses": sorted(run.info.status for run in found), "waiting": len(bench.waiting())}
    print(json.dumps(told | {"is_killed": is_killed, "had_folder": bool(left), "had_run": had_run}))


def reached(outputs: Path, database: Path) -> Bench:
    bench = Bench(outputs, database)
    store.connect, store._probe = bench.connect, bench.probe
    return bench


# what names runs that were in the spool ------------------------------------------------------------------------------


def sweep(bench: Bench, *, inside: Callable[[tracking.Run], object] = lambda parent: None) -> tracking.Run:
    """A parent with two jobs and their comparison, as `supervise` and `compare` write them."""
    with tracking.logged_run(record(name="grid", tags={"kind": "sweep"}), uri=SERVER, outputs=bench.outputs) as parent:
        jobs = [fit(bench, job_of(parent, name), uri=parent.uri, parent=parent.run_id) for name in ("one", "two")]
        members = ",".join(job.run_id for job in jobs)
        told = record(name="compare 2 runs", tags={"kind": "comparison", "members": members})
        with tracking.logged_run(told, uri=parent.uri, outputs=bench.outputs, parent=parent.run_id) as compared:
            links = [f"[{each.run_id[:8]}](#/experiments/{each.experiment_id}/runs/{each.run_id})" for each in jobs]
            compared.record.note = " ".join(links)
            compared.write("tables/comparison.csv", "\n".join(["run_id", *members.split(",")]))
            compared.write("comparison.html", f"<td>{jobs[0].run_id[:8]}</td>")
            compared.write("figures/x.png", members.encode())
        parent.record.tags |= {"members": members, f"reused.{jobs[0].run_id}": "one"}
        parent.record.note = f"| one | {jobs[0].run_id} |\n| two | {jobs[1].run_id} |\n" + compared.record.note
        inside(parent)
    return parent


def job_of(parent: tracking.Run, name: str) -> Record:
    return record(name=name, tags={"sweep": parent.run_id, "draws_fingerprint": name * 8, "run_fingerprint": name})


def by_name(bench: Bench) -> dict:
    found = {run.info.run_name: run for run in bench.runs()}
    assert len(found) == len(bench.runs())
    return found


def test_a_sweep_in_the_spool_arrives_with_its_structure(bench):
    bench.experiment("others")  # so that the ids of experiments differ
    REAL_CONNECT(bench.spool).create_experiment("first", artifact_location="file:///nowhere")
    REAL_CONNECT(bench.spool).create_experiment("second", artifact_location="file:///nowhere")
    bench.server.strikes = gone_from(1)
    sweep(bench)
    assert len(bench.waiting()) == 4
    bench.clear()
    bench.deliver()
    runs = by_name(bench)
    parent, one, two, compared = (runs[name] for name in ("grid", "one", "two", "compare 2 runs"))
    ids = [one.info.run_id, two.info.run_id]
    assert bench.waiting() == []
    assert {run.data.tags[store.PARENT] for run in (one, two, compared)} == {parent.info.run_id}
    assert {run.data.tags["sweep"] for run in (one, two)} == {parent.info.run_id}
    assert parent.data.tags["members"] == compared.data.tags["members"] == ",".join(ids)
    assert parent.data.tags[f"reused.{ids[0]}"] == "one"
    links = " ".join(f"[{each[:8]}](#/experiments/{one.info.experiment_id}/runs/{each})" for each in ids)
    assert compared.data.tags["mlflow.note.content"] == links
    assert parent.data.tags["mlflow.note.content"] == f"| one | {ids[0]} |\n| two | {ids[1]} |\n{links}"
    stored = stored_files(compared)
    assert stored["tables/comparison.csv"].decode().split() == ["run_id", *ids]
    assert stored["comparison.html"].decode() == f"<td>{ids[0][:8]}</td>"
    for folder in (bench.outputs / "runs").iterdir():  # the folders name them as the store does
        run = runs[told_by(folder)["name"]]
        assert stored_files(run) == files(folder / "artifacts")
        assert told_by(folder)["run_id"] == run.info.run_id


def test_the_jobs_of_a_sweep_at_work_wait_for_it(bench):
    bench.server.strikes = gone_from(1)

    def meanwhile(parent):
        bench.clear()
        assert [(each.sent, each.waiting) for each in bench.deliver()] == [({}, 0)]

    sweep(bench, inside=meanwhile)
    assert sorted(by_name(bench)) == ["compare 2 runs", "grid", "one", "two"]


def test_jobs_in_the_spool_arrive_under_a_parent_that_is_on_the_store(bench):
    with tracking.logged_run(record(name="grid"), uri=SERVER, outputs=bench.outputs) as parent:
        bench.server.strikes = gone_from(1)
        fit(bench, job_of(parent, "one"), parent=parent.run_id)
        bench.clear()
        spool.reachable(SERVER, bench.outputs)  # as the next job does
        assert by_name(bench)["one"].data.tags[store.PARENT] == parent.run_id
        assert bench.waiting() == []


def test_a_sweep_waits_with_jobs_that_cannot_be_sent_and_then_names_them_right(bench):
    with tracking.logged_run(record(name="grid"), uri=SERVER, outputs=bench.outputs) as parent:
        bench.server.strikes = gone_from(1)
        job = fit(bench, job_of(parent, "one"), parent=parent.run_id)
        bench.clear()
        REAL_CONNECT(f"sqlite:///{bench.database}").rename_experiment(bench.experiment(), "away")
        bench.server.strikes = lambda call: MlflowException("503") if call > 2 else None  # it answers a first question
        sweep_parent.deliver_waiting_jobs(parent)
        assert parent.is_spooled
        bench.clear()
        REAL_CONNECT(f"sqlite:///{bench.database}").rename_experiment(bench.experiment("away"), "cookies")
        parent.record.tags["members"] = job.run_id
        bench.deliver()  # another process is faster: the job leaves the spool before its sweep
        assert job.run_id not in {run.info.run_id for run in bench.waiting()}
    runs = by_name(bench)
    assert runs["grid"].info.run_id == parent.run_id
    assert runs["grid"].data.tags["members"] == runs["one"].info.run_id


def test_a_store_that_is_back_gets_the_jobs_before_the_sweep_accounts_for_them(bench):
    with tracking.logged_run(record(name="grid"), uri=SERVER, outputs=bench.outputs) as parent:
        bench.server.strikes = gone_from(9)
        fit(bench, job_of(parent, "one"), parent=parent.run_id)
        bench.clear()
        sweep_parent.deliver_waiting_jobs(parent)
        assert not parent.is_spooled
        (job,) = sweep_parent.fits(parent)
        assert (job.status, job.run_id) == ("FINISHED", by_name(bench)["one"].info.run_id)


def test_a_sweep_whose_store_is_gone_goes_on_in_the_spool(bench):
    with tracking.logged_run(record(name="grid"), uri=SERVER, outputs=bench.outputs) as parent:
        on_server = fit(bench, job_of(parent, "one"), parent=parent.run_id)
        bench.server.strikes = gone_from(1)
        in_spool = fit(bench, job_of(parent, "two"), parent=parent.run_id)
        sweep_parent.deliver_waiting_jobs(parent)
        assert parent.is_spooled
        assert {run.run_id for run in sweep_parent.fits(parent)} == {on_server.run_id, in_spool.run_id}
    bench.clear()
    bench.deliver()
    runs = by_name(bench)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert {runs[name].data.tags[store.PARENT] for name in ("one", "two")} == {runs["grid"].info.run_id}


def asked_sweep():
    request = Request(("seed=1,2",), (), "grid", "basic", OmegaConf.create(), ())
    config = SimpleNamespace(data=SimpleNamespace(name="cookies"), reuse=None)
    return sweep_parent.parent_run(request, [config], [], uri=SERVER)


def test_a_sweep_that_neither_store_nor_spool_takes_says_why(bench):
    bench.server.strikes = bench.over_spool.strikes = gone_from(1)
    with (
        pytest.raises(TrackingError, match=r"the spool in .* cannot take it"),
        asked_sweep(),
    ):
        pass


def test_a_sweep_that_waits_says_so_last(bench, capsys):
    bench.server.strikes = gone_from(1)
    with asked_sweep() as parent:
        assert parent.is_spooled
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["waits", "spool", "send"]


def test_a_sweep_that_its_store_has_says_nothing_of_it(bench, capsys):
    with asked_sweep():
        pass
    assert capsys.readouterr().out == ""


# what a delivery meets -----------------------------------------------------------------------------------------------


def test_a_run_that_was_deleted_on_its_store_arrives_as_another(bench):
    bench.server.strikes = gone_from(10)  # the second progress
    run = fit(bench)
    bench.clear()
    REAL_CONNECT(f"sqlite:///{bench.database}").delete_run(run.run_id)
    bench.deliver()
    (stored,) = bench.runs()
    assert stored.info.run_id != run.run_id
    assert_whole(bench, stored, run.folder)


def test_a_run_whose_experiment_is_deleted_waits_and_holds_up_no_other(bench):
    bench.experiment("others")
    runs = [spooled(bench, record(experiment=name, name=name)) for name in ("cookies", "others")]
    client = REAL_CONNECT(f"sqlite:///{bench.database}")
    client.delete_experiment(bench.experiment())
    (delivery,) = bench.deliver()
    assert (list(delivery.sent), delivery.waiting) == ([runs[1].run_id], 1)
    assert "experiment cookies is deleted" in delivery.reason
    client.restore_experiment(bench.experiment())
    (delivery,) = bench.deliver()
    assert (list(delivery.sent), delivery.waiting, delivery.reason) == ([runs[0].run_id], 0, "")


def test_a_store_that_is_lost_on_the_way_is_asked_no_more(bench):
    for name in ("one", "two", "three"):
        spooled(bench, record(name=name))
    bench.server.strikes = gone_from(30)
    (delivery,) = bench.deliver()
    assert delivery.waiting > 0
    assert delivery.reason == "Connection refused"
    assert bench.server.calls == 31  # the one that failed, and whether it is there
    bench.clear()
    bench.deliver()
    assert sorted(by_name(bench)) == ["one", "three", "two"]


def test_runs_can_be_sent_to_another_store(bench, migrated_store, tmp_path):
    shutil.copytree(migrated_store, tmp_path / "other")
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    bench.server.strikes = gone_from(10)
    run = fit(bench)
    bench.deliver(to=other)
    (stored,) = bench.runs(other)
    assert_whole(bench, stored, run.folder, uri=other)
    assert bench.waiting() == []


def test_a_slash_at_the_end_makes_no_other_store(outputs):
    assert spool.place("http://host:5000", outputs) == spool.place("http://host:5000/", outputs)


def test_two_deliveries_at_once_send_every_run_once(bench, capsys):
    run = spooled(bench)
    begun, go_on = threading.Event(), threading.Event()

    def strikes(call):
        begun.set()
        go_on.wait(10)

    bench.server.strikes = strikes
    found: list[spool.Delivery] = []
    threads = [threading.Thread(target=lambda: found.extend(bench.deliver())) for _ in range(2)]
    threads[0].start()
    begun.wait(10)
    threads[1].start()
    (busy,) = bench.deliver(wait=False)  # a run that begins meanwhile does not wait
    assert "another process is sending" in busy.reason
    go_on.set()
    for thread in threads:
        thread.join()
    assert [len(each.sent) for each in found] == [1, 0]
    assert "waiting: another process is sending" in capsys.readouterr().err
    assert_arrived(bench, run.folder)


def test_a_run_that_another_process_sent_knows_it(bench):
    bench.server.strikes = gone_from(1)
    with tracking.logged_run(record(), uri=SERVER, outputs=bench.outputs) as run:
        pass
    bench.clear()
    bench.deliver()
    run.deliver()
    assert not run.is_spooled
    assert run.run_id == bench.runs()[0].info.run_id


def test_a_broken_spool_does_not_hold_up_a_run_whose_store_is_there(bench, capsys):
    Path(bench.spool.removeprefix("sqlite:///")).write_bytes(b"no database" * 1000)
    uri = spool.reachable(SERVER, bench.outputs)
    run = fit(bench, uri=uri)
    assert (uri, run.is_spooled, len(bench.runs())) == (SERVER, False, 1)
    assert "its spool" in capsys.readouterr().err


def test_a_database_whose_making_was_cut_short_is_made_anew(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with monkeypatch.context() as patch:
        patch.setattr(store, "MlflowClient", lambda uri: (_ for _ in ()).throw(Cut()))
        (tmp_path / ".mlflow.db.1.part").write_bytes(b"half of one")
        with pytest.raises(Cut):
            store.connect(uri)
    assert not (tmp_path / "mlflow.db").exists()
    assert [each.name for each in store.connect(uri).search_experiments()] == ["Default"]
    assert list(tmp_path.glob(".mlflow.db.*")) == []


def test_a_database_that_is_broken_has_a_spool(outputs, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert spool.target(spool.reachable(uri, outputs)) == uri


def test_secrets_of_an_address_are_written_nowhere(bench, capsys):
    uri = "http://someone:hunter2-planted@127.0.0.1:9/"
    bench.ready_spool(uri)
    run = fit(bench, uri=uri)
    bench.deliver()
    assert run.is_spooled
    printed = capsys.readouterr()
    assert "hunter2" not in "\n".join([printed.out, printed.err, *run.location_lines()])
    written = [path for path in bench.outputs.rglob("*") if path.is_file()]
    assert [path for path in written if b"hunter2" in path.read_bytes()] == []


# servers that are none -----------------------------------------------------------------------------------------------


def served(answer: Callable[[BaseHTTPRequestHandler], object]) -> Iterator[str]:
    """A server that answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self)

        do_POST = do_PUT = do_PATCH = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def says(status: int, text: str) -> Callable[[BaseHTTPRequestHandler], object]:
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        if status == 503:
            handler.send_header("Retry-After", "3600")
        handler.end_headers()
        handler.wfile.write(text.encode())

    return answer


STRANGERS = {
    "403": says(403, '{"error_code": "PERMISSION_DENIED", "message": "not yours"}'),
    "500": says(500, '{"error_code": "INTERNAL_ERROR", "message": "disk full"}'),
    "503": says(503, "busy"),
    "a page": says(200, "<html>log in first</html>"),
    "empty objects": says(200, "{}"),
    "another service": says(200, '{"experiments": 3, "experiment": [], "run": "x"}'),
    "a list": says(200, "[]"),
    "noise": lambda handler: handler.wfile.write(b"\x00\x01 no http \r\n\r\n"),
    "silence": lambda handler: time.sleep(2),
}


@pytest.fixture(params=STRANGERS)
def stranger(request) -> Iterator[str]:
    yield from served(STRANGERS[request.param])


@pytest.mark.parametrize("is_there_at_first", [False, True])
def test_a_server_that_is_none_of_mlflow_sends_the_run_to_the_spool(bench, stranger, monkeypatch, is_there_at_first):
    monkeypatch.setattr(store, "PROBE_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    bench.ready_spool(stranger)
    began = time.monotonic()
    run = fit(bench, uri=stranger if is_there_at_first else spool.reachable(stranger, bench.outputs))
    assert run.is_spooled
    assert time.monotonic() - began < 20  # not the minutes of MLflow's own patience, nor an hour
    assert sum(len(each.sent) for each in bench.deliver(to=SERVER)) == 1
    assert bench.runs()[0].info.status == "FINISHED"
