"""The rates of an unpooled model against those of a hierarchical one."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolwise.comparison.figures.base import WIDE, ComparisonFigure, Member, Ranked, group_names, rates_of
from poolwise.figures.bins import BAND
from poolwise.figures.fonts import printable
from poolwise.figures.style import BLUE, GREY, MAX_NAMED, MAX_PANELS, ORANGE, SKY, blank, style
from poolwise.text import number, short


def _shrinkage(ranked: Ranked) -> tuple[Figure, str]:
    pairs = _pairs(ranked.members)
    groups = group_names(ranked.members[pairs[0][0]].summary)
    pairs = [pair for pair in pairs if group_names(ranked.members[pair[0]].summary) == groups]
    rates = [[rates_of(ranked.members[place].summary, groups) for place in pair[:2]] for pair in pairs]  # (G, 3) each
    is_many = len(groups) > MAX_PANELS
    seen = np.array(rates)[..., 1:2] if is_many else np.array(rates)
    margin = 0.06 * (np.ptp(seen) or 1.0)
    ends = [seen.min() - margin, seen.max() + margin]
    figure = blank(6.0, WIDE)
    grid = figure.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    told = []
    for axes, (across, up, pooled), (x, y) in zip(grid, pairs, rates, strict=True):
        axes.set(xlim=ends, ylim=ends, box_aspect=1)
        _shrinkage_panel(axes, x, y, groups, is_many=is_many)
        axes.plot(ends, ends, color=GREY, linewidth=1.2, label="no shrinkage")
        if pooled is not None:
            rate = float(ranked.members[pooled].summary["mean"].loc["lam"])
            axes.axhline(rate, color=ORANGE, linewidth=1.6, linestyle="--", label="the pooled rate")
        axes.set_title(ranked.members[up].likelihood.replace("_", " "), fontsize=11)
        style(axes, f"rate by {short(ranked.labels[across], 44)}", f"rate by {short(ranked.labels[up], 44)}")
        axes.xaxis.label.set_parse_math(False)
        axes.yaxis.label.set_parse_math(False)
        axes.tick_params(labelleft=True)
        moved = int(np.argmax(np.abs(y[:, 1] - x[:, 1])))
        told.append(
            f"From {short(ranked.labels[across], 60)} to {short(ranked.labels[up], 60)}, group {short(groups[moved])} "
            f"moves most, {number(x[moved, 1])} to {number(y[moved, 1])}"
        )
    figure.suptitle("How far do the groups shrink towards each other?", fontsize=12)
    handles: dict[str, Artist] = {}
    for axes in grid:  # only one likelihood may have a pooled rate
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
    text = f"{'; '.join(told)}. The highest-ranked model of each kind is used."
    return figure, text + (
        f" The {MAX_NAMED} groups that move most are named; intervals are not drawn." if is_many else ""
    )


def _shrinkage_panel(axes: Axes, x: np.ndarray, y: np.ndarray, groups: Sequence[str], *, is_many: bool) -> None:
    """Points of the groups, x and y (G, 3), with intervals if there are few; names beside the panel, from the top."""
    if not is_many:
        axes.hlines(y[:, 1], x[:, 0], x[:, 2], color=SKY, linewidth=1.2)
        axes.vlines(x[:, 1], y[:, 0], y[:, 2], color=SKY, linewidth=1.2)
    axes.plot(x[:, 1], y[:, 1], "o", color=BLUE, markersize=3 if is_many else 6, label="a group", zorder=3)
    moved = np.argsort(-np.abs(y[:, 1] - x[:, 1]), kind="stable")[: MAX_NAMED if is_many else len(groups)]
    named = moved[np.argsort(-y[moved, 1], kind="stable")]
    bottom, top = axes.get_ylim()
    heights = _apart((y[named, 1] - bottom) / (top - bottom), least=0.06)
    for g, height in zip(named, heights, strict=True):
        axes.annotate(
            printable(groups[g], otherwise=f"group {g + 1}", length=16),
            xy=(x[g, 1], y[g, 1]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkB": 4},
        )


def _apart(heights: np.ndarray, *, least: float) -> np.ndarray:
    """Descending heights within 0 and 1, moved as little as necessary to be `least` apart."""
    moved = np.minimum(heights, 1.0)
    for i in range(1, len(moved)):
        moved[i] = min(moved[i], moved[i - 1] - least)
    moved[-1] = max(moved[-1], 0.0)
    for i in range(len(moved) - 2, -1, -1):
        moved[i] = max(moved[i], moved[i + 1] + least)
    return moved


def _lacks(members: Sequence[Member]) -> str:
    return (
        ""
        if _pairs(dict(enumerate(members)))
        else "it needs an unpooled and a hierarchical model with the same likelihood and groups"
    )


def _pairs(members: Mapping[int, Member]) -> list[tuple[int, int, int | None]]:
    """Ranks of the best unpooled, hierarchical and pooled model, for every likelihood with the first two."""
    found = []
    for likelihood in dict.fromkeys(member.likelihood for member in members.values()):
        alike = [(place, member) for place, member in members.items() if member.likelihood == likelihood]
        alone = next((each for each in alike if not each[1].pooling.informs_new_group), None)
        groups = group_names(alone[1].summary) if alone else []
        sharing = next(
            (k for k, one in alike if one.pooling.has_population and group_names(one.summary) == groups), None
        )
        common = next((k for k, one in alike if one.pooling.is_shared), None)
        if alone is not None and sharing is not None:
            found.append((alone[0], sharing, common))
    return found


SHRINKAGE = ComparisonFigure(
    "shrinkage",
    _shrinkage,
    kind="Rates with partial pooling against rates without pooling",
    how_to_read=(
        "Look for points off the diagonal. Each is a group: horizontally its rate in the unpooled model, vertically "
        f"its rate in the hierarchical model, which shares strength between groups, with {BAND:.0%} intervals. On the "
        "diagonal there is no shrinkage. Groups shrink towards the mean, near the line of the pooled rate, most if "
        "they have few data or are extreme."
    ),
    lacks=_lacks,
)
