"""Runs to compare, made up: what several test files of the comparison need."""

from dataclasses import replace

import numpy as np
import pandas as pd

from poolwise.comparison.candidates import Candidate

NUM_CELLS = 40
MULTIPLICITY = np.random.default_rng(3).integers(1, 6, NUM_CELLS)  # 120 rows or so


def pointwise(elpd, multiplicity=MULTIPLICITY) -> pd.DataFrame:
    number = np.arange(len(elpd))
    return pd.DataFrame(
        {
            "group": [f"{n % 3}" for n in number],
            "exposure": 1.0,
            "count": number,
            "multiplicity": multiplicity[: len(elpd)],
            "elpd": elpd,
            "pareto_k": 0.1,
        }
    )


def candidate(model: str, elpd, **changes) -> Candidate:
    """A trusted run of a model; runs of other models differ in the pooling's name."""
    base = Candidate(
        run_id=f"id-of-{model}",
        name=model,
        data_sha256="d1",
        verdict="trusted",
        params={"pooling.name": model, "seed": "0", "data.name": "cookies"},
        pointwise=pointwise(elpd),
        model_check="passed",
        mcse=0.05,
        p_loo=2.0,
        k_max=0.3,
    )
    return replace(base, **changes)


def noisy(num_runs: int, *, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    """Elpd of the cells by run, (C, K): rows differ much, runs little, as in real comparisons."""
    rng = np.random.default_rng(seed)
    return -2.5 - rng.exponential(1.0, (NUM_CELLS, 1)) + rng.normal(0, spread, (NUM_CELLS, num_runs))


def candidates(values: np.ndarray, **changes) -> list[Candidate]:
    return [candidate(f"m{k}", values[:, k], **changes) for k in range(values.shape[1])]


def shifted(*differences: float, **changes) -> list[Candidate]:
    """Runs m0, m1, ... whose elpd_loo differ from the first's by so much, each with no standard error."""
    base, num_rows = noisy(1)[:, 0], MULTIPLICITY.sum()
    return candidates(np.stack([base + each / num_rows for each in (0.0, *differences)], axis=1), **changes)


def again(run: Candidate, *, seed: int, ahead: float = 0.0, **changes) -> Candidate:
    """The same model with another seed, its elpd_loo ahead by so much."""
    elpd = run.pointwise["elpd"] + ahead / run.pointwise["multiplicity"].sum()
    return replace(
        run,
        run_id=f"{run.run_id}-{seed}",
        params=run.params | {"seed": str(seed)},
        pointwise=run.pointwise.assign(elpd=elpd),
        **changes,
    )
