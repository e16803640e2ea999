"""Pointwise log likelihood to leave-one-out predictive accuracy: PSIS-LOO of weighted cells.

A cell represents m rows with the same group, exposure and count; its value leaves out one of them, and

    elpd_loo = sum_c m_c elpd_c,    se^2 = N / (N - 1) sum_c m_c (elpd_c - mean)^2,    N = sum_c m_c,

which equals the result by row exactly, at a cost that does not depend on the number of rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from scipy.special import logsumexp

# Vehtari et al. (2024), JMLR 25(72): above min(1 - 1 / log10(S), 0.7) the importance weights cannot be smoothed.
PARETO_K_CAP = 0.7


@dataclass(frozen=True)
class Loo:
    """Leave-one-out predictive accuracy.

    Attributes
    ----------
    elpd, se, p_loo : of all rows
    mcse : Monte Carlo standard error of `elpd`
    cell_elpd, pareto_k : (C,), one row of each cell left out
    k_threshold : above it `cell_elpd` is not reliable
    bad_rows : rows whose cell lies above it
    psis : the PSIS values, if integrated ones replace them here; NaN if they were not computed
    refitted_rows : rows whose value is from a refit without them
    """

    elpd: float
    se: float
    p_loo: float
    mcse: float
    cell_elpd: np.ndarray
    pareto_k: np.ndarray
    k_threshold: float
    bad_rows: int
    psis: "Loo | None" = None
    refitted_rows: int = 0

    @property
    def k_max_psis(self) -> float:
        """The largest Pareto k of PSIS; NaN if it was not computed."""
        return float((self.psis or self).pareto_k.max())


def not_computed(num_cells: int) -> Loo:
    """In place of PSIS, where the rates are stored at too few draws."""
    unknown = np.full(num_cells, np.nan)
    return Loo(np.nan, np.nan, np.nan, np.nan, unknown, unknown, np.nan, 0)


def psis_loo(log_likelihood: Iterable[np.ndarray], multiplicity: np.ndarray, *, r_eff: float) -> Loo:
    """PSIS-LOO of weighted cells.

    Parameters
    ----------
    log_likelihood : blocks (cell, chain, draw) whose cells make up all C cells, in order
    multiplicity : (C,), rows per cell
    r_eff : effective draws per draw, for the length of the smoothed tail

    Notes
    -----
    The Monte Carlo error follows from the influence of draw s on elpd_loo, sum_c m_c w_cs (p_cs / E_c - 1), with w
    the smoothed weights and E_c = exp(elpd_c). It includes the correlation of cells through shared draws and the
    chains' autocorrelation, which the pointwise formula of the R package loo omits.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27(5), doi:10.1007/s11222-016-9696-4.
    """
    pointwise, begin = [], 0
    influence: np.ndarray = np.zeros(())
    for block in log_likelihood:
        weight = multiplicity[begin : begin + len(block)]
        begin += len(block)
        log_weights, pareto_k = _smoothed_weights(block, r_eff)
        elpd = logsumexp(log_weights + block, axis=(-2, -1))
        lppd = logsumexp(block, axis=(-2, -1)) - np.log(block[0].size)
        pointwise.append(np.stack([elpd, lppd - elpd, pareto_k]))
        relative = np.exp(log_weights + block - elpd[:, None, None]) - np.exp(log_weights)
        influence = influence + np.tensordot(weight, relative, axes=1)  # (chain, draw)
    cell_elpd, cell_p, pareto_k = np.concatenate(pointwise, axis=1)
    return _total(cell_elpd, cell_p, pareto_k, multiplicity, influence)


def loo_below(log_likelihood: Iterable[np.ndarray], log_below: Iterable[np.ndarray], *, r_eff: float) -> np.ndarray:
    """Log P(Y < y_c | all other rows) of each cell, (C,), with weights like those of `psis_loo`: for LOO-PIT.

    Parameters
    ----------
    log_likelihood, log_below : blocks (cell, chain, draw) of the same cells and draws
    r_eff : as for `psis_loo`
    """
    found = []
    for block, below in zip(log_likelihood, log_below, strict=True):
        log_weights, _ = _smoothed_weights(block, r_eff)
        found.append(np.minimum(logsumexp(log_weights + below, axis=(-2, -1)), 0.0))
    return np.concatenate(found)


def pareto_k(log_weights: np.ndarray) -> float:
    """Pareto k of weights (chain, draw); NaN if their tail is one value.

    `array_stats.pareto_khat(log_weights=True)` of ArviZ 1.3 fits the tail of the logarithms.
    """
    return float(_smoothed_weights(-log_weights[None], 1.0)[1][0])


def _smoothed_weights(block: np.ndarray, r_eff: float) -> tuple[np.ndarray, np.ndarray]:
    """Log weights and Pareto k; raw weights and no k for a cell whose tail is one value, as from stuck chains."""
    try:
        return array_stats.psislw(block, r_eff=r_eff, axis=(-2, -1))
    except ValueError:
        if len(block) == 1:
            return -block - logsumexp(-block), np.array([np.nan])
    halves = (_smoothed_weights(half, r_eff) for half in np.array_split(block, 2))
    log_weights, pareto_k = zip(*halves, strict=True)
    return np.concatenate(log_weights), np.concatenate(pareto_k)


def _total(
    cell_elpd: np.ndarray, cell_p: np.ndarray, pareto_k: np.ndarray, multiplicity: np.ndarray, influence: np.ndarray
) -> Loo:
    elpd, se = weighted_sum(cell_elpd, multiplicity)
    num_draws = influence.size
    k_threshold = pareto_k_limit(num_draws)
    return Loo(
        elpd=elpd,
        se=se,
        p_loo=float(multiplicity @ cell_p),
        mcse=float(array_stats.mcse(num_draws * influence, method="mean")),
        cell_elpd=cell_elpd,
        pareto_k=pareto_k,
        k_threshold=k_threshold,
        bad_rows=int(multiplicity[~(pareto_k <= k_threshold)].sum()),
    )


def weighted_sum(cell_value: np.ndarray, multiplicity: np.ndarray) -> tuple[float, float]:
    """Sum over rows of a value by cell, and its standard error: sqrt(N) times the standard deviation of the rows."""
    num_rows, total = multiplicity.sum(), float(multiplicity @ cell_value)
    squares = float(multiplicity @ (cell_value - total / num_rows) ** 2)
    return total, float(np.sqrt(num_rows / (num_rows - 1) * squares)) if num_rows > 1 else float("nan")


def pareto_k_limit(num_draws: float) -> float:
    """The largest Pareto k at which importance weights of this many draws can be smoothed."""
    return float(min(1 - 1 / np.log10(num_draws), PARETO_K_CAP))
