"""Plain ArviZ calls on a loaded tree: every number is that of the run, every row is that of the table."""

import functools
from dataclasses import dataclass, replace

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from poolwise.checks.base import FitView, Settings
from poolwise.checks.findings import examine
from poolwise.checks.summary import HIGH, LOW, relative_efficiency
from poolwise.counts.cells import read_counts
from poolwise.errors import RequestError
from poolwise.inference.engines.base import Fit
from poolwise.model.priors import prior_values
from poolwise.runs import arviz_tree
from support import ONE_DEVICE, PRIORS, ROOT, SAMPLER, model_of

pytestmark = pytest.mark.fit

COOKIES = [
    ("hierarchical", "negative_binomial"),
    ("hierarchical", "poisson"),
    ("unpooled", "poisson"),
    ("pooled", "negative_binomial"),
]
WARDS = "wards"  # a table with exposures, labels that need quotes, rows in no order and blank lines
CASES = [*("-".join(variant) for variant in COOKIES), WARDS]
TABLE = """ward name,falls,hours
"Åse, north",1,0.5
b 2,6,2

"Åse, north",4,1
7,0,1.25
b 2,3,1
7,2,2
"Åse, north",1,0.5

b 2,6,2
7,5,4
"Åse, north",9,4
"""


@dataclass(frozen=True)
class Loaded:
    """The findings of a fit and its tree, with the label and the count of every row of the file."""

    view: FitView
    tree: xr.DataTree
    dim: str
    labels: list[str]
    y: list[int]

    @property
    def reff(self) -> float:
        """Effective draws per draw, as the run counts them."""
        return relative_efficiency(self.view.summary, num_draws=self.view.posterior["draw"].size * 4)

    def by_row(self, **by_cell: np.ndarray) -> pd.DataFrame:
        """Values by cell, (C,), for every row of the file."""
        cells, exposure = self.view.cells, self.tree["constant_data"]["exposure"].values
        label = cells["group"].values[cells["cell_group"].values]
        known = pd.DataFrame({"label": label, "y": cells["cell_count"], "exposure": cells["cell_exposure"], **by_cell})
        rows = pd.DataFrame({"label": self.labels, "y": self.y, "exposure": exposure})
        return rows.merge(known, how="left")  # in the order of `rows`

    def rate_of_rows(self, group: str) -> xr.DataArray:
        """Exposure times the rate of the group of every row, under the draws of the posterior or the prior."""
        exposure, lam = self.tree["constant_data"]["exposure"], self.tree[group]["lam"]
        lam = lam.sel({self.dim: exposure[self.dim]}) if self.dim in lam.dims else lam
        return (exposure * lam).transpose("chain", "draw", "row")


def loaded(counts, pooling: str, likelihood: str, draws: Fit, dim: str, rows: pd.DataFrame) -> Loaded:
    model = model_of(pooling, likelihood)
    values = prior_values(PRIORS, sites=tuple(site for site, _ in model.families))
    settings = Settings(seed=3, sampler=SAMPLER, device=ONE_DEVICE, checks=frozenset({"sensitivity"}), num_draws=200)
    view = examine(model, counts, values, draws, settings)
    tree = arviz_tree.to_arviz(view.tree, model=model, values=values, group_column=dim, seed=3)
    return Loaded(view, tree, dim, list(rows.iloc[:, 0]), list(rows.iloc[:, 1]))


@pytest.fixture(scope="module")
def of(fit_of, cookies, tmp_path_factory):
    """`of(case)`: the cookies with every fourth draw of a shared fit, or the wards with exact conjugate draws."""

    def make(case: str) -> Loaded:
        if case == WARDS:
            path = tmp_path_factory.mktemp("wards") / "wards.csv"
            path.write_text(TABLE, encoding="utf-8")
            counts = read_counts(path, group="ward name", count="falls", exposure="hours")
            rows = pd.read_csv(path, dtype={"ward name": str})
            return loaded(counts, "unpooled", "poisson", conjugate(counts), "ward name", rows)
        pooling, likelihood = case.split("-")
        whole = fit_of(pooling, likelihood)
        draws = Fit(*({k: v[:, ::4] for k, v in each.items()} for each in (whole.posterior, whole.sample_stats)))
        rows = pd.read_csv(ROOT / "data/cookies.csv", dtype={"location": str})[["location", "chips"]]
        return loaded(cookies, pooling, likelihood, draws, "location", rows)

    return functools.cache(make)


