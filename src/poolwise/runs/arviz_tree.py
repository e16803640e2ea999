"""A stored fit to a tree on which plain ArviZ calls are right.

ArviZ needs counts and log likelihood by row, at every draw of the posterior: `psense_summary` of a thinned log
likelihood is NaN with a check mark, and `loo_pit` of thinned predictions is an error. A stored tree has thinned
predictions, prior predictions by cell and no log likelihood; here they are computed from its draws.
"""

import jax
import numpy as np
import xarray as xr

from poolwise.checks.power_scaling import log_priors
from poolwise.errors import RequestError
from poolwise.inference import predictive
from poolwise.inference.datatree import STORED_DRAW, joint
from poolwise.inference.streams import named_generator
from poolwise.model.count_model import SITES, Model
from poolwise.model.likelihoods.base import Likelihood
from poolwise.model.priors import PriorValues

MOST_VALUES = 100_000_000  # rows times draws; 0.8 GB
TABLE_ORDER = "rows are in the order of the table; row 1 is the first below its header, and blank lines are not counted"
CANONICAL_ORDER = (
    "rows are sorted by group, exposure and count, because the order of its table is not kept: the table is large, was "
    "grouped elsewhere, or logged by version 0.1; arviz.compare it only with runs in this order"
)
TAKEN = frozenset(  # by the tree, then by dimensions that functions of ArviZ 1.3 add (each was tried)
    (
        *("chain", "draw", "row", "y", "exposure", *SITES),
        *("group", "sample", "model", "column", "variable", "label", "summary", "alpha", "component"),
        *("component_group", "ci_bound", "plot_axis", "kwarg", "ess_dim", "kde_dim", "plot", "row_index"),
        *("col_index", "__variable__"),
    )
)
SUFFIX = "_label"
MANY_GROUPS = "the rates of so many groups are stored at some of the draws; they are in the group `rates`"


def to_arviz(tree: xr.DataTree, *, model: Model, values: PriorValues, group_column: str, seed: int) -> xr.DataTree:
    """The tree that `poolwise.load` describes.

    Parameters
    ----------
    tree : of `datatree.to_tree`, with `prior` and `posterior_predictive`; a large table is expanded to its rows
    values : site -> parameter -> (), the values of the priors
    group_column : its name in the table
    seed : of the run, for the simulated counts
    """
    tree = _by_row(tree)
    cells = tree["constant_data"].to_dataset()
    number = cells["row_number"].values if "row_number" in cells else 1 + np.arange(cells.sizes["row"])
    order = np.argsort(number)
    cell_of_row = np.repeat(np.arange(cells.sizes["cell"]), cells["cell_multiplicity"].values)[order]  # (N,)
    tree, attrs = tree.isel(row=order), {"rows": TABLE_ORDER if "row_number" in cells else CANONICAL_ORDER}
    posterior, prior = (tree[name].to_dataset().astype("float64") for name in ("posterior", "prior"))
    rows = tree["constant_data"].to_dataset()
    at_stored, is_thinned = joint(posterior), STORED_DRAW in posterior.dims
    if is_thinned:
        posterior, attrs["rates"] = posterior.drop_vars(["lam", STORED_DRAW]), MANY_GROUPS
    sites = [name for name in posterior.data_vars if name in (*model.sites, "lam")]
    groups = {
        "posterior": posterior[sites],
        "derived": posterior.drop_vars(sites),
        **{name: tree[name].to_dataset() for name in ("sample_stats", "observed_data", "posterior_predictive")},
        "constant_data": _constant(rows),
        "prior": prior,
        **({"rates": at_stored[["lam"]]} if is_thinned else {}),
    }
    num_rows, num_draws = len(order), posterior.sizes["chain"] * posterior.sizes["draw"]
    with jax.enable_x64(True):  # also if the process uses float32
        groups["log_prior"] = _log_prior(model, posterior, values)
        groups["prior_predictive"] = _prior_predictive(model, prior, rows, seed=seed)
        has_all = num_rows * num_draws <= MOST_VALUES and not is_thinned
        if has_all:
            groups["log_likelihood"] = _log_likelihood(model.likelihood, posterior, cells, cell_of_row)
            groups["posterior_predictive"] = _posterior_predictive(model.likelihood, posterior, rows, seed=seed)
        elif "row" not in groups["posterior_predictive"].dims:
            groups["posterior_predictive"] = _thinned(model, at_stored, rows, seed=seed)
        if not has_all:
            attrs["log_likelihood"] = (
                f"log_likelihood is left out, and posterior_predictive is thinned: {num_rows} rows x {num_draws} draws "
                "are too many values"
            )
    dim = group_dim(group_column)
    coords = {"row": number[order], dim: ("row", cells["group"].values[rows["row_group"].values])}
    labelled = {name: _labelled(each, dim, coords) for name, each in groups.items() if each.data_vars}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **labelled})


