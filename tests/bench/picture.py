"""Curves to a picture with logarithmic axes, in the style of the project's figures."""

import numpy as np

from bench.base import Curves
from poolwise.figures import style
from poolwise.text import compact

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)


def picture(curves: Curves) -> bytes:
    """The bytes of a PNG file; a line a label, with a grey line to compare with."""
    figure, axes = style.single(4.6, curves.title)
    points = [point for each in curves.series.values() for point in each]
    for (label, each), colour in zip(curves.series.items(), COLOURS, strict=False):
        axes.plot(*zip(*each, strict=True), marker="o", color=colour, label=label)
    style.style(axes, curves.x, curves.y)
    style.logarithmic(axes, "x")
    style.logarithmic(axes, "y")
    x, y = zip(*points, strict=True)
    axes.set_xticks(sorted(set(x)), [compact(each) for each in sorted(set(x))])
    axes.margins(0.05, 0.1)
    limits = axes.get_ylim()
    ends = np.array([min(x), max(x)])
    line = max(y) * (ends / (max(x) if curves.slope > 0 else min(x))) ** curves.slope
    word = "proportional" if curves.slope > 0 else "inversely proportional"
    axes.plot(ends, line, color=style.GREY, ls=":", label=f"{word} to {curves.x}")
    axes.set_ylim(min(limits[0], min(y) * 0.8), limits[1])
    style.legend_below(figure, axes)
    return style.png(figure)
