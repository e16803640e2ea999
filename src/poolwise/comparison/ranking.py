"""Pointwise elpd of several runs to a ranking, the settings that differ, and sentences about both.

The runs must be fitted to the same data: values are aligned by cell, and a cell of multiplicity m represents m rows.
ArviZ compares the rows. If there are too many, the same formulas are applied to the cells,

    difference = sum_c m_c (a_c - b_c),    its se^2 = N Var_m(a - b),    N = sum_c m_c,

with Var_m the variance under the weights m_c / N.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.loo import compare as arviz_compare
from arviz_stats.utils import ELPDDataLOO
from scipy.optimize import Bounds, LinearConstraint, minimize
from scipy.stats import norm

from poolwise.checks.loo import weighted_sum
from poolwise.errors import RequestError
from poolwise.text import aligned, listed, short
from poolwise.text import markdown as markdown_table

__all__ = [
    "Candidate",
    "Comparison",
    "ComparisonError",
    "cells",
    "compare",
    "is_tie",
    "markdown",
    "read_pointwise",
    "telling",
    "text",
]

# Sivula, Magnusson, Matamoros and Vehtari, arXiv:2008.10296: below 4 the error of a difference
# is not known well enough to distinguish two models, and with few rows its se is too small.
TIE_DIFFERENCE, TIE_ERRORS = 4.0, 2.0
FEW_ROWS = 100
# As in ArviZ and R's loo: more than eleven candidates. McLatchie and Vehtari (2024), doi:10.1007/s11222-024-10442-4.
MANY_RUNS = 12

ROWS_TIMES_RUNS = 1_000_000  # above it the cells are compared: ArviZ takes about 2 s for this many values
LEAST = -700.0  # its exp is near the smallest normal number: a row that is impossible under a model
SHOWN = 20  # rows of the Markdown table
WIDTH = 120  # characters of a printed line
CELL = ["group", "exposure", "count"]


class ComparisonError(RequestError):
    """The runs cannot be compared: too few, different data, or different cells."""


@dataclass(frozen=True)
class Candidate:
    """A run to compare.

    Attributes
    ----------
    data_sha256 : of the canonical cells that the run was fitted to
    verdict : `trusted` or `suspect`
    params : every leaf of the resolved config, dotted
    p_loo, k_max : effective number of parameters; the largest Pareto k
    pointwise : one row per cell: group, exposure, count, multiplicity, elpd (of one of its rows, left out), pareto_k
    """

    run_id: str
    name: str
    data_sha256: str
    verdict: str
    params: dict[str, str]
    p_loo: float
    k_max: float
    pointwise: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes
    ----------
    table : one row per run, highest elpd_loo first; see `compare`
    differing : one row per config key that differs, one column per run; empty if a run does not have the key
    words : the ranking in sentences
    best : run id of the best trusted run, or empty
    num_rows : rows of data in every elpd_loo
    """

    table: pd.DataFrame
    differing: pd.DataFrame
    words: list[str]
    best: str
    num_rows: int


@dataclass(frozen=True)
class _Against:
    """Every run against the reference, and the weights, each (K,)."""

    elpd_diff: np.ndarray
    dse: np.ndarray
    stacking: np.ndarray
    pseudo_bma: np.ndarray


def read_pointwise(path: Path) -> pd.DataFrame:
    """Read `loo/pointwise.csv`: labels as text (a group may be called NA), numbers exactly as written."""
    numbers = {name: ["", "nan", "NaN"] for name in ("elpd", "pareto_k")}
    return pd.read_csv(path, dtype={"group": str}, keep_default_na=False, na_values=numbers)


