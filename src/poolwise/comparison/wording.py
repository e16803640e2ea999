"""The ranking in sentences: what is best, what ties, what is unreliable, and which question each error answers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from poolwise.comparison.agreement import NAME_LENGTH, error, one_model, runs_of_a_model
from poolwise.comparison.candidates import STRATUM
from poolwise.comparison.differences import (
    FEW_ROWS,
    TIE_DIFFERENCE,
    TIE_ERRORS,
    are_same_cells,
    is_tie,
    paired,
    standard_error,
)
from poolwise.comparison.models import COVARIATES, FAILED, GROUPING, PASSED, TRUSTED, ComparedModel, eligible, faults
from poolwise.text import listed, short

# As in ArviZ and R's loo: more than eleven candidates. McLatchie and Vehtari (2024), doi:10.1007/s11222-024-10442-4.
MANY_MODELS = 12
REASON_LENGTH = 160
TIE_RULE = (
    f" A difference does not distinguish two models if it does not exceed {TIE_DIFFERENCE:g} by {TIE_ERRORS:g} Monte "
    f"Carlo errors, or is under {TIE_ERRORS:g} of its errors (standard error and Monte Carlo error together)."
)


def words(models: Sequence[ComparedModel], table: pd.DataFrame, by_groups: pd.DataFrame | None) -> list[str]:
    """All sentences about a comparison.

    Parameters
    ----------
    table, by_groups : the rankings of `ranking.compare`
    """
    table = table.assign(name=[short(name, NAME_LENGTH) for name in table["name"]])
    num_rows = int(models[0].rows.scores.multiplicity.sum())
    if len(models) == 1:
        return one_model(models[0], num_rows)
    lines = [
        *_ranking(table, "elpd_loo", f"{num_rows:,} rows"),
        *_unreliable(table, {model.shown.run_id: model.model_check_reasons for model in models}),
        *runs_of_a_model(models),
        *_groupings(models),
        *_standard_errors(table, num_rows),
    ]
    finite = table.dropna(subset=["elpd_loo"])
    if len(finite) >= MANY_MODELS:
        lines.append(_best_of_many(finite["elpd_loo"].to_numpy()))
    return [*lines, *_new_group(models, by_groups), *_weights(table)]


def _ranking(table: pd.DataFrame, criterion: str, units: str, *, rule: str = TIE_RULE) -> list[str]:
    """The best model, those above it, and those that tie with it or are behind it."""
    table = table.dropna(subset=[criterion])
    fit = table[eligible(table)]
    if fit.empty:
        why = listed([f"{row['name']} ({_faults(row)})" for _, row in table.iterrows()])
        return [
            f"No model is called best: {why}. Differences are to the model with the highest {criterion}, "
            f"{_value(table.iloc[0], criterion)}."
        ]
    best = fit.iloc[0]
    lines = [f"Best of {len(table)} models by {criterion} on {units}: {_value(best, criterion)}."]
    above = table[table["rank"] < best["rank"]]
    if len(above):
        told = listed([f"{_value(row, criterion)}: {_faults(row)}" for _, row in above.iterrows()])
        lines.append(f"Not called best in spite of a higher {criterion}: {told}.")
    return [*lines, *_ties(fit, rule)]


def _ties(fit: pd.DataFrame, rule: str) -> list[str]:
    """The models that tie with the best one, by which rule, and those behind it."""
    best, *others = (row for _, row in fit.iterrows())
    tied = [is_tie(row["elpd_diff"], row["dse"], row["diff_mcse"]) for row in others]
    lines = []
    if any(tied):
        told = listed([_difference(row) for row, is_tied in zip(others, tied, strict=True) if is_tied])
        lines.append(f"Tie with {best['name']}: {told}.{rule}")
    if not all(tied):
        told = listed([_difference(row) for row, is_tied in zip(others, tied, strict=True) if not is_tied])
        lines.append(f"Worse than {best['name']}: {told}.")
    return lines


def _unreliable(table: pd.DataFrame, reasons: Mapping[str, str]) -> list[str]:
    """The models that are suspect, that fail their model check (`reasons` by run id), and without a finite elpd_loo."""
    suspect, failed = table["verdict"] != TRUSTED, table["model_check"] == FAILED
    absent = table["elpd_loo"].isna()
    lines = []
    if not (suspect.any() or failed.any()):
        passed = "pass their model check" if (table["model_check"] == PASSED).all() else "none fails a model check"
        lines.append(f"All are trusted and {passed}.")
    if suspect.any():
        lines.append(f"Suspect sampling, so these values are unreliable: {listed(table['name'][suspect])}.")
    if failed.any():
        told = [
            f"{row['name']} ({short(reasons[row['run_id']], REASON_LENGTH)})" if reasons[row["run_id"]] else row["name"]
            for _, row in table[failed].iterrows()
        ]
        lines.append(f"Failed model check, so these do not describe the data, whatever their rank: {listed(told)}.")
    if absent.any():
        lines.append(f"Not ranked, because their elpd_loo is not finite: {listed(table['name'][absent])}.")
    return lines


def _groupings(models: Sequence[ComparedModel]) -> list[str]:
    """What can be said of models that group the same rows in different ways."""
    first = models[0].rows.scores.cells
    others = [model for model in models if not are_same_cells(first, model.rows.scores.cells)]
    if not others:
        return []
    low, high = _range(first, others[0].rows.scores.cells)
    key = next((key for key in (GROUPING, COVARIATES[0]) if key in models[0].labels), GROUPING)
    ways = listed(dict.fromkeys(model.labels.get(key) or model.name for model in models))
    pair = f"{short(others[0].name, NAME_LENGTH)} and {short(models[0].name, NAME_LENGTH)}"
    return [
        f"The models group the rows in different ways ({key}: {ways}). Their tables have the same "
        f"{' and '.join(STRATUM)} in every row, so their elpd_loo is comparable. Which row of one table is which of "
        f"the other is not recorded: across groupings, se diff is the largest possible (for {pair} {high:.2f}, where "
        f"{low:.2f} is the least), and there are no weights."
    ]


def _range(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """The least and the largest standard error of a difference that the tables allow."""
    low, high = (standard_error(*paired(one, other, is_least=is_least)) for is_least in (True, False))
    return low, high


def _standard_errors(table: pd.DataFrame, num_rows: int) -> list[str]:
    """The question that the standard error of a difference answers, and when it is uncertain itself."""
    lines = []
    wide = table[(table["dse"] > 0) & table["dse_groups"].notna()]
    if len(wide):
        widest = wide.iloc[int(np.argmax(wide["dse_groups"] / wide["dse"]))]
        lines.append(
            "se diff is by row: the error of the difference for further rows of these groups. For rows of other groups "
            "of the same population, use the one by group: "
            f"{widest['dse_groups']:.2f} in place of {widest['dse']:.2f} for {widest['name']}."
        )
    if num_rows < FEW_ROWS:
        lines.append(
            f"With {num_rows} rows, fewer than {FEW_ROWS}, the standard errors of the differences are themselves "
            "uncertain and tend to be too small."
        )
    return lines


def _new_group(models: Sequence[ComparedModel], by_groups: pd.DataFrame | None) -> list[str]:
    """The ranking by groups left out, or how to have one."""
    if by_groups is not None:
        named = by_groups.assign(name=[short(name, NAME_LENGTH) for name in by_groups["name"]])
        num_groups = len(models[0].groups.scores.cells) if models[0].groups else 0
        first, *rest = _ranking(named, "elpd_leave_group_out", f"{num_groups:,} groups", rule="")
        if num_groups < FEW_ROWS:
            rest.append(f"With {num_groups} groups, the standard errors of these differences are uncertain.")
        return [f"For a group that is not in the data: {first[0].lower()}{first[1:]}", *rest]
    return [
        "elpd_loo predicts further rows of the groups in the data. To rank the models for a new group, run each "
        "with checks.leave_group_out=true."
    ]


def _weights(table: pd.DataFrame) -> list[str]:
    if table["weight_stacking"].isna().all():
        return []
    return [
        "Stacking weights give the mixture of models that predicts best. Pseudo-BMA+ weights follow elpd_loo and its "
        "uncertainty. Neither are model probabilities. Of two models with similar predictions stacking may give one "
        "weight zero."
    ]


def _best_of_many(elpd: np.ndarray) -> str:
    """How far the best of many equally good models leads by chance; `elpd` in descending order.

    The differences to the median candidate, folded at their median, give the spread. The largest of K is compared with
    the 1 - 1 / 2K quantile of a normal distribution.
    """
    differences = elpd - elpd[len(elpd) // 2]
    upper = differences[differences >= np.median(differences)]
    by_chance = float(norm.ppf(1 - 1 / (2 * (len(elpd) - 1)), scale=np.sqrt(np.mean(upper**2))))
    judged = "no more than" if differences[0] <= by_chance else "more than"
    return (
        f"Selection among many: the first of {len(elpd)} models leads the median model by {differences[0]:.2f}, "
        f"{judged} the {by_chance:.2f} expected by chance among as many equally good models (McLatchie and Vehtari "
        "2024, doi:10.1007/s11222-024-10442-4). Because it was selected, its elpd_loo is biased upwards."
    )


def _faults(row: pd.Series) -> str:
    """Why a model may not be called best."""
    return faults(row["verdict"], row["model_check"])


def _value(row: pd.Series, criterion: str) -> str:
    return f"{row['name']} ({row[criterion]:.2f}, se {row['se']:.2f})"


def _difference(row: pd.Series) -> str:
    return f"{row['name']} ({row['elpd_diff']:+.2f}, se {row['dse']:.2f}, Monte Carlo error {error(row['diff_mcse'])})"
