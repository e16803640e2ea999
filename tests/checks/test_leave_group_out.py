"""Groups left out, against closed forms and the exact reference."""

from dataclasses import replace

import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpyro import handlers

import exact_reference
from poolwise.checks import leave_group_out
from poolwise.counts.cells import counts_from_rows
from poolwise.counts.statistics import sufficient_statistics
from poolwise.inference import devices
from poolwise.inference.engines import ENGINES
from poolwise.inference.engines.base import Engine
from poolwise.inference.engines.nuts import sample
from poolwise.model.count_model import sites_of
from poolwise.model.poolings.hierarchical import HIERARCHICAL
from poolwise.model.priors import prior_values
from support import ONE_DEVICE, PRIORS, SAMPLER, VARIANTS, groups_of, model_of

pytestmark = pytest.mark.fit

# log p(y) - log p(y_-g), both from exact_reference.exact of the cookies; the slow test below recomputes them
LEFT_OUT = {
    ("pooled", "poisson"): [-73.981951, -93.289976, -81.067141, -83.542744, -96.894],
    ("pooled", "negative_binomial"): [-76.818894, -86.905, -80.792171, -81.705601, -92.439934],
    ("unpooled", "poisson"): [-76.344098, -72.685358, -83.135609, -85.839442, -83.943872],
    ("unpooled", "negative_binomial"): [-77.105551, -72.686832, -82.618496, -84.81836, -84.040102],
    ("hierarchical", "poisson"): [-75.327709, -74.483222, -82.150481, -84.809925, -84.224333],
    ("hierarchical", "negative_binomial"): [-76.096951, -74.564293, -81.628054, -83.777033, -84.331617],
}
SHORT = replace(SAMPLER, num_warmup=500, num_samples=1000)


def values_of(pooling, likelihood):
    return prior_values(PRIORS, sites=sites_of(pooling, likelihood))


def refitted(counts, pooling, likelihood, *, parameterisation=None, sampler=SHORT, **rest):
    model = model_of(pooling, likelihood, parameterisation=parameterisation)
    values = values_of(pooling, likelihood)
    return leave_group_out.leave_group_out(model, counts, values, seed=0, sampler=sampler, device=ONE_DEVICE, **rest)


@pytest.fixture(scope="module")
def left_out(cookies):
    """`left_out[pooling, likelihood]`, with how many programs there were before each group."""
    found = {}
    for pooling, likelihood in VARIANTS:
        made = []

        def note(label, made=made):
            made.append(sum(devices.programs_made().values()))

        groups = refitted(cookies, pooling, likelihood, on_group=note)
        note("")
        found[pooling, likelihood] = groups, made
    return found


@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS)
def test_group_left_out_has_the_exact_value(pooling, likelihood, left_out):
    found, _ = left_out[pooling, likelihood]
    assert np.all(np.abs(found.elpd - LEFT_OUT[pooling, likelihood]) < 4 * found.mcse + 1e-5)
    assert found.total_mcse < 0.12
    assert found.suspect == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("likelihood", "parameterisation"),
    [*(("poisson", each) for each in HIERARCHICAL.parameterisations), ("negative_binomial", "marginal")],
)
def test_every_parameterisation_gives_the_exact_values(likelihood, parameterisation, cookies):
    found = refitted(cookies, "hierarchical", likelihood, parameterisation=parameterisation, sampler=SAMPLER)
    assert np.all(np.abs(found.elpd - LEFT_OUT["hierarchical", likelihood]) < 4 * found.mcse)
    assert found.total_mcse < 0.06
    assert found.suspect == ()


def test_group_left_out_is_placed_by_the_population_alone(cookies):
    # next to no rows: log lam lies around log mu with the spread of the population, for any mu and sigma
    statistics = sufficient_statistics(leave_group_out.without_group(cookies, 1))
    sites = {"mu": 9.0, "sigma": 2.0, "z": np.zeros(5)}

    def rates_of(**changes):
        seeded = handlers.seed(handlers.substitute(model.log_joint, data=sites | changes), 0)
        return handlers.trace(seeded).get_trace(statistics, values)["lam"]["value"]

    model = model_of("hierarchical", "poisson", parameterisation="standardised")
    values = values_of("hierarchical", "poisson")
    assert rates_of()[1] == pytest.approx(9.0, rel=1e-6)
    assert np.log(rates_of(z=np.ones(5))[1] / 9.0) == pytest.approx(2.0 / 9.0, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "likelihood"), VARIANTS[:-1])  # that of the last takes minutes
def test_values_held_against_are_those_of_the_reference(pooling, likelihood, cookies):
    groups = groups_of(cookies)
    whole, *parts = (
        exact_reference.exact(pooling, likelihood, some).log_marginal
        for some in (groups, *(groups[:g] + groups[g + 1 :] for g in range(5)))
    )
    assert whole - np.array(parts) == pytest.approx(LEFT_OUT[pooling, likelihood], abs=2e-6)


