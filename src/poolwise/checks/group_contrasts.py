"""Joint posterior draws of the groups' rates to ranks and contrasts.

Everything is computed within a draw and then summarised over draws, so it respects how the rates vary together. Whether
the intervals of two rates overlap does not show that, and is never used.

    rank of g in a draw    1 + the number of groups with a higher rate; rank 1 is the highest rate
    overall rate           mean of the groups' rates weighted by their exposure, in the same draw
    P(A > B)               share of draws in which A has the higher rate; a tie counts half
    expected loss          of taking A for the higher rate: E max(B - A, 0), in the unit of a rate

A pair is decided if one of its rates is higher with probability `DECIDED`. Groups are indistinct if they follow each
other in the order of their mean rates and no pair of them is decided.

Intervals of ranks hold about 90%: a rank is a whole number, so each end is the one that leaves out most nearly 5%.
Intervals of contrasts hold 94% and are central: they do not depend on which group is named first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.checks.summary import HIGH, INTERVAL, LOW, shortest_intervals
from poolwise.inference.datatree import joint
from poolwise.inference.rates import evenly_spaced
from poolwise.inference.threads import on_threads

PAIRS = 30  # with more groups, every group is compared with one reference instead of with every other group
DECIDED = 0.95
RANKS = 0.90
# Rates times draws. More rates use fewer draws, evenly spaced in each chain; of 1000 draws, a probability of 0.05 has a
# standard error of 0.007 or, if they are correlated, more.
WORK, LEAST = 40_000_000, 1000
BLOCK = 2**22  # values held at once
OVERALL = "overall"  # the name of the reference in a table
RANK_LOW, RANK_HIGH = (f"rank_{share:.0%}" for share in ((1 - RANKS) / 2, (1 + RANKS) / 2))
TAILS = ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2)
RATIOS, DIFFERENCES = ([f"{what}_{share:.0%}" for share in TAILS] for what in ("ratio", "difference"))  # in a table


@dataclass(frozen=True)
class GroupRates:
    """Joint draws of the rates of at least two groups, and what was counted.

    Attributes
    ----------
    labels, rows, total, exposure : (G,), of each group; in the order of the data
    mean, low, high : (G,), posterior mean and 94% highest-density interval, from all draws
    draws : (G, S), joint draws of the rates
    """

    labels: tuple[str, ...]
    rows: np.ndarray
    total: np.ndarray
    exposure: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray

    @cached_property
    def overall(self) -> np.ndarray:
        """The exposure-weighted mean of the rates in each draw, (S,)."""
        return (self.exposure / self.exposure.sum()) @ self.draws

    @cached_property
    def order(self) -> np.ndarray:
        """The groups by mean rate, highest first, (G,)."""
        return np.argsort(-self.mean, kind="stable")

    def above(self, rate: float | np.ndarray) -> np.ndarray:
        """P(rate of the group > rate), (G,); `rate` is a number or one for each draw."""
        blocks = _slices(*self.draws.shape)
        return np.concatenate(on_threads(lambda block: share_greater(self.draws[block], rate), blocks))

    def greater(self, groups: Sequence[int] | np.ndarray) -> np.ndarray:
        """P(rate of row > rate of column) of some groups, (K, K); one half on the diagonal."""
        chosen = self.draws[groups]
        return np.stack([share_greater(each, chosen) for each in chosen])


def group_rates(posterior: xr.Dataset, cells: xr.Dataset, summary: pd.DataFrame | None = None) -> GroupRates | None:
    """The rates by group of a posterior; None if the groups share one rate, or there is only one group.

    Parameters
    ----------
    cells : the `constant_data` of `datatree.to_tree`
    summary : `mean` and interval by parameter, if they are known from more draws than are stored
    """
    lam = joint(posterior)["lam"].transpose("chain", "draw", ...)
    if lam.ndim < 3 or lam.shape[2] < 2:
        return None
    num_chains, length, num_groups = lam.shape
    per_chain = -(-max(WORK // num_groups, LEAST) // num_chains)
    labels = tuple(map(str, lam["group"].values))
    if summary is None:
        every = np.moveaxis(lam.values, 2, 0)  # (G, chain, draw)
        mean, (low, high) = every.mean(axis=(1, 2)), shortest_intervals(every).T
    else:
        mean, low, high = summary.loc[[f"lam.{label}" for label in labels], ["mean", LOW, HIGH]].to_numpy().T
    group, rows = cells["cell_group"].values, cells["cell_multiplicity"].values
    return GroupRates(
        labels=labels,
        rows=np.bincount(group, rows, num_groups),
        total=np.bincount(group, rows * cells["cell_count"].values.astype(float), num_groups),
        exposure=np.bincount(group, rows * cells["cell_exposure"].values, num_groups),
        mean=mean,
        low=low,
        high=high,
        draws=_by_group(lam.values, evenly_spaced(length, per_chain)),
    )


def ranking(rates: GroupRates) -> pd.DataFrame:
    """One row per group, the highest mean rate first.

    Returns
    -------
    rows, total, exposure : what was counted
    rate : posterior mean, with its 94% highest-density interval
    expected_rank, rank_5%, rank_95% : mean and 90% interval of its rank
    p_highest, p_lowest : that its rate is the highest, the lowest
    p_above_overall : that its rate is above the overall rate
    """
    num_groups = len(rates.labels)
    rank = _ranks(rates.draws)  # (G, S)
    lowest, highest = (rank == num_groups).mean(axis=1), (rank == 1).mean(axis=1)
    expected = rank.mean(axis=1)
    low, high = _central_ranks(rank)
    table = pd.DataFrame(
        {
            "rows": rates.rows.astype(int),
            "total": rates.total.astype(int),
            "exposure": rates.exposure,
            "rate": rates.mean,
            LOW: rates.low,
            HIGH: rates.high,
            "expected_rank": expected,
            RANK_LOW: low,
            RANK_HIGH: high,
            "p_highest": highest,
            "p_lowest": lowest,
            "p_above_overall": rates.above(rates.overall),
        },
        index=pd.Index(rates.labels, name="group"),
    )
    return table.iloc[rates.order]


def contrasts(rates: GroupRates, against: str | None = None) -> pd.DataFrame:
    """Pairs of groups, the higher mean rate first: every pair of up to `PAIRS` groups, or all against one reference.

    Parameters
    ----------
    against : a label to compare all other groups with; by default every pair or, of more groups, the overall rate

    Returns
    -------
    against : the group, or "overall", that the group of the row is compared with
    ratio : median of group / against, with its central 94% interval
    difference : mean of group - against, with its central 94% interval
    p_greater : P(group > against)
    expected_loss : E max(against - group, 0)
    """
    order = rates.order
    if against is not None:
        reference = rates.labels.index(against)
        one = order[order != reference]
        names, other = np.full(len(one), against, object), rates.draws[reference]
    elif len(order) > PAIRS:
        one, names, other = order, np.full(len(order), OVERALL, object), rates.overall
    else:
        first, second = np.triu_indices(len(order), 1)
        one, names = order[first], np.array(rates.labels, object)[order[second]]
        other = rates.draws[order[second]]

    def contrast(block: slice) -> np.ndarray:
        return _contrast(rates.draws[one[block]], other[block] if other.ndim > 1 else other)

    found = np.concatenate(on_threads(contrast, _slices(len(one), rates.draws.shape[1])))
    columns = ["ratio", *RATIOS, "difference", *DIFFERENCES, "p_greater", "expected_loss"]
    table = pd.DataFrame(found, columns=columns, index=pd.Index(np.array(rates.labels, object)[one], name="group"))
    table.insert(0, "against", names)
    return table


def is_decided(p_greater: np.ndarray | pd.Series) -> np.ndarray:
    """Whether it is known which of two rates is higher."""
    return np.asarray(np.maximum(p_greater, 1 - p_greater) > DECIDED)


def indistinct(greater: np.ndarray) -> list[range]:
    """The longest runs of neighbours of which no pair is decided.

    Parameters
    ----------
    greater : (K, K), P(row > column), in the order of the mean rates
    """
    decided, runs, last = is_decided(greater), list[range](), 0
    for first in range(len(greater)):
        stop = first + 1
        while stop < len(greater) and not decided[stop, first:stop].any():
            stop += 1
        if stop > max(last, first + 1):
            runs.append(range(first, stop))
        last = max(last, stop)
    return runs


def share_greater(one: np.ndarray, other: np.ndarray | float) -> np.ndarray:
    """Share of draws, the last axis, in which the first is greater; a tie counts half."""
    return ((one > other).mean(axis=-1) + (one >= other).mean(axis=-1)) / 2


def _by_group(lam: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Some draws of rates (chain, draw, G) as (G, S)."""
    num_chains, _, num_groups = lam.shape
    draws = np.empty((num_groups, num_chains * len(kept)))

    def fill(block: slice) -> None:
        draws[block] = lam[:, kept, block].reshape(-1, block.stop - block.start).T

    on_threads(fill, _slices(num_groups, 16 * draws.shape[1]))  # small blocks, which stay in the cache of a core
    return draws


