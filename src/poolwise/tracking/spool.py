"""Runs that their store could not take: kept in a local MLflow store, sent when the store answers again.

Every store that failed has its own spool, `outputs/spool/<address>/`: an MLflow database with artifacts, so spooled
runs can be browsed and compared. Sending is idempotent: the run is found on its store by its id there or by its key,
and repeated writes have the same content. The spool records the id on the store before it deletes the run. If the id
has changed, all references to the run are corrected.
"""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from poolwise.errors import TrackingError, UnreachableError
from poolwise.tracking import (
    liveness,
    store,  # before mlflow: it sets what mlflow reads from the environment
)
from poolwise.tracking.credentials import public, store_uri
from poolwise.tracking.files import write_whole
from poolwise.tracking.locks import exclusive_lock
from poolwise.tracking.store import BATCH, METRIC_BATCH, OUTAGES, PARENT, SQLITE, file_name

from mlflow import MlflowClient  # isort: skip
from mlflow.entities import Param, RunTag, ViewType  # isort: skip
from mlflow.entities import Run as StoredRun  # isort: skip

MEANT_FOR = "meant_for"  # file in a spool's folder: the public address of its store
RUN_ID = "spool.run_id"  # tag in a spool: the id of the run on its store
SENT_TO, SENT_AS = "spool.sent_to", "spool.sent_as"  # tags in a spool: where a run is now, `<experiment id>/<run id>`
NOTE = "mlflow.note.content"
TEXTS = {".csv", ".html", ".json", ".md", ".txt", ".yaml"}  # artifacts that may name other runs


@dataclass(frozen=True)
class Delivery:
    """Result of sending the spool of one store.

    Attributes
    ----------
    target : public address of the store
    sent : id in the spool -> id on the store
    waiting : number of ended runs that are still in the spool
    reason : why they were not sent, or empty
    """

    target: str
    sent: dict[str, str]
    waiting: int
    reason: str


def place(uri: str, outputs: Path) -> str:
    """The address of the spool of a store; creates its folder."""
    address = _address(uri)
    name = f"{file_name(address)[:40]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    folder = outputs.absolute() / "spool" / name
    if not (folder / MEANT_FOR).is_file():
        with suppress(FileNotFoundError):  # another process did it meanwhile
            write_whole(folder / MEANT_FOR, address)
    return f"{SQLITE}{folder / 'mlflow.db'}"


def target(uri: str) -> str:
    """The public address of the store that a spool belongs to; empty if `uri` is not a spool."""
    if not uri.startswith(SQLITE):
        return ""
    with suppress(OSError):
        return (Path(uri.removeprefix(SQLITE)).parent / MEANT_FOR).read_text()
    return ""


def reachable(uri: str, outputs: Path) -> str:
    """The store if it answers, after sending the spooled runs to it; else its spool."""
    if reason := store.outage(uri):
        print(f"tracking: {public(uri)}: {reason}; runs are logged to the spool", file=sys.stderr)
        return place(uri, outputs)
    for delivery in deliveries(outputs, only=uri, wait=False):
        tell(delivery)
    return uri


def deliveries(
    outputs: Path, *, only: str = "", to: str = "", wait: bool = True, patience: float | None = None
) -> Iterator[Delivery]:
    """Send the spooled runs, store by store.

    Parameters
    ----------
    only : the store to send to; all stores if empty
    to : another store to send everything to
    wait : whether to wait for another process that is sending, or leave it to that process
    patience : as in `store.outage`
    """
    for file in sorted((outputs / "spool").glob(f"*/{MEANT_FOR}")):
        meant_for, folder = file.read_text(), file.parent.absolute()
        if (only and meant_for != _address(only)) or not (folder / "mlflow.db").is_file():
            continue
        busy = f"another process is sending the runs that wait for {meant_for}"
        try:
            with exclusive_lock(folder / "lock", otherwise=busy if wait else TrackingError(busy)):
                delivery = _deliver(folder, to or only or store_uri(meant_for, outputs), patience)
        except (*OUTAGES, TrackingError) as error:
            delivery = Delivery(meant_for, {}, 0, f"its spool {folder}: {store.reason(error)}")
        yield delivery


def tell(delivery: Delivery) -> None:
    """Print what was sent and what was not to standard error; nothing if no run waited."""
    for spool_id, run_id in delivery.sent.items():
        known = "" if run_id == spool_id else f" as run {run_id}"
        print(f"tracking: sent run {spool_id} from the spool to {delivery.target}{known}", file=sys.stderr)
    if delivery.reason:
        print(f"tracking: {delivery.waiting} runs wait for {delivery.target}: {delivery.reason}", file=sys.stderr)


