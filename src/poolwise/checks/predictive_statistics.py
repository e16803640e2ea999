"""Posterior predictive check: test statistics of the observed table and of tables simulated from the fitted model.

    variance / mean                   Pearson's X^2 over its degrees of freedom, about one rate for all groups
    variance / mean within groups     the same, about the rate of each group
    rows with a zero, largest count

The p-value of a statistic is two-sided. It uses the data twice, so under a true model it is less often small than
nominal (Gelman et al. 2013, Bayesian Data Analysis, section 6.3).
"""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm

from poolwise.checks.summary import INTERVAL
from poolwise.inference.tables import Tables, observed_table, simulated_tables

OVERALL, WITHIN, ZEROS, LARGEST = (
    *("variance / mean", "variance / mean within groups"),
    *("rows with a zero", "largest count"),
)
TAIL = (1 - INTERVAL) / 2
AS_EXPECTED = "as the model expects"  # a finding
QUANTILES = [TAIL, 0.5, 1 - TAIL]
FEW_VALUES = 5  # of a simulated statistic: its tail is then not normal


def observed_and_simulated(tree: xr.DataTree) -> tuple[Tables, Tables]:
    """The observed table, and the simulated ones."""
    return observed_table(tree), simulated_tables(tree)


def statistics(tree: xr.DataTree) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Every test statistic in the data and in simulated tables, and the simulated values by statistic.

    Returns
    -------
    observed : in the data
    3%, median, 97% : of simulated tables
    at_least : share of simulated tables with at least the observed value
    p_value : two-sided
    p_tail : two-sided, extended beyond the simulated values (`_p_tail`); never 0
    finding : in words
    """
    each = [_values(tables) for tables in observed_and_simulated(tree)]
    found = {name: np.concatenate([values[name] for values in each]) for name in each[0]}
    lines, simulated = {}, {}
    for name, values in found.items():
        at_least, p = two_sided(values)
        if not np.isnan(p):
            simulated[name] = values[1:][np.isfinite(values[1:])]
            p_tail = _p_tail(values[0], simulated[name], p, is_sum=name != LARGEST)
            lines[name] = (values[0], *np.quantile(simulated[name], QUANTILES), at_least, p, p_tail)
    columns = ["observed", "3%", "median", "97%", "at_least", "p_value", "p_tail"]
    table = pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis("statistic")
    return table.assign(finding=[_finding(row) for row in table.itertuples()]), simulated


def _values(tables: Tables) -> dict[str, np.ndarray]:
    """Every test statistic of every table, (D,)."""
    whole = np.array([0])
    starts = np.flatnonzero(np.diff(tables.group, prepend=-1))  # rows of a group are contiguous
    within = {WITHIN: pearson(tables, starts)} if len(starts) > 1 else {}
    zeros = tables.sums((tables.count == 0).astype(np.int64), whole)[:, 0]
    return {OVERALL: pearson(tables, whole), **within, ZEROS: zeros, LARGEST: tables.seen.max(axis=1)}


def pearson(tables: Tables, starts: np.ndarray) -> np.ndarray:
    """X^2 of every table about its groups' rates, (D,), over its degrees of freedom; nan if there are none."""
    size, rows = np.add.reduceat(tables.weight * tables.exposure, starts), np.add.reduceat(tables.weight, starts)
    total = tables.sums(tables.count, starts).astype(float)  # (D, G)
    squares = tables.sums(tables.count**2.0 / tables.exposure, starts)
    known = (total > 0) & (rows > 1)
    excess = np.where(known, squares * size / np.where(total > 0, total, 1) - total, 0).sum(axis=1)
    freedom = np.where(known, rows - 1, 0).sum(axis=1)
    return np.where(freedom > 0, excess / np.maximum(freedom, 1), np.nan)


def two_sided(values: np.ndarray) -> tuple[float, float]:
    """Share of simulated values at least as large as the first, observed one, and a two-sided p; nan if unknown."""
    simulated = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not simulated.size:
        return float("nan"), float("nan")
    near = 1e-12 * max(1.0, abs(values[0]))  # equal up to rounding
    upper, lower = np.mean(simulated >= values[0] - near), np.mean(simulated <= values[0] + near)
    return float(upper), float(min(1.0, 2 * min(upper, lower)))


def written(name: str, value: float) -> str:
    """A value of a statistic in a sentence."""
    return f"{value:,.0f}" if name in (ZEROS, LARGEST) or abs(value) >= 1000 else f"{value:.2f}"


def _p_tail(observed: float, simulated: np.ndarray, p: float, *, is_sum: bool) -> float:
    """A p-value that is valid for any number S of simulated tables: at least 2 / (S + 1).

    A value beyond all simulated ones has a smaller p-value if the statistic is a sum over rows, whose square root is
    close to normal.
    """
    size = len(simulated)
    by_rank = min(1.0, (p * size + 2) / (size + 1))
    if p > 0 or not is_sum or len(np.unique(simulated)) < FEW_VALUES:
        return by_rank
    root = np.sqrt(simulated)
    return float(min(by_rank, 2 * norm.sf(abs(np.sqrt(observed) - root.mean()) / root.std(ddof=1))))


def _finding(row: object) -> str:
    """A p-value in words."""
    p, upper = row.p_value, row.at_least  # type: ignore[attr-defined]
    if p >= 1 - INTERVAL:
        return AS_EXPECTED
    return f"{'larger' if upper < 0.5 else 'smaller'} than the model expects"
