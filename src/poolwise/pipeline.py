"""One fit, from checked settings to a logged run; the table of contents of the project.

    config -> counts, model, devices -> draws -> verdict, predictions -> figures, report -> MLflow

Everything is written to the run's own folder first and sent from there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

from poolwise import artifacts, checks, fit, predict, provenance, terminal, tracking, words
from poolwise.config import Config, outputs, resolve_path
from poolwise.credentials import store_uri
from poolwise.data import Counts, read_counts
from poolwise.model import Model
from poolwise.priors import prior_values
from poolwise.record import Record, metrics, run_name
from poolwise.tree import to_tree

type Values = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Job:
    """A fit that is ready to start: its settings, data, model, and devices that are up."""

    config: Config
    overrides: tuple[str, ...]
    counts: Counts
    model: Model
    values: Values
    stack: dict[str, object]
    code: provenance.Code
    seconds: dict[str, float] = field(default_factory=dict)

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


def run(config: Config, overrides: Sequence[str] = ()) -> float:
    """Fit, check and log; returns elpd_loo.

    Parameters
    ----------
    overrides : the command line that composed the config, for the name of the run and for the record
    """
    began = time.perf_counter()
    job = prepare(config, tuple(overrides))
    with tracking.logged_run(describe(job), uri=store_uri(config.tracking.uri, outputs()), outputs=outputs()) as logged:
        artifacts.write_inputs(job, logged)
        draws = sample(job, logged)
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
    terminal.say(*closing_lines(job, findings, logged))
    return findings.loo.elpd


def prepare(config: Config, overrides: tuple[str, ...]) -> Job:
    """Read the data and start the devices: whatever is wrong with the request shows here, before a run exists."""
    seconds = dict[str, float]()
    began = time.perf_counter()
    asked = config.data
    counts = read_counts(
        resolve_path(asked.path), group=asked.group, count=asked.count, exposure=asked.exposure, name=asked.name
    )
    seconds["read"] = time.perf_counter() - began
    num_devices = fit.start_devices(
        platform=config.device.platform,
        num_devices=config.device.num_devices,
        x64=config.device.x64,
        num_chains=config.sampler.num_chains,
        cache_dir=str(outputs() / "jax-cache"),
    )
    config = config.on_devices(num_devices)
    return Job(
        config=config,
        overrides=overrides,
        counts=counts,
        model=Model(config.pooling.name, config.likelihood.name, config.families),
        values=prior_values(config.prior, sites=config.sites),
        stack=provenance.stack(config.device.model_dump()),
        code=provenance.code_state(),
        seconds=seconds,
    )


def describe(job: Job) -> Record:
    """What is known of a run before its fit."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    return Record(
        name=run_name(job.model.pooling, job.model.likelihood, job.overrides),
        experiment=job.config.data.name,
        params=job.config.leaves(),
        tags={
            "draws_fingerprint": provenance.fingerprint(provenance.draw_ingredients(settings, sha256)),
            "run_fingerprint": provenance.fingerprint(provenance.run_ingredients(settings, sha256)),
            "data_sha256": sha256,
            "code_state": job.code.state,
            "mlflow.source.name": "poolwise.run",
            "mlflow.source.git.commit": job.code.commit,
        },
        dataset={"name": job.counts.name, "digest": sha256[:32], "source": job.config.data.path},
    )


def sample(job: Job, logged: tracking.Run) -> fit.Fit:
    """Draw from the posterior, showing progress at the terminal and in MLflow."""
    sampler = job.config.sampler
    made = fit.programs_made()
    with terminal.sampling_bar(sampler.num_warmup + sampler.num_samples) as bar:
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
        "browse  make ui",
    ]
