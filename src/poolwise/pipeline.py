"""One fit, from checked settings to a logged run; the table of contents of the project.

    config -> counts, model, devices -> draws -> verdict, predictions -> figures, report -> MLflow

Everything is written to the run's own folder first and sent from there.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from poolwise import (
    artifacts,
    checks,
    interrupts,
    prior_scale,
    provenance,
    resume,
    spool,
    store,
    terminal,
    tracking,
    twins,
    words,
)
from poolwise.checks_base import FitView, Settings
from poolwise.config import Config
from poolwise.counts.cells import Counts, read_counts
from poolwise.credentials import store_uri
from poolwise.differences import Facts
from poolwise.errors import ConfigError, FitError, UnreachableError
from poolwise.findings import CHECKS, Findings, examine
from poolwise.inference import checkpoint, devices
from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.base import Fit, Progress
from poolwise.inference.snapshot import Snapshot
from poolwise.locks import held
from poolwise.model.count_model import Model
from poolwise.model.priors import prior_values
from poolwise.paths import outputs, resolve_path
from poolwise.record import Record, metrics, run_name, tags

code_state = functools.cache(provenance.code_state)  # the code of a process is what it was when it began

type Values = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Job:
    """A fit to be made: its settings, data and model, the store it goes to; once started, the stack it runs on."""

    config: Config
    overrides: tuple[str, ...]
    counts: Counts
    model: Model
    values: Values
    code: provenance.Code
    seconds: dict[str, float]
    uri: str = ""
    parent: str = ""
    reproduces: str = ""  # the run id that this is to be the same run as, if any
    stack: dict[str, object] = field(default_factory=dict)

    @functools.cached_property
    def warnings(self) -> list[str]:
        """The priors that have the data in their far tail, a line each."""
        return prior_scale.lines(self.model, self.values, self.counts)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def run(config: Config, overrides: Sequence[str] = (), *, parent: str = "", uri: str = "") -> float:
    """Fit, check and log, or reuse a finished twin; returns elpd_loo.

    Parameters
    ----------
    overrides : the command line that composed the config, for the name of the run and for the record
    parent : the run id of the sweep that this is a job of, if it is one
    uri : the store to log to; by default the one of the config, or its spool if it does not answer
    """
    job = prepare(config, tuple(overrides), parent)
    job = replace(job, uri=uri or spool.reachable(store_uri(config.tracking.uri, outputs()), outputs()))
    if not parent:  # a sweep did it for its jobs
        store.bury_dead(config.data.name, uri=job.uri)
    if not (bool(parent) if config.reuse is None else config.reuse):
        return elpd_of(carry_out(job))
    record = describe(job)
    with held(outputs() / "locks" / record.tags["run_fingerprint"], otherwise="another process fits the same"):
        draws, among = record.tags["draws_fingerprint"], []
        with suppress(UnreachableError):  # it answered a moment ago; what follows goes to the spool
            among = twins.candidates(record.experiment, uri=job.uri, draws_fingerprint=draws)
        twin = twins.finished(record, among)
        if twin is None:
            return elpd_of(carry_out(job, twins.same_draws(record, among, uri=job.uri)))
    if parent:
        with suppress(*store.OUTAGES):  # the sweep finds the twin itself if it must
            store.tag(parent, f"reused.{twin.run_id}", record.name, uri=job.uri)
    terminal.say(*words.reused(twin))
    return twin.metrics["elpd_loo"]


def carry_out(
    job: Job,
    stored: twins.StoredDraws | None = None,
    also: Callable[[Job, Findings, tracking.Run], None] = lambda job, findings, logged: None,
) -> tracking.Run:
    """Fit, or take the stored draws of a run with the same draws fingerprint; check and log.

    A fit that was killed before goes on where it was, in the same run.

    Parameters
    ----------
    also : what else to write about the findings before the run ends
    """
    began = time.perf_counter()
    job = start(job)
    if job.warnings and not job.parent:
        terminal.say(*job.warnings)
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
            view = examine(job.model, job.counts, job.values, draws, settings_of(job, logged))
        findings = Findings(view, provenance.posterior_digests(draws.posterior))
        artifacts.write_findings(job, findings, logged)
        logged.record.note = words.note(view, words.reproduction(logged.run_id))
        logged.record.tags |= {
            "verdict": view.verdict.status,
            "verdict_reasons": "; ".join(view.verdict.reasons) or "none",
            "posterior_sha256": findings.digests["all"],
            **tags(view),
        }
        logged.record.metrics |= metrics(view, seconds=job.seconds, total=time.perf_counter() - began)
        also(job, findings, logged)
    logged.state("done", elpd=view.loo.elpd, verdict=view.verdict.status)
    terminal.say(*closing_lines(job, view, logged))
    return logged


def elpd_of(logged: tracking.Run) -> float:
    """What a sweeper that searches maximises."""
    return logged.record.metrics["elpd_loo"]


def prepare(config: Config, overrides: tuple[str, ...], parent: str = "", counts: Counts | None = None) -> Job:
    """Read the data, unless they are given: whatever is wrong with the request shows here, before a run exists."""
    began = time.perf_counter()
    asked = config.data
    counts = counts or read_counts(
        resolve_path(asked.path), group=asked.group, count=asked.count, exposure=asked.exposure, name=asked.name
    )
    if config.predict.group is not None and config.predict.group not in counts.labels:
        raise ConfigError(words.unknown_group(config.predict.group, counts.labels))
    return Job(
        config=config,
        overrides=overrides,
        parent=parent,
        counts=counts,
        model=config.model,
        values=prior_values(config.prior, sites=config.sites),
        code=code_state(),
        seconds={"read": time.perf_counter() - began},
    )


def start(job: Job) -> Job:
    """The job with its devices up."""
    device = job.config.device
    num_devices = devices.start_devices(
        platform=device.platform,
        num_devices=device.num_devices,
        x64=device.x64,
        num_chains=job.config.sampler.num_chains,
        cache_dir=str(outputs() / "jax-cache"),
    )
    config = job.config.on_devices(num_devices)
    return replace(job, config=config, stack=provenance.stack(vars(config.device)))


def settings_of(job: Job, logged: tracking.Run) -> Settings:
    """What is asked of a fit beside its draws."""
    config = job.config
    return Settings(
        seed=config.seed,
        sampler=config.sampler,
        device=config.device,
        checks=frozenset(check.key for check in CHECKS if getattr(config.checks, check.key)),
        exposure=config.predict.exposure,
        above=tuple(config.predict.above),
        group=config.predict.group,
        num_draws=config.predict.num_draws,
        on_group=lambda label: logged.state("leaving out", group=label),
        stage=job.stage,
    )


def ingredients(job: Job) -> dict[str, Any]:
    """What decides the run."""
    return provenance.run_ingredients(job.config.resolved(), job.counts.sha256)


def facts(job: Job) -> Facts:
    """What decides the run, in the terms in which runs are compared; of a job that is started."""
    return Facts(
        settings=job.config.resolved(),
        data_sha256=job.counts.sha256,
        code=job.code.state,
        files=job.code.files,
        libraries=provenance.versions_of(provenance.distributions()),
        stack=job.stack,
    )


def describe(job: Job) -> Record:
    """What is known of a run before its fit."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    return Record(
        name=run_name(job.model, job.overrides) + (" again" if job.reproduces else ""),
        experiment=job.config.data.name,
        params=job.config.leaves(),
        tags={
            "draws_fingerprint": provenance.fingerprint(provenance.draw_ingredients(settings, sha256)),
            "run_fingerprint": provenance.fingerprint(ingredients(job)),
            "data_sha256": sha256,
            "code_state": job.code.state,
            **({"sweep": job.parent} if job.parent else {}),
            **({"reproduces": job.reproduces} if job.reproduces else {}),
            "mlflow.source.name": "poolwise.reproduce" if job.reproduces else "poolwise.run",
            "mlflow.source.git.commit": job.code.commit,
        },
        dataset={"name": job.counts.name, "digest": sha256[:32], "source": job.config.data.path},
    )