def compare(candidates: Sequence[Candidate]) -> Comparison:
    """Rank runs by elpd_loo, their leave-one-out predictive accuracy.

    The columns of the table:

    * rank, name : from 1; a name shared by several runs is followed by the beginning of the run id
    * elpd_loo, se : as logged with the run; the se is sqrt(N) times the standard deviation of the rows with ddof=1
    * elpd_diff, dse : elpd_loo minus that of the best trusted run (of the first, if none is trusted), and the
      standard error of this difference, with ddof=0 as in ArviZ and the formula above
    * weight_stacking, weight_pseudo_bma : weights of the runs in a mixture, as computed by ArviZ
    * p_loo, pareto_k_max, verdict, run_id

    A run with a non-finite elpd_loo comes last, without difference and weights.

    Raises
    ------
    ComparisonError
        if there are fewer than two different runs, or they were fitted to different data.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27(5), doi:10.1007/s11222-016-9696-4.
    Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13(3), doi:10.1214/17-BA1091: the weights.
    """
    runs = list({each.run_id: each for each in candidates}.values())
    if len(runs) < 2:
        named = f"only {runs[0].name} ({runs[0].run_id}) was given" if runs else "none was given"
        raise ComparisonError(f"a comparison needs two different runs; {named}. Name another finished run.")
    _check_data(runs)
    labels = _labels(runs)
    values, multiplicity = _aligned(runs)  # (C, K), (C,)
    finite = np.isfinite(values).all(axis=0)
    totals = [
        weighted_sum(np.ascontiguousarray(column), multiplicity) if is_finite else (np.nan, np.nan)
        for column, is_finite in zip(values.T, finite, strict=True)
    ]
    order = sorted(range(len(runs)), key=lambda k: (not finite[k], -totals[k][0] if finite[k] else 0.0, labels[k]))
    ranked = [k for k in order if finite[k]]
    if len(ranked) < 2:
        unusable = listed([labels[k] for k in order if not finite[k]])
        raise ComparisonError(f"fewer than two runs have a finite elpd_loo (not finite: {unusable}). Refit these.")
    best = next((k for k in ranked if runs[k].verdict == "trusted"), None)
    reference = ranked.index(best) if best is not None else 0
    found = _against(values[:, ranked], multiplicity, reference)
    table = _table([runs[k] for k in order], [labels[k] for k in order], [totals[k] for k in order], found)
    return Comparison(
        table=table,
        differing=_differing([runs[k].params for k in order], [labels[k] for k in order]),
        words=_words(table, int(multiplicity.sum())),
        best=runs[best].run_id if best is not None else "",
        num_rows=int(multiplicity.sum()),
    )


def is_tie(elpd_diff: float, dse: float) -> bool:
    """Whether a difference is too small to distinguish two models: under 4, or under 2 of its standard errors."""
    return abs(elpd_diff) < TIE_DIFFERENCE or abs(elpd_diff) < TIE_ERRORS * dse


def telling(names: Sequence[str]) -> list[str]:
    """The names without the words common to all of them, except the first: the parts that distinguish the runs."""
    words = [name.split() for name in names]
    common = set.intersection(*(set(each[1:]) for each in words))
    return [" ".join(word for i, word in enumerate(each) if i == 0 or word not in common) for each in words]


def cells(table: pd.DataFrame) -> list[list[str]]:
    """The table as strings, with its header; a suspect verdict is in capitals."""
    numbers = {
        "elpd_loo": ("elpd_loo", ".2f"),
        "se": ("se", ".2f"),
        "elpd_diff": ("diff", "+.2f"),
        "dse": ("se diff", ".2f"),
        "p_loo": ("p_loo", ".2f"),
        "weight_stacking": ("stacking", ".3f"),
        "weight_pseudo_bma": ("ps.-BMA", ".3f"),
        "pareto_k_max": ("max k", ".2f"),
    }
    rows = [["#", "run", *(name for name, _ in numbers.values()), "verdict", "run id"]]
    for name, (_, row) in zip(telling(list(table["name"])), table.iterrows(), strict=True):
        values = [format(row[column], form) if pd.notna(row[column]) else "-" for column, (_, form) in numbers.items()]
        verdict = row["verdict"] if row["verdict"] == "trusted" else row["verdict"].upper()
        rows.append([str(row["rank"]), name, *values, verdict, row["run_id"][:8]])
    return rows


