"""A run's folder to MLflow.

A run is written to a folder of its own first: `record.json` (parameters, metrics, tags) and `artifacts/`. MLflow
gets what the folder holds. A store that fails meanwhile ends nothing: the run goes on in the spool.
"""

import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from poolwise import spool, store  # before mlflow: store sets what mlflow reads from the environment
from poolwise.background import every
from poolwise.credentials import public, scrub
from poolwise.errors import TrackingError
from poolwise.files import write_whole
from poolwise.locks import held, is_free
from poolwise.record import Record
from poolwise.store import OUTAGES, file_name, first_line

from mlflow import MlflowClient, MlflowException  # isort: skip
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag  # isort: skip

TAG_LIMIT, PARAM_LIMIT = 8000, 6000  # characters; MLflow cuts what is longer with only a warning
CHECKPOINT = "checkpoint"  # in the folder of a run that has not finished


class Run:
    """A logged run while it lives: its record, its folder, its place in the store or in the spool.

    Attributes
    ----------
    uri, place_id : the store that it is written to now, and its id there
    run_id : the id it is known by: the first it got, until it is sent from the spool under another
    lost : why its store could not take it on the way, or empty
    is_waiting : whether it is in the spool
    """

    def __init__(self, record: Record, *, uri: str, outputs: Path, parent: str = ""):
        self.record, self.uri, self.outputs, self.parent = record, uri, outputs, parent
        self.client: MlflowClient
        self.experiment_id = self.run_id = self.place_id = self.lost = ""
        self.is_waiting = bool(spool.target(uri))
        self.folder = Path()

    @property
    def artifacts(self) -> Path:
        """The folder whose content becomes the run's artifacts."""
        return self.folder / "artifacts"

    @property
    def checkpoint(self) -> Path:
        """The folder of what a killed fit goes on from; a finished run has none."""
        return self.folder / CHECKPOINT

    def write(self, name: str, content: str | bytes) -> None:
        """Write one artifact, whole or not at all."""
        write_whole(self.artifacts / name, content)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics while sampling, so that the UI shows them as they come."""
        entry = (step, int(time.time() * 1000), dict(metrics))
        self.record.progress.append(entry)
        self.save()
        self._send(lambda: self._log_metrics(*entry))

    def state(self, stage: str, **details: object) -> None:
        """Say where the run is, for whoever watches its folder: `state.json`."""
        told = {"stage": stage, "run_fingerprint": self.record.tags.get("run_fingerprint"), **details}
        write_whole(self.folder / "state.json", json.dumps(told))

    def begin(self, run_id: str = "") -> None:
        """Make the run in its store, or go on with one that is there."""
        self.run_id = run_id
        self._send(lambda: self._make(run_id))

    def open(self, *, again: bool = False) -> None:
        """Log what is known before the fit; parameters only once, for MLflow refuses to change them."""
        self.save()
        self._send(lambda: self._log_opening(again=again))

    def finish(self, status: str) -> None:
        """Send what the folder holds and end the run with this status."""
        self.save()  # still as running: a kill from here on leaves a run that can be gone on with
        self._send(lambda: self._log_ending(status))
        self.record.status = status
        self.save()
        if status == "FINISHED":
            shutil.rmtree(self.checkpoint, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """End the run as KILLED, if it was stopped from outside, or FAILED, with what the folder still takes."""
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        self.record.tags |= {"verdict": "failed", "verdict_reasons": first_line(error) or type(error).__name__}
        try:
            self.write("failure/traceback.txt", scrub("".join(traceback.format_exception(error))))
            self.state(status.lower())
            self.finish(status)
        except OSError:  # a full disk: the store shall know it all the same
            self._send(lambda: self._log_ending(status))
            raise

    def beat(self) -> None:
        """Say that the process of the run lives, for those who look from other hosts."""
        with suppress(*OUTAGES):  # one beat missed is no loss; the fit notices itself if the store is gone
            self.client.set_tag(self.place_id, store.HEARTBEAT, f"{time.time():.0f}")

    def deliver(self) -> None:
        """Try once more to bring a run that is in the spool to its store."""
        for delivery in spool.deliveries(self.outputs, only=spool.target(self.uri)):
            if self.place_id in delivery.sent:
                self.run_id, self.is_waiting = delivery.sent[self.place_id], False

    def whereabouts(self) -> list[str]:
        """Lines that say where the run is."""
        lines = [f"run     {self.run_id}", f"folder  {self.folder}"]
        if self.uri.startswith(store.SERVERS):
            page = f"#/experiments/{self.experiment_id}/runs/{self.run_id}"
            lines.append(f"page    {public(self.uri).rstrip('/')}/{page}")
        if self.is_waiting:
            lines.append(f"waits   for {spool.target(self.uri)}: {self.lost or 'it did not answer'}")
            lines.append(f"spool   {self.uri}")
            lines.append("send    python -m poolwise.sync; the next run that reaches the store does it too")
        return lines

    def save(self) -> None:
        """Write the record to the folder."""
        self.record.run_id, self.record.store = self.place_id, public(self.uri)
        write_whole(self.folder / "record.json", json.dumps(vars(self.record), indent=1, ensure_ascii=False))

    def _send(self, send: Callable[[], None]) -> None:
        """Write to the store; where it fails, to the spool, which first gets what the store has got."""
        try:
            send()
        except OUTAGES as error:
            if self.is_waiting:
                where = f" It is in {self.folder}." if self.folder.name else ""
                raise TrackingError(f"{self.uri} cannot take the run either: {first_line(error)}.{where}") from None
            self.lost = first_line(error) or type(error).__name__
            print(f"tracking: {public(self.uri)}: {self.lost}; the run goes on in the spool", file=sys.stderr)
            self.uri, self.is_waiting = spool.place(self.uri, self.outputs), True
            try:
                if self.place_id:  # it was begun in its store
                    self._make("")
                    self._log_opening(again=False)
                    for entry in self.record.progress:
                        self._log_metrics(*entry)
            except OUTAGES:
                pass  # then what follows fails too, and says so
            self._send(send)

    def _make(self, run_id: str) -> None:
        self.client = store.connect(self.uri)
        self.experiment_id = store.experiment_id(self.client, self.record.experiment, self.uri)
        tags = {store.PROCESS: store.this_process(), store.HEARTBEAT: f"{time.time():.0f}"}
        tags |= {store.PARENT: self.parent} if self.parent else {}
        if self.lost:
            tags |= {spool.RUN_ID: self.run_id} if self.run_id else {}
            run_id = ""  # of the store that was lost
        if run_id:
            self.client.update_run(run_id, status="RUNNING")
            for key, value in tags.items():
                self.client.set_tag(run_id, key, value)
        else:
            run_id = self.client.create_run(self.experiment_id, run_name=self.record.name, tags=tags).info.run_id
        self.place_id = run_id
        self.run_id = self.run_id or run_id

    def _log_opening(self, *, again: bool) -> None:
        once = again and not self.lost
        params = [] if once else [Param(key, str(value)[:PARAM_LIMIT]) for key, value in self.record.params.items()]
        for begin in range(0, len(params), store.BATCH):
            self.client.log_batch(self.place_id, params=params[begin : begin + store.BATCH])
        where = {spool.FOLDER: str(self.folder)} if self.is_waiting else {}
        self._log_tags(self.record.tags | where)
        if data := self.record.dataset:
            dataset = Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["source"]}))
            try:
                self.client.log_inputs(self.place_id, datasets=[DatasetInput(dataset, [])])
            except MlflowException:  # another process logged the same data first, between MLflow's look and its insert
                self.client.log_inputs(self.place_id, datasets=[DatasetInput(dataset, [])])

    def _log_ending(self, status: str) -> None:
        self._log_metrics(0, int(time.time() * 1000), self.record.metrics)
        self._log_tags(self.record.tags | {"mlflow.note.content": self.record.note})
        if self.artifacts.is_dir():
            self.client.log_artifacts(self.place_id, str(self.artifacts))
        self.client.set_terminated(self.place_id, status)

    def _log_metrics(self, step: int, time_ms: int, metrics: Mapping[str, float]) -> None:
        entities = [Metric(name, float(value), time_ms, step) for name, value in metrics.items()]
        for begin in range(0, len(entities), store.METRIC_BATCH):
            self.client.log_batch(self.place_id, metrics=entities[begin : begin + store.METRIC_BATCH])

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        entities = [RunTag(key, cut(value, TAG_LIMIT)) for key, value in tags.items()]
        for begin in range(0, len(entities), store.BATCH):
            self.client.log_batch(self.place_id, tags=entities[begin : begin + store.BATCH])


@contextmanager
def logged_run(
    record: Record, *, uri: str, outputs: Path, parent: str = "", reopen: str = "", folder: Path | None = None
) -> Iterator[Run]:
    """A run that ends as FINISHED, FAILED (with its traceback) or KILLED, whatever happens inside.

    Its folder is `outputs/runs/<name>-<draws fingerprint, 8>-<run id, 6>`, held by an exclusive lock meanwhile.

    Parameters
    ----------
    parent : the run id of the sweep that it belongs to, if any
    reopen : the run id to go on with, instead of a new run
    folder : the folder to go on in, instead of a new one

    Raises
    ------
    TrackingError
        if the folder is in use, or neither the store nor the spool can be written.
    """
    run = Run(record, uri=uri, outputs=outputs, parent=parent)
    with ExitStack() as stack:
        if folder is None:
            run.begin(reopen)
            draws = record.tags.get("draws_fingerprint", "")[:8]
            label = "-".join(part for part in (file_name(record.name), draws, run.run_id[:6]) if part)
            folder = outputs / "runs" / label
            folder.mkdir(parents=True, exist_ok=bool(reopen))
            stack.enter_context(_lock(folder))
        else:  # the lock first: nothing may happen to a run that another process writes
            stack.enter_context(_lock(folder))
            run.begin(reopen)
        run.folder = folder
        stack.enter_context(every(store.HEARTBEAT_SECONDS, run.beat, name="heartbeat"))
        try:
            run.open(again=bool(reopen))
            yield run
        except BaseException as error:
            try:
                run.fail(error)
            except (TrackingError, OSError) as also:  # what ended the run comes first
                print(f"not logged: {also}", file=sys.stderr)
            raise
        run.finish("FINISHED")
    if run.is_waiting and not parent:  # a job is sent after its sweep
        run.deliver()


def recorded(outputs: Path, *, sweep: str) -> list[store.Logged]:
    """The fits of a sweep as their folders tell it, whatever became of the store; RUNNING only if a process is."""
    found = []
    for path in (outputs / "runs").glob("*/record.json"):
        with suppress(OSError, ValueError):
            told = json.loads(path.read_text())
            if told["tags"].get("sweep") != sweep:
                continue
            is_dead = told["status"] == "RUNNING" and is_free(path.parent / "lock")
            params = {key: str(value) for key, value in told["params"].items()}
            status = "KILLED" if is_dead else told["status"]
            tags = told["tags"] | {store.PARENT: sweep}
            found.append(
                store.Logged(told["run_id"], told["name"], told["experiment"], status, params, told["metrics"], tags)
            )
    return found


def states(outputs: Path, *, since: float) -> dict[str, dict[str, object]]:
    """Where the runs are that said something after `since` (seconds of the epoch), by run fingerprint."""
    found = {}
    for path in (outputs / "runs").glob("*/state.json"):
        with suppress(OSError, ValueError):
            if path.stat().st_mtime >= since:
                told = json.loads(path.read_text())
                found[told["run_fingerprint"]] = told
    return found


def cut(text: str, limit: int) -> str:
    """The text, shortened with a mark where it is too long to log."""
    return text if len(text) <= limit else text[: limit - 14] + " ... (cut off)"


def _lock(folder: Path) -> AbstractContextManager[None]:
    in_use = TrackingError(f"{folder} is in use by another process. Wait for it to end.")
    return held(folder / "lock", otherwise=in_use)
