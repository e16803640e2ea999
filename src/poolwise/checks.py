"""Draws to a judgement: convergence, the sampler's own warnings, and leave-one-out predictive accuracy.

A fit is `trusted` when every condition of its verdict holds, else `suspect`, with the reasons in words: the gate below,
and what the checks add to it.

PSIS-LOO is computed by cell. A cell stands for m rows with the same group, exposure and count; its value leaves out
one of them, and

    elpd_loo = sum_c m_c elpd_c,    se^2 = N / (N - 1) sum_c m_c (elpd_c - mean)^2,    N = sum_c m_c,

which is exactly the row-wise result, at a cost that does not depend on the number of rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats
from scipy.special import logsumexp

from poolwise.conditions import Condition, limits

# The gate, beside the limits of `conditions`.
# Betancourt (2016), arXiv:1604.00695: below 0.3 the momentum cannot carry the chain across the energies.
BFMI_MIN = 0.3
# Vehtari et al. (2024), JMLR 25(72): above min(1 - 1 / log10(S), 0.7) the importance weights cannot be smoothed.
PARETO_K_CAP = 0.7

INTERVAL = 0.94  # highest-density intervals, as in the notebook that this project follows
LOW, HIGH = (f"hdi_{share:.0%}" for share in ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))  # columns of a summary
NO_MEAN = ("alpha", "beta", "phi")  # their posterior has no finite mean: medians and quantiles only


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
    psis : where the values here have the rates integrated out, those of PSIS that they replace
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

    @property
    def k_max_psis(self) -> float:
        """The largest Pareto k of PSIS."""
        return float((self.psis or self).pareto_k.max())


@dataclass(frozen=True)
class Verdict:
    """Whether a fit can be trusted: the conditions that decide it, and the figures behind them."""

    conditions: tuple[Condition, ...]
    r_hat_max: float
    ess_bulk_min: float
    ess_tail_min: float
    divergences: int
    bfmi_min: float
    tree_depth_hits: int
    pareto_k_max: float
    pareto_k_bad: int

    @property
    def status(self) -> str:
        """`trusted` if every condition holds, else `suspect`."""
        return "suspect" if self.reasons else "trusted"

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the conditions say that do not hold."""
        return tuple(each.sentence for each in self.conditions if not each.passed)