def unfinished(job: Job, record: Record) -> resume.Unfinished | None:
    """A killed run of the same draws to go on from, what it logged while it sampled taken over."""
    found = resume.find(record, stack=job.stack, ingredients=ingredients(job), uri=job.uri, outputs=outputs())
    record.progress += found.progress if found else []
    return found


def sample(job: Job, logged: tracking.Run, resume_from: Snapshot | None = None) -> Fit:
    """Draw from the posterior, showing progress at the terminal and in MLflow, every chunk saved as it ends."""
    sampler = job.config.sampler
    made = devices.programs_made()
    logged.state("compiling")
    with (
        terminal.sampling_bar(sampler.num_warmup + sampler.num_samples, quiet=bool(job.parent)) as bar,
        interrupts.deferred(until="this chunk") as stop_if_asked,
    ):
        draws = ENGINES[sampler.name].sample(
            job.model,
            job.counts,
            job.values,
            seed=job.config.seed,
            sampler=sampler,
            device=job.config.device,
            resume_from=resume_from,
            on_chunk=lambda snapshot: keep(snapshot, logged),
            on_progress=watch(job, logged, bar, stop_if_asked),
        )
    job.seconds.update(draws.seconds)
    logged.record.metrics |= {f"programs/{kind}": count - made[kind] for kind, count in devices.programs_made().items()}
    return draws


