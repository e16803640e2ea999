"""Which labels the fonts of the pictures can draw."""

from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, get_font

from poolwise.text import short


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
