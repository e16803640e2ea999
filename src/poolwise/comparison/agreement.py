"""Runs of one model in sentences: what is pooled, and whether the runs agree within Monte Carlo error."""

from collections.abc import Sequence

import numpy as np

from poolwise.checks.agreement import threshold
from poolwise.comparison.models import TRUSTED, ComparedModel, differing, faults
from poolwise.text import listed, short

NAME_LENGTH = 60


def one_model(model: ComparedModel, num_rows: int) -> list[str]:
    """Runs of a single model: their agreement in place of a ranking."""
    scores = model.rows.scores
    elpd, se = scores.total
    lines = [
        f"The {len(model.runs)} runs are one model, so there is nothing to rank. They differ in "
        f"{_within([model])}, which does not change the posterior.",
        f"elpd_loo on {num_rows:,} rows: {elpd:.2f}, se {se:.2f}, Monte Carlo error {error(scores.mcse)}"
        + (f", pooled over {model.num_pooled} runs." if model.num_pooled > 1 else ".")
        + (f" Standard deviation between runs: {model.rows.spread:.2f}." if model.num_pooled > 1 else ""),
        *_agreement([model]),
    ]
    if why := faults(model.verdict, model.model_check):
        lines.append(f"The model is not to be relied on: {why}.")
    return lines


def runs_of_a_model(models: Sequence[ComparedModel]) -> list[str]:
    """What was pooled, if a model has several runs, and whether these agree."""
    several = [model for model in models if len(model.runs) > 1]
    if not several:
        return []
    num_runs = sum(len(model.runs) for model in models)
    return [
        f"{num_runs} runs of {len(models)} models: runs that differ only in {_within(several)} are one model. Its "
        "elpd_loo is pooled over its trusted runs with weights 1 / (Monte Carlo error)².",
        *_agreement(several),
    ]


def _within(models: Sequence[ComparedModel]) -> str:
    """The keys that differ between the runs of a model."""
    keys = dict.fromkeys(key for model in models for key in differing([run.params for run in model.runs]))
    return listed(keys) or "no setting"


def _agreement(models: Sequence[ComparedModel]) -> list[str]:
    """Whether the runs of each model differ by Monte Carlo error only, and which runs are not pooled."""
    lines = []
    compared = [model for model in models if np.isfinite(model.rows.z).any()]
    apart = [model for model in compared if not model.agrees]
    if compared and not apart:
        z = max(np.abs(model.rows.z).max() for model in compared)
        limit = min(threshold(model.num_pooled) for model in compared)
        lines.append(f"The runs of a model agree within Monte Carlo error: |z| at most {z:.1f}, limit {limit:.1f}.")
    for model in apart:
        lines.append(
            f"The runs of {short(model.name, NAME_LENGTH)} differ by more than Monte Carlo error (|z| "
            f"{np.abs(model.rows.z).max():.1f}, limit {threshold(model.num_pooled):.1f}; standard deviation of "
            f"elpd_loo between runs {model.rows.spread:.2f}): at least one of them is wrong, so the model is suspect."
        )
    left = [
        f"{run.name} ({run.run_id[:8]}, {run.verdict if run.verdict != TRUSTED else 'the same draws as another run'})"
        for model in models
        for run in model.runs[model.num_pooled :]
    ]
    return [*lines, f"Not pooled: {listed(left)}."] if left else lines


def error(value: float) -> str:
    """A Monte Carlo error, which older runs did not record."""
    return "unknown" if np.isnan(value) else f"{value:.2f}"
