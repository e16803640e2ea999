"""A fit compared with the exact answer: numbers made up, fits of the cookies, and the words."""

import numpy as np
import pandas as pd
import pytest

from poolwise.checks import exact_agreement
from poolwise.checks.exact.solve import Exact, solve
from poolwise.checks.loo import Loo, psis_loo
from poolwise.checks.summary import relative_efficiency, summarise
from poolwise.inference import predictive
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, VARIANTS, model_of, posterior_and_cells


def exact_of(**changes):
    one = {"log_marginal": -20.0, "mean": {"lam": np.array([3.0, 5.0]), "delta": np.array(0.2)}}
    one |= {"sd": {"lam": np.array([1.0, np.nan]), "delta": np.array(0.1)}, "elpd_loo": -19.0, "error": 1e-8}
    one |= {"cell_elpd": np.full(2, -9.5), "leave_group_out": np.full(2, -10.0), "new_group": (4.0, 2.0)}
    return Exact(**(one | changes))


def summary_of(**columns):
    one = {"mean": [0.22, 3.1, 5.0, 30.0], "sd": [0.1, 1.0, 9.0, 9.0], "mcse_mean": [0.01, 0.1, 0.1, 0.1]}
    one |= {"mcse_sd": [0.01, 0.5, 0.1, 0.1]}
    return pd.DataFrame(one | columns, index=["delta", "lam.b", "lam.a", "phi"])


def loo_of(elpd=-19.03, mcse=0.01):
    return Loo(elpd, 1.0, 1.0, mcse, np.full(2, -9.5), np.zeros(2), 0.7, 0)


def test_differences_are_counted_in_their_monte_carlo_errors():
    found = exact_agreement.compare(summary_of(), loo_of(), exact_of())
    z = {"mean of lam.b": 1.0, "mean of lam.a": 0.0, "mean of delta": 2.0}  # phi has no exact moments
    z |= {"sd of lam.b": 0.0, "sd of lam.a": np.nan, "sd of delta": 0.0}
    z |= {"elpd_loo": -3.0, "log marginal likelihood": np.nan}
    assert found.table["z"].to_dict() == pytest.approx(z, nan_ok=True)
    assert found.table.loc["mean of delta"].tolist() == pytest.approx([0.22, 0.2, 0.01, 2.0])
    assert found.table.at["log marginal likelihood", "exact"] == -20.0
    assert (found.elpd_difference, found.elpd_z) == pytest.approx((-0.03, -3.0))
    assert (found.z_max, found.limit, found.agrees) == (pytest.approx(3.0), 4.0, True)
    assert found.line == (
        "exact answer: the fit agrees: the largest of 6 |z| is 3.0, elpd_loo; elpd_loo -19.00 (the fit -0.030), "
        "log p(y) -20.000"
    )


def test_a_fit_that_differs_is_said_to():
    found = exact_agreement.compare(summary_of(mean=[0.3, 3.1, 7.0, 30.0]), loo_of(), exact_of())
    assert not found.agrees
    assert "the fit differs: mean of lam.a and 1 more of 6, |z| up to 20.0, above the 4.0" in found.line


def test_a_fit_that_differs_is_suspect_and_says_what_to_do():
    found = exact_agreement.result(
        exact_agreement.compare(summary_of(mean=[0.3, 3.1, 7.0, 30.0]), loo_of(), exact_of())
    )
    (condition,) = found.conditions
    assert not condition.passed
    assert condition.sentence == (
        "the fit differs from the exact answer: mean of lam.a is off by 20.0 Monte Carlo errors "
        "(and 1 more beyond 4.0); do not use these draws. "
        "Sample longer, or check that the priors suit the unit of the data"
    )
    assert found.tags == {"exact": "differs"}


def test_single_precision_is_named_as_a_cause_where_it_is_used():
    found = exact_agreement.compare(summary_of(mean=[1.0, 2.0, 5.0, 1.0]), loo_of(), exact_of())
    double, single = (exact_agreement.result(found, x64=x64).conditions[0].sentence for x64 in (True, False))
    assert "device.x64" not in double
    assert "They are in single precision, which may be the cause: repeat with device.x64=true. Sample longer" in single


def test_a_fit_that_agrees_gives_no_reason():
    (condition,) = exact_agreement.result(exact_agreement.compare(summary_of(), loo_of(), exact_of())).conditions
    assert (condition.passed, condition.sentence, condition.value) == (True, "", "3.0")


def test_an_error_that_is_not_known_gives_no_z():
    found = exact_agreement.compare(summary_of(mcse_mean=[0.0, np.nan, 0.1, 0.1]), loo_of(), exact_of())
    z = found.table["z"]
    assert z[["mean of delta", "mean of lam.b", "mean of lam.a"]].isna().tolist() == [True, True, False]


def test_an_exact_elpd_agrees_with_itself():
    found = exact_agreement.compare(summary_of(), loo_of(elpd=-19.0 + 1e-12, mcse=0.0), exact_of(error=0.0))
    assert abs(found.elpd_z) < 1
    assert not exact_agreement.compare(summary_of(), loo_of(elpd=-19.001, mcse=0.0), exact_of()).agrees


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_fits_of_the_cookies_agree(pooling, likelihood, fit_of, cookies):
    posterior, cells = posterior_and_cells(fit_of(pooling, likelihood), cookies)
    summary = summarise(posterior)
    model = model_of(pooling, likelihood)
    blocks = predictive.pointwise_log_likelihood(model.likelihood, posterior, cells)
    loo = psis_loo(blocks, cookies.cell_multiplicity, r_eff=relative_efficiency(summary, num_draws=16_000))
    values = prior_values(PRIORS, sites=sites_of(pooling, likelihood))
    found = exact_agreement.compare(summary, loo, solve(model, cookies, values))
    assert found.agrees, found.line
    sites = {"pooled": 1, "unpooled": 5, "hierarchical": 7}[pooling] + (likelihood == "negative_binomial")
    assert len(found.table) == 2 * sites + 2
    assert found.table["z"].notna().sum() == 2 * sites + 1
