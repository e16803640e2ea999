"""Counts to tables and words, before any model: how many, how spread, and what the spread suggests.

Poisson counts have a variance equal to their mean. Pearson's X^2 = sum_i (y_i - m_i)^2 / m_i, with m_i the expected
count of row i at one rate, is the variance over the mean times the degrees of freedom. Given the total, the counts of
Poisson noise are multinomial: the interval of X^2 is simulated where events are few, and otherwise follows from its
mean and variance, which are known exactly. Whether groups differ is a permutation test, valid for any noise; of many
rows, by the mean and variance of its statistic. The cost is that of the cells, whatever the number of rows.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import gamma

from poolwise.counts.cells import run_starts
from poolwise.counts.covariates import Covariate
from poolwise.counts.weighted import row_quantiles
from poolwise.text import listed, short

if TYPE_CHECKING:
    from poolwise.counts.cells import Counts

__all__ = [
    *("Dispersion", "by_group", "dispersion", "dispersion_by_group", "hint", "median_exposure", "summary"),
    *("costs_by_row", "with_covariates"),
]

BAND = 0.94  # as the intervals of the fit
TAIL = (1 - BAND) / 2
SIMULATED = 1000  # tables of Poisson noise
MANY_STRATA = 5000  # whose densities take seconds in a fit
EVENTS = 2**19 // SIMULATED  # most events whose X^2 is simulated; of more, the gamma law is near enough
PERMUTATIONS, SHUFFLED = 499, 2**24  # most, and rows times permutations


@dataclass(frozen=True)
class Dispersion:
    """Variance over mean, and its 94% interval under Poisson noise.

    Attributes
    ----------
    freedom : degrees of freedom; 0 if the ratio is undefined (`ratio` is then NaN)
    """

    ratio: float
    low: float
    high: float
    freedom: int

    @property
    def verdict(self) -> str:
        """Whether the ratio is `more` or `less` than under Poisson noise, `alike`, or `unknown`."""
        if not self.freedom:
            return "unknown"
        near = 1e-9 * self.high  # equal up to rounding, as of a table with one event
        return "more" if self.ratio > self.high + near else "less" if self.ratio < self.low - near else "alike"


UNKNOWN = Dispersion(float("nan"), float("nan"), float("nan"), 0)


def summary(counts: "Counts") -> pd.DataFrame:
    """All rows in one line: number, mean, sd, quartiles, extremes, zeros, variance, and variance over mean."""
    whole = np.zeros(counts.num_cells, np.int64)
    return _describe(counts.cell_count, counts.cell_multiplicity, whole).assign(groups=counts.num_groups)


def by_group(counts: "Counts") -> pd.DataFrame:
    """One line per group: rows, min, max, median, mean, variance; with exposures also their sum and the rate."""
    group, rows = counts.cell_group, counts.cell_multiplicity
    table = _describe(counts.cell_count, rows, group)
    table.index = pd.Index(counts.labels, name="group")
    if counts.has_exposure:
        table["exposure"] = np.bincount(group, rows * counts.cell_exposure)
        table["rate"] = np.bincount(group, rows * counts.cell_count) / table["exposure"]
    return table


def median_exposure(counts: "Counts") -> float:
    """The median exposure of the rows; 1 if the table has none."""
    return float(row_quantiles(counts.cell_exposure, counts.cell_multiplicity, [0.5])[0, 0])


def _describe(count: np.ndarray, rows: np.ndarray, group: np.ndarray) -> pd.DataFrame:
    """One line per group of the cells (C,): counts, the rows with each, and their group."""
    size = np.bincount(group, rows)
    mean = np.bincount(group, rows * count) / size
    squares = np.bincount(group, rows * (count - mean[group]) ** 2)
    var = np.divide(squares, size - 1, out=np.full(len(size), np.nan), where=size > 1)
    least, q25, median, q75, most = row_quantiles(count, rows, [0, 0.25, 0.5, 0.75, 1], group).T
    return pd.DataFrame(
        {
            "rows": size.astype(np.int64),
            "mean": mean,
            "sd": np.sqrt(var),
            "min": least.astype(np.int64),
            "q25": q25,
            "median": median,
            "q75": q75,
            "max": most.astype(np.int64),
            "zeros": np.bincount(group, rows * (count == 0)).astype(np.int64),
            "var": var,
            "var_over_mean": np.divide(var, mean, out=np.full(len(size), np.nan), where=mean > 0),
        }
    )


def dispersion(counts: "Counts") -> tuple[Dispersion, Dispersion]:
    """Variance over mean of all rows about one rate, and within groups about each group's own rate."""
    group, *cells = _cells(counts)
    alone, within = (_pearson(of, *cells) for of in (np.zeros_like(group), group))
    return _interval(alone, slice(None)), _interval(within, slice(None))


