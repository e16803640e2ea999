"""The ranking in a picture: elpd_loo of every model, and its difference to the best."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolwise.comparison.differences import TIE_DIFFERENCE, is_tie
from poolwise.comparison.figures.base import WIDE, ComparisonFigure, Ranked
from poolwise.comparison.models import eligible
from poolwise.figures.style import BLACK, BLUE, GREY, MAX_LABELS, VERMILLION, blank, style
from poolwise.text import number_of, short

FAR = 100.0  # differences beyond it are drawn on a logarithmic scale


def _elpd(ranked: Ranked) -> tuple[Figure, str]:
    table = ranked.table.dropna(subset=["elpd_loo"]).head(MAX_LABELS)
    y = np.arange(len(table))
    figure = blank(2.0 + 0.3 * max(3, len(table)), WIDE)
    left, right = figure.subplots(1, 2, sharey=True)
    fit = eligible(table)
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
            (fit, BLUE, "o", "trusted"),
            (~fit, VERMILLION, "D", "suspect, or model check failed"),
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
    left.set_yticks(y, ranked.labels[: len(table)], parse_math=False)
    left.set_ylim(len(table) - 0.4, -0.6)
    style(left, "elpd_loo, with its standard error (higher is better)")
    style(right, f"difference to the best model, with 1 and 2 se{' (logarithmic beyond 4)' if is_far else ''}")
    figure.suptitle("Which model predicts best, and by how much?", fontsize=12)
    handles, names = right.get_legend_handles_labels()
    figure.legend(handles[1:] + handles[:1], names[1:] + names[:1], loc="outside lower center", ncols=3, frameon=False)
    return figure, _elpd_shows(ranked, table) + ranked.left_out(MAX_LABELS)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """Scale the axis linearly within the band of ties and logarithmically beyond it, with plain numbers."""
    powers = 10.0 ** np.arange(1, np.ceil(np.log10(max(-low, high))) + 1)
    powers = powers[:: -(-len(powers) // 5)]
    ticks = [*-powers[::-1], -TIE_DIFFERENCE, 0, TIE_DIFFERENCE, *powers]
    axes.set_xscale("symlog", linthresh=TIE_DIFFERENCE, linscale=0.7)
    axes.set_xticks(ticks, [f"{tick:,.0f}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(1.5 * min(low, -TIE_DIFFERENCE), 1.5 * max(high, TIE_DIFFERENCE))


def _elpd_shows(ranked: Ranked, table: pd.DataFrame) -> str:
    fit = table[eligible(table)]
    if fit.empty:
        return "No model may be called best; differences are to the first."
    others = fit.iloc[1:]
    tied = sum(map(is_tie, others["elpd_diff"], others["dse"], others["diff_mcse"]))
    best = f"The best model is {short(ranked.labels[fit.index[0]], 60)}"
    ties = f"{tied} of {len(others)} other models that may be best tie{'s' if tied == 1 else ''} with it"
    ruled_out = len(table) - len(fit)
    open_ones = f" {number_of(ruled_out, 'open diamond')}: not to be called best." if ruled_out else ""
    return (f"{best}, and {ties}." if len(others) else f"{best}; no other may be best.") + open_ones


ELPD = ComparisonFigure(
    "elpd",
    _elpd,
    kind="elpd_loo of the models, and difference to the best",
    how_to_read=(
        "Look on the right for models whose line excludes zero and whose dot is outside the grey band: only these "
        "predict worse than the best model. The left shows elpd_loo, the log probability of every row predicted from "
        "the others, with its standard error. All models share these errors, so overlap on the left does not indicate "
        "a tie. The right shows the difference to the best model with one (thick) and two (thin) of its "
        "own standard errors. In the band, under 4, differences are too small to count."
    ),
)
