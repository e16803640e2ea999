"""A table to validated counts.

One row is one observation: a non-negative integer count, the group it belongs to and, if there is one, its
exposure (the time, area or number of items that the count covers). Rows that agree in group, exposure and count become
one cell with a multiplicity, so later steps cost per cell and not per row.

columns of text -> each distinct text parsed once -> cells in canonical order, hashed -> `Counts`

A row may stand for many equal rows: those that a large table has (`streaming`), or as many as a column of
multiplicities says, in a table that was grouped elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.counts.covariates import Covariate, covariates_of, in_canonical_order
from poolwise.counts.parsing import (
    LARGEST,
    Column,
    parse_column,
    parse_count,
    parse_exposure,
    parse_label,
    parse_multiplicity,
)
from poolwise.counts.reading import Where, read_texts
from poolwise.counts.streaming import distinct_rows
from poolwise.errors import DataError

MOST_ROWS = 100_000  # of a table whose rows are kept in their order; of a larger one only the cells are known

__all__ = ["MOST_ROWS", "Columns", "Counts", "counts_from_rows", "read_counts", "run_starts"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of the table, and the size, in units of the exposure column, that rates are per."""

    group: str
    count: str
    exposure: str | None
    per: float = 1.0
    multiplicity: str | None = None
    covariates: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """The columns of the table."""
        others = [name for name in (self.exposure, self.multiplicity) if name is not None]
        return [self.group, self.count, *others, *self.covariates]

    def denominator(self, exposure: str) -> str:
        """What a rate is per, with the words for the exposure column: "unit of hours", "1000 hours"."""
        return f"unit of {exposure}" if self.per == 1 else f"{self.per:.15g} {exposure}"


