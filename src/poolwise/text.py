"""Numbers, names and lists in sentences."""

import difflib
import math
import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TextIO

NAMED = 5  # names in a sentence
WIDTH = 120  # characters of a line, if the terminal does not say
LISTED = 12  # names of which a message lists all
NOTHING = 1e-12  # a positive number below it is written as such: the interval of a rate may end at 1e-307


def one_line(name: str) -> str:
    """A name for display: if some of its characters are unprintable, it is escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def listed(names: Iterable[str], most: int = NAMED) -> str:
    """Names in a sentence, at most so many of them."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def wrapped(line: str, width: int) -> list[str]:
    """A line as lines of at most `width` characters, broken at spaces only: no number or id is divided.

    A line with a word that does not fit, such as an address, is not broken.
    """
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    parts = textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return parts if parts and max(map(len, parts)) <= width else [line]


def terminal_width() -> int:
    """Characters of a line of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def lines_for(stream: TextIO, text: str) -> list[str]:
    """The printable lines of a text, wrapped if the stream is a terminal; no control sequence in them reaches it."""
    lines = [one_line(line) for line in text.split("\n")]
    return [part for line in lines for part in wrapped(line, terminal_width())] if stream.isatty() else lines


def unknown_group(asked: str, label: str, labels: Sequence[str]) -> str:
    """Message on a label, given as `asked`, that no group has: similar labels, and all labels if they are few."""
    folded = {each.casefold(): one_line(each) for each in labels}
    near = [folded[each] for each in difflib.get_close_matches(label.casefold(), folded, n=NAMED)]
    told = [f"{asked} {one_line(label)} is not a group of the data."]
    if near:
        told.append(f"Did you mean {' or '.join(near)}?")
    if len(labels) <= LISTED or not near:
        told.append(f"Groups are {listed(map(one_line, labels), LISTED)}.")
    return " ".join(told)


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
    if math.isnan(value):
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


def fitting(rows: Sequence[Sequence[str]], width: int, *, least: Sequence[int]) -> list[list[str]]:
    """Rows of one length without as many of the columns `least`, in this order, as do not fit into the width."""
    kept = list(range(len(rows[0])))
    for place in least:
        if sum(max(len(row[each]) for row in rows) + 2 for each in kept) - 2 <= width:
            break
        kept.remove(place)
    return [[row[each] for each in kept] for row in rows]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """The lines of a Markdown table; its cells are escaped; a link has nothing to escape."""
    rule = [":--" if place in left else "--:" for place in range(len(head))]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *(map(_escaped, row) for row in rows))]


def _escaped(cell: str) -> str:
    return one_line(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def listing(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
