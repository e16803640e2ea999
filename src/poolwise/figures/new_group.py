"""A group that is not in the data, in pictures: its rate and its counts."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, QUANTILES, bins_of, quantile_row, spread_out
from poolwise.figures.style import BLACK, BLUE, GREY, MAX_MARKS, SKY, blank, density, legend_below, style, whole_numbers
from poolwise.text import compact, number

if TYPE_CHECKING:
    from poolwise.inference.predictive import NewGroup

INTERVAL = (0.05, 0.95)  # of a count, as in the answer


@figure(
    "new_group",
    kind="Predictive distribution of a group",
    how_to_read=(
        "Look for the width of both shapes: on the left the rate of a group, on the right one future count of it. It "
        "is a new group, unless one is named. Ticks at the bottom, if any, are the means of the groups of the data; "
        "the darker counts have 90% probability."
    ),
)
def _new_group(fit: Drawing) -> Picture:
    new = fit.view.new_group
    figure = blank(4.2)
    left, right = figure.subplots(1, 2)
    look = {"color": SKY} if new.is_informed_by_data else {"color": "#D9D9D9", "hatch": "//"}
    _rate(left, fit, new, look)
    ends = _count(right, new, look)
    per = fit.view.counts.columns.per
    size = f", {fit.exposure_name} {compact(new.exposure * per)}" if fit.has_exposure or new.exposure != 1 else ""
    style(right, f"{fit.counted_in}{size}", "probability of a count")
    legend_below(figure, left, right)
    named = "" if new.label is None else fit.named(fit.labels.index(new.label))
    place = -1 if new.label is None else fit.labels.index(new.label)
    words = fit.view.model.pooling.new_group_words
    title = f"What does the model expect of {fit.titled(place)}?" if named else words.title
    figure.suptitle(title, fontsize=12, parse_math=False)
    low, middle, high = np.quantile(new.rate, QUANTILES)
    said = f"is {ends[0]:,}" if ends[0] == ends[1] else f"lies from {ends[0]:,} to {ends[1]:,}"
    whose = f"The rate of {named}, a group of the data," if named else "The rate of a new group"
    shows = (
        f"{whose} has the median {number(middle)} ({BAND:.0%} between {number(low)} and {number(high)}), and one count "
        f"of it {said} with probability 90% or more"
        f"{'' if new.is_informed_by_data else ', by the prior alone'}."
    )
    table = pd.DataFrame({"quantile": LEVELS, "rate": np.quantile(new.rate, LEVELS)}).set_index("quantile")
    return Picture(figure, shows, table, how_to_read="" if named else words.how_to_read)


def _rate(axes: Axes, fit: Drawing, new: "NewGroup", look: dict[str, Any]) -> None:
    edges = _rate_edges(new.rate, fit.own if new.is_informed_by_data else new.rate[:1])
    density(axes, new.rate, edges, fill=True, edgecolor="white", **look)
    if new.is_informed_by_data:
        means, at_bottom = spread_out(np.unique(fit.own), MAX_MARKS), axes.get_xaxis_transform()
        name = "means of the groups of the data"
        axes.vlines(means, 0, 0.06, color=BLACK, linewidth=1, transform=at_bottom, label=name)
    axes.set_yticks([])
    axes.set_xlim(edges[0], edges[-1])
    style(axes, f"rate, {fit.unit}", "density")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.set_title("Its rate", fontsize=11)


def _count(axes: Axes, new: "NewGroup", look: dict[str, Any]) -> tuple[int, int]:
    """Draw the probabilities of its counts; returns the ends of the middle 90%."""
    count = new.table["count"].to_numpy()
    first, last, end = (quantile_row(new.table, level) for level in (*INTERVAL, 0.995))
    # a row of the table may cover several counts
    height = new.table["probability"].to_numpy() / np.diff(count, prepend=count[0] - 1)
    ends = np.append(count[0] - 0.5, count + 0.5)
    axes.stairs(height, ends, fill=True, edgecolor="white", **look)
    strong = BLUE if new.is_informed_by_data else GREY
    axes.stairs(
        height[first : last + 1], ends[first : last + 2], fill=True, color=strong, alpha=0.75, label="holds 90%"
    )
    axes.set_xlim(ends[0], max(ends[end + 1], ends[0] + 2))
    whole_numbers(axes, most=6)
    axes.set_title("One count of it", fontsize=11)
    return int(count[first]), int(count[last])


LEVELS = [0.005, 0.03, 0.05, 0.25, 0.5, 0.75, 0.95, 0.97, 0.995]


def _rate_edges(rate: np.ndarray, own: np.ndarray) -> np.ndarray:
    low, high = np.quantile(rate, [0.001, 0.99])
    first, last = min(low, own.min()), max(high, own.max())
    margin = 0.02 * (last - first)
    return bins_of(np.array([max(0.0, first - margin), last + margin]), number=80)