def text(table: pd.DataFrame) -> str:
    """The table in aligned columns, at most 120 characters wide: long names are shortened in the middle."""
    columns = [list(column) for column in zip(*cells(table), strict=True)]
    widths = [max(map(len, column)) for column in columns]
    room = max(12, WIDTH - sum(widths) + widths[1] - 2 * (len(widths) - 1))
    columns[1] = [short(name, room) for name in columns[1]]
    return "\n".join(aligned(list(zip(*columns, strict=True)), left=_left(len(columns))))


def markdown(table: pd.DataFrame, links: Mapping[str, str] | None = None) -> str:
    """The table in Markdown; at most `SHOWN` runs.

    Parameters
    ----------
    links : run id -> address of the run
    """
    head, *rows = cells(table)
    shown = []
    for run_id, row in zip(table["run_id"].head(SHOWN), rows, strict=False):
        address = (links or {}).get(run_id)
        shown.append([row[0], short(row[1], 60), *row[2:-1], f"[{row[-1]}]({address})" if address else row[-1]])
    rest = len(rows) - SHOWN
    more = f"\n\nand {rest} more in tables/comparison.csv" if rest > 0 else ""
    return "\n".join(markdown_table(head, shown, left=_left(len(head)))) + more


def _left(num_columns: int) -> set[int]:
    """The columns of text: names, verdicts and run ids."""
    return {1, num_columns - 2, num_columns - 1}


def _check_data(runs: Sequence[Candidate]) -> None:
    by_digest: dict[str, list[str]] = {}
    for run in runs:
        by_digest.setdefault(run.data_sha256, []).append(f"{run.name} ({run.run_id})")
    if len(by_digest) > 1:
        parts = [f"{digest or 'no digest'}: {listed(names)}" for digest, names in by_digest.items()]
        raise ComparisonError(
            f"the runs were fitted to different data: {'; '.join(parts)}. Compare runs of one data_sha256 only."
        )


def _labels(runs: Sequence[Candidate]) -> list[str]:
    """A unique name for every run."""
    times = Counter(run.name for run in runs)
    return [run.name if run.name and times[run.name] == 1 else f"{run.name} ({run.run_id[:6]})".strip() for run in runs]


def _aligned(runs: Sequence[Candidate]) -> tuple[np.ndarray, np.ndarray]:
    """Elpd of the cells by run, (C, K), in the order of the first run's cells, and their multiplicity, (C,)."""
    first = _indexed(runs[0])
    columns = []
    for run in runs:
        cells = _indexed(run)
        odd = first.index.symmetric_difference(cells.index, sort=False)
        if len(odd):
            raise _misaligned(runs[0], run, odd[0], "is in only one of the two")
        cells = cells.loc[first.index]
        unequal = (cells["multiplicity"] != first["multiplicity"]).to_numpy()
        if unequal.any():
            raise _misaligned(runs[0], run, first.index[unequal][0], "has different multiplicities")
        columns.append(cells["elpd"].to_numpy(float))
    return np.stack(columns, axis=1), first["multiplicity"].to_numpy(float)


def _indexed(run: Candidate) -> pd.DataFrame:
    cells = run.pointwise.set_index(CELL)
    if cells.index.has_duplicates:
        cell = cells.index[cells.index.duplicated()][0]
        raise ComparisonError(f"loo/pointwise.csv of {run.run_id} has {_cell(cell)} twice. Repeat the run.")
    return cells


def _misaligned(one: Candidate, other: Candidate, cell: tuple, how: str) -> ComparisonError:
    return ComparisonError(
        f"loo/pointwise.csv of {one.name} ({one.run_id}) and {other.name} ({other.run_id}) do not have the same "
        f"cells: {_cell(cell)} {how}. Repeat the damaged run."
    )


def _cell(cell: tuple) -> str:
    return f"the cell (group {cell[0]}, exposure {cell[1]:g}, count {cell[2]})"


def _against(values: np.ndarray, multiplicity: np.ndarray, reference: int) -> _Against:
    num_values = multiplicity.sum() * values.shape[1]
    return (_by_rows if num_values <= ROWS_TIMES_RUNS else _by_cells)(values, multiplicity, reference)


