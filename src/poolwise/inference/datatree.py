"""Draws and data to one labelled DataTree.

Groups: `posterior` and `sample_stats` (chain, draw[, group]), `observed_data` (the counts by row, in canonical
order), `constant_data` (group, exposure and number of every row; the cells) and, once simulated, `posterior_predictive`
by row, `prior`, and `prior_predictive_cells` by cell. Of more than `cells.MOST_ROWS` rows nothing is by row: the table
is in its cells, and `posterior_predictive` is by count. `runs.arviz_tree` converts it to what ArviZ expects.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from poolwise.counts.cells import Counts

FORM = (
    "rows are sorted by group, exposure and count, and draws of some groups are thinned; poolwise.load(run_id) gives "
    "the form that ArviZ expects"
)


def to_tree(posterior: Mapping[str, np.ndarray], sample_stats: Mapping[str, np.ndarray], counts: Counts) -> xr.DataTree:
    """The labelled draws of a fit, with its data.

    Parameters
    ----------
    posterior : site -> (chain, draw) or, by group, (chain, draw, G)
    sample_stats : statistic -> (chain, draw)
    """
    labels = {"group": np.array(counts.labels, dtype=object)}
    cells = {
        "cell_group": counts.cell_group,
        "cell_exposure": counts.cell_exposure,
        "cell_count": counts.cell_count,
        "cell_multiplicity": counts.cell_multiplicity,
    }
    constant: dict[str, tuple[str, np.ndarray]] = {name: ("cell", values) for name, values in cells.items()}
    observed: dict[str, tuple[str, np.ndarray]] = {}
    if counts.is_by_row:
        group, exposure, count = counts.rows()
        constant |= {"row_group": ("row", group), "row_exposure": ("row", exposure)}
        observed["y"] = ("row", count)
    if counts.row_number.size:
        constant["row_number"] = ("row", counts.row_number)
    tree = xr.DataTree.from_dict(
        {
            "posterior": _by_draw(posterior).assign_coords(labels),
            "sample_stats": _by_draw(sample_stats),
            "observed_data": xr.Dataset(observed),
            "constant_data": xr.Dataset(constant, coords=labels),
        }
    )
    tree.attrs["form"] = FORM
    return tree


def _by_draw(values: Mapping[str, np.ndarray]) -> xr.Dataset:
    dims = ("chain", "draw", "group")
    variables = {name: (dims[: value.ndim], value) for name, value in values.items()}
    num_chains, num_draws = next(iter(values.values())).shape[:2]
    return xr.Dataset(variables, coords={"chain": np.arange(num_chains), "draw": np.arange(num_draws)})
