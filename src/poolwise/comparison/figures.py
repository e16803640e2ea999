"""A comparison of runs to figures, each with a caption: what to look for, and what this figure shows.

Every figure has the runs in the order of the ranked table, with their ranks. If there are too many runs or groups, a
figure shows the first runs and the groups on which the models differ most, and the caption reports this.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolwise.checks.predictive_statistics import observed_and_simulated
from poolwise.comparison.ranking import TIE_DIFFERENCE, is_tie, telling
from poolwise.figures.base import INTERVAL, Picture, own_means, unit_of
from poolwise.figures.bins import BAND, count_quantile, edges_of
from poolwise.figures.fonts import printable
from poolwise.figures.predictive import draw_ecdf
from poolwise.figures.style import (
    BLACK,
    BLUE,
    DPI,
    GREEN,
    GREY,
    MAX_LABELS,
    MAX_NAMED,
    MAX_PANELS,
    MAX_STEPS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    blank,
    style,
    whole_numbers,
)
from poolwise.model.poolings.base import Pooling
from poolwise.text import number, short

__all__ = ["FIGURES", "MAX_MODELS", "Member", "absent", "draw"]

WIDE = 1280 / DPI  # inches: 1280 pixels across
MAX_MODELS = 12  # in a figure with a panel or colour per model; each pair of colour and marker is unique
MAX_LINES = 84  # in the forest: groups times models
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
MARKERS = "os^vPX<>p*H8"
FAR = 100.0  # differences beyond it are drawn on a logarithmic scale


LOOK_FOR = {  # the first half of every caption
    "elpd": (
        "Look on the right for runs whose line excludes zero and whose dot is outside the grey band: only these "
        "predict worse than the best run. The left shows elpd_loo, the log probability of every row predicted from "
        "the others, with its standard error. All runs share these errors, so overlap on the left does not indicate a "
        "tie. The right shows the difference to the best run with one (thick) and two (thin) of its "
        "own standard errors. In the band, under 4, differences are too small to count."
    ),
    "predictive": (
        "Look for the black line inside the band. The line is the same in all panels: the share of rows with at most "
        f"that count. The band contains the middle {BAND:.0%} of that share in tables simulated by the fitted model."
    ),
    "forest": (
        "Look for groups on which the models disagree. A marker is the posterior mean rate of a group, the line its "
        f"{BAND:.0%} interval. The open diamond is the group's own mean count, per exposure if there is one. A pooled "
        "model has one rate for all groups."
    ),
    "shrinkage": (
        "Look for points off the diagonal. Each is a group: horizontally its rate in the unpooled model, vertically "
        f"its rate in the hierarchical model, which shares strength between groups, with {BAND:.0%} intervals. On the "
        "diagonal there is no shrinkage. Groups shrink towards the mean, near the line of the pooled rate, most if "
        "they have few data or are extreme."
    ),
    "new_group": (
        "Look at the location and width of the distributions. Each is the probability of each count in a group that "
        "is not in the data, all to the same scale. The bar below it covers the middle 90%, the tick is the median. "
        "elpd_loo does not assess these: it predicts further rows of the groups in the data."
    ),
}


@dataclass(frozen=True)
class Member:
    """A run of the comparison, read from its artifacts.

    Attributes
    ----------
    pooling, likelihood : of its model
    summary : `tables/summary.csv`, one row per parameter, indexed by name
    new_group : `tables/new_group.csv`, with columns count, probability and cumulative
    tree : with observed_data, constant_data and posterior_predictive; None if not available
    """

    pooling: Pooling
    likelihood: str
    summary: pd.DataFrame
    new_group: pd.DataFrame
    tree: xr.DataTree | None = None


@dataclass(frozen=True)
class _Runs:
    """The input of a figure: the ranked table and, by rank from 0, the members and their labels."""

    table: pd.DataFrame
    members: list[Member]
    labels: list[str]

    def first(self) -> Iterator[tuple[int, Member, str]]:
        """Rank from 0, member and label of the first `MAX_MODELS` runs."""
        return islice(zip(range(len(self.members)), self.members, self.labels, strict=True), MAX_MODELS)

    def left_out(self, most: int) -> str:
        """The sentence about runs that a figure does not show."""
        return f" Shown are the first {most} of {len(self.members)} runs." if len(self.members) > most else ""


def draw(names: Sequence[str], table: pd.DataFrame, members: Mapping[str, Member]) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures one at a time; skip those that cannot be drawn (`absent`).

    Parameters
    ----------
    names : keys of `FIGURES`
    table : of `ranking.compare`
    members : run id -> member, for the runs of the table
    """
    ordered = [members[run_id] for run_id in table["run_id"]]
    labels = [
        _label(name, place, verdict)
        for place, (name, verdict) in enumerate(zip(telling(list(table["name"])), table["verdict"], strict=True))
    ]
    runs = _Runs(table, ordered, labels)
    for name in names:
        if not absent(name, ordered):
            figure, shows = FIGURES[name](runs)
            yield name, Picture(figure, f"{LOOK_FOR[name]} {shows}")