def conjugate(counts) -> Fit:
    """Independent draws of Gamma(a + total, b + exposure), the posterior of unpooled Poisson rates."""
    prior, rng = PRIORS["lam"], np.random.default_rng(5)
    group, exposure, count = counts.rows()
    shape = prior["concentration"] + np.bincount(group, count)
    rate = prior["rate"] + np.bincount(group, exposure)
    lam = rng.gamma(shape, 1 / rate, (4, 1000, counts.num_groups))
    energy = rng.normal(size=(4, 1000))
    return Fit({"lam": lam}, {"energy": energy, "diverging": np.zeros((4, 1000), bool), "tree_depth": energy > 9})


@pytest.mark.parametrize("case", CASES)
def test_rows_are_in_the_order_of_the_file(of, case):
    found = of(case)
    for group in ("observed_data", "log_likelihood", "posterior_predictive", "prior_predictive", "constant_data"):
        data = found.tree[group].to_dataset()
        assert list(data["row"].values) == list(range(1, len(found.y) + 1))
        assert list(data[found.dim].values) == found.labels
    assert list(found.tree["observed_data"]["y"].values) == found.y


@pytest.mark.parametrize("case", CASES)
def test_every_group_has_the_draws_of_the_posterior_in_float64(of, case):
    tree = of(case).tree
    for group in ("log_likelihood", "posterior_predictive", "log_prior", "sample_stats"):
        assert tree[group]["draw"].equals(tree["posterior"]["draw"])
    floats = {x.dtype for node in tree.subtree for x in node.data_vars.values() if x.dtype.kind == "f"}
    assert floats == {np.dtype("float64")}


@pytest.mark.parametrize("case", CASES)
def test_log_likelihood_and_predictions_are_those_of_each_row(of, case):
    found = of(case)
    tree, rate = found.tree, found.rate_of_rows("posterior").values
    phi = tree["derived"]["phi"].values[..., None] if "delta" in tree["posterior"] else np.inf
    law = stats.poisson(rate) if np.all(np.isinf(phi)) else stats.nbinom(phi, phi / (phi + rate))
    off = tree["log_likelihood"]["y"].values - law.logpmf(found.y)
    assert np.median(np.abs(off)) < 1e-12
    assert np.abs(off).max() < 1e-5  # SciPy's own loss for a concentration that is large
    simulated = tree["posterior_predictive"]["y"].values
    error = law.std().mean(axis=(0, 1)) / np.sqrt(rate[..., 0].size)
    assert np.all(np.abs(simulated.mean(axis=(0, 1)) - rate.mean(axis=(0, 1))) < 5 * error)


@pytest.mark.parametrize("case", CASES)
def test_prior_predictions_are_of_every_row(of, case):
    found = of(case)
    y = found.tree["prior_predictive"]["y"]
    assert y.sizes == {"chain": 1, "draw": 200, "row": len(found.y)}
    assert (y / found.rate_of_rows("prior")).median() == pytest.approx(1, abs=0.1)
    alike = [
        row for row, seen in enumerate(zip(found.labels, found.y, strict=True)) if seen == (found.labels[0], found.y[0])
    ]
    assert len(alike) > 1  # rows of one cell
    assert not np.array_equal(y[..., alike[0]], y[..., alike[1]])


