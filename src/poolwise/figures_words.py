"""Numbers, shares and labels as the pictures and their captions write them."""

from collections.abc import Sequence
from functools import cache

import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font

from poolwise.report_words import short


def compact(value: float) -> str:
    """A number at a tick, short: 0.25, 12,000, 850k, 1.25M."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-4:
        return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 1e5:
        return f"{value / 1e6:.7g}M" if size >= 1e6 else f"{value / 1e3:.7g}k"
    return f"{value:,.6g}"


def number_of(size: int, what: str) -> str:
    """So many things, in words for one and for more."""
    return f"{size:,} {what}" + ("" if size == 1 else "s")


def about(expected: float) -> str:
    """An expected number of things, with a decimal where they are few."""
    return f"about {expected:.1f}" if expected < 9.95 else f"about {expected:,.0f}"


def share(value: float) -> str:
    """A share in percent, never 0% or 100% where it is not."""
    if min(value, 1 - value) < 1e-9:
        return f"{value:.0%}"
    if min(value, 1 - value) < 1e-3:
        return "under 0.1%" if value < 0.5 else "over 99.9%"
    return f"{value:.1%}" if value < 0.1 or value > 0.9 else f"{value:.0%}"


def p_value(value: float, tables: int) -> str:
    """A p-value from so many simulated tables."""
    if np.isnan(value):
        return "n/a"
    if value < 1 / tables:
        return f"under {1 / tables:.2g}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def listing(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def can_be_drawn(text: str) -> bool:
    """Whether the font has all letters of a text, on one line."""
    known = _glyphs(tuple(matplotlib.rcParams["font.family"]))
    return all(ord(letter) in known for letter in " ".join(text.split()))


def printable(text: str, *, otherwise: str, length: int = 28) -> str:
    """A label as a picture can show it: short, and something else where the font lacks a letter of it."""
    return short(text, length) if can_be_drawn(text) else otherwise


@cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """Code points that these fonts can draw."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return frozenset(point for font in fonts for point in font.get_charmap())
