"""Power-scaling in a picture: how much the prior and the data decide the answer."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from poolwise.checks.power_scaling import NOTHING, SENSITIVE
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.style import BLACK, BLUE, ORANGE, VERMILLION, blank, legend_below, style
from poolwise.text import number, short

MAX_ROWS = 20  # parameters, one line each
FLOOR = 1e-3  # smallest drawn sensitivity: smaller ones are drawn here


@figure(
    "sensitivity",
    kind="Power-scaling sensitivity",
    how_to_read=(
        "Look for blue dots right of the dashed line. A dot shows how far the posterior moves when the prior (blue) or "
        "the likelihood (orange) weighs a little more or less (power-scaling); below "
        f"{SENSITIVE:g} that is little. If only the prior matters, the answer is the prior; if both matter, the answer "
        "depends on both: compare it with the answer of another prior."
    ),
    needs="power_scaling",
)
def _sensitivity(fit: Drawing) -> Picture:
    table = fit.view.tables["sensitivity"].rename_axis("parameter").reset_index()
    worst = table.sort_values("prior", ascending=False, kind="stable", na_position="first").index[:MAX_ROWS]
    shown = table.loc[sorted(worst)].reset_index(drop=True)
    place = np.arange(len(shown))
    figure = blank(1.9 + 0.3 * max(3, len(shown)))
    axes = figure.subplots()
    for column, colour, marker, size in (("likelihood", ORANGE, "D", 6), ("prior", BLUE, "o", 7)):
        values = np.maximum(shown[column].to_numpy(float), FLOOR)
        axes.plot(values, place, marker, color=colour, mec=BLACK, mew=0.4, markersize=size, label=column)
    axes.axvline(SENSITIVE, color=BLACK, linewidth=1.1, linestyle="--", label=f"threshold, {SENSITIVE:g}")
    _logarithmic(axes, np.maximum(shown[["prior", "likelihood"]].to_numpy(float), FLOOR))
    axes.set_yticks(place, [fit.parameter(str(name)) for name in shown["parameter"]], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    for y, word in enumerate(shown["diagnosis"]):
        if word != NOTHING:
            at = axes.get_yaxis_transform()
            axes.text(1.01, y, _wrapped(str(word)), transform=at, va="center", fontsize=9, color=VERMILLION)
    style(axes, "power-scaling sensitivity (logarithmic scale)")
    axes.set_title("How much do prior and data matter?", fontsize=12)
    legend_below(figure, axes)
    return Picture(figure, _sensitivity_words(table, len(shown)), table)


def _logarithmic(axes: Axes, values: np.ndarray) -> None:
    """Set a logarithmic x scale that contains the values and the threshold."""
    low, high = 0.8 * np.nanmin(values, initial=0.02), 1.3 * np.nanmax(values, initial=0.3)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    far = 3 if high < 300 * low else 1  # ticks per decade
    axes.set_xticks([m * 10.0**n for n in range(-3, 3) for m in (1, 2, 5)[:far] if low < m * 10.0**n < high])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _wrapped(text: str) -> str:
    """On two lines if it is long."""
    return "\n".join(textwrap.wrap(text, 32))


def _sensitivity_words(table: pd.DataFrame, shown: int) -> str:
    marked = table[table["diagnosis"] != NOTHING]
    text = "It is not known how much the prior matters; "
    if table["prior"].notna().any():
        most = table.iloc[int(table["prior"].fillna(-1.0).argmax())]
        text = f"The prior matters most for {short(str(most['parameter']))} ({number(most['prior'])}); "
    if marked.empty:
        text += "no parameter is flagged."
    else:
        named = [f"{short(str(row.parameter))} ({row.diagnosis})" for row in marked.head(5).itertuples()]
        text += f"flagged: {', '.join(named)}" + (f" and {len(marked) - 5} more." if len(marked) > 5 else ".")
    if shown < len(table):
        text += f" Shown are the {shown} of {len(table)} parameters for which the prior matters most."
    return text
