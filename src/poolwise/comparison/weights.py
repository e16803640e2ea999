"""Weights of models in a mixture, by stacking and by pseudo-BMA+.

ArviZ computes both from the rows. If there are too many, the same formulas are applied to the cells. The Bayesian
bootstrap draws Dirichlet(1, ..., 1) weights of the rows; their sums over cells are Dirichlet(m_1, ..., m_C).

References
----------
Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13(3), doi:10.1214/17-BA1091.
"""

import warnings
from itertools import batched

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.loo import compare as arviz_compare
from arviz_stats.utils import ELPDDataLOO
from scipy.optimize import Bounds, LinearConstraint, minimize

MOST_ROWS = 20_000  # above it the cells are used: ArviZ keeps 1000 bootstrap weights of every row, here 160 MB
LEAST = -700.0  # its exp is near the smallest normal number: a row that is impossible under a model
NUM_BOOTSTRAPS, SEED = 1000, 124  # as in ArviZ
BLOCK = 10_000_000  # values of the bootstrap in memory at a time


def weights(values: np.ndarray, multiplicity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stacking and pseudo-BMA+ weights, (K,) each.

    Parameters
    ----------
    values : (C, K), elpd of a row of each cell by model, the highest elpd first
    multiplicity : (C,), rows of each cell
    """
    return (_by_rows if multiplicity.sum() <= MOST_ROWS else _by_cells)(values, multiplicity)


def _by_rows(values: np.ndarray, multiplicity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(values, multiplicity.astype(int), axis=0)  # (N, K)
    return _arviz(_relative(rows), "stacking"), _arviz(rows, "BB-pseudo-BMA")


def _arviz(rows: np.ndarray, method: str) -> np.ndarray:
    names = [str(k) for k in range(rows.shape[1])]
    results = {
        name: ELPDDataLOO(
            elpd=float(column.sum()),
            se=float("nan"),  # not used by these methods
            p=float("nan"),
            n_samples=0,
            n_data_points=len(rows),
            scale="log",
            warning=False,
            good_k=float("nan"),
            elpd_i=xr.DataArray(column, dims="row"),
        )
        for name, column in zip(names, rows.T, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about many candidates: see `wording`
        found: pd.DataFrame = arviz_compare(results, method=method, round_to="none")
    return found["weight"].loc[names].to_numpy(float)


def _by_cells(values: np.ndarray, multiplicity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _stacking(values, multiplicity), _pseudo_bma_plus(values, multiplicity)


def _stacking(values: np.ndarray, multiplicity: np.ndarray) -> np.ndarray:
    """Weights of the mixture with the highest log score; set up as in ArviZ, so the optimiser takes the same steps."""
    density, num_models = np.exp(_relative(values)), values.shape[1]  # (C, K)
    found = minimize(
        fun=lambda weights: -(multiplicity @ np.log(density @ weights)),
        jac=lambda weights: -(multiplicity @ (density / (density @ weights)[:, None])),
        x0=np.full(num_models, 1 / num_models),
        bounds=Bounds(lb=np.zeros(num_models), ub=np.ones(num_models)),
        constraints=LinearConstraint(np.ones(num_models), lb=1.0, ub=1.0),
    )
    return found["x"]


def _pseudo_bma_plus(values: np.ndarray, multiplicity: np.ndarray) -> np.ndarray:
    """Mean of softmax(elpd) over the Bayesian bootstrap."""
    rng, most = np.random.default_rng(SEED), max(1, BLOCK // len(values))
    drawn = (rng.dirichlet(multiplicity, len(block)) for block in batched(range(NUM_BOOTSTRAPS), most))
    elpd = multiplicity.sum() * np.concatenate([each @ values for each in drawn])  # (bootstrap, K)
    relative = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    return np.asarray((relative / relative.sum(axis=1, keepdims=True)).mean(axis=0))


def _relative(values: np.ndarray) -> np.ndarray:
    """Values minus the best of their row: keeps the stacking weights and prevents underflow of exp."""
    return np.maximum(values - values.max(axis=1, keepdims=True), LEAST)
