"""Posterior predictive checks in pictures: the distribution of counts, overall and group by group.

A band contains the middle 94% of tables that the fitted model simulated. Of many groups the pictures show those that
the model reproduces worst.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, QUANTILES, edges_of, tabulate
from poolwise.figures.style import (
    BLACK,
    BLUE,
    MAX_BARS,
    MAX_PANELS,
    MAX_STEPS,
    ORANGE,
    SKY,
    legend_below,
    panels,
    single,
    square_root,
    style,
    whole_numbers,
)
from poolwise.inference.tables import Tables
from poolwise.text import about, number_of, p_value

SURPRISING = 1 - BAND  # a p-value below it is outside the band
NO_VARIANCE = "No group has two rows and a count above zero; by the distance of its share"
MAX_SMALL = 30  # bars of a small panel


@figure(
    "ecdf",
    kind="Posterior predictive check of the ECDF",
    how_to_read=(
        "Look for the black line inside the blue band (posterior predictive check). The line gives, for every count, "
        f"the share of rows with at most that count; the band contains the middle {BAND:.0%} of that share in tables "
        "simulated from the fitted model."
    ),
)
def _ecdf(fit: Drawing) -> Picture:
    observed, replicated = fit.counted
    edges = edges_of(observed, replicated, most=MAX_STEPS)
    figure, axes = single(4.6, "Does the model reproduce the counts?")
    at, seen, low, high = draw_ecdf(axes, observed, replicated, edges)
    _zoom(axes, seen, low)
    style(axes, fit.counted_in, "share of rows with at most this count")
    axes.legend(loc="lower right", frameon=False)
    missed = np.maximum(low - seen, seen - high)  # > 0 outside
    worst = int(missed.argmax())
    shows = (
        f"The share of rows with at most a count lies inside the band of {len(replicated)} simulated tables at "
        f"{np.sum(missed[1:] <= 0)} of {len(at) - 1} {'counts' if at[1] - at[0] == 1 else 'points'}"
    )
    if missed[worst] > 0:
        shows += (
            f"; furthest outside: at most {at[worst]:,} have {seen[worst]:.1%} of the rows, "
            f"{low[worst]:.1%} to {high[worst]:.1%} expected"
        )
    table = pd.DataFrame({"count": at, "observed": seen, "3%": low, "97%": high})
    return Picture(figure, shows + ".", table.set_index("count"))


def draw_ecdf(
    axes: Axes, observed: Tables, replicated: Tables, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw observed and simulated shares; returns (K + 1,) the counts, the observed share, the ends of the band."""
    at = edges - 1  # the largest count in a share
    num_rows = observed.num_rows
    seen = tabulate(observed, edges).cumsum(axis=1)[0, :-1] / num_rows
    simulated = tabulate(replicated, edges).cumsum(axis=1)[:, :-1] / num_rows  # (draw, K + 1)
    low, median, high = np.quantile(simulated, QUANTILES, axis=0)
    ends = np.append(at, 2 * at[-1] - at[-2])  # a share is constant from its count to the next
    tables = f"{BAND:.0%} of simulated tables"
    axes.stairs(high, ends, baseline=low, fill=True, color=SKY, alpha=0.45, linewidth=0, label=tables)
    axes.stairs(median, ends, baseline=None, color=BLUE, linestyle="--", linewidth=1.5, label="their median")
    axes.stairs(seen, ends, baseline=None, color=BLACK, linewidth=1.5, label="observed")
    axes.set_xlim(max(-0.5, ends[0]), ends[-1])
    whole_numbers(axes)
    return at, seen, low, high


def _zoom(axes: Axes, seen: np.ndarray, low: np.ndarray) -> None:
    """Begin the shares higher than at 0 if nearly all rows have the smallest count."""
    if 0.9 < (lowest := min(seen[1], low[1])) < 1:
        axes.set_ylim(1 - 1.5 * (1 - lowest), 1 + 0.1 * (1 - lowest))


