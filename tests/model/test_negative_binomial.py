"""The laws of overdispersion: what summing rows changes, and spreads at other exposures."""

import jax.numpy as jnp
import numpy as np
import pytest

from poolwise.counts.cells import counts_from_rows
from poolwise.model.likelihoods.negative_binomial import NEGATIVE_BINOMIAL, NEGATIVE_BINOMIAL_BY_UNIT

RNG = np.random.default_rng(3)
GROUP, EXPOSURE = np.repeat([0, 1, 2], 10), RNG.choice([0.5, 1.0, 2.0, 4.0], 30)
COUNT = RNG.poisson(EXPOSURE * np.array([2.0, 5.0, 0.3])[GROUP])
ROWS = counts_from_rows([f"g{g}" for g in GROUP], COUNT, EXPOSURE)
SUMMED = counts_from_rows(["g0", "g1", "g2"], np.bincount(GROUP, COUNT).astype(int), np.bincount(GROUP, EXPOSURE))
LAM = np.array([[2.0, 5.0, 0.3], [0.1, 9.0, 4.0], [30.0, 1.0, 1e-3]])


def lost(likelihood, delta, value):
    """Log probability of the rows less that of their sums, at several values of the other parameters."""
    params = {"delta": jnp.asarray(delta), **likelihood.derived({"delta": jnp.asarray(delta)})}
    both = [np.array(value(likelihood, likelihood.statistics.of(table), params)) for table in (ROWS, SUMMED)]
    return both[0] - both[1]


def given_rates(likelihood, statistics, params):
    return [likelihood.log_likelihood(statistics, lam, params) for lam in LAM]


def integrated(likelihood, statistics, params):
    given = ((3.0, 2.0), (0.5, 0.3), (20.0, 40.0))
    return [likelihood.log_marginal(statistics, jnp.asarray(mu), jnp.asarray(a), params) for mu, a in given]


@pytest.mark.parametrize("delta", [0.05, 0.6, 3.0])
@pytest.mark.parametrize("value", [given_rates, integrated])
def test_summing_rows_loses_only_what_they_tell_of_delta_by_unit(value, delta):
    found = lost(NEGATIVE_BINOMIAL_BY_UNIT, delta, value)
    np.testing.assert_allclose(found, found[0], atol=1e-7)


def test_what_is_lost_depends_on_delta():
    one, other = (lost(NEGATIVE_BINOMIAL_BY_UNIT, delta, given_rates)[0] for delta in (0.05, 3.0))
    assert abs(one - other) > 1


def test_summing_rows_changes_the_rates_by_row():
    found = lost(NEGATIVE_BINOMIAL, 0.6, given_rates)
    assert np.ptp(found) > 1


def test_units_of_one_exposure_are_rows():
    table = counts_from_rows([f"g{g}" for g in GROUP], COUNT)
    params = {"delta": 0.6, "phi": jnp.asarray(1 / 0.36)}
    by_unit, by_row = (
        each.log_likelihood(each.statistics.of(table), LAM[0], params)
        for each in (NEGATIVE_BINOMIAL_BY_UNIT, NEGATIVE_BINOMIAL)
    )
    np.testing.assert_allclose(by_unit, by_row, rtol=1e-13)
