"""One fit, from checked settings to a logged run; the table of contents of the project.

    config -> counts, model, devices -> draws -> verdict, predictions -> figures, report -> MLflow

All files are first written to the folder of the run and sent from there.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from poolwise.checks.base import FitView
from poolwise.checks.findings import examine
from poolwise.config import Config
from poolwise.errors import FitError, UnreachableError
from poolwise.inference import checkpoint, devices
from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.base import Fit
from poolwise.inference.snapshot import Snapshot
from poolwise.paths import outputs
from poolwise.provenance import fingerprints
from poolwise.report import note, terminal
from poolwise.runs import artifacts, interrupts, progress, resume, reuse
from poolwise.runs.job import Job, JudgedFit, describe, ingredients, prepare, settings_of, start
from poolwise.runs.metrics import metrics, tags, unchecked
from poolwise.tracking import liveness, spool, store
from poolwise.tracking import run as tracking
from poolwise.tracking.credentials import store_uri
from poolwise.tracking.locks import exclusive_lock
from poolwise.tracking.record import Record


def run(config: Config, overrides: Sequence[str] = (), *, parent: str = "", uri: str = "") -> float:
    """Fit, check and log, or reuse a finished run; returns elpd_loo.

    Parameters
    ----------
    overrides : the command line that composed the config, for the name of the run and for the record
    parent : the run id of the sweep that this job belongs to, if any
    uri : the store to log to; by default that of the config, or its spool if it does not answer
    """
    job = prepare(config, tuple(overrides), parent)
    job = replace(job, uri=uri or spool.reachable(store_uri(config.tracking.uri, outputs()), outputs()))
    if not parent:  # a sweep does this for its jobs
        liveness.mark_dead_killed(config.data.name, uri=job.uri)
    if not (bool(parent) if config.reuse is None else config.reuse):
        return elpd_of(carry_out(job))
    record = describe(job)
    with exclusive_lock(
        outputs() / "locks" / record.tags["run_fingerprint"], otherwise="another process is running the same fit"
    ):
        draws, among = record.tags["draws_fingerprint"], []
        with suppress(UnreachableError):  # the store just answered; if it stopped, the run goes to the spool
            among = reuse.candidates(record.experiment, uri=job.uri, draws_fingerprint=draws)
        twin = reuse.finished(record, ingredients(job), among)
        if twin is None:
            return elpd_of(carry_out(job, reuse.same_draws(record, among, uri=job.uri)))
    if parent:
        with suppress(*store.OUTAGES):  # without the tag the sweep finds the reused run itself
            store.tag(parent, f"reused.{twin.run_id}", record.name, uri=job.uri)
    terminal.say(*note.reused(twin, reuse.more_figures(twin, record)))
    return twin.metrics["elpd_loo"]


def carry_out(
    job: Job,
    stored: reuse.StoredDraws | None = None,
    also: Callable[[Job, JudgedFit, tracking.Run], None] = lambda job, findings, logged: None,
) -> tracking.Run:
    """Fit, or take the stored draws of a run with the same draws fingerprint; check and log.

    A fit that was killed resumes where it stopped, in the same run.

    Parameters
    ----------
    also : writes more about the findings before the run ends
    """
    began = time.perf_counter()
    job = start(job)
    say(job, [note.subject(job.counts, job.model), *job.warnings])
    record = describe(job)
    left = None if stored or job.reproduces or job.config.reuse is False else unfinished(job, record)
    if source := stored.run_id if stored else left.of if left and not left.folder else "":
        record.tags["draws_from"] = source
    with tracking.logged_run(
        record,
        uri=job.uri,
        outputs=outputs(),
        parent=job.parent,
        reopen=left.run_id if left else "",
        folder=left.folder if left else None,
    ) as logged:
        artifacts.write_inputs(job, logged)
        draws = stored.draws if stored else sample(job, logged, left.snapshot if left else None)
        logged.state("checking")
        with job.stage("check"):
            asked = replace(settings_of(job, logged), on_answer=lambda view: say(job, answer_lines(view)))
            view = examine(job.model, job.counts, job.prior_values, draws, asked)
        say(job, [*note.model_check(view.model_check), *note.differences(view), *note.checked(view)])
        if not stored:
            progress.log_last(job, logged, view.verdict)
        findings = JudgedFit(view, fingerprints.posterior_digests(draws.posterior))
        artifacts.write_findings(job, findings, logged)
        logged.record.note = note.note(view, note.reproduction(logged.run_id))
        logged.record.tags |= {
            "verdict": view.verdict.status,
            "verdict_reasons": "; ".join(view.verdict.reasons) or "none",
            "model_check": view.model_check.status,
            "model_check_reasons": "; ".join(view.model_check.reasons or unchecked(view)) or "none",
            "posterior_sha256": findings.digests["all"],
            **tags(view),
        }
        told = metrics(view, seconds=job.seconds, total=time.perf_counter() - began)
        logged.record.metrics = told | logged.record.metrics
        also(job, findings, logged)
    logged.state("done", elpd=view.loo.elpd, verdict=view.verdict.status)
    if job.parent:
        terminal.say(note.line(logged.record.name, view))
    else:
        terminal.say(*logged.location_lines(), note.browse())
    return logged


def elpd_of(logged: tracking.Run) -> float:
    """The elpd_loo of a run, which a search maximises."""
    return logged.record.metrics["elpd_loo"]


def unfinished(job: Job, record: Record) -> resume.Unfinished | None:
    """The killed run with the same draws to resume, if any; its logged progress is added to the record."""
    found = resume.find(record, stack=job.stack, ingredients=ingredients(job), uri=job.uri, outputs=outputs())
    record.progress = found.progress if found else record.progress
    return found


def sample(job: Job, logged: tracking.Run, resume_from: Snapshot | None = None) -> Fit:
    """Draw from the posterior; show progress at the terminal and in MLflow, and save every chunk."""
    sampler = job.config.sampler
    made = devices.programs_made()
    logged.state("compiling")
    with (
        terminal.sampling_bar(sampler.num_warmup + sampler.num_samples, quiet=bool(job.parent)) as bar,
        interrupts.defer_signals(until="this chunk") as stop_if_asked,
    ):
        draws = ENGINES[sampler.name].sample(
            job.model,
            job.counts,
            job.prior_values,
            seed=job.config.seed,
            sampler=sampler,
            device=job.config.device,
            resume_from=resume_from,
            on_chunk=lambda snapshot: save_chunk(snapshot, logged),
            on_progress=progress.report(job, logged, bar, stop_if_asked),
        )
    job.seconds.update(draws.seconds)
    logged.record.metrics |= {f"programs/{kind}": count - made[kind] for kind, count in devices.programs_made().items()}
    return draws


def save_chunk(snapshot: Snapshot, logged: tracking.Run) -> None:
    """Save a chunk in the folder of the run, to resume from after a kill."""
    try:
        checkpoint.save(logged.checkpoint, snapshot)
    except OSError as error:
        raise FitError(
            f"{logged.checkpoint}: {error.strerror or error}. Free disk space and repeat the same command: "
            "it resumes from the previous chunk."
        ) from None


def say(job: Job, lines: Sequence[str]) -> None:
    """Print lines about a fit, unless it is a job of a sweep, which prints one line."""
    if not job.parent:
        terminal.say(*lines)


def answer_lines(view: FitView) -> list[str]:
    """The answer at the terminal: verdict, rates, a new group, predictive accuracy."""
    return [
        *note.judgement(view.verdict),
        note.rates_heading(view.counts),
        *note.rates(view.summary),
        note.new_group(view.new_group, view.counts, view.at),
        *note.new_groups(view),
        note.accuracy(view.loo),
    ]
