"""Tables by count have the distribution of tables by row."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from poolwise.counts.cells import counts_from_rows
from poolwise.inference import tables
from poolwise.inference.datatree import to_tree
from poolwise.inference.tables import Tables, observed_table, simulate_by_count, simulated_tables
from poolwise.model.likelihoods import LIKELIHOODS

SITES = {"delta": 0.4, "phi": 6.25, "zi": 0.3, "hurdle": 0.3, "xi": -0.3}
PARAMS = {name: {site: SITES[site] for site in each.parameters} for name, each in LIKELIHOODS.items()}


def cells_of(rows, *, group=(0, 1), exposure=(1.0, 2.0)) -> xr.Dataset:
    found = {"group": group, "exposure": exposure, "multiplicity": rows, "count": np.zeros(len(rows), int)}
    return xr.Dataset({f"cell_{name}": ("cell", np.asarray(each)) for name, each in found.items()})


def simulated(likelihood, rows, *, lam=(3.0, 8.0), draws=2000, **cells) -> xr.Dataset:
    params = {name: np.full((1, draws), value) for name, value in PARAMS[likelihood].items()}
    rates = np.broadcast_to(np.array(lam)[:, None, None], (len(lam), 1, draws))
    rng = np.random.default_rng(0)
    return simulate_by_count(LIKELIHOODS[likelihood], rates, params, cells_of(rows, **cells), rng)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_simulated_table_by_count_has_the_moments_of_its_rows(likelihood):
    found = simulated(likelihood, [500, 300])
    params = {name: np.array(value) for name, value in PARAMS[likelihood].items()}
    for g, (rate, num_rows) in enumerate([(3.0, 500), (16.0, 300)]):
        y, rows = (found[name].values[0][:, found["entry_group"].values == g] for name in ("y", "rows"))
        assert np.all(rows.sum(axis=1) == num_rows)
        total = (y * rows).sum(axis=1)
        one = LIKELIHOODS[likelihood].sample(np.full(200_000, rate), params, np.random.default_rng(1))
        se = np.sqrt(num_rows * one.var() / len(total))
        assert abs(total.mean() - num_rows * one.mean()) < 4 * se + 4 * num_rows * one.std() / np.sqrt(len(one))
        assert total.var() == pytest.approx(num_rows * one.var(), rel=4 * np.sqrt(2 / len(total)) + 0.02)


def test_the_largest_count_has_its_distribution():
    found = simulated("poisson", [10_000], lam=(3.0,), group=(0,), exposure=(1.0,))
    table = Tables(found["y"].values[0], np.zeros(found.sizes["entry"]), np.ones(1), found["rows"].values[0])
    at = np.arange(10, 15)
    expected = stats.poisson.cdf(at, 3.0) ** 10_000
    observed = [(table.seen.max(axis=1) <= k).mean() for k in at]
    np.testing.assert_allclose(observed, expected, atol=4 * 0.5 / np.sqrt(2000))


def test_a_stratum_of_few_rows_or_of_many_counts_is_simulated_by_row():
    found = simulated(
        "poisson", [tables.FEW_ROWS - 1, 60, 500], lam=(3.0, 1e6, 3.0), group=(0, 1, 2), exposure=(1.0,) * 3
    )
    entries = np.bincount(found["entry_group"].values)
    assert list(entries[:2]) == [tables.FEW_ROWS - 1, 60]
    assert entries[2] < 60


def test_a_distribution_function_that_rounding_keeps_from_one_has_an_end():
    class Rounded(type(LIKELIHOODS["poisson"])):
        def below(self, count, rate, params):
            return np.minimum(super().below(count, rate, params), 1 - 1e-9)

    assert tables._range(Rounded(), np.array([[[3.0]]]), {})[1] < 60


def test_one_rate_serves_all_groups():
    found = simulated("poisson", [100, 200], lam=(3.0,))
    assert sorted(set(found["entry_group"].values)) == [0, 1]
    assert found["rows"].sum("entry").values.tolist() == [[300] * 2000]


@pytest.mark.parametrize("is_by_row", [True, False])
def test_a_tree_gives_its_tables(monkeypatch, is_by_row):
    if not is_by_row:
        monkeypatch.setattr("poolwise.counts.cells.MOST_ROWS", 0)
    counts = counts_from_rows([*"aab"], [1, 1, 4])
    tree = to_tree({"lam": np.ones((1, 1, 2))}, {"energy": np.ones((1, 1))}, counts)
    if is_by_row:
        simulated = xr.Dataset({"y": (("chain", "draw", "row"), [[[1, 2, 3]]])})
    else:
        of_entry = {"entry_group": ("entry", [0, 0, 1]), "entry_exposure": ("entry", np.ones(3))}
        y, rows = ((("chain", "draw", "entry"), [[each]]) for each in ([0, 1, 4], [1, 1, 1]))
        simulated = xr.Dataset({"y": y, "rows": rows} | of_entry)
    tree["posterior_predictive"] = xr.DataTree(simulated)
    assert ("row" in tree["constant_data"].dims) == is_by_row
    assert (observed_table(tree).num_rows, simulated_tables(tree).num_rows) == (3, 3)
    assert simulated_tables(tree).of_group(1).count.tolist() == [[3 if is_by_row else 4]]