def dispersion_by_group(counts: "Counts") -> list[Dispersion]:
    """Variance over mean of every group about its own rate."""
    found = _pearson(*_cells(counts))
    return [_interval(found, slice(g, g + 1)) if known else UNKNOWN for g, known in enumerate(found.freedom > 0)]


def _cells(counts: "Counts") -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group, exposure, count and number of rows of every cell, each (C,)."""
    return counts.cell_group, counts.cell_exposure, counts.cell_count, counts.cell_multiplicity


class _Pearson(NamedTuple):
    """X^2 by group, and what is known of it under Poisson noise given the total of the group; each (G,)."""

    square: np.ndarray
    freedom: np.ndarray
    spread: np.ndarray  # its variance
    simulated: np.ndarray | None  # (SIMULATED, G); None if there are many events


def _pearson(group: np.ndarray, exposure: np.ndarray, count: np.ndarray, times: np.ndarray) -> _Pearson:
    """X^2 about the rate of each group; 0 with 0 degrees of freedom for one row or no event. Arguments by cell.

    Haldane (1937), Biometrika 29(1/2): the variance is 2 (n - 1) + (sum 1 / p_i - n^2 - 2 n + 2) / total, with p_i
    the share of row i in the exposure.
    """
    rows, size, total = (np.bincount(group, times * each) for each in (np.ones(len(count)), exposure, count))
    expected = exposure * (total / size)[group]
    square = np.divide((count - expected) ** 2, expected, out=np.zeros(len(count)), where=expected > 0)
    inverse = np.bincount(group, times * size[group] / exposure)  # sum of 1 / p_i
    known = (rows > 1) & (total > 0)
    spread = 2 * (rows - 1) + (inverse - rows**2 - 2 * rows + 2) / np.maximum(total, 1)
    is_sparse = max(total.sum(), len(total)) <= EVENTS
    return _Pearson(
        np.where(known, np.bincount(group, times * square), 0.0),
        np.where(known, rows - 1, 0.0),
        np.where(known, spread, 0.0),
        known * _simulated(group, exposure, expected, times) if is_sparse else None,
    )


def _simulated(group: np.ndarray, exposure: np.ndarray, expected: np.ndarray, times: np.ndarray) -> np.ndarray:
    """X^2 of every group, (SIMULATED, G), if its events fall on its rows in proportion to the exposure."""
    size, total = np.bincount(group, times * exposure), np.bincount(group, times * expected).round().astype(int)
    ends, last_rows, num_groups = np.cumsum(times * exposure), np.cumsum(times), len(total)
    of_event = np.repeat(np.arange(num_groups), total)  # (E,), group
    start = ends[np.cumsum(np.bincount(group)) - 1] - size
    place = start[of_event] + size[of_event] * np.random.default_rng(0).random((SIMULATED, len(of_event)))
    cell = np.minimum(np.searchsorted(ends, place, side="right"), len(group) - 1)
    in_cell = ((place - (ends - times * exposure)[cell]) / exposure[cell]).astype(np.int64)
    row = (last_rows - times)[cell] + np.clip(in_cell, 0, times[cell] - 1)
    num_rows = last_rows[-1]
    hit, count = np.unique(row + num_rows * np.arange(SIMULATED)[:, None], return_counts=True)
    table, row = np.divmod(hit, num_rows)
    cell = np.searchsorted(last_rows, row, side="right")
    squares = np.bincount(table * num_groups + group[cell], count**2 / expected[cell], SIMULATED * num_groups)
    return squares.reshape(SIMULATED, -1) - total  # sum (y - m)^2 / m = sum y^2 / m - total


def _interval(found: _Pearson, some: slice) -> Dispersion:
    """X^2 of some groups over its degrees of freedom, with its central interval under Poisson noise.

    Where it is not simulated, the interval is that of the gamma law of the same mean and variance.
    """
    square, freedom, spread = (each[some].sum() for each in found[:3])
    if not freedom:
        return UNKNOWN
    if found.simulated is not None:
        low, high = np.quantile(found.simulated[:, some].sum(axis=1), [TAIL, 1 - TAIL], method="inverted_cdf")
    elif spread <= 1e-9 * freedom:  # a single event, equal exposures: X^2 is fixed
        low, high = freedom, freedom
    else:
        low, high = _gamma_ends(freedom, spread)
    return Dispersion(square / freedom, float(low / freedom), float(high / freedom), int(freedom))


@functools.cache  # groups that are alike share it
def _gamma_ends(mean: float, variance: float) -> np.ndarray:
    """The central interval of the gamma law of this mean and variance."""
    return gamma.ppf([TAIL, 1 - TAIL], mean**2 / variance, scale=variance / mean)


def hint(counts: "Counts") -> str:
    """What the variance over the mean suggests, in words."""
    alone, within = dispersion(counts)
    if not alone.freedom:
        why = "there is one row" if counts.num_rows == 1 else "every count is zero"
        return f"The ratio of variance to mean is undefined: {why}."
    about = " about their expectation by exposure" if counts.has_exposure else ""
    text = (
        f"The variance of the counts{about} is {alone.ratio:.2f} times the mean; Poisson counts that share one rate "
        f"give about 1, here {_range(alone)}."
    )
    if counts.num_groups == 1:
        return f"{text} {ONE_GROUP[alone.verdict]}"
    if not within.freedom:
        return f"{text} {NO_REPEATS[alone.verdict]}"
    text += f" Within the groups, about each group's own mean, it is {within.ratio:.2f} times"
    text += f" ({_range(within)} if Poisson)."
    if alone.verdict != "more":
        return f"{text} {HINTS[alone.verdict, within.verdict]}"
    return f"{text} {(DIFFERENT if _groups_differ(counts) else NOT_SHOWN)[within.verdict]}"


def _groups_differ(counts: "Counts") -> bool:
    """Whether groups differ by more than groups of rows at random do, in 97 of 100 cases: a permutation test."""
    if not counts.is_by_row:
        return _tail_of_shuffled(counts) <= TAIL
    group, exposure, count = counts.rows()
    starts, rng = np.flatnonzero(np.diff(group, prepend=-1)), np.random.default_rng(0)

    def between(order: np.ndarray) -> float:
        total, size = np.add.reduceat(count[order], starts), np.add.reduceat(exposure[order], starts)
        expected = size * count.sum() / exposure.sum()
        return float(np.sum((total - expected) ** 2 / expected))

    observed = between(np.arange(len(count))) * (1 - 1e-12)
    number = min(SHUFFLED // len(count), PERMUTATIONS)
    as_large = sum(between(rng.permutation(len(count))) >= observed for _ in range(number))
    return (1 + as_large) / (1 + number) <= TAIL


def _tail_of_shuffled(counts: "Counts") -> float:
    """Share of permutations of many rows with groups that differ as much, by the gamma law of the same moments."""
    found, spread = _between(*_cells(counts))
    mean = counts.num_groups - 1
    return float(gamma.sf(found, mean**2 / spread, scale=spread / mean))


def _between(group: np.ndarray, exposure: np.ndarray, count: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """How far groups differ, and its variance over permutations of the rows; arguments by cell.

    With d_i = y_i - e_i R about the common rate R, of variance s^2 and excess kurtosis k over N rows, the sum over G
    groups of (sum of d)^2 / (n s^2) has mean G - 1 and, for many rows, variance
    2 (G - 1) (N - G) / N + k (sum of 1 / n - G^2 / N). Box and Andersen (1955), JRSS B 17(1).
    """
    deviation = count - exposure * (rows @ count) / (rows @ exposure)
    size, num_rows = np.bincount(group, rows), rows.sum()
    square, num_groups = rows @ deviation**2 / num_rows, len(size)
    kurtosis = rows @ deviation**4 / num_rows / square**2 - 3
    found = np.sum(np.bincount(group, rows * deviation) ** 2 / size) / square
    spread = 2 * (num_groups - 1) * (num_rows - num_groups) / num_rows
    return float(found), float(spread + kurtosis * (np.sum(1 / size) - num_groups**2 / num_rows))


def _range(found: Dispersion) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"


MORE = "So the counts vary more than Poisson noise even within groups, which suggests a negative binomial."
NEITHER = "So the groups differ or the noise is wider than Poisson; the data do not show which."
DIFFERENT = {  # within groups, if the groups differ
    "more": f"{MORE} The groups differ by more than that explains.",
    "alike": "So the groups differ, and within them the counts vary like Poisson counts.",
    "less": "So the groups differ, and within them the counts vary less than Poisson counts, which no likelihood here "
    "can model.",
}
NOT_SHOWN = {  # within groups, if groups of rows at random could differ as much
    "more": f"{MORE} That is enough to explain the differences between groups too.",
    "alike": NEITHER,
    "less": NEITHER,
}
HINTS = {  # (all rows, within groups)
    ("alike", "more"): "So within groups the counts vary more than Poisson noise, which suggests a negative binomial.",
    (
        "alike",
        "alike",
    ): "So the counts vary about as much as Poisson counts of one rate; a single group that differs may not show here.",
    ("alike", "less"): "So within groups the counts vary less than Poisson counts, which no likelihood here can model.",
    ("less", "more"): "So the two ratios disagree: look at the groups one by one.",
    ("less", "alike"): "So the counts are slightly more even than Poisson counts of one rate.",
    ("less", "less"): "So the counts vary less than Poisson counts, which no likelihood here can model.",
}
ONE_GROUP = {
    "more": "So the counts vary more than Poisson noise, which suggests a negative binomial.",
    "alike": "So the counts vary about as much as Poisson counts.",
    "less": "So the counts vary less than Poisson counts, which no likelihood here can model.",
}
NO_REPEATS = {  # no group has two rows and an event
    "more": "So the groups differ or the noise is wider than Poisson; without repeated rows in a group, the data "
    "do not show which.",
    "alike": "So the counts vary about as much as Poisson counts of one rate.",
    "less": "So the counts are more even than Poisson counts of one rate.",
}


def costs_by_row(counts: "Counts") -> tuple[str, ...]:
    """That covariates make nearly every row of a large table a stratum of its own, a sentence."""
    if not counts.effects:
        return ()
    strata = len(run_starts(counts.cell_group, counts.cell_exposure, *counts.cell_x.T))
    if strata < MANY_STRATA or strata < counts.num_rows / 2:
        return ()
    numbers = [short(each.column) for each in counts.covariates if not each.levels]
    remedy = f"; round {listed(numbers)}, or make levels" if numbers else ""
    return (
        f"{strata:,} of {counts.num_rows:,} rows differ from all others in group, exposure or covariates, so this fit "
        f"costs by row{remedy}",
    )


def with_covariates(covariates: Sequence[Covariate], at: Mapping[str, str] | None = None) -> str:
    """The covariates of a rate or of a count in words, with a space before them; empty without covariates.

    Parameters
    ----------
    at : column -> its value; others are at their mean or reference level
    """
    each = [_described(covariate, (at or {}).get(covariate.column)) for covariate in covariates]
    return f" with {listed(each)}" if each else ""


def _described(covariate: Covariate, value: str | None) -> str:
    if value is None:
        value = covariate.levels[0] if covariate.levels else f"{covariate.centre:.4g} (the mean)"
    return f"{short(covariate.column)} {short(value)}"
