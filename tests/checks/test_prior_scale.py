"""Whether priors and data are said to meet, before any fit."""

import re

import numpy as np
import pytest
import xarray as xr
import yaml
from arviz_stats.base import array_stats

from poolwise.checks import prior_scale
from poolwise.checks.exact.solve import solve
from poolwise.counts.cells import counts_from_rows
from poolwise.model.count_model import count_model, sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, ROOT, fit_cookies, model_of


def lines_of(counts, pooling, priors=PRIORS, likelihood="poisson"):
    values = prior_values(priors, sites=sites_of(pooling, likelihood))
    return prior_scale.lines(model_of(pooling, likelihood, priors), values, counts)


def rescaled(cookies, exposure):
    group, _, count = cookies.rows()
    return counts_from_rows([cookies.labels[g] for g in group], count, np.full(150, exposure))


@pytest.mark.parametrize("pooling", ["pooled", "unpooled", "hierarchical"])
def test_cookies_are_where_the_priors_expect_them(pooling, cookies):
    assert lines_of(cookies, pooling, likelihood="negative_binomial") == []


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (
            "pooled",
            r"^prior\.lam Gamma\(concentration 2, rate 0\.2\) expects rates of 0\.517 to 37\.2; .* show 0\.00305,",
        ),
        (
            "unpooled",
            r"^prior\.lam .* data show 0\.00199 to 0\.00401 in 5 of 5 groups, .* tail probability is 1e-07",
        ),
        ("hierarchical", r"^prior\.mu Gamma\(.*\) expects mean rates of .*; the data show 0\.00306, "),
    ],
)
def test_rates_far_below_the_prior_are_told_with_both_numbers(pooling, expected, cookies):
    (line,) = lines_of(rescaled(cookies, 3000.0), pooling)
    assert re.search(expected, line), line
    assert "\n" not in line


def test_a_spread_beyond_its_prior_is_told(cookies):
    found = lines_of(rescaled(cookies, 0.01), "hierarchical")
    assert [line.split()[0] for line in found] == ["prior.mu", "prior.sigma"]


@pytest.mark.parametrize(("num_groups", "num_rows"), [(20, 1), (20, 3), (100, 2)])
def test_wide_noise_is_not_taken_for_a_spread_between_groups(num_groups, num_rows):
    # tables from the priors, with a delta of 1; Poisson noise alone would warn on 5% to 17% even of smaller deltas
    rng, group, alarms = np.random.default_rng(0), np.repeat(np.arange(num_groups), num_rows), 0
    for _ in range(100):
        mu, sigma = rng.gamma(2, 5), rng.exponential(1)
        lam = np.repeat(rng.gamma((mu / sigma) ** 2, sigma**2 / mu, num_groups), num_rows)
        counts = counts_from_rows(group, rng.poisson(lam * rng.gamma(1, 1, len(group))))
        found = lines_of(counts, "hierarchical", likelihood="negative_binomial")
        alarms += any(line.startswith("prior.sigma") for line in found)
    assert alarms <= 3  # at most 0.5% expected; Binomial(100, 0.005) exceeds 3 in 0.2% of cases


def test_a_spread_beyond_its_prior_is_told_also_under_wide_noise(cookies):
    found = lines_of(rescaled(cookies, 0.01), "hierarchical", likelihood="negative_binomial")
    assert [line.split()[0] for line in found] == ["prior.mu", "prior.sigma"]


def test_groups_that_agree_do_not_speak_against_a_spread():
    alike = counts_from_rows(np.repeat(list("abcdef"), 20), np.tile([8, 12], 60))
    wide = PRIORS | {"sigma": {"name": "LogNormal", "loc": 2.0, "scale": 0.1}}
    assert lines_of(alike, "hierarchical", wide) == []


def test_groups_out_of_scale_are_counted():
    table = counts_from_rows(np.repeat(list("abcde"), 10), np.repeat([9, 10, 2000, 8, 11], 10))
    (line,) = lines_of(table, "unpooled")
    assert "in 1 of 5 groups" in line


@pytest.mark.parametrize(("exposure", "num_lines"), [(1.0, 0), (1000.0, 1)])
def test_no_event_says_as_much_as_its_exposure(exposure, num_lines):
    # 0 events in an exposure of 1 allow rates up to 2.5, which Gamma(2, 0.2) expects; in 1000, up to 0.0025
    table = counts_from_rows(["a", "b"], [0, 9], [exposure, 1.0])
    assert len(lines_of(table, "unpooled")) == num_lines


