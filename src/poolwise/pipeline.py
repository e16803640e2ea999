"""One fit, from checked settings to a logged run; the table of contents of the project.

    config -> counts, model, devices -> draws -> verdict, predictions -> figures, report -> MLflow

Everything is written to the run's own folder first and sent from there.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from poolwise import artifacts, checks, fit, predict, provenance, store, terminal, tracking, twins, words
from poolwise.config import Config, outputs, resolve_path
from poolwise.credentials import store_uri
from poolwise.data import Counts, read_counts
from poolwise.locks import held
from poolwise.model import Model
from poolwise.priors import prior_values
from poolwise.record import Record, metrics, run_name
from poolwise.tree import to_tree

code_state = functools.cache(provenance.code_state)  # the code of a process is what it was when it began

type Values = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Job:
    """A fit to be made: its settings, data and model; once started, the stack it runs on."""

    config: Config
    overrides: tuple[str, ...]
    counts: Counts
    model: Model
    values: Values
    code: provenance.Code
    seconds: dict[str, float]
    stack: dict[str, object] = field(default_factory=dict)
    parent: str = ""

    @property
    def uri(self) -> str:
        """The store that the run goes to."""
        return store_uri(self.config.tracking.uri, outputs())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


@dataclass(frozen=True)
class Findings:
    """What a fit says."""

    tree: xr.DataTree
    summary: pd.DataFrame
    loo: checks.Loo
    verdict: checks.Verdict
    new_group: predict.NewGroup
    digests: dict[str, str]


def run(config: Config, overrides: Sequence[str] = (), *, parent: str = "") -> float:
    """Fit, check and log, or reuse a finished twin; returns elpd_loo.

    Parameters
    ----------
    overrides : the command line that composed the config, for the name of the run and for the record
    parent : the run id of the sweep that this is a job of, if it is one
    """
    job = prepare(config, tuple(overrides), parent)
    if not (bool(parent) if config.reuse is None else config.reuse):
        return carry_out(job)
    record = describe(job)
    with held(outputs() / "locks" / record.tags["run_fingerprint"], otherwise="another process fits the same"):
        draws = record.tags["draws_fingerprint"]
        among = twins.candidates(record.experiment, uri=job.uri, draws_fingerprint=draws)
        twin = twins.finished(record, among)
        if twin is None:
            return carry_out(job, twins.same_draws(record, among, uri=job.uri))
    if parent:
        store.tag(parent, f"reused.{twin.run_id}", record.name, uri=job.uri)
    terminal.say(*words.reused(twin))
    return twin.metrics["elpd_loo"]


def carry_out(job: Job, stored: twins.StoredDraws | None = None) -> float:
    """Fit, or take the stored draws of a run with the same draws fingerprint; check and log."""
    began = time.perf_counter()
    job = start(job)
    record = describe(job)
    record.tags |= {"draws_from": stored.run_id} if stored else {}
    with tracking.logged_run(record, uri=job.uri, outputs=outputs(), parent=job.parent) as logged:
        artifacts.write_inputs(job, logged)
        draws = stored.draws if stored else sample(job, logged)
        logged.state("checking")
        with job.stage("check"):
            findings = examine(job, draws)
        artifacts.write_findings(job, findings, logged)
        logged.record.note = note(job, findings)
        logged.record.tags |= {
            "verdict": findings.verdict.status,
            "verdict_reasons": "; ".join(findings.verdict.reasons) or "none",
            "posterior_sha256": findings.digests["all"],
        }
        logged.record.metrics |= metrics(
            verdict=findings.verdict,
            loo=findings.loo,
            summary=findings.summary,
            seconds=job.seconds,
            total=time.perf_counter() - began,
        )
    logged.state("done", elpd=findings.loo.elpd, verdict=findings.verdict.status)
    terminal.say(*closing_lines(job, findings, logged))
    return findings.loo.elpd


def prepare(config: Config, overrides: tuple[str, ...], parent: str = "") -> Job:
    """Read the data: whatever is wrong with the request shows here, before a run exists."""
    began = time.perf_counter()
    asked = config.data
    counts = read_counts(
        resolve_path(asked.path), group=asked.group, count=asked.count, exposure=asked.exposure, name=asked.name
    )
    return Job(
        config=config,
        overrides=overrides,
        parent=parent,
        counts=counts,
        model=Model(config.pooling.name, config.likelihood.name, config.families),
        values=prior_values(config.prior, sites=config.sites),
        code=code_state(),
        seconds={"read": time.perf_counter() - began},
    )


def start(job: Job) -> Job:
    """The job with its devices up."""
    device = job.config.device
    num_devices = fit.start_devices(
        platform=device.platform,
        num_devices=device.num_devices,
        x64=device.x64,
        num_chains=job.config.sampler.num_chains,
        cache_dir=str(outputs() / "jax-cache"),
    )
    config = job.config.on_devices(num_devices)
    return replace(job, config=config, stack=provenance.stack(config.device.model_dump()))


def ingredients(job: Job) -> dict[str, Any]:
    """What decides the run."""
    return provenance.run_ingredients(job.config.resolved(), job.counts.sha256)


def describe(job: Job) -> Record:
    """What is known of a run before its fit."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    return Record(
        name=run_name(job.model.pooling, job.model.likelihood, job.overrides),
        experiment=job.config.data.name,
        params=job.config.leaves(),
        tags={
            "draws_fingerprint": provenance.fingerprint(provenance.draw_ingredients(settings, sha256)),
            "run_fingerprint": provenance.fingerprint(ingredients(job)),
            "data_sha256": sha256,
            "code_state": job.code.state,
            **({"sweep": job.parent} if job.parent else {}),
            "mlflow.source.name": "poolwise.run",
            "mlflow.source.git.commit": job.code.commit,
        },
        dataset={"name": job.counts.name, "digest": sha256[:32], "source": job.config.data.path},
    )


