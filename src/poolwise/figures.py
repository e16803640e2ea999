"""A judged fit to figures, each with a caption that says what to look for and what this one shows.

A figure is one function that `figures_fit.figure` marks, in one of `MODULES`; its name stands in `figures_names`. A
label too long to print is shortened in the middle; where a picture cannot show everything its caption says what it
shows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from poolwise import (
    figures_data,
    figures_left_out,
    figures_model,
    figures_new,
    figures_posterior,
    figures_predictive,
    figures_prior,
    figures_sensitivity,
    figures_statistics,
)
from poolwise.checks_base import FitView
from poolwise.figures_fit import Drawing, Picture, Plot
from poolwise.figures_names import NAMES
from poolwise.figures_style import png

__all__ = ["FIGURES", "Picture", "draw", "png"]

MODULES = (
    figures_data,
    figures_model,
    figures_prior,
    figures_sensitivity,
    figures_posterior,
    figures_predictive,
    figures_statistics,
    figures_left_out,
    figures_new,
)
_MARKED = {each.name: each for module in MODULES for each in vars(module).values() if isinstance(each, Plot)}
FIGURES: dict[str, Plot] = {name: _MARKED[name] for name in NAMES}


def draw(names: Sequence[str], view: FitView) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures, each when its turn comes; one that needs a check that did not run is left out.

    Parameters
    ----------
    names : keys of `FIGURES`
    view : the fit
    """
    fit = Drawing(view)
    for name in names:
        plot = FIGURES[name]
        if plot.needs and plot.needs not in fit.view.results:
            continue
        fit.replaced.clear()
        picture = plot.draw(fit)
        yield name, replace(picture, caption=f"{plot.look_for} {picture.caption}{fit.told()}")
