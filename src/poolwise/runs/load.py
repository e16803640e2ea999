"""Load the draws of a logged run."""

import jax
import numpy as np
import xarray as xr

from poolwise.inference import predictive
from poolwise.model.likelihoods import LIKELIHOODS
from poolwise.model.likelihoods.base import Likelihood
from poolwise.paths import outputs
from poolwise.tracking import store
from poolwise.tracking.credentials import store_uri

MOST_VALUES = 100_000_000  # of a pointwise log likelihood, 0.8 GB


def load(run_id: str, tracking_uri: str | None = None) -> xr.DataTree:
    """The draws of a logged run with its data; see `poolwise.load`."""
    uri = store_uri(tracking_uri, outputs())
    run_id = store.run_id_of(run_id, uri=uri)
    path = store.artifact(run_id, "posterior/posterior.nc", uri=uri)  # first: a sweep or a comparison has none
    likelihood = LIKELIHOODS[store.logged(run_id, uri=uri).params["likelihood.name"]]
    with xr.open_datatree(path, engine="netcdf4") as stored:
        tree = stored.load()
    num_rows, num_draws = tree["observed_data"].sizes["row"], tree["sample_stats"]["diverging"].size
    if num_rows * num_draws > MOST_VALUES:
        tree.attrs["log_likelihood"] = (
            f"left out: {num_rows} rows x {num_draws} draws are more than {MOST_VALUES} values"
        )
    else:
        tree["log_likelihood"] = xr.DataTree(log_likelihood(likelihood, tree))
    return tree


def log_likelihood(likelihood: Likelihood, tree: xr.DataTree) -> xr.Dataset:
    """`y` (chain, draw, row) in float64, rows as in `observed_data`; computed once per cell."""
    posterior, cells = tree["posterior"].to_dataset().astype("float64"), tree["constant_data"].to_dataset()
    with jax.enable_x64(True):  # also if the process that loads the run uses float32
        by_cell = np.concatenate(
            list(predictive.pointwise_log_likelihood(likelihood, posterior, cells))
        )  # (cell, chain, draw)
    by_row = np.repeat(np.moveaxis(by_cell, 0, 2), cells["cell_multiplicity"].values, axis=2)
    coords = {name: posterior[name] for name in ("chain", "draw")}
    return xr.Dataset({"y": (("chain", "draw", "row"), by_row)}, coords=coords)
