"""Runs to a ranking of the models that they fit: one row per model, highest elpd first.

Two questions have an answer each. elpd_loo, by rows left out: which model predicts further rows of these groups?
elpd_leave_group_out, where every model has it: which predicts a group that is not in the data?
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from poolwise.comparison import wording
from poolwise.comparison.candidates import Candidate, ComparisonError, check_same_rows, in_common_cells
from poolwise.comparison.differences import are_same_cells, difference
from poolwise.comparison.models import SUSPECT, ComparedModel, differing, eligible, models_of
from poolwise.comparison.scores import Scores, rows_left_out
from poolwise.comparison.weights import weights
from poolwise.text import listed

ROWS, GROUPS = "elpd_loo", "elpd_leave_group_out"  # the criteria, as the columns and metrics that hold them


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes
    ----------
    table : one row per model, highest elpd_loo first; see `compare`
    by_groups : the same by groups left out; None unless every model has a run with them
    runs : one row per run, in the order of the table; see `compare`
    labels : the config keys that distinguish the models; columns of the tables
    differing : one row per config key that differs, one column per run; empty if a run does not have the key
    words : the ranking in sentences
    best : run id of the best model that is trusted and does not fail its model check, or empty
    num_rows : rows of data in every elpd_loo
    """

    table: pd.DataFrame
    by_groups: pd.DataFrame | None
    runs: pd.DataFrame
    labels: tuple[str, ...]
    differing: pd.DataFrame
    words: list[str]
    best: str
    num_rows: int


def compare(candidates: Sequence[Candidate]) -> Comparison:
    """Rank models by elpd_loo, their leave-one-out predictive accuracy.

    Runs that differ in nothing that decides the posterior are one model (`models.NOT_OF_A_MODEL`), whose scores are
    pooled (`scores.pooled`). The columns of the table:

    * rank, name : from 1; the values of the labels in a line
    * a column per label : the config keys that distinguish the models
    * runs : of the model
    * elpd_loo, se, mcse : pooled, with its standard error (ddof=1) and its Monte Carlo standard error
    * elpd_diff, dse, dse_groups, diff_mcse, p_worse, diag_diff : from the best model, or from the first if none may be
      called best; see `differences.Difference`
    * spread : standard deviation of elpd_loo between the runs of the model
    * weight_stacking, weight_pseudo_bma_plus : none if the models group the rows in different ways
    * p_loo, pareto_k_max, pareto_k_bad : the largest over the pooled runs
    * verdict, model_check : of the pooled runs together
    * run_id : of the run that stands for the model

    A model with a non-finite elpd_loo comes last, without difference and weights. The columns of the runs: rank, name,
    the keys that differ within a model, elpd_loo, mcse, z (of its distance from the pooled value), used (for the
    pooled value), verdict, model_check, run_id.

    Raises
    ------
    ComparisonError
        if there are fewer than two different runs, or they were fitted to different tables.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27(5), doi:10.1007/s11222-016-9696-4.
    """
    runs = list({each.run_id: each for each in candidates}.values())
    if len(runs) < 2:
        named = f"only {runs[0].name} ({runs[0].run_id}) was given" if runs else "none was given"
        raise ComparisonError(f"a comparison needs two different runs; {named}. Name another finished run.")
    check_same_rows(runs)
    models = models_of(in_common_cells(runs))
    entries = _ordered([(model, model.rows.scores, model.verdict) for model in models])
    finite = [scores.is_finite for _, scores, _ in entries]
    if sum(finite) < min(2, len(models)):
        unusable = listed([model.name for (model, *_), ok in zip(entries, finite, strict=True) if not ok])
        raise ComparisonError(f"fewer than two models have a finite elpd_loo (not finite: {unusable}). Refit these.")
    models = [model for model, _, _ in entries]
    table = _with_weights(_table(entries, ROWS), models)
    by_groups = _by_groups(models)
    return Comparison(
        table=table,
        by_groups=by_groups,
        runs=_runs(models),
        labels=tuple(models[0].labels),
        differing=_differing([run for model in models for run in model.runs]),
        words=wording.words(models, table, by_groups),
        best=_best(table),
        num_rows=int(models[0].rows.scores.multiplicity.sum()),
    )


type _Entry = tuple[ComparedModel, Scores, str]  # a model, its scores by one criterion, and the verdict on these


