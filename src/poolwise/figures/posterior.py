"""The posterior in pictures: whether the sampler explored it, and the rates.

A picture that cannot show every parameter shows the worst, and its caption says so.
"""

import warnings

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from poolwise.checks.conditions import R_HAT_MAX
from poolwise.checks.gate import BFMI_MIN
from poolwise.checks.summary import parameters
from poolwise.figures.base import INTERVAL, Drawing, Picture, figure
from poolwise.figures.bins import BAND, bins_of, spread_out
from poolwise.figures.style import (
    BLACK,
    BLUE,
    CHAINS,
    GREY,
    MAX_LABELS,
    MAX_MARKS,
    MAX_PANELS,
    ORANGE,
    SKY,
    blank,
    collection,
    legend_below,
    legend_of_chains,
    panels,
    single,
    style,
)
from poolwise.text import number, number_of, short

MAX_TRACES = 8  # parameters
MAX_POINTS = 800  # of a line: two thirds of its pixels


@figure(
    "rank",
    kind="Rank plot of the chains (ECDF difference)",
    how_to_read=(
        "Look for lines that stay in the grey band. All chains should have explored the same distribution. A line "
        "shows the ECDF of the ranks of one chain minus that of all chains. The band is three standard errors: about "
        "one line in fifty leaves it briefly by chance; a line that stays outside belongs to a chain that disagrees. "
        "The band is wide where few draws are effectively independent."
    ),
)
def _rank(fit: Drawing) -> Picture:
    draws = parameters(fit.view.posterior[fit.sites_at_all_draws])
    by_r_hat = (
        fit.view.summary["r_hat"].loc[list(draws)].sort_values(ascending=False, na_position="first", kind="stable")
    )
    highest = set(by_r_hat.index[:MAX_PANELS])
    shown = [name for name in draws if name in highest]
    num_chains = len(draws[shown[0]])
    figure, grid = panels(len(shown), "Do the chains agree?", height=1.75, shared=True)
    excess = np.array([_draw_rank(axes, fit, name, draws[name]) for axes, name in zip(grid, shown, strict=True)])
    legend_of_chains(figure, grid[0], num_chains)
    figure.supxlabel("rank of a draw among all chains, as a fraction", fontsize=10)
    figure.supylabel("ECDF of a chain minus that of all", fontsize=10)
    worst_panel, worst_chain = np.unravel_index(excess.argmax(), excess.shape)
    agree = "agree" if by_r_hat.iloc[0] <= R_HAT_MAX else "do not agree"
    worst = f"{number(by_r_hat.iloc[0], 4)} ({short(by_r_hat.index[0])})"
    shows = (
        f"The chains {agree}: the largest R-hat is {worst}. "
        f"{np.sum(excess <= 1)} of {excess.size} lines, a chain of a parameter each, stay inside the band of chance; "
        f"furthest is chain {worst_chain + 1} of {short(shown[worst_panel])}, {excess.max():.2f} times the band."
    )
    if len(shown) < len(draws):
        shows += f" Shown are the {len(shown)} of {len(draws)} parameters with the highest R-hat."
    return Picture(figure, shows)


def _draw_rank(axes: Axes, fit: Drawing, name: str, draws: np.ndarray) -> np.ndarray:
    """Draw one parameter; returns the largest distance of each chain from zero, in bands."""
    z = np.arange(1, 201) / 201
    # The minimum of both ESS and the draws: a sticky tail or anticorrelation makes the band too narrow.
    ess = min(*fit.view.summary.loc[name, ["ess_bulk", "ess_tail"]], draws.size) / len(draws)
    band = 3 * np.sqrt(z * (1 - z) / ess)  # (200,)
    lines = _ecdf_difference(draws, z)  # (chain, 200)
    axes.fill_between(z, -band, band, color=GREY, alpha=0.25, linewidth=0)
    for chain, line in enumerate(lines):
        axes.plot(z, line, color=CHAINS[chain % len(CHAINS)], linewidth=1.1, label=f"chain {chain + 1}")
    axes.set_title(fit.parameter(name, 20), fontsize=10, parse_math=False)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    return np.nan_to_num(np.abs(lines) / band).max(axis=1)


def _ecdf_difference(draws: np.ndarray, z: np.ndarray) -> np.ndarray:
    """ECDF of each chain minus that of all, at the common quantiles z; (chain, draw) -> (chain, len(z)).

    Without ties this is the ECDF of a chain's fractional ranks minus the diagonal. ArviZ's plot_rank takes
    1.7 s a parameter: its multi-chain test evaluates the hypergeometric pmf and cdf at each of 4000 draws.
    """
    ordered = np.sort(draws, axis=None)
    at = ordered[(z * ordered.size).astype(int)]
    below = np.stack([np.searchsorted(np.sort(chain), at, side="right") for chain in draws])
    return (below - below.mean(axis=0)) / draws.shape[1]


