"""Quantiles of rows given by value and number."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from poolwise.counts.weighted import row_quantiles

LEVELS = [0, 0.03, 0.25, 0.5, 0.75, 0.97, 1]
CELLS = st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 5)), min_size=1, max_size=8)


@given(st.lists(CELLS, min_size=1, max_size=3))
def test_quantiles_of_cells_are_those_of_their_rows(groups):
    value, rows = (np.array(each) for each in zip(*(cell for group in groups for cell in group), strict=True))
    group = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
    found = row_quantiles(value, rows, LEVELS, group)
    for g in range(len(groups)):
        np.testing.assert_array_equal(found[g], np.quantile(np.repeat(value[group == g], rows[group == g]), LEVELS))


def test_a_thousand_billion_rows_cost_as_much_as_two_cells():
    assert row_quantiles(np.array([1.0, 3.0]), np.array([10**12, 10**12]), [0.25, 0.5, 0.75]).tolist() == [[1, 2, 3]]