def arrived(spool_id: str, *, uri: str) -> tuple[str, str]:
    """Experiment id and run id on the store of a run sent from the spool `uri`; empty if it still waits."""
    tags = store.connect(uri).get_run(spool_id).data.tags
    experiment, _, run_id = tags.get(SENT_AS, "").partition("/")
    return experiment, run_id


def has_jobs_of(parent: str, *, uri: str, outputs: Path) -> bool:
    """Whether jobs of the sweep `parent` are in the spool of the store."""
    spool = place(uri, outputs)
    return Path(spool.removeprefix(SQLITE)).is_file() and bool(store.children(parent, uri=spool))


def _deliver(folder: Path, uri: str, patience: float | None) -> Delivery:
    spool = f"{SQLITE}{folder / 'mlflow.db'}"
    source, sent, faults = store.connect(spool), dict[str, str](), list[str]()
    runs = _waiting(source, spool)
    if runs and (reason := store.outage(uri, patience=patience)):
        return Delivery(public(uri), {}, len(runs), reason)
    if runs:
        client, names, folders = store.connect(uri), _sent_earlier(source, uri), _folders(folder.parents[1] / "runs")
        try:
            for run in runs:
                with _noted(faults, uri, patience):
                    names |= _claimed(run, source, client, uri)
            for run in runs:
                if (spool_id := run.info.run_id) in names:
                    with _noted(faults, uri, patience):
                        if SENT_AS not in run.data.tags:
                            experiment = _send(run, source, client, names)
                            source.set_tag(spool_id, SENT_TO, public(uri))
                            source.set_tag(spool_id, SENT_AS, f"{experiment}/{names[spool_id]}")
                        _take_out(spool_id, source, names, folders)
                        sent[spool_id] = names[spool_id]
        except UnreachableError as error:
            faults.insert(0, str(error))
    return Delivery(public(uri), sent, len(runs) - len(sent), next(iter(faults), ""))


@contextmanager
def _noted(faults: list[str], uri: str, patience: float | None) -> Iterator[None]:
    """Note a run that cannot be sent and continue with the next, unless the store does not answer."""
    try:
        yield
    except (*OUTAGES, TrackingError) as error:
        if reason := store.outage(uri, patience=patience):
            raise UnreachableError(reason) from None
        faults.append(store.reason(error))


def _waiting(source: MlflowClient, spool: str) -> list[StoredRun]:
    """The ended runs of a spool, sweeps before their jobs; runs of dead processes are ended first.

    A job waits until its sweep has ended.
    """
    liveness.mark_killed(store.search("attributes.status = 'RUNNING'", uri=spool), uri=spool)
    found = _runs(source, ViewType.ACTIVE_ONLY)
    running = {run.info.run_id for run in found if run.info.status == "RUNNING"}
    ended = [run for run in found if not running & {run.info.run_id, run.data.tags.get(PARENT)}]
    return sorted(ended, key=lambda run: (PARENT in run.data.tags, run.info.start_time))


def _sent_earlier(source: MlflowClient, uri: str) -> dict[str, str]:
    """Ids on a store of the runs that have left the spool, for the runs that refer to them."""
    gone = [run for run in _runs(source, ViewType.DELETED_ONLY) if run.data.tags.get(SENT_TO) == public(uri)]
    return {run.info.run_id: run.data.tags[SENT_AS].rpartition("/")[2] for run in gone}


