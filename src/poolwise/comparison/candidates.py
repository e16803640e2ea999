"""Runs that can be compared, and the refusal of those that cannot.

elpd_loo adds up over rows, so two values are comparable if they belong to the same rows. Runs on one table have the
same cells. Runs that group the rows of one table in different ways have the same counts and exposures. The cells of a
run with covariates are parts of those of a run without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from poolwise.errors import RequestError
from poolwise.text import listed, number_of

CELL = ["group", "exposure", "count"]
DESIGN = "x."  # before the name of an effect, in a column of the design matrix
STRATUM = ["exposure", "count"]  # what the cells of a row have in common under every grouping


class ComparisonError(RequestError):
    """The runs cannot be compared: too few, different tables, or a damaged record."""


@dataclass(frozen=True)
class Candidate:
    """A run to compare.

    Attributes
    ----------
    data_sha256 : of the canonical cells that the run was fitted to
    posterior_sha256 : of its draws; empty if not recorded
    verdict : of the sampling, `trusted` or `suspect`
    model_check, model_check_reasons : `passed`, `failed` or `not checked`; why, in words
    params : every leaf of the resolved config, dotted
    mcse : Monte Carlo standard error of elpd_loo; NaN if not recorded
    p_loo, k_max, k_bad : effective number of parameters; largest Pareto k; rows with a Pareto k above its limit
    pointwise : one row per cell: group, exposure, x.<effect>, count, multiplicity, elpd (of one of its rows, left out),
        pareto_k
    groups_out : one row per group: group, elpd, mcse, suspect; None if no group was left out
    """

    run_id: str
    name: str
    data_sha256: str
    verdict: str
    params: dict[str, str]
    pointwise: pd.DataFrame
    posterior_sha256: str = ""
    model_check: str = "not checked"
    model_check_reasons: str = ""
    mcse: float = float("nan")
    p_loo: float = float("nan")
    k_max: float = float("nan")
    k_bad: float = 0.0
    groups_out: pd.DataFrame | None = None

    @property
    def table(self) -> str:
        """The table that the run was fitted to, in words."""
        rows = self.pointwise["multiplicity"].to_numpy(float)
        total = rows @ self.pointwise["count"].to_numpy(float)
        where = f" ({path})" if (path := self.params.get("data.path")) else ""
        name = self.params.get("data.name") or "a table without a name"
        return f"{name}{where} with {number_of(int(rows.sum()), 'row')} and a total count of {total:,.0f}"


def cell_of(pointwise: pd.DataFrame) -> list[str]:
    """The columns that distinguish cells."""
    return [*CELL, *(str(column) for column in pointwise.columns if str(column).startswith(DESIGN))]


def in_common_cells(runs: Sequence[Candidate]) -> list[Candidate]:
    """The runs, those without covariates with the cells of those that have them, if these have the same.

    All rows of a cell of a run without covariates have one value, so each part of it has the same.
    """
    fine = [run.pointwise.set_index(cell_of(run.pointwise))["multiplicity"].sort_index() for run in runs]
    finest = next((each for each in fine if each.index.nlevels > len(CELL)), None)
    if finest is None or not all(each.index.nlevels == len(CELL) or each.equals(finest) for each in fine):
        return list(runs)
    cells = finest.reset_index()
    return [run if cell_of(run.pointwise) != CELL else _divided(run, cells) for run in runs]


def _divided(run: Candidate, cells: pd.DataFrame) -> Candidate:
    """The run with the cells divided, if it has all of them and no other."""
    whole = run.pointwise.set_index(CELL)["multiplicity"].sort_index()
    if not cells.groupby(CELL)["multiplicity"].sum().sort_index().equals(whole):
        return run
    return replace(run, pointwise=cells.merge(run.pointwise.drop(columns="multiplicity"), on=CELL))


def read_pointwise(path: Path) -> pd.DataFrame:
    """Read `loo/pointwise.csv`: labels as text (a group may be called NA), numbers exactly as written."""
    return _read(path, numbers=("elpd", "pareto_k"))


def read_groups_out(path: Path) -> pd.DataFrame:
    """Read `tables/leave_group_out.csv`."""
    return _read(path, numbers=("elpd", "mcse"))


def _read(path: Path, *, numbers: Sequence[str]) -> pd.DataFrame:
    missing = {name: ["", "nan", "NaN"] for name in numbers}
    return pd.read_csv(path, dtype={"group": str, "exposure": float}, keep_default_na=False, na_values=missing)


def check_same_rows(runs: Sequence[Candidate]) -> None:
    """Refuse runs on different tables, and records that do not agree about one table.

    Raises
    ------
    ComparisonError
        that names the tables and their runs, or the damaged record.
    """
    first_of: dict[str, Candidate] = {}
    for run in runs:
        first = first_of.setdefault(run.data_sha256, run)
        _check_cells(first, run)
    parts: list[tuple[pd.Series, set[str]]] = []  # strata, and the digests of the tables that have them
    for digest, first in first_of.items():
        strata = _strata(first)
        same = next((digests for known, digests in parts if known.equals(strata)), None)
        if same is None:
            parts.append((strata, {digest}))
        else:
            same.add(digest)
    if len(parts) > 1:
        members = [[run for run in runs if run.data_sha256 in digests] for _, digests in parts]
        tables = [f"{each[0].table}: {_named(each)}" for each in members]
        raise ComparisonError(
            f"the runs were fitted to different tables. {'; '.join(tables)}. "
            "elpd_loo is comparable for the same rows only: compare the runs of one table."
        )


def _strata(run: Candidate) -> pd.Series:
    """Rows by exposure and count: the same for every grouping of a table."""
    return run.pointwise.groupby(STRATUM)["multiplicity"].sum()


def _named(runs: Sequence[Candidate]) -> str:
    return listed([f"{run.name} ({run.run_id})" for run in runs])


def _check_cells(one: Candidate, other: Candidate) -> None:
    """Refuse two records of one table whose cells differ."""
    first, second = (run.pointwise.set_index(cell_of(run.pointwise))["multiplicity"] for run in (one, other))
    if second.index.has_duplicates:
        cell = second.index[second.index.duplicated()][0]
        raise ComparisonError(f"loo/pointwise.csv of {other.run_id} has {_cell(cell)} twice. Repeat the run.")
    if len(odd := first.index.symmetric_difference(second.index, sort=False)):
        raise _damaged(one, other, odd[0], "is in only one of the two")
    unequal = (second.loc[first.index] != first).to_numpy()
    if np.any(unequal):
        raise _damaged(one, other, first.index[unequal][0], "has different multiplicities")


def _damaged(one: Candidate, other: Candidate, cell: tuple, how: str) -> ComparisonError:
    return ComparisonError(
        f"loo/pointwise.csv of {one.name} ({one.run_id}) and {other.name} ({other.run_id}) do not have the same "
        f"cells: {_cell(cell)} {how}. Repeat the damaged run."
    )


def _cell(cell: tuple) -> str:
    return f"the cell (group {cell[0]}, exposure {cell[1]:g}, count {cell[2]})"
