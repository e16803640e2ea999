"""A logged run back in memory."""

import xarray as xr

from poolwise import store
from poolwise.config import outputs
from poolwise.credentials import store_uri
from poolwise.inference import predictive


def load(run_id: str, tracking_uri: str | None = None) -> xr.DataTree:
    """The draws of a logged run with the data they came from; see `poolwise.load`."""
    path = store.artifact(run_id, "posterior/posterior.nc", uri=store_uri(tracking_uri, outputs()))
    with xr.open_datatree(path, engine="netcdf4") as stored:
        tree = stored.load()
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    values = xr.concat(
        [
            xr.DataArray(block, dims=("cell", "chain", "draw"))
            for block in predictive.pointwise_log_likelihood(posterior, cells)
        ],
        dim="cell",
    )
    log_likelihood = xr.Dataset({"y": values.transpose("chain", "draw", "cell")})
    tree["log_likelihood"] = xr.DataTree(log_likelihood.assign_coords(chain=posterior.chain, draw=posterior.draw))
    return tree
