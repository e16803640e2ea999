"""Test statistics of the observed table and of simulated ones, in a picture."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from poolwise.checks.predictive_statistics import AS_EXPECTED, LARGEST, ZEROS, written
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, bins_of
from poolwise.figures.style import BLACK, MAX_BARS, SKY, legend_below, panels, whole_numbers
from poolwise.text import p_value


@figure(
    "statistics",
    kind="Test statistics of the data and of simulated tables",
    how_to_read=(
        "Look for black lines in the bulk of the blue shapes (posterior predictive check). A shape shows a test "
        "statistic in tables simulated from the fitted model, the line its value in the data. The variance over the "
        "mean tests Poisson noise, which gives 1. p is the two-sided probability that a simulated table is at least "
        "as extreme."
    ),
)
def _statistics(fit: Drawing) -> Picture:
    table, simulated = fit.view.predictive_statistics
    tables = len(fit.counted[1])
    figure, grid = panels(len(table), "Are the simulated tables like the data?", columns=2, height=2.1)
    for axes, (name, values) in zip(grid, simulated.items(), strict=True):
        observed = float(table["observed"].loc[name])
        _draw_statistic(axes, values, observed, whole=name in (ZEROS, LARGEST))
        axes.set_title(
            f"{name}: {written(name, observed)}, p {p_value(table['p_value'].loc[name], tables)}", fontsize=10
        )
    figure.supylabel("share of tables", fontsize=10)
    legend_below(figure, grid[0])
    return Picture(figure, _statistics_words(table, tables), table)


def _draw_statistic(axes: Axes, values: np.ndarray, observed: float, *, whole: bool) -> None:
    distinct, times = np.unique(values, return_counts=True)
    if whole and len(distinct) <= MAX_BARS:
        axes.bar(distinct, times / len(values), width=0.86, color=SKY, label="simulated tables")
    else:
        heights, edges = np.histogram(values, bins=bins_of(values, number=40))
        axes.stairs(heights / len(values), edges, color=SKY, fill=True, label="simulated tables")
    axes.axvline(observed, color=BLACK, linewidth=2, label="observed")
    if whole:
        whole_numbers(axes, most=6)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


def _statistics_words(table: pd.DataFrame, tables: int) -> str:
    parts = []
    for name, row in table.iterrows():
        observed, low, high = (written(str(name), row[column]) for column in ("observed", "3%", "97%"))
        parts.append(
            f"the {name} is {observed} where {BAND:.0%} have {low} to {high}, {row['finding']} "
            f"(p {p_value(row['p_value'], tables)})"
        )
    text = "; ".join(parts).replace("the rows with a zero is", "the number of rows with a zero is")
    expected = sum(table["finding"] == AS_EXPECTED)
    return f"{expected} of {len(table)} test statistics are {AS_EXPECTED}, by {tables} simulated tables. T{text[1:]}."
