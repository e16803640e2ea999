"""The tracking store: connect, search, read."""

import functools
import http.client
import os
import re
import shutil
import sqlite3
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the last lines of a run contain it
# with MLflow's defaults a call to a dead server takes four minutes; runs that a server does not take are spooled
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # a busy server may ask for an hour

import mlflow.artifacts
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Run as StoredRun

from poolwise.errors import ConfigError, TrackingError, UnknownRunError, UnreachableError
from poolwise.text import listed, one_line
from poolwise.tracking import ui_pages
from poolwise.tracking.credentials import SERVERS, public, scrub
from poolwise.tracking.files import link_or_copy

SQLITE = "sqlite:///"
STORES = (*SERVERS, SQLITE, "postgresql", "mysql", "mssql", "databricks")  # prefixes of addresses of stores
# raised by a store that is down, full or refuses; artifacts are sent with requests, whose errors are OSErrors
OUTAGES = (MlflowException, OSError, sqlite3.Error, SQLAlchemyError, UnreachableError, ParseError)
BATCH, METRIC_BATCH = 100, 1000  # parameters or tags, and metrics, that MLflow accepts in one call
PROBE_SECONDS = 5  # timeout of a first small request
STRANGE = "it answers, but not as an MLflow server does"
ID_LENGTH, LEAST_PREFIX = 32, 4  # characters of a run id, and of the shortest beginning that stands for one
# tags about the process that writes a run, for code alone; the names that come last by letter as well
KEY = "writer.run_key"  # finds a run if the answer to its creation was lost
PROCESS, HEARTBEAT = "writer.process", "writer.heartbeat"  # host and process id, and the time of its last heartbeat
EARLIER_TAGS = {"process": PROCESS, "heartbeat": HEARTBEAT}  # names in runs of version 0.1
PARENT = "mlflow.parentRunId"
DRIVERS = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}  # modules with another name on PyPI
KIND, FIT = "kind", "fit"  # tag: a run is a fit, a sweep, a comparison or a calibration


@dataclass(frozen=True)
class Logged:
    """A run as read from the store."""

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

    @property
    def kind(self) -> str:
        """`fit`, `sweep`, `comparison` or `calibration`; fits of version 0.1 have no tag."""
        return self.tags.get(KIND, FIT)

    @property
    def is_fit(self) -> bool:
        """Whether it is a fit."""
        return self.kind == FIT


@functools.cache  # a process upgrades a database once
def connect(uri: str) -> MlflowClient:
    """A client of the store; a local database is first created and upgraded if necessary.

    If several processes need a database that does not exist yet, one creates it and the others wait.

    Raises
    ------
    ConfigError
        if the address is not that of a store, or the driver of its database is not installed.
    """
    if not uri.startswith(STORES):
        raise ConfigError(
            f"tracking.uri (or MLFLOW_TRACKING_URI) is {public(uri)}; it must begin with one of {', '.join(STORES)}."
        )
    try:
        return _client(uri)
    except ImportError as error:  # SQLAlchemy imports the driver of a database when it connects
        raise ConfigError(
            f"{public(uri)} needs the Python package {error.name}, which is not installed. Install the driver of the "
            f"database: pip install {DRIVERS.get(error.name or '', error.name)}"
        ) from None


def _client(uri: str) -> MlflowClient:
    if uri.startswith(SQLITE):
        database = _database(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            _make(database)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)  # upgrades the tables
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer at a time do not wait
            connection.close()
        return client
    return MlflowClient(uri)


def outage(uri: str, *, patience: float | None = None) -> str:
    """Why the store cannot be used now, or nothing.

    Parameters
    ----------
    patience : timeout in seconds of a small request; `PROBE_SECONDS` if None
    """
    patience = PROBE_SECONDS if patience is None else patience
    try:
        if uri.startswith(SERVERS):
            _probe(uri, patience)
        began = time.monotonic()
        connect(uri).search_experiments(max_results=1)
        if uri.startswith(SERVERS) and (took := time.monotonic() - began) > patience:
            return f"it is slow ({took:.0f} s for an answer)"
    except OUTAGES as error:
        return reason(error)
    return ""


def logged(run_id: str, *, uri: str) -> Logged:
    """One run.

    Raises
    ------
    UnknownRunError
        if the store has no such run.
    UnreachableError
        if the store does not answer.
    """
    try:
        client = connect(uri)
        run = client.get_run(run_id)
        return _logged(run, client.get_experiment(run.info.experiment_id).name)
    except OUTAGES as error:
        if not is_unknown(error):
            raise UnreachableError(f"{public(uri)}: {first_line(error)}") from None
        raise _unknown(run_id, uri) from None


