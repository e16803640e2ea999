"""DataTree to figures, each with a caption that says what to look for and what this one shows.

A label too long to print is shortened in the middle; where a picture cannot show everything its caption says what it
shows. The pictures stand in the modules of `_PARTS`; what they share in `figures_fit` (what they are drawn from),
`figures_numbers`, `figures_style` and `figures_words`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
from poolwise.figures_fit import Fit, Picture
from poolwise.figures_style import png

if TYPE_CHECKING:
    from poolwise.counts.cells import Counts
    from poolwise.inference.predictive import NewGroup
    from poolwise.model.count_model import Model

__all__ = ["FIGURES", "Picture", "draw", "png"]

_PARTS = (
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
_LOOK_FOR: dict[str, str] = {name: text for part in _PARTS for name, text in part.LOOK_FOR.items()}
FIGURES: dict[str, Callable[[Fit], Picture]] = {name: fn for part in _PARTS for name, fn in part.FIGURES.items()}


def draw(
    names: Sequence[str],
    tree: xr.DataTree,
    *,
    summary: pd.DataFrame,
    pareto_k: np.ndarray,
    k_threshold: float,
    counts: "Counts | None" = None,
    model: "Model | None" = None,
    values: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    cell_elpd: np.ndarray | None = None,
    cell_below: np.ndarray | None = None,
    new_group: "NewGroup | None" = None,
    sensitivity: pd.DataFrame | None = None,
    leave_group_out: pd.DataFrame | None = None,
) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures, each when its turn comes.

    Parameters
    ----------
    names : keys of `FIGURES`
    tree : posterior, sample_stats, observed_data, constant_data and posterior_predictive of one fit. For
        `prior_predictive` and `prior_posterior` also prior, the sites of the posterior under their names with dims
        (chain, draw) or (chain, draw, group), any number of draws, and, for the first, prior_predictive, with `y`
        (chain, draw, cell), a count of one row of each cell
    summary : a row a parameter, with columns mean, hdi_3%, hdi_97%, ess_bulk, ess_tail and r_hat
    pareto_k : (C,), one a cell
    k_threshold : above it the leave-one-out value of a cell is not reliable
    counts : the data; for `counts` and `groups`, and for the names of what is counted
    model, values : the model and the parameters of its priors; for `model`
    cell_elpd, cell_below : (C,), the log of P(Y = y), and P(Y < y), of a row of each cell given all other rows; for
        `loo_pit` and `calibration`
    new_group : for `new_group`
    sensitivity : a row a parameter, its name as index or in a column `parameter`; columns prior, likelihood and
        diagnosis; for `sensitivity`
    leave_group_out : a row a group, its label as index or in a column `group`; columns elpd, mcse and, where some
        are in doubt, suspect; for `leave_group_out`

    Raises
    ------
    ValueError
        A figure is asked for without what it is drawn from.
    """
    fit = Fit(
        tree,
        summary,
        np.asarray(pareto_k),
        k_threshold,
        counts=counts,
        model=model,
        values=values or {},
        cell_elpd=cell_elpd,
        cell_below=cell_below,
        new_group=new_group,
        sensitivity=sensitivity,
        leave_group_out=leave_group_out,
    )
    for name in names:
        fit.replaced.clear()
        picture = FIGURES[name](fit)
        yield name, replace(picture, caption=f"{_LOOK_FOR[name]} {picture.caption}{fit.told()}")
