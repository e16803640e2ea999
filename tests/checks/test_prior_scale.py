"""Whether priors and data are said to meet, before any fit."""

import re

import numpy as np
import pytest

from poolwise.checks import prior_scale
from poolwise.counts.cells import counts_from_rows
from poolwise.model.count_model import sites_of
from poolwise.model.priors import prior_values
from support import PRIORS, model_of


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