def test_unpooled_poisson_groups_left_out_are_the_marginal_likelihood(left_out):
    found, _ = left_out["unpooled", "poisson"]
    assert found.total == pytest.approx(-401.94838, abs=1e-5)  # shared/exact_references.json
    assert found.total_mcse == 0


def test_refits_share_one_program(left_out):
    # the first group may compile the fit and the integral over its rate; those after it nothing
    for variant in (("pooled", "negative_binomial"), ("unpooled", "negative_binomial")):
        made = left_out[variant][1]
        assert len(set(made[1:])) == 1, made


def test_a_refit_that_misses_the_gate_is_repeated_with_the_rates_integrated_out(cookies, monkeypatch):
    # without location 2 the others are alike, and sigma has a funnel
    used = []

    def counting(model, **arguments):
        used.append(model.parameterisation)
        return sample(model, **arguments)

    monkeypatch.setitem(ENGINES, "counting", Engine("counting", counting))
    found = refitted(
        cookies, "hierarchical", "poisson", parameterisation="centred", sampler=replace(SAMPLER, name="counting")
    )
    assert used[1:3] == ["centred", "marginal"]
    assert found.divergences.sum() == 0


def test_table_without_a_group_weighs_as_if_the_group_were_not_there(cookies):
    group, _, count = cookies.rows()
    less = sufficient_statistics(leave_group_out.without_group(cookies, 1))
    kept = sufficient_statistics(counts_from_rows(group[group != 1], count[group != 1]))
    whole = sufficient_statistics(cookies)
    assert {name: value.shape for name, value in less.items()} == {name: value.shape for name, value in whole.items()}
    for name in ("group_total", "group_exposure", "stratum_rows", "stratum_total"):
        assert np.delete(less[name], 1) == pytest.approx(kept[name], rel=1e-12)
        assert less[name][1] < 1e-20
    assert less["constant"] == pytest.approx(kept["constant"], rel=1e-12)
    assert less["value_rows"].sum() == pytest.approx(120)


def test_groups_have_random_numbers_of_their_own(cookies, fit_of, monkeypatch):
    seeds, drawn = [], fit_of("unpooled", "negative_binomial")

    def stop(*arguments, seed, **rest):
        seeds.append(seed)
        return drawn

    monkeypatch.setitem(ENGINES, "stop", Engine("stop", stop))
    sampler = replace(SAMPLER, name="stop")
    model, values = model_of("unpooled", "negative_binomial"), values_of("unpooled", "negative_binomial")
    for seed in (0, 1):
        leave_group_out.leave_group_out(model, cookies, values, seed=seed, sampler=sampler, device=ONE_DEVICE)
    assert len(set(seeds)) == 10


def groups_out(**changes):
    one = {"labels": ("a", "b"), "elpd": np.array([-10.0, -14.0]), "mcse": np.array([0.3, 0.4])}
    one |= {"pareto_k": np.zeros(2), "r_hat": np.ones(2), "ess": np.full(2, 500.0), "divergences": np.zeros(2)}
    return leave_group_out.GroupsOut(**(one | {"num_chains": 4, "k_threshold": 0.7} | changes))


def test_total_se_and_error_of_groups():
    found = groups_out()
    assert (found.total, found.total_mcse) == (-24.0, pytest.approx(0.5))
    assert found.se == pytest.approx(np.sqrt(2) * np.std([-10, -14], ddof=1))  # of a sum of two


@pytest.mark.parametrize(
    "changes",
    [
        {"r_hat": np.array([1.0, 1.02])},
        {"ess": np.array([500.0, 399.0])},
        {"divergences": np.array([0.0, 1.0])},
        {"pareto_k": np.array([0.1, 0.8])},
        {"elpd": np.array([-10.0, np.nan])},
        {"r_hat": np.array([1.0, np.nan])},
    ],
)
def test_group_whose_refit_misses_the_gate_is_suspect(changes):
    assert groups_out(**changes).suspect == ("b",)


def test_log_mean_has_the_error_of_its_draws():
    log_values = np.random.default_rng(0).normal(0.0, 0.5, (4, 4000))
    value, mcse, _ = leave_group_out._mean(log_values)
    assert value == pytest.approx(0.125, abs=4 * mcse)  # of a log-normal: sigma^2 / 2
    assert mcse == pytest.approx(array_stats.mcse(np.exp(log_values), method="mean") / np.exp(value), rel=1e-9)


def test_log_mean_of_values_with_a_heavy_tail_says_so():
    heavy = np.random.default_rng(0).exponential(0.9, (4, 4000))  # their exponentials have tail index 0.9
    assert leave_group_out._mean(heavy)[2] == pytest.approx(0.9, abs=0.15)
    assert leave_group_out._mean(heavy / 9)[2] < 0.3