@figure(
    "rootogram",
    kind="Rootogram",
    how_to_read=(
        "Look for bars that end within their black interval. A bar shows the number of rows with that count, on a "
        "square-root scale (rootogram of Kleiber and Zeileis); the interval contains the middle "
        f"{BAND:.0%} of that number in tables simulated from the fitted model. Bars too high at both ends and too low "
        "between them mean that the noise is wider than the model's."
    ),
)
def _rootogram(fit: Drawing) -> Picture:
    observed, replicated = fit.counted
    edges = edges_of(observed, replicated, most=MAX_BARS)
    width = int(edges[1] - edges[0])
    figure, axes = single(4.6, "Is every count as frequent as the model expects?")
    seen, low, high = _draw_rootogram(axes, observed, replicated, edges)
    each = "" if width == 1 else f" (each bar spans {width:,})"
    style(axes, f"{fit.counted_in}{each}", "rows (square-root scale)")
    legend_below(figure, axes)
    missed = _missed(seen, low, high)
    shows = (
        f"{np.sum(missed <= 0)} of {len(seen)} {'counts' if width == 1 else 'bars'} are as frequent as in the middle "
        f"{BAND:.0%} of {len(replicated)} simulated tables"
    )
    if np.any(missed > 0):
        worst = int(missed.argmax())
        name = f"{edges[worst]:,}" + ("" if width == 1 else f" to {edges[worst + 1] - 1:,}")
        shows += f"; most missed: {name} ({seen[worst]:,} seen, {low[worst]:,} to {high[worst]:,} expected)"
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:] - 1, "observed": seen, "3%": low, "97%": high})
    return Picture(figure, shows + ".", table.set_index("from"))


