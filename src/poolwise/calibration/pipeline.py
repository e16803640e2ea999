"""One simulation-based calibration, from checked settings to a logged run; its table of contents.

    config -> design, model, devices -> truths and tables -> fits, ranks -> verdict, figure, note -> MLflow

The ranks of every batch of fits are saved in a folder whose name depends on everything that decides them. The same
command resumes from there, as a new run. A command that finishes removes the folder.
"""

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolwise.calibration import figure, note
from poolwise.calibration.findings import Findings, examine, metrics, ranks_table
from poolwise.calibration.fits import Plan, Recovered, recover
from poolwise.calibration.simulation import simulate
from poolwise.config import Calibration
from poolwise.errors import ConfigError, FitError
from poolwise.figures.style import png
from poolwise.inference import checkpoint
from poolwise.inference.engines import ENGINES
from poolwise.paths import outputs
from poolwise.provenance import fingerprints
from poolwise.provenance.stack import STACK_OF_BITS
from poolwise.report import terminal
from poolwise.runs import artifacts, interrupts
from poolwise.runs.job import Job, prepare
from poolwise.runs.job import start as start_devices
from poolwise.runs.metrics import run_name
from poolwise.tracking import liveness, run, spool
from poolwise.tracking.credentials import store_uri
from poolwise.tracking.locks import exclusive_lock
from poolwise.tracking.record import Record
from poolwise.tracking.store import KIND

KEYS = ("simulations", "draws", "thin", "batch")  # used by the calibration alone
SAMPLER = ("num_warmup", "target_accept", "max_tree_depth")  # settings of one chain
DECIDING = ("seed", "prior", "pooling", "likelihood", "simulations", "draws", "thin")
UNUSED = (
    *("checks.", "predict.", "plots.", "sweep.", "reuse"),
    *("sampler.num_samples", "sampler.num_chains", "sampler.checkpoint_every"),
)
MODULES = ("poolwise.calibration.fits", "poolwise.calibration.simulation")  # whose imports decide the ranks


def calibrate(config: Calibration, overrides: Sequence[str] = ()) -> run.Run:
    """Simulate, fit, judge and log; resume where the same calibration stopped."""
    job = start(config, tuple(overrides))
    uri = spool.reachable(store_uri(config.tracking.uri, outputs()), outputs())
    liveness.mark_dead_killed(config.data.name, uri=uri)
    record, deciding = describe(job), ingredients(job)
    name = record.tags["calibration_fingerprint"]
    folder = outputs() / "calibrations" / name[:16]
    with exclusive_lock(outputs() / "locks" / name, otherwise="another process is running the same calibration"):
        with run.logged_run(record, uri=uri, outputs=outputs()) as logged:
            artifacts.write_inputs(job, logged)
            logged.write("environment/fingerprint.json", json.dumps(deciding, indent=1, sort_keys=True) + "\n")
            findings = examine(recovered(job, logged, folder))
            write(job, findings, logged)
            logged.record.tags |= {"verdict": findings.status, "verdict_reasons": "; ".join(findings.reasons) or "none"}
            logged.record.metrics |= metrics(findings)
            logged.record.note = note.note(job, findings)
        shutil.rmtree(folder, ignore_errors=True)
    logged.state("done", verdict=findings.status)
    terminal.say(*note.closing_lines(job, findings), *logged.location_lines())
    return logged


def start(config: Calibration, overrides: tuple[str, ...]) -> Job:
    """Read the design and start the devices; errors in the request are raised here, before a run exists."""
    if not set(SAMPLER) <= set(ENGINES[config.sampler.name].settings):
        raise ConfigError(
            f"a calibration tests chains of NUTS, and sampler={config.sampler.name} has none. Leave sampler= out."
        )
    # the last batch is filled up, so any number of devices will do
    return start_devices(prepare(config, overrides), num_chains=config.device.num_devices or config.batch)


