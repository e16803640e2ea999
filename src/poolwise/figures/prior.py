"""The prior in pictures: prior predictive rates and counts, and the update by the data."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from poolwise.checks.summary import parameters
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.bins import BAND, QUANTILES, TAIL, bins_of, spread_out, tabulate, whole_edges
from poolwise.figures.style import (
    BLACK,
    BLUE,
    GREY,
    MAX_BARS,
    MAX_MARKS,
    MAX_PANELS,
    SKY,
    blank,
    density,
    legend_below,
    logarithmic,
    panels,
    style,
    whole_numbers,
)
from poolwise.inference.threads import on_threads
from poolwise.text import number, share, short

BLOCK = 2**22  # values held at once
MAX_ROWS = 20  # groups or parameters, one line each
VISIBLE = 0.05  # height of the lower of two densities by the higher; below it the lower is hardly seen
LEAST = 1e-300  # where a logarithmic scale begins at the earliest
MAX_VALUES = 2_000_000  # simulated counts of the prior that are used


@figure(
    "prior_predictive",
    kind="Prior predictive check",
    how_to_read=(
        "Look for whether the prior makes the observed counts possible without making absurd counts likely (prior "
        "predictive check). Blue is the prior, above for all groups together and below by group "
        f"(line: {BAND:.0%}, dot: median); black is the observed data."
    ),
)
def _prior_predictive(fit: Drawing) -> Picture:
    rates = fit.view.tree["prior"].to_dataset()["lam"]
    counts = fit.view.tree["prior_predictive_cells"].to_dataset()["y"]
    lam = rates.transpose("chain", "draw", ...).values.reshape(-1, *rates.shape[2:])  # (draw,) or (draw, G)
    rows = fit.view.cells["cell_multiplicity"].values
    y = counts.transpose("chain", "draw", "cell").values.reshape(-1, len(rows))[: max(50, MAX_VALUES // len(rows))]
    table = _expected(fit, lam, y, rows)
    many = len(fit.labels) > MAX_ROWS
    shown = spread_out(np.argsort(fit.own, kind="stable"), MAX_ROWS) if many else np.arange(len(fit.labels))
    below = 0.7 + 0.24 * max(2, len(shown))
    figure = blank(4.2 if fit.is_pooled else 4.2 + below)
    heights = [2.6] if fit.is_pooled else [2.6, below]
    grid = figure.subplots(len(heights), 2, squeeze=False, sharex="col", height_ratios=heights)
    _rates(grid[0, 0], fit, lam)
    beyond = _counts(grid[0, 1], fit, y, rows)
    labels = f"rate, {fit.unit}", fit.counted_in
    if not fit.is_pooled:
        for axes, of in zip(grid[1], ("rate", "count"), strict=True):
            _intervals(axes, table.iloc[shown], of)
            axes.set_yticks(np.arange(len(shown)), [fit.label(g) for g in shown], parse_math=False, fontsize=9)
            axes.set_ylim(len(shown) - 0.4, -0.6)
            axes.tick_params(labelleft=of == "rate")
        grid[1, 0].set_ylabel(fit.grouping, parse_math=False)
    for axes, label in zip(grid[-1], labels, strict=True):
        axes.set_xlabel(label, parse_math=False)
    legend_below(figure, grid[0, 1])
    figure.suptitle("What does the prior expect?", fontsize=12)
    shows = _expected_words(fit, lam, y, rows)
    if beyond:
        shows += f" Beyond the right edge lie {share(beyond)} of the prior's counts."
    if many and not fit.is_pooled:
        shows += f" Below are {len(shown)} of the {len(fit.labels)} groups, evenly spaced by own mean."
    return Picture(figure, shows, table)


def _rates(axes: Axes, fit: Drawing, lam: np.ndarray) -> None:
    edges = np.linspace(0, _right(lam, fit.own.max(), rows=None), 61)
    density(axes, lam, edges, color=SKY, fill=True)
    axes.vlines(fit.own, 0, 0.08, color=BLACK, linewidth=1, transform=axes.get_xaxis_transform())
    style(axes)
    axes.set_xlim(0, edges[-1])
    axes.set_yticks([])
    axes.set_title("Rate of all groups" if fit.is_pooled else "Rate of a group", fontsize=11)


def _counts(axes: Axes, fit: Drawing, y: np.ndarray, rows: np.ndarray) -> float:
    """Draw the counts of all groups; returns the share of the prior's counts beyond the edge."""
    observed, _ = fit.counted
    edges = whole_edges(0, int(_right(y, observed.count.max(), rows)), most=MAX_BARS)
    weight = np.broadcast_to(rows / (rows.sum() * len(y)), y.shape)
    prior, _ = np.histogram(y, bins=edges, weights=weight)
    axes.stairs(prior, edges - 0.5, color=SKY, fill=True, label="prior")
    seen = tabulate(observed, edges)[0, 1:-1] / observed.num_rows
    axes.stairs(seen, edges - 0.5, color=BLACK, linewidth=1.3, label="observed (on the left: means of the groups)")
    style(axes, y="share of rows")
    whole_numbers(axes, most=6)
    axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)
    axes.set_title("Count of a row", fontsize=11)
    return float((y >= edges[-1]).mean(axis=0) @ rows / rows.sum())