def sample(job: Job, logged: tracking.Run) -> fit.Fit:
    """Draw from the posterior, showing progress at the terminal and in MLflow."""
    sampler = job.config.sampler
    made = fit.programs_made()
    logged.state("compiling")
    with terminal.sampling_bar(sampler.num_warmup + sampler.num_samples, quiet=bool(job.parent)) as bar:
        draws = fit.fit(
            job.model,
            job.counts,
            job.values,
            seed=job.config.seed,
            sampler=fit.Sampler(**sampler.model_dump()),
            device=fit.Device(**job.config.device.model_dump()),
            on_progress=watch(job, logged, bar),
        )
    job.seconds.update(draws.seconds)
    logged.record.metrics |= {f"programs/{kind}": count - made[kind] for kind, count in fit.programs_made().items()}
    return draws


def watch(
    job: Job, logged: tracking.Run, bar: Callable[[str, int, int, float], None]
) -> Callable[[fit.Progress], None]:
    """What to do after every chunk: move the bar; `checks.progress` times, log R-hat and ESS of the draws so far."""
    num_warmup, num_chains = job.config.sampler.num_warmup, job.config.sampler.num_chains
    points, looked = job.config.checks.progress, 0

    def look(progress: fit.Progress) -> None:
        nonlocal looked
        before = num_warmup if progress.phase == "sampling" else 0
        bar(progress.phase, before + progress.done, progress.divergences, progress.step_size)
        logged.state(progress.phase, draws=progress.done * num_chains, divergences=progress.divergences)
        due = progress.done * points // progress.total
        if progress.phase == "sampling" and due > looked and progress.done >= 4:  # R-hat needs 4 draws a chain
            looked = due
            r_hat, ess = checks.convergence(progress.posterior())
            step = progress.done * num_chains
            logged.progress(step, {"progress/r_hat_max": r_hat, "progress/ess_bulk_min": ess})

    return look


def examine(job: Job, draws: fit.Fit) -> Findings:
    """Judge the draws and predict from them."""
    config = job.config
    tree = to_tree(draws.posterior, draws.sample_stats, job.counts)
    posterior, constant = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    summary = checks.summarise(posterior)
    num_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    loo = checks.loo(
        predict.pointwise_log_likelihood(posterior, constant),
        job.counts.cell_multiplicity,
        r_eff=checks.relative_efficiency(summary, num_draws=num_draws),
    )
    replicated = predict.posterior_predictive(
        posterior,
        constant,
        num_draws=config.predict.num_draws,
        rng=predict.generator(config.seed, "posterior_predictive"),
    )
    tree["posterior_predictive"] = xr.DataTree(replicated)
    return Findings(
        tree=tree,
        summary=summary,
        loo=loo,
        verdict=checks.judge(
            summary, tree["sample_stats"].to_dataset(), loo, max_tree_depth=config.sampler.max_tree_depth
        ),
        new_group=predict.new_group(
            job.model, posterior, job.values, exposure=config.predict.exposure, seed=config.seed
        ),
        digests=provenance.posterior_digests(draws.posterior),
    )


def note(job: Job, findings: Findings) -> str:
    """The run in a few lines, for the MLflow UI."""
    return words.note(
        words.subject(job.counts, job.model.pooling, job.model.likelihood),
        findings.verdict,
        findings.summary,
        findings.new_group,
        findings.loo,
        words.command(job.overrides),
    )


def closing_lines(job: Job, findings: Findings, logged: tracking.Run) -> list[str]:
    """The answer at the terminal: can it be trusted, the rates, the predictive accuracy, where the run is."""
    if job.parent:
        return [words.line(logged.record.name, findings.verdict, findings.loo)]
    draws = findings.tree["sample_stats"]["diverging"].size
    return [
        words.subject(job.counts, job.model.pooling, job.model.likelihood),
        *words.judgement(findings.verdict),
        "mean rate and 94% interval",
        *words.rates(findings.summary),
        words.new_group(findings.new_group),
        words.accuracy(findings.loo),
        f"{findings.verdict.divergences} divergences in {draws} draws",
        f"run     {logged.run_id}",
        f"folder  {logged.folder}",
        words.browse(),
    ]
