"""A run's folder to MLflow.

A run is first written to its own folder: `record.json` (parameters, metrics, tags) and `artifacts/`. The content of
the folder is sent to MLflow. If the store fails meanwhile, the run continues in the spool.
"""

import json
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from poolwise.errors import TrackingError
from poolwise.tracking import (
    liveness,
    spool,
    store,  # before mlflow: store sets what mlflow reads from the environment
    ui_pages,
)
from poolwise.tracking.credentials import SERVERS, public, scrub, store_uri
from poolwise.tracking.files import write_whole
from poolwise.tracking.heartbeat import repeat_every
from poolwise.tracking.locks import exclusive_lock, is_free
from poolwise.tracking.record import Record
from poolwise.tracking.store import OUTAGES, file_name

from mlflow import MlflowClient, MlflowException  # isort: skip
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag  # isort: skip

TAG_LIMIT, PARAM_LIMIT = 8000, 6000  # characters; MLflow truncates longer values with only a warning
CHECKPOINT = "checkpoint"  # in the folder of an unfinished run
PATIENCE_SECONDS = 10  # that a server may take while the fit waits


@dataclass(frozen=True)
class Place:
    """Location of a run in a store or its spool: address, experiment id and run id."""

    uri: str
    experiment_id: str = ""
    run_id: str = ""

    @property
    def client(self) -> MlflowClient:
        """The client that writes it."""
        return store.connect(self.uri)

    @property
    def waits_for(self) -> str:
        """The public address of its store, if the run is in the spool."""
        return spool.target(self.uri)