def run_id_of(beginning: str, *, uri: str) -> str:
    """The id of the only run whose id begins with this text; a full id is returned unchanged.

    Raises
    ------
    UnknownRunError
        if the text is shorter than `LEAST_PREFIX`, or the store has no such run, or several.
    UnreachableError
        if the store does not answer.
    """
    if len(beginning) >= ID_LENGTH:
        return beginning
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_PREFIX},}}", beginning):
        raise UnknownRunError(
            f"{beginning!r} is not a run id. Give the id or its beginning, at least {LEAST_PREFIX} of its characters."
        )
    found = search(f"attributes.run_id LIKE '{beginning}%'", uri=uri)
    if len(found) == 1:
        return found[0].run_id
    if found:
        candidates = listed(f"{run.run_id} ({one_line(run.name)})" for run in found)
        raise UnknownRunError(f"several runs have an id that begins with {beginning}: {candidates}. Give more of it.")
    raise _unknown(beginning, uri)


def is_unknown(error: BaseException) -> bool:
    """Whether the error means that the store answers but does not have the run or artifact."""
    return isinstance(error, MlflowException) and error.error_code in (
        "RESOURCE_DOES_NOT_EXIST",
        "INVALID_PARAMETER_VALUE",  # not a valid id
    )


def search(filter_string: str = "", *, uri: str, experiments: Sequence[str] | None = None) -> list[Logged]:
    """The matching runs, newest first; in all experiments unless some are named.

    Raises
    ------
    UnknownRunError
        if the filter is not valid in MLflow's search language.
    UnreachableError
        if the store does not answer.
    """
    found: list[Logged] = []
    token = None
    try:
        client = connect(uri)
        names = {each.experiment_id: each.name for each in client.search_experiments()}
        ids = [key for key, name in names.items() if experiments is None or name in experiments]
        while ids:
            page = client.search_runs(ids, filter_string, order_by=["attributes.start_time DESC"], page_token=token)
            found += [_logged(run, names[run.info.experiment_id]) for run in page]
            token = page.token
            if not token:
                break
    except OUTAGES as error:
        if not is_unknown(error):
            raise UnreachableError(f"{public(uri)}: {first_line(error)}") from None
        raise UnknownRunError(f"filter {filter_string!r}: {first_line(error)}") from None
    return found


def children(run_id: str, *, uri: str) -> list[Logged]:
    """The runs of a sweep, newest first."""
    return search(f"tags.`{PARENT}` = '{run_id}'", uri=uri)


def create_run(
    client: MlflowClient,
    experiment: str,
    key: str,
    *,
    name: str,
    tags: Mapping[str, str],
    start_time: int | None = None,
) -> str:
    """The id of the only run with this key, created if there is none.

    A creation whose answer was lost may have succeeded, and its repetition then created a second run: deleted here.
    """
    where = f"tags.`{KEY}` = '{key}'"
    found = list(client.search_runs([experiment], where))
    if not found:
        made = client.create_run(experiment, start_time, {**tags, KEY: key}, name)
        found = list(client.search_runs([experiment], where)) or [made]  # a search may lag behind
    for each in found[1:]:
        client.delete_run(each.info.run_id)
    if not found[0].info.run_id:
        raise UnreachableError(STRANGE)
    return str(found[0].info.run_id)


def tag(run_id: str, key: str, value: str, *, uri: str) -> None:
    """Set a tag of a run."""
    connect(uri).set_tag(run_id, key, scrub(value))


def attach(run_id: str, tags: Mapping[str, str], files: Mapping[str, str], *, uri: str) -> None:
    """Add tags and artifacts, name -> text, to a run that has ended."""
    client = connect(uri)
    for key, value in tags.items():
        client.set_tag(run_id, key, scrub(value))
    for name, text in files.items():
        client.log_text(run_id, text, name)


