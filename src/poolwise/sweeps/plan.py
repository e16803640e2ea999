"""The plan of a sweep: every job with the finished run that it reuses, if any."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from poolwise.config import Config
from poolwise.errors import DataError, UnreachableError
from poolwise.paths import outputs
from poolwise.report import note, terminal
from poolwise.runs import reuse
from poolwise.runs.job import describe, ingredients, prepare
from poolwise.tracking import spool
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
    record, ingredients : of the run, by which a finished one is found
    warnings : about its table, to read before it runs
    """

    number: int
    run_id: str
    remark: str
    record: Record
    ingredients: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its run."""
        return self.record.name

    @property
    def run_fingerprint(self) -> str:
        """The fingerprint of its run."""
        return self.record.tags["run_fingerprint"]


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
        deciding = ingredients(job)
        run_id, remark = _decide(record, deciding, among[record.experiment], uri=uri)
        planned.append(Planned(number, run_id, remark, record, deciding, job.remarks))
    if faults:
        raise DataError("\n".join(faults))
    return planned


def show(planned: Sequence[Planned]) -> None:
    """Print warnings about the tables, each once, and the list of jobs."""
    if warnings := dict.fromkeys(warning for each in planned for warning in each.warnings):
        terminal.say(*warnings)
    for each in planned[:SHOWN]:
        terminal.say(f"{each.number:>4}  {each.name:<28} {each.remark}")
    if len(planned) > SHOWN:
        terminal.say(f"      and {len(planned) - SHOWN} more jobs")


def _decide(record: Record, ingredients: dict[str, object], among: Sequence[Logged], *, uri: str) -> tuple[str, str]:
    """The run that a job reuses, and the remark on the job."""
    if twin := reuse.finished(record, ingredients, among):
        return twin.run_id, f"reused from run {twin.run_id} ({note.verdicts(twin)}){reuse.more_figures(twin, record)}"
    if twin := reuse.with_same_draws(record, among):
        return "", f"reanalysed from the draws of run {twin.run_id}"
    miss = reuse.near_miss(record, ingredients, among, uri=uri)
    return "", f"to fit; {miss}" if miss else "to fit"


def twin_of(job: Planned, *, uri: str) -> Logged | None:
    """The finished run that a job reuses, if the store has one."""
    draws = job.record.tags["draws_fingerprint"]
    with suppress(UnreachableError):
        among = reuse.candidates(job.record.experiment, uri=uri, draws_fingerprint=draws)
        return reuse.finished(job.record, job.ingredients, among)
    return None
