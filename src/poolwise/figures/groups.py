"""Which groups differ, in pictures: every pair of rates, and every group against what the model expects of one."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from poolwise.checks.group_contrasts import DECIDED, DIFFERENCES, PAIRS
from poolwise.checks.groups import GroupsFound
from poolwise.counts.description import median_exposure
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.style import (
    BLACK,
    BLUE,
    GREY,
    MAX_LABELS,
    MAX_NAMED,
    ORANGE,
    SKY,
    VERMILLION,
    blank,
    legend_below,
    logarithmic,
    single,
    style,
)
from poolwise.inference.funnel import LIMITS, SHARES, funnel
from poolwise.inference.tables import observed_table
from poolwise.text import about, listing, number_of

SIDES = LinearSegmentedColormap.from_list("sides", [ORANGE, "white", BLUE])
WRITTEN = 12  # groups; the numbers of more would not be readable
GRID = 24  # exposures at which the limits are drawn, besides those of few groups
DECADES = 30.0  # largest by smallest value from which an axis is logarithmic
INNER, OUTER = (f"{100 * share:.3g}%" for share in LIMITS)
OUTSIDE = f"outside {OUTER}"


@figure(
    "contrasts",
    needs="groups",
    kind="Matrix of P(A > B) for pairs of groups",
    how_to_read=(
        "Look for pale cells: the order of these two rates is not known. A cell is the probability that the group of "
        "its row has a higher rate than the group of its column, from the joint draws of both. Groups are sorted by "
        "rate, the highest first."
    ),
)
def _contrasts(fit: Drawing) -> Picture:
    found = fit.view.results["groups"].value
    shown = _most_informative(found)
    greater = found.rates.greater(shown)
    size = len(shown)
    figure = blank(2.2 + 0.26 * max(size, 6))
    axes = figure.subplots()
    image = axes.imshow(greater, cmap=SIDES, vmin=0, vmax=1, aspect="auto")
    if size <= WRITTEN:
        _write(axes, greater)
    names = [fit.label(g, 18) for g in shown]
    axes.set_yticks(range(size), names, parse_math=False)
    axes.set_xticks(range(size), names, rotation=90, parse_math=False)
    axes.tick_params(length=0, labelsize=9)
    axes.set_xlabel(f"{fit.grouping} of the column", parse_math=False)
    axes.set_ylabel(f"{fit.grouping} of the row", parse_math=False)
    figure.colorbar(image, ax=axes, label="P(rate of row > rate of column)", shrink=0.8)
    figure.suptitle("Which of two rates is higher?", fontsize=12)
    pairs = greater[np.triu_indices(size, 1)]
    known = int((np.maximum(pairs, 1 - pairs) > DECIDED).sum())
    of_pairs = f"{known} of {number_of(len(pairs), 'pair')} of rates"
    shows = f"The order of {of_pairs} is known with probability above {DECIDED:.0%}."
    if size < len(fit.labels):
        shows += (
            f" Shown are the {size} of {len(fit.labels)} groups whose rates differ most clearly from the overall rate."
        )
    return Picture(figure, shows)


def _most_informative(found: GroupsFound) -> np.ndarray:
    """At most `PAIRS` groups, by rate: those that are most clearly above or below the overall rate."""
    order = found.rates.order
    if found.is_pairwise:
        return order
    difference = found.contrasts  # from the overall rate, in the order of the rates
    distance = np.abs(difference["difference"]) / (difference[DIFFERENCES[1]] - difference[DIFFERENCES[0]])
    kept = np.argsort(-distance.to_numpy(), kind="stable")[:PAIRS]
    return order[np.sort(kept)]


def _write(axes: Axes, greater: np.ndarray) -> None:
    """The numbers of the cells, bold where the order is known."""
    for (row, column), value in np.ndenumerate(greater):
        if row != column:
            text = "<.01" if value < 0.005 else ">.99" if value > 0.995 else f"{value:.2f}".removeprefix("0")
            weight = "bold" if max(value, 1 - value) > DECIDED else "normal"
            colour = "white" if value > 0.9 else BLACK
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour, weight=weight)


@figure(
    "funnel",
    kind="Funnel plot",
    how_to_read=(
        "Look for groups outside the funnel. A dot is the observed rate of a group, its total by its exposure; the "
        f"lines hold {INNER} and {OUTER} of the rates that the fitted model predicts for a group of that exposure. "
        "Groups with little exposure scatter more, so the highest and the lowest rates are often theirs."
    ),
)
def _funnel(fit: Drawing) -> Picture:
    table, grid = _expected(fit)
    figure, axes = single(5.0, "Is a group unlike what the model expects?")
    for low, high, name, look in ((0, 4, OUTER, "-"), (1, 3, INNER, "--")):
        axes.plot(grid.index, grid.iloc[:, [low, high]], look, color=GREY, linewidth=1.3)
        axes.plot([], [], look, color=GREY, linewidth=1.3, label=f"holds {name} of predicted rates")
    axes.plot(grid.index, grid.iloc[:, 2], color=SKY, linewidth=1.2, label="median prediction")
    beyond = _beyond(table)
    for kind, (colour, name) in enumerate(((BLUE, "inside"), (ORANGE, f"outside {INNER}"), (VERMILLION, OUTSIDE))):
        one = table[beyond == kind]
        if len(one):
            axes.plot(one["exposure"], one["rate"], "o", color=colour, markersize=5, label=name)
    _scale(axes, table, grid)
    far = _farthest(table)
    for g in far:
        _name(axes, fit.titled(g, 24), *table[["exposure", "rate"]].iloc[g])
    exposure = fit.view.counts.columns.exposure
    style(axes, fit.exposure_of_a_group if exposure else "rows of a group", f"observed rate, {fit.unit}")
    legend_below(figure, axes)
    return Picture(figure, _funnel_shows(fit, beyond, far), table, f"The limits are those of {_whose_limits(fit)}.")


def _expected(fit: Drawing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Exposure, observed rate and limits of every group, and the limits by exposure on a grid."""
    view, cells = fit.view, fit.view.cells
    group, rows = cells["cell_group"].values, cells["cell_multiplicity"].values
    exposure = np.bincount(group, rows * observed_table(fit.view.tree).exposure)
    rate = np.bincount(group, rows * cells["cell_count"].values) / exposure
    ends = np.geomspace(exposure.min() / 1.3, exposure.max() * 1.3, GRID)
    at = np.union1d(ends, exposure) if len(np.unique(exposure)) <= MAX_LABELS else ends
    limits = funnel(
        view.model,
        view.posterior,
        view.prior_values,
        weights=exposure,
        exposures=at,
        row_exposure=median_exposure(view.counts),
        seed=0,
    )
    names = [f"quantile_{share:.2%}" for share in SHARES]
    grid = pd.DataFrame(limits, index=at, columns=names)
    own = {name: np.interp(np.log(exposure), np.log(at), limits[:, i]) for i, name in enumerate(names)}
    index = pd.Index(fit.labels, name="group")
    return pd.DataFrame({"exposure": exposure, "rate": rate, **own}, index=index), grid


