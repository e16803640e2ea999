"""Rows whose importance weights fail: values from refits, against exact answers and closed forms."""

from dataclasses import replace

import numpy as np
import pytest

import exact_reference
from poolwise.checks import integrated_loo, loo, refitted_loo
from poolwise.checks.base import Settings
from poolwise.checks.refitted_loo import bridge, refitted_where_bad, without_row
from poolwise.counts.cells import counts_from_rows
from poolwise.inference import predictive
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER, fit_cookies, groups_of, model_of, posterior_and_cells

pytestmark = pytest.mark.fit

QUICK = replace(SAMPLER, num_warmup=500, num_samples=1000)
OUTLIER = [40, 9, 8, 11, 7, 12, 10, 9, 6, 8, 13, 10]  # groups of one row: the first decides the spread of the rates


def normal_pair(shift, size=4000, seed=0):
    """Log l at draws given all and given others, where l turns N(0, 1) into N(shift, 1), and log c."""
    rng = np.random.default_rng(seed)
    log_c = -1.7
    given_all, given_others = rng.normal(shift, 1, (4, size)), rng.normal(0, 1, (4, size))
    return [log_c + shift * h - shift**2 / 2 for h in (given_all, given_others)], log_c


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0, 4.0])
def test_bridge_finds_a_known_ratio_within_its_monte_carlo_error(shift):
    (given_all, given_others), log_c = normal_pair(shift)
    found, mcse = bridge(given_all, given_others)
    assert abs(found - log_c) <= 4 * mcse + 1e-9
    assert mcse < 0.1


def test_bridge_is_right_where_importance_weights_and_a_plain_mean_fail():
    off = []
    for seed in range(30):
        (given_all, given_others), log_c = normal_pair(4.0, size=500, seed=seed)
        importance, plain = -np.log(np.mean(np.exp(-given_all))), np.log(np.mean(np.exp(given_others)))
        off.append([bridge(given_all, given_others)[0] - log_c, importance - log_c, plain - log_c])
    by_bridge, by_importance, by_mean = np.sqrt(np.mean(np.square(off), axis=0))
    assert by_bridge < 0.15 < 0.8 < min(by_importance, by_mean)


def test_error_of_a_bridge_is_that_of_many_repetitions():
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        pair = [2 * rng.normal(mean, 1, (4, 500)) - 2 for mean in (2.0, 0.0)]
        found.append(bridge(*pair))
    values, errors = np.array(found).T
    assert 0.8 < np.sqrt(np.mean(values**2)) / errors.mean() < 1.25


def test_a_table_without_a_row_has_one_less():
    table = counts_from_rows(["a", "a", "a", "b"], [3, 3, 5, 7])
    assert list(without_row(table, 0).cell_multiplicity) == [1.0, 1.0, 1.0]
    assert without_row(table, 1).cell_multiplicity[1] == pytest.approx(0, abs=1e-12)
    assert list(table.cell_multiplicity) == [2, 1, 1]


@pytest.fixture(scope="module")
def outlier():
    """An outlying group of one row: integrated values, those with refits, and the exact answer."""
    table = counts_from_rows([f"g{g:02d}" for g in range(len(OUTLIER))], OUTLIER)
    model, values = model_of("hierarchical", "poisson"), prior_values(PRIORS, sites=sites_of("hierarchical", "poisson"))
    posterior, cells = posterior_and_cells(fit_cookies(table, "hierarchical", "poisson", sampler=QUICK), table)
    blocks = predictive.pointwise_log_likelihood(model.likelihood, posterior, cells)
    psis = loo.psis_loo(blocks, table.cell_multiplicity, r_eff=1.0)
    integrated = integrated_loo.integrated_where_doubtful(psis, posterior, table, model, values, r_eff=1.0)

    def refitted(found=integrated):
        return refitted_where_bad(
            found, table, posterior, model, values, Settings(seed=0, sampler=QUICK, device=ONE_DEVICE)
        )

    exact = exact_reference.exact("hierarchical", "poisson", groups_of(table))
    return integrated, refitted, exact.elpd_loo, exact.elpd[0]


def test_the_row_of_an_outlying_group_comes_within_its_monte_carlo_error(outlier):
    integrated, refitted, elpd_loo, elpd_of_outlier = outlier
    found = refitted()
    assert integrated.bad_rows == 1 and found.bad_rows == 0
    assert found.refitted_rows >= 1
    assert abs(integrated.cell_elpd[0] - elpd_of_outlier) > 0.5
    assert abs(found.cell_elpd[0] - elpd_of_outlier) < 0.3
    assert abs(found.elpd - elpd_loo) < 4 * found.mcse
    assert found.p_loo + found.elpd == pytest.approx(integrated.p_loo + integrated.elpd)


def test_too_many_bad_rows_or_none_are_left_alone(outlier):
    integrated, refitted, *_ = outlier
    many = replace(integrated, pareto_k=np.full(len(OUTLIER), 0.9))
    assert refitted(many) is many
    none = replace(integrated, pareto_k=np.zeros(len(OUTLIER)))
    assert refitted(none) is none


def test_a_refit_whose_chains_disagree_is_not_used(outlier, monkeypatch):
    integrated, refitted, *_ = outlier
    monkeypatch.setattr(refitted_loo, "is_converged", lambda *_: False)
    assert refitted() is integrated
