"""Pooled, unpooled or hierarchical? Count models fitted with NumPyro, checked, tracked in MLflow and compared."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load"]


def load(run_id: str, tracking_uri: str | None = None) -> "xr.DataTree":
    """A logged run as a DataTree: posterior, sample_stats, data, posterior_predictive, log_likelihood.

    Parameters
    ----------
    run_id : of MLflow, as the last lines of a run print it
    tracking_uri : the store; by default `MLFLOW_TRACKING_URI`, else the database in `outputs/`

    Notes
    -----
    `log_likelihood["y"]` (chain, draw, cell) is computed from the draws: the log probability of one row of each
    cell. `constant_data["cell_multiplicity"]` tells how many rows a cell stands for.

    Raises
    ------
    UnknownRunError
        if the store has no such run.
    """
    from poolwise.logged import load  # jax and mlflow are loaded when a run is, not when the package is

    return load(run_id, tracking_uri)
