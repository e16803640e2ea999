"""Pooled, unpooled or hierarchical? Count models fitted with NumPyro, checked, tracked in MLflow and compared."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load"]


def load(run_id: str, tracking_uri: str | None = None) -> "xr.DataTree":
    """A logged run as a DataTree: posterior, sample_stats, data, posterior_predictive, log_likelihood.

    Parameters
    ----------
    run_id : of MLflow, as the last lines of a run print it; a unique beginning of it is enough
    tracking_uri : the store; by default `MLFLOW_TRACKING_URI`, else the database in `outputs/`

    Notes
    -----
    `log_likelihood["y"]` (chain, draw, row) is computed from the draws, in float64, with the rows of `observed_data`:
    `arviz.loo(tree)` is right as it stands. Where it would have more than 1e8 values it is left out, and
    `tree.attrs["log_likelihood"]` says so.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or several whose ids begin so.
    """
    from poolwise.runs.load import load  # jax and mlflow are loaded when a run is, not when the package is

    return load(run_id, tracking_uri)
