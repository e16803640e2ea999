"""What is said of zeros: the numbers against closed forms, the sentences, and when the prior of their share decides."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

from pictures import make_counts
from poolwise.checks import zeros
from poolwise.checks.base import FitView, Settings
from poolwise.checks.gate import Verdict
from poolwise.checks.loo import Loo
from poolwise.checks.zeros import DOMINATES, Zeros, lines, zeros_of
from poolwise.inference import predictive
from poolwise.inference.datatree import to_tree
from poolwise.model.count_model import sites_of
from poolwise.model.likelihoods import likelihood_of
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER, model_of

CHAINS, DRAWS = 2, 150
SITES = {"zi": 0.3, "hurdle": 0.4, "delta": 0.7, "phi": 1 / 0.49}
ASKED = Settings(seed=0, sampler=SAMPLER, device=ONE_DEVICE, checks=frozenset({"zeros"}))


def view_of(likelihood, counts, *, lam=(3.0, 1.0), exposure=None, site_draws=None, pooling="unpooled") -> FitView:
    """A view whose draws are these parameters, or draws of its site for zeros."""
    table = make_counts("ab", rows=len(counts) // 2, counts=counts, exposure=exposure)
    model = model_of(pooling, likelihood)
    shape = (CHAINS, DRAWS)
    rates = np.broadcast_to(lam[0] if pooling == "pooled" else np.array(lam), (*shape, 2)[: 3 - (pooling == "pooled")])
    params = {name: np.full(shape, SITES[name]) for name in model.likelihood.parameters}
    if site_draws is not None:
        params[model.likelihood.zeros_site] = site_draws
    tree = to_tree({"lam": rates.copy()} | params, {"energy": np.ones(shape)}, table)
    posterior, cells = tree["posterior"].to_dataset(), tree["constant_data"].to_dataset()
    y = predictive.posterior_predictive(model, posterior, cells, num_draws=300, rng=np.random.default_rng(0))
    tree["posterior_predictive"] = xr.DataTree(y)
    size = table.num_cells
    return FitView(
        counts=table,
        model=model,
        prior_values=prior_values(PRIORS, sites=sites_of(pooling, likelihood)),
        tree=tree,
        summary=None,
        loo=Loo(-1.0, 1.0, 1.0, 0.01, np.zeros(size), np.zeros(size), 0.7, 0),
        verdict=Verdict((), 1.0, 800.0, 800.0, {}, "", 0.1, 0),
        new_group=None,
    )


def base_zero(likelihood, rate):
    return stats.nbinom(1 / 0.49, 1 / (1 + 0.49 * rate)).pmf(0) if "negative" in likelihood else np.exp(-rate)


COUNTS = np.array([0, 3, 2, 5, 0, 0, 1, 0, 2, 0])  # five rows of a, five of b


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("kind", ["", "zero_inflated_", "hurdle_"])
def test_numbers_are_the_sums_over_the_rows(kind, likelihood):
    found = zeros_of(view_of(kind + likelihood, COUNTS, exposure=2.0))
    alone = sum(5 * base_zero(likelihood, 2 * lam) for lam in (3.0, 1.0))
    expected = {"": alone, "zero_inflated_": 3 + 0.7 * alone, "hurdle_": 4.0}[kind]
    assert found.observed == 5
    assert found.expected == pytest.approx(expected, rel=1e-9)
    assert found.without == (pytest.approx(alone, rel=1e-9) if kind else None)
    law = stats.binom(10, expected / 10)  # about: the rows have two probabilities
    assert law.ppf(0.01) <= found.low <= found.high <= law.ppf(0.99)


def test_one_rate_serves_all_groups():
    found = zeros_of(view_of("poisson", COUNTS, pooling="pooled", lam=(1.5,)))
    assert found.expected == pytest.approx(10 * np.exp(-1.5))


def test_the_base_by_unit_has_the_concentration_of_the_exposure():
    view = view_of("zero_inflated_negative_binomial", COUNTS, exposure=2.0)
    likelihood = likelihood_of("zero_inflated_negative_binomial", "unit")
    by_unit = replace(view, model=replace(view.model, likelihood=likelihood))
    phi = 2.0 / 0.49
    alone = sum(5 * stats.nbinom(phi, phi / (phi + 2 * lam)).pmf(0) for lam in (3.0, 1.0))
    assert zeros_of(by_unit).without == pytest.approx(alone, rel=1e-9)


def test_metrics_are_the_numbers():
    view = view_of("zero_inflated_poisson", COUNTS)
    result = zeros.run(view, ASKED)
    found = result.value
    assert result.metrics == {
        "zeros/observed": 5.0,
        "zeros/expected": found.expected,
        "zeros/expected_without": found.without,
        "zeros/sd_ratio": found.sd_ratio,
    }
    assert {*zeros.run(view_of("poisson", COUNTS), ASKED).metrics} == {"zeros/observed", "zeros/expected"}


def said(likelihood, *numbers, **more):
    return lines(Zeros(*numbers, **more), view_of(likelihood, COUNTS))


def test_zeros_as_expected_need_no_share_of_their_own():
    assert said("negative_binomial", 12, 10.34, 4.0, 18.0) == (
        "12 rows have a zero where the model expects 10.3 (4 to 18), so neither zero inflation nor a hurdle is needed",
    )


def test_too_many_zeros_name_the_choices_that_expect_more():
    assert said("poisson", 40, 10.0, 4.0, 18.0) == (
        "40 rows have a zero where the model expects 10 (4 to 18): more than 97% of its tables have; compare with "
        "likelihood=zero_inflated_poisson or likelihood=hurdle_poisson or likelihood=negative_binomial",
    )


def test_too_few_zeros_name_none():
    assert said("negative_binomial", 1, 10.0, 4.0, 18.0) == (
        "1 row has a zero where the model expects 10 (4 to 18): fewer than 97% of its tables have",
    )


def test_a_table_without_zeros_of_which_none_are_expected_has_no_line():
    assert said("poisson", 0, 0.02, 0.0, 0.0) == ()


def test_a_share_of_zeros_is_said_with_what_it_adds():
    assert said("zero_inflated_negative_binomial", 58, 57.2, 45.0, 70.0, without=12.4, sd_ratio=0.2) == (
        "58 rows have a zero where the model expects 57.2 (45 to 70); at the same rates the negative binomial alone "
        "expects 12.4, so zi adds 44.8",
    )
    [line] = said("hurdle_poisson", 2, 2.5, 0.0, 6.0, without=9.0, sd_ratio=0.2)
    assert line.endswith("at the same rates the poisson alone expects 9, so hurdle takes off 6.5")


def test_a_prior_that_dominates_is_said_and_nothing_is_called_better():
    _, line = said("zero_inflated_negative_binomial", 58, 57.2, 45.0, 70.0, without=12.4, sd_ratio=0.85)
    assert line == (
        "the prior dominates zi: its posterior sd is 85% of its prior sd (above 71% the prior says more than the data),"
        " so these counts do not tell the zeros of zi from those of overdispersion"
    )
    _, line = said("hurdle_poisson", 2, 2.5, 0.0, 6.0, without=9.0, sd_ratio=0.85)
    assert line.endswith("so these counts hardly tell how many zeros it makes")


@pytest.mark.parametrize(("law", "is_dominated"), [(stats.beta(1, 4), True), (stats.beta(30, 90), False)])
def test_sd_ratio_is_that_of_the_draws_and_the_prior(law, is_dominated):
    draws = law.rvs((CHAINS, DRAWS), random_state=0)
    found = zeros_of(view_of("zero_inflated_poisson", COUNTS, site_draws=draws))
    assert found.sd_ratio == pytest.approx(draws.std() / stats.beta(1, 4).std())
    assert found.is_dominated == is_dominated


def sd_ratio(counts):
    """Posterior sd of zi by its prior sd for one rate and negative binomial counts, on a grid of lam, delta and zi."""
    value, rows = np.unique(np.append(counts, 0), return_counts=True)
    rows = rows - (value == 0)
    lam, delta = np.linspace(0.05, 3 * counts.mean() + 2, 60)[:, None], np.linspace(0.01, 2.2, 40)
    zi = (np.arange(200) + 0.5) / 200
    law = stats.nbinom(1 / delta**2, 1 / (1 + delta**2 * lam))
    log_prob = law.logpmf(value[:, None, None])
    positive = np.tensordot(rows[1:], log_prob[1:], 1) + stats.gamma(2, scale=5).logpdf(lam)
    joint = (positive + stats.halfnorm(scale=0.5).logpdf(delta))[..., None] + rows[1:].sum() * np.log1p(-zi)
    joint = joint + rows[0] * np.log(zi + (1 - zi) * np.exp(log_prob[0])[..., None])
    weight = np.exp(special.logsumexp(joint, axis=(0, 1)) + stats.beta(1, 4).logpdf(zi) - joint.max())
    mean = np.average(zi, weights=weight)
    return np.sqrt(np.average((zi - mean) ** 2, weights=weight)) / stats.beta(1, 4).std()


@pytest.mark.parametrize(
    ("rows", "mean", "delta", "is_dominated"),
    [
        (12, 2.0, 1.0, True),  # few rows
        (180, 0.5, 1.0, True),  # most zeros are explained either way
        (180, 4.0, 0.2, False),
        (180, 10.0, 0.5, False),
    ],
)
def test_the_rule_finds_the_tables_that_do_not_tell_inflation_from_overdispersion(rows, mean, delta, is_dominated):
    rng, found = np.random.default_rng(7), []
    for _ in range(10):
        counts = rng.negative_binomial(1 / delta**2, 1 / (1 + delta**2 * mean), rows)
        counts[rng.random(rows) < 0.25] = 0
        found.append(sd_ratio(counts) > DOMINATES)
    assert np.mean(found) > 0.7 if is_dominated else not any(found)
