"""Counts to tables and words, before any model: how many, how spread, and what the spread suggests.

Poisson counts have a variance equal to their mean. Pearson's X^2 = sum_i (y_i - m_i)^2 / m_i, with m_i the expected
count of row i at one rate, is the variance over the mean times the degrees of freedom. Given the total, its mean and
variance under Poisson noise are known exactly for any exposures, so its interval needs no simulation.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import f, gamma

if TYPE_CHECKING:
    from poolwise.counts.cells import Counts

__all__ = ["Dispersion", "by_group", "dispersion", "dispersion_by_group", "hint", "median_exposure", "summary"]

BAND = 0.94  # as the intervals of the fit


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
        return "more" if self.ratio > self.high else "less" if self.ratio < self.low else "alike"


def summary(counts: "Counts") -> pd.DataFrame:
    """All rows in one line: number, mean, sd, quartiles, extremes, zeros, variance, and variance over mean."""
    return _describe(counts.rows()[2], np.zeros(counts.num_rows, int), 1).assign(groups=counts.num_groups)


def by_group(counts: "Counts") -> pd.DataFrame:
    """One line per group: rows, min, max, median, mean, variance; with exposures also their sum and the rate."""
    group, exposure, count = counts.rows()
    table = _describe(count, group, counts.num_groups)
    table.index = pd.Index(counts.labels, name="group")
    if counts.has_exposure:
        table["exposure"] = np.bincount(group, exposure)
        table["rate"] = np.bincount(group, count) / table["exposure"]
    return table


def median_exposure(counts: "Counts") -> float:
    """The median exposure of the rows; 1 if the table has none."""
    return float(np.median(counts.rows()[1]))


def _describe(count: np.ndarray, group: np.ndarray, num_groups: int) -> pd.DataFrame:
    grouped = pd.Series(count).groupby(group)
    table = pd.DataFrame(
        {
            "rows": grouped.size(),
            "mean": grouped.mean(),
            "sd": grouped.std(),
            "min": grouped.min(),
            "q25": grouped.quantile(0.25),
            "median": grouped.median(),
            "q75": grouped.quantile(0.75),
            "max": grouped.max(),
            "zeros": (pd.Series(count) == 0).groupby(group).sum(),
            "var": grouped.var(),
        },
        index=range(num_groups),
    )
    return table.assign(var_over_mean=(table["var"] / table["mean"]).where(table["mean"] > 0))


def dispersion(counts: "Counts") -> tuple[Dispersion, Dispersion]:
    """Variance over mean of all rows about one rate, and within groups about each group's own rate."""
    group, exposure, count = counts.rows()
    alone = _pearson(np.zeros_like(group), exposure, count, 1)
    within = _pearson(group, exposure, count, counts.num_groups)
    return _interval(*(part.sum() for part in alone)), _interval(*(part.sum() for part in within))


def dispersion_by_group(counts: "Counts") -> list[Dispersion]:
    """Variance over mean of every group about its own rate."""
    group, exposure, count = counts.rows()
    parts = _pearson(group, exposure, count, counts.num_groups)
    return [_interval(*each) for each in zip(*parts, strict=True)]


def _pearson(
    group: np.ndarray, exposure: np.ndarray, count: np.ndarray, num_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X^2, its degrees of freedom and its variance under Poisson noise given the total, each by group (G,).

    Haldane (1937), Biometrika 29(1/2): the variance is 2 (n - 1) + (sum 1 / p_i - n^2 - 2 n + 2) / total, with p_i
    the share of row i in the exposure.
    """
    rows, size, total = (np.bincount(group, each, num_groups) for each in (np.ones(len(count)), exposure, count))
    expected = exposure * (total / size)[group]
    square = np.divide((count - expected) ** 2, expected, out=np.zeros(len(count)), where=expected > 0)
    inverse = np.bincount(group, size[group] / exposure, num_groups)  # sum of 1 / p_i
    known = (rows > 1) & (total > 0)
    spread = 2 * (rows - 1) + (inverse - rows**2 - 2 * rows + 2) / np.maximum(total, 1)
    return (
        np.where(known, np.bincount(group, square, num_groups), 0.0),
        np.where(known, rows - 1, 0.0),
        np.where(known, spread, 0.0),
    )


def _interval(square: float, freedom: float, spread: float) -> Dispersion:
    """X^2 over its degrees of freedom, with the central interval of the gamma law of the same mean and variance."""
    if not freedom:
        return Dispersion(float("nan"), float("nan"), float("nan"), 0)
    tail = (1 - BAND) / 2
    if spread <= 1e-9 * freedom:  # a single event: X^2 is fixed
        return Dispersion(square / freedom, 1.0, 1.0, int(freedom))
    low, high = gamma.ppf([tail, 1 - tail], freedom**2 / spread, scale=spread / freedom) / freedom
    return Dispersion(square / freedom, float(low), float(high), int(freedom))


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
    if (alone.verdict, within.verdict) == ("more", "more"):
        return f"{text} {MORE} {BEYOND if _groups_differ(counts, within) else EXPLAINED}"
    return f"{text} {HINTS[alone.verdict, within.verdict]}"


def _groups_differ(counts: "Counts", within: Dispersion) -> bool:
    """Whether the groups differ by more than the noise within them: analysis of variance, 97% quantile."""
    group, exposure, count = counts.rows()
    total, size = np.bincount(group, count), np.bincount(group, exposure)
    expected = size * total.sum() / size.sum()
    between = np.sum((total - expected) ** 2 / expected) / (counts.num_groups - 1)
    return bool(between / within.ratio > f.ppf(1 - (1 - BAND) / 2, counts.num_groups - 1, within.freedom))


def _range(found: Dispersion) -> str:
    return f"{found.low:.2f} to {found.high:.2f}"


MORE = "So the counts vary more than Poisson noise even within groups, which suggests a negative binomial."
BEYOND = "The groups differ by more than that explains."
EXPLAINED = "That is enough to explain the differences between groups too."
HINTS = {  # (all rows, within groups)
    ("more", "alike"): "So the groups differ, and within them the counts vary like Poisson counts.",
    ("more", "less"): "So the groups differ, and within them the counts vary less than Poisson counts, which no "
    "likelihood here can model.",
    ("alike", "more"): "So within groups the counts vary more than Poisson noise, which suggests a negative binomial.",
    ("alike", "alike"): "So nothing here contradicts Poisson noise or one rate for all groups.",
    ("alike", "less"): "So within groups the counts vary less than Poisson counts, which no likelihood here can model.",
    ("less", "more"): "So the two ratios disagree: look at the groups one by one.",
    ("less", "alike"): "So the counts are slightly more even than Poisson counts of one rate.",
    ("less", "less"): "So the counts vary less than Poisson counts, which no likelihood here can model.",
}
ONE_GROUP = {
    "more": "So the counts vary more than Poisson noise, which suggests a negative binomial.",
    "alike": "So nothing here contradicts Poisson noise.",
    "less": "So the counts vary less than Poisson counts, which no likelihood here can model.",
}
NO_REPEATS = {  # no group has two rows and an event
    "more": "So the groups differ or the noise is wider than Poisson; without repeated rows in a group, the data "
    "do not show which.",
    "alike": "So nothing here contradicts Poisson noise with one rate for all groups.",
    "less": "So the counts are more even than Poisson counts of one rate.",
}
