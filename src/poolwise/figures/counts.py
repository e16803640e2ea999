"""The data in pictures: all counts, and each group separately."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.stats import poisson

from poolwise.counts import description
from poolwise.counts.weighted import row_quantiles
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, spread_out, tabulate, whole_edges
from poolwise.figures.style import (
    BLACK,
    BLUE,
    GREY,
    MAX_BARS,
    MAX_MARKS,
    MAX_PANELS,
    ORANGE,
    SKY,
    VERMILLION,
    blank,
    legend_below,
    square_root,
    style,
    whole_numbers,
)
from poolwise.inference.tables import Tables
from poolwise.text import about, number, number_of

FEW_ROWS = 20  # groups with fewer rows have no density
MAX_SIZES = 200  # exposures over which the expected counts are averaged


@figure(
    "counts",
    kind="Histogram of the counts, and variance against mean by group",
    how_to_read=(
        "Look for two things: whether the bars spread wider than the orange dots, and whether groups lie above the "
        "dashed line. The bars show the number of rows with each count, the dots the number that Poisson noise gives "
        "if all groups share one rate. On the right each dot is a group: its variance against its mean. For Poisson "
        f"counts these are equal up to chance; the line through the dot is the {BAND:.0%} interval of that chance."
    ),
)
def _counts(fit: Drawing) -> Picture:
    counts = fit.view.counts
    figure = blank(4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _histogram(fit, left)
    above = _variance(fit, right)
    legend_below(figure, left, right)
    table = description.summary(counts)
    row = table.iloc[0]
    quartiles = ", ".join(map(_quartile, row[["q25", "median", "q75"]]))
    shows = f"{number_of(counts.num_rows, 'count')} of {fit.raw_events} run from {row['min']:,.0f} to "
    shows += f"{row['max']:,.0f}, quartiles {quartiles}, mean {number(row['mean'])}"
    if counts.num_rows == 1:
        shows = f"The only count is {row['min']:,.0f}"
    else:
        shows += f", standard deviation {number(row['sd'])}"
    return Picture(figure, f"{shows}. {description.hint(counts)}{above}", table)


def _histogram(fit: Drawing, axes: Axes) -> None:
    """Draw the number of rows with each count, and the number expected from Poisson noise about one rate."""
    observed, _ = fit.counted
    mean = float(observed.weight @ observed.count[0] / observed.num_rows)
    edges = whole_edges(observed.count.min(), observed.count.max(), most=MAX_BARS)
    width = int(edges[1] - edges[0])
    middle = edges[:-1] + (width - 1) / 2
    tops = tabulate(observed, edges)[0, 1:-1]
    axes.bar(middle, tops, width=0.86 * width, color=SKY, label="observed rows")
    axes.axvline(mean, color=BLACK, linewidth=1.2, linestyle=":", label=f"mean, {number(mean)}")
    expected = _one_rate(observed, edges)
    axes.plot(middle, expected, "o", color=ORANGE, mec=BLACK, mew=0.4, markersize=4, label="Poisson, one rate")
    rooted = max(tops.max(), expected.max()) > 100 * tops[tops > 0].min() or expected.max() > 4 * tops.max()
    bar = "" if width == 1 else f" (each bar spans {width:,})"
    style(axes, f"{fit.counted_in}{bar}", "rows (square-root scale)" if rooted else "rows")
    whole_numbers(axes)
    if rooted:
        square_root(axes, 1.1 * max(tops.max(), expected.max()))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_title(f"All {observed.num_rows:,} rows" if observed.num_rows > 1 else "The only row", fontsize=11)


def _quartile(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def _one_rate(observed: Tables, edges: np.ndarray) -> np.ndarray:
    """Rows expected in every bin from Poisson noise if all rows share one rate, (K,)."""
    size, rows = observed.exposure, observed.weight
    rate = (rows @ observed.count[0]) / (rows @ size)
    if len(size) > MAX_SIZES:  # enough for a picture
        size = row_quantiles(size, rows, (np.arange(MAX_SIZES) + 0.5) / MAX_SIZES)[0]
        rows = np.full(MAX_SIZES, observed.num_rows / MAX_SIZES)
    below = poisson.cdf(edges[:, None] - 1, size * rate)  # (K + 1, sizes)
    return np.diff(below @ rows)


def _variance(fit: Drawing, axes: Axes) -> str:
    """Draw the variance of every group against its mean; groups that cannot be judged are omitted."""
    counts = fit.view.counts
    each = description.dispersion_by_group(counts)
    known = np.array([found.freedom > 0 for found in each])
    axes.set_title("Each group, about its own rate" if fit.has_exposure else "Each group", fontsize=11)
    style(axes, "mean count of a row", "variance")
    if not known.any():
        note = "no group has two rows\nand a count above 0"
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center")
        axes.set(xticks=[], yticks=[])
        return ""
    group, rows = counts.cell_group, counts.cell_multiplicity
    mean = (np.bincount(group, rows * counts.cell_count) / np.bincount(group, rows))[known]
    ratio, low, high = np.array([(found.ratio, found.low, found.high) for found in each])[known].T
    outside = (ratio < low) | (ratio > high)
    shown = np.isin(np.arange(len(mean)), spread_out(np.argsort(mean, kind="stable"), MAX_MARKS))
    axes.vlines(mean[shown], (mean * low)[shown], (mean * high)[shown], color=GREY, linewidth=1.1)
    for kind, colour, marker, name in (
        (~outside, BLUE, "o", "group, as Poisson"),
        (outside, VERMILLION, "D", "group, not as Poisson"),
    ):
        kind &= shown
        if kind.any():
            axes.plot(mean[kind], (mean * ratio)[kind], marker, color=colour, markersize=5, label=name)
    _equality(axes, mean, top=float(max(mean.max(), (mean * high).max(), (mean * ratio).max())))
    if len(each) == 1:
        return ""
    lie = f"{outside.sum()} {'lies' if outside.sum() == 1 else 'lie'} outside the interval of Poisson noise"
    chance = about((1 - BAND) * known.sum())
    judged = f"{number_of(int(known.sum()), 'group')} that can be judged"
    drawn = "" if shown.all() else f" Drawn are {MAX_MARKS:,} of them, evenly spaced by mean."
    return f" Of {judged}, {lie}; {chance} expected by chance alone.{drawn}"


def _equality(axes: Axes, mean: np.ndarray, *, top: float) -> None:
    """Draw the line variance = mean; on logarithmic axes if the means lie far apart."""
    bottom, wide = mean.min(), mean.max() > 20 * mean.min()
    far = np.array([bottom / 2 if wide else 0, 1.1 * mean.max()])
    axes.plot(far, far, color=BLACK, linewidth=1.1, linestyle="--", label="variance = mean")
    if wide:
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=max(bottom / 2, 1e-12))
        axes.set_ylim(bottom=-0.1 * bottom)  # room for a variance of 0, but for nothing below
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.1 * top)
        axes.set_xlim(0, far[1])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


@figure(
    "groups",
    kind="Histograms and violin plots of the counts by group",
    how_to_read=(
        "Look for groups that are shifted, wider or more skewed than the others. Each line is a group, on one scale "
        "for all: on the left its histogram, on the right the same counts as a violin, whose width is the density of "
        f"rows, or, of fewer than {FEW_ROWS} rows, as dots, one a row. Marks show the mean (black diamond) and, "
        "on a violin, the middle half (thick line) and the median (white dot)."
    ),
)
def _groups(fit: Drawing) -> Picture:
    groups, sizes = np.arange(len(fit.labels)), fit.group_rows
    cells = fit.view.counts
    value = cells.cell_count / cells.cell_exposure
    mean = np.bincount(cells.cell_group, cells.cell_multiplicity * value) / sizes
    many = len(groups) > MAX_PANELS
    shown = spread_out(np.argsort(mean, kind="stable"), MAX_PANELS) if many else groups
    figure = blank(1.5 + 0.62 * max(2, len(shown)))
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    drawn = [(value[mine], cells.cell_multiplicity[mine]) for mine in (cells.cell_group == g for g in shown)]
    rooted = _draw_groups(left, right, drawn, whole=not fit.has_exposure)
    least, most = sizes[shown].min(), sizes[shown].max()
    beside = "dots" if most < FEW_ROWS else "violins" if least >= FEW_ROWS else "violins and dots"
    for axes, title in ((left, f"histogram{' (square-root scale)' if rooted else ''}"), (right, beside)):
        style(axes, fit.unit if fit.has_exposure else fit.counted_in)
        axes.set_title(title, fontsize=11)
        if not fit.has_exposure:
            whole_numbers(axes, most=6)
    left.set_yticks(np.arange(len(shown)) - 0.42, [fit.label(g) for g in shown], parse_math=False)
    left.set_ylabel(fit.grouping, parse_math=False)
    one = len(groups) == 1
    figure.suptitle("How do the counts of the group spread?" if one else "How do the groups differ?", fontsize=12)
    table = description.by_group(fit.view.counts)
    shows = _groups_words(fit, table, mean, int(sizes.sum()))
    if many:
        shows += f" Shown are {len(shown)} of the {len(groups)} groups, sorted by mean and evenly spaced in that order."
    return Picture(figure, shows, table)


def _draw_groups(left: Axes, right: Axes, drawn: list[tuple[np.ndarray, np.ndarray]], *, whole: bool) -> bool:
    """Draw a histogram and a violin, or dots, of the values and rows of each group.

    Returns whether the histograms have a square-root scale.
    """
    edges = _value_edges(np.concatenate([value for value, _ in drawn]), whole=whole)
    grid = np.linspace(edges[0], edges[-1], 201)
    tops = [np.histogram(value, bins=edges, weights=rows)[0] for value, rows in drawn]
    rooted = any(heights.max() > 100 * heights[heights > 0].min() for heights in tops)
    for place, (each, top) in enumerate(zip(drawn, tops, strict=True)):
        heights = np.sqrt(top) if rooted else top
        left.stairs(place - 0.85 * heights / heights.max(), edges, baseline=place, fill=True, color=SKY)
        _violin(right, *each, grid, place - 0.42, whole=whole)
    left.set_ylim(len(drawn) - 0.85, -1.0)
    left.set_xlim(edges[0], edges[-1])
    return rooted


def _groups_words(fit: Drawing, table: pd.DataFrame, mean: np.ndarray, rows: int) -> str:
    shows = f"The only group has {number_of(rows, 'row')} with mean {number(mean[0])}."
    if len(mean) > 1:
        lowest, highest = np.argsort(mean, kind="stable")[[0, -1]]
        shows = f"The means of the groups run from {_end(fit, mean, lowest)} to {_end(fit, mean, highest)}"
        sd = table["sd"].to_numpy()
        if not fit.has_exposure and np.isfinite(sd).any():
            shows += f", the standard deviations from {_end(fit, sd, np.nanargmin(sd))} to "
            shows += _end(fit, sd, np.nanargmax(sd))
        shows += "."
    return shows + (" Every count is divided by its exposure." if fit.has_exposure else "")


def _end(fit: Drawing, values: np.ndarray, group: np.integer) -> str:
    return f"{number(values[group])} ({fit.named(group)})"


def _value_edges(values: np.ndarray, *, whole: bool) -> np.ndarray:
    """Edges of at most 40 bins; around integers if the values are integers."""
    if whole:
        return whole_edges(int(values.min()), int(values.max()), most=40) - 0.5
    top = values.max()
    return np.linspace(0, 1.02 * top if top > 0 else 1.0, 41)


def _violin(axes: Axes, values: np.ndarray, times: np.ndarray, grid: np.ndarray, centre: float, *, whole: bool) -> None:
    """Draw one group: its density on both sides of a line with quartiles and median, or its rows as dots; the mean."""
    distinct, which = np.unique(values, return_inverse=True)
    rows, num_rows = np.bincount(which, times).astype(np.int64), times.sum()
    low, median, high = row_quantiles(values, times, [0.25, 0.5, 0.75])[0]
    mean = rows @ distinct / num_rows
    # Silverman's rule (1986, eq. 3.31), but not narrower than the grid or the spacing of integers
    sd, iqr = np.sqrt(rows @ (distinct - mean) ** 2 / num_rows), (high - low) / 1.34
    width = max(0.9 * min(sd, iqr or sd) * float(num_rows) ** -0.2, grid[1] - grid[0], 0.5 if whole else 0)
    reach = 0.5 if whole else 0
    height = np.exp(-0.5 * ((grid[:, None] - distinct) / width) ** 2) @ rows
    height[(grid < distinct[0] - reach) | (grid > distinct[-1] + reach)] = 0
    if num_rows < FEW_ROWS or not height.any():  # narrower than the grid: dots show as much
        _dots(axes, distinct, rows if num_rows < FEW_ROWS else np.ones_like(rows), centre)
    else:
        half = 0.42 * height / height.max()
        axes.fill_between(grid, centre - half, centre + half, where=half > 0, color=SKY, linewidth=0)
        axes.hlines(centre, low, high, color=BLUE, linewidth=4)
        axes.plot(median, centre, "o", mfc="white", mec=BLUE, markersize=6, clip_on=False)
    axes.plot(mean, centre, "D", color=BLACK, markersize=4, clip_on=False)


def _dots(axes: Axes, distinct: np.ndarray, rows: np.ndarray, centre: float) -> None:
    """Draw a dot for each row; rows with one value are stacked on both sides of the line."""
    place = np.concatenate([np.arange(size) - (size - 1) / 2 for size in rows])
    height = centre + place * min(0.16, 0.8 / rows.max())
    axes.plot(np.repeat(distinct, rows), height, "o", color=SKY, markersize=5, clip_on=False)
