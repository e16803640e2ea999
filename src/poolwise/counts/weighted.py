"""Quantiles of rows that are given as distinct values with a number of rows each."""

from collections.abc import Sequence

import numpy as np


def row_quantiles(
    value: np.ndarray, rows: np.ndarray, levels: Sequence[float] | np.ndarray, group: np.ndarray | None = None
) -> np.ndarray:
    """Quantiles of all rows of each group, (G, L), interpolated between rows as `numpy.quantile` does.

    Parameters
    ----------
    value : (C,)
    rows : (C,), number of rows with each value, at least 1
    levels : (L,), from 0 to 1
    group : (C,), from 0 without a gap; one group if not given
    """
    group = np.zeros(len(value), np.int64) if group is None else group
    order = np.lexsort((value, group))
    value, ends = value[order], np.cumsum(rows[order])
    size = np.bincount(group, rows).astype(np.int64)  # (G,)
    begin = np.cumsum(size) - size
    place = np.asarray(levels) * (size[:, None] - 1)  # (G, L), from the first row of the group
    low = np.floor(place).astype(np.int64)
    at_low, at_high = (
        value[np.searchsorted(ends, begin[:, None] + row, side="right")].astype(float)
        for row in (low, np.minimum(low + 1, size[:, None] - 1))
    )
    share, gap = place - low, at_high - at_low
    return np.where(share < 0.5, at_low + gap * share, at_high - gap * (1 - share))
