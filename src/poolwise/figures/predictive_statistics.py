"""Test statistics of the observed table and of simulated ones, in a picture."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, QUANTILES, bins_of, pearson, two_sided
from poolwise.figures.style import BLACK, MAX_BARS, SKY, legend_below, panels, whole_numbers
from poolwise.text import p_value

__all__ = ["statistics"]


def statistics(fit: Drawing) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Test statistics: observed, the middle 94% of simulated tables, and a two-sided p; the simulated values.

    Variance over mean is Pearson's X^2 over its degrees of freedom, which accounts for exposures.
    """
    observed, replicated = fit.counted
    exposure = fit.view.cells["row_exposure"].values
    ends = np.array([rows.start for rows in fit.by_group()])
    tables = np.vstack([observed, replicated])
    found = {"variance / mean": pearson(tables, exposure, np.array([0]))}
    if len(ends) > 1:
        found["variance / mean within groups"] = pearson(tables, exposure, ends)
    found |= {"rows with a zero": np.sum(tables == 0, axis=1), "largest count": tables.max(axis=1)}
    lines, simulated = {}, {}
    for name, values in found.items():
        at_least, p = two_sided(values)
        if not np.isnan(p):
            simulated[name] = values[1:][np.isfinite(values[1:])]
            lines[name] = (values[0], *np.quantile(simulated[name], QUANTILES), at_least, p)
    columns = ["observed", "3%", "median", "97%", "at_least", "p_value"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("statistic")
    return table.assign(finding=[_finding(row) for row in table.itertuples()]), simulated


def _finding(row: object) -> str:
    """A p-value in words."""
    p, upper = row.p_value, row.at_least  # type: ignore[attr-defined]
    if p >= 1 - BAND:
        return "as the model expects"
    return f"{'larger' if upper < 0.5 else 'smaller'} than the model expects"


@figure(
    "statistics",
    look_for=(
        "Look for black lines in the bulk of the blue shapes (posterior predictive check). A shape shows a test "
        "statistic in tables simulated from the fitted model, the line its value in the data. The variance over the "
        "mean tests Poisson noise, which gives 1. p is the two-sided probability that a simulated table is at least "
        "as extreme."
    ),
)
def _statistics(fit: Drawing) -> Picture:
    table, simulated = statistics(fit)
    tables = len(fit.counted[1])
    figure, grid = panels(len(table), "Are the simulated tables like the data?", columns=2, height=2.1)
    for axes, (name, values) in zip(grid, simulated.items(), strict=True):
        observed = float(table["observed"].loc[name])
        _draw_statistic(axes, values, observed, whole=_is_whole(name))
        axes.set_title(
            f"{name}: {_written(name, observed)}, p {p_value(table['p_value'].loc[name], tables)}", fontsize=10
        )
    figure.supylabel("share of tables", fontsize=10)
    legend_below(figure, grid[0])
    return Picture(figure, f"Here, of {tables} tables, {_statistics_words(table, tables)}.", table)


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


def _is_whole(name: str) -> bool:
    return not name.startswith("variance")


def _written(name: str, value: float) -> str:
    return f"{value:,.0f}" if _is_whole(name) or abs(value) >= 1000 else f"{value:.2f}"


def _statistics_words(table: pd.DataFrame, tables: int) -> str:
    parts = []
    for name, row in table.iterrows():
        observed, low, high = (_written(str(name), row[column]) for column in ("observed", "3%", "97%"))
        parts.append(
            f"the {name} is {observed} where {BAND:.0%} have {low} to {high}, {row['finding']} "
            f"(p {p_value(row['p_value'], tables)})"
        )
    return "; ".join(parts).replace("the rows with a zero is", "the number of rows with a zero is")