def _ordered(entries: Sequence[_Entry]) -> list[_Entry]:
    """The entries, highest elpd first; those without one last."""
    return sorted(entries, key=lambda each: (not each[1].is_finite, -np.nan_to_num(each[1].total[0]), each[0].name))


def _table(entries: Sequence[_Entry], criterion: str) -> pd.DataFrame:
    """The columns that every criterion has."""
    models, scores, verdicts = zip(*entries, strict=True)
    judged = pd.DataFrame({"verdict": verdicts, "model_check": [model.model_check for model in models]})
    reference = scores[int(np.argmax(eligible(judged)))]  # the first, if none is eligible
    apart = pd.DataFrame([asdict(difference(each, reference)) for each in scores])
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(models) + 1),
            "name": [model.name for model in models],
            **{key: [model.labels[key] for model in models] for key in models[0].labels},
            "runs": [len(model.runs) for model in models],
            criterion: [each.total[0] for each in scores],
            "se": [each.total[1] for each in scores],
            "mcse": [each.mcse for each in scores],
            **apart,
            **judged,
            "run_id": [model.shown.run_id for model in models],
        }
    )


def _with_weights(table: pd.DataFrame, models: Sequence[ComparedModel]) -> pd.DataFrame:
    """The table with the weights and what is known of elpd_loo alone."""
    first = models[0].rows.scores
    num_finite = sum(model.rows.scores.is_finite for model in models)
    found = np.full((2, len(models)), np.nan)
    if len(models) > 1 and all(are_same_cells(model.rows.scores.cells, first.cells) for model in models):
        values = np.stack([model.rows.scores.values for model in models[:num_finite]], axis=1)
        found[:, :num_finite] = weights(values, first.multiplicity)
    more = pd.DataFrame(
        {
            "spread": [model.rows.spread for model in models],
            "weight_stacking": found[0],
            "weight_pseudo_bma_plus": found[1],
            "p_loo": [np.max([run.p_loo for run in model.pooled_runs]) for model in models],
            "pareto_k_max": [np.max([run.k_max for run in model.pooled_runs]) for model in models],
            "pareto_k_bad": [np.max([run.k_bad for run in model.pooled_runs]) for model in models],
        }
    )
    place = list(table.columns).index("verdict")
    return pd.concat([table.iloc[:, :place], more, table.iloc[:, place:]], axis=1)


def _by_groups(models: Sequence[ComparedModel]) -> pd.DataFrame | None:
    """The ranking by groups left out, if every model has a run with them and the groups are the same."""
    entries = [
        (model, model.groups.scores, SUSPECT if model.suspect_groups else model.verdict)
        for model in models
        if model.groups is not None
    ]
    is_whole = len(entries) == len(models) > 1
    if not is_whole or not all(are_same_cells(each.cells, entries[0][1].cells) for _, each, _ in entries):
        return None
    return _table(_ordered(entries), GROUPS)


def _best(table: pd.DataFrame) -> str:
    """The run id of the best model that may be called best; nothing if there is one model only."""
    found = table["run_id"][eligible(table)]
    return str(found.iloc[0]) if len(found) and len(table) > 1 else ""


def _runs(models: Sequence[ComparedModel]) -> pd.DataFrame:
    """The table of the runs."""
    within = dict.fromkeys(key for model in models for key in differing([run.params for run in model.runs]))
    rows = [
        {
            "rank": place,
            "name": run.name,
            **{key: run.params.get(key, "") for key in within},
            ROWS: rows_left_out(run).total[0],
            "mcse": run.mcse,
            "z": model.rows.z[k] if k < model.num_pooled else np.nan,
            "used": k < model.num_pooled,
            "verdict": run.verdict,
            "model_check": run.model_check,
            "run_id": run.run_id,
        }
        for place, model in enumerate(models, 1)
        for k, run in enumerate(model.runs)
    ]
    return pd.DataFrame(rows)


def _differing(runs: Sequence[Candidate]) -> pd.DataFrame:
    times = Counter(run.name for run in runs)
    names = [run.name if times[run.name] == 1 else f"{run.name} ({run.run_id[:6]})".strip() for run in runs]
    rows = differing([run.params for run in runs])
    return pd.DataFrame.from_dict(rows, orient="index", columns=names, dtype=str).rename_axis("key")