class Run:
    """A run being logged: its record, its folder, its place in the store or in the spool.

    Attributes
    ----------
    place : where it is written to now
    run_id : its first id, until it is sent from the spool under another one
    outage : why its store could not take it, or empty
    """

    def __init__(self, record: Record, *, uri: str, outputs: Path, parent: str = ""):
        self.record, self.outputs, self.parent = record, outputs, parent
        self.place, self.key = Place(uri), uuid.uuid4().hex
        self.run_id = self.outage = ""
        self.folder = Path()

    @property
    def uri(self) -> str:
        """The store or spool that it is in now."""
        return self.place.uri

    @property
    def store_run_id(self) -> str:
        """Its id in that store or spool."""
        return self.place.run_id

    @property
    def experiment_id(self) -> str:
        """The id of its experiment in that store or spool."""
        return self.place.experiment_id

    @property
    def is_spooled(self) -> bool:
        """Whether it is in the spool."""
        return bool(self.place.waits_for)

    @property
    def artifacts(self) -> Path:
        """The folder whose content becomes the run's artifacts."""
        return self.folder / "artifacts"

    @property
    def checkpoint(self) -> Path:
        """The folder of checkpoints that a killed fit resumes from; a finished run has none."""
        return self.folder / CHECKPOINT

    def write(self, name: str, content: str | bytes) -> None:
        """Write one artifact atomically."""
        write_whole(self.artifacts / name, content)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics while sampling, so the UI shows them as they arrive."""
        entry = (step, now_ms(), dict(metrics))
        self.record.progress.append(entry)
        self.save()
        self._send(lambda place: _log_metrics(place, [entry]))

    def state(self, stage: str, **details: object) -> None:
        """Write the stage of the run to `state.json`, for those who watch its folder."""
        told = {"stage": stage, "run_fingerprint": self.record.tags.get("run_fingerprint"), **details}
        write_whole(self.folder / "state.json", json.dumps(told))

    def begin(self, run_id: str = "") -> None:
        """Create the run in its store, or reopen an existing one."""
        self.run_id = run_id
        try:
            self.place = self._made(self.uri, run_id)
        except OUTAGES as error:
            self.move_to_spool(store.reason(error))
        self.run_id = self.run_id or self.store_run_id

    def open(self) -> None:
        """Log what is known before the fit."""
        self.save()
        self._send(self._log_opening)

    def finish(self, status: str) -> None:
        """Send the content of the folder and end the run with this status."""
        self.save()  # still as RUNNING: a kill from here on leaves a run that can be resumed
        self._end(status)
        if status == "FINISHED":
            shutil.rmtree(self.checkpoint, ignore_errors=True)

    def fail(self, error: BaseException) -> None:
        """End the run as KILLED if it was stopped from outside, else as FAILED; record what the folder still takes."""
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        self.record.tags |= {"verdict": "failed", "verdict_reasons": store.reason(error)}
        with suppress(OSError):  # a full disk: the store still gets the status
            self.write("failure/traceback.txt", scrub("".join(traceback.format_exception(error))))
            self.state(status.lower())
            self.save()
        self._end(status)

    def send_heartbeat(self) -> None:
        """Tag the run with the time, so other hosts see that its process is alive."""
        place = self.place  # may change at any moment
        with suppress(*OUTAGES):  # one missed heartbeat does no harm; the fit notices itself if the store is gone
            place.client.set_tag(place.run_id, store.HEARTBEAT, f"{time.time():.0f}")

    def move_to_spool(self, reason: str) -> None:
        """Continue in the spool, which first gets what the store already has.

        Raises
        ------
        TrackingError
            if the spool cannot take the run, or the run is already in it.
        """
        where = f" It is in {self.folder}." if self.folder.name else ""
        if self.is_spooled:
            raise TrackingError(f"{self.uri} cannot take the run either: {reason}.{where}")
        self.outage = reason
        print(f"tracking: {public(self.uri)}: {reason}; the run continues in the spool", file=sys.stderr)
        try:
            place = self._made(spool.place(self.uri, self.outputs))
            if self.folder.name:  # already opened
                self._log_opening(place)
        except OUTAGES as error:
            raise TrackingError(f"the spool in {self.outputs} cannot take it: {store.reason(error)}.{where}") from None
        self.place = place  # in one step, so a kill leaves it in one place or the other
        if self.folder.name:
            self.save()

    def deliver(self) -> None:
        """Try once more to send a spooled run, and all others that wait for its store."""
        waits_for = self.place.waits_for
        uri = store_uri(waits_for, self.outputs) if waits_for else self.uri
        for delivery in spool.deliveries(self.outputs, only=uri):
            self.outage = delivery.reason or self.outage
        if waits_for and self.store_run_id:
            with suppress(*OUTAGES):
                experiment_id, run_id = spool.arrived(self.store_run_id, uri=self.uri)
                if run_id:
                    self.place, self.run_id = Place(uri, experiment_id, run_id), run_id

    def location_lines(self) -> list[str]:
        """Lines with the location of the run."""
        lines = [f"run     {self.run_id}", f"folder  {self.folder}"]
        if not self.is_spooled:
            page = ui_pages.RUN.format(self.experiment_id, self.run_id)
            lines.append(f"page    {ui_pages.ui_address(self.uri)}/{page}")
        return lines + self.spool_lines()

    def spool_lines(self) -> list[str]:
        """Lines about the spool, if the run is in it."""
        if not self.is_spooled:
            return []
        return [
            f"waits   for {self.place.waits_for}: {self.outage or 'it did not answer'}",
            f"spool   {self.uri}",
            "send    python -m poolwise.sync; the next run that reaches the store sends it too",
        ]

    def save(self) -> None:
        """Write the record to the folder."""
        self.record.run_id, self.record.store = self.store_run_id, public(self.uri)
        write_whole(self.folder / "record.json", json.dumps(vars(self.record), indent=1, ensure_ascii=False))

    def _send(self, write: Callable[[Place], None], *, is_last: bool = False) -> None:
        """Write to the store. If it fails, write to the spool; if it is slow and not done, continue in the spool."""
        began = time.monotonic()
        try:
            write(self.place)
        except OUTAGES as error:
            self.move_to_spool(store.reason(error))
            self._send(write)
        else:
            seconds = time.monotonic() - began
            if self.uri.startswith(SERVERS) and seconds > PATIENCE_SECONDS and not is_last:
                self.move_to_spool(f"it is slow ({seconds:.0f} s)")

    def _end(self, status: str) -> None:
        ended = now_ms()  # the same for store and spool: else a metric sent to both would be stored twice
        self._send(lambda place: self._log_ending(place, status, ended), is_last=True)
        self.record.status = status
        self.save()

    def _made(self, uri: str, run_id: str = "") -> Place:
        """Create or reopen the run in a store or spool, with the tags known before the fit.

        MLflow's UI shows tags and metrics in the order in which a run first got them.
        """
        client = store.connect(uri)
        experiment = store.experiment_id(client, self.record.experiment, uri)
        tags = _cut(self.record.tags) | ({store.PARENT: self.parent} if self.parent else {})
        tags |= {store.PROCESS: liveness.this_process(), store.HEARTBEAT: f"{time.time():.0f}"}
        if run_id:
            client.update_run(run_id, status="RUNNING")
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        else:
            tags |= {spool.RUN_ID: self.run_id} if self.run_id else {}
            run_id = store.create_run(client, experiment, self.key, name=self.record.name, tags=tags)
        return Place(uri, experiment, run_id)

    def _log_opening(self, place: Place) -> None:
        """Log what is known before the fit, and the progress of a resumed one; a logged parameter never changes."""
        known = place.client.get_run(place.run_id).data.params
        params = [Param(key, str(value)[:PARAM_LIMIT]) for key, value in self.record.params.items() if key not in known]
        for batch in batched(params, store.BATCH):
            place.client.log_batch(place.run_id, params=batch)
        if data := self.record.dataset:
            dataset = Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["source"]}))
            try:
                place.client.log_inputs(place.run_id, datasets=[DatasetInput(dataset, [])])
            except MlflowException:  # another process logged the same data between MLflow's lookup and its insert
                place.client.log_inputs(place.run_id, datasets=[DatasetInput(dataset, [])])
        _log_metrics(place, self.record.progress)

    def _log_ending(self, place: Place, status: str, ended: int) -> None:
        if self.artifacts.is_dir():  # first, as it takes longest: a run killed meanwhile has no metric twice
            store.send_folder(place.client, place.run_id, self.artifacts)
        _log_tags(place, self.record.tags | {"mlflow.note.content": self.record.note})
        known = place.client.get_run(place.run_id).data.metrics  # from a start that was killed just before its end
        fresh = {name: value for name, value in self.record.metrics.items() if known.get(name) != value}
        _log_metrics(place, [(0, ended, fresh)])
        place.client.set_terminated(place.run_id, status, ended)


@contextmanager
def logged_run(
    record: Record, *, uri: str, outputs: Path, parent: str = "", reopen: str = "", folder: Path | None = None
) -> Iterator[Run]:
    """Log a run. It always ends as FINISHED, FAILED (with its traceback) or KILLED.

    Its folder `outputs/runs/<name>-<draws fingerprint, 8>-<run id, 6>` is locked meanwhile.

    Parameters
    ----------
    parent : the run id of its sweep, if any
    reopen : the run id to resume, instead of a new run
    folder : the folder to resume in, instead of a new one

    Raises
    ------
    TrackingError
        if the folder is in use, or neither the store nor the spool can be written.
    """
    run = Run(record, uri=uri, outputs=outputs, parent=parent)
    try:
        with ExitStack() as stack:
            if folder is None:
                run.begin(reopen)
                draws = record.tags.get("draws_fingerprint", "")[:8]
                label = "-".join(part for part in (file_name(record.name), draws, run.run_id[:6]) if part)
                folder = outputs / "runs" / label
                folder.mkdir(parents=True, exist_ok=bool(reopen))
                stack.enter_context(_lock(folder))
            else:  # the lock first: a run that another process writes must not be touched
                stack.enter_context(_lock(folder))
                run.begin(reopen)
            run.folder = folder
            stack.enter_context(repeat_every(liveness.HEARTBEAT_SECONDS, run.send_heartbeat, name="heartbeat"))
            try:
                run.open()
                yield run
                run.finish("FINISHED")
            except BaseException as error:
                try:
                    if record.status == "RUNNING":
                        run.fail(error)
                except (TrackingError, OSError) as also:  # the first error is raised
                    print(f"not logged: {also}", file=sys.stderr)
                raise
    finally:
        if run.is_spooled and not parent:  # a job is sent with its sweep
            run.deliver()


def recorded(outputs: Path, *, sweep: str = "") -> list[store.Logged]:
    """Runs, or those of a sweep, from the records in their folders; RUNNING only while a process writes them."""
    found = []
    for path in (outputs / "runs").glob("*/record.json"):
        with suppress(OSError, ValueError):
            told = json.loads(path.read_text())
            parent = told["tags"].get("sweep", "")
            if sweep and parent != sweep:
                continue
            is_dead = told["status"] == "RUNNING" and is_free(path.parent / "lock")
            params = {key: str(value) for key, value in told["params"].items()}
            status = "KILLED" if is_dead else told["status"]
            tags = told["tags"] | ({store.PARENT: parent} if parent else {})
            found.append(
                store.Logged(told["run_id"], told["name"], told["experiment"], status, params, told["metrics"], tags)
            )
    return found


def states(outputs: Path, *, since: float) -> dict[str, dict[str, object]]:
    """State by run fingerprint of the runs that wrote one after `since` (seconds since the epoch)."""
    found = {}
    for path in (outputs / "runs").glob("*/state.json"):
        with suppress(OSError, ValueError):
            if path.stat().st_mtime >= since:
                told = json.loads(path.read_text())
                found[told["run_fingerprint"]] = told
    return found


def cut(text: str, limit: int) -> str:
    """The text, truncated with a mark if it is too long to log."""
    return text if len(text) <= limit else text[: limit - 14] + " ... (cut off)"


def _log_metrics(place: Place, entries: Sequence[tuple[int, int, Mapping[str, float]]]) -> None:
    entities = [
        Metric(name, float(value), time_ms, step)
        for step, time_ms, metrics in entries
        for name, value in metrics.items()
    ]
    for batch in batched(entities, store.METRIC_BATCH):
        place.client.log_batch(place.run_id, metrics=batch)


def _log_tags(place: Place, tags: Mapping[str, str]) -> None:
    entities = [RunTag(key, value) for key, value in _cut(tags).items()]
    for batch in batched(entities, store.BATCH):
        place.client.log_batch(place.run_id, tags=batch)


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: cut(value, TAG_LIMIT) for key, value in tags.items()}


def now_ms() -> int:
    """Milliseconds since the epoch, as MLflow counts time."""
    return int(time.time() * 1000)


def _lock(folder: Path) -> AbstractContextManager[None]:
    in_use = TrackingError(f"{folder} is in use by another process. Wait for it to end.")
    return exclusive_lock(folder / "lock", otherwise=in_use)