def _ranks(draws: np.ndarray) -> np.ndarray:
    """Ranks within each draw, (G, S), 1 for the highest."""
    num_groups, num_draws = draws.shape
    rank, place = np.empty(draws.shape, np.int32), np.arange(1, num_groups + 1, dtype=np.int32)

    def fill(block: slice) -> None:
        order = np.argsort(-draws[:, block].T, axis=1)  # (block, G)
        found = np.empty(order.shape, np.int32)
        np.put_along_axis(found, order, place[None], axis=1)
        rank[:, block] = found.T

    on_threads(fill, _slices(num_draws, num_groups))
    return rank


def _central_ranks(rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the central `RANKS` of each row of (G, S), each (G,): the tails are as near to their share as can be.

    Sorts the rows in place.
    """
    rank.sort(axis=1)
    ends = []
    for share in ((1 - RANKS) / 2, (1 + RANKS) / 2):
        at = rank[:, math.ceil(share * rank.shape[1]) - 1]  # P(rank < at) < share <= P(rank <= at)
        missing = share - (rank < at[:, None]).mean(axis=1)
        excess = (rank <= at[:, None]).mean(axis=1) - share
        ends.append((at, missing, excess))
    (low, missing, excess), (high, short, over) = ends
    return low + (excess < missing), high - (short < over)


def _contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The numbers of `contrasts`, (P, 8), of draws (P, S) against (P, S) or (S,)."""
    difference = one - other
    with np.errstate(over="ignore"):  # a rate may be as small as a number can be
        ratio = np.quantile(one / other, [0.5, *TAILS], axis=1)
    ends = np.quantile(difference, TAILS, axis=1)
    loss = np.maximum(-difference, 0).mean(axis=1)
    return np.stack([*ratio, difference.mean(axis=1), *ends, share_greater(one, other), loss], axis=1)


def _slices(length: int, width: int) -> Iterator[slice]:
    """Slices of a length, with at most `BLOCK` values of this width."""
    size = max(1, BLOCK // width)
    return (slice(begin, min(begin + size, length)) for begin in range(0, length, size))
