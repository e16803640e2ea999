"""Small fits for the tests of figures: draws, data and all else that a picture is drawn from."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.checks import groups, leave_group_out
from poolwise.checks.base import FitView, Result
from poolwise.checks.gate import Verdict
from poolwise.checks.group_contrasts import group_rates
from poolwise.checks.leave_group_out import GroupsOut
from poolwise.checks.loo import Loo
from poolwise.counts.cells import Columns, Counts, counts_from_rows
from poolwise.figures.base import Picture
from poolwise.figures.registry import draw
from poolwise.figures.style import png
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
    tree["prior_predictive_cells"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "cell"), y)}))
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


def make_count_table(mean=9.0, *, rows=40, step=1) -> pd.DataFrame:
    """A geometric distribution of counts, every `step`-th in the table."""
    count = step * np.arange(rows)
    cumulative = 1 - (mean / (mean + 1)) ** (count + 1)
    return pd.DataFrame({"count": count, "probability": np.diff(cumulative, prepend=0), "cumulative": cumulative})


def make_new_group(*, rate=9.0, is_informed_by_data=True, exposure=1.0, label=None) -> NewGroup:
    """A new group, or a named one, with a geometric count of this mean."""
    table = make_count_table(rate, rows=int(12 * rate) + 2)
    draws = np.random.default_rng(2).gamma(9.0, rate / 9.0, 800)
    return NewGroup(draws, exposure, rate, rate, table, is_informed_by_data, label=label)


def view_of(tree: xr.DataTree, counts: Counts | None = None, **given: Any) -> FitView:
    """A judged fit of a tree; `given` replaces parts of it, by the names of `FitView`, of `Loo` and of tables."""
    cells, size = tree["constant_data"].to_dataset(), tree["constant_data"].sizes["cell"]
    labels = [str(label) for label in cells["group"].values]
    pooling = "pooled" if "group" not in tree["posterior"]["lam"].dims else "unpooled"
    pooling = "hierarchical" if "mu" in tree["posterior"] else pooling
    summary = given.get("summary", make_summary(tree))
    parameters = [name for name in summary.index if name != "alpha"]
    sensitivity = pd.DataFrame(
        {"prior": 0.02, "likelihood": np.linspace(0.06, 0.4, len(parameters)), "diagnosis": "-"},
        index=pd.Index(parameters, name="parameter"),
    )
    left_out = given.get("left_out", make_groups_out(labels))
    elpd = given.get("cell_elpd", np.full(size, np.log(0.1)))
    k = given.get("pareto_k", np.full(size, 0.1))
    counts, rates = counts or counts_of(cells), group_rates(tree["posterior"].to_dataset(), cells)
    view = FitView(
        counts=counts,
        model=model_of(pooling, "poisson"),
        prior_values=prior_values(PRIORS, sites=sites_of(pooling, "poisson")),
        tree=tree,
        summary=summary,
        loo=Loo(elpd=-1.0, se=1.0, p_loo=1.0, mcse=0.01, cell_elpd=elpd, pareto_k=k, k_threshold=THRESHOLD, bad_rows=0),
        verdict=Verdict((), 1.0, 800.0, 800.0, {}, "0 divergences", float(k.max()), 0),
        new_group=given.get("new_group", make_new_group(is_informed_by_data=pooling != "unpooled")),
        results={
            "power_scaling": Result(tables={"sensitivity": given.get("sensitivity", sensitivity)}),
            "leave_group_out": leave_group_out.result(left_out),
            "groups": Result() if rates is None else groups.result(rates, counts.columns.group),
        },
    )
    vars(view)["cell_below"] = given.get("cell_below", np.linspace(0, 0.9, size))  # in place of what it computes once
    return view


def make_groups_out(labels, elpd=None, mcse=0.05, **changes) -> GroupsOut:
    """Groups left out, the later the less expected, of which nothing is in doubt."""
    size = len(labels)
    found = GroupsOut(
        labels=tuple(labels),
        elpd=-30.0 - np.arange(size) if elpd is None else np.asarray(elpd),
        mcse=np.broadcast_to(mcse, size),
        pareto_k=np.zeros(size),
        r_hat=np.ones(size),
        ess=np.full(size, 5000.0),
        divergences=np.zeros(size, int),
        num_chains=CHAINS,
        k_threshold=THRESHOLD,
    )
    return replace(found, **changes)


def counts_of(cells: xr.Dataset) -> Counts:
    """The table whose cells these are."""
    group, exposure, count = (
        np.repeat(cells[f"cell_{name}"].values, cells["cell_multiplicity"].values)
        for name in ("group", "exposure", "count")
    )
    return counts_from_rows(cells["group"].values.astype(object)[group], count, exposure)


def picture(name: str, tree: xr.DataTree, counts: Counts | None = None, **given: Any) -> Picture:
    """One figure of a tree, with other parts of the fit where they are given."""
    [(drawn, result)] = draw([name], view_of(tree, counts, **given))
    assert drawn == name
    return result


def texts(result: Picture) -> list[str]:
    """Everything written in the picture, once laid out."""
    png(result.figure)
    labels = [tick.get_text() for axes in result.figure.axes for tick in axes.get_yticklabels()]
    notes = [note.get_text() for axes in result.figure.axes for note in axes.texts]
    return labels + notes + [axes.get_title() for axes in result.figure.axes]


def inside_counted(tree: xr.DataTree) -> tuple[int, int]:
    """At how many counts the observed ECDF is inside its band, and of how many: one count at a time."""
    simulated = tree["posterior_predictive"]["y"].values.reshape(-1, tree["observed_data"].sizes["row"])
    observed = tree["observed_data"]["y"].values
    top = int(max(observed.max(), np.quantile(simulated, 0.995, method="inverted_cdf")))
    inside = 0
    for count in range(top + 1):
        low, high = np.quantile((simulated <= count).mean(axis=1), [0.03, 0.97])
        inside += bool(low <= np.mean(observed <= count) <= high)
    return inside, top + 1
