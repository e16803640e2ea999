"""DataTree to figures, each with a caption that says what to look for and what this one shows.

Figures are plain `Figure` objects without pyplot: no backend is chosen and none piles up. A label too long to
print is shortened in the middle; where a picture cannot show everything it shows the worst, and its caption
says so.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

__all__ = ["FIGURES", "Picture", "draw", "png"]

# Okabe and Ito (2008): colours that the colour-blind can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
CHAINS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)

SAMPLED = ("mu", "sigma", "delta", "lam")  # not alpha, beta and phi, which are functions of these
INTERVAL = ["hdi_3%", "mean", "hdi_97%"]
BAND = 0.94  # as the intervals of the summary
QUANTILES = [(1 - BAND) / 2, 0.5, (1 + BAND) / 2]
WIDTH, DPI = 9.6, 110  # inches, pixels per inch: 1056 pixels across
MAX_PANELS, MAX_LABELS, MAX_BARS, MAX_STEPS, MAX_NAMED = 12, 40, 60, 400, 5


LOOK_FOR = {  # the first half of every caption
    "rank": (
        "Look for lines that stay in the grey band. All chains should have explored the same distribution; "
        "a line shows how far the share of one chain's draws below a rank departs from that of all chains. "
        "The band is three standard errors: about one line in fifty leaves it for a moment by chance; one "
        "that stays outside belongs to a chain that disagrees."
    ),
    "ecdf": (
        "Look for the black line inside the blue band. The line gives, for every count, the share of rows "
        f"that have at most that count; the band holds the middle {BAND:.0%} of that share in tables that "
        "the fitted model simulated in place of the data."
    ),
    "rootogram": (
        "Look for bars that end within their black interval. A bar shows how many rows have that count, on "
        f"a square-root scale (Kleiber and Zeileis's rootogram); the interval holds the middle {BAND:.0%} of"
        " that number in tables that the fitted model simulated. Bars too high at both ends and too low "
        "between mean that the noise is wider than the model's."
    ),
    "forest": (
        "Look for groups that lie apart. An open diamond is a group's own mean count, by exposure if there "
        "is one; it also scatters by chance."
    ),
    "pareto_k": (
        "Look for points above the dashed line. Leaving out a row shows how well the others predict it; "
        "Pareto k says how far the fit would move without that row, and above the threshold the shortcut "
        "that avoids refitting is no longer reliable. A point stands for the rows of one group with the "
        "same count and exposure, a larger one for more rows."
    ),
    "energy": (
        "Look for two shapes of about the same width. The blue one holds the energies of all draws, the "
        "black line the changes that one step makes; were the line much narrower, the sampler would crawl "
        "and miss the tails. E-BFMI puts it in a number for each chain: near 1 is good, below 0.3 is not."
    ),
}


@dataclass(frozen=True)
class Picture:
    """Figure and caption: what to look for, and what this one shows."""

    figure: Figure
    caption: str


@dataclass(frozen=True)
class _Fit:
    """What a figure is drawn from; see `draw`."""

    tree: xr.DataTree
    summary: pd.DataFrame
    pareto_k: np.ndarray
    k_threshold: float


def draw(
    names: Sequence[str],
    tree: xr.DataTree,
    *,
    summary: pd.DataFrame,
    pareto_k: np.ndarray,
    k_threshold: float,
) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures, each when its turn comes.

    Parameters
    ----------
    names : keys of `FIGURES`
    tree : posterior, sample_stats, observed_data, constant_data and posterior_predictive of one fit
    summary : a row a parameter, with columns mean, hdi_3%, hdi_97%, ess_bulk, ess_tail and r_hat
    pareto_k : (C,), one a cell
    k_threshold : above it the leave-one-out value of a cell is not reliable
    """
    fit = _Fit(tree, summary, np.asarray(pareto_k), k_threshold)
    for name in names:
        figure, shows = FIGURES[name](fit)
        yield name, Picture(figure, f"{LOOK_FOR[name]} {shows}")


