"""Curves to a picture with logarithmic axes, in the style of the project's figures."""

from bench.base import Curves
from poolwise.figures import style

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)


def picture(curves: Curves) -> bytes:
    """The bytes of a PNG file; a line a label, with a grey line of slope 1, cost that grows as the size does."""
    figure, axes = style.single(4.6, curves.title)
    points = [point for each in curves.series.values() for point in each]
    for (label, each), colour in zip(curves.series.items(), COLOURS, strict=False):
        axes.plot(*zip(*each, strict=True), marker="o", color=colour, label=label)
    style.style(axes, curves.x, curves.y)
    style.logarithmic(axes, "x", most=8)
    style.logarithmic(axes, "y")
    x, y = zip(*points, strict=True)
    axes.margins(0.05, 0.1)
    limits = axes.get_ylim()
    axes.plot([min(x), max(x)], [max(y) * min(x) / max(x), max(y)], color=style.GREY, ls=":", label="proportional to x")
    axes.set_ylim(min(limits[0], min(y) * 0.8), limits[1])
    style.legend_below(figure, axes)
    return style.png(figure)
