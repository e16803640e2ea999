"""A judged fit to figures, each with a caption that says what to look for and what this one shows.

A figure is one function that `figures_fit.figure` marks, in one of `MODULES`; its name stands in `figures_names`. A
label too long to print is shortened in the middle; where a picture cannot show everything its caption says what it
shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

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
from poolwise.checks_base import FitView, Result
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


def draw(names: Sequence[str], view: FitView | xr.DataTree, **given: Any) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures, each when its turn comes; one that needs a check that did not run is left out.

    Parameters
    ----------
    names : keys of `FIGURES`
    view : the fit; `loo_pit` and `calibration` also call its `below`, which gives P(Y < y) of a row of each cell given
        all other rows, (C,)
    """
    fit = Drawing(view_of(view, **given) if isinstance(view, xr.DataTree) else view)
    for name in names:
        plot = FIGURES[name]
        if plot.needs and plot.needs not in fit.view.results:
            continue
        fit.replaced.clear()
        picture = plot.draw(fit)
        yield name, replace(picture, caption=f"{plot.look_for} {picture.caption}{fit.told()}")


def view_of(
    tree: xr.DataTree,
    *,
    pareto_k: np.ndarray,
    k_threshold: float,
    cell_elpd: np.ndarray | None = None,
    cell_below: np.ndarray | None = None,
    values: Mapping[str, Mapping[str, np.ndarray]],
    sensitivity: pd.DataFrame | None = None,
    leave_group_out: pd.DataFrame | None = None,
    **given: Any,
) -> FitView:
    """The fit as one object, of what callers that have none hand over."""
    tables = {"sensitivity": sensitivity, "leave_group_out": leave_group_out}
    loo: Any = SimpleNamespace(pareto_k=pareto_k, k_threshold=k_threshold, cell_elpd=cell_elpd)
    results = {name: Result(tables={name: table}) for name, table in tables.items() if table is not None}
    verdict: Any = None
    view = FitView(prior_values=values, tree=tree, loo=loo, verdict=verdict, results=results, **given)
    object.__setattr__(view, "below", lambda: cell_below)
    return view
