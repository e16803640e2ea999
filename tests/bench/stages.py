"""Seconds per stage of a default run: cold, warm in a new process, with another prior value and another seed.

"Cold" starts without a compilation cache. Beside them stand the seconds of `import jax` and of `--help`.
"""

import shutil
import statistics

from bench import runs
from bench.base import Result, Settings, Table
from bench.runs import Run

RUNS = {  # name -> overrides, in the order they are made
    "cold": (),
    "warm": (),
    "other prior value": ("prior.sigma.rate=0.5",),
    "other seed": ("seed=1",),
}


def measure(settings: Settings) -> Result:
    """A column a kind of run; a row a stage."""
    found: dict[str, list[Run]] = {name: [] for name in RUNS}
    small: dict[str, list[Run]] = {"import jax": [], "--help": []}
    for number in range(settings.rounds):
        outputs = settings.scratch / f"stages{number}"
        for name, overrides in RUNS.items():
            asked = ("reuse=false", *overrides)
            found[name].append(runs.poolwise(*asked, outputs=outputs, settings=settings))
        small["import jax"].append(runs.process(("-c", "import jax"), settings))
        small["--help"].append(runs.process(("-m", "poolwise.run", "--help"), settings))
        shutil.rmtree(outputs)
    stages = [key for key in found["warm"][0].metrics if key.startswith(("seconds", "programs/"))]
    rows = [(key, *(_median(each, lambda run, key=key: run.metrics[key]) for each in found.values())) for key in stages]
    rows.append(("verdict printed after", *(_median(each, lambda run: run.verdict or 0.0) for each in found.values())))
    rows.append(("process", *(_median(each, lambda run: run.seconds) for each in found.values())))
    table = Table("stages", f"A default run, stage by stage (median of {settings.rounds})", ("seconds", *RUNS), rows)
    starts = [(name, _median(each, lambda run: run.seconds)) for name, each in small.items()]
    start = Table("start", f"Starting (median of {settings.rounds})", ("process", "seconds"), starts)
    metrics = {
        f"seconds/stages.warm.{key.removeprefix('seconds/')}": row[1] for key, *row in rows if row[1] is not None
    }
    return Result((table, start), (), {name.replace(" ", "_"): value for name, value in metrics.items()})


def _median(found: list[Run], of: object) -> float | None:
    return None if any(run.problem for run in found) else statistics.median(map(of, found))
