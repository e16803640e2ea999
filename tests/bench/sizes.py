"""Cost of whole runs against the number of rows, and against the number of groups.

Every case is a process of its own, and takes turns with a default run of the cookies: the column "x default" compares
the two in the same minutes. Tables are simulated from the hierarchical Poisson model.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from bench import runs
from bench.base import Curves, Result, Settings, Table
from bench.runs import Run

ROWS, GROUPS_OF_ROWS = (10**3, 10**4, 10**5, 10**6, 10**7), 20
GROUPS = (10, 10**2, 10**3, 10**4, 10**5, 10**6)
CASES = ("nuts", 5), ("exact", 5), ("exact", 1)  # sampler and rows of a group
STAGES = ("read", "sample", "check", "figures")  # of a run, as it logs them: `seconds/<stage>`
TABLE = ("data=table", "data.group=group", "data.count=count")


def rows(settings: Settings) -> Result:
    """Default runs of tables with 20 groups and more and more rows."""
    measured = list(growing(ROWS, "notebook", lambda size: (GROUPS_OF_ROWS, size // GROUPS_OF_ROWS), settings))
    table = table_of("rows", f"Whole runs against rows ({GROUPS_OF_ROWS} groups, default NUTS)", "rows", measured)
    curves = curves_of("rows", "Whole runs against rows", "rows", {"default run": measured})
    return Result((table,), curves, metrics_of("rows", measured))


def groups(settings: Settings) -> Result:
    """Runs of tables with more and more groups, by both engines."""
    tables, series, metrics = [], {}, {}
    for sampler, each in CASES:
        name = f"groups_{sampler}_{each}"
        choice = "notebook" if sampler == "nuts" else sampler
        measured = list(growing(GROUPS, choice, lambda size, each=each: (size, each), settings))
        title = f"Whole runs against groups (sampler={choice}, {each} row{'s' * (each > 1)} a group)"
        tables.append(table_of(name, title, "groups", measured))
        series[f"{sampler}, {each} row{'s' * (each > 1)} a group"] = measured
        metrics |= metrics_of(name, measured)
    return Result(tuple(tables), curves_of("groups", "Whole runs against groups", "groups", series), metrics)


Measured = tuple[int, list[Run], list[Run]]  # size, its runs, the default runs beside them


def growing(sizes: Sequence[int], sampler: str, shape: object, settings: Settings) -> Iterator[Measured]:
    """Sizes up to `settings.most`, until one does not finish."""
    default = settings.scratch / "default"
    runs.poolwise(outputs=default, settings=settings)  # compiles
    for size in sizes:
        if size > settings.most:
            return
        path = simulate(*shape(size), folder=settings.scratch)
        outputs = settings.scratch / f"{sampler}-{path.stem}"
        beside: list[Run] = []

        def run(seed: int, path: Path = path, outputs: Path = outputs, beside: list[Run] = beside) -> Run:
            if seed:
                beside.append(runs.poolwise(f"seed={seed}", outputs=default, settings=settings))
            asked = (*TABLE, f"data.path={path}", f"sampler={sampler}", f"seed={seed}")
            return runs.poolwise(*asked, outputs=outputs, settings=settings)

        found = runs.repeated(run, settings)
        path.unlink()
        yield size, found, beside
        if found[-1].problem:
            return


def simulate(num_groups: int, rows_each: int, *, folder: Path) -> Path:
    """A CSV of counts in groups whose rates have mean 9 and standard deviation 3; rows in random order."""
    rng = np.random.default_rng([num_groups, rows_each])
    group = np.repeat(np.arange(num_groups), rows_each)
    rng.shuffle(group)
    count = rng.poisson(rng.gamma(9.0, 1.0, num_groups)[group])
    path = folder / f"{num_groups}x{rows_each}.csv"
    csv.write_csv(pa.table({"group": group, "count": count}), path)
    return path


def table_of(name: str, title: str, what: str, measured: Sequence[Measured]) -> Table:
    """A row a size."""
    columns = (what, "seconds", *STAGES, "x default", "less reading", "MB", "rounds", "note")
    return Table(name, title, columns, [_row(*each) for each in measured])


def _row(size: int, found: Sequence[Run], beside: Sequence[Run]) -> tuple[str | float | None, ...]:
    whole = runs.median(found, lambda run: run.seconds)
    default = runs.median(beside, lambda run: run.seconds)
    stages = [runs.median(found, lambda run, stage=stage: run.metrics.get(f"seconds/{stage}", 0.0)) for stage in STAGES]
    ratio = whole / default if whole and default else None
    without = (whole - stages[0]) / default if whole and default and stages[0] is not None else None
    problem = found[-1].problem
    return f"{size:,}", whole, *stages, ratio, without, _peak(found), f"{len(found)}" if whole else "-", problem


def _peak(found: Sequence[Run]) -> float:
    return statistics.median(run.megabytes for run in found)


def metrics_of(name: str, measured: Sequence[Measured]) -> dict[str, float]:
    """Seconds and memory of the sizes that finished."""
    found = {}
    for size, each, _ in measured:
        if not each[-1].problem:
            found[f"seconds/{name}.{size}"] = statistics.median(run.seconds for run in each)
            found[f"megabytes/{name}.{size}"] = _peak(each)
    return found


def curves_of(name: str, title: str, x: str, series: dict[str, Sequence[Measured]]) -> tuple[Curves, Curves]:
    """Seconds and memory of the sizes that finished."""

    def points(measured: Sequence[Measured], of: object) -> list[tuple[float, float]]:
        kept = [(size, runs.median(found, of)) for size, found, _ in measured]
        return [(float(size), value) for size, value in kept if value is not None]

    seconds = {label: points(measured, lambda run: run.seconds) for label, measured in series.items()}
    memory = {label: points(measured, lambda run: run.megabytes) for label, measured in series.items()}
    return (
        Curves(f"{name}_seconds", f"{title}: seconds", x, "seconds of the process", seconds),
        Curves(f"{name}_memory", f"{title}: memory", x, "largest resident memory, MB", memory),
    )