@pytest.mark.parametrize("case", CASES)
def test_summary_of_arviz_is_that_of_the_run(of, case):
    found = of(case)
    table = az.summary(found.tree, ci_prob=0.94, ci_kind="hdi", round_to="none")
    theirs = table.set_index(table.index.str.replace("[", ".", regex=False).str.removesuffix("]"))
    names = {"mean": "mean", "sd": "sd", LOW: "hdi94_lb", HIGH: "hdi94_ub", "ess_bulk": "ess_bulk", "r_hat": "r_hat"}
    ours = found.view.summary.drop(["alpha", "beta", "phi"], errors="ignore")
    assert set(theirs.index) == set(ours.index)
    for our, their in names.items():
        np.testing.assert_allclose(theirs[their].astype(float)[ours.index], ours[our], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_loo_of_arviz_is_that_of_the_run(of, case):
    found = of(case)
    psis = found.view.loo.psis or found.view.loo
    plain, alike = az.loo(found.tree), az.loo(found.tree, pointwise=True, reff=found.reff)
    assert alike.elpd == pytest.approx(psis.elpd, abs=1e-8)
    assert (alike.se, alike.p) == pytest.approx((psis.se, psis.p_loo), abs=1e-8)
    assert abs(plain.elpd - psis.elpd) < psis.mcse  # ArviZ has another mean ESS
    expected = found.by_row(elpd=psis.cell_elpd, k=psis.pareto_k)
    np.testing.assert_allclose(alike.elpd_i, expected["elpd"], atol=1e-8)
    np.testing.assert_allclose(alike.pareto_k, expected["k"], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_loo_pit_of_arviz_lies_between_the_probabilities_of_the_run(of, case):
    found = of(case)
    view = found.view
    expected = found.by_row(below=view.cell_below, at_most=view.cell_below + np.exp(view.loo.cell_elpd))
    pit = az.loo_pit(found.tree)["y"].values
    error = 0.5 / np.sqrt(view.summary["ess_bulk"].min())  # of a probability, at most
    assert np.all(pit > expected["below"] - 5 * error)
    assert np.all(pit < expected["at_most"] + 5 * error)


def test_compare_of_arviz_gives_the_differences_of_the_runs(of):
    first, second = of("hierarchical-negative_binomial"), of("pooled-negative_binomial")
    table = az.compare({"hier": first.tree, "pooled": second.tree}, round_to="none")
    rows = first.view.cells["cell_multiplicity"].values
    by_cell = second.view.loo.cell_elpd - first.view.loo.cell_elpd
    error = first.view.loo.mcse + second.view.loo.mcse
    assert list(table.index) == ["hier", "pooled"]
    assert table.loc["pooled", "elpd_diff"] == pytest.approx(rows @ by_cell, abs=error)
    spread = np.sqrt(rows.sum() * np.cov(by_cell, fweights=rows, ddof=0))
    assert table.loc["pooled", "dse"] == pytest.approx(spread, rel=0.01)


@pytest.mark.parametrize("case", CASES)
def test_power_scaling_of_arviz_is_that_of_the_run(of, case):
    found = of(case)
    ours = found.view.tables["sensitivity"]
    table = az.psense_summary(found.tree, alphas=(0.8, 1.25), round_to=9)
    theirs = table.set_index(table.index.str.replace("[", ".", regex=False).str.removesuffix("]")).loc[ours.index]
    np.testing.assert_allclose(theirs[["prior", "likelihood"]].astype(float), ours[["prior", "likelihood"]], atol=1e-6)


PLOTS = {
    "khat": lambda tree: az.plot_khat(az.loo(tree, pointwise=True), visuals={"hlines": True}),
    "loo_pit": az.plot_loo_pit,
    "prior_posterior": az.plot_prior_posterior,
    "psense_dist": az.plot_psense_dist,
    "pair": lambda tree: az.plot_pair(tree, var_names=[*tree["log_prior"].data_vars], visuals={"divergence": True}),
    "ppc_dist": lambda tree: az.plot_ppc_dist(tree, kind="ecdf"),
    "ppc_dist of the prior": lambda tree: az.plot_ppc_dist(tree, kind="ecdf", group="prior_predictive"),
    "ppc_rootogram": az.plot_ppc_rootogram,
    "ppc_tstat": lambda tree: az.plot_ppc_tstat(tree, t_stat="var"),
    "ppc_interval": az.plot_ppc_interval,
    "forest": az.plot_forest,
    "trace_dist": az.plot_trace_dist,
    "energy": az.plot_energy,
}


@pytest.fixture
def few(of):
    """`few(case)`: the tree with 50 draws a chain, for pictures."""

    def make(case: str) -> xr.DataTree:
        nodes = {name: node.to_dataset() for name, node in of(case).tree.children.items()}
        return xr.DataTree.from_dict(
            {name: each.isel(draw=slice(50), missing_dims="ignore") for name, each in nodes.items()}
        )

    return make


@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")  # of so few draws
@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize(
    "case", [CASES[0], WARDS, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[1:-1])]
)
def test_plots_of_arviz_are_drawn(few, case, name):
    if name == "psense_dist" and len(few(case)["posterior"].data_vars) == 1:
        pytest.skip("plot_psense_dist of arviz-plots 1.3 fails for every posterior with one variable")
    drawn = PLOTS[name](few(case)).get_viz("figure")
    assert drawn.axes
    plt.close(drawn)


@pytest.mark.parametrize(
    ("column", "dim"),
    [
        ("location", "location"),
        ("ward name", "ward name"),
        ("2023", "2023"),
        ("group", "group_label"),
        ("row", "row_label"),
        ("mu", "mu_label"),
        ("model", "model_label"),  # a dimension of plot_forest
        ("region/store", "region_store"),
        ("", "group_label"),
        (" ", "group_label"),
    ],
)
def test_the_dimension_of_groups_has_the_name_of_their_column(column, dim):
    assert arviz_tree.group_dim(column) == dim


@pytest.mark.parametrize("column", ["group", "row", "chain", "lam", "", "a/b"])
def test_a_column_whose_name_is_taken_makes_a_tree(of, column):
    found = of(WARDS)
    named = arviz_tree.to_arviz(
        found.view.tree, model=found.view.model, values=found.view.prior_values, group_column=column, seed=3
    )
    dim = arviz_tree.group_dim(column)
    assert named["posterior"]["lam"].dims == ("chain", "draw", dim)
    assert list(named["observed_data"][dim].values) == found.labels


def test_the_cells_of_a_large_table_are_expanded_to_rows(of, monkeypatch):
    found = of(WARDS)
    monkeypatch.setattr("poolwise.counts.cells.MOST_ROWS", 0)
    counts = replace(found.view.counts, row_number=found.view.counts.row_number[:0])
    rows = pd.DataFrame({"ward name": found.labels, "falls": found.y})
    large = loaded(counts, "unpooled", "poisson", conjugate(counts), "ward name", rows)
    stored = large.view.tree
    assert "row" not in (*stored["constant_data"].dims, *stored["posterior_predictive"].dims)
    assert sorted(large.tree["observed_data"]["y"].values) == sorted(found.y)
    assert large.tree.attrs == {"rows": arviz_tree.CANONICAL_ORDER}
    assert az.loo(large.tree).elpd == pytest.approx(az.loo(found.tree).elpd, abs=1e-9)

    def limited(most: int) -> xr.DataTree:
        monkeypatch.setattr(arviz_tree, "MOST_VALUES", most)
        given = {"model": large.view.model, "values": large.view.prior_values}
        return arviz_tree.to_arviz(stored, group_column="ward name", seed=3, **given)

    assert limited(len(found.y))["posterior_predictive"].sizes["row"] == len(found.y)  # thinned
    with pytest.raises(RequestError, match=r"the table has 10 rows; a tree by row has at most 9"):
        limited(len(found.y) - 1)


def test_an_unlabelled_tree_of_an_earlier_version_is_sorted_and_says_so(of):
    found = of(WARDS)
    earlier = found.view.tree.copy()
    earlier["constant_data"] = xr.DataTree(found.view.cells.drop_vars("row_number"))
    tree = arviz_tree.to_arviz(
        earlier, model=found.view.model, values=found.view.prior_values, group_column="ward name", seed=3
    )
    assert list(tree["observed_data"]["ward name"].values) == sorted(found.labels)
    assert tree.attrs == {"rows": arviz_tree.CANONICAL_ORDER}
    assert az.loo(tree).elpd == pytest.approx(az.loo(found.tree).elpd, abs=1e-9)
