"""Draws and data to one labelled DataTree.

Groups: `posterior` and `sample_stats` (chain, draw[, group]), `observed_data` (the counts by row, in canonical
order), `constant_data` (group, exposure and number of every row; the cells; with covariates also the design matrix, and
exp(x beta) at the posterior mean of beta) and, once simulated, `posterior_predictive`
by row, `prior`, and `prior_predictive_cells` by cell. The rates of many groups are (chain, stored_draw, group), at some
of the draws: see `inference.rates`. Of more than `cells.MOST_ROWS` rows nothing is by row: the table is in its cells,
and `posterior_predictive` is by count. `runs.arviz_tree` converts it to what ArviZ expects.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from poolwise.counts.cells import Counts
from poolwise.inference.rates import evenly_spaced
from poolwise.model.effects import factors, site_of

STORED_DRAW = "stored_draw"  # the dimension of rates that are not stored at every draw; its values number the draws
FORM = (
    "rows are sorted by group, exposure and count, and draws of some groups are thinned; poolwise.load(run_id) gives "
    "the form that ArviZ expects"
)


def to_tree(posterior: Mapping[str, np.ndarray], sample_stats: Mapping[str, np.ndarray], counts: Counts) -> xr.DataTree:
    """The labelled draws of a fit, with its data.

    Parameters
    ----------
    posterior : site -> (chain, draw) or, by group, (chain, stored draw, G)
    sample_stats : statistic -> (chain, draw)
    """
    labels = {"group": np.array(counts.labels, dtype=object)}
    if counts.effects:
        labels["effect"] = np.array(counts.effects, dtype=object)
    cells = {
        "cell_group": counts.cell_group,
        "cell_exposure": counts.cell_exposure,
        "cell_count": counts.cell_count,
        "cell_multiplicity": counts.cell_multiplicity,
    }
    constant: dict[str, tuple[Any, np.ndarray]] = {name: ("cell", values) for name, values in cells.items()}
    if counts.effects:
        typical = {site: posterior[site].mean() for site in map(site_of, counts.effects)}
        factor = factors(counts.effects, typical, counts.cell_x)
        constant |= {"cell_x": (("cell", "effect"), counts.cell_x), "cell_factor": ("cell", factor)}
    observed: dict[str, tuple[str, np.ndarray]] = {}
    if counts.is_by_row:
        group, exposure, count = counts.rows()
        constant |= {"row_group": ("row", group), "row_exposure": ("row", exposure)}
        if counts.effects:
            row_factor = np.repeat(factor, counts.cell_multiplicity)
            constant |= {"row_x": (("row", "effect"), counts.row_x), "row_factor": ("row", row_factor)}
        observed["y"] = ("row", count)
    if counts.row_number.size:
        constant["row_number"] = ("row", counts.row_number)
    shape = next(iter(sample_stats.values())).shape
    tree = xr.DataTree.from_dict(
        {
            "posterior": _by_draw(posterior, *shape).assign_coords(group=labels["group"]),
            "sample_stats": _by_draw(sample_stats, *shape),
            "observed_data": xr.Dataset(observed),
            "constant_data": xr.Dataset(constant, coords=labels),
        }
    )
    tree.attrs["form"] = FORM
    return tree


def effects_of(tree: xr.DataTree) -> tuple[str, ...]:
    """Names of the effects of covariates, in the order of the design matrix."""
    cells = tree["constant_data"].to_dataset()
    return tuple(map(str, cells["effect"].values)) if "effect" in cells.dims else ()


def joint(posterior: xr.Dataset) -> xr.Dataset:
    """All parameters at the draws at which the rates are stored, along `draw`; most posteriors store them at all."""
    if STORED_DRAW not in posterior.dims:
        return posterior
    others = posterior.drop_vars(["lam", STORED_DRAW]).isel(draw=posterior[STORED_DRAW].values)
    return others.assign(lam=(("chain", "draw", "group"), posterior["lam"].values))


def _by_draw(values: Mapping[str, np.ndarray], num_chains: int, num_draws: int) -> xr.Dataset:
    coords = {"chain": np.arange(num_chains), "draw": np.arange(num_draws)}
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, value in values.items():
        num_stored = value.shape[1]
        if num_stored < num_draws:
            coords[STORED_DRAW] = evenly_spaced(num_draws, num_stored)
        variables[name] = (("chain", "draw" if num_stored == num_draws else STORED_DRAW, "group")[: value.ndim], value)
    return xr.Dataset(variables, coords=coords)
