"""The tracking store: reached, searched and read.

Of this project's modules only this one and `tracking`, which writes runs, import mlflow.
"""

import base64
import functools
import json
import os
import re
import socket
import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's defaults make a dead server cost four minutes a call
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")

import mlflow.artifacts
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run as StoredRun

from poolwise.credentials import public, scrub
from poolwise.errors import TrackingError, UnknownRunError

SQLITE = "sqlite:///"
PARENT = "mlflow.parentRunId"
PROCESS, HEARTBEAT = "process", "heartbeat"  # tags: who writes a run, and when it last said so
HEARTBEAT_SECONDS = 20
SILENCE_SECONDS = 180  # of a process on another host, until its run counts as abandoned


@dataclass(frozen=True)
class Logged:
    """A run as the store knows it; `parent` is the id of its sweep, or empty."""

    run_id: str
    name: str
    experiment: str
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def parent(self) -> str:
        """The id of the parent run, or empty."""
        return self.tags.get(PARENT, "")


@functools.cache  # a process brings a database up to date once
def connect(uri: str) -> MlflowClient:
    """A client of the store, which is made and brought up to date first if it is a local database.

    Several processes may come to a database that does not exist yet: one makes it, the others wait.
    """
    if uri.startswith(SQLITE):
        database = _database(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # makes the tables
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at a time do not wait
            connection.close()
        return client
    return MlflowClient(uri)


def logged(run_id: str, *, uri: str) -> Logged:
    """One run.

    Raises
    ------
    UnknownRunError
        if the store has no such run.
    """
    try:
        client = connect(uri)
        run = client.get_run(run_id)
        return _logged(run, client.get_experiment(run.info.experiment_id).name)
    except MlflowException as error:
        raise UnknownRunError(
            f"{public(uri)} has no run {run_id}: {first_line(error)} "
            "Check the run id, and MLFLOW_TRACKING_URI if the run is in another store."
        ) from None


def search(filter_string: str = "", *, uri: str, experiments: Sequence[str] | None = None) -> list[Logged]:
    """The runs that match, the newest first; in every experiment unless some are named.

    Raises
    ------
    UnknownRunError
        if the filter is not in MLflow's language.
    """
    client, found = connect(uri), []
    names = {each.experiment_id: each.name for each in client.search_experiments()}
    ids = [key for key, name in names.items() if experiments is None or name in experiments]
    token = None
    try:
        while ids:
            page = client.search_runs(ids, filter_string, order_by=["attributes.start_time DESC"], page_token=token)
            found += [_logged(run, names[run.info.experiment_id]) for run in page]
            token = page.token
            if not token:
                break
    except MlflowException as error:
        raise UnknownRunError(f"filter {filter_string!r}: {first_line(error)}") from None
    return found


def children(run_id: str, *, uri: str) -> list[Logged]:
    """The runs of a sweep, the newest first."""
    return search(f"tags.`{PARENT}` = '{run_id}'", uri=uri)


def tag(run_id: str, key: str, value: str, *, uri: str) -> None:
    """Set a tag of a run."""
    connect(uri).set_tag(run_id, key, scrub(value))


def this_process() -> str:
    """Who writes a run: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def is_alive(run: Logged) -> bool:
    """Whether the process behind a RUNNING run is still there: looked up on this host, by heartbeat on others."""
    host, _, pid = run.tags.get(PROCESS, "").rpartition(":")
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it is there, and another user's
            return True
        return not _is_zombie(int(pid))
    return time.time() - float(run.tags.get(HEARTBEAT, 0)) < SILENCE_SECONDS


def is_mine(run: Logged) -> bool:
    """Whether this very process wrote a run."""
    return run.tags.get(PROCESS) == this_process()


def bury(runs: Sequence[Logged], *, uri: str, also_mine: bool = False) -> list[Logged]:
    """End as KILLED the RUNNING runs whose process is gone, and if asked those that this one left; returns them."""
    client = connect(uri)
    dead = [
        run
        for run in runs
        if run.status == "RUNNING" and PROCESS in run.tags and (not is_alive(run) or (also_mine and is_mine(run)))
    ]
    for run in dead:
        client.set_tag(run.run_id, "verdict", "failed")
        client.set_tag(run.run_id, "verdict_reasons", "its process is gone")
        client.set_terminated(run.run_id, "KILLED")
    return dead


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
            f"run {run_id} in {public(uri)} has no {name}: {first_line(error)} "
            "Check the run id, and MLFLOW_TRACKING_URI if the run is in another store."
        ) from None
    return Path(found)


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment, made if need be; a local store keeps artifacts at an absolute place beside it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = (_database(uri).parent / "artifacts" / file_name(name)).as_uri() if uri.startswith(SQLITE) else None
        try:
            return client.create_experiment(name, artifact_location=local)
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name} is deleted in {public(uri)}. Restore it there, or give another data.name."
        )
    return found.experiment_id


def ranked_pages(uri: str) -> dict[str, str]:
    """For every experiment with runs, the page of the UI that shows them flat and ranked by elpd_loo.

    The view is a tag that the UI reads. Its form is undocumented, so a store that refuses it gets the plain table.
    """
    client, pages = connect(uri), {}
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


def file_name(name: str) -> str:
    """The name with everything that a file name may not hold as `-`, at most 80 characters."""
    return re.sub(r"[^\w.=,-]+", "-", name)[:80]


def first_line(error: BaseException) -> str:
    """What an exception says first, without credentials."""
    return scrub(next(iter(str(error).strip().splitlines()), ""))


def _database(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()


def _logged(run: StoredRun, experiment: str) -> Logged:
    return Logged(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        experiment=experiment,
        status=run.info.status,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
