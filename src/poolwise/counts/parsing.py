"""One text to one label, count, exposure or multiplicity; a ValueError states the rule and the remedy."""

import re
import reprlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poolwise.counts.reading import Where
from poolwise.errors import DataError

LARGEST = 2**53  # float64 holds every integer up to here
CORRECT = "Correct the cell or drop the row."
INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_GROUPED_DIGITS = re.compile(r"[+-]?[0-9][0-9_,.' ]*")  # 1,000 or 1_000 or 3,5
_HOLES = {"", "-", ".", "<na>", "?", "n/a", "na", "nan", "nat", "none", "null"}
_INFINITIES = {"inf", "infinity"}
type Column = Sequence[Any] | NDArray[Any]


def parse_column[T](values: Column, parse: Callable[[str], T], *, column: str, where: Where) -> list[T]:
    """Parse every distinct text once; report the first bad row and the number of further ones."""
    texts = list(map(str, values))
    parsed: dict[str, T] = {}
    problems: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        try:
            parsed[text] = parse(text)
        except ValueError as problem:
            problems[text] = str(problem)
    if problems:
        bad = [row for row, text in enumerate(texts) if text in problems]
        more = f" (and {len(bad) - 1} more such row{'s' * (len(bad) > 2)})" if len(bad) > 1 else ""
        text = texts[bad[0]]
        raise DataError(f"{where(bad[0])}: {column} is {_shown(text)}{more}; {problems[text]}")
    return [parsed[text] for text in texts]


def parse_label(text: str) -> str:
    """Any text that is not blank, unchanged."""
    if not text.strip():
        raise ValueError("every row needs a group. Fill in the cell or drop the row.")
    return text


def parse_count(text: str) -> int:
    """An integer from 0 to 2**53."""
    rule = "counts must be integers >= 0"
    value = Decimal(_plain_number(text, rule))
    if value < 0:
        raise ValueError(f"{rule}. {CORRECT}")
    if value > LARGEST:
        raise ValueError("counts above 2**53 are not exact in float64. Correct the cell or count in larger units.")
    if value != value.to_integral_value():
        raise ValueError(f"{rule}. If it is a rate, give the count and an exposure instead.")
    return int(value)


def parse_multiplicity(text: str) -> int:
    """An integer from 1 to 2**53."""
    rule = "multiplicities, numbers of equal rows, must be integers from 1 to 2**53"
    value = Decimal(_plain_number(text, rule))
    if not 1 <= value <= LARGEST or value != value.to_integral_value():
        raise ValueError(f"{rule}. {CORRECT}")
    return int(value)


def parse_exposure(text: str) -> float:
    """A finite number above 0."""
    rule = "exposures must be finite numbers > 0"
    value = float(_plain_number(text, rule))
    if not 0 < value < np.inf:
        raise ValueError(f"{rule}. {CORRECT}")
    return value


def parse_finite(text: str) -> float:
    """A finite number."""
    rule = "covariates of numbers must be finite numbers"
    value = float(_plain_number(text, rule))
    if not np.isfinite(value):
        raise ValueError(f"{rule}. {CORRECT}")
    return value


def is_missing(text: str) -> bool:
    """Whether a cell is blank or a word for a missing value."""
    return text.strip().casefold() in _HOLES


def _plain_number(text: str, rule: str) -> str:
    """Strip white space; refuse anything but a plain ASCII decimal number."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return text
    remedy = CORRECT
    if text.casefold() in _HOLES:
        remedy = "A missing value is not a zero: fill in the cell or drop the row."
    elif text.casefold().lstrip("+-") in _INFINITIES:
        remedy = "Write a finite number or drop the row."
    elif _GROUPED_DIGITS.fullmatch(text):
        remedy = "Write it like 1000 or 0.5: no thousands separator, a decimal point."
    elif not text.isascii() and any(map(str.isdecimal, text)):
        remedy = "Write it with the digits 0 to 9."
    raise ValueError(f"{rule}. {remedy}")


def _shown(text: str) -> str:
    """A cell in an error: a number unchanged, anything else quoted and shortened."""
    if not text.strip():
        return "empty"
    return text if len(text) < 30 and _NUMBER.fullmatch(text) else reprlib.repr(text)