def png(figure: Figure) -> bytes:
    """Render a figure as the bytes of a PNG file, 1056 pixels wide."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _rank(fit: _Fit) -> tuple[Figure, str]:
    draws = _sampled(fit.tree)
    by_r_hat = fit.summary["r_hat"].loc[list(draws)].sort_values(ascending=False, na_position="first")
    highest = set(by_r_hat.index[:MAX_PANELS])
    shown = [name for name in draws if name in highest]
    num_chains = len(draws[shown[0]])
    rows = -(-len(shown) // 4)
    columns = -(-len(shown) // rows)
    figure = _figure(1.3 + 1.75 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    places = {f"lam.{label}": g for g, label in enumerate(_cells(fit.tree)["group"].values)}
    z = np.arange(1, 201) / 201
    excess = np.zeros((len(shown), num_chains))  # a line's largest distance from zero, in units of the band
    for panel, (axes, name) in enumerate(zip(grid, shown, strict=False)):
        # The least of both ESS and the draws: a sticky tail or anticorrelation makes the band too narrow.
        ess = min(*fit.summary.loc[name, ["ess_bulk", "ess_tail"]], draws[name].size) / num_chains
        band = 3 * np.sqrt(z * (1 - z) / ess)  # (200,)
        lines = _ecdf_difference(draws[name], z)  # (chain, 200)
        excess[panel] = np.nan_to_num(np.abs(lines) / band).max(axis=1)
        axes.fill_between(z, -band, band, color=GREY, alpha=0.25, linewidth=0)
        for chain, line in enumerate(lines):
            axes.plot(z, line, color=CHAINS[chain % len(CHAINS)], linewidth=1.1, label=f"chain {chain + 1}")
        _style(axes)
        title = _printable(name, position=places.get(name, 0), length=20)
        axes.set_title(title, fontsize=10, parse_math=False)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.tick_params(labelbottom=panel >= len(shown) - columns)
    for axes in grid[len(shown) :]:
        axes.remove()
    if 1 < num_chains <= len(CHAINS):
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False)
    figure.suptitle("Do the chains agree?", fontsize=12)
    figure.supxlabel("rank of a draw among those of all chains, as a fraction", fontsize=10)
    figure.supylabel("share of a chain, less that of all", fontsize=10)
    worst_panel, worst_chain = np.unravel_index(excess.argmax(), excess.shape)
    shows = (
        f"Here {np.sum(excess <= 1)} of {excess.size} lines stay inside; the furthest, chain "
        f"{worst_chain + 1} of {_short(shown[worst_panel])}, reaches {excess.max():.2f} times the band."
    )
    if len(shown) < len(draws):
        shows += f" Shown are the {len(shown)} of {len(draws)} parameters with the highest R-hat."
    return figure, shows


def _ecdf_difference(draws: np.ndarray, z: np.ndarray) -> np.ndarray:
    """ECDF of each chain less that of all, at the common quantiles z; (chain, draw) -> (chain, len(z)).

    Without ties this is the ECDF of a chain's fractional ranks less the diagonal. ArviZ's plot_rank takes
    1.7 s a parameter: its multi-chain test evaluates the hypergeometric pmf and cdf at each of 4000 draws.
    """
    ordered = np.sort(draws, axis=None)
    at = ordered[(z * ordered.size).astype(int)]
    below = np.stack([np.searchsorted(np.sort(chain), at, side="right") for chain in draws])
    return (below - below.mean(axis=0)) / draws.shape[1]


def _ecdf(fit: _Fit) -> tuple[Figure, str]:
    observed, replicated = _counts(fit.tree)
    edges = _edges(observed, replicated, most=MAX_STEPS)
    at = edges - 1  # (K + 1,), the largest count that a share includes
    seen = _tabulate(observed[None], edges).cumsum(axis=1)[0, :-1] / observed.size
    share = _tabulate(replicated, edges).cumsum(axis=1)[:, :-1] / observed.size  # (draw, K + 1)
    low, median, high = np.quantile(share, QUANTILES, axis=0)
    figure, axes = _axes(4.6, "Does the model reproduce the counts?")
    tables = f"{BAND:.0%} of simulated tables"
    ends = np.append(at, 2 * at[-1] - at[-2])  # a share holds from its count to the next
    axes.stairs(high, ends, baseline=low, fill=True, color=SKY, alpha=0.45, linewidth=0, label=tables)
    axes.stairs(median, ends, baseline=None, color=BLUE, linestyle="--", linewidth=1.5, label="their median")
    axes.stairs(seen, ends, baseline=None, color=BLACK, linewidth=1.5, label="observed")
    axes.set_xlim(max(-0.5, ends[0]), ends[-1])
    _whole_numbers(axes)
    _style(axes, "count", "share of rows with at most this count")
    axes.legend(loc="lower right", frameon=False)
    missed = np.maximum(low - seen, seen - high)  # > 0 outside
    worst = int(missed.argmax())
    shows = (
        f"Here, with {len(replicated)} tables, the line is inside at {np.sum(missed[1:] <= 0)} of "
        f"{len(at) - 1} {'counts' if at[1] - at[0] == 1 else 'points'}"
    )
    if missed[worst] > 0:
        shows += (
            f"; furthest outside: at most {at[worst]:,} have {seen[worst]:.1%} of the rows, "
            f"{low[worst]:.1%} to {high[worst]:.1%} expected"
        )
    return figure, shows + "."


def _rootogram(fit: _Fit) -> tuple[Figure, str]:
    observed, replicated = _counts(fit.tree)
    edges = _edges(observed, replicated, most=MAX_BARS)
    width = int(edges[1] - edges[0])
    seen = _tabulate(observed[None], edges)[0, 1:-1]  # (K,)
    simulated = _tabulate(replicated, edges)[:, 1:-1]  # (draw, K)
    low, median, high = np.quantile(simulated, QUANTILES, axis=0, method="inverted_cdf")
    # On the square-root scale a frequency spreads alike whatever its size.
    missed = np.maximum(np.sqrt(low) - np.sqrt(seen), np.sqrt(seen) - np.sqrt(high))  # > 0 outside
    middle = edges[:-1] + (width - 1) / 2
    figure, axes = _axes(4.6, "Is every count as frequent as the model expects?")
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
    top = 1.2 * max(1, seen.max(), high.max())
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    axes.set_ylim(0, top)
    steps = [m * 10**n for n in range(16) for m in (1, 2, 5) if 0.005 * top < m * 10**n < top]
    axes.set_yticks([0, *steps], ["0", *(f"{step:,}" for step in steps)])
    _whole_numbers(axes)
    each = "count" if width == 1 else f"count (each bar spans {width:,})"
    _style(axes, each, "rows (square-root scale)")
    axes.legend(loc="upper right", frameon=False)
    shows = (
        f"Here {np.sum(missed <= 0)} of {len(seen)} {'counts' if width == 1 else 'bars'} lie inside the "
        f"{BAND:.0%} band of {len(replicated)} tables"
    )
    if np.any(missed > 0):
        worst = int(missed.argmax())
        name = f"{edges[worst]:,}" + ("" if width == 1 else f" to {edges[worst + 1] - 1:,}")
        shows += f"; most missed: {name} ({seen[worst]:,} seen, {low[worst]:,} to {high[worst]:,} expected)"
    return figure, shows + "."


def _forest(fit: _Fit) -> tuple[Figure, str]:
    labels, own = _own_means(fit.tree)
    pooled = "group" not in fit.tree["posterior"]["lam"].dims
    centre = "lam" if pooled else "mu" if "mu" in fit.summary.index else None
    rate = own if pooled else fit.summary.loc[[f"lam.{label}" for label in labels], "mean"].to_numpy()
    many = len(labels) > MAX_LABELS
    order = np.argsort(rate, kind="stable") if many else np.arange(len(labels))
    y, size = np.arange(len(labels)), 3 if many else 6
    figure, axes = _axes(1.9 + 0.25 * min(max(4, len(labels)), MAX_LABELS), "What is the rate of each group?")
    common = [float(value) for value in fit.summary[INTERVAL].T[centre]] if centre else []
    if common:
        what = "rate of all groups" if pooled else "mu, the mean over groups"
        axes.axvspan(common[0], common[2], color=ORANGE, alpha=0.2, linewidth=0)
        axes.axvline(common[1], color=ORANGE, linewidth=1.8, label=f"{what}, with {BAND:.0%} interval")
    if not pooled:
        low, high = fit.summary.loc[[f"lam.{labels[g]}" for g in order], INTERVAL[::2]].to_numpy().T
        axes.hlines(y, low, high, color=BLUE, linewidth=1 if many else 2)
        axes.plot(rate[order], y, "o", color=BLUE, markersize=size)
        axes.plot([], [], "-o", color=BLUE, linewidth=2, label=f"rate, with {BAND:.0%} interval")
    axes.plot(own[order], y, "D", mfc="none", mec=BLACK, markersize=size, label="the group's own mean")
    every = -(-len(labels) // MAX_LABELS)
    ticks = [_printable(labels[g], position=g) for g in order[::every]]
    axes.set_yticks(y[::every], ticks, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    _style(axes, f"rate, counts per {_unit(fit.tree)}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    shows = _forest_shows(labels, own, rate, common)
    if many:
        shows += f" The {len(labels)} groups are sorted by {'own mean' if pooled else 'rate'}"
        shows += f"; one in {every} is labelled."
    return figure, shows


def _forest_shows(labels: Sequence[str], own: np.ndarray, rate: np.ndarray, common: list[float]) -> str:
    first, last = np.argsort(rate, kind="stable")[[0, -1]]
    ends = [f"{_number(rate[g])} ({_short(labels[g])})" for g in (first, last)]
    span = f"run from {ends[0]} to {ends[1]}" if len(labels) > 1 else f"are just one, {ends[0]}"
    if rate is own:
        low, middle, high = map(_number, common)
        return (
            "The orange line is the one rate of all groups, its interval shaded. "
            f"Here it is {middle} ({low} to {high}); the groups' own means {span}."
        )
    line = "the mean over groups (orange, its interval shaded)"
    moved = int(np.argmax(np.abs(rate - own)))
    return (
        f"A blue dot is the rate by the model, with its {BAND:.0%} interval, pulled from the diamond towards "
        f"{line if common else 'the prior, not towards other groups'}, most where data are few. "
        f"Here the rates {span}; pulled most is {_short(labels[moved])}, from {_number(own[moved])} to "
        f"{_number(rate[moved])}."
    )


def _pareto_k(fit: _Fit) -> tuple[Figure, str]:
    cells = _cells(fit.tree)
    count, rows = cells["cell_count"].values, cells["cell_multiplicity"].values
    finite = np.isfinite(fit.pareto_k)
    top = max(fit.k_threshold, fit.pareto_k[finite].max(initial=0.0))
    k = np.where(finite, fit.pareto_k, top + 0.1)
    bad = ~(fit.pareto_k <= fit.k_threshold)
    figure, axes = _axes(4.6, "Does any single row decide the result?")
    for kind, colour, marker in ((~bad, BLUE, "o"), (bad, VERMILLION, "D")):
        area = 14 + 120 * rows[kind] / rows.max()
        axes.scatter(count[kind], k[kind], s=area, c=colour, marker=marker, alpha=0.65, linewidths=0)
    name = f"threshold, {fit.k_threshold:.2f}"
    axes.axhline(fit.k_threshold, color=BLACK, linewidth=1.2, linestyle="--", label=name)
    axes.set_ylim(min(k.min(), 0) - 0.08, top + 0.2)
    worst = np.flatnonzero(bad)[np.argsort(-k[bad], kind="stable")][:MAX_NAMED]
    labels = cells["group"].values
    for place, cell in enumerate(worst):
        group = int(cells["cell_group"].values[cell])
        axes.annotate(
            f"{_printable(labels[group], position=group, length=20)}: count {count[cell]:,}",
            xy=(count[cell], k[cell]),
            xytext=(1.02, 0.95 - 0.08 * place),
            textcoords="axes fraction",
            va="center",
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkB": 4},
        )
    _whole_numbers(axes)
    _style(axes, "count of the row left out", "Pareto k (smaller is better)")
    figure.legend(loc="outside lower center", frameon=False)
    shows = "Here "
    if bad.any():
        shows += f"{rows[bad].sum():,} of {rows.sum():,} rows ({bad.sum()} of {len(bad)} points) lie above it"
        shows += f"; the {len(worst)} worst are named." if bad.sum() > len(worst) else "."
    else:
        shows += f"none of the {rows.sum():,} rows lies above it; the largest k is {fit.pareto_k.max():.2f}."
    if not finite.all():
        shows += f" Points without a finite k, drawn at the top: {np.sum(~finite)}."
    return figure, shows


def _energy(fit: _Fit) -> tuple[Figure, str]:
    energy = fit.tree["sample_stats"].to_dataset()["energy"].transpose("chain", "draw").values
    marginal, transition = energy - energy.mean(), np.diff(energy, axis=1)
    edges = np.histogram_bin_edges(np.concatenate([marginal.ravel(), transition.ravel()]), bins=60)
    figure, axes = _axes(4.2, "Did the sampler reach every energy?")
    for values, colour, name, fill in (
        (marginal, SKY, "energy, less its mean", True),
        (transition, BLACK, "change of energy in one step", False),
    ):
        density, _ = np.histogram(values, bins=edges, density=True)
        axes.stairs(density, edges, color=colour, fill=fill, linewidth=1.5, label=name)
    bfmi = np.atleast_1d(array_stats.bfmi(energy))
    each = ", ".join(f"{value:.2f}" for value in bfmi)
    text = each if len(bfmi) <= len(CHAINS) else f"{bfmi.min():.2f} to {bfmi.max():.2f}"
    axes.text(0.01, 0.97, f"E-BFMI by chain:\n{text}", transform=axes.transAxes, va="top")
    _style(axes, "energy (negative log density, no unit)", "density of draws")
    axes.legend(loc="upper right", frameon=False)
    shows = f"Here {'it is' if len(bfmi) == 1 else 'the smallest is'} {bfmi.min():.2f}."
    return figure, shows


FIGURES: dict[str, Callable[[_Fit], tuple[Figure, str]]] = {
    "rank": _rank,
    "ecdf": _ecdf,
    "rootogram": _rootogram,
    "forest": _forest,
    "pareto_k": _pareto_k,
    "energy": _energy,
}


def _sampled(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Draws (chain, draw) of every sampled parameter under its name in the summary."""
    draws: dict[str, np.ndarray] = {}
    posterior = tree["posterior"].to_dataset()
    for site in (site for site in SAMPLED if site in posterior):
        values = posterior[site].transpose(..., "chain", "draw")
        if "group" in values.dims:
            draws |= {f"{site}.{label}": values.values[g] for g, label in enumerate(values["group"].values)}
        else:
            draws[site] = values.values
    return draws


