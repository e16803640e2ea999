"""What a part of the bench takes and returns."""

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from poolwise.text import aligned, number


@dataclass(frozen=True)
class Settings:
    """What is asked of all parts.

    Attributes
    ----------
    rounds : measurements of a case, of which the median is reported
    most : largest number of rows or groups
    seconds, megabytes : limits of one process; a case beyond them is reported as such, and larger ones are left out
    patience : a case whose first run takes longer, in seconds, is measured once
    scratch : an empty folder
    """

    rounds: int
    most: int
    seconds: float
    megabytes: float
    patience: float
    scratch: Path


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers; None is a value that was not measured."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | None]]

    def cells(self) -> list[list[str]]:
        """Head and rows as text."""
        return [list(self.columns), *([_cell(value) for value in row] for row in self.rows)]

    def lines(self) -> list[str]:
        """As printed: title, head, rows; columns of text to the left."""
        left = {at for at in range(len(self.columns)) if any(isinstance(row[at], str) for row in self.rows)}
        return [self.title, *aligned(self.cells(), left=left)]

    def csv(self) -> str:
        """The values in full, as CSV."""
        file = io.StringIO()
        csv.writer(file).writerows([self.columns, *self.rows])
        return file.getvalue()


@dataclass(frozen=True)
class Curves:
    """A figure with logarithmic axes.

    Attributes
    ----------
    series : label -> its points (x, y), all positive
    slope : of a line for comparison: 1 for cost in proportion to x, -1 for cost that x divides
    """

    name: str
    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    slope: int = 1


@dataclass(frozen=True)
class Result:
    """What a part found; `remarks` are sentences, for people."""

    tables: tuple[Table, ...]
    curves: tuple[Curves, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A question that the bench answers, under the name by which it is chosen."""

    name: str
    question: str
    measure: Callable[[Settings], Result]


def tell(line: str) -> None:
    """Say how far the bench is, beside the tables."""
    print(f"  {line}", file=sys.stderr, flush=True)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else number(value)
