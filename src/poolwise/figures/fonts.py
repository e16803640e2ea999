"""Which labels the fonts of the pictures can draw."""

from functools import cache

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, get_font

from poolwise.text import short


def can_be_drawn(text: str) -> bool:
    """Whether the font has all characters of a one-line text."""
    known = _glyphs(tuple(matplotlib.rcParams["font.family"]))
    return all(ord(letter) in known for letter in " ".join(text.split()))


def printable(text: str, *, otherwise: str, length: int = 28) -> str:
    """A label for a picture: short, and replaced if the font lacks one of its characters."""
    return short(text, length) if can_be_drawn(text) else otherwise


@cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """Code points that these fonts can draw."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return frozenset(point for font in fonts for point in font.get_charmap())