def _by_rows(values: np.ndarray, multiplicity: np.ndarray, reference: int) -> _Against:
    """ArviZ's comparison of the rows."""
    names = [str(k) for k in range(values.shape[1])]
    rows = np.repeat(values, multiplicity.astype(int), axis=0)  # (N, K)
    plain = _arviz(rows, names, "pseudo-BMA", names[reference])
    stacked = _arviz(_relative(rows), names, "stacking", names[reference])
    columns = [plain["elpd_diff"], plain["dse"], stacked["weight"], plain["weight"]]
    return _Against(*(column.loc[names].to_numpy(float) for column in columns))


def _arviz(rows: np.ndarray, names: Sequence[str], method: str, reference: str) -> pd.DataFrame:
    results = {
        name: ELPDDataLOO(
            elpd=float(rows[:, k].sum()),
            se=float("nan"),  # not used by these methods; the table has its own se
            p=float("nan"),
            n_samples=0,
            n_data_points=len(rows),
            scale="log",
            warning=False,
            good_k=float("nan"),
            elpd_i=xr.DataArray(rows[:, k], dims="row"),
        )
        for k, name in enumerate(names)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about many candidates: see `_best_of_many`
        return arviz_compare(results, method=method, reference=reference, round_to="none")


def _by_cells(values: np.ndarray, multiplicity: np.ndarray, reference: int) -> _Against:
    """ArviZ's formulas on weighted cells."""
    differences = values - values[:, [reference]]  # (C, K)
    elpd, total, num_rows = multiplicity @ values, multiplicity @ differences, multiplicity.sum()
    squares = multiplicity @ (differences - total / num_rows) ** 2
    scaled = np.exp(elpd - elpd.max())
    return _Against(total, np.sqrt(squares), _stacking(values, multiplicity), scaled / scaled.sum())


def _stacking(values: np.ndarray, multiplicity: np.ndarray) -> np.ndarray:
    """Weights of the mixture with the highest log score; set up as in ArviZ, so the optimiser takes the same steps.

    `values` are sorted by elpd, highest first, as in ArviZ.
    """
    density, num_runs = np.exp(_relative(values)), values.shape[1]  # (C, K)
    found = minimize(
        fun=lambda weights: -(multiplicity @ np.log(density @ weights)),
        jac=lambda weights: -(multiplicity @ (density / (density @ weights)[:, None])),
        x0=np.full(num_runs, 1 / num_runs),
        bounds=Bounds(lb=np.zeros(num_runs), ub=np.ones(num_runs)),
        constraints=LinearConstraint(np.ones(num_runs), lb=1.0, ub=1.0),
    )
    return found["x"]


def _relative(values: np.ndarray) -> np.ndarray:
    """Values minus the best of their row: keeps the stacking weights and prevents underflow of exp."""
    return np.maximum(values - values.max(axis=1, keepdims=True), LEAST)


def _table(
    runs: Sequence[Candidate], labels: Sequence[str], totals: Sequence[tuple[float, float]], found: _Against
) -> pd.DataFrame:
    def filled(column: np.ndarray) -> np.ndarray:
        return np.append(column, np.full(len(runs) - len(column), np.nan))

    return pd.DataFrame(
        {
            "rank": np.arange(1, len(runs) + 1),
            "name": list(labels),
            "elpd_loo": [elpd for elpd, _ in totals],
            "se": [se for _, se in totals],
            "elpd_diff": filled(found.elpd_diff),
            "dse": filled(found.dse),
            "p_loo": [run.p_loo for run in runs],
            "weight_stacking": filled(found.stacking),
            "weight_pseudo_bma": filled(found.pseudo_bma),
            "pareto_k_max": [run.k_max for run in runs],
            "verdict": [run.verdict for run in runs],
            "run_id": [run.run_id for run in runs],
        }
    )


def _differing(params: Sequence[Mapping[str, str]], labels: Sequence[str]) -> pd.DataFrame:
    keys = dict.fromkeys(key for each in params for key in each)
    rows = {key: [each.get(key, "") for each in params] for key in keys}
    rows = {key: values for key, values in rows.items() if len(set(values)) > 1}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(labels), dtype=str).rename_axis("key")