@pytest.mark.parametrize("pooling", ["pooled", "unpooled", "hierarchical"])
def test_data_from_the_priors_raise_no_alarm(pooling):
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        mu, sigma = rng.gamma(2, 5), rng.exponential(1)
        lam = {
            "pooled": np.full(20, mu),
            "unpooled": rng.gamma(2, 5, 20),
            "hierarchical": rng.gamma((mu / sigma) ** 2, sigma**2 / mu, 20),
        }[pooling]
        alarms += bool(lines_of(counts_from_rows(range(20), rng.poisson(lam)), pooling))
    assert alarms <= 6  # at most 1% (2%: two sites) expected; Binomial(200, 0.01) exceeds 6 once in 200


def test_one_group_of_a_hierarchy_speaks_of_the_mean_alone():
    assert lines_of(counts_from_rows(["a"], [3]), "hierarchical") == []
    (line,) = lines_of(counts_from_rows(["a"], [9000]), "hierarchical")
    assert line.startswith("prior.mu ")


def test_bounds_of_a_uniform_prior_are_kept():
    priors = PRIORS | {"lam": {"name": "Uniform", "low": 0.0, "high": 5.0}}
    (line,) = lines_of(counts_from_rows(["a"], [90]), "pooled", priors)
    assert "Uniform(high 5, low 0) expects rates of 0.025 to 4.97; the data show 90.5," in line


# What the warning advises, and the condition of the verdict.


def advised(line: str, priors: dict = PRIORS) -> dict:
    """The priors that the overrides at the end of a warning give."""
    found = {}
    for word in re.search(r"Priors in that unit: (.*) \(or prior=scaled\)\.$", line)[1].split():
        key, value = word.split("=")
        if "/" in key:
            site = key.removeprefix("prior/")
            found[site] = yaml.safe_load((ROOT / "conf" / "prior" / site / f"{value}.yaml").read_text())
        else:
            _, site, parameter = key.split(".")
            found[site][parameter] = float(value)
    return priors | found


PC12 = counts_from_rows(range(12), [4] * 3 + [5] * 6 + [6] * 3, np.full(12, 5e5))


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "zero_inflated_poisson"])
@pytest.mark.parametrize("pooling", ["pooled", "unpooled", "hierarchical"])
@pytest.mark.parametrize("exposure", [1e-4, 3000.0, 1e7])
def test_what_a_warning_advises_ends_it(exposure, pooling, likelihood, cookies):
    table = rescaled(cookies, exposure)
    *_, last = lines_of(table, pooling, likelihood=likelihood)
    assert lines_of(table, pooling, advised(last), likelihood) == []


@pytest.mark.fit
def test_fit_with_the_advised_priors_agrees_with_the_exact_answer():
    *_, last = lines_of(PC12, "hierarchical")
    priors = advised(last)
    values = prior_values(priors, sites=("mu", "sigma"))
    answer = solve(model_of("hierarchical", "poisson", priors), PC12, values)
    draws = fit_cookies(PC12, "hierarchical", "poisson", priors=priors).posterior
    for site in ("mu", "sigma"):
        assert abs(draws[site].mean() - answer.mean[site]) < 4 * array_stats.mcse(draws[site], method="mean")
    assert array_stats.rhat(draws["mu"]) < 1.01


def conditions_of(mu, *, is_exact=False, counts=PC12):
    values, posterior = prior_values(PRIORS, sites=("mu", "sigma")), xr.Dataset({"mu": (("chain", "draw"), mu)})
    return prior_scale.conditions(model_of("hierarchical", "poisson"), values, counts, posterior, is_exact=is_exact)


@pytest.mark.parametrize(
    ("share_at_prior", "passed"), [(0.0, True), (0.005, True), (0.02, False), (0.5, False), (1.0, False)]
)
def test_posterior_away_from_the_data_fails_where_prior_and_data_are_in_different_units(share_at_prior, passed):
    mu = np.where(np.arange(1000) < 1000 * share_at_prior, 0.5, 1.1e-5)[None]
    (found,) = conditions_of(mu)
    assert found.passed is passed
    assert passed or "the unit of the prior may decide this fit" in found.sentence


def test_a_fit_that_agrees_with_the_exact_answer_needs_no_such_condition():
    assert conditions_of(np.full((4, 10), 0.5), is_exact=True) == ()


def test_priors_that_suit_the_data_have_no_such_condition(cookies):
    assert conditions_of(np.full((4, 10), 0.5), counts=cookies) == ()


def test_rates_are_told_at_the_reference_levels_of_covariates():
    level = np.array(["a", "b"])[np.arange(200) % 2]
    count = np.random.default_rng(0).poisson(np.where(level == "a", 10.0, 1000.0))
    groups = np.repeat(["x", "y"], 100)
    families = {site: PRIORS[site]["name"] for site in ("lam", "beta")}
    values = prior_values(PRIORS, sites=("lam", "beta"))
    known = counts_from_rows(groups, count, covariates={"level": level})
    assert prior_scale.lines(count_model("pooled", "poisson", families, effects=known.effects), values, known) == []
    [line] = lines_of(counts_from_rows(groups, count), "pooled")
    assert "the data show 50" in line
