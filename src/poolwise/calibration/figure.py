"""Ranks to a picture: the ECDF difference from uniform for every quantity, with a simultaneous band."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from poolwise.calibration import ranks as rank_statistics
from poolwise.calibration.note import p_text
from poolwise.figures.fonts import printable
from poolwise.figures.style import BLACK, BLUE, GREY, MAX_PANELS, SKY, VERMILLION, legend_below, panels


def ecdf_pit(ranks: np.ndarray, table: pd.DataFrame, *, num_draws: int, title: str) -> Figure:
    """ECDF of the ranks (M, Q) minus the uniform one, one panel per quantity; the worst if there are many.

    The band contains a whole curve with the probability that the verdict requires.
    """
    names = [str(name) for name in table.index]
    shown = _shown(table)
    size = len(ranks)
    level = rank_statistics.LEVEL / len(names)
    low, high = rank_statistics.band(size, num_draws=num_draws, level=level)
    place = np.arange(num_draws + 2) / (num_draws + 1)
    due = place[1:-1]
    lower, upper = (np.concatenate([[0.0], each / size - due, [0.0]]) for each in (low, high))
    curves = {q: rank_statistics.differences(ranks[:, q], num_draws=num_draws) for q in shown}
    top = 1.1 * max(np.abs([lower, upper]).max(), *(np.abs(curve).max() for curve in curves.values()))
    figure, grid = panels(len(shown), title, columns=4, height=2.1, x="rank among the draws")
    for axes, q in zip(grid, shown, strict=True):
        is_calibrated = bool(table["is_calibrated"].iloc[q])
        axes.fill_between(
            place, lower, upper, color=SKY, alpha=0.3, linewidth=0, label=f"{1 - level:.2%} of calibrated curves"
        )
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        colour = BLUE if is_calibrated else VERMILLION
        what = "calibrated" if is_calibrated else "leaves the band: miscalibrated"
        axes.step(place, curves[q], where="mid", color=colour, linewidth=1.4, label=what)
        axes.set_xlim(0, 1)
        axes.set_ylim(-top, top)
        p = table["p"].iloc[q]
        how = str(table["how"].iloc[q]).partition(":")[0]
        axes.text(0.5, 0.03, how, color=VERMILLION, fontsize=8, ha="center", transform=axes.transAxes)
        axes.set_title(
            f"{printable(names[q], otherwise=f'quantity {q + 1}', length=16)}   p {p_text(p)}",
            fontsize=10,
            color=BLACK,
            parse_math=False,
        )
    figure.supylabel("ECDF minus uniform", fontsize=9)
    legend_below(figure, *grid)
    return figure


def _shown(table: pd.DataFrame) -> Sequence[int]:
    """Positions of the drawn quantities: all, or those with the smallest p, in their order."""
    if len(table) <= MAX_PANELS:
        return range(len(table))
    return sorted(np.argsort(table["p"].to_numpy(), kind="stable")[:MAX_PANELS].tolist())