def _beyond(table: pd.DataFrame) -> np.ndarray:
    """Of each group, how many of the two pairs of limits it lies outside."""
    rate, limits = table["rate"].to_numpy(), table.iloc[:, 2:].to_numpy()
    outside = [(rate < limits[:, i]) | (rate > limits[:, -1 - i]) for i in (0, 1)]
    return np.sum(outside, axis=0)


def _farthest(table: pd.DataFrame) -> np.ndarray:
    """At most `MAX_NAMED` groups outside the outer limits, the farthest first, in widths of these limits."""
    rate, limits = table["rate"].to_numpy(), table.iloc[:, 2:].to_numpy()
    width = limits[:, -1] - limits[:, 0]
    distance = np.maximum(rate - limits[:, -1], limits[:, 0] - rate) / np.where(width > 0, width, 1)
    order = np.argsort(-distance, kind="stable")[:MAX_NAMED]
    return order[_beyond(table)[order] == 2]


def _scale(axes: Axes, table: pd.DataFrame, grid: pd.DataFrame) -> None:
    """Limits of the axes; logarithmic where the values span decades."""
    rate, near = table["rate"], grid[(grid.index >= table["exposure"].min()) & (grid.index <= table["exposure"].max())]
    low, high = min(rate.min(), near.iloc[:, 0].min()), max(rate.max(), near.iloc[:, -1].max())
    axes.set_xlim(grid.index[0], grid.index[-1])
    if table["exposure"].max() > DECADES * table["exposure"].min():
        logarithmic(axes, "x")
    if rate.min() > 0 and rate.max() > DECADES * rate.min():
        logarithmic(axes, "y")
        axes.set_ylim(rate.min() / 1.5, high * 1.5)
    else:
        margin = 0.06 * (high - low or 1.0)
        axes.set_ylim(max(low - margin, -margin), high + margin)


def _name(axes: Axes, text: str, x: float, y: float) -> None:
    """Write a name beside a dot, on the side with more room."""
    is_right = axes.transLimits.transform(axes.transScale.transform((x, y)))[0] > 0.5
    at, side = ((-6, 4), "right") if is_right else ((6, 4), "left")
    axes.annotate(text, (x, y), xytext=at, textcoords="offset points", ha=side, fontsize=9, parse_math=False)


def _funnel_shows(fit: Drawing, beyond: np.ndarray, far: np.ndarray) -> str:
    expected = (1 - LIMITS[0]) * len(beyond)
    outer, outside = int((beyond == 2).sum()), int((beyond > 0).sum())
    named = f": {listing([fit.named(g) for g in far])}" if 0 < outer <= len(far) else ""
    if outer > len(far):
        named = f", the farthest {listing([fit.named(g) for g in far])}"
    return (
        f"{outside} of {number_of(len(beyond), 'group')} lie outside the {INNER} limits of the model, where "
        f"{about(expected)} would by chance, and {outer} outside the {OUTER} limits{named}."
    )


def _whose_limits(fit: Drawing) -> str:
    pooling = fit.view.model.pooling
    if pooling.is_shared:
        return "a group with the one rate of all groups"
    if not pooling.informs_new_group:
        return "a group with the overall rate, because unpooled groups do not inform a new one"
    return "a new group of the fitted population, so they include the spread between groups"