def settings_of(job: Job) -> Calibration:
    """The settings of a calibration job."""
    if not isinstance(job.config, Calibration):
        raise TypeError(f"{type(job.config).__name__} is not the config of a calibration.")
    return job.config


def ingredients(job: Job) -> dict[str, Any]:
    """Everything that decides the ranks, as nested plain values."""
    settings = job.config.resolved()
    return {
        **{key: settings[key] for key in DECIDING},
        "sampler": {key: settings["sampler"][key] for key in SAMPLER},
        "design_sha256": job.counts.sha256,
        "source": fingerprints.imported_source(
            (
                *MODULES,
                *map(fingerprints.module_of, (job.model.pooling, job.model.likelihood, *job.model.likelihood.made_of)),
            )
        ),
        "stack": {key: job.stack.get(key) for key in STACK_OF_BITS},
        "machine": platform.machine(),
    }


def describe(job: Job) -> Record:
    """What the run records before its fits."""
    config = settings_of(job)
    told = [
        each
        for each in job.overrides
        if not each.startswith(("pooling.parameterisation", *(f"{key}=" for key in KEYS)))
    ]
    model = job.model
    form = f" {model.parameterisation}" if len(model.pooling.parameterisations) > 1 else ""
    return Record(
        name=f"{run_name(model, told)}{form} calibration",
        experiment=config.data.name,
        params={key: value for key, value in config.leaves().items() if not key.startswith(UNUSED)},
        tags={
            KIND: "calibration",
            "calibration_fingerprint": fingerprints.fingerprint(ingredients(job)),
            "data_sha256": job.counts.sha256,
            "code_state": job.code.state,
            "mlflow.source.name": "poolwise.calibrate",
            "mlflow.source.git.commit": job.code.commit,
        },
        dataset={"name": job.counts.name, "digest": job.counts.sha256[:32], "source": config.data.path},
    )


def recovered(job: Job, logged: run.Run, folder: Path) -> Recovered:
    """Simulate and fit, batch by batch; Ctrl-C stops after the current batch."""
    config = settings_of(job)
    logged.state("simulating")
    simulated = simulate(job.model, job.counts, job.prior_values, seed=config.seed, simulations=config.simulations)
    begin = checkpoint.load(folder)
    if begin:
        terminal.say(f"resuming after {begin.steps} of {config.simulations} simulations")
    with (
        terminal.table_bar(config.simulations, begin.steps if begin else 0) as bar,
        interrupts.defer_signals(until="this batch; the same command resumes there") as stop_if_asked,
    ):

        def watch(found: Recovered) -> None:
            divergent = int(np.sum(found.divergences > 0))
            bar(found.done, divergent)
            logged.state("fitting", done=found.done, divergent=divergent)
            logged.progress(found.done, {"progress/divergent_simulations": divergent})
            stop_if_asked()

        logged.state("compiling")
        try:
            return recover(
                job.model,
                job.counts,
                simulated,
                job.prior_values,
                seed=config.seed,
                plan=Plan(
                    num_warmup=config.sampler.num_warmup,
                    target_accept=config.sampler.target_accept,
                    max_tree_depth=config.sampler.max_tree_depth,
                    draws=config.draws,
                    thin=config.thin,
                ),
                device=config.device,
                batch=config.batch,
                folder=folder,
                begin=begin,
                on_batch=watch,
            )
        except OSError as error:
            raise FitError(
                f"{folder}: {error.strerror or error}. Free disk space and run the same command again: it resumes from "
                "the previous batch."
            ) from None


def write(job: Job, findings: Findings, logged: run.Run) -> None:
    """Write the tables and the figure."""
    found = findings.recovered
    logged.write("tables/ranks.csv", ranks_table(found).to_csv(index=False))
    logged.write("tables/calibration.csv", findings.table.to_csv())
    picture = figure.ecdf_pit(
        found.rank[found.is_fitted],
        findings.table,
        num_draws=found.num_draws,
        title=note.title(job, findings),
    )
    logged.write("figures/ecdf_pit.png", png(picture))
