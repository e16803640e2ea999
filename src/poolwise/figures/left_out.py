"""LOO-PIT, coverage, Pareto k and leave-group-out in pictures: rows and groups predicted from all others."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.stats import binom

from poolwise.checks.loo_pit import LEVELS, NOTICED, SIMULATED, LooPit
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, TAIL
from poolwise.figures.style import (
    BLACK,
    BLUE,
    GREY,
    MAX_LABELS,
    MAX_NAMED,
    SKY,
    VERMILLION,
    blank,
    legend_below,
    single,
    style,
    whole_numbers,
)
from poolwise.text import number, p_value, share

NOMINAL = (0.5, 0.8, 0.9, 0.95, 0.99)  # of the caption
RANDOMISED = 0.25  # of the variance of the PIT: from here on the caption says how little the check sees

# Rows predicted from all others.


@figure(
    "loo_pit",
    kind="Histogram and ECDF of LOO-PIT",
    how_to_read=(
        "Look for even bars on the left and a line inside the band on the right (LOO-PIT). Each row is predicted from "
        "all others; its PIT, its place in that prediction, lies between 0 and 1 and should be uniform. High bars at "
        "both ends mean predictions too narrow, in the middle too wide, on one side shifted to the other. A variance "
        "of the PIT above the uniform one means predictions too narrow, below it too wide."
    ),
)
def _loo_pit(fit: Drawing) -> Picture:
    pit = fit.view.loo_pit
    (table, p), total = pit.ecdf, pit.num_rows
    line = table["rows"].to_numpy()
    figure = blank(4.2)
    left, right = figure.subplots(1, 2)
    bars = np.linspace(0, 1, 11)
    heights = np.diff(pit.cumulative(bars)) * 10
    spread = 10 * binom.ppf([TAIL, 1 - TAIL], total, 0.1) / total
    left.axhspan(*spread, color=GREY, alpha=0.3, linewidth=0, label=f"{BAND:.0%} of uniform samples")
    left.stairs(heights, bars, fill=True, color=SKY, label="rows")
    left.axhline(1, color=BLACK, linewidth=1, linestyle="--", label="even")
    left.set_ylim(0, 1.15 * max(1, spread[1], heights.max()))
    style(left, "LOO-PIT: place of a row in its prediction", "density of rows")
    right.fill_between(LEVELS, table["3%"] - LEVELS, table["97%"] - LEVELS, color=GREY, alpha=0.3, linewidth=0)
    right.axhline(0, color=BLACK, linewidth=1, linestyle="--")
    right.plot(LEVELS, line - LEVELS, color=BLUE, linewidth=1.8)
    style(right, "LOO-PIT: place of a row in its prediction", "ECDF minus uniform")
    right.set_xlim(0, 1)
    legend_below(figure, left)
    figure.suptitle("Are rows where the others predict them? (LOO-PIT)", fontsize=12)
    return Picture(figure, _loo_pit_words(pit, p), table)


def _loo_pit_words(pit: LooPit, p: float) -> str:
    text = f"LOO-PIT {'stays inside' if p >= 1 - BAND else 'leaves'} the band of uniform samples "
    text += f"(p {p_value(p, SIMULATED)})"
    if p < 1 - BAND:
        text += f": the counts {pit.departures}"
    text += f". The mean PIT is {pit.mean:.3f} (uniform: 0.5), its variance {pit.variance:.4f} (uniform: 0.0833)."
    if pit.randomised < RANDOMISED:
        return text
    return (
        f"{text} These counts are sparse: {share(pit.randomised)} of that variance is the randomisation between "
        "P(Y < y) and P(Y <= y), so the check sees only large departures."
    )


@figure(
    "calibration",
    kind="Coverage of the predictive intervals",
    how_to_read=(
        "Look for a blue line on the diagonal, inside the band. Each row is predicted from all others. The line shows "
        "the coverage: the share of rows that an interval contains, against the nominal share. Below the diagonal the "
        "intervals are too narrow and the predictions overconfident; above it they are too wide."
    ),
)
def _calibration(fit: Drawing) -> Picture:
    table, p = fit.view.loo_pit.coverage
    figure = blank(4.4)
    left, right = figure.subplots(1, 2)
    for axes, less in ((left, 0.0), (right, LEVELS)):
        axes.fill_between(LEVELS, table["3%"] - less, table["97%"] - less, color=GREY, alpha=0.3, linewidth=0)
        axes.plot(LEVELS, LEVELS - less, color=BLACK, linewidth=1, linestyle="--")
        axes.plot(LEVELS, table["covered"] - less, color=BLUE, linewidth=1.8)
    style(left, "nominal coverage of an interval", "share of rows that it contains")
    style(right, "nominal coverage of an interval", "coverage minus nominal")
    for axes in (left, right):
        axes.set_xlim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    figure.suptitle("Do predictive intervals have their nominal coverage?", fontsize=12)
    (first, part), *others = ((f"{level:.0%}", share(table["covered"].loc[level])) for level in NOMINAL)
    more = "".join(f", the {level} ones {part}" for level, part in others)
    shows = f"The {first} intervals of left-out rows contain {part} of them{more}; their coverage "
    shows += f"{'stays inside' if p >= 1 - BAND else 'leaves'} the band of chance (p {p_value(p, SIMULATED)})"
    if p < 1 - BAND:
        shows += f", the intervals being too {'narrow' if (table['covered'] - LEVELS).mean() < 0 else 'wide'}"
    return Picture(figure, f"{shows}.", table)


@figure(
    "pareto_k",
    kind="Pareto k of each row",
    how_to_read=(
        "Look for points above the dashed line. Leaving out a row shows how well the others predict it. Pareto k "
        "measures how far the fit would move without that row; above the threshold PSIS, which avoids refitting, is "
        "not reliable. A point is the rows of one group with the same count and exposure, a larger one "
        "more rows."
    ),
)
def _pareto_k(fit: Drawing) -> Picture:
    count, rows = (fit.view.cells[f"cell_{name}"].values for name in ("count", "multiplicity"))
    finite = np.isfinite(fit.view.loo.pareto_k)
    top = max(fit.view.loo.k_threshold, fit.view.loo.pareto_k[finite].max(initial=0.0))
    k = np.where(finite, fit.view.loo.pareto_k, top + 0.1)
    bad = ~(fit.view.loo.pareto_k <= fit.view.loo.k_threshold)
    figure, axes = single(4.6, "Does any single row decide the result?")
    for kind, colour, marker in ((~bad, BLUE, "o"), (bad, VERMILLION, "D")):
        area = 14 + 120 * rows[kind] / rows.max()
        axes.scatter(count[kind], k[kind], s=area, c=colour, marker=marker, alpha=0.65, linewidths=0)
    name = f"threshold, {fit.view.loo.k_threshold:.2f}"
    axes.axhline(fit.view.loo.k_threshold, color=BLACK, linewidth=1.2, linestyle="--", label=name)
    axes.set_ylim(min(k.min(), 0) - 0.08, top + 0.2)
    worst = np.flatnonzero(bad)[np.argsort(-k[bad], kind="stable")][:MAX_NAMED]
    _name_cells(fit, axes, worst, k)
    whole_numbers(axes)
    style(axes, fit.counted_in.replace("one row", "the row left out"), "Pareto k (smaller is better)")
    legend_below(figure, axes)
    shows = f"0 of {rows.sum():,} rows lie above the {name}; the largest Pareto k is {k.max():.2f}."
    if bad.any():
        lie = "lies" if rows[bad].sum() == 1 else "lie"
        shows = f"{rows[bad].sum():,} of {rows.sum():,} rows ({bad.sum()} of {len(bad)} points) {lie} above the {name}"
        shows += f"; the {len(worst)} worst are named." if bad.sum() > len(worst) else "."
    if not finite.all():
        shows += f" Points without a finite k, drawn at the top: {np.sum(~finite)}."
    return Picture(figure, shows)


def _name_cells(fit: Drawing, axes: Axes, named: np.ndarray, k: np.ndarray) -> None:
    """Write group and count of these cells next to the picture, with a line to each."""
    count, group = fit.view.cells["cell_count"].values, fit.view.cells["cell_group"].values
    for place, cell in enumerate(named):
        axes.annotate(
            f"{fit.titled(int(group[cell]), 20)}: count {count[cell]:,}",
            xy=(count[cell], k[cell]),
            xytext=(1.02, 0.95 - 0.08 * place),
            textcoords="axes fraction",
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkB": 4},
        )


# Groups left out.


@figure(
    "leave_group_out",
    kind="Log probability of each group, predicted from the others",
    how_to_read=(
        "Look on the right for groups far to the left: the other groups predict these worst. A dot is the log "
        "probability of all rows of a group, predicted by a fit to all other groups. It falls with the number of rows, "
        "so the right picture divides it by that number. The sum over groups measures how well a model predicts a "
        "new group; compare it between models fitted to the same data."
    ),
    needs="leave_group_out",
)
def _leave_group_out(fit: Drawing) -> Picture:
    table = fit.view.tables["leave_group_out"].set_axis(fit.labels)
    rows = fit.group_rows
    table = table.assign(rows=rows, per_row=table["elpd"] / rows).rename_axis("group")
    each = table["per_row"].to_numpy()
    shown = np.arange(len(each)) if len(each) <= MAX_LABELS else np.sort(np.argsort(each, kind="stable")[:MAX_LABELS])
    doubtful = table["suspect"].to_numpy(bool)
    figure = blank(1.7 + 0.25 * max(4, len(shown)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, per in ((left, np.ones(len(rows))), (right, rows)):
        _draw_groups(axes, shown, table["elpd"].to_numpy() / per, table["mcse"].to_numpy() / per, doubtful)
    left.set_yticks(np.arange(len(shown)), [fit.label(g) for g in shown], parse_math=False)
    left.set_ylim(len(shown) - 0.4, -0.6)
    style(left, "log probability of all its rows", fit.grouping)
    style(right, "the same, per row")
    legend_below(figure, left)
    figure.suptitle("How well do the other groups predict each group?", fontsize=12)
    return Picture(figure, _left_out_words(fit, table, doubtful, len(shown)), table)


def _draw_groups(axes: Axes, shown: np.ndarray, value: np.ndarray, error: np.ndarray, doubtful: np.ndarray) -> None:
    place = np.arange(len(shown))
    name = f"{BAND:.0%} by Monte Carlo error"
    axes.hlines(place, *(value[shown] + end * NOTICED * error[shown] for end in (-1, 1)), color=BLACK, label=name)
    for kind, colour, marker, name in (
        (~doubtful[shown], BLUE, "o", "group left out"),
        (doubtful[shown], VERMILLION, "D", "group left out, refit not reliable"),
    ):
        if kind.any():
            axes.plot(value[shown][kind], place[kind], marker, color=colour, markersize=5, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _left_out_words(fit: Drawing, table: pd.DataFrame, doubtful: np.ndarray, shown: int) -> str:
    error = float(np.sqrt((table["mcse"] ** 2).sum()))
    total = f"{table['elpd'].sum():,.2f}, with a Monte Carlo error of {error:.2g}"
    text = f"Predicted from the others, the groups have log probabilities that sum to {total}"
    if len(table) > 1:
        worst = int(table["per_row"].argmin())
        text += f"; least expected, per row, is {fit.named(worst)} ({number(table['per_row'].iloc[worst])})"
    if doubtful.any():
        text += f"; the refits of {doubtful.sum()} are not reliable"
    if shown < len(table):
        text += f". Shown are the {shown} of {len(table)} groups least expected per row"
    return f"{text}."
