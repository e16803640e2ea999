"""A run's folder to MLflow, and back.

A run is written to a folder of its own first: `record.json` (parameters, metrics, tags) and `artifacts/`. MLflow
gets what the folder holds. This is the only module that imports mlflow.
"""

import base64
import json
import os
import re
import sqlite3
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault(
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
)  # the default makes a dead server cost four minutes a call
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

import mlflow.artifacts
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

from poolwise.credentials import public
from poolwise.errors import TrackingError, UnknownRunError
from poolwise.record import Record

TAG_LIMIT, PARAM_LIMIT = 8000, 6000  # characters; MLflow cuts what is longer with only a warning
BATCH = 100  # parameters and tags that MLflow takes in one call
METRIC_BATCH = 1000


class Run:
    """A logged run while it lives: its record, its folder, its place in the store."""

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str, folder: Path, record: Record):
        self.client, self.run_id, self.experiment_id = client, run_id, experiment_id
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

    def finish(self, status: str) -> None:
        """Send what the folder holds and end the run with this status."""
        self.record.status = status
        self.save()
        self._log_metrics(self.record.metrics)
        self._log_tags(self.record.tags | {"mlflow.note.content": self.record.note})
        if self.artifacts.is_dir():
            self.client.log_artifacts(self.run_id, str(self.artifacts))
        self.client.set_terminated(self.run_id, status)

    def open(self) -> None:
        """Log what is known before the fit."""
        self.save()
        params = [Param(key, str(value)[:PARAM_LIMIT]) for key, value in self.record.params.items()]
        for begin in range(0, len(params), BATCH):
            self.client.log_batch(self.run_id, params=params[begin : begin + BATCH])
        self._log_tags(self.record.tags)
        data = self.record.dataset
        dataset = Dataset(data["name"], data["digest"], "local", json.dumps({"uri": data["source"]}))
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
def logged_run(record: Record, *, uri: str, outputs: Path) -> Iterator[Run]:
    """A run that ends as FINISHED, FAILED (with its traceback) or KILLED, whatever happens inside.

    Its folder is `outputs/runs/<name>-<draws fingerprint, 8>-<run id, 6>`, held by an exclusive lock meanwhile.

    Raises
    ------
    TrackingError
        if the store cannot be reached or refuses.
    """
    try:
        client = connect(uri, outputs)
        experiment_id = _experiment(client, record.experiment, uri, outputs)
        run_id = client.create_run(experiment_id, run_name=record.name).info.run_id
    except MlflowException as error:
        raise TrackingError(f"{public(uri)}: {_first_line(error)}") from None
    label = f"{_file_name(record.name)}-{record.tags['draws_fingerprint'][:8]}-{run_id[:6]}"
    folder = outputs / "runs" / label
    folder.mkdir(parents=True)
    run = Run(client, run_id, experiment_id, folder, record)
    with _held(folder / "lock"):
        try:
            run.open()
            yield run
        except BaseException as error:
            is_killed = isinstance(error, KeyboardInterrupt | SystemExit)
            record.tags |= {"verdict": "failed", "verdict_reasons": _first_line(error) or type(error).__name__}
            run.write("failure/traceback.txt", public("".join(traceback.format_exception(error))))
            run.finish("KILLED" if is_killed else "FAILED")
            raise
        run.finish("FINISHED")


def connect(uri: str, outputs: Path) -> MlflowClient:
    """A client of the store, which is made and brought up to date first if it is a local database.

    Several processes may come to a database that does not exist yet: one makes it, the others wait.
    """
    if uri.startswith("sqlite:///"):
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # makes the tables
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at a time do not wait
            connection.close()
        return client
    return MlflowClient(uri)


def artifact(run_id: str, name: str, *, uri: str) -> Path:
    """A logged artifact as a local file.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or the run no such artifact.
    """
    try:
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=uri)
    except (MlflowException, OSError) as error:
        raise UnknownRunError(
            f"run {run_id} in {public(uri)} has no {name}: {_first_line(error)} "
            "Check the run id, and MLFLOW_TRACKING_URI if the run is in another store."
        ) from None
    return Path(found)


def ranked_pages(uri: str, outputs: Path) -> dict[str, str]:
    """For every experiment with runs, the page of the UI that shows them flat and ranked by elpd_loo.

    The view is a tag that the UI reads. Its form is undocumented, so a store that refuses it gets the plain table.
    """
    client, pages = connect(uri, outputs), {}
    for experiment in client.search_experiments():
        if not client.search_runs([experiment.experiment_id], max_results=1):
            continue
        page = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        try:
            client.set_experiment_tag(experiment.experiment_id, "mlflow.sharedViewState.ranked", _ranked_view())
            page += "&viewStateShareKey=ranked"
        except MlflowException:
            pass
        pages[experiment.name] = page
    return pages


def _ranked_view() -> str:
    """The state of MLflow's runs table: only runs with an elpd_loo, best first, telling columns."""
    metrics = ("elpd_loo", "elpd_loo_se", "r_hat_max", "ess_bulk_min", "divergences")
    others = ("tags.`verdict`", "params.`pooling.name`", "params.`likelihood.name`")
    state = {
        "searchFilter": "metrics.elpd_loo < 0",
        "orderByKey": "metrics.`elpd_loo`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*(f"metrics.`{name}`" for name in metrics), *others],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "compareRunCharts": [],
        "viewMaximized": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    view = {"name": "Ranked by elpd_loo", "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    return json.dumps(view)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    scratch.replace(path)


def cut(text: str, limit: int) -> str:
    """The text, shortened with a mark where it is too long to log."""
    return text if len(text) <= limit else text[: limit - 14] + " ... (cut off)"


def _experiment(client: MlflowClient, name: str, uri: str, outputs: Path) -> str:
    """The id of the experiment, made if need be; a local store keeps artifacts at an absolute place beside it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = (outputs.resolve() / "artifacts" / _file_name(name)).as_uri() if uri.startswith("sqlite:") else None
        try:
            return client.create_experiment(name, artifact_location=local)
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name} is deleted in {public(uri)}. Restore it there, or give another data.name."
        )
    return found.experiment_id


@contextmanager
def _held(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise TrackingError(f"{path.parent} is in use by another process. Wait for it to end.") from None
    try:
        yield
    finally:
        lock.release()


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.=,-]+", "-", name)[:80]


def _first_line(error: BaseException) -> str:
    return public(next(iter(str(error).strip().splitlines()), ""))