def _counts(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray]:
    """Observed counts of the rows, (N,), and simulated ones, (draw, N)."""
    simulated = tree["posterior_predictive"].to_dataset()["y"].transpose("chain", "draw", "row").values
    return tree["observed_data"].to_dataset()["y"].values, simulated.reshape(-1, simulated.shape[-1])


def _own_means(tree: xr.DataTree) -> tuple[list[str], np.ndarray]:
    """Label and mean count per unit of exposure of every group, (G,)."""
    cells = _cells(tree)
    group, rows = cells["cell_group"].values, cells["cell_multiplicity"].values
    total = np.bincount(group, rows * cells["cell_count"].values)
    exposure = np.bincount(group, rows * cells["cell_exposure"].values)
    return [str(label) for label in cells["group"].values], total / exposure


def _unit(tree: xr.DataTree) -> str:
    """Name what a rate is per."""
    return "row" if np.all(_cells(tree)["cell_exposure"] == 1) else "unit of exposure"


def _cells(tree: xr.DataTree) -> xr.Dataset:
    return tree["constant_data"].to_dataset()


def _edges(observed: np.ndarray, simulated: np.ndarray, *, most: int) -> np.ndarray:
    """Integer edges (K + 1,), K <= most, of bins that hold all observed and 99% of the simulated counts."""
    low, high = np.quantile(simulated, [0.005, 0.995], method="inverted_cdf")
    low, high = min(low, observed.min()), max(high, observed.max())
    width = -(-(high - low + 1) // most)
    return low + width * np.arange(-(-(high - low + 1) // width) + 1)


def _tabulate(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Frequencies by table of the bins, and of what lies below and above: (D, N) -> (D, K + 2)."""
    size = len(edges) + 1
    index = np.searchsorted(edges, counts, side="right") + size * np.arange(len(counts))[:, None]
    return np.bincount(index.ravel(), minlength=size * len(counts)).reshape(-1, size)


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))


def _axes(height: float, title: str) -> tuple[Figure, Axes]:
    """Make a figure of one panel."""
    figure = _figure(height)
    axes = figure.subplots()
    axes.set_title(title, fontsize=12)
    return figure, axes


def _style(axes: Axes, x: str = "", y: str = "") -> None:
    """Give axes what all have in common."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _whole_numbers(axes: Axes) -> None:
    """Place the ticks of a count at whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _number(value: float) -> str:
    """Three digits, without an exponent where that is readable."""
    if not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"


def _short(text: str, length: int = 28) -> str:
    """Put a text on one line and leave out its middle if it is too long."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length // 2]}…{text[1 - length // 2 :]}"


def _printable(text: str, *, position: int, length: int = 28) -> str:
    """Shorten a label to what the font can draw; if that is not all of it, its position is told."""
    text = _short(text, length)
    known = _glyphs(tuple(matplotlib.rcParams["font.family"]))
    if all(ord(letter) in known for letter in text):
        return text
    drawn = "".join(letter if ord(letter) in known else "□" for letter in text)
    return f"#{position + 1} {drawn}"


@cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """Code points that these fonts can draw."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in families]
    return frozenset(point for font in fonts for point in font.get_charmap())
