"""Scores of several runs of a model, pooled: against the closed forms, and against simulated runs."""

import numpy as np
import pandas as pd
import pytest

from poolwise.comparison.scores import Scores, pooled


def scores(elpd, mcse: float) -> Scores:
    index = pd.Index([str(k) for k in range(len(elpd))], name="group")
    return Scores(pd.DataFrame({"multiplicity": 1, "elpd": np.asarray(elpd, float)}, index=index), mcse)


def test_pooled_scores_are_weighted_by_precision():
    # weights 1 / 0.01 and 1 / 0.04: 0.8 and 0.2; total 0.8 * -3 + 0.2 * -3.1
    found = pooled([scores([-1, -2], 0.1), scores([-1.1, -2.0], 0.2)])
    assert found.scores.total[0] == pytest.approx(-3.02)
    np.testing.assert_allclose(found.scores.values, [-1.02, -2.0])
    assert found.scores.mcse == pytest.approx((1 / 0.01 + 1 / 0.04) ** -0.5)  # chi^2 is 0.2, below 1: no scale factor


def test_runs_that_spread_more_than_their_errors_widen_the_error():
    # mean 0, off -1 and 1, errors 0.1: chi^2 = 200 with one degree of freedom
    found = pooled([scores([-1.0], 0.1), scores([1.0], 0.1)])
    assert found.scores.mcse == pytest.approx(0.1 / np.sqrt(2) * np.sqrt(200))
    assert found.spread == pytest.approx(np.sqrt(2))


def test_unknown_errors_are_replaced_by_the_spread_of_the_runs():
    found = pooled([scores([-1.0], np.nan), scores([1.0], 0.1)])
    assert found.scores.total[0] == pytest.approx(0.0)
    assert found.scores.mcse == pytest.approx(1.0)  # sd sqrt(2), over sqrt(2)
    assert np.isnan(found.z).all()


def test_a_single_run_is_pooled_with_nothing():
    run = scores([-1.0, -2.0], 0.1)
    assert pooled([run]).scores is run


def test_z_of_independent_runs_is_standard_normal():
    rng = np.random.default_rng(1)
    z = [pooled([scores([rng.normal(0, mcse)], mcse) for mcse in (0.1, 0.2, 0.5)]).z for _ in range(4000)]
    # 12000 correlated values: the mean square of z is 1, its Monte Carlo error near sqrt(2 / 4000)
    assert np.mean(np.square(z)) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 4000))
