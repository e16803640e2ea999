"""The numbers behind the figures: counts in bins, quantiles of counts."""

import numpy as np
import pandas as pd

from poolwise.checks.predictive_statistics import QUANTILES, TAIL
from poolwise.checks.summary import INTERVAL
from poolwise.inference.tables import Tables

__all__ = ["BAND", "QUANTILES", "TAIL"]

BAND = INTERVAL  # as the intervals of the summary


def edges_of(observed: Tables, simulated: Tables, *, most: int) -> np.ndarray:
    """Integer edges (K + 1,), K <= most, of bins that hold all observed and 99% of the simulated counts."""
    low, high = simulated.quantiles([0.005, 0.995])
    return whole_edges(min(low, observed.count.min()), max(high, observed.count.max()), most=most)


def whole_edges(low: int, high: int, *, most: int) -> np.ndarray:
    """Integer edges (K + 1,), K <= most, of bins of one width from low to high."""
    width = -(-(high - low + 1) // most)
    return low + width * np.arange(-(-(high - low + 1) // width) + 1)


def tabulate(tables: Tables, edges: np.ndarray) -> np.ndarray:
    """Number of rows in each bin, and below and above them, by table, (D, K + 2)."""
    size = len(edges) + 1
    index = np.searchsorted(edges, tables.count, side="right") + size * np.arange(len(tables))[:, None]
    rows = None if tables.rows is None else tables.rows.ravel()
    return np.bincount(index.ravel(), rows, size * len(tables)).astype(np.int64).reshape(-1, size)


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
