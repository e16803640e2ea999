"""A judged fit to figures, each with a caption of what it shows and a text on how to read it.

A figure is one function that `base.figure` decorates, in one of `MODULES`; `names.SECTIONS` lists its name. A label too
long to print is shortened in the middle. If a picture cannot show everything, its caption says what it shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from poolwise.checks.base import FitView, Result
from poolwise.figures import (
    counts,
    groups,
    left_out,
    model_graph,
    new_group,
    posterior,
    power_scaling,
    predictive,
    predictive_statistics,
    prior,
    rate_ratios,
)
from poolwise.figures.base import Drawing, Picture, Plot
from poolwise.figures.names import FAILED_CHECKS, NAMES
from poolwise.figures.style import png

__all__ = ["FIGURES", "Picture", "draw", "png"]

MODULES = (
    counts,
    model_graph,
    prior,
    power_scaling,
    posterior,
    rate_ratios,
    groups,
    predictive,
    predictive_statistics,
    left_out,
    new_group,
)
_MARKED = {each.name: each for module in MODULES for each in vars(module).values() if isinstance(each, Plot)}
FIGURES: dict[str, Plot] = {name: _MARKED[name] for name in NAMES}


def draw(names: Sequence[str], view: FitView) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures lazily; a figure whose check did not run, or has no table, is skipped.

    Parameters
    ----------
    names : keys of `FIGURES`; `names.FAILED_CHECKS` stands for those that show what failed in this fit
    view : the fit
    """
    fit = Drawing(view)
    failed = view.shown_in if FAILED_CHECKS in names else set()
    more = (name for name in NAMES if name in failed.difference(names))
    for name in (*(name for name in names if name != FAILED_CHECKS), *more):
        plot = FIGURES[name]
        if plot.needs and not fit.view.results.get(plot.needs, Result()).tables:
            continue
        if plot.statistic and plot.statistic not in view.tree["sample_stats"].to_dataset():
            continue
        fit.replaced.clear()
        picture = plot.draw(fit)
        how_to_read = " ".join(filter(None, (plot.how_to_read, picture.how_to_read)))
        yield name, replace(picture, kind=plot.kind, how_to_read=f"{how_to_read}{fit.told()}")
