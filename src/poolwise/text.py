"""Numbers, names and lists in sentences."""

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

NAMED = 5  # names in a sentence
NOTHING = 1e-12  # a positive number below it is written as such: the interval of a rate may end at 1e-307


def one_line(name: str) -> str:
    """A name for display: if some of its characters are unprintable, it is escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, the first `NAMED` of them."""
    names = list(names)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def short(text: str, length: int = 60) -> str:
    """Put a text on one printable line and drop its middle if it is too long."""
    text = one_line(" ".join(text.split()))
    return text if len(text) <= length else f"{text[: length // 2]}…{text[1 - length // 2 :]}"


def words_of(column: str) -> str:
    """The name of a column as words."""
    return column.replace("_", " ").strip() or column


def plural(noun: str) -> str:
    """English plural of a column's name, good enough for a title."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun if noun.endswith("s") and not noun.endswith("ss") else f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def cell(value: object) -> str:
    """Write a table cell: text unchanged, integers without decimals."""
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)


def number(value: float, digits: int = 3) -> str:
    """Write a number with this many significant digits, without an exponent where that is readable."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if 0 < abs(value) < NOTHING:
        return f"< {NOTHING:g}" if value > 0 else f"> -{NOTHING:g}"
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - whole)}f}"


def compact(value: float) -> str:
    """A number at a tick, short: 0.25, 12,000, 850k, 1.25M."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 1e5:
        return f"{value / 1e6:.7g}M" if size >= 1e6 else f"{value / 1e3:.7g}k"
    return f"{value:,.6g}"


def number_of(size: int, what: str) -> str:
    """A number with its noun, singular or plural."""
    return f"{size:,} {what}" + ("" if size == 1 else "s")


def about(expected: float) -> str:
    """An expected number, with one decimal if it is small."""
    return f"about {expected:.1f}" if expected < 9.95 else f"about {expected:,.0f}"


def share(value: float) -> str:
    """A share in percent; 0% and 100% only if exact."""
    if min(value, 1 - value) < 1e-9:
        return f"{value:.0%}"
    if min(value, 1 - value) < 1e-3:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.1%}" if value < 0.1 or value > 0.9 else f"{value:.0%}"


def p_value(value: float, tables: int) -> str:
    """A p-value from this many simulated tables."""
    if np.isnan(value):
        return "n/a"
    if value < 1 / tables:
        return f"under {1 / tables:.2g}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """Rows of one length as lines of columns; the columns `left` are aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place in left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """The lines of a Markdown table; its cells are escaped; a link has nothing to escape."""
    rule = [":--" if place in left else "--:" for place in range(len(head))]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *(map(_escaped, row) for row in rows))]


def _escaped(cell: str) -> str:
    return one_line(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def listing(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
