"""Killed runs whose fit can be resumed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolwise.inference import checkpoint
from poolwise.inference.snapshot import Snapshot
from poolwise.provenance.stack import STACK_OF_BITS
from poolwise.report.terminal import say
from poolwise.runs import reuse
from poolwise.tracking.credentials import public
from poolwise.tracking.locks import is_free
from poolwise.tracking.record import Record
from poolwise.tracking.run import CHECKPOINT

NOT_COMPARED = ("device.num_devices",)  # parameters in which two starts of the same run may differ


@dataclass(frozen=True)
class Unfinished:
    """An unfinished run to resume from.

    Attributes
    ----------
    run_id, folder : of the run to continue; empty and None if only its draws can be used
    of : id of the run that the draws come from
    progress : what that run logged while it sampled
    snapshot : None if it was killed before its first chunk ended
    """

    run_id: str
    folder: Path | None
    of: str
    progress: list[tuple[int, int, dict[str, float]]]
    snapshot: Snapshot | None


def find(
    record: Record, *, stack: Mapping[str, Any], ingredients: Mapping[str, Any], uri: str, outputs: Path
) -> Unfinished | None:
    """The newest unfinished run with the same draws, on the same stack, that no process is working on.

    A run begun with other versions or on another stack is not used; the differences are printed.

    Parameters
    ----------
    record, stack, ingredients : of the new run: see `job.describe`, `provenance.stack`,
        `fingerprints.run_ingredients`
    uri : the store of the new run
    """
    otherwise = ""
    for folder, old in _unfinished(outputs / "runs", record.tags["draws_fingerprint"]):
        if why := _begun_otherwise(folder, old, record, stack, ingredients):
            otherwise = otherwise or f"starting from the beginning: run {old['run_id']} was {why}"
            continue
        if old["tags"]["draws_fingerprint"] != record.tags["draws_fingerprint"]:
            continue
        snapshot = checkpoint.load(folder / CHECKPOINT)
        if snapshot is None and old["status"] == "FAILED":
            continue
        is_same = _is_same_run(old, record, uri)
        steps = f"step {snapshot.steps} of each chain" if snapshot else "its beginning"
        say(f"resuming run {old['run_id']} at {steps}" + ("" if is_same else ", as a new run: other settings or store"))
        return Unfinished(
            run_id=old["run_id"] if is_same else "",
            folder=folder if is_same else None,
            of=old["run_id"],
            progress=[(step, time, dict(metrics)) for step, time, metrics in old["progress"]],
            snapshot=snapshot,
        )
    if otherwise:
        say(otherwise)
    return None


def _unfinished(runs: Path, draws_fingerprint: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of unfinished fits with these draws, or with chunks, that no process holds, newest first; their records.

    The folders of other runs, of which a sweep makes hundreds, are not opened.
    """
    with_chunks = {path.with_name("record.json") for path in runs.glob(f"*/{CHECKPOINT}")}
    for file in sorted(with_chunks.union(runs.glob(f"*-{draws_fingerprint[:8]}-*/record.json")), key=_age):
        with suppress(OSError, ValueError):  # deleted meanwhile
            old = json.loads(file.read_text())
            is_fit = "draws_fingerprint" in old["tags"] and "run_id" in old
            if is_fit and old["status"] != "FINISHED" and is_free(file.parent / "lock"):
                yield file.parent, old


def _age(path: Path) -> float:
    with suppress(OSError):
        return -path.stat().st_mtime
    return 0.0


def _begun_otherwise(
    folder: Path,
    old: Mapping[str, Any],
    record: Record,
    stack: Mapping[str, Any],
    ingredients: Mapping[str, Any],
) -> str:
    """How a run with chunks of the same settings and data began differently, or nothing."""
    is_other_fit = old["tags"].get("data_sha256") != record.tags["data_sha256"] or not reuse.same_settings(
        old["params"], record.params
    )
    if is_other_fit or not (folder / CHECKPOINT).is_dir():
        return ""
    environment = folder / "artifacts" / "environment"
    with suppress(OSError, ValueError):
        if old["tags"]["draws_fingerprint"] != record.tags["draws_fingerprint"]:
            return reuse.told(json.loads((environment / "fingerprint.json").read_text()), ingredients)
        then = json.loads((environment / "stack.json").read_text())
        bits = ({key: each.get(key) for key in STACK_OF_BITS} for each in (then, stack))
        return reuse.told(*bits)
    return ""


def _is_same_run(old: Mapping[str, Any], record: Record, uri: str) -> bool:
    """Whether the old run can continue: its parameters, once logged, cannot change."""
    then, now = (
        json.dumps({key: value for key, value in params.items() if key not in NOT_COMPARED}, sort_keys=True)
        for params in (old["params"], record.params)
    )
    return then == now and old["experiment"] == record.experiment and old["store"] == public(uri)