def keep(snapshot: Snapshot, logged: tracking.Run) -> None:
    """Save a chunk beside the run, for a start that goes on after a kill."""
    try:
        checkpoint.save(logged.checkpoint, snapshot)
    except OSError as error:
        raise FitError(
            f"{logged.checkpoint}: {error.strerror or error}. Make room and start the same command again: "
            "it goes on from the chunk before."
        ) from None


def watch(
    job: Job,
    logged: tracking.Run,
    bar: Callable[[str, int, int, float], None],
    stop_if_asked: Callable[[], None],
) -> Callable[[Progress], None]:
    """What to do after every chunk: move the bar; `checks.progress` times, log R-hat and ESS of the draws so far."""
    num_warmup, num_chains = job.config.sampler.num_warmup, job.config.sampler.num_chains
    points = job.config.checks.progress
    known = {step for step, _, _ in logged.record.progress}
    looked = len(known)

    def look(progress: Progress) -> None:
        nonlocal looked
        before = num_warmup if progress.phase == "sampling" else 0
        bar(progress.phase, before + progress.done, progress.divergences, progress.step_size)
        logged.state(progress.phase, draws=progress.done * num_chains, divergences=progress.divergences)
        due = progress.done * points // progress.total
        if progress.phase == "sampling" and due > looked and progress.done >= 4:  # R-hat needs 4 draws a chain
            looked = due
            r_hat, ess = checks.convergence(progress.posterior())
            step = progress.done * num_chains
            if step not in known:
                logged.progress(step, {"progress/r_hat_max": r_hat, "progress/ess_bulk_min": ess})
        stop_if_asked()

    return look


def closing_lines(job: Job, view: FitView, logged: tracking.Run) -> list[str]:
    """The answer at the terminal: can it be trusted, the rates, the predictive accuracy, where the run is."""
    if job.parent:
        return [words.line(logged.record.name, view.verdict, view.loo)]
    draws = view.tree["sample_stats"]["diverging"].size
    return [
        words.subject(view.counts, view.model),
        *words.judgement(view.verdict),
        words.RATES,
        *words.rates(view.summary),
        words.new_group(view.new_group),
        words.accuracy(view.loo),
        *words.checked(view),
        f"{view.verdict.divergences} divergences in {draws} draws",
        *logged.whereabouts(),
        words.browse(),
    ]
