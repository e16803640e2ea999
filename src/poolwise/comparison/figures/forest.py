"""The rate of every group by every model."""

import numpy as np
from matplotlib.figure import Figure

from poolwise.comparison.figures.base import (
    COLOURS,
    MARKERS,
    WIDE,
    ComparisonFigure,
    Ranked,
    group_names,
    rates_of,
    without_draws,
)
from poolwise.figures.base import own_means, unit_of
from poolwise.figures.bins import BAND
from poolwise.figures.fonts import printable
from poolwise.figures.style import BLACK, GREY, blank, style
from poolwise.text import number, short

MAX_LINES = 84  # groups times models


def _forest(ranked: Ranked) -> tuple[Figure, str]:
    tree = next(member.tree for _, member, _ in ranked.first() if member.tree is not None)
    groups, own = own_means(tree)
    shown = [each for each in ranked.first() if set(group_names(each[1].summary)) <= set(groups)]
    rates = np.stack([rates_of(member.summary, groups) for _, member, _ in shown])  # (K, G, 3): low, mean, high
    most = max(1, MAX_LINES // len(shown))
    width = (rates[:, :, 2] - rates[:, :, 0]).mean(axis=0)
    apart = np.ptp(rates[:, :, 1], axis=0) / np.where(width > 0, width, 1.0)  # (G,), in widths of an interval
    kept = np.sort(np.argsort(-apart, kind="stable")[:most])
    figure = blank(1.6 + 0.13 * len(kept) * (len(shown) + 1.5) + 0.26 * -(-len(shown) // 3), WIDE)
    axes = figure.subplots()
    offsets = np.linspace(-0.36, 0.36, len(shown)) if len(shown) > 1 else np.zeros(1)
    y = np.arange(len(kept))
    for (place, _, label), rate, offset in zip(shown, rates, offsets, strict=True):
        low, mean, high = rate[kept].T
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
        f"The models differ most on group {short(groups[furthest])}: from {number(means.min())} "
        f"({short(shown[int(means.argmin())][2], 60)}) to {number(means.max())} "
        f"({short(shown[int(means.argmax())][2], 60)}); its own mean is {number(own[furthest])}."
    )
    if len(kept) < len(groups):
        text += f" Shown are the {len(kept)} of {len(groups)} groups on which they differ most."
    if other := sum(1 for _ in ranked.first()) - len(shown):
        text += f" Models left out because they group the rows in another way: {other}."
    return figure, text + ranked.left_out()


def _plain(label: str) -> str:
    """A label for a legend, which would otherwise read dollar signs as mathematics."""
    return label.replace("$", r"\$")


FOREST = ComparisonFigure(
    "forest",
    _forest,
    kind="Forest plot of the rates by each model",
    how_to_read=(
        "Look for groups on which the models disagree. A marker is the posterior mean rate of a group, the line its "
        f"{BAND:.0%} interval. The open diamond is the group's own mean count, per exposure if there is one. A pooled "
        "model has one rate for all groups."
    ),
    lacks=without_draws,
)