def _words(table: pd.DataFrame, num_rows: int) -> list[str]:
    """The ranking in sentences."""
    table = table.assign(name=[short(name, 60) for name in telling(list(table["name"]))])
    ranked = table.dropna(subset=["elpd_loo"])
    trusted, suspect = ranked[ranked["verdict"] == "trusted"], table[table["verdict"] != "trusted"]
    lines = _best(ranked, trusted, num_rows)
    if not trusted.empty:
        lines += _ties(trusted)
    if len(suspect):
        lines.append(f"Suspect, so their values are unreliable: {listed(suspect['name'])}.")
    if len(ranked) < len(table):
        names = listed(table["name"][len(ranked) :])
        lines.append(f"Not ranked, because their elpd_loo is not finite: {names}.")
    if num_rows < FEW_ROWS:
        lines.append(
            f"With {num_rows} rows, fewer than {FEW_ROWS}, the standard errors of the differences are themselves "
            "uncertain and tend to be too small."
        )
    if len(ranked) >= MANY_RUNS:
        lines.append(_best_of_many(ranked["elpd_loo"].to_numpy()))
    lines.append(
        "Weights are not model probabilities: they give the mixture that predicts best. Of two models with similar "
        "predictions one may get weight zero."
    )
    return lines


def _best(ranked: pd.DataFrame, trusted: pd.DataFrame, num_rows: int) -> list[str]:
    if trusted.empty:
        return [
            f"No run is trusted, so none is called best. Differences are to the run with the highest elpd_loo, "
            f"{_value(ranked.iloc[0])}."
        ]
    best = trusted.iloc[0]
    lines = [f"Best of {len(ranked)} runs by elpd_loo on {num_rows:,} rows: {_value(best)}."]
    above = [_value(row) for _, row in ranked[ranked["rank"] < best["rank"]].iterrows()]
    if above:
        lines.append(
            f"{'A suspect run has' if len(above) == 1 else 'Suspect runs have'} a higher elpd_loo and "
            f"{'is' if len(above) == 1 else 'are'} therefore not called best: {listed(above)}."
        )
    return lines


def _ties(trusted: pd.DataFrame) -> list[str]:
    """The trusted runs that tie with the best one, and those behind it."""
    best, *others = (row for _, row in trusted.iterrows())
    tied = [row for row in others if is_tie(row["elpd_diff"], row["dse"])]
    behind = [row for row in others if not is_tie(row["elpd_diff"], row["dse"])]
    lines = []
    if tied:
        lines.append(
            f"Tie with {best['name']}: {listed([_difference(row) for row in tied])}. A difference under "
            f"{TIE_DIFFERENCE:g}, or under {TIE_ERRORS:g} of its standard errors, does not distinguish two models."
        )
    if behind:
        lines.append(f"Worse than {best['name']}: {listed([_difference(row) for row in behind])}.")
    return lines


def _best_of_many(elpd: np.ndarray) -> str:
    """How far the best of many equally good runs leads by chance; `elpd` in descending order.

    The differences to the median candidate, folded at their median, give the spread. The largest of K is compared with
    the 1 - 1 / 2K quantile of a normal distribution.
    """
    differences = elpd - elpd[len(elpd) // 2]
    upper = differences[differences >= np.median(differences)]
    by_chance = float(norm.ppf(1 - 1 / (2 * (len(elpd) - 1)), scale=np.sqrt(np.mean(upper**2))))
    judged = "no more than" if differences[0] <= by_chance else "more than"
    return (
        f"Selection among many: the first of {len(elpd)} runs leads the median run by {differences[0]:.2f}, {judged} "
        f"the {by_chance:.2f} expected by chance among as many equally good runs (McLatchie and Vehtari 2024, "
        "doi:10.1007/s11222-024-10442-4). Because it was selected, its elpd_loo is biased upwards."
    )


def _value(row: pd.Series) -> str:
    return f"{row['name']} ({row['elpd_loo']:.2f}, se {row['se']:.2f})"


def _difference(row: pd.Series) -> str:
    return f"{row['name']} ({row['elpd_diff']:+.2f}, se {row['dse']:.2f})"
