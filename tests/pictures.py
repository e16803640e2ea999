"""Small fits for the tests of figures: draws, data and all else that a picture is drawn from."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.counts.cells import Columns, Counts, counts_from_rows
from poolwise.figures import Picture, draw, png
from poolwise.inference.datatree import to_tree
from poolwise.inference.predictive import NewGroup
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, model_of

CHAINS, DRAWS = 4, 200
THRESHOLD = 0.7
HARD_LABELS = ["Zürich, Süd", "a$b$_{c}", r"$\oops{$", "東京", "x" * 300, "<script>", "two\nlines", "مدينة"]


def make_counts(labels=("a", "b", "c"), *, rows=10, counts=None, exposure=None, columns=None) -> Counts:
    """The table of `make_tree`."""
    counts = np.random.default_rng(0).poisson(9.0, len(labels) * rows) if counts is None else np.asarray(counts)
    exposures = None if exposure is None else np.full(len(counts), exposure)
    given = {} if columns is None else {"columns": Columns(*columns)}
    return counts_from_rows(np.repeat(list(labels), rows), counts, exposures, **given)


def make_tree(labels=("a", "b", "c"), *, pooling="hierarchical", chains=CHAINS, **table) -> xr.DataTree:
    """A tree as a run leaves it, with draws from the posterior of every group by itself."""
    rng = np.random.default_rng(0)
    counts = make_counts(labels, **table)
    group, size, count = counts.rows()
    shape = (chains, DRAWS)
    lam = rng.gamma(np.bincount(group, count) + 2.0, 1 / (np.bincount(group, size) + 0.2), (*shape, counts.num_groups))
    posterior = {"lam": lam if pooling != "pooled" else lam.mean(axis=2)}
    prior = {"lam": rng.gamma(2.0, 5.0, (1, 500, counts.num_groups) if pooling != "pooled" else (1, 500))}
    if pooling == "hierarchical":
        posterior |= {"mu": rng.normal(9, 0.5, shape), "sigma": rng.gamma(9.0, 0.2, shape)}
        posterior["alpha"] = posterior["mu"] ** 2 / posterior["sigma"] ** 2
        prior |= {"mu": rng.gamma(2.0, 5.0, (1, 500)), "sigma": rng.exponential(1.0, (1, 500))}
    tree = to_tree(posterior, {"energy": rng.gamma(3.0, 1.0, shape)}, counts)
    rate = lam[:, ::2, group] if pooling != "pooled" else posterior["lam"][:, ::2, None]
    y = rng.poisson(rate * size)
    tree["posterior_predictive"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "row"), y)}))
    dims = ("chain", "draw", "group")
    given = {name: (dims[: values.ndim], values) for name, values in prior.items()}
    tree["prior"] = xr.DataTree(xr.Dataset(given, coords={"group": tree["posterior"]["group"].values}))
    mean = prior["lam"][..., counts.cell_group] if pooling != "pooled" else prior["lam"][..., None]
    y = rng.poisson(mean * counts.cell_exposure)
    tree["prior_predictive"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "cell"), y)}))
    return tree


def make_summary(tree: xr.DataTree) -> pd.DataFrame:
    flat = {}
    for name, values in tree["posterior"].to_dataset().items():
        if "group" in values.dims:
            flat |= {f"{name}.{label}": values.sel(group=label).values for label in values["group"].values}
        else:
            flat[name] = values.values
    draws = pd.DataFrame({name: values.ravel() for name, values in flat.items()})
    low, high = draws.quantile(0.03), draws.quantile(0.97)
    table = pd.DataFrame({"mean": draws.mean(), "hdi_3%": low, "hdi_97%": high})
    return table.assign(ess_bulk=len(draws), ess_tail=len(draws), r_hat=1.0)


def make_new_group(*, rate=9.0, learnt=True, exposure=1.0, label=None) -> NewGroup:
    """A new group, or a named one, with a geometric count of this mean."""
    count = np.arange(int(12 * rate) + 2)
    table = pd.DataFrame({"count": count, "probability": (rate / (1 + rate)) ** count / (1 + rate)})
    table["cumulative"] = table["probability"].cumsum()
    draws = np.random.default_rng(2).gamma(9.0, rate / 9.0, 800)
    return NewGroup(draws, exposure, rate, rate, table, learnt, label=label)


def inputs(tree: xr.DataTree, counts: Counts | None = None) -> dict[str, Any]:
    """All that `draw` can be given, of a tree."""
    cells = tree["constant_data"].to_dataset()
    labels, size = [str(label) for label in cells["group"].values], cells.sizes["cell"]
    pooling = "pooled" if "group" not in tree["posterior"]["lam"].dims else "unpooled"
    pooling = "hierarchical" if "mu" in tree["posterior"] else pooling
    summary = make_summary(tree)
    parameters = [name for name in summary.index if name != "alpha"]
    group, exposure, count = (
        np.repeat(cells[f"cell_{name}"].values, cells["cell_multiplicity"].values)
        for name in ("group", "exposure", "count")
    )
    counts = counts or counts_from_rows(np.array(labels, object)[group], count, exposure)
    return {
        "summary": summary,
        "pareto_k": np.full(size, 0.1),
        "k_threshold": THRESHOLD,
        "counts": counts,
        "model": model_of(pooling, "poisson"),
        "values": prior_values(PRIORS, sites=sites_of(pooling, "poisson")),
        "cell_elpd": np.full(size, np.log(0.1)),
        "cell_below": np.linspace(0, 0.9, size),
        "new_group": make_new_group(learnt=pooling != "unpooled"),
        "sensitivity": pd.DataFrame(
            {"parameter": parameters, "prior": 0.02, "likelihood": np.linspace(0.06, 0.4, len(parameters))}
        ).assign(diagnosis="-"),
        "leave_group_out": pd.DataFrame({"group": labels, "elpd": -30.0 - np.arange(len(labels)), "mcse": 0.05}),
    }


def picture(name: str, tree: xr.DataTree, counts: Counts | None = None, **given) -> Picture:
    """One figure of a tree, with other inputs where they are given."""
    [(drawn, result)] = draw([name], tree, **inputs(tree, counts) | given)
    assert drawn == name
    return result


def texts(result: Picture) -> list[str]:
    """Everything written in the picture, once laid out."""
    png(result.figure)
    labels = [tick.get_text() for axes in result.figure.axes for tick in axes.get_yticklabels()]
    notes = [note.get_text() for axes in result.figure.axes for note in axes.texts]
    return labels + notes + [axes.get_title() for axes in result.figure.axes]
