"""Weights of a mixture: ArviZ as called by its manual, and the formulas on cells."""

import numpy as np
import pytest
import xarray as xr
from arviz_stats.loo import compare as arviz_compare
from arviz_stats.utils import ELPDDataLOO

from candidates import MULTIPLICITY, noisy
from poolwise.comparison import weights as module
from poolwise.comparison.weights import weights


def sorted_noisy(num_models: int, seed: int = 0) -> np.ndarray:
    values = noisy(num_models, seed=seed)
    return values[:, np.argsort(-(MULTIPLICITY @ values))]


def arviz_of(values: np.ndarray, multiplicity: np.ndarray, method: str) -> np.ndarray:
    """A second route: what ArviZ says of the rows, called as its manual shows."""
    rows = np.repeat(values, multiplicity, axis=0)
    results = {
        str(k): ELPDDataLOO(
            elpd=each.sum(),
            se=np.sqrt(len(each) * each.var(ddof=1)),
            p=2.0,
            n_samples=1000,
            n_data_points=len(each),
            scale="log",
            warning=False,
            good_k=0.7,
            elpd_i=xr.DataArray(each, dims="row"),
        )
        for k, each in enumerate(rows.T)
    }
    found = arviz_compare(results, method=method, round_to="none")["weight"]
    return found.loc[[str(k) for k in range(values.shape[1])]].to_numpy()


@pytest.fixture(params=["rows", "cells"])
def route(request, monkeypatch) -> str:
    """The weights by ArviZ on rows, and by the same formulas on cells."""
    if request.param == "cells":
        monkeypatch.setattr(module, "MOST_ROWS", 0)
        monkeypatch.setattr(module, "arviz_compare", None)  # not even to be called
    else:
        monkeypatch.setattr(module, "_by_cells", None)
    return request.param


@pytest.mark.parametrize("seed", range(5))
def test_stacking_weights_equal_those_of_arviz(route, seed):
    values = sorted_noisy(5, seed)
    np.testing.assert_allclose(weights(values, MULTIPLICITY)[0], arviz_of(values, MULTIPLICITY, "stacking"), atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_bma_plus_weights_equal_those_of_arviz(route, seed):
    values = sorted_noisy(5, seed)
    expected = arviz_of(values, MULTIPLICITY, "BB-pseudo-BMA")
    # the bootstrap of cells draws sums of the weights of rows: other draws, each weight with an sd of at most 0.5
    tolerance = 1e-8 if route == "rows" else 4 * 0.5 * np.sqrt(2 / module.NUM_BOOTSTRAPS)
    np.testing.assert_allclose(weights(values, MULTIPLICITY)[1], expected, atol=tolerance)


def test_pseudo_bma_plus_of_cells_is_that_of_two_rows_by_quadrature(monkeypatch):
    # two models, cells of 2 and 3 rows; the share w of the first cell is Beta(2, 3), elpd = 5 (w a + (1 - w) b)
    monkeypatch.setattr(module, "MOST_ROWS", 0)
    values, multiplicity = np.array([[-1.0, -1.5], [-2.0, -1.8]]), np.array([2, 3])
    share = (np.arange(100_000) + 0.5) / 100_000
    density = 12 * share * (1 - share) ** 2  # Beta(2, 3)
    apart = 5 * (share * 0.5 + (1 - share) * -0.2)
    expected = np.mean(density / (1 + np.exp(-apart)))
    assert weights(values, multiplicity)[1][0] == pytest.approx(expected, abs=4 * 0.2 / np.sqrt(module.NUM_BOOTSTRAPS))


def test_blocks_of_the_bootstrap_change_nothing(monkeypatch):
    values = sorted_noisy(3)
    whole = module._pseudo_bma_plus(values, MULTIPLICITY)
    monkeypatch.setattr(module, "BLOCK", 7 * len(values))
    np.testing.assert_allclose(module._pseudo_bma_plus(values, MULTIPLICITY), whole, rtol=1e-12)


def test_large_tables_are_weighted_by_cells(monkeypatch):
    monkeypatch.setattr(module, "_by_rows", None)
    assert weights(sorted_noisy(2), MULTIPLICITY * 10**6)[0].sum() == pytest.approx(1.0)


def test_a_row_that_a_model_holds_for_impossible_leaves_the_weights_finite(route):
    values = noisy(3)
    values[0, 1:] = -900.0  # exp(-900) is 0
    values[1] = -800.0
    found = weights(values, MULTIPLICITY)
    assert np.isfinite(found).all()
    assert [each.sum() for each in found] == pytest.approx([1.0, 1.0])
    assert found[0][0] > 0.1  # without it the mixture holds that row for impossible too
