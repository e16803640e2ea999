"""Groups that are alike, and one of them in the place of all."""

import jax.numpy as jnp
import numpy as np
import pytest

from poolwise.counts.cells import counts_from_rows
from poolwise.counts.statistics import CELLS, SUFFICIENT
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL
from poolwise.model.likelihoods.poisson import POISSON


def table_of(groups):
    """A table of groups, each a list of (count, exposure)."""
    rows = [(f"g{g:02d}", *row) for g, each in enumerate(groups) for row in each]
    return counts_from_rows(*zip(*rows, strict=True))


ONE = [(3, 1.0), (5, 1.0)]  # total 8 in two rows of exposure 1
SAME_TOTAL = [(4, 1.0), (4, 1.0)]
OTHER_EXPOSURES = [(3, 0.5), (5, 1.5)]
SINGLE = [(8, 2.0)]
TABLE = table_of([ONE, SINGLE, SAME_TOTAL, OTHER_EXPOSURES, ONE[::-1], SINGLE])


def test_groups_with_the_same_strata_are_alike():
    found = SUFFICIENT.alike(TABLE)
    assert found.kind.tolist() == [0, 1, 0, 2, 0, 1]
    assert found.first.tolist() == [0, 1, 3]
    assert found.number.tolist() == [3, 2, 1]


def test_by_cells_only_groups_with_the_same_rows_are_alike():
    assert CELLS.alike(TABLE).kind.tolist() == [0, 1, 2, 3, 0, 1]


def test_a_table_without_groups_that_are_alike_keeps_its_statistics():
    table = table_of([ONE, SINGLE, OTHER_EXPOSURES])
    whole, kinds = SUFFICIENT.of(table), SUFFICIENT.of_kinds(table)
    assert whole.keys() == kinds.keys()
    assert all(np.array_equal(whole[name], kinds[name]) for name in whole)


@pytest.mark.parametrize(("likelihood", "params"), [(POISSON, {}), (NEGATIVE_BINOMIAL, {"phi": 3.0})])
@pytest.mark.parametrize("groups", [[ONE, SINGLE, SAME_TOTAL, OTHER_EXPOSURES, SINGLE], [SINGLE, [(2, 2.0)], SINGLE]])
def test_one_group_of_each_kind_gives_the_probability_of_all(likelihood, params, groups):
    table, mu, shape = table_of(groups), jnp.asarray(4.0), jnp.asarray(2.5)
    whole = likelihood.log_marginal(SUFFICIENT.of(table), mu, shape, params)
    kinds = SUFFICIENT.of_kinds(table)
    assert len(kinds["group_total"]) < table.num_groups
    assert float(likelihood.log_marginal(kinds, mu, shape, params)) == pytest.approx(float(whole), rel=1e-12)
