"""Effects of covariates in a picture: rate ratios with their intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator

from poolwise.checks.rate_ratios import RATIOS
from poolwise.checks.summary import INTERVAL
from poolwise.figures.base import Drawing, Picture, figure
from poolwise.figures.style import BLACK, BLUE, single, style
from poolwise.text import number, short

MOST = 30  # effects, one line each


@figure(
    "rate_ratios",
    kind="Forest plot of rate ratios",
    how_to_read=(
        "Look for intervals that leave out 1, the dashed line: of these the direction is known. A dot is the ratio by "
        f"which an effect multiplies the rate, with its {INTERVAL:.0%} interval: of a level against the reference "
        "level, of a number for one standard deviation more. The axis is logarithmic: halving and doubling are equally "
        "far from 1."
    ),
    needs="rate_ratios",
)
def _rate_ratios(fit: Drawing) -> Picture:
    table = fit.view.results["rate_ratios"].value
    shown = table.head(MOST)
    power = shown["sd"].fillna(1.0).to_numpy()  # from one unit to one standard deviation
    middle, low, high = (shown[column].to_numpy(float) ** power for column in RATIOS)
    place = np.arange(len(shown))
    picture, axes = single(1.9 + 0.3 * max(3, len(shown)), "What multiplies the rate?")
    axes.axvline(1.0, color=BLACK, linewidth=1.1, linestyle="--")
    axes.hlines(place, low, high, color=BLUE, linewidth=2)
    axes.plot(middle, place, "o", color=BLUE)
    axes.set_yticks(place, [_label(fit, row) for row in shown.reset_index().to_dict("records")], parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in MaxNLocator(7).tick_values(*axes.get_xlim()) if tick > 0])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    style(axes, "rate ratio (logarithmic scale)")
    farthest = int(np.argmax(np.abs(np.log(middle))))
    shows = (
        f"The largest effect is {short(str(shown.index[farthest]))}, which multiplies the rate by "
        f"{number(middle[farthest])} ({number(low[farthest])} to {number(high[farthest])})."
    )
    left_out = f" Shown are the first {MOST} of {len(table)}." if len(table) > MOST else ""
    return Picture(picture, shows + left_out)


def _label(fit: Drawing, row: Mapping[str, Any]) -> str:
    """An effect and what it is compared with."""
    name = fit.parameter(str(row["effect"]))
    return f"{name} / {short(row['against'])}" if row["against"] else f"{name}, {number(row['sd'])} more"
