"""A config to a job: table read, model built, code and data identified, before a run exists."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from poolwise.checks import prior_scale
from poolwise.checks.base import FitView, Settings
from poolwise.checks.findings import CHECKS
from poolwise.config import Config
from poolwise.counts import description, look_alikes
from poolwise.counts.cells import Counts, read_counts
from poolwise.counts.covariates import row_at
from poolwise.errors import ConfigError
from poolwise.inference import devices
from poolwise.model.count_model import Model
from poolwise.model.data_scale import resolved
from poolwise.model.priors import PriorValues, prior_values
from poolwise.paths import outputs, resolve_path
from poolwise.provenance import code as provenance
from poolwise.provenance import fingerprints
from poolwise.provenance.differences import RunInputs
from poolwise.provenance.judgement import RunResults
from poolwise.provenance.stack import distributions, stack, versions_of
from poolwise.runs.metrics import UNKNOWN_METRICS, UNKNOWN_TAGS, run_name
from poolwise.text import unknown_group
from poolwise.tracking import store
from poolwise.tracking.record import Record
from poolwise.tracking.run import Run, now_ms


@dataclass(frozen=True)
class JudgedFit:
    """The findings of a fit and the digests of its draws."""

    view: FitView
    digests: dict[str, str]

    @property
    def outcome(self) -> RunResults:
        """The findings in the form in which runs are compared."""
        loo = self.view.loo
        return RunResults(self.digests, self.view.summary, loo.elpd, loo.mcse, self.view.num_chains)


code_state = functools.cache(provenance.code_state)  # the code of a process does not change after its start


@dataclass(frozen=True)
class Job:
    """A fit to run: its settings, data, model and store; once started, also its stack."""

    config: Config
    overrides: tuple[str, ...]
    counts: Counts
    model: Model
    prior_values: PriorValues
    code: provenance.Code
    seconds: dict[str, float]
    uri: str = ""
    parent: str = ""
    reproduces: str = ""  # the id of the run that this job repeats, if any
    stack: dict[str, object] = field(default_factory=dict)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Labels of groups that look alike, a sentence each."""
        return look_alikes.remarks(self.counts)

    @functools.cached_property
    def warnings(self) -> list[str]:
        """What to know before the fit, a line each: labels that look alike, its cost, priors far from the data."""
        return [
            *self.remarks,
            *description.costs_by_row(self.counts),
            *prior_scale.lines(self.model, self.prior_values, self.counts),
        ]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - began


def prepare(config: Config, overrides: tuple[str, ...], parent: str = "", counts: Counts | None = None) -> Job:
    """Read the data, unless given. Faults of the request are raised here, before a run exists."""
    began = time.perf_counter()
    asked = config.data
    counts = counts or read_counts(
        resolve_path(asked.path),
        group=asked.group,
        count=asked.count,
        exposure=asked.exposure,
        name=asked.name,
        per=asked.per,
        multiplicity=asked.multiplicity,
        covariates=asked.covariates or (),
        reference=asked.reference,
    )
    row_at(counts.covariates, config.predict.at or {})
    if config.predict.group is not None and config.predict.group not in counts.labels:
        raise ConfigError(unknown_group("predict.group", config.predict.group, counts.labels))
    config = config.model_copy(update={"prior": resolved(config.prior, counts)}).for_groups(counts.num_groups)
    return Job(
        config=config.predicting_at(description.median_exposure(counts)),
        overrides=overrides,
        parent=parent,
        counts=counts,
        model=replace(config.model, effects=counts.effects),
        prior_values=prior_values(config.prior, sites=config.sites),
        code=code_state(),
        seconds={"read": time.perf_counter() - began},
    )


def start(job: Job, *, num_chains: int | None = None) -> Job:
    """Start the devices and return the job with its stack.

    Parameters
    ----------
    num_chains : chains that the devices share; by default those of the sampler
    """
    device = job.config.device
    num_devices = devices.start_devices(
        platform=device.platform,
        num_devices=device.num_devices,
        x64=device.x64,
        num_chains=num_chains or job.config.sampler.num_chains,
        cache_dir=str(outputs() / "jax-cache"),
    )
    config = job.config.on_devices(num_devices)
    return replace(job, config=config, stack=stack(vars(config.device)))


def settings_of(job: Job, logged: Run) -> Settings:
    """The settings of checks and predictions."""
    config = job.config
    return Settings(
        seed=config.seed,
        sampler=config.sampler,
        device=config.device,
        checks=frozenset(check.key for check in CHECKS if getattr(config.checks, check.key)),
        exposure=cast("float", config.predict.exposure),  # `prepare` has resolved it
        new_groups=config.predict.new_groups,
        above=tuple(config.predict.above),
        group=config.predict.group,
        at=config.predict.at or {},
        num_draws=config.predict.num_draws,
        on_group=lambda label: logged.state("leaving out", group=label),
        stage=job.stage,
    )


def ingredients(job: Job) -> dict[str, Any]:
    """The ingredients of the run fingerprint."""
    return fingerprints.run_ingredients(job.config.resolved(), job.counts.sha256)


def facts(job: Job) -> RunInputs:
    """The inputs of a started job in the form in which runs are compared."""
    return RunInputs(
        settings=job.config.resolved(),
        data_sha256=job.counts.sha256,
        code=job.code.state,
        files=job.code.files,
        libraries=versions_of(distributions()),
        stack=job.stack,
    )


def describe(job: Job) -> Record:
    """The record of a run before its fit."""
    settings, sha256 = job.config.resolved(), job.counts.sha256
    return Record(
        name=run_name(job.model, job.overrides) + (" again" if job.reproduces else ""),
        experiment=job.config.data.name,
        params=job.config.leaves(),
        tags={
            **UNKNOWN_TAGS,
            store.KIND: store.FIT,
            "draws_fingerprint": fingerprints.fingerprint(fingerprints.draw_ingredients(settings, sha256)),
            "run_fingerprint": fingerprints.fingerprint(ingredients(job)),
            "data_sha256": sha256,
            "code_state": job.code.state,
            **({"sweep": job.parent} if job.parent else {}),
            **({"reproduces": job.reproduces} if job.reproduces else {}),
            "mlflow.source.name": "poolwise.reproduce" if job.reproduces else "poolwise.run",
            "mlflow.source.git.commit": job.code.commit,
        },
        dataset={"name": job.counts.name, "digest": sha256[:32], "source": job.config.data.path},
        progress=[(0, now_ms(), dict(UNKNOWN_METRICS))],
    )
