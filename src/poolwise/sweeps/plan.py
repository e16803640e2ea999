"""The plan of a sweep: every job with the finished run that it reuses, if any."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from poolwise.config import Config
from poolwise.errors import DataError, UnreachableError
from poolwise.paths import outputs
from poolwise.report import note, terminal
from poolwise.runs import reuse
from poolwise.runs.job import describe, ingredients, prepare
from poolwise.tracking import spool, store
from poolwise.tracking.credentials import store_uri
from poolwise.tracking.record import Record
from poolwise.tracking.store import Logged

SHOWN = 60  # jobs in a printed list


@dataclass(frozen=True)
class Planned:
    """A job before it runs.

    Attributes
    ----------
    run_id : of the finished run that it reuses, or empty
    remark : its text in the list of jobs
    """

    number: int
    name: str
    run_fingerprint: str
    run_id: str
    remark: str


def store_of(configs: Sequence[Config]) -> str:
    """The store of a sweep, or its spool if it does not answer."""
    return spool.reachable(store_uri(configs[0].tracking.uri, outputs()), outputs())


def plan(jobs: Sequence[Sequence[str]], configs: Sequence[Config], *, uri: str) -> list[Planned]:
    """Plan every job and read its table; empty if a sweeper proposes the jobs."""
    planned, faults, among = [], [], dict[str, list[Logged]]()
    for number, (overrides, config) in enumerate(zip(jobs, configs, strict=False)):
        try:
            job = prepare(config, tuple(overrides))
        except DataError as error:
            faults.append(f"job {number}: {error}")
            continue
        record = describe(job)
        if record.experiment not in among:
            among[record.experiment] = []
            with suppress(UnreachableError):  # the store just answered; if it stopped, runs go to the spool
                if config.reuse is not False:
                    among[record.experiment] = reuse.candidates(record.experiment, uri=uri)
        run_id, remark = _decide(record, ingredients(job), among[record.experiment], uri=uri)
        fingerprint = record.tags["run_fingerprint"]
        planned.append(Planned(number, record.name, fingerprint, run_id, remark))
    if faults:
        raise DataError("\n".join(faults))
    return planned


def show(planned: Sequence[Planned]) -> None:
    """Print the list of jobs."""
    for each in planned[:SHOWN]:
        terminal.say(f"{each.number:>4}  {each.name:<28} {each.remark}")
    if len(planned) > SHOWN:
        terminal.say(f"      and {len(planned) - SHOWN} more jobs")


def _decide(record: Record, ingredients: dict[str, object], among: Sequence[Logged], *, uri: str) -> tuple[str, str]:
    """The run that a job reuses, and the remark on the job."""
    if twin := reuse.finished(record, among):
        return twin.run_id, f"reused from run {twin.run_id} ({note.verdicts(twin)})"
    if twin := reuse.with_same_draws(record, among):
        return "", f"reanalysed from the draws of run {twin.run_id}"
    miss = reuse.near_miss(record, ingredients, among, uri=uri)
    return "", f"fitted; {miss}" if miss else "fitted"


def twin_of(job: Planned, *, uri: str) -> Logged | None:
    """The newest finished run with the fingerprint of a job."""
    where = f"tags.run_fingerprint = '{job.run_fingerprint}' and attributes.status = 'FINISHED'"
    with suppress(UnreachableError):
        return next(iter(store.search(where, uri=uri)), None)
    return None
