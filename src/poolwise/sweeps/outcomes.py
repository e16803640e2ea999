"""Outcomes of a sweep: the status of its jobs, its note, and the comparison of its runs."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from poolwise.comparison.candidates import ComparisonError
from poolwise.comparison.pipeline import compare_runs
from poolwise.config import Config
from poolwise.errors import SweepError, UnknownRunError, UnreachableError
from poolwise.paths import outputs
from poolwise.report import note as words
from poolwise.report import terminal
from poolwise.sweeps.parent import deliver_waiting_jobs, fits
from poolwise.sweeps.plan import Planned, twin_of
from poolwise.text import markdown
from poolwise.tracking import run as tracking
from poolwise.tracking import store
from poolwise.tracking.store import Logged


@dataclass(frozen=True)
class JobOutcome:
    """A job after the sweep: its name, status and run, if any."""

    number: int
    name: str
    status: str
    run: Logged | None

    @property
    def is_done(self) -> bool:
        """Whether the job has a finished run."""
        return self.status in ("FINISHED", "reused")


def conclude(parent: tracking.Run, planned: Sequence[Planned], configs: Sequence[Config], ended: str = "") -> None:
    """Report every job and compare the runs; raise if some are missing."""
    outcomes = account(parent, planned)
    parent.record.note = note(outcomes)
    parent.record.metrics |= {
        "jobs_finished": sum(each.status == "FINISHED" for each in outcomes),
        "jobs_reused": sum(each.status == "reused" for each in outcomes),
        "jobs_failed": sum(not each.is_done for each in outcomes),
    }
    done = [each.run for each in outcomes if each.is_done and each.run]
    parent.record.tags["members"] = ",".join(run.run_id for run in done)
    counts = parent.record.metrics
    terminal.say(
        f"sweep   {parent.run_id}: {counts['jobs_finished']} fitted, {counts['jobs_reused']} reused, "
        f"{counts['jobs_failed']} failed"
    )
    failed = [each for each in outcomes if not each.is_done]
    if failed or ended:
        raise SweepError("\n".join([*([ended] if ended else []), *(_why(each) for each in failed)]))
    terminal.say(words.browse())
    if configs[0].sweep.compare:
        for runs in by_rows(done):
            parent.record.note = _compared(parent, runs) + parent.record.note
        deliver_waiting_jobs(parent)


def account(parent: tracking.Run, planned: Sequence[Planned]) -> list[JobOutcome]:
    """The outcome of every job."""
    children = fits(parent)
    if not planned:
        told: list[tuple[str, str, Logged | None]] = [(run.name, run.status, run) for run in reversed(children)]
        own_ids = {run.run_id for run in children}
        tags: dict[str, str] = {}
        with suppress(UnreachableError):
            tags = store.logged(parent.store_run_id, uri=parent.uri).tags
        for key, value in tags.items():  # jobs without a run of their own
            run_id = key.removeprefix("reused.")
            if run_id != key and run_id not in own_ids:
                twin = None
                with suppress(UnreachableError, UnknownRunError):
                    twin = store.logged(run_id, uri=parent.uri)
                told.append((value, "reused", twin))
            if key.startswith("refused."):
                told.append((value, "did not run", None))
        return [JobOutcome(number, *each) for number, each in enumerate(told)]
    outcomes = []
    for each in planned:
        own = [run for run in children if run.tags["run_fingerprint"] == each.run_fingerprint]
        if own:
            outcomes.append(JobOutcome(each.number, each.name, own[0].status, own[0]))
        elif (twin := twin_of(each, uri=parent.uri)) or each.run_id:
            twin = twin or next((run for run in tracking.recorded(outputs()) if run.run_id == each.run_id), None)
            outcomes.append(JobOutcome(each.number, each.name, "reused", twin))
        else:
            outcomes.append(JobOutcome(each.number, each.name, "did not run", None))
    return outcomes


def note(outcomes: Sequence[JobOutcome]) -> str:
    """The jobs as a Markdown table."""
    rows = []
    for each in outcomes:
        value = each.run.metrics.get("elpd_loo", math.nan) if each.run else math.nan
        elpd = "" if math.isnan(value) else f"{value:.2f}"
        judged = [each.run.tags.get(name, "") if each.run else "" for name in ("verdict", "model_check")]
        run_id = each.run.run_id if each.run else ""
        rows.append((str(each.number), each.name, each.status, elpd, *judged, run_id))
    head = ("job", "name", "status", "elpd_loo", "verdict", "model check", "run")
    return "\n".join(markdown(head, rows, left={1, 2, 4, 5, 6})) + "\n"


def _why(outcome: JobOutcome) -> str:
    """One line about a failed job."""
    reason = outcome.run.tags.get("verdict_reasons", "") if outcome.run else ""
    where = f" (run {outcome.run.run_id})" if outcome.run else ""
    return f"job {outcome.number} {outcome.name}: {outcome.status}{where}{': ' + reason if reason else ''}"


def by_rows(runs: Sequence[Logged]) -> list[list[Logged]]:
    """The runs grouped by the rows of their tables; groups of at least two.

    The digest of a table covers its covariates, so where runs have some, those that read the same columns of one table
    belong together.
    """
    have_covariates = any("data.covariates" in run.params for run in runs)
    parts: dict[object, list[Logged]] = {}
    for run in {run.run_id: run for run in runs}.values():
        read = tuple(
            run.params.get(f"data.{key}") for key in ("path", "group", "count", "exposure", "per", "multiplicity")
        )
        parts.setdefault(read if have_covariates else run.tags.get("data_sha256", ""), []).append(run)
    return [part for part in parts.values() if len(part) > 1]


def _compared(parent: tracking.Run, runs: Sequence[Logged]) -> str:
    """Compare the runs and log the comparison; returns its ranked table, or why there is none, for the note."""
    try:
        for run in runs:
            store.logged(run.run_id, uri=parent.uri)
    except (UnknownRunError, UnreachableError):
        why = f"some runs are in another store; compare later: python -m poolwise.compare --sweep {parent.run_id}"
        terminal.say(f"not compared: {why}")
        return f"not compared: {why}\n\n"
    try:
        run_id = compare_runs(runs, uri=parent.uri, outputs=outputs(), parent=parent.run_id)
        return store.logged(run_id, uri=parent.uri).tags.get("mlflow.note.content", "") + "\n\n"
    except (ComparisonError, UnknownRunError, UnreachableError) as error:
        terminal.say(f"not compared: {error}")
        return f"not compared: {error}\n\n"