def _by_row(tree: xr.DataTree) -> xr.DataTree:
    """The tree with every row of the table, in canonical order, if it has only the cells."""
    cells = tree["constant_data"].to_dataset()
    if "row_group" in cells:
        return tree
    num_rows = int(cells["cell_multiplicity"].sum())
    if num_rows > MOST_VALUES:
        raise RequestError(
            f"the table has {num_rows:,} rows; a tree by row has at most {MOST_VALUES:,}. Use the run's artifacts: "
            "posterior/posterior.nc has its draws, loo/pointwise.csv its cells."
        )
    cell = np.repeat(np.arange(cells.sizes["cell"]), cells["cell_multiplicity"].values)  # (N,)
    of_row = cells.isel(cell=cell).rename(cell="row")
    names = [name for name in ("group", "exposure", "x", "factor") if f"cell_{name}" in cells]
    rows = cells.assign({f"row_{name}": of_row[f"cell_{name}"].variable for name in names})
    observed = xr.Dataset({"y": of_row["cell_count"].variable})
    return tree.assign(constant_data=xr.DataTree(rows), observed_data=xr.DataTree(observed))


def _constant(rows: xr.Dataset) -> xr.Dataset:
    """The exposure of every row, and its row of the design matrix, `x` (row, effect), if there are covariates."""
    found = xr.Dataset({"exposure": ("row", rows["row_exposure"].values)})
    if "effect" not in rows.dims:
        return found
    return found.assign(x=(("row", "effect"), rows["row_x"].values)).assign_coords(effect=rows["effect"].values)


def group_dim(column: str) -> str:
    """The dimension of the groups: the name of their column, with a suffix if something else has that name.

    A slash, which no name in a tree may contain, becomes an underscore. An empty name becomes `group` and its suffix.
    """
    name = column.strip().replace("/", "_") or "group"
    return name + SUFFIX if name in TAKEN else name


def _log_prior(model: Model, posterior: xr.Dataset, values: PriorValues) -> xr.Dataset:
    """Log density of each top-level prior, (chain, draw); of rates their sum."""
    densities = log_priors(posterior, model, values)
    variables = {site: (("chain", "draw"), each) for site, each in densities.items()}
    return xr.Dataset(variables, coords=_draws(posterior))


def _log_likelihood(likelihood: Likelihood, posterior: xr.Dataset, cells: xr.Dataset, cell: np.ndarray) -> xr.Dataset:
    """`y` (chain, draw, row), computed once per cell; `cell` of every row, (N,)."""
    by_cell = np.concatenate(list(predictive.pointwise_log_likelihood(likelihood, posterior, cells)))
    by_row = np.take(np.moveaxis(by_cell, 0, 2), cell, axis=2)  # (chain, draw, row)
    return xr.Dataset({"y": (("chain", "draw", "row"), by_row)}, coords=_draws(posterior))


def _posterior_predictive(likelihood: Likelihood, posterior: xr.Dataset, rows: xr.Dataset, *, seed: int) -> xr.Dataset:
    """`y` (chain, draw, row) at every draw, chain by chain, which needs less memory."""
    rng = named_generator(seed, "posterior_predictive", 1)
    chains = (posterior.isel(chain=[chain]) for chain in range(posterior.sizes["chain"]))
    return xr.concat([predictive.replicated(likelihood, chain, rows, rng) for chain in chains], "chain")


def _thinned(model: Model, posterior: xr.Dataset, rows: xr.Dataset, *, seed: int) -> xr.Dataset:
    """`y` (chain, draw, row) at few draws of the posterior."""
    rng, num_draws = named_generator(seed, "posterior_predictive", 1), min(20, MOST_VALUES // rows.sizes["row"])
    return predictive.posterior_predictive(model, posterior, rows, num_draws=num_draws, rng=rng)


def _prior_predictive(model: Model, prior: xr.Dataset, rows: xr.Dataset, *, seed: int) -> xr.Dataset:
    """`y` (chain, draw, row) at the draws of the prior, or at fewer for large tables."""
    sites = {site.name: prior[site.name].values for site in model.likelihood.sites}
    derived = {name: (("chain", "draw"), np.asarray(x)) for name, x in model.likelihood.derived(sites).items()}
    rng = named_generator(seed, "prior_predictive", 1)
    return predictive.posterior_predictive(model, prior.assign(derived), rows, num_draws=prior.sizes["draw"], rng=rng)


def _draws(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    return {name: dataset[name].values for name in ("chain", "draw")}


def _labelled(dataset: xr.Dataset, dim: str, coords: dict) -> xr.Dataset:
    """In float64, with the groups along `dim` or with the number and the group of every row."""
    dataset = dataset.map(lambda x: x.astype("float64", copy=False) if x.dtype.kind == "f" else x)
    if "row" in dataset.dims:
        return dataset.assign_coords(coords)
    if any("group" in each.dims for each in dataset.data_vars.values()):
        return dataset.rename(group=dim)
    return dataset.drop_vars("group", errors="ignore")