@figure(
    "trace",
    kind="Trace plot",
    how_to_read=(
        "Look for chains that are indistinguishable, on the left as densities and on the right as draws in order: "
        "noise without drift, without flat stretches and around one level. A tick at the bottom is a divergent draw, "
        "where the sampler could not follow the posterior."
    ),
)
def _trace(fit: Drawing) -> Picture:
    draws = parameters(fit.view.posterior[fit.sites_at_all_draws])
    ess = fit.view.summary.loc[list(draws), ["ess_bulk", "ess_tail"]].min(axis=1)
    ess = ess.sort_values(na_position="first", kind="stable")
    lowest = set(ess.index[:MAX_TRACES])
    shown = [name for name in draws if name in lowest]
    num_chains, length = draws[shown[0]].shape
    diverging = _diverging(fit.view.tree, (num_chains, length))
    figure = blank(1.1 + 1.05 * max(2, len(shown)))
    grid = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(1, 3))
    for (left, right), name in zip(grid, shown, strict=True):
        _draw_trace(left, right, draws[name], np.flatnonzero(diverging.any(axis=0)))
        left.set_ylabel(fit.parameter(name, 16), rotation=0, ha="right", va="center", parse_math=False)
        right.tick_params(labelbottom=name == shown[-1])
    legend_of_chains(figure, grid[0, 0], num_chains)
    grid[-1, 0].set_xlabel("value")
    grid[-1, 1].set_xlabel("draw of each chain")
    figure.suptitle("Do the chains explore the same range?", fontsize=12)
    shows = (
        f"{int(diverging.sum()):,} of {diverging.size:,} draws diverged; the lowest ESS is {ess.iloc[0]:,.0f} of "
        f"{diverging.size:,} draws, for {short(ess.index[0])}."
    )
    if (every := _every(length)) > 1:
        shows += f" On the right one draw in {every} is drawn."
    if len(shown) < len(draws):
        shows += f" Shown are the {len(shown)} of {len(draws)} parameters with the lowest ESS."
    return Picture(figure, shows)