def absent(name: str, members: Sequence[Member]) -> str:
    """Why a figure cannot be drawn for these runs, best first, or nothing."""
    if name == "shrinkage" and not _pairs(members):
        return "shrinkage needs an unpooled and a hierarchical run with the same likelihood"
    if name in ("predictive", "forest") and all(each.tree is None for each in members[:MAX_MODELS]):
        return f"{name} needs the stored draws of at least one run"
    return ""


def _elpd(runs: _Runs) -> tuple[Figure, str]:
    table = runs.table.dropna(subset=["elpd_loo"]).head(MAX_LABELS)
    y = np.arange(len(table))
    figure = blank(2.0 + 0.3 * max(3, len(table)), WIDE)
    left, right = figure.subplots(1, 2, sharey=True)
    suspect = (table["verdict"] != "trusted").to_numpy()
    right.axvspan(
        -TIE_DIFFERENCE,
        TIE_DIFFERENCE,
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label=f"difference under {TIE_DIFFERENCE:g}",
    )
    right.axvline(0, color=BLACK, linewidth=1)
    for axes, value, error, times in ((left, "elpd_loo", "se", (1,)), (right, "elpd_diff", "dse", (1, 2))):
        centre, width = table[value].to_numpy(), table[error].to_numpy()
        for kind, colour, marker, name in (
            (~suspect, BLUE, "o", "trusted"),
            (suspect, VERMILLION, "D", "suspect: unreliable"),
        ):
            if not kind.any():
                continue
            for each in times:
                reach = each * width[kind]
                axes.hlines(
                    y[kind], centre[kind] - reach, centre[kind] + reach, color=colour, linewidth=(4.5, 1.5)[each - 1]
                )
            face = colour if marker == "o" else "white"
            axes.plot(centre[kind], y[kind], marker, color=colour, mfc=face, markersize=7, label=name)
    ends = [(table["elpd_diff"] + side * table["dse"]) for side in (-2, 2)]
    low, high = float(ends[0].min()), float(ends[1].max())
    is_far = max(-low, high) > FAR
    if is_far:
        _logarithmic(right, low, high)
    left.set_yticks(y, runs.labels[: len(table)], parse_math=False)
    left.set_ylim(len(table) - 0.4, -0.6)
    style(left, "elpd_loo, with its standard error (higher is better)")
    style(right, f"difference to the best run, with 1 and 2 se{' (logarithmic beyond 4)' if is_far else ''}")
    figure.suptitle("Which run predicts best, and by how much?", fontsize=12)
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles[1:] + handles[:1], names[1:] + names[:1], loc="outside lower center", ncols=3, frameon=False)
    return figure, _elpd_shows(runs, table) + runs.left_out(MAX_LABELS)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """Scale the axis linearly within the band of ties and logarithmically beyond it, with plain numbers."""
    powers = 10.0 ** np.arange(1, np.ceil(np.log10(max(-low, high))) + 1)
    powers = powers[:: -(-len(powers) // 5)]
    ticks = [*-powers[::-1], -TIE_DIFFERENCE, 0, TIE_DIFFERENCE, *powers]
    axes.set_xscale("symlog", linthresh=TIE_DIFFERENCE, linscale=0.7)
    axes.set_xticks(ticks, [f"{tick:,.0f}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(1.5 * min(low, -TIE_DIFFERENCE), 1.5 * max(high, TIE_DIFFERENCE))


def _elpd_shows(runs: _Runs, table: pd.DataFrame) -> str:
    trusted = table[table["verdict"] == "trusted"]
    if trusted.empty:
        return "Here no run is trusted; differences are to the first."
    tied = sum(map(is_tie, trusted["elpd_diff"], trusted["dse"])) - 1
    text = f"Here the best trusted run is {short(runs.labels[trusted.index[0]], 60)}"
    text += f", and {tied} of {len(trusted) - 1} other trusted runs tie{'s' if tied == 1 else ''} with it."
    suspects = int((table["verdict"] != "trusted").sum())
    return text + (f" Suspect, as open diamonds: {suspects}." if suspects else "")


def _predictive(runs: _Runs) -> tuple[Figure, str]:
    shown = [(label, member.tree) for _, member, label in runs.first() if member.tree is not None]
    counts = [(label, *observed_and_simulated(tree)) for label, tree in shown]
    ends = np.array([edges_of(observed, simulated, most=MAX_STEPS)[[0, -1]] for _, observed, simulated in counts])
    observed = counts[0][1]
    top = observed.max() + max(10, 2 * np.ptp(observed))  # one model gone astray does not squeeze the others
    edges = edges_of(observed, np.clip(ends - [0, 1], None, top), most=MAX_STEPS)
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
    least = min(range(len(inside)), key=lambda place: (inside[place], -place))
    text = f"Here the line leaves the band most often in panel {short(counts[least][0], 60)}"
    text += f": it is inside at {inside[least]} of {len(at) - 1} {what}."
    if min(inside) == len(at) - 1:
        text = f"Here the line is inside everywhere, at all {len(at) - 1} {what} of every panel."
    if ends[:, 1].max() - 1 > top:
        text += f" Counts above {edges[-1] - 1:,} are not shown."
    if missing := sum(member.tree is None for _, member, _ in runs.first()):
        text += f" Runs left out because they have no stored draws: {missing}."
    return figure, text + runs.left_out(MAX_MODELS)


def _forest(runs: _Runs) -> tuple[Figure, str]:
    tree = next(member.tree for _, member, _ in runs.first() if member.tree is not None)
    groups, own = own_means(tree)
    shown = list(runs.first())
    rates = np.stack([_rates(member.summary, groups) for _, member, _ in shown])  # (K, G, 3): low, mean, high
    most = max(1, MAX_LINES // len(shown))
    width = (rates[:, :, 2] - rates[:, :, 0]).mean(axis=0)
    apart = np.ptp(rates[:, :, 1], axis=0) / np.where(width > 0, width, 1.0)  # (G,), in widths of an interval
    kept = np.sort(np.argsort(-apart, kind="stable")[:most])
    figure = blank(1.6 + 0.13 * len(kept) * (len(shown) + 1.5) + 0.26 * -(-len(shown) // 3), WIDE)
    axes = figure.subplots()
    offsets = np.linspace(-0.36, 0.36, len(shown)) if len(shown) > 1 else np.zeros(1)
    y = np.arange(len(kept))
    for (place, _, label), offset in zip(shown, offsets, strict=True):
        low, mean, high = rates[place][kept].T
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        axes.hlines(y + offset, low, high, color=colour, linewidth=1.5)
        axes.plot(mean, y + offset, marker, color=colour, markersize=5)
        axes.plot([], [], marker=marker, color=colour, linewidth=1.5, markersize=5, label=_plain(label))
    for at, group in enumerate(kept):
        name = "the group's own mean" if at == 0 else None
        axes.plot([own[group]] * 2, [at - 0.44, at + 0.44], color=GREY, linewidth=1, linestyle=":")
        axes.plot(own[group], at + 0.44, "D", mfc="white", mec=BLACK, markersize=6, label=name, clip_on=False)
    axes.hlines(y[1:] - 0.5, 0, 1, transform=axes.get_yaxis_transform(), color="#CCCCCC", linewidth=0.8)
    axes.set_yticks(y, [printable(groups[g], otherwise=f"group {g + 1}") for g in kept], parse_math=False)
    axes.set_ylim(len(kept) - 0.5, -0.5)
    style(axes, f"rate, counts per {unit_of(tree)}")
    axes.grid(visible=False, axis="y")
    axes.set_title("Which rate does each model estimate for each group?", fontsize=12)
    is_long = max(len(label) for _, _, label in shown) > 30
    figure.legend(loc="outside lower center", ncols=2 if is_long else 3, frameon=False)
    furthest = int(apart.argmax())
    means = rates[:, furthest, 1]
    text = (
        f"Here the models differ most on {short(groups[furthest])}: from {number(means.min())} "
        f"({short(shown[int(means.argmin())][2], 60)}) to {number(means.max())} "
        f"({short(shown[int(means.argmax())][2], 60)}); its own mean is {number(own[furthest])}."
    )
    if len(kept) < len(groups):
        text += f" Shown are the {len(kept)} of {len(groups)} groups on which they differ most."
    return figure, text + runs.left_out(MAX_MODELS)


def _shrinkage(runs: _Runs) -> tuple[Figure, str]:
    pairs = _pairs(runs.members)
    groups = _group_names(runs.members[pairs[0][0]].summary)
    rates = [[_rates(runs.members[place].summary, groups) for place in pair[:2]] for pair in pairs]  # (G, 3) each
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
            rate = float(runs.members[pooled].summary["mean"].loc["lam"])
            axes.axhline(rate, color=ORANGE, linewidth=1.6, linestyle="--", label="the pooled rate")
        axes.set_title(runs.members[up].likelihood.replace("_", " "), fontsize=11)
        style(axes, f"rate by {short(runs.labels[across], 44)}", f"rate by {short(runs.labels[up], 44)}")
        axes.xaxis.label.set_parse_math(False)
        axes.yaxis.label.set_parse_math(False)
        axes.tick_params(labelleft=True)
        moved = int(np.argmax(np.abs(y[:, 1] - x[:, 1])))
        told.append(
            f"from {short(runs.labels[across], 60)} to {short(runs.labels[up], 60)}, {short(groups[moved])} moves "
            f"most, {number(x[moved, 1])} to {number(y[moved, 1])}"
        )
    figure.suptitle("How far do the groups shrink towards each other?", fontsize=12)
    handles: dict[str, Artist] = {}
    for axes in grid:  # only one likelihood may have a pooled rate
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
    text = f"Here, {'; '.join(told)}. The highest-ranked run of each kind is used."
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


def _new_group(runs: _Runs) -> tuple[Figure, str]:
    shown = list(runs.first())
    density = [_density(member.new_group) for _, member, _ in shown]
    learnt = [member.pooling.informs_new_group for _, member, _ in shown]
    tops = [count_quantile(member.new_group, 0.995) for _, member, _ in shown]
    # an unpooled model has only the prior for a new group; if it is vague, it must not compress the other distributions
    known = [top for top, is_learnt in zip(tops, learnt, strict=True) if is_learnt]
    end = min(max(tops), 3 * max(known)) if known else max(tops)
    highest = max(float(height[count <= end].max()) for count, height in density)
    figure = blank(1.5 + 0.62 * len(shown), WIDE)
    axes = figure.subplots()
    for (place, member, _), (count, height) in zip(shown, density, strict=True):
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
    text = "Here no model has information about a new group: unpooled groups share no information."
    if usable:
        narrow, wide = (find(usable, key=widths.__getitem__) for find in (min, max))
        text = (
            f"Here, among models that learn about new groups from the data, {short(shown[narrow][2], 60)} has the "
            f"narrowest distribution and {short(shown[wide][2], 60)} the widest."
        )
        if widths[narrow] == widths[wide]:
            text = "Here all models that learn about new groups from the data give distributions of equal width."
        if not all(learnt):
            text += " Grey and hatched: unpooled models, which do not learn about a new group; this is their prior."
    if max(tops) > end:
        text += f" Counts above {end:,} are not shown."
    return figure, text + runs.left_out(MAX_MODELS)


FIGURES: dict[str, Callable[[_Runs], tuple[Figure, str]]] = {
    "elpd": _elpd,
    "predictive": _predictive,
    "forest": _forest,
    "shrinkage": _shrinkage,
    "new_group": _new_group,
}


def _pairs(members: Sequence[Member]) -> list[tuple[int, int, int | None]]:
    """Ranks of the best unpooled, hierarchical and pooled run, for every likelihood with the first two."""
    found = []
    for likelihood in dict.fromkeys(member.likelihood for member in members):
        alike = [(place, member.pooling) for place, member in enumerate(members) if member.likelihood == likelihood]
        alone = next((place for place, pooling in alike if not pooling.informs_new_group), None)
        sharing = next((place for place, pooling in alike if pooling.has_population), None)
        common = next((place for place, pooling in alike if pooling.is_shared), None)
        if alone is not None and sharing is not None:
            found.append((alone, sharing, common))
    return found


def _rates(summary: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    """Lower end, mean and upper end of the rate of every group, (G, 3)."""
    if "lam" in summary.index:
        return np.tile(summary.loc["lam", INTERVAL].to_numpy(float), (len(groups), 1))
    return summary.loc[[f"lam.{group}" for group in groups], INTERVAL].to_numpy(float)


def _group_names(summary: pd.DataFrame) -> list[str]:
    return [str(name).removeprefix("lam.") for name in summary.index if str(name).startswith("lam.")]


def _density(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Counts and their probabilities; in a coarse table the average probability of the counts up to each."""
    count = table["count"].to_numpy()
    return count, table["probability"].to_numpy() / np.diff(count, prepend=-1)


def _label(name: str, place: int, verdict: str) -> str:
    """Rank and name of a run, short enough for an axis; marked if suspect."""
    suspect = "" if verdict == "trusted" else " (suspect)"
    return f"{place + 1}. {printable(name, otherwise='run', length=36)}{suspect}"


def _plain(label: str) -> str:
    """A label for a legend, which would otherwise read dollar signs as mathematics."""
    return label.replace("$", r"\$")
