"""The six variants as a sweep, tracked in full, against the three models of the notebook end to end.

Both are processes of their own and take turns. The first sweep compiles; later ones have another seed, so that every
job is fitted, and load what it compiled. The notebook has no compilation cache and compiles each time.
"""

import os
import statistics
from pathlib import Path

from bench import runs
from bench.base import Result, Settings, Table
from bench.runs import Run
from support import ROOT

SCRIPT = Path(__file__).with_name("notebook_models.py")
VARIANTS = ("pooling=pooled,unpooled,hierarchical", "likelihood=poisson,negative_binomial")
JOBS, MODELS = 6, 3


def measure(settings: Settings) -> Result:
    """Seconds in all and per model, and programs per job."""
    cold = sweep(0, settings)
    found: dict[str, list[Run]] = {"sweep": [], "notebook": []}
    for seed in range(1, settings.rounds + 1):
        found["sweep"].append(sweep(seed, settings))
        found["notebook"].append(notebook(settings))
    rows = (
        _row("sweep, six variants, first", [cold], JOBS),
        _row("sweep, six variants, warm", found["sweep"], JOBS),
        _row("notebook, three models", found["notebook"], MODELS),
    )
    columns = ("whole process", "seconds", "a model", "MB", "note")
    title = f"The sweep of six variants against the notebook (median of {settings.rounds})"
    whole = Table("sweep", title, columns, rows)
    ratio = _ratio(found)
    metrics = {f"seconds/sweep.{name}": value for name, *(value, *_) in rows if isinstance(value, float)}
    remarks = (f"sweep against the notebook, per model: {ratio:.2f} x",) if ratio else ()
    return Result((whole, programs(cold, found["sweep"])), (), _named(metrics), remarks)


def sweep(seed: int, settings: Settings) -> Run:
    """Six fits and their comparison."""
    return runs.poolwise("-m", *VARIANTS, f"seed={seed}", outputs=settings.scratch / "sweep", settings=settings)


def notebook(settings: Settings) -> Run:
    """The three models of the notebook, without a compilation cache, as it is."""
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    arguments = (str(SCRIPT), str(ROOT / "data" / "cookies.csv"), str(settings.scratch))
    return runs.process(arguments, settings, environment=environment)


def programs(cold: Run, warm: list[Run]) -> Table:
    """Programs of each job of the first sweep and of the last."""
    columns = ("job", "compiled first", "loaded first", "compiled warm", "loaded warm")
    rows = [
        (f"{at + 1}", *(job.get(f"programs/{kind}") for job in jobs for kind in ("compiled", "loaded")))
        for at, jobs in enumerate(zip(_jobs(cold), _jobs(warm[-1]), strict=False))
    ]
    return Table("programs", "Programs that each job of the sweep compiled, or loaded from the cache", columns, rows)


def _jobs(sweep: Run) -> list[dict[str, float]]:
    """The metrics of the fits; a comparison has no programs."""
    return [metrics for metrics in sweep.logged if "programs/compiled" in metrics]


def _row(name: str, found: list[Run], models: int) -> tuple[str | float | None, ...]:
    seconds = runs.median(found, lambda run: run.seconds)
    memory = statistics.median(run.megabytes for run in found)
    return name, seconds, seconds / models if seconds else None, memory, found[-1].problem


def _ratio(found: dict[str, list[Run]]) -> float | None:
    ours, theirs = (runs.median(found[name], lambda run: run.seconds) for name in ("sweep", "notebook"))
    return (ours / JOBS) / (theirs / MODELS) if ours and theirs else None


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {name.replace(", ", ".").replace(" ", "_"): value for name, value in metrics.items()}