def _every(length: int) -> int:
    return -(-length // MAX_POINTS)


def _draw_trace(left: Axes, right: Axes, draws: np.ndarray, diverging: np.ndarray) -> None:
    """Draw one parameter (chain, draw): its densities by chain, its draws in order."""
    edges, length = bins_of(draws), draws.shape[1]
    places = np.arange(0, length, _every(length))
    for chain, values in enumerate(draws):
        colour = CHAINS[chain % len(CHAINS)]
        left.stairs(np.histogram(values, bins=edges)[0], edges, color=colour, linewidth=1.1, label=f"chain {chain + 1}")
        right.plot(places + 1, values[places], color=colour, linewidth=0.5, alpha=0.75)
    right.plot(diverging + 1, np.full(len(diverging), edges[0]), "|", color=BLACK)
    style(left)
    style(right)
    right.set_xlim(1, max(length, 2))
    left.set_yticks([])
    left.xaxis.set_major_locator(MaxNLocator(nbins=3))
    right.yaxis.set_major_locator(MaxNLocator(nbins=3))
    for axes in (left, right):
        axes.grid(visible=False)
        axes.tick_params(labelsize=8)


def _diverging(tree: xr.DataTree, shape: tuple[int, int]) -> np.ndarray:
    stats = tree["sample_stats"].to_dataset()
    return stats["diverging"].transpose("chain", "draw").values if "diverging" in stats else np.zeros(shape, bool)


@figure(
    "forest",
    kind="Forest plot of the rates",
    how_to_read=(
        "Look for groups that lie apart; the highest is at the top. An open diamond is a group's own mean count, "
        "divided by exposure if there is one; it includes chance scatter."
    ),
)
def _forest(fit: Drawing) -> Picture:
    labels, pooled, table = fit.labels, fit.is_pooled, fit.rates
    own = fit.own if fit.factor is None else fit.own * float(fit.factor.mean())
    centre = "lam" if pooled else "mu" if "mu" in table.index else None
    intervals = None if pooled else table.loc[[f"lam.{label}" for label in labels], INTERVAL].to_numpy()
    rate = own if intervals is None else intervals[:, 1]
    many = len(labels) > MAX_LABELS
    order = spread_out(np.argsort(-rate, kind="stable"), MAX_MARKS)
    y, size = np.arange(len(order)), 3 if many else 6
    figure, axes = single(1.9 + 0.25 * min(max(4, len(labels)), MAX_LABELS), "What is the rate of each group?")
    common = [float(value) for value in table[INTERVAL].T[centre]] if centre else []
    if common:
        what = "rate of all groups" if pooled else "mu, mean of the population"
        axes.axvspan(common[0], common[2], color=ORANGE, alpha=0.2, linewidth=0)
        axes.axvline(common[1], color=ORANGE, linewidth=1.8, label=f"{what}, with {BAND:.0%} interval")
    if intervals is not None:
        axes.hlines(y, *intervals[order, ::2].T, color=BLUE, linewidth=1 if many else 2)
        axes.plot(rate[order], y, "o", color=BLUE, markersize=size)
        axes.plot([], [], "-o", color=BLUE, linewidth=2, label=f"rate, with {BAND:.0%} interval")
    axes.plot(own[order], y, "D", mfc="none", mec=BLACK, markersize=size, label="the group's own mean")
    every = -(-len(order) // MAX_LABELS)
    axes.set_yticks(y[::every], [fit.label(g) for g in order[::every]], parse_math=False)
    axes.set_ylim(len(order) - 0.4, -0.6)
    style(axes, f"rate, {fit.unit}", fit.grouping)
    legend_below(figure, axes)
    marks = _forest_marks(fit, is_shrunk_to_mu=bool(common)) + fit.own_words()
    if len(order) < len(labels):
        marks += f" Drawn are {len(order):,} of the {len(labels):,} groups, evenly spaced by rate."
    if many:
        marks += f" One in {every} of the {len(order):,} groups is labelled."
    return Picture(figure, _forest_shows(fit, rate, own, common), how_to_read=marks)


def _forest_marks(fit: Drawing, *, is_shrunk_to_mu: bool) -> str:
    """What the blue and orange marks mean in this model."""
    if fit.is_pooled:
        return f"The orange line is the one rate of all groups, with its {BAND:.0%} credible interval shaded."
    towards = "the prior, not towards other groups (no pooling)"
    if is_shrunk_to_mu:
        towards = "the mean of the population of groups (mu: orange, interval shaded; partial pooling)"
    return (
        f"A blue dot is the rate from the model, with its {BAND:.0%} credible interval (HDI). It is shrunk from the "
        f"diamond towards {towards}, most if data are few."
    )


def _forest_shows(fit: Drawing, rate: np.ndarray, own: np.ndarray, common: list[float]) -> str:
    first, last = np.argsort(rate, kind="stable")[[0, -1]]
    ends = [f"{number(rate[g])} ({fit.named(g)})" for g in (first, last)]
    span = f"run from {ends[0]} to {ends[1]}" if len(rate) > 1 else f"are just one, {ends[0]}"
    if fit.is_pooled:
        low, middle, high = map(number, common)
        return (
            f"The one rate of all groups{fit.covariates} is {middle} ({low} to {high}); the groups' own means {span}."
        )
    moved = int(np.argmax(np.abs(rate - own)))
    return (
        f"The rates{fit.covariates} {span}; shrinkage is largest for {fit.named(moved)}, from its own mean "
        f"{number(own[moved])} to {number(rate[moved])}."
    )


@figure(
    "energy",
    kind="Energy plot",
    how_to_read=(
        "Look for two shapes of about the same width. The blue one shows the energies of all draws (marginal), the "
        "black one the changes in one step (transition). If the black one is much narrower, the sampler moves slowly "
        "and misses the tails. On the left E-BFMI measures this for each chain: near 1 is good, below "
        f"{BFMI_MIN:g}, the dashed line, is not."
    ),
    statistic="energy",
)
def _energy(fit: Drawing) -> Picture:
    from arviz_plots import plot_energy

    figure = blank(4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 3))
    kinds = xr.Dataset({"Energy": ("energy", [0, 0])}, coords={"energy": ["marginal", "transition"]})
    drawn = collection(
        figure, {"column": ["bfmi", "energy"]}, [left, right], kinds, aes={"color": ["energy"]}, color=[SKY, BLACK]
    )
    looks = {"bfmi_points": {"color": BLUE}, "legend": {"title": "", "loc": "outside lower center", "ncols": 2}}
    looks |= {"face": {"alpha": 0.3}, "title": False, "ylabel": False, "remove_axis": False}
    energy = fit.view.tree["sample_stats"].to_dataset()["energy"].transpose("chain", "draw").values
    with np.errstate(invalid="ignore"), warnings.catch_warnings():  # for a chain whose energy never changes
        warnings.filterwarnings("ignore", "Your data appears to have a single value")
        plot_energy(fit.view.tree, plot_collection=drawn, threshold=BFMI_MIN, visuals=looks)
        bfmi = np.atleast_1d(array_stats.bfmi(energy))
    left.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.yaxis.set_major_formatter(lambda chain, _: f"{chain + 1:.0f}")
    left.set_ylim(len(bfmi) - 0.5, -0.5)
    style(left, "E-BFMI", "chain")
    style(right, "energy (negative log density, no unit)", "density of draws")
    figure.suptitle("Did the sampler reach every energy?", fontsize=12)
    return Picture(figure, _bfmi_words(bfmi))


def _bfmi_words(bfmi: np.ndarray) -> str:
    known = bfmi[np.isfinite(bfmi)]
    stuck = f"no E-BFMI for {number_of(len(bfmi) - len(known), 'chain')}, whose energy never changes"
    if not len(known):
        return f"There is {stuck}."
    shows = f"{'E-BFMI' if len(bfmi) == 1 else 'The smallest E-BFMI'} is {known.min():.2f}"
    return f"{shows}." if len(known) == len(bfmi) else f"{shows}; there is {stuck}."
