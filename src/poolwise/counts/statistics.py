"""Counts to the arrays from which a density is computed.

A kind of statistics summarises a table: `CELLS` keeps every distinct (group, exposure, count) and serves any
likelihood; `SUFFICIENT` holds the sums that the Poisson and the negative binomial need, `SUFFICIENT_BY_UNIT` those of
the negative binomial by units. Groups with the same statistics are alike: their rates have the same law given all else,
so one of them stands for all. Of a table with covariates, a stratum or a cell also has its row of the design matrix,
`stratum_x` or `cell_x`, and all exposures are those without effects: see `model.effects.exposed`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from poolwise.counts.cells import Counts, run_starts

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Statistics:
    """A way to summarise a table.

    Attributes
    ----------
    of : counts -> all arrays; always with `group_total` and `group_exposure`, (G,)
    design : counts -> the arrays that do not depend on the counts of the rows
    of_table : (count, group, exposure, x), each (N,) in canonical order and x (N, P) -> the arrays that depend on them
    parts : of the arrays of `of`, those that tell groups apart; the first is the group of each part
    """

    of: Callable[[Counts], Arrays]
    design: Callable[[Counts], Arrays]
    of_table: Callable[[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]], Arrays]
    parts: tuple[str, ...]

    @property
    def part(self) -> str:
        """What the arrays of a part begin with: `stratum_` or `cell_`."""
        return self.parts[0].removesuffix("group")

    def alike(self, counts: Counts) -> "Alike":
        """The groups with the same parts."""
        return _alike(self, counts)

    def of_groups(self, statistics: Arrays, groups: NDArray[np.int64]) -> Arrays:
        """The arrays with some of the groups, ascending; what belongs to no group stays."""
        is_kept = np.isin(statistics[self.parts[0]], groups)

        def chosen(name: str, array: NDArray[Any]) -> NDArray[Any]:
            if name == self.parts[0]:
                return np.searchsorted(groups, array[is_kept]).astype(array.dtype)
            return (
                array[is_kept] if name.startswith(self.part) else array[groups] if name.startswith("group_") else array
            )

        return {name: chosen(name, array) for name, array in statistics.items()}

    def of_kinds(self, counts: Counts) -> Arrays:
        """One group of each kind, for a density with the rates integrated out: `groups_alike`, (K,), is their number.

        The arrays of `of` if no two groups are alike.
        """
        statistics, alike = self.of(counts), self.alike(counts)
        if len(alike.first) == len(alike.kind):
            return statistics
        return self.of_groups(statistics, alike.first) | {"groups_alike": alike.number.astype(float)}


@dataclass(frozen=True)
class Alike:
    """Kinds of groups.

    Attributes
    ----------
    first : (K,), the first group of each kind, ascending
    kind : (G,), of each group
    number : (K,), groups of each kind
    """

    first: NDArray[np.int64]
    kind: NDArray[np.int64]
    number: NDArray[np.int64]


@functools.lru_cache(maxsize=2)  # of a large table it takes a second, and a run asks several times
def _alike(kind: Statistics, counts: Counts) -> Alike:
    statistics = kind.of(counts)
    group, *columns = (statistics[name] for name in kind.parts)
    columns += [*statistics.get(f"{kind.part}x", np.zeros((0, 0))).T]
    part, first = codes(*columns), run_starts(group)
    num_parts = np.diff(first, append=len(group))
    of_group, found = np.empty(len(first), np.int64), 0
    for size in np.unique(num_parts):
        some = np.flatnonzero(num_parts == size)
        distinct, which = np.unique(part[first[some, None] + np.arange(size)], axis=0, return_inverse=True)
        of_group[some] = found + which.ravel()
        found += len(distinct)
    _, first, of_group, number = np.unique(of_group, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first)
    return Alike(first[order], np.argsort(order)[of_group], number[order])


def codes(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each row, equal where all columns are."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        distinct, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * len(distinct) + place, return_inverse=True)
    return code


def filled_up(statistics: Arrays, *, to: Callable[[str, int], int]) -> Arrays:
    """Strata, values and cells padded with empty ones, so many tables share few shapes.

    Parameters
    ----------
    to : (name, length) -> the padded length, at least as long
    """

    def filled(name: str, array: NDArray[Any]) -> NDArray[Any]:
        if not name.startswith(("stratum", "value", "cell")):
            return array
        missing = ((0, to(name, len(array)) - len(array)), *((0, 0) for _ in array.shape[1:]))
        return np.pad(array, missing, constant_values=float(name.endswith(("_exposure", "_units"))))

    return {name: filled(name, array) for name, array in statistics.items()}


def sufficient_statistics(counts: Counts) -> dict[str, NDArray[Any]]:
    """The sufficient statistics of the Poisson and the negative binomial.

    With rate r = exposure * lam[group], and a stratum defined as the rows of one group and exposure,

        log Poisson(y | r) = y log r - log y! - r
        log NB(y | r, phi) = y log r - log y! - (y + phi) log1p(r / phi) + sum_{j < y} log1p(j / phi)

    Summed over rows, y log lam needs each group's total, y log exposure - log y! is a constant of the table,
    r needs each group's exposure, and (y + phi) log1p(r / phi) each stratum's rows and total. The last sum does
    not depend on r: with one dispersion for all groups it needs only the number of rows with each distinct count.

    Returns
    -------
    group_total      : (G,)  sum of the counts
    group_exposure   : (G,)  sum of the exposures
    stratum_group    : (T,)  int32, index into the labels
    stratum_exposure : (T,)  exposure of each of its rows
    stratum_rows     : (T,)  number of rows
    stratum_total    : (T,)  sum of the counts
    stratum_x        : (T, P)  design matrix; only with covariates, whose strata are also apart
    value            : (K,)  the distinct counts of the whole table, ascending
    value_rows       : (K,)  number of rows with each
    constant         : ()    sum over rows of count log(exposure) - log(count!)

    All are float64 except `stratum_group`, in this order.
    """
    group, exposure, x = counts.cell_group, counts.cell_exposure, counts.cell_x
    count, rows = counts.cell_count.astype(np.float64), counts.cell_multiplicity.astype(np.float64)
    first = run_starts(group, exposure, *x.T)  # (T,)
    value, value_of_cell = np.unique(count, return_inverse=True)
    return {
        "group_total": np.bincount(group, rows * count, counts.num_groups),
        "group_exposure": np.bincount(group, rows * exposure, counts.num_groups),
        "stratum_group": group[first].astype(np.int32),
        "stratum_exposure": exposure[first],
        "stratum_rows": np.add.reduceat(rows, first),
        "stratum_total": np.add.reduceat(rows * count, first),
        **({"stratum_x": x[first]} if counts.effects else {}),
        "value": value,
        "value_rows": np.bincount(value_of_cell, rows),
        "constant": np.array(np.sum(rows * (count * np.log(exposure) - gammaln(count + 1.0)))),
    }


def _sufficient_design(counts: Counts) -> Arrays:
    return _design_of(sufficient_statistics(counts))


def _design_of(found: Arrays) -> Arrays:
    names = ("group_exposure", "stratum_group", "stratum_exposure", "stratum_rows", "stratum_x")
    return {name: found[name] for name in names if name in found}


def _sufficient_of_table(count: NDArray[Any], group: NDArray[Any], exposure: NDArray[Any], x: NDArray[Any]) -> Arrays:
    value, value_rows = np.unique(count, return_counts=True)
    return {
        "group_total": np.add.reduceat(count, run_starts(group)),
        "stratum_total": np.add.reduceat(count, run_starts(group, exposure, *x.T)),
        "value": value,
        "value_rows": value_rows.astype(float),
        "constant": np.array(np.sum(count * np.log(exposure) - gammaln(count + 1.0))),
    }


def cell_statistics(counts: Counts) -> Arrays:
    """The cells themselves.

    Returns
    -------
    group_total, group_exposure : (G,)
    cell_group    : (C,)  int32, index into the labels
    cell_exposure : (C,)
    cell_rows     : (C,)  number of rows
    cell_count    : (C,)
    cell_x        : (C, P)  design matrix; only with covariates

    All are float64 except `cell_group`.
    """
    group, rows = counts.cell_group, counts.cell_multiplicity.astype(np.float64)
    count = counts.cell_count.astype(np.float64)
    return {
        "group_total": np.bincount(group, rows * count, counts.num_groups),
        "group_exposure": np.bincount(group, rows * counts.cell_exposure, counts.num_groups),
        "cell_group": group.astype(np.int32),
        "cell_exposure": counts.cell_exposure,
        "cell_rows": rows,
        "cell_count": count,
        **({"cell_x": counts.cell_x} if counts.effects else {}),
    }


def _cell_design(counts: Counts) -> Arrays:
    group, exposure, _ = counts.rows()
    return {
        "group_exposure": np.bincount(group, exposure, counts.num_groups),
        "cell_group": group.astype(np.int32),
        "cell_exposure": exposure,
        "cell_rows": np.ones(len(group)),
        **({"cell_x": counts.row_x} if counts.effects else {}),
    }


def _cell_of_table(count: NDArray[Any], group: NDArray[Any], exposure: NDArray[Any], x: NDArray[Any]) -> Arrays:
    return {"group_total": np.add.reduceat(count, run_starts(group)), "cell_count": count}


def sufficient_statistics_by_unit(counts: Counts) -> Arrays:
    """Those of the negative binomial whose concentration is phi for each unit of exposure.

    Its units are rows of exposure 1: a stratum, the units of a group with the same covariates, has as many rows as they
    have exposure. The arrays are those of `sufficient_statistics`, but `value` and `value_rows` are by distinct
    (exposure, count), with `value_exposure` (K,).
    """
    count, rows = counts.cell_count.astype(np.float64), counts.cell_multiplicity.astype(np.float64)
    stratum = codes(counts.cell_group, *counts.cell_x.T)  # (C,)
    _, first = np.unique(stratum, return_index=True)
    units: Arrays = {
        "stratum_group": counts.cell_group[first].astype(np.int32),
        "stratum_exposure": np.ones(len(first)),
        "stratum_rows": np.bincount(stratum, rows * counts.cell_exposure),
        "stratum_total": np.bincount(stratum, rows * count),
        **({"stratum_x": counts.cell_x[first]} if counts.effects else {}),
    }
    return sufficient_statistics(counts) | units | _values_by_exposure(counts.cell_exposure, count, rows)


def _values_by_exposure(exposure: NDArray[Any], count: NDArray[Any], rows: NDArray[Any]) -> Arrays:
    order = np.lexsort((count, exposure))
    exposure, count = exposure[order], count[order]
    first = run_starts(exposure, count)
    numbers = np.add.reduceat(rows[order], first)
    return {"value": count[first], "value_rows": numbers, "value_exposure": exposure[first]}


def _design_by_unit(counts: Counts) -> Arrays:
    return _design_of(sufficient_statistics_by_unit(counts))


def _table_by_unit(count: NDArray[Any], group: NDArray[Any], exposure: NDArray[Any], x: NDArray[Any]) -> Arrays:
    found = _sufficient_of_table(count, group, exposure, x)
    values = _values_by_exposure(exposure, count, np.ones(len(count)))
    return found | {"stratum_total": np.bincount(codes(group, *x.T), count)} | values


SUFFICIENT = Statistics(
    sufficient_statistics,
    _sufficient_design,
    _sufficient_of_table,
    parts=("stratum_group", "stratum_exposure", "stratum_rows", "stratum_total"),
)
SUFFICIENT_BY_UNIT = Statistics(
    sufficient_statistics_by_unit,
    _design_by_unit,
    _table_by_unit,
    parts=("stratum_group", "stratum_exposure", "stratum_rows", "stratum_total"),
)
CELLS = Statistics(
    cell_statistics, _cell_design, _cell_of_table, parts=("cell_group", "cell_exposure", "cell_rows", "cell_count")
)