def _right(values: np.ndarray, observed: float, rows: np.ndarray | None) -> float:
    """The end of an axis: it includes the observed values and the bulk of the prior, but not a long tail."""
    middle, high = _quantiles(values, rows, [0.5, 1 - TAIL])
    return float(max(1.1 * observed, min(high, 8 * middle))) or float(high) or 1.0


def _quantiles(values: np.ndarray, rows: np.ndarray | None, wanted: list[float]) -> np.ndarray:
    """Quantiles of the values; those of a cell (..., C) are weighted by its rows."""
    if rows is None or np.all(rows == rows[0]):
        return np.quantile(values, wanted, method="inverted_cdf")
    weights = np.broadcast_to(rows, values.shape)
    return np.quantile(values, wanted, weights=weights, method="inverted_cdf")


def _expected(fit: Drawing, lam: np.ndarray, y: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """Prior predictive rate and count of each group, with the observed ones."""
    group, count = fit.view.cells["cell_group"].values, fit.view.cells["cell_count"].values
    lines = []
    for g, label in enumerate(fit.labels):
        mine = group == g
        rate = np.quantile(lam if lam.ndim == 1 else lam[:, g], QUANTILES)
        expected = _quantiles(y[:, mine], rows[mine], QUANTILES)
        lines.append((label, *rate, fit.own[g], *expected, count[mine].min(), count[mine].max()))
    names = [f"{of}_{end}" for of in ("rate", "count") for end in ("3%", "median", "97%")]
    columns = ["group", *names[:3], "observed_rate", *names[3:], "observed_min", "observed_max"]
    return pd.DataFrame(lines, columns=columns).set_index("group")


def _intervals(axes: Axes, table: pd.DataFrame, of: str) -> None:
    place = np.arange(len(table))
    axes.hlines(place, table[f"{of}_3%"], table[f"{of}_97%"], color=SKY, linewidth=4)
    axes.plot(table[f"{of}_median"], place, "o", color=BLUE, markersize=5)
    if of == "rate":
        axes.plot(table["observed_rate"], place, "D", color=BLACK, markersize=4)
    else:
        axes.hlines(place, table["observed_min"], table["observed_max"], color=BLACK, linewidth=1.4)
        axes.plot(table["observed_min"], place, "|", color=BLACK)
        axes.plot(table["observed_max"], place, "|", color=BLACK)
    style(axes)


def _expected_words(fit: Drawing, lam: np.ndarray, y: np.ndarray, rows: np.ndarray) -> str:
    observed = fit.view.counts.cell_count
    low, middle, high = np.quantile(lam, QUANTILES)
    least, most = _quantiles(y, rows, [TAIL, 1 - TAIL])
    seen = ((y >= observed.min()) & (y <= observed.max())).mean(axis=0) @ rows / rows.sum()
    outside = float(np.mean((fit.own < low) | (fit.own > high)))
    expected = f"the {number(low)} to {number(high)} that hold {BAND:.0%} of the prior's rates"
    text = f"Every group's own mean lies within {expected}"
    if outside:
        text = f"{share(outside)} of the groups' own means lie outside {expected}: the prior did not expect them"
    return (
        f"{text}. Half of the prior's rates are below {number(middle)}. {BAND:.0%} of the prior's counts lie between "
        f"{least:,} and {most:,}, and {share(seen)} in the range of the observed ones, {observed.min():,} to "
        f"{observed.max():,}."
    )


@figure(
    "prior_posterior",
    kind="Prior and posterior of each parameter",
    how_to_read=(
        "Look for how much narrower the blue line is than the grey shape. The shape is the prior, the line the "
        "posterior. If they are alike, the data say nothing and the answer is the prior; if they lie apart, prior and "
        "data disagree. A panel has a logarithmic scale where only that shows both; each area is still a probability."
    ),
)
def _prior_posterior(fit: Drawing) -> Picture:
    both = [fit.view.tree["prior"].to_dataset()[fit.sites], fit.view.posterior[fit.sites]]
    if are_some := "group" in both[1].dims and len(fit.labels) > MAX_MARKS:
        some = np.sort(spread_out(np.argsort(fit.own, kind="stable"), MAX_MARKS))
        both = [each.isel(group=some) for each in both]
    prior, posterior = map(parameters, both)
    table = _learnt(prior, posterior)
    common = [name for name in posterior if not name.startswith("lam.")]
    rates = np.array([name for name in posterior if name.startswith("lam.")])
    if room := max(0, MAX_PANELS - len(common)) if len(rates) else 0:
        by_mean = (
            rates if len(rates) <= room else rates[np.argsort(table.loc[rates, "posterior_median"], kind="stable")]
        )
        rates = spread_out(by_mean, room)
    shown = [*common, *rates]
    figure, grid = panels(len(shown), "What did the data add to the prior?")
    for axes, name in zip(grid, shown, strict=True):
        _draw_both(axes, prior[name].ravel(), posterior[name].ravel())
        axes.set_yticks([])
        axes.set_title(fit.parameter(name, 20), fontsize=10, parse_math=False)
    legend_below(figure, grid[0])
    figure.supylabel("density", fontsize=10)
    words = _learnt_words(table, len(shown))
    if are_some:
        words += f" These numbers are of {MAX_MARKS:,} of {len(fit.labels):,} rates, evenly spaced by the group's mean."
    return Picture(figure, words, table)


def _draw_both(axes: Axes, prior: np.ndarray, posterior: np.ndarray) -> None:
    """Draw both densities; those of the logarithm, on its scale, where a linear scale hides one of the two."""
    edges, (low, high) = _both(prior, posterior), np.quantile(prior, [TAIL, 1 - TAIL])
    is_thin = high - low < edges[1] - edges[0]
    peaks = [np.histogram(draws, bins=edges)[0].max() / draws.size for draws in (prior, posterior)]
    ends = [low, high, *np.quantile(posterior, [0.001, 0.999])]
    if hidden := bool(min(ends) > 0 and (is_thin or min(peaks) < VISIBLE * max(peaks))):
        edges = np.geomspace(max(min(ends), LEAST), max(ends), 101)
    density(axes, prior, edges, is_logarithmic=hidden, color=GREY, alpha=0.55, fill=True, label="prior")
    density(axes, posterior, edges, is_logarithmic=hidden, color=BLUE, linewidth=1.5, label="posterior")
    axes.set_xlim(edges[0], edges[-1])
    if hidden:
        logarithmic(axes, "x", most=4)
        axes.set_xlabel("logarithmic scale", fontsize=8)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _both(prior: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Edges that contain the posterior and, unless it is far wider, the bulk of the prior."""
    low, high = np.quantile(posterior, [0.001, 0.999])
    room = 8 * (high - low) or max(1.0, abs(high))
    first, last = np.quantile(prior, [TAIL, 1 - TAIL])
    first = 0 if 0 <= 10 * first < min(last, high + room) else first
    return bins_of(np.array([max(min(first, low), low - room), min(max(last, high), high + room)]), number=100)


def _learnt(prior: dict[str, np.ndarray], posterior: dict[str, np.ndarray]) -> pd.DataFrame:
    """Quantiles of both, and the ratio of the interval widths, posterior to prior."""
    ends = ("3%", "median", "97%")
    before, after = (_by_parameter([each[name] for name in posterior]) for each in (prior, posterior))  # (P, 3)
    ratio = (after[:, 2] - after[:, 0]) / (before[:, 2] - before[:, 0])
    columns = [*(f"prior_{end}" for end in ends), *(f"posterior_{end}" for end in ends), "width_ratio"]
    values = np.column_stack([before, after, ratio])
    return pd.DataFrame(values, columns=columns, index=pd.Index(list(posterior), name="parameter"))


def _by_parameter(draws: list[np.ndarray]) -> np.ndarray:
    """`QUANTILES` of each of many draws, (P, 3); some of one size together."""
    of_size = itertools.groupby(draws, key=np.size)
    blocks = (block for size, some in of_size for block in itertools.batched(some, max(1, BLOCK // size)))
    return np.concatenate(on_threads(_quantiles_of_each, blocks))


def _quantiles_of_each(draws: Sequence[np.ndarray]) -> np.ndarray:
    """`QUANTILES` of some draws of one size, (P, 3)."""
    return np.quantile([each.ravel() for each in draws], QUANTILES, axis=1).T


def _learnt_words(table: pd.DataFrame, shown: int) -> str:
    ratio = table["width_ratio"].sort_values(kind="stable")
    text = f"The posterior's middle {BAND:.0%} is {_part(ratio.iloc[0])} as wide as the prior's"
    if len(table) > 1:
        text += f" for {short(str(ratio.index[0]))}, which the data inform most, and {_part(ratio.iloc[-1])} for "
        text += f"{short(str(ratio.index[-1]))}, the least"
    middle = table["posterior_median"]
    apart = table[(middle < table["prior_3%"]) | (middle > table["prior_97%"])]
    if len(apart):
        first, named = apart.iloc[0], short(str(apart.index[0]))
        expected = f"{number(first['prior_3%'])} to {number(first['prior_97%'])}"
        more = f", and so for {len(apart) - 1} more" if len(apart) > 1 else ""
        text = (
            f"Prior and data disagree on {named}: the posterior's median, {number(first['posterior_median'])}, lies "
            f"outside the prior's middle {BAND:.0%}, {expected}{more}. {text}."
        )
    else:
        text += f". No posterior median lies outside the prior's middle {BAND:.0%}."
    if shown < len(table):
        text += f" Shown are {shown} of {len(table)} parameters, the rates evenly spaced by median."
    return text


def _part(ratio: float) -> str:
    return share(ratio) if ratio < 2 else f"{ratio:.1f} times"
