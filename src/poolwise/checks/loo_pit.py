"""Rows predicted from all others: LOO-PIT and the coverage of predictive intervals.

A left-out row has a predictive distribution F. For counts F(y) is not a single number: the randomised PIT is uniform
between P(Y < y) and P(Y <= y). The curves here are its mean over that randomness (Czado, Gneiting and Held 2009,
doi:10.1111/j.1541-0420.2009.01191.x), so they depend on no seed; their bands are those of randomised values, slightly
wider than needed.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
from scipy.stats import binom

from poolwise.checks.summary import INTERVAL

LEVELS = np.arange(1, 100) / 100
NOTICED = 1.88  # standard errors: 94%
SIMULATED = 2000  # uniform samples behind a band
ENOUGH_ROWS = 100_000  # of a sample: the tail probabilities of more rows have nearly the same distribution


@dataclass(frozen=True)
class LooPit:
    """The place of every row in its prediction from all other rows.

    Attributes
    ----------
    low, high : (C,), P(Y < y) and P(Y <= y) of one row of each cell
    rows : (C,), rows of the cell
    """

    low: np.ndarray
    high: np.ndarray
    rows: np.ndarray

    @property
    def num_rows(self) -> int:
        """All rows."""
        return int(self.rows.sum())

    def cumulative(self, at: np.ndarray) -> np.ndarray:
        """Mean share of rows with a randomised PIT of at most `at`, (K,)."""
        width = np.maximum(self.high - self.low, 1e-12)
        shares = [np.clip((each - self.low) / width, 0, 1) @ self.rows for each in at]
        return np.array(shares) / self.rows.sum()

    @cached_property
    def ecdf(self) -> tuple[pd.DataFrame, float]:
        """Share of rows by place, with the band of uniform values; and the p-value of the band."""
        line = self.cumulative(LEVELS)
        bottom, top, _ = band(self.num_rows)
        table = pd.DataFrame({"place": LEVELS, "rows": line, "3%": bottom, "97%": top}).set_index("place")
        return table, _p_value(line, self.num_rows)

    @cached_property
    def coverage(self) -> tuple[pd.DataFrame, float]:
        """Coverage of the central intervals by nominal level, with its band; and the p-value of the band."""
        ends = self.cumulative(np.concatenate([(1 - LEVELS) / 2, (1 + LEVELS) / 2]))
        covered = ends[len(LEVELS) :] - ends[: len(LEVELS)]
        bottom, top, _ = band(self.num_rows)
        table = pd.DataFrame({"nominal": LEVELS, "covered": covered, "3%": bottom, "97%": top}).set_index("nominal")
        return table, _p_value(covered, self.num_rows)

    @property
    def mean(self) -> float:
        """Mean PIT; 1/2 if uniform."""
        return float(self.rows @ (self.low + self.high) / 2 / self.rows.sum())

    @property
    def variance(self) -> float:
        """Variance of the randomised PIT; 1/12 if uniform."""
        squares = (self.low**2 + self.low * self.high + self.high**2) / 3
        return float(self.rows @ squares / self.rows.sum()) - self.mean**2

    @property
    def randomised(self) -> float:
        """Share of the variance of the PIT that the randomisation makes: width^2 / 12 between its ends, of 1 / 12."""
        return float(self.rows @ (self.high - self.low) ** 2 / self.rows.sum())

    @property
    def departures(self) -> str:
        """How the rows depart from their predictions, in words."""
        size = self.num_rows
        shift, spread = (self.mean - 1 / 2) * np.sqrt(12 * size), (self.variance - 1 / 12) * np.sqrt(180 * size)
        off = [
            *([f"lie {'above' if shift > 0 else 'below'} their predictions"] if abs(shift) > NOTICED else []),
            *([f"spread {'wider' if spread > 0 else 'less'} than predicted"] if abs(spread) > NOTICED else []),
        ]
        return " and ".join(off) or "are of another shape than predicted"


@cache
def band(num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simultaneous 94% band at all `LEVELS` for the ECDF of this many uniform values.

    Returns its ends, and the sorted smallest tail probabilities of the simulated samples. Säilynoja, Bürkner and
    Vehtari (2022), Statistics and Computing 32(32), by simulation: the counts between levels are multinomial, so the
    cost does not depend on the number of rows.
    """
    rng, size = np.random.default_rng(0), min(num_rows, ENOUGH_ROWS)
    between = rng.multinomial(size, np.diff(LEVELS, prepend=0, append=1), size=SIMULATED)
    least = np.sort(_tails(between.cumsum(axis=1)[:, :-1], size).min(axis=1))
    level = np.quantile(least, 1 - INTERVAL)
    low, high = binom.ppf(level / 2, num_rows, LEVELS), binom.isf(level / 2, num_rows, LEVELS)
    return low / num_rows, high / num_rows, least


def _p_value(line: np.ndarray, num_rows: int) -> float:
    """Share of uniform samples that depart at least as far as this line at any level."""
    return float(np.mean(band(num_rows)[2] <= _tails(np.round(line * num_rows), num_rows).min()))


def _tails(below: np.ndarray, num_rows: int) -> np.ndarray:
    """Two-sided tail probability of the number of rows at or below each level."""
    lower = binom.cdf(below, num_rows, LEVELS)
    upper = binom.sf(below - 1, num_rows, LEVELS)
    return np.minimum(1, 2 * np.minimum(lower, upper))