@dataclass(frozen=True, eq=False)
class Counts:
    """A validated table of counts, collapsed to cells; its arrays are read-only.

    Attributes
    ----------
    name              : name of the table
    labels            : (G,)  group labels: in numeric order if all are integers, else by code point
    cell_group        : (C,)  int64, index into `labels`; cells are sorted by group, exposure, covariates, count
    cell_exposure     : (C,)  float64, > 0, in units of `columns.per` of the table; 1 where it has none
    cell_count        : (C,)  int64, events per row, 0 to 2**53
    cell_multiplicity : (C,)  int64, number of rows in the cell, >= 1
    sha256            : of the canonical cells; equal for any row order, file format and machine
    file_sha256       : of the bytes of the file; empty if there was none
    path              : the file as given; empty if there was none
    columns           : names of the columns
    row_number        : (N,)  int32, the rows of `rows()` in the table: 1 is its first row below the header, and blank
                        lines are not counted; empty for more than `MOST_ROWS` rows or given multiplicities
    covariates        : the columns that rates depend on
    cell_x            : (C, P)  float64, the design matrix of the covariates; empty without them
    """

    name: str
    labels: tuple[str, ...]
    cell_group: NDArray[np.int64]
    cell_exposure: NDArray[np.float64]
    cell_count: NDArray[np.int64]
    cell_multiplicity: NDArray[np.int64]
    sha256: str
    file_sha256: str
    path: str
    columns: Columns
    row_number: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    covariates: tuple[Covariate, ...] = ()
    cell_x: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def effects(self) -> tuple[str, ...]:
        """P names, of the effects of the covariates."""
        return tuple(name for each in self.covariates for name in each.effects)

    @property
    def num_groups(self) -> int:
        """G, the number of groups."""
        return len(self.labels)

    @property
    def num_cells(self) -> int:
        """C, the number of distinct (group, exposure, count)."""
        return len(self.cell_count)

    @property
    def num_rows(self) -> int:
        """N, the number of rows of the table."""
        return int(self.cell_multiplicity.sum())

    @property
    def has_exposure(self) -> bool:
        """Whether any exposure differs from 1."""
        return bool(np.any(self.cell_exposure != 1.0))

    @property
    def is_by_row(self) -> bool:
        """Whether a step may take the rows one by one."""
        return self.num_rows <= MOST_ROWS

    def rows(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Group, exposure and count of every row, each (N,), in canonical order."""
        cell = np.repeat(np.arange(self.num_cells), self.cell_multiplicity)  # (N,)
        return self.cell_group[cell], self.cell_exposure[cell], self.cell_count[cell]

    @property
    def row_x(self) -> NDArray[np.float64]:
        """The design matrix by row, (N, P), in the order of `rows`."""
        return np.repeat(self.cell_x, self.cell_multiplicity, axis=0) if self.effects else np.zeros((0, 0))


def read_counts(
    path: str | Path,
    *,
    group: str,
    count: str,
    exposure: str | None = None,
    name: str | None = None,
    per: float = 1.0,
    multiplicity: str | None = None,
    covariates: Sequence[str] = (),
    reference: Mapping[str, str] | None = None,
) -> Counts:
    """Read a table of counts: CSV, TSV, semicolons or spaces, optionally gzipped, or parquet.

    Parameters
    ----------
    path     : the file; its bytes decide the format
    group    : column of group labels, kept exactly as written (``007`` and ``NA`` are labels)
    count    : column of counts, integers >= 0
    exposure : column of exposures, > 0; if not given every row has exposure 1
    name     : name of the table; the file's name without extensions if not given
    per      : exposures are divided by it, so that rates are per 1000 hours, for example
    multiplicity : column of the number of equal rows that a row stands for, integers >= 1; if not given, 1
    covariates : columns of numbers or levels that rates depend on
    reference : covariate -> its reference level; by default the first in canonical order

    Raises
    ------
    DataError
        The file cannot be read, lacks a column, or holds an invalid label, count, exposure or multiplicity.
    """
    columns = Columns(group, count, exposure, per, multiplicity, tuple(covariates))
    if len(set(columns.named)) < len(columns.named):
        raise DataError(f"{path}: the same column is named twice ({', '.join(columns.named)}). Name different columns.")
    name = name or Path(Path(path).name.removesuffix(".gz")).stem
    file: dict[str, Any] = {"columns": columns, "name": name, "path": str(path), "reference": reference or {}}
    large = distinct_rows(path, columns.named, more_than=MOST_ROWS)
    if large is not None:
        with suppress(DataError):  # the reader below says where
            return _counts_of(large.texts, times=large.times, file_sha256=large.file_sha256, **file)
    texts, where, file_sha256 = read_texts(path, columns.named)
    return _counts_of(texts, where=where, file_sha256=file_sha256, **file)


def _counts_of(texts: Sequence[Column], *, columns: Columns, **more: Any) -> Counts:
    """The counts of the texts of the named columns."""
    of = dict(zip(columns.named, texts, strict=True))
    exposures, multiplicities = (name and of[name] for name in (columns.exposure, columns.multiplicity))
    covariates = {name: of[name] for name in columns.covariates}
    given = of[columns.group], of[columns.count], exposures, multiplicities, covariates
    return counts_from_rows(*given, columns=columns, **more)


def counts_from_rows(
    labels_of_rows: Column,
    counts_of_rows: Column,
    exposures: Column | None = None,
    multiplicities: Column | None = None,
    covariates: Mapping[str, Column] | None = None,
    *,
    reference: Mapping[str, str] | None = None,
    times: NDArray[np.int64] | None = None,
    name: str = "table",
    path: str = "",
    file_sha256: str = "",
    columns: Columns | None = None,
    where: Where | None = None,
) -> Counts:
    """Validate rows of text or numbers, and collapse them to cells.

    Parameters
    ----------
    labels_of_rows : (N,)  not blank; converted to text, so 7 is "7"
    counts_of_rows : (N,)  integers >= 0
    exposures      : (N,)  > 0; 1 everywhere if not given
    multiplicities : (N,)  integers >= 1, the number of equal rows that each stands for; 1 everywhere if not given
    covariates     : column -> (N,), numbers or levels
    reference      : covariate -> its reference level
    times          : (N,)  how often each row occurs in the table; once if not given
    name, path, file_sha256, columns : stored in the result, see `Counts`
    where          : place of row i (from 0) in errors; by default ``<name>: row <i + 1>``

    Raises
    ------
    DataError
        There are no rows, the lengths differ, or a value is not a valid label, count, exposure or multiplicity.
    """
    covariates = covariates or {}
    given = (labels_of_rows, counts_of_rows, exposures, multiplicities, *covariates.values())
    lengths = [len(column) for column in given if column is not None]
    if len(set(lengths)) > 1:
        raise DataError(f"{name}: the columns have lengths {lengths}. Give one value of each per row.")
    if not lengths[0]:
        raise DataError(f"{path or name}: there are no rows. Give at least one.")
    named = "group", "count", None if exposures is None else "exposure"
    columns = columns or Columns(*named, covariates=tuple(covariates))
    where = where or (lambda row: f"{name}: row {row + 1}")

    label = parse_column(labels_of_rows, parse_label, column=columns.group, where=where)
    labels = in_canonical_order(set(label))
    index = {text: g for g, text in enumerate(labels)}
    group = np.fromiter(map(index.__getitem__, label), np.int64, len(label))  # (N,)
    count = np.array(parse_column(counts_of_rows, parse_count, column=columns.count, where=where), np.int64)
    exposure = np.ones(len(label))
    if exposures is not None:
        parsed = parse_column(exposures, parse_exposure, column=columns.exposure or "exposure", where=where)
        exposure = np.array(parsed, np.float64) / columns.per
    rows = np.ones(len(label), np.int64) if times is None else times  # (N,), equal rows that each stands for
    if multiplicities is not None:
        called = columns.multiplicity or "multiplicity"
        parsed = parse_column(multiplicities, parse_multiplicity, column=called, where=where)
        rows = _product(rows, np.array(parsed, np.int64), place=path or name, column=called)

    used, x = covariates_of(covariates, rows, reference=reference or {}, where=where, place=path or name)
    order = np.lexsort((count, *x.T[::-1], exposure, group))
    group, exposure, count, x = group[order], exposure[order], count[order], x[order]
    first = run_starts(group, exposure, *x.T, count)  # (C,)
    cells = (group[first], exposure[first], count[first], np.add.reduceat(rows[order], first))
    is_by_row = times is None and multiplicities is None and len(order) <= MOST_ROWS
    numbers = 1 + order if is_by_row else order[:0]  # the sort is stable: equal rows keep their order
    row_number = numbers.astype(np.int32)
    cell_x = x[first]
    sha256 = _cells_sha256(labels, *cells, *cell_x.T)
    for array in (*cells, row_number, cell_x):
        array.flags.writeable = False
    return Counts(name, labels, *cells, sha256, file_sha256, path, columns, row_number, used, cell_x)


def _product(
    times: NDArray[np.int64], multiplicity: NDArray[np.int64], *, place: str, column: str
) -> NDArray[np.int64]:
    """Rows that each stands for; refused if their total is beyond float64."""
    total = float(times.astype(float) @ multiplicity)
    if total > LARGEST:
        raise DataError(
            f"{place}: the multiplicities in {column} sum to {total:.3g}; above 2**53 a number of rows is not exact in "
            "float64. Correct the cells."
        )
    return times * multiplicity


# Cells: canonical order and hash.


def run_starts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """First index of every run of equal rows."""
    differs = [column[1:] != column[:-1] for column in columns]
    return np.concatenate([[0], 1 + np.flatnonzero(np.any(differs, axis=0))])


def _cells_sha256(labels: Sequence[str], *cells: NDArray[Any]) -> str:
    """SHA-256 of the cells as lines of JSON, ``["1", 1.0, 4, 2]``: label, exposure, count, multiplicity, row of x."""
    rows = zip(*(column.tolist() for column in cells), strict=True)
    lines = (json.dumps([labels[group], *values]) + "\n" for group, *values in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
