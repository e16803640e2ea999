"""Draws to a table: moments, intervals, Monte Carlo errors, ESS and R-hat of every parameter."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats

from poolwise.model.count_model import WITHOUT_MEAN

INTERVAL = 0.94  # highest-density intervals, as in the notebook that this project follows
LOW, HIGH = (f"hdi_{share:.0%}" for share in ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))  # columns of a summary


def parameters(posterior: xr.Dataset) -> dict[str, np.ndarray]:
    """Every scalar parameter by name (`mu`, `lam.<label>`), (chain, draw); rates at the draws that store them."""
    flat: dict[str, np.ndarray] = {}
    for name, variable in posterior.data_vars.items():
        if "group" in variable.dims:
            draws = variable.transpose("group", "chain", ...).values
            flat |= {f"{name}.{label}": draws[g] for g, label in enumerate(variable["group"].values)}
        else:
            flat[str(name)] = variable.transpose("chain", "draw").values
    return flat


def summarise(posterior: xr.Dataset, heavy: Collection[str] = WITHOUT_MEAN) -> pd.DataFrame:
    """One row per parameter: mean, sd, median, 94% interval, Monte Carlo errors, ESS and R-hat.

    The interval is the highest-density one. For parameters in `heavy`, whose density has a long tail and whose mean or
    sd does not exist (`count_model.without_mean`), it is the central one, and mean, sd and their errors are empty.
    """
    flat = parameters(posterior)
    return _table(np.stack(list(flat.values())), list(flat), heavy) if flat else pd.DataFrame()


def summarise_kinds(
    posterior: xr.Dataset, rates: Iterable[np.ndarray], kind: np.ndarray, heavy: Collection[str] = WITHOUT_MEAN
) -> pd.DataFrame:
    """As `summarise`, with one row of a rate for all groups that are alike.

    Parameters
    ----------
    rates : draws of the rate of one group of each kind, in blocks (kind, chain, draw)
    kind : (G,), of each group of the posterior
    """
    names = [f"lam.{label}" for label in posterior["group"].values]
    by_kind = pd.concat([_table(block, range(len(block)), ()) for block in rates], ignore_index=True)
    of_groups = by_kind.iloc[kind].set_axis(pd.Index(names, name="parameter"))
    others = summarise(posterior.drop_vars("lam"), heavy)
    before = [name for name in others.index if name < "lam"]
    return pd.concat([others.loc[before], of_groups, others.drop(index=before)])


def _table(draws: np.ndarray, names: Sequence[str] | range, heavy: Collection[str]) -> pd.DataFrame:
    """The summary of draws (P, chain, draw)."""
    is_heavy = np.array([name in heavy for name in names])
    tail = (1 - INTERVAL) / 2
    low, median, high = np.quantile(draws, [tail, 0.5, 1 - tail], axis=(1, 2))
    shortest = shortest_intervals(draws)
    table = pd.DataFrame(
        {
            "mean": draws.mean(axis=(1, 2)),
            "sd": draws.std(axis=(1, 2), ddof=1),
            "median": median,
            LOW: np.where(is_heavy, low, shortest[:, 0]),
            HIGH: np.where(is_heavy, high, shortest[:, 1]),
            "mcse_mean": array_stats.mcse(draws, method="mean"),
            "mcse_sd": array_stats.mcse(draws, method="sd"),
            "ess_bulk": array_stats.ess(draws, method="bulk"),
            "ess_tail": array_stats.ess(draws, method="tail", prob=(0.05, 0.95)),
            "r_hat": array_stats.rhat(draws),
        },
        index=pd.Index(names, name="parameter"),
    )
    table.loc[is_heavy, ["mean", "sd", "mcse_mean", "mcse_sd"]] = np.nan
    return table


def shortest_intervals(draws: np.ndarray) -> np.ndarray:
    """Ends of the 94% highest-density intervals of draws (P, chain, draw), (P, 2)."""
    return np.stack([array_stats.hdi(each.reshape(-1), prob=INTERVAL) for each in draws])


def relative_efficiency(summary: pd.DataFrame, *, num_draws: int) -> float:
    """Mean bulk ESS of the parameters per draw, at most 1 (R-hat and ESS may be undefined for a constant)."""
    return float(min(1.0, np.nanmean(summary["ess_bulk"]) / num_draws))


def convergence(posterior: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Largest R-hat and smallest bulk ESS of draws site -> (chain, draw, ...), for reports while sampling."""
    flat = [np.moveaxis(value.reshape(*value.shape[:2], -1), 2, 0) for value in posterior.values()]  # (P, chain, draw)
    r_hat = max(np.max(array_stats.rhat(draws)) for draws in flat)
    return float(r_hat), float(min(np.min(array_stats.ess(draws, method="bulk")) for draws in flat))