def _draw_rootogram(
    axes: Axes, observed: Tables, replicated: Tables, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw observed and simulated frequencies; returns (K,) the observed ones and the ends of the band."""
    seen = tabulate(observed, edges)[0, 1:-1]
    simulated = tabulate(replicated, edges)[:, 1:-1]  # (draw, K)
    low, median, high = np.quantile(simulated, QUANTILES, axis=0, method="inverted_cdf")
    missed = _missed(seen, low, high)
    width = edges[1] - edges[0]
    middle = edges[:-1] + (width - 1) / 2
    for kind, colour, hatch, name in (
        (missed <= 0, SKY, "", "observed"),
        (missed > 0, ORANGE, "//", "observed, not as expected"),
    ):
        if kind.any():
            bars = axes.bar(middle[kind], seen[kind], width=0.86 * width, color=colour, label=name)
            for bar in bars:
                bar.set(hatch=hatch, edgecolor="white")
    axes.vlines(middle, low, high, color=BLACK, linewidth=1.4, label=f"{BAND:.0%} of simulated tables")
    axes.plot(middle, median, "o", color=BLACK, markersize=3.5, label="their median")
    square_root(axes, 1.2 * max(1, seen.max(), high.max()))
    whole_numbers(axes)
    return seen, low, high


def _missed(seen: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Distance outside the band, > 0, on the square-root scale, which stabilises the variance."""
    return np.maximum(np.sqrt(low) - np.sqrt(seen), np.sqrt(seen) - np.sqrt(high))


@figure(
    "groups_predictive",
    kind="Posterior predictive check by group",
    how_to_read=(
        "Look for panels whose black line leaves the blue band. Each panel is the posterior predictive check of one "
        "group: the share of its rows with at most that count, compared with tables simulated from the fitted "
        "model. p is the share of those whose line is at least as far from their mean as the observed one."
    ),
)
def _groups_predictive(fit: Drawing) -> Picture:
    table = fit.reproduced
    shown, titles = _worst(fit, table["rows"], table["p_value"])
    figure, grid = panels(len(shown), "Does the model reproduce each group?", height=2.15, x=fit.counted_in)
    for axes, group, title in zip(grid, shown, titles, strict=True):
        observed, replicated = (tables.of_group(group) for tables in fit.counted)
        edges = edges_of(observed, replicated, most=MAX_STEPS)
        _, seen, low, _ = draw_ecdf(axes, observed, replicated, edges)
        _zoom(axes, seen, low)
        whole_numbers(axes, most=5)
        axes.set_title(title, fontsize=9, parse_math=False)
    figure.supylabel("share of rows with at most this count", fontsize=10)
    legend_below(figure, grid[0])
    return Picture(
        figure, f"By the distance of their ECDF, {_tally(fit, table['p_value'])}{_chosen(fit, shown)}", table
    )


@figure(
    "groups_rootogram",
    kind="Rootogram of each group",
    how_to_read=(
        "Look for groups with several hatched orange bars, or with bars too high at both ends and too low between. "
        "A bar shows the number of rows of the group with that count, the black interval the middle "
        f"{BAND:.0%} of that number in simulated tables. p is the two-sided probability that the variance over "
        "the mean of a simulated group is at least as extreme."
    ),
)
def _groups_rootogram(fit: Drawing) -> Picture:
    table = fit.reproduced
    judged = table["p_var_over_mean"].notna().any()
    p = table["p_var_over_mean" if judged else "p_value"]
    shown, titles = _worst(fit, table["rows"], p)
    title = "In each group, is every count as frequent as expected?"
    figure, grid = panels(len(shown), title, height=2.15, x=fit.counted_in)
    bars, inside = 0, 0
    for axes, group, title in zip(grid, shown, titles, strict=True):
        observed, replicated = (tables.of_group(group) for tables in fit.counted)
        edges = edges_of(observed, replicated, most=MAX_SMALL)
        missed = _missed(*_draw_rootogram(axes, observed, replicated, edges))
        bars, inside = bars + len(missed), inside + int(np.sum(missed <= 0))
        whole_numbers(axes, most=5)
        axes.set_title(title, fontsize=9, parse_math=False)
    figure.supylabel("rows (square-root scale)", fontsize=10)
    legend_below(figure, *grid)
    shows = f"{inside} of the {bars} bars drawn lie inside their interval; {BAND:.0%} or more are expected. "
    shows += f"{'By variance over mean' if judged else NO_VARIANCE}, {_tally(fit, p)}{_chosen(fit, shown)}"
    return Picture(figure, shows)


def _worst(fit: Drawing, rows: pd.Series, p: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The groups with the lowest p, in the order of the data, and the titles of their panels."""
    order = np.argsort(p.fillna(1).to_numpy(), kind="stable")
    shown, tables = np.sort(order[:MAX_PANELS]), len(fit.counted[1])
    titles = [f"{fit.titled(g)}\n{number_of(int(rows.iloc[g]), 'row')}, p {p_value(p.iloc[g], tables)}" for g in shown]
    return shown, titles


def _tally(fit: Drawing, p: pd.Series) -> str:
    """The number of groups that the model does not reproduce, and the worst one."""
    tables, known = len(fit.counted[1]), p.notna().sum()
    worst, low = int(np.nanargmin(p)), int(np.sum(p < SURPRISING))
    if len(p) == 1:
        return f"the only group has p {p_value(p.iloc[0], tables)}, of {tables} tables."
    have = f"{low} of {known} groups {'has' if low == 1 else 'have'} p below {SURPRISING:.2f}"
    lowest = f"{p_value(p.iloc[worst], tables)} ({fit.named(worst)})"
    return f"{have}, expected {about(SURPRISING * known)} or fewer; the lowest is {lowest}, of {tables} tables."


def _chosen(fit: Drawing, shown: np.ndarray) -> str:
    if len(shown) == len(fit.labels):
        return ""
    return f" Shown are the {len(shown)} of {len(fit.labels)} groups with the lowest p."
