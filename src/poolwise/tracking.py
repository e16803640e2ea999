"""A run's folder to MLflow.

A run is written to a folder of its own first: `record.json` (parameters, metrics, tags) and `artifacts/`. MLflow
gets what the folder holds.
"""

import json
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from poolwise import store  # before mlflow: it sets what mlflow reads from the environment
from poolwise.background import every
from poolwise.credentials import public, scrub
from poolwise.errors import TrackingError
from poolwise.locks import held
from poolwise.record import Record
from poolwise.store import file_name, first_line

from mlflow import MlflowClient, MlflowException  # isort: skip
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag  # isort: skip

TAG_LIMIT, PARAM_LIMIT = 8000, 6000  # characters; MLflow cuts what is longer with only a warning
BATCH = 100  # parameters and tags that MLflow takes in one call
METRIC_BATCH = 1000


class Run:
    """A logged run while it lives: its record, its folder, its place in the store."""

    def __init__(self, client: MlflowClient, uri: str, run_id: str, experiment_id: str, folder: Path, record: Record):
        self.client, self.uri, self.run_id, self.experiment_id = client, uri, run_id, experiment_id
        self.folder, self.record = folder, record

    @property
    def artifacts(self) -> Path:
        """The folder whose content becomes the run's artifacts."""
        return self.folder / "artifacts"

    def write(self, name: str, content: str | bytes) -> None:
        """Write one artifact, whole or not at all."""
        write_whole(self.artifacts / name, content)

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics while sampling, so that the UI shows them as they come."""
        self.record.progress.append((step, dict(metrics)))
        self._log_metrics(metrics, step=step)

    def state(self, stage: str, **details: object) -> None:
        """Say where the run is, for whoever watches its folder: `state.json`."""
        told = {"stage": stage, "run_fingerprint": self.record.tags.get("run_fingerprint"), **details}
        write_whole(self.folder / "state.json", json.dumps(told))

    def finish(self, status: str) -> None:
        """Send what the folder holds and end the run with this status."""
        self.record.status = status
        self.save()
        self._log_metrics(self.record.metrics)
        self._log_tags(self.record.tags | {"mlflow.note.content": self.record.note})
        if self.artifacts.is_dir():
            self.client.log_artifacts(self.run_id, str(self.artifacts))
        self.client.set_terminated(self.run_id, status)

    def open(self, *, again: bool = False) -> None:
        """Log what is known before the fit; parameters only once, for MLflow refuses to change them."""
        self.save()
        params = [] if again else [Param(key, str(value)[:PARAM_LIMIT]) for key, value in self.record.params.items()]
        for begin in range(0, len(params), BATCH):
            self.client.log_batch(self.run_id, params=params[begin : begin + BATCH])
        self._log_tags(self.record.tags)
        if data := self.record.dataset:
            dataset = Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["source"]}))
            try:
                self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [])])
            except MlflowException:  # another process logged the same data first, between MLflow's look and its insert
                self.client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, [])])

    def save(self) -> None:
        """Write the record to the folder."""
        write_whole(self.folder / "record.json", json.dumps(vars(self.record), indent=1, ensure_ascii=False))

    def _log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        entities = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        for begin in range(0, len(entities), METRIC_BATCH):
            self.client.log_batch(self.run_id, metrics=entities[begin : begin + METRIC_BATCH])

    def _log_tags(self, tags: Mapping[str, str]) -> None:
        entities = [RunTag(key, cut(value, TAG_LIMIT)) for key, value in tags.items()]
        for begin in range(0, len(entities), BATCH):
            self.client.log_batch(self.run_id, tags=entities[begin : begin + BATCH])


@contextmanager
def logged_run(record: Record, *, uri: str, outputs: Path, parent: str = "", reopen: str = "") -> Iterator[Run]:
    """A run that ends as FINISHED, FAILED (with its traceback) or KILLED, whatever happens inside.

    Its folder is `outputs/runs/<name>-<draws fingerprint, 8>-<run id, 6>`, held by an exclusive lock meanwhile.

    Parameters
    ----------
    parent : the run id of the sweep that it belongs to, if any
    reopen : the run id to go on with, instead of a new run

    Raises
    ------
    TrackingError
        if the store cannot be reached or refuses.
    """
    try:
        client = store.connect(uri)
        experiment_id = store.experiment_id(client, record.experiment, uri)
        tags = {store.PROCESS: store.this_process(), store.HEARTBEAT: f"{time.time():.0f}"}
        tags |= {store.PARENT: parent} if parent else {}
        run_id = reopen or client.create_run(experiment_id, run_name=record.name, tags=tags).info.run_id
        if reopen:
            client.update_run(run_id, status="RUNNING")
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
    except MlflowException as error:
        raise TrackingError(f"{public(uri)}: {first_line(error)}") from None
    draws = record.tags.get("draws_fingerprint", "")[:8]
    label = "-".join(part for part in (file_name(record.name), draws, run_id[:6]) if part)
    folder = outputs / "runs" / label
    folder.mkdir(parents=True, exist_ok=bool(reopen))
    run = Run(client, uri, run_id, experiment_id, folder, record)
    in_use = TrackingError(f"{folder} is in use by another process. Wait for it to end.")
    beating = every(store.HEARTBEAT_SECONDS, lambda: _beat(client, run_id), name="heartbeat")
    with held(folder / "lock", otherwise=in_use), beating:
        try:
            run.open(again=bool(reopen))
            yield run
        except BaseException as error:
            is_killed = isinstance(error, KeyboardInterrupt | SystemExit)
            record.tags |= {"verdict": "failed", "verdict_reasons": first_line(error) or type(error).__name__}
            run.write("failure/traceback.txt", scrub("".join(traceback.format_exception(error))))
            run.state("killed" if is_killed else "failed")
            run.finish("KILLED" if is_killed else "FAILED")
            raise
        run.finish("FINISHED")


def states(outputs: Path, *, since: float) -> dict[str, dict[str, object]]:
    """Where the runs are that said something after `since` (seconds of the epoch), by run fingerprint."""
    found = {}
    for path in (outputs / "runs").glob("*/state.json"):
        with suppress(OSError, ValueError):
            if path.stat().st_mtime >= since:
                told = json.loads(path.read_text())
                found[told["run_fingerprint"]] = told
    return found


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    scratch.replace(path)


def cut(text: str, limit: int) -> str:
    """The text, shortened with a mark where it is too long to log."""
    return text if len(text) <= limit else text[: limit - 14] + " ... (cut off)"


def _beat(client: MlflowClient, run_id: str) -> None:
    """Say that the process of a run lives, for those who look from other hosts."""
    with suppress(MlflowException):  # one beat missed is no loss; the fit says itself if the store is gone
        client.set_tag(run_id, store.HEARTBEAT, f"{time.time():.0f}")