def parameters(posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Every scalar parameter under its name (`mu`, `lam.<label>`), (chain, draw)."""
    flat: dict[str, np.ndarray] = {}
    for name, variable in posterior.data_vars.items():
        if "group" in variable.dims:
            draws = variable.transpose("group", "chain", "draw").values
            flat |= {f"{name}.{label}": draws[g] for g, label in enumerate(variable["group"].values)}
        else:
            flat[str(name)] = variable.transpose("chain", "draw").values
    return flat


def summarise(posterior: xr.Dataset) -> pd.DataFrame:
    """A row a parameter: mean, sd, median, 94% interval, Monte Carlo errors, ESS and R-hat.

    The interval is the highest-density one; for `alpha`, `beta` and `phi`, whose density has a long tail and whose
    mean does not exist, it is the central one, and mean, sd and their errors are left empty.
    """
    flat = parameters(posterior)
    draws = np.stack(list(flat.values()))  # (P, chain, draw)
    heavy = np.array([name in NO_MEAN for name in flat])
    tail = (1 - INTERVAL) / 2
    low, median, high = np.quantile(draws, [tail, 0.5, 1 - tail], axis=(1, 2))
    shortest = np.stack([array_stats.hdi(each.reshape(-1), prob=INTERVAL) for each in draws])
    table = pd.DataFrame(
        {
            "mean": draws.mean(axis=(1, 2)),
            "sd": draws.std(axis=(1, 2), ddof=1),
            "median": median,
            LOW: np.where(heavy, low, shortest[:, 0]),
            HIGH: np.where(heavy, high, shortest[:, 1]),
            "mcse_mean": array_stats.mcse(draws, method="mean"),
            "mcse_sd": array_stats.mcse(draws, method="sd"),
            "ess_bulk": array_stats.ess(draws, method="bulk"),
            "ess_tail": array_stats.ess(draws, method="tail", prob=(0.05, 0.95)),
            "r_hat": array_stats.rhat(draws),
        },
        index=pd.Index(list(flat), name="parameter"),
    )
    table.loc[heavy, ["mean", "sd", "mcse_mean", "mcse_sd"]] = np.nan
    return table


def loo(log_likelihood: Iterable[np.ndarray], multiplicity: np.ndarray, *, r_eff: float) -> Loo:
    """PSIS-LOO of weighted cells.

    Parameters
    ----------
    log_likelihood : blocks (cell, chain, draw) whose cells make up all C cells, in order
    multiplicity : (C,), rows a cell stands for
    r_eff : effective draws per draw, for the length of the smoothed tail

    Notes
    -----
    The Monte Carlo error follows from the influence of draw s on elpd_loo, sum_c m_c w_cs (p_cs / E_c - 1), with w
    the smoothed weights and E_c = exp(elpd_c): it keeps what the cells share through the draws and the chains'
    autocorrelation, which the pointwise formula of the R package loo leaves out.

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


def loo_below(
    log_likelihood: Iterable[np.ndarray], log_below: Iterable[np.ndarray], *, draws: np.ndarray, r_eff: float
) -> np.ndarray:
    """Log P(Y < y_c | all other rows) of each cell, (C,), with the weights of `loo`: for LOO-PIT.

    The weights are smoothed over all draws and used at some of them, where they are made to add up to one. They are
    PSIS's own for every cell, also where `leave_out` replaced `cell_elpd` because their Pareto k is too high: there
    this value is no more to be relied on than the one that was replaced.

    Parameters
    ----------
    log_likelihood : blocks (cell, chain, draw), as for `loo`
    log_below : blocks (cell, chain, len(draws)) of the same cells, from `predict.pointwise_log_below`
    draws : indices along the draws of each chain that `log_below` is of
    """
    found = []
    for block, below in zip(log_likelihood, log_below, strict=True):
        log_weights = _smoothed_weights(block, r_eff)[0][..., draws]
        both = logsumexp(log_weights + below, axis=(-2, -1)), logsumexp(log_weights, axis=(-2, -1))
        found.append(np.minimum(both[0] - both[1], 0.0))
    return np.concatenate(found)


def pareto_k(log_weights: np.ndarray) -> float:
    """Pareto k of weights (chain, draw); NaN where their tail is one value.

    `array_stats.pareto_khat(log_weights=True)` of ArviZ 1.3 fits the tail of the logarithms.
    """
    return float(_smoothed_weights(-log_weights[None], 1.0)[1][0])


def _smoothed_weights(block: np.ndarray, r_eff: float) -> tuple[np.ndarray, np.ndarray]:
    """Log weights and Pareto k; raw weights and no k for a cell whose tail is one value, as from chains that stand."""
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
    """The largest Pareto k at which importance weights of so many draws can be smoothed."""
    return float(min(1 - 1 / np.log10(num_draws), PARETO_K_CAP))


def relative_efficiency(summary: pd.DataFrame, *, num_draws: int) -> float:
    """Mean bulk ESS of the parameters per draw, at most 1 (R-hat and ESS may be undefined for a constant)."""
    return float(min(1.0, np.nanmean(summary["ess_bulk"]) / num_draws))


def judge(summary: pd.DataFrame, sample_stats: xr.Dataset, leave_one_out: Loo, *, max_tree_depth: int) -> Verdict:
    """The gate."""
    bfmi = np.asarray(array_stats.bfmi(sample_stats["energy"].transpose("chain", "draw").values))
    diverging = sample_stats["diverging"].values
    return Verdict(
        conditions=(
            *(limit.condition(summary) for limit in limits(sample_stats.sizes["chain"])),
            *_of_transitions(diverging, bfmi),
            *_of_loo(leave_one_out),
        ),
        r_hat_max=float(summary["r_hat"].max(skipna=False)),
        ess_bulk_min=float(summary["ess_bulk"].min(skipna=False)),
        ess_tail_min=float(summary["ess_tail"].min(skipna=False)),
        divergences=int(diverging.sum()),
        bfmi_min=float(bfmi.min()),
        tree_depth_hits=int((sample_stats["tree_depth"] >= max_tree_depth).sum()),
        pareto_k_max=float(np.max(leave_one_out.pareto_k)),
        pareto_k_bad=leave_one_out.bad_rows,
    )


def _of_transitions(diverging: np.ndarray, bfmi: np.ndarray) -> tuple[Condition, Condition]:
    divergences = int(diverging.sum())
    return (
        Condition.of(
            name="divergent transitions: places the sampler could not follow",
            value=f"{divergences:,}",
            limit="0",
            passed=not divergences,
            otherwise=f"{divergences} of {diverging.size} transitions diverged",
        ),
        Condition.of(
            name="E-BFMI, the smallest: does the sampler reach the tails?",
            value=f"{bfmi.min():.2f}",
            limit=f"at least {BFMI_MIN}",
            passed=bool(np.all(bfmi >= BFMI_MIN)),
            otherwise=f"E-BFMI is {np.min(bfmi):.2f} in the worst chain, below {BFMI_MIN}",
        ),
    )


def _of_loo(loo: Loo) -> tuple[Condition, Condition]:
    largest = np.nanmax(loo.pareto_k, initial=-np.inf)
    return (
        Condition.of(
            name="Pareto k, the largest: does one row decide the result?",
            value=f"{np.max(loo.pareto_k):.2f}",
            limit=f"at most {loo.k_threshold:.2f}",
            passed=not loo.bad_rows,
            otherwise=f"Pareto k is above {loo.k_threshold:.2f} for {loo.bad_rows} rows (worst {largest:.2f}): "
            "elpd_loo is not reliable",
        ),
        Condition.of(
            name="elpd_loo and its Monte Carlo error",
            value=f"{loo.elpd:.2f}, {loo.mcse:.2g}",
            limit="finite",
            passed=bool(np.isfinite([loo.elpd, loo.mcse]).all()),
            otherwise="elpd_loo is not finite",
        ),
    )


def convergence(posterior: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Largest R-hat and smallest bulk ESS of draws site -> (chain, draw, ...), for a look while sampling."""
    draws = np.concatenate([value.reshape(*value.shape[:2], -1) for value in posterior.values()], axis=2)
    draws = np.moveaxis(draws, 2, 0)
    return float(np.max(array_stats.rhat(draws))), float(np.min(array_stats.ess(draws, method="bulk")))
