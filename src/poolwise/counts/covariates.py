"""Columns of covariates to a design matrix: numbers centred and scaled, texts as levels against a reference.

The rate of a row is multiplied by exp(x beta), with x its row of the design matrix. Numeric columns are centred at
their mean over rows and divided by their standard deviation, so that one prior of beta suits all columns and the rates
of groups are those at the means. A column of text has one effect for each level but the reference, which is the first
level in canonical order unless another is named: by number if all are integers, else by code point.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from poolwise.counts.parsing import INTEGER, Column, is_missing, parse_column, parse_finite
from poolwise.counts.reading import Where
from poolwise.errors import DataError

MOST_LEVELS = 20


@dataclass(frozen=True)
class Covariate:
    """A column that rates depend on.

    Attributes
    ----------
    column : its name
    levels : of a column of text, the reference first; empty for numbers
    centre, scale : mean and standard deviation of a column of numbers over rows
    """

    column: str
    levels: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0

    @property
    def effects(self) -> tuple[str, ...]:
        """Names of its effects: the column, or the column and a level for each level but the reference.

        A slash, which no name in a tree of draws may contain, becomes an underscore.
        """
        names = [f"{self.column}.{level}" for level in self.levels[1:]] if self.levels else [self.column]
        return tuple(name.replace("/", "_") for name in names)

    def design(self, values: Iterable[str]) -> NDArray[np.float64]:
        """Its columns of the design matrix, (N, effects); raises a ValueError for a value that it cannot take."""
        if not self.levels:
            return (np.array([[parse_finite(each)] for each in values]) - self.centre) / self.scale
        place = {level: i for i, level in enumerate(self.levels)}
        values = list(values)
        if unknown := [each for each in values if each not in place]:
            raise ValueError(f"{self.column} has no level {unknown[0]!r}; its levels are {', '.join(self.levels)}.")
        return np.eye(len(self.levels))[[place[each] for each in values]][:, 1:]


def row_at(covariates: Sequence[Covariate], given: Mapping[str, str]) -> tuple[float, ...]:
    """The row of the design matrix at given values, (P,); others are at their mean or reference level.

    Raises
    ------
    DataError
        A name is no covariate, or has no such level or number.
    """
    names = [each.column for each in covariates]
    if unknown := [name for name in given if name not in names]:
        known = f"covariates: {', '.join(names)}" if names else "the table has none: name them, data.covariates=[...]"
        raise DataError(f"predict.at names {unknown[0]}, which is no covariate ({known}).")
    found: list[float] = []
    for each in covariates:
        value = given.get(each.column)
        try:
            found += [0.0] * len(each.effects) if value is None else each.design([value])[0].tolist()
        except ValueError as error:
            raise DataError(f"predict.at.{each.column}={value}: {error}") from None
    return tuple(found)


def in_canonical_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort by number if all labels are integers (7 and 007 tie: by code point), else by code point."""
    labels = sorted(labels)
    if all(map(INTEGER.fullmatch, labels)):
        labels.sort(key=Decimal)  # stable; and unlike int, Decimal takes any number of digits
    return tuple(labels)


def covariates_of(
    columns: Mapping[str, Column],
    rows: NDArray[np.int64],
    *,
    reference: Mapping[str, str],
    where: Where,
    place: str,
) -> tuple[tuple[Covariate, ...], NDArray[np.float64]]:
    """The covariates of a table, and its design matrix (N, P).

    Parameters
    ----------
    columns : name -> texts of the rows, (N,)
    rows : (N,), number of rows of the table that each stands for
    reference : column -> its reference level
    where : place of row i in errors
    place : of the table in errors

    Raises
    ------
    DataError
        A cell is missing; a column is constant, has too many levels, or lacks the reference; columns are collinear.
    """
    if unknown := sorted(set(reference) - set(columns)):
        raise DataError(f"data.reference names {unknown[0]}, which is not a covariate. Add it to data.covariates.")
    found = [
        _covariate(name, list(map(str, texts)), rows, reference.get(name), where, place)
        for name, texts in columns.items()
    ]
    parts = [each.design(map(str, columns[each.column])) for each in found]
    design = np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0))
    names = [name for each in found for name in each.effects]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"{place}: two effects of covariates are called {twice[0]}. Rename a column or level.")
    _refuse_collinear(names, design, place)
    return tuple(found), design


def _covariate(
    name: str, texts: Sequence[str], rows: NDArray[np.int64], reference: str | None, where: Where, place: str
) -> Covariate:
    parse_column(texts, _present, column=name, where=where)
    distinct = set(texts)
    if len(distinct) == 1:
        raise DataError(f"{place}: {name} is {texts[0]} in every row, so it has no effect. Leave it out.")
    are_numbers = list(map(_is_number, distinct))
    if reference is None and (all(are_numbers) or (len(distinct) > MOST_LEVELS and any(are_numbers))):
        numbers = np.array(parse_column(texts, parse_finite, column=name, where=where))
        centre = float(np.average(numbers, weights=rows))
        scale = float(np.sqrt(np.average((numbers - centre) ** 2, weights=rows)))
        if scale == 0:  # as 1 and 1.0
            raise DataError(f"{place}: {name} has one value in every row, so it has no effect. Leave it out.")
        return Covariate(name, centre=centre, scale=scale)
    levels = in_canonical_order(distinct)
    if len(levels) > MOST_LEVELS:
        raise DataError(f"{place}: {name} has {len(levels)} levels; at most {MOST_LEVELS} are possible. Join levels.")
    if reference is None:
        return Covariate(name, levels)
    if reference not in levels:
        raise DataError(
            f"{place}: data.reference.{name} is {reference}, which is not a level of {name}. "
            f"Levels: {', '.join(levels)}."
        )
    return Covariate(name, (reference, *(each for each in levels if each != reference)))


def _present(text: str) -> str:
    if is_missing(text):
        raise ValueError("every row needs a value of a covariate. Fill in the cell or drop the row.")
    return text


def _is_number(text: str) -> bool:
    try:
        parse_finite(text)
    except ValueError:
        return False
    return True


def _refuse_collinear(names: Sequence[str], design: NDArray[np.float64], place: str) -> None:
    """Refuse effects that follow from the ones before them and the overall rate."""
    known = np.ones((len(design), 1))
    for name, column in zip(names, design.T, strict=True):
        wider = np.column_stack([known, column])
        if np.linalg.matrix_rank(wider) == known.shape[1]:
            raise DataError(
                f"{place}: {name} follows from the covariates before it, so their effects cannot be told"
                " apart. Leave out one of them."
            )
        known = wider
