"""The counts that every model predicts for a group that is not in the data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from poolwise.comparison.figures.base import WIDE, ComparisonFigure, Member, Ranked, without_members
from poolwise.figures.bins import count_quantile
from poolwise.figures.style import BLACK, BLUE, GREY, blank, style, whole_numbers
from poolwise.text import short


def _new_group(ranked: Ranked) -> tuple[Figure, str]:
    shown = list(ranked.first())
    density = [_density(member.new_group) for _, member, _ in shown]
    learnt = [member.pooling.informs_new_group for _, member, _ in shown]
    tops = [count_quantile(member.new_group, 0.995) for _, member, _ in shown]
    # an unpooled model has only the prior for a new group; if it is vague, it must not compress the other distributions
    known = [top for top, is_learnt in zip(tops, learnt, strict=True) if is_learnt]
    end = min(max(tops), 3 * max(known)) if known else max(tops)
    highest = max(float(height[count <= end].max()) for count, height in density)
    figure = blank(1.5 + 0.62 * len(shown), WIDE)
    axes = figure.subplots()
    for place, ((_, member, _), (count, height)) in enumerate(zip(shown, density, strict=True)):
        base = len(shown) - 1.0 - place
        edges = np.append(count - np.diff(count, prepend=-1) + 0.5, count[-1] + 0.5)
        colour, hatch = (BLUE, "") if learnt[place] else (GREY, "///")
        tops_of = base + 0.72 * height / highest
        axes.stairs(
            tops_of,
            edges,
            baseline=base,
            fill=True,
            facecolor=colour,
            alpha=0.35,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0,
        )
        axes.stairs(tops_of, edges, baseline=base, color=colour, linewidth=1.2)
        low, median, high = (count_quantile(member.new_group, q) for q in (0.05, 0.5, 0.95))
        axes.hlines(base - 0.1, low, high, color=colour, linewidth=3)
        axes.plot(median, base - 0.1, "|", color=BLACK, markersize=11, markeredgewidth=2)
        told = f"{median:,} ({low:,} to {high:,})"
        axes.text(1.01, base + 0.1, told, transform=axes.get_yaxis_transform(), va="center")
    names = [
        label + ("" if is_learnt else "\n(from the prior alone)")
        for (_, _, label), is_learnt in zip(shown, learnt, strict=True)
    ]
    axes.set_yticks(len(shown) - 0.9 - np.arange(len(shown)), names, parse_math=False)
    axes.set_ylim(-0.3, len(shown) - 0.1)
    axes.set_xlim(-0.5, end + 0.5)
    axes.set_title("Which counts are predicted for a group that is not in the data?", fontsize=12)
    axes.text(1.01, 1.0, "median (90%)", transform=axes.transAxes, va="bottom")
    whole_numbers(axes)
    style(axes, "count")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    widths = [count_quantile(m.new_group, 0.95) - count_quantile(m.new_group, 0.05) for _, m, _ in shown]
    usable = [place for place, is_learnt in enumerate(learnt) if is_learnt]
    text = "No model has information about a new group: unpooled groups share no information."
    if usable:
        narrow, wide = (find(usable, key=widths.__getitem__) for find in (min, max))
        text = (
            f"Among models that learn about new groups from the data, {short(shown[narrow][2], 60)} has the "
            f"narrowest distribution and {short(shown[wide][2], 60)} the widest."
        )
        if widths[narrow] == widths[wide]:
            text = "All models that learn about new groups from the data give distributions of equal width."
        if not all(learnt):
            text += " Grey and hatched: unpooled models, which do not learn about a new group; this is their prior."
    if max(tops) > end:
        text += f" Counts above {end:,} are not shown."
    return figure, text + ranked.left_out()


def _density(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Counts and their probabilities; in a coarse table the average probability of the counts up to each."""
    count = table["count"].to_numpy()
    return count, table["probability"].to_numpy() / np.diff(count, prepend=-1)


def _without_prediction(members: Sequence[Member]) -> str:
    """Why there is no picture: a run that predicts a group of the data has no new group."""
    if any(member.new_group.empty for member in members):
        return "it needs the prediction for a new group; runs with predict.group have none"
    return without_members(members)


NEW_GROUP = ComparisonFigure(
    "new_group",
    _new_group,
    kind="Predictive distribution of a new group by model",
    how_to_read=(
        "Look at the location and width of the distributions. Each is the probability of each count in a group that "
        "is not in the data, all to the same scale. The bar below it covers the middle 90%, the tick is the median. "
        "elpd_loo does not assess these: it predicts further rows of the groups in the data."
    ),
    lacks=_without_prediction,
)
