"""The model check: what a true model passes, what a wrong one fails, and the choice that it names."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pictures import make_tree, view_of
from poolwise.checks import model_check
from poolwise.checks.base import FitView, Settings
from poolwise.checks.findings import checked
from poolwise.checks.predictive_statistics import _p_tail
from poolwise.model.sites import Feature
from poolwise.report import note
from poolwise.runs.metrics import unchecked
from support import ONE_DEVICE, SAMPLER, model_of

EITHER = ("zero_inflated", "hurdle")
ASKED = Settings(seed=0, sampler=SAMPLER, device=ONE_DEVICE, checks=frozenset({"model_check"}))


def checked_of(counts, *, labels=("a", "b", "c"), failed=None, even=True, **tree) -> FitView:
    """The view of a Poisson fit to these counts; `even` places rows evenly in their predictions.

    `failed` is a condition of the verdict that does not hold.
    """
    made = make_tree(labels, rows=len(counts) // len(labels), counts=counts, **tree)
    size = made["constant_data"].sizes["cell"]
    places = {"cell_below": np.arange(size) / size, "cell_elpd": np.full(size, -np.log(size))} if even else {}
    view = view_of(made, **places)
    if failed:
        view = replace(view, verdict=replace(view.verdict, conditions=(failed,)))
        vars(view)["cell_below"] = places["cell_below"]
    return checked(view, ASKED)


def poisson(*means, rows=30):
    rng = np.random.default_rng(1)
    return np.concatenate([rng.poisson(mean, rows) for mean in means])


def test_counts_as_the_model_makes_them_pass():
    found = checked_of(poisson(9, 9, 9)).model_check
    assert found.status == "passed" and not found.reasons and len(found.conditions) == 7


def test_counts_that_vary_more_within_groups_fail_and_name_the_negative_binomial():
    counts = stats.nbinom.rvs(1, 1 / 10, size=90, random_state=2)  # mean 9, variance 90
    found = checked_of(counts).model_check
    assert found.status == "failed"
    ratio = np.mean([counts[i : i + 30].var(ddof=1) / counts[i : i + 30].mean() for i in (0, 30, 60)])
    [sentence] = [each for each in found.reasons if each.startswith("within groups")]
    times = float(sentence.split(" vary ")[1].split(" times ")[0])
    assert times == pytest.approx(ratio, rel=0.05)  # Poisson tables have a median near 1
    assert found.remedies[0] == "likelihood=negative_binomial"


def test_zeros_beyond_poisson_fail_and_name_the_zero_inflated_poisson():
    counts = poisson(5, 5, 5, rows=60)
    counts[np.random.default_rng(3).random(180) < 0.3] = 0
    found = checked_of(counts).model_check
    assert "likelihood=zero_inflated_poisson" in found.remedies
    assert any(f"{np.sum(counts == 0)} rows have a zero where the model expects" in each for each in found.reasons)


def test_groups_of_different_rates_fail_one_rate_and_name_the_poolings():
    found = checked_of(poisson(4, 9, 14), pooling="pooled").model_check
    assert found.status == "failed"
    assert {"pooling=unpooled", "pooling=hierarchical"} <= set(found.remedies)


def test_one_group_that_varies_more_is_not_taken_for_groups_that_differ():
    counts = stats.nbinom.rvs(1, 1 / 10, size=90, random_state=2)
    found = checked_of(counts, labels=("a",), pooling="pooled").model_check
    assert found.status == "failed"
    assert found.remedies == ("likelihood=negative_binomial",)  # the generalised Poisson describes more than is missing


def test_counts_that_vary_less_fail_and_name_the_generalised_poisson():
    found = checked_of(np.full(90, 9)).model_check
    assert found.status == "failed" and found.remedies == ("likelihood=generalised_poisson",)


def test_rows_far_from_their_predictions_fail():
    view = view_of(make_tree(rows=60, counts=poisson(9, 9, 9, rows=60)))
    size = view.cells.sizes["cell"]
    view = replace(view, loo=replace(view.loo, cell_elpd=np.full(size, np.log(0.001))))
    vars(view)["cell_below"] = np.where(np.arange(size) % 2, 0.001, 0.998)
    found = checked(view, ASKED)
    assert "LOO-PIT: the counts spread wider than predicted" in found.model_check.reasons
    assert "the 95% intervals of left-out rows contain 0% of them" in found.model_check.reasons


def test_p_loo_far_above_the_parameters_fails():
    view = view_of(make_tree(rows=30, counts=poisson(9, 9, 9)))
    [condition] = [
        each
        for each in checked(replace(view, loo=replace(view.loo, p_loo=30.0)), ASKED).model_check.conditions
        if "p_loo" in each.name
    ]
    assert not condition.passed and "far above the 5 parameters" in condition.sentence  # mu, sigma, three rates


@pytest.mark.parametrize("counts", [poisson(9, 9, 9), np.full(90, 9)])
def test_by_suspect_draws_no_model_is_checked(counts):
    diverged = model_check.Condition("divergences", "3", "0", passed=False, sentence="3 diverged")
    view = checked_of(counts, failed=diverged)
    found = view.model_check
    assert (found.status, found.doubt, found.reasons, found.remedies) == (
        "not checked",
        "the draws are suspect",
        (),
        (),
    )
    assert unchecked(view) == ["the draws are suspect: 3 diverged"]
    assert note.model_check(found) == ["model check: not checked, because the draws are suspect"]


def test_without_a_reliable_elpd_loo_no_model_passes_but_a_wrong_one_fails():
    undefined = model_check.Condition("Pareto k", "nan", "at most 0.7", False, "Pareto k is undefined", is_of_loo=True)
    right, wrong = (checked_of(counts, failed=undefined).model_check for counts in (poisson(9, 9, 9), np.full(90, 9)))
    assert (right.status, right.doubt) == ("not checked", "elpd_loo is not reliable")
    assert wrong.status == "failed" and wrong.reasons


def test_a_check_that_is_off_is_not_checked():
    view = checked(view_of(make_tree()), replace(ASKED, checks=frozenset()))
    assert view.model_check.status == "not checked"


@pytest.mark.parametrize("is_sum", [True, False])
def test_a_value_among_the_simulated_ones_has_the_p_of_its_rank(is_sum):
    simulated = np.arange(999.0)
    assert _p_tail(989.0, simulated, 2 * 10 / 999, is_sum=is_sum) == pytest.approx(2 * 11 / 1000)


def test_a_value_beyond_the_simulated_ones_has_a_normal_tail_only_for_a_sum():
    simulated = stats.chi2.rvs(400, size=50, random_state=4) / 400
    extended = _p_tail(1.4, simulated, 0.0, is_sum=True)
    assert _p_tail(1.4, simulated, 0.0, is_sum=False) == pytest.approx(2 / 51)
    assert extended == pytest.approx(2 * stats.chi2.sf(560, 400), rel=20)  # 1e-6 to within the noise of 50 tables
    assert extended < 1e-4


def test_a_statistic_of_few_values_has_no_normal_tail():
    assert _p_tail(4.0, np.array([0.0, 1.0] * 10), 0.0, is_sum=True) == pytest.approx(2 / 21)


@pytest.mark.parametrize(
    ("likelihood", "missing", "named"),
    [
        ("poisson", Feature.OVERDISPERSION, ["negative_binomial"]),
        ("poisson", Feature.EXCESS_ZEROS, ["zero_inflated_poisson", "hurdle_poisson"]),
        ("zero_inflated_poisson", Feature.OVERDISPERSION, [f"{each}_negative_binomial" for each in EITHER]),
        ("negative_binomial", Feature.EXCESS_ZEROS, [f"{each}_negative_binomial" for each in EITHER]),
        ("hurdle_negative_binomial", Feature.OVERDISPERSION, []),
    ],
)
def test_a_remedy_keeps_what_the_likelihood_describes_and_adds_nothing_else(likelihood, missing, named):
    found = model_check.remedy(model_of("hierarchical", likelihood), missing)
    assert found == tuple(f"likelihood={name}" for name in named)
