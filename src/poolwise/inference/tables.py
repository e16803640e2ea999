"""Tables of counts, observed or simulated: each row by itself, or each count of a stratum with its number of rows.

A stratum is the rows of one group and exposure, with the same covariates. Given its rate its rows are alike, so the
numbers of rows with each count are multinomial: a table of many rows is simulated at a cost per distinct count, not per
row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from poolwise.counts.cells import run_starts
from poolwise.model.likelihoods.base import Likelihood, Params

LARGEST = 2.0**53  # largest possible count
TABULATED = 2**20  # larger counts are sorted for their quantiles
FEW_ROWS = 50  # a stratum with fewer rows is simulated row by row
ONE = xr.DataArray(1.0)  # the factor of rows without covariates
BEYOND = 1e-15  # probability of all counts below the first that is simulated, and of all above the last


@dataclass(frozen=True)
class Tables:
    """D tables of one design.

    Attributes
    ----------
    count : (D, M)
    group, exposure : (M,), in the order of the groups; with covariates the exposures are multiplied by exp(x beta) at
        the posterior mean of beta, so that rows of a group are comparable
    rows : (D, M), number of rows with each count; None if each is one row
    """

    count: np.ndarray
    group: np.ndarray
    exposure: np.ndarray
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        """D, the number of tables."""
        return len(self.count)

    @property
    def num_rows(self) -> int:
        """N, the number of rows of each table."""
        return int(self.weight.sum())

    @property
    def weight(self) -> np.ndarray:
        """Number of rows that each entry of the first table stands for, (M,)."""
        return np.ones(len(self.group), np.int64) if self.rows is None else self.rows[0]

    def of_group(self, group: int | np.integer) -> "Tables":
        """The rows of one group."""
        part = slice(*np.searchsorted(self.group, np.array([group, group + 1])))
        rows = None if self.rows is None else self.rows[:, part]
        return Tables(self.count[:, part], self.group[part], self.exposure[part], rows)

    def sums(self, value: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Sums over rows of a value (D, M) of each, for the entries from each start to the next, (D, len(starts))."""
        weighted = value if self.rows is None else np.multiply(value, self.rows, dtype=float)
        return np.add.reduceat(weighted, starts, axis=1)

    @property
    def seen(self) -> np.ndarray:
        """The counts, with 0 in place of those that no row has, (D, M)."""
        return self.count if self.rows is None else np.where(self.rows > 0, self.count, 0)

    def quantiles(self, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of the counts of all rows of all tables."""
        weights, count = None if self.rows is None else self.rows.ravel(), self.count.ravel()
        if count.max() >= TABULATED:
            return np.quantile(count, levels, weights=weights, method="inverted_cdf")
        cumulative = np.bincount(count, weights).cumsum()
        return np.searchsorted(cumulative, np.multiply(levels, cumulative[-1]))


def observed_table(tree: xr.DataTree) -> Tables:
    """The observed table, D = 1, by cell."""
    cells = tree["constant_data"].to_dataset()
    group, exposure, count, rows = (
        cells[f"cell_{name}"].values for name in ("group", "exposure", "count", "multiplicity")
    )
    return Tables(count[None], group, exposure * cells.get("cell_factor", ONE).values, rows[None])


def simulated_tables(tree: xr.DataTree) -> Tables:
    """The posterior predictive tables."""
    simulated, data = tree["posterior_predictive"].to_dataset(), tree["constant_data"].to_dataset()
    count = _flat(simulated["y"])
    if "row" in simulated.dims:
        exposure = data["row_exposure"].values * data.get("row_factor", ONE).values
        return Tables(count, data["row_group"].values, exposure)
    exposure = simulated["entry_exposure"].values * simulated.get("entry_factor", ONE).values
    return Tables(count, simulated["entry_group"].values, exposure, _flat(simulated["rows"]))


def _flat(values: xr.DataArray) -> np.ndarray:
    return values.transpose("chain", "draw", ...).values.reshape(-1, values.shape[-1])


def simulate_by_count(
    likelihood: Likelihood,
    lam: np.ndarray,
    params: Params,
    cells: xr.Dataset,
    rng: np.random.Generator,
    factor: np.ndarray | float = 1.0,
) -> xr.Dataset:
    """Replicated tables: `y` and `rows` (chain, draw, entry), with `entry_group` and `entry_exposure` (entry).

    With covariates also `entry_factor` (entry).

    Parameters
    ----------
    lam : (G, chain, draw), or (1, chain, draw) for one rate
    params : of the likelihood, each (chain, draw)
    cells : the `constant_data` of `datatree.to_tree`
    factor : exp(x beta) of each cell, (chain, draw, C)
    """
    group, exposure = cells["cell_group"].values, cells["cell_exposure"].values
    has_effects = "effect" in cells.dims
    first = run_starts(group, exposure, *(cells["cell_x"].values.T if has_effects else ()))  # (T,)
    num_rows = np.add.reduceat(cells["cell_multiplicity"].values, first)
    group, exposure = (group if len(lam) > 1 else 0 * group)[first], exposure[first]

    def rate_of(stratum: np.ndarray) -> np.ndarray:
        size = exposure[stratum] * (np.asarray(factor)[..., first[stratum]] if has_effects else 1.0)
        return np.minimum(np.moveaxis(lam[group[stratum]], 0, -1) * size, LARGEST)  # (chain, draw, K)

    params = {name: each[..., None] for name, each in params.items()}
    parts: dict[np.int64, tuple[np.ndarray, np.ndarray]] = {}
    for t in np.flatnonzero(num_rows >= FEW_ROWS):
        found = _by_count(likelihood, rate_of(np.array([t])), likelihood.at(params, exposure[t]), int(num_rows[t]), rng)
        parts |= {t: found} if found else {}
    others = np.setdiff1d(np.arange(len(first)), list(parts))
    row = np.repeat(others, num_rows[others])
    by_row = likelihood.sample(rate_of(row), likelihood.at(params, exposure[row]), rng)
    stratum = np.concatenate([row, *(np.full(count.shape[-1], t) for t, (count, _) in parts.items())])
    order = np.argsort(stratum, kind="stable")
    y = np.concatenate([by_row, *(count for count, _ in parts.values())], axis=-1)[..., order]
    rows = np.concatenate([np.ones_like(by_row), *(each for _, each in parts.values())], axis=-1)[..., order]
    dims, stratum = ("chain", "draw", "entry"), stratum[order]
    tables = xr.Dataset(
        {
            "y": (dims, y),
            "rows": (dims, rows),
            "entry_group": ("entry", cells["cell_group"].values[first][stratum]),
            "entry_exposure": ("entry", exposure[stratum]),
        }
    )
    if not has_effects:
        return tables
    return tables.assign(entry_factor=("entry", cells["cell_factor"].values[first][stratum]))


def _by_count(
    likelihood: Likelihood, rate: np.ndarray, params: Params, rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts of a stratum and the rows with each, (chain, draw, K), at a rate (chain, draw, 1); None if K is larger."""
    first, last = _range(likelihood, rate, params)
    if last - first + 1 >= rows:
        return None
    count = np.arange(first, last + 1)
    below = likelihood.below(count[1:].astype(float), rate, params)  # (chain, draw, K - 1)
    probability = np.maximum(np.diff(below, prepend=0.0, append=1.0), 0.0)
    probability /= probability.sum(axis=-1, keepdims=True)
    return np.broadcast_to(count, probability.shape), rng.multinomial(rows, probability)


def _range(likelihood: Likelihood, rate: np.ndarray, params: Params) -> tuple[int, int]:
    """The first and the last count that are told apart, at all draws: further ones have probability `BEYOND`."""

    def below(count: float) -> np.ndarray:
        return likelihood.below(np.array(max(count, 0.0)), rate, params)

    first, last, width = float(np.floor(rate.min())), float(np.ceil(rate.max())), 1.0
    while first > 0 and below(first).max() > BEYOND:
        first, width = max(first - width, 0.0), 2 * width
    width, before = 1.0, -1.0
    while last < LARGEST and before < (now := below(last + 1).min()) < 1 - BEYOND:  # rounding may keep it from 1
        last, width, before = last + width, 2 * width, now
    return int(first), int(min(last, LARGEST))
