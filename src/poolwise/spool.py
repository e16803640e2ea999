"""Runs that their store could not take: kept in a local store of the same kind, sent when it answers again.

Every store that failed has a spool of its own, `outputs/spool/<address>/`: an MLflow database with artifacts, so what
waits can be browsed and compared meanwhile. Sending a run is repeatable: on its store it is found again by the id it
had there, or by the tag `spool_id`, and everything that is written to it twice is the same twice. Only then is it
taken out of the spool.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from poolwise import store  # before mlflow: it sets what mlflow reads from the environment
from poolwise.credentials import public, store_uri
from poolwise.errors import TrackingError
from poolwise.files import write_whole
from poolwise.locks import held
from poolwise.store import BATCH, METRIC_BATCH, OUTAGES, PARENT, SQLITE, file_name, first_line

from mlflow import MlflowClient  # isort: skip
from mlflow.entities import Param, RunTag, ViewType  # isort: skip
from mlflow.entities import Run as StoredRun  # isort: skip

MEANT_FOR = "meant_for"  # the file beside a spool that holds the public address of its store
RUN_ID, FOLDER = "spool.run_id", "spool.folder"  # tags in a spool: the run's id on its store, and its folder here
SPOOL_ID = "spool_id"  # tag on the store: the id that a run had in the spool
TEXTS = {".csv", ".html", ".json", ".md", ".txt", ".yaml"}  # artifacts that may name other runs


@dataclass(frozen=True)
class Delivery:
    """What became of the spool of one store.

    Attributes
    ----------
    target : public address of the store
    sent : id in the spool -> id on the store
    waiting : runs that are still in the spool
    reason : why they are, or empty
    """

    target: str
    sent: dict[str, str]
    waiting: int
    reason: str


def place(uri: str, outputs: Path) -> str:
    """The address of the spool of a store, whose folder is made."""
    address = public(uri)
    name = f"{file_name(address)[:40]}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    folder = outputs.absolute() / "spool" / name
    if not (folder / MEANT_FOR).is_file():
        write_whole(folder / MEANT_FOR, address)
    return f"{SQLITE}{folder / 'mlflow.db'}"


def target(uri: str) -> str:
    """The public address of the store that a spool stands in for; empty if `uri` is no spool."""
    if not uri.startswith(SQLITE):
        return ""
    with suppress(OSError):
        return (Path(uri.removeprefix(SQLITE)).parent / MEANT_FOR).read_text()
    return ""


def reachable(uri: str, outputs: Path) -> str:
    """The store if it can be used now, with what waits for it sent; else its spool."""
    if reason := store.outage(uri):
        print(f"tracking: {public(uri)}: {reason}; what is logged goes to the spool", file=sys.stderr)
        return place(uri, outputs)
    for delivery in deliveries(outputs, only=public(uri)):
        tell(delivery)
    return uri


def deliveries(outputs: Path, *, only: str = "", to: str = "") -> Iterator[Delivery]:
    """Send what waits, store by store.

    Parameters
    ----------
    only : the public address of the one store to send to; every one if empty
    to : another store to send everything to
    """
    for file in sorted((outputs / "spool").glob(f"*/{MEANT_FOR}")):
        meant_for, spool = file.read_text(), f"{SQLITE}{file.parent.absolute() / 'mlflow.db'}"
        if (only and meant_for != only) or not (file.parent / "mlflow.db").is_file():
            continue
        with held(file.parent / "lock", otherwise=f"another process sends what waits for {meant_for}"):
            yield _deliver(spool, meant_for, to or store_uri(meant_for, outputs))


def tell(delivery: Delivery) -> None:
    """Say what was sent and what was not, on standard error; nothing if nothing waited."""
    for spool_id, run_id in delivery.sent.items():
        known = "" if run_id == spool_id else f" as run {run_id}"
        print(f"tracking: sent run {spool_id} of the spool to {delivery.target}{known}", file=sys.stderr)
    if delivery.waiting and delivery.reason:
        print(f"tracking: {delivery.waiting} runs wait for {delivery.target}: {delivery.reason}", file=sys.stderr)


def _deliver(spool: str, meant_for: str, uri: str) -> Delivery:
    source, sent = store.connect(spool), dict[str, str]()
    runs = _waiting(source, spool)
    reason = store.outage(uri) if runs else ""
    if runs and not reason:
        try:
            client = store.connect(uri)
            ids = {run.info.run_id: _claimed(run, source, client, uri) for run in runs}
            ids |= _parents_sent_earlier(runs, ids, client)
            for run in runs:
                _send(run, source, client, ids)
                _take_out(run, source, uri, ids)
                sent[run.info.run_id] = ids[run.info.run_id]
        except (*OUTAGES, TrackingError) as error:
            reason = first_line(error)
    return Delivery(public(uri), sent, len(runs) - len(sent), reason)


def _waiting(source: MlflowClient, spool: str) -> list[StoredRun]:
    """The runs of a spool that have ended, sweeps before their jobs; what a dead process left is ended first.

    A job waits for its sweep to end.
    """
    store.bury(store.search("attributes.status = 'RUNNING'", uri=spool), uri=spool)
    experiments = [each.experiment_id for each in source.search_experiments()]
    found: list[StoredRun] = []
    token = None
    while experiments:
        page = source.search_runs(experiments, run_view_type=ViewType.ACTIVE_ONLY, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    running = {run.info.run_id for run in found if run.info.status == "RUNNING"}
    ended = [run for run in found if not running & {run.info.run_id, run.data.tags.get(PARENT)}]
    return sorted(ended, key=lambda run: (PARENT in run.data.tags, run.info.start_time))


def _claimed(run: StoredRun, source: MlflowClient, client: MlflowClient, uri: str) -> str:
    """The id on the store of a run of the spool: the one it had, the one of an earlier attempt, or a new run."""
    if (known := run.data.tags.get(RUN_ID)) and _is_active(known, client):
        return known
    experiment = store.experiment_id(client, source.get_experiment(run.info.experiment_id).name, uri)
    if earlier := _sent_earlier(run.info.run_id, experiment, client):
        return earlier
    tags = {SPOOL_ID: run.info.run_id}
    return client.create_run(experiment, run.info.start_time, tags, run.info.run_name).info.run_id


def _sent_earlier(spool_id: str, experiment: str, client: MlflowClient) -> str:
    """The id on the store of a run that left the spool, or was about to, or nothing."""
    found = client.search_runs([experiment], f"tags.`{SPOOL_ID}` = '{spool_id}'", max_results=1)
    return str(found[0].info.run_id) if found else ""


def _parents_sent_earlier(runs: Sequence[StoredRun], ids: Mapping[str, str], client: MlflowClient) -> dict[str, str]:
    """The ids on the store of sweeps that were sent before their last jobs."""
    found = {}
    for run in runs:
        parent = run.data.tags.get(PARENT, "")
        if parent and parent not in ids:
            experiment = client.get_run(ids[run.info.run_id]).info.experiment_id
            found[parent] = _sent_earlier(parent, experiment, client) or parent
    return found


def _is_active(run_id: str, client: MlflowClient) -> bool:
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except OUTAGES as error:
        if store.is_unknown(error):
            return False
        raise


def _send(run: StoredRun, source: MlflowClient, client: MlflowClient, ids: Mapping[str, str]) -> None:
    """Write everything that the spool knows of a run to its store, the end last."""
    run_id = ids[run.info.run_id]
    params = [Param(key, _renamed(value, ids)) for key, value in run.data.params.items()]
    for begin in range(0, len(params), BATCH):
        client.log_batch(run_id, params=params[begin : begin + BATCH])
    metrics = [each for key in run.data.metrics for each in source.get_metric_history(run.info.run_id, key)]
    for begin in range(0, len(metrics), METRIC_BATCH):
        client.log_batch(run_id, metrics=metrics[begin : begin + METRIC_BATCH])
    kept = {key: value for key, value in run.data.tags.items() if key not in (RUN_ID, FOLDER)}
    tags = [RunTag(_renamed(key, ids), _renamed(value, ids)) for key, value in kept.items()]
    for begin in range(0, len(tags), BATCH):
        client.log_batch(run_id, tags=tags[begin : begin + BATCH])
    if run.inputs and run.inputs.dataset_inputs:
        client.log_inputs(run_id, run.inputs.dataset_inputs)
    if (artifacts := _artifacts(run)).is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            folder = shutil.copytree(artifacts, Path(scratch) / "artifacts")
            for path in folder.rglob("*"):
                if path.suffix in TEXTS:
                    text = path.read_bytes().decode("utf-8", "surrogateescape")
                    write_whole(path, _renamed(text, ids))
            client.log_artifacts(run_id, str(folder))
    client.set_terminated(run_id, run.info.status, run.info.end_time)


def _take_out(run: StoredRun, source: MlflowClient, uri: str, ids: Mapping[str, str]) -> None:
    """Let the run's folder know where the run is now, and remove it from the spool."""
    if folder := run.data.tags.get(FOLDER):
        with suppress(OSError, ValueError):  # folders of runs may have been cleared away
            file = Path(folder) / "record.json"
            record = json.loads(file.read_text())
            record |= {"run_id": ids[run.info.run_id], "store": public(uri)}
            write_whole(file, json.dumps(record, indent=1, ensure_ascii=False))
    source.delete_run(run.info.run_id)
    shutil.rmtree(_artifacts(run).parent, ignore_errors=True)


def _artifacts(run: StoredRun) -> Path:
    return Path(urllib.request.url2pathname(urllib.parse.urlsplit(run.info.artifact_uri).path))


def _renamed(text: str, ids: Mapping[str, str]) -> str:
    """The text with the runs that it names under the ids they have on the store."""
    for spool_id, run_id in ids.items():
        text = text.replace(spool_id, run_id)
    return text
