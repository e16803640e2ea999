"""Posterior predictive checks of several models, side by side."""

import numpy as np
from matplotlib.figure import Figure

from poolwise.checks.predictive_statistics import observed_and_simulated
from poolwise.comparison.figures.base import WIDE, ComparisonFigure, Ranked, without_draws
from poolwise.figures.bins import BAND, edges_of, whole_edges
from poolwise.figures.predictive import draw_ecdf
from poolwise.figures.style import MAX_STEPS, blank, style
from poolwise.text import short


def _predictive(ranked: Ranked) -> tuple[Figure, str]:
    shown = [(label, member.tree) for _, member, label in ranked.first() if member.tree is not None]
    counts = [(label, *observed_and_simulated(tree)) for label, tree in shown]
    ends = np.array([edges_of(observed, simulated, most=MAX_STEPS)[[0, -1]] for _, observed, simulated in counts])
    observed = counts[0][1]
    least, most = observed.count.min(), observed.count.max()
    top = most + max(10, 2 * (most - least))  # one model gone astray does not squeeze the others
    reach = np.append(np.minimum(ends - [0, 1], top), [[least, most]], axis=0)
    edges = whole_edges(reach.min(), reach.max(), most=MAX_STEPS)
    at = edges - 1  # (K + 1,), the largest count that a share includes
    num_columns = min(3, len(counts))
    num_lines = -(-len(counts) // num_columns)
    figure = blank(1.2 + 2.5 * num_lines, WIDE)
    grid = figure.subplots(num_lines, num_columns, sharex=True, sharey=True, squeeze=False).ravel()
    inside = []
    for place, (axes, (label, _, simulated)) in enumerate(zip(grid, counts, strict=False)):
        _, seen, low, high = draw_ecdf(axes, observed, simulated, edges)
        inside.append(int(np.sum((low[1:] <= seen[1:]) & (seen[1:] <= high[1:]))))
        axes.text(0.97, 0.05, f"inside at {inside[-1]} of {len(at) - 1}", transform=axes.transAxes, ha="right")
        axes.set_title(label, fontsize=10 if len(label) < 42 else 9, parse_math=False)
        is_lowest = place >= len(counts) - num_columns
        style(axes, "count" if is_lowest else "")
        axes.tick_params(labelbottom=is_lowest)
    for axes in grid[len(counts) :]:
        axes.remove()
    figure.suptitle("Which model reproduces the counts?", fontsize=12)
    figure.supylabel("share of rows with at most this count", fontsize=10)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    what = "counts" if at[1] - at[0] == 1 else "points"
    worst = min(range(len(inside)), key=lambda place: (inside[place], -place))
    text = f"The data leave the band of simulated tables most often for {short(counts[worst][0], 60)}"
    text += f": they are inside at {inside[worst]} of {len(at) - 1} {what}."
    if min(inside) == len(at) - 1:
        text = (
            f"The data lie inside the band of simulated tables everywhere, at all {len(at) - 1} {what} of every model."
        )
    if ends[:, 1].max() - 1 > top:
        text += f" Counts above {edges[-1] - 1:,} are not shown."
    if missing := sum(member.tree is None for _, member, _ in ranked.first()):
        text += f" Models left out because their runs have no stored draws: {missing}."
    return figure, text + ranked.left_out()


PREDICTIVE = ComparisonFigure(
    "predictive",
    _predictive,
    kind="Posterior predictive check of the ECDF by model",
    how_to_read=(
        "Look for the black line inside the band. The line is the same in all panels: the share of rows with at most "
        f"that count. The band contains the middle {BAND:.0%} of that share in tables simulated by the fitted model."
    ),
    lacks=without_draws,
)