def artifact(run_id: str, name: str, *, uri: str) -> Path:
    """A logged artifact as a local file.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or the run no such artifact.
    UnreachableError
        if the store does not answer.
    """
    try:
        folder = local_artifacts(connect(uri).get_run(run_id))
        if folder and (folder / name).is_file():
            return folder / name
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=uri)
    except OUTAGES as error:
        if reason := outage(uri):
            raise UnreachableError(f"{public(uri)}: {reason}") from None
        with suppress(MlflowException):
            status = connect(uri).get_run(run_id).info.status
            if status != "FINISHED":
                raise UnknownRunError(
                    f"run {run_id} has no {name}: it is {status.lower()}. Repeat its command, which goes on."
                ) from None
        raise UnknownRunError(
            f"run {run_id} in {public(uri)} has no {name}: {first_line(error)} "
            "Check the run id, and MLFLOW_TRACKING_URI if the run is in another store."
        ) from None
    return Path(found)


def send_folder(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log the files of a folder; a store on the same disk gets links to them, so that they are stored once."""
    if there := local_artifacts(client.get_run(run_id)):
        shutil.copytree(folder, there, copy_function=link_or_copy, dirs_exist_ok=True)
    else:
        client.log_artifacts(run_id, str(folder))


def local_artifacts(run: StoredRun) -> Path | None:
    """The folder of a run's artifacts, if it is a folder of this machine."""
    place = urllib.parse.urlsplit(run.info.artifact_uri)
    return Path(urllib.request.url2pathname(place.path)) if place.scheme == "file" else None


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment, created if necessary; a local store keeps artifacts beside it, at an absolute path."""
    found = client.get_experiment_by_name(name)
    if found is None:
        local = (_database(uri).parent / "artifacts" / file_name(name)).as_uri() if uri.startswith(SQLITE) else None
        try:
            return client.create_experiment(name, artifact_location=local, tags={ui_pages.TAG: ui_pages.ranked_view()})
        except MlflowException:  # another process was first
            found = client.get_experiment_by_name(name)
    if found is None or not found.experiment_id:
        raise UnreachableError(STRANGE)
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"experiment {name} is deleted in {public(uri)}. Restore it there, or choose another data.name."
        )
    return found.experiment_id


def ranked_pages(uri: str) -> dict[str, str]:
    """For every experiment with runs, the page of the UI that lists them ranked by elpd_loo.

    If the store refuses the view, the plain table is used.
    """
    client, pages = connect(uri), {}
    for experiment in client.search_experiments():
        if not client.search_runs([experiment.experiment_id], max_results=1):
            continue
        page = ui_pages.TABLE.format(experiment.experiment_id)
        try:
            client.set_experiment_tag(experiment.experiment_id, ui_pages.TAG, ui_pages.ranked_view())
            page += "&viewStateShareKey=ranked"
        except MlflowException:
            pass
        pages[experiment.name] = page
    return pages


def _unknown(run_id: str, uri: str) -> UnknownRunError:
    remedy = "Check the run id, and MLFLOW_TRACKING_URI if the run is in another store."
    return UnknownRunError(f"{public(uri)} has no run {run_id}. {remedy}")


def _probe(uri: str, seconds: float) -> None:
    """Raise an OSError if no server answers at the address; any answer counts."""
    address = f"{public(uri).rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        urllib.request.urlopen(address, timeout=seconds).close()
    except urllib.error.HTTPError:  # it answers, perhaps to ask for a password
        pass
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has settings of its own for certificates
            raise OSError(f"no answer ({error.reason})") from None
    except http.client.HTTPException as error:
        raise OSError(f"it does not answer in HTTP ({type(error).__name__})") from None


def file_name(name: str) -> str:
    """The name with characters not allowed in a file name as `-`, at most 80 characters; never `.` or `..`."""
    return re.sub(r"^\.+|[^\w.=,-]+", "-", name)[:80]


def reason(error: BaseException) -> str:
    """Why something failed, in one short line."""
    line = first_line(error).rpartition("(Caused by ")[2]  # requests ends its message about retries with the cause
    return line[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, without credentials."""
    return scrub(next(iter(str(error).strip().splitlines()), ""))


def _make(database: Path) -> None:
    """Create a database atomically if it does not exist: a partial one could never be used."""
    if database.is_file() and database.stat().st_size:
        return
    for path in database.parent.glob(f".{database.name}.*.part*"):  # left by a start that was killed
        path.unlink()
    part = database.with_name(f".{database.name}.{os.getpid()}-{time.monotonic_ns()}.part")
    MlflowClient(f"{SQLITE}{part}").search_experiments(max_results=1)
    part.replace(database)


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
        tags={EARLIER_TAGS.get(key, key): value for key, value in run.data.tags.items()},
    )
