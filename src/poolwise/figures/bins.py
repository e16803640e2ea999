"""The numbers behind the figures: counts in bins, quantiles of counts."""

import numpy as np
import pandas as pd

from poolwise.checks.predictive_statistics import QUANTILES, TAIL
from poolwise.checks.summary import INTERVAL

__all__ = ["BAND", "QUANTILES", "TAIL"]

BAND = INTERVAL  # as the intervals of the summary


def edges_of(observed: np.ndarray, simulated: np.ndarray, *, most: int) -> np.ndarray:
    """Integer edges (K + 1,), K <= most, of bins that hold all observed and 99% of the simulated counts."""
    low, high = np.quantile(simulated, [0.005, 0.995], method="inverted_cdf")
    return whole_edges(min(low, observed.min()), max(high, observed.max()), most=most)


def whole_edges(low: int, high: int, *, most: int) -> np.ndarray:
    """Integer edges (K + 1,), K <= most, of bins of one width from low to high."""
    width = -(-(high - low + 1) // most)
    return low + width * np.arange(-(-(high - low + 1) // width) + 1)


def tabulate(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Frequencies by table of the bins, and below and above them: (D, N) -> (D, K + 2)."""
    size = len(edges) + 1
    index = np.searchsorted(edges, counts, side="right") + size * np.arange(len(counts))[:, None]
    return np.bincount(index.ravel(), minlength=size * len(counts)).reshape(-1, size)


def bins_of(values: np.ndarray, *, low: float = 0.0, high: float = 1.0, number: int = 60) -> np.ndarray:
    """Edges of bins of one width between two quantiles of these values."""
    first, last = np.quantile(values, [low, high])
    margin = 0 if last > first else 0.5 * max(1.0, abs(last))
    return np.linspace(first - margin, last + margin, number + 1)


def quantile_row(table: pd.DataFrame, probability: float) -> int:
    """Row of the smallest count in the table of a new group with at least this cumulative probability."""
    return min(int(table["cumulative"].searchsorted(probability)), len(table) - 1)


def count_quantile(table: pd.DataFrame, probability: float) -> int:
    """Smallest count in the table of a new group with at least this cumulative probability."""
    return int(table["count"].iloc[quantile_row(table, probability)])


def spread_out(order: np.ndarray, most: int) -> np.ndarray:
    """At most this many positions of an order, evenly spaced, with the first and the last."""
    return order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).round().astype(int))]
