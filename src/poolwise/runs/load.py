"""Load a logged run as a tree for ArviZ."""

import math
import warnings
from dataclasses import replace

import xarray as xr

from poolwise.config import check
from poolwise.inference.datatree import effects_of
from poolwise.model.priors import prior_values
from poolwise.paths import outputs
from poolwise.provenance import recorded_run
from poolwise.runs.arviz_tree import TABLE_ORDER, to_arviz
from poolwise.tracking import store
from poolwise.tracking.credentials import store_uri

INTEGRATED = (
    "elpd_loo of this run is computed with the rates integrated out, because importance sampling of its draws {why}; "
    "arviz.loo has importance sampling alone"
)


def load(run_id: str, tracking_uri: str | None = None) -> xr.DataTree:
    """A logged run as a tree for ArviZ; see `poolwise.load`."""
    uri = store_uri(tracking_uri, outputs())
    run_id = store.run_id_of(run_id, uri=uri)
    stored = stored_tree(run_id, uri=uri)  # first: a sweep or a comparison has none
    record = recorded_run.of_run(run_id, uri=uri)
    config = check(record.facts.settings)
    tree = to_arviz(
        stored,
        model=replace(config.model, effects=effects_of(stored)),
        values=prior_values(config.prior, sites=config.sites),
        group_column=config.data.group,
        seed=config.seed,
    )
    if record.run.metrics.get("loo_replaced"):
        k = record.run.metrics["pareto_k_max_psis"]
        why = "needs the rates at every draw" if math.isnan(k) else f"is in doubt (Pareto k up to {k:.2f})"
        tree.attrs["elpd_loo"] = INTEGRATED.format(why=why)
    for each in set(tree.attrs.values()) - {TABLE_ORDER}:
        warnings.warn(each, stacklevel=3)  # of the caller of `poolwise.load`
    return tree


def stored_tree(run_id: str, *, uri: str) -> xr.DataTree:
    """The tree of a logged run as it is stored: `datatree.to_tree` with its predictions.

    Raises
    ------
    UnknownRunError
        if the store has no such run, or the run has no draws.
    """
    with xr.open_datatree(store.artifact(run_id, "posterior/posterior.nc", uri=uri), engine="netcdf4") as stored:
        return stored.load()