def _runs(source: MlflowClient, view: int) -> list[StoredRun]:
    experiments = [each.experiment_id for each in source.search_experiments()]
    found: list[StoredRun] = []
    token = None
    while experiments:
        page = source.search_runs(experiments, run_view_type=view, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return found


def _claimed(run: StoredRun, source: MlflowClient, client: MlflowClient, uri: str) -> dict[str, str]:
    """Ids of a run -> its id on the store: the id it had there, or that of the run with its key."""
    spool_id, tags = run.info.run_id, run.data.tags
    known = tags.get(RUN_ID, "")
    if SENT_AS in tags:  # sent already, only to be deleted
        return {spool_id: tags[SENT_AS].rpartition("/")[2]}
    if known and _is_active(known, client):
        return {spool_id: known}
    experiment = store.experiment_id(client, source.get_experiment(run.info.experiment_id).name, uri)
    key, name = tags.get(store.KEY, spool_id), run.info.run_name
    run_id = store.create_run(client, experiment, key, name=name, tags={}, start_time=run.info.start_time)
    return {spool_id: run_id} | ({known: run_id} if known else {})


def _is_active(run_id: str, client: MlflowClient) -> bool:
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except OUTAGES as error:
        if store.is_unknown(error):
            return False
        raise


def _send(run: StoredRun, source: MlflowClient, client: MlflowClient, names: Mapping[str, str]) -> str:
    """Write a run of the spool to its store, its end last; returns its experiment id there."""
    run_id = names[run.info.run_id]
    there = client.get_run(run_id)
    # a parameter that is there stays: MLflow lets none change, and the fit may have been resumed on other devices
    given = {key: value for key, value in run.data.params.items() if key not in there.data.params}
    params = [Param(key, _renamed(value, names)) for key, value in given.items()]
    for some_params in batched(params, BATCH):
        client.log_batch(run_id, params=some_params)
    metrics = [each for key in run.data.metrics for each in source.get_metric_history(run.info.run_id, key)]
    for some_metrics in batched(metrics, METRIC_BATCH):
        client.log_batch(run_id, metrics=some_metrics)
    told = {_renamed(key, names): _renamed(value, names) for key, value in run.data.tags.items() if key != RUN_ID}
    if NOTE in told:
        told[NOTE] = _linked(told[NOTE], names, run.info.experiment_id, there.info.experiment_id)
    tags = [RunTag(key, value) for key, value in told.items()]
    for some_tags in batched(tags, BATCH):
        client.log_batch(run_id, tags=some_tags)
    if run.inputs and run.inputs.dataset_inputs:
        client.log_inputs(run_id, run.inputs.dataset_inputs)
    if (artifacts := store.local_artifacts(run)) and artifacts.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            copied = shutil.copytree(artifacts, Path(scratch) / "artifacts")
            _rename_in(copied, names)
            store.send_folder(client, run_id, copied)
    client.set_terminated(run_id, run.info.status, run.info.end_time)
    return str(there.info.experiment_id)


def _take_out(spool_id: str, source: MlflowClient, names: Mapping[str, str], folders: Mapping[str, Path]) -> None:
    """Record in the folder of a sent run where it is now, and delete the run from the spool."""
    run = source.get_run(spool_id)
    experiment, _, run_id = run.data.tags[SENT_AS].partition("/")
    if folder := folders.get(spool_id) or folders.get(run.data.tags.get(RUN_ID, "")):
        with suppress(OSError, ValueError):  # folders of runs may be deleted at any time
            record = json.loads(_renamed(_text(folder / "record.json"), names))
            record |= {"run_id": run_id, "store": run.data.tags[SENT_TO]}
            record["note"] = _linked(record["note"], names, run.info.experiment_id, experiment)
            _rename_in(folder / "artifacts", names)
            write_whole(folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False))
    if artifacts := store.local_artifacts(run):
        shutil.rmtree(artifacts.parent, ignore_errors=True)
    source.delete_run(spool_id)


def _folders(runs: Path) -> dict[str, Path]:
    """Run id -> folder, from the records in the folders."""
    found = {}
    for file in runs.glob("*/record.json"):
        with suppress(OSError, ValueError, KeyError):
            found[json.loads(_text(file))["run_id"]] = file.parent
    return found


def _rename_in(folder: Path, names: Mapping[str, str]) -> None:
    """Correct the ids of runs in the text files of a folder."""
    for path in folder.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            text = _text(path)
            renamed = _renamed(text, _as_shown(names) if path.suffix == ".html" else names)
            if renamed != text:
                write_whole(path, renamed)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with the ids of runs replaced by those on the store."""
    run_id = r"(?<![0-9a-f])[0-9a-f]{8}(?:[0-9a-f]{24})?(?![0-9a-f])"
    return re.sub(run_id, lambda found: names.get(found[0], found[0]), text)


def _linked(note: str, names: Mapping[str, str], experiment: str, there: str) -> str:
    """A note with its links to pages of MLflow's UI changed to those on the store."""
    page = "#/experiments/{}/runs/".format
    return _renamed(note, _as_shown(names)).replace(page(experiment), page(there))


def _as_shown(names: Mapping[str, str]) -> dict[str, str]:
    """The ids, and their first eight characters as tables show them."""
    return {**{spool_id[:8]: run_id[:8] for spool_id, run_id in names.items()}, **names}


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _address(uri: str) -> str:
    """The public address of a store without a slash at the end."""
    return public(uri).rstrip("/")
