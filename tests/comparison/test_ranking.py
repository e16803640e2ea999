"""Runs to a ranking: its numbers, what is best, and what the words say of it."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from candidates import MULTIPLICITY, NUM_CELLS, again, candidate, candidates, noisy, shifted
from poolwise.comparison.candidates import ComparisonError
from poolwise.comparison.ranking import compare


def test_table_has_the_sums_of_the_rows_and_their_errors():
    values = noisy(3)
    table = compare(candidates(values)).table.set_index("name")
    rows = np.repeat(values, MULTIPLICITY, axis=0)
    for k, name in enumerate(["m0", "m1", "m2"]):
        assert table.loc[name, "elpd_loo"] == pytest.approx(rows[:, k].sum())
        assert table.loc[name, "se"] == pytest.approx(np.sqrt(len(rows)) * rows[:, k].std(ddof=1))
    best = rows[:, rows.sum(axis=0).argmax()]
    last = rows[:, rows.sum(axis=0).argmin()]
    assert table["elpd_diff"].iloc[-1] == pytest.approx(last.sum() - best.sum())
    assert table["dse"].iloc[-1] == pytest.approx(np.sqrt(len(rows)) * (last - best).std())
    assert table["p_worse"].iloc[-1] == pytest.approx(norm.cdf((best - last).sum() / table["dse"].iloc[-1]))
    assert table["weight_stacking"].sum() == pytest.approx(1.0)
    assert table["weight_pseudo_bma_plus"].sum() == pytest.approx(1.0)


@settings(max_examples=10)
@given(st.permutations(range(4)), st.permutations(range(NUM_CELLS)))
def test_order_of_runs_and_cells_changes_nothing(runs_order, cells_order):
    runs = candidates(noisy(4))
    mixed = [runs[k] for k in runs_order]
    mixed[1] = replace(mixed[1], pointwise=mixed[1].pointwise.iloc[list(cells_order)])
    # the optimiser of the weights stops within 1e-6 of the best score
    pd.testing.assert_frame_equal(compare(runs).table, compare(mixed).table, atol=1e-6)


def test_fewer_than_two_runs_are_refused():
    [run] = candidates(noisy(1))
    with pytest.raises(ComparisonError, match=r"two different runs; only m0 \(id-of-m0\) was given"):
        compare([run])
    with pytest.raises(ComparisonError, match="none was given"):
        compare([])


def test_a_run_named_twice_is_taken_once():
    one, other = candidates(noisy(2))
    assert len(compare([one, other, one]).runs) == 2
    with pytest.raises(ComparisonError, match="was given"):
        compare([one, one])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"verdict": "suspect"}, "its sampling is suspect"),
        ({"model_check": "failed"}, "it fails its model check"),
        ({"verdict": "suspect", "model_check": "failed"}, "its sampling is suspect and it fails its model check"),
        ({"verdict": "unknown"}, "it is unknown"),
    ],
)
def test_a_model_that_is_suspect_or_fails_its_check_is_never_called_best(fault, told):
    first, second, third = shifted(-10.0, -30.0)
    found = compare([replace(first, **fault), second, third])
    assert found.best == second.run_id
    assert found.words[0].startswith("Best of 3 models by elpd_loo on")
    assert ": m1 (" in found.words[0]
    assert re.fullmatch(rf"Not called best in spite of a higher elpd_loo: m0 \(.*\): {told}\.", found.words[1])
    assert list(found.table["name"]) == ["m0", "m1", "m2"]
    np.testing.assert_allclose(found.table["elpd_diff"], [10.0, 0.0, -20.0])  # to the best, not to the first


def test_none_is_called_best_where_every_model_fails_something_and_the_words_say_what():
    first, second = shifted(-10.0)
    found = compare([replace(first, verdict="suspect"), replace(second, model_check="failed")])
    assert found.best == ""
    assert found.words[0].startswith(
        "No model is called best: m0 (its sampling is suspect), m1 (it fails its model check). Differences are to"
    )
    assert not any("Best of" in line or line.startswith("Tie with") for line in found.words)


def test_a_failed_model_check_is_told_with_its_reason():
    first, second = shifted(-10.0)
    found = compare([replace(first, model_check="failed", model_check_reasons="counts vary 8.7 times more"), second])
    told = (
        "Failed model check, so these do not describe the data, whatever their rank: m0 (counts vary 8.7 times more)."
    )
    assert told in found.words


def test_a_model_that_was_not_checked_may_be_best():
    found = compare(shifted(-10.0, model_check="not checked"))
    assert found.best == "id-of-m0"
    assert "All are trusted and none fails a model check." in found.words


def test_ties_and_models_behind_are_told_apart_in_words_with_their_monte_carlo_error():
    words = compare(shifted(-3.5, -4.5, mcse=0.01)).words
    assert any(line.startswith("Tie with m0: m1 (-3.50, se 0.00, Monte Carlo error 0.01). ") for line in words)
    assert "Worse than m0: m2 (-4.50, se 0.00, Monte Carlo error 0.01)." in words


def test_monte_carlo_error_makes_a_tie_of_a_difference_that_it_could_explain():
    assert any(line.startswith("Worse than m0: m1") for line in compare(shifted(-6.0, mcse=0.1)).words)
    assert any(line.startswith("Tie with m0: m1 (-6.00") for line in compare(shifted(-6.0, mcse=1.0)).words)


@pytest.mark.parametrize(("num_rows", "expected"), [(99, True), (100, False)])
def test_few_rows_bring_a_caution(num_rows, expected):
    multiplicity = np.append(np.ones(NUM_CELLS - 1, int), num_rows - NUM_CELLS + 1)
    runs = [replace(run, pointwise=run.pointwise.assign(multiplicity=multiplicity)) for run in shifted(-1.0)]
    found = compare(runs)
    assert any(f"With {num_rows} rows, fewer than 100" in line for line in found.words) is expected
    assert found.table["diag_diff"][1] == ("N < 100" if expected else "|diff| < 4")


@pytest.mark.parametrize(("num_models", "expected"), [(11, False), (12, True)])
def test_many_candidates_bring_a_warning(num_models, expected):
    words = compare(candidates(noisy(num_models))).words
    assert any(line.startswith("Selection among many") for line in words) is expected


def test_many_runs_of_few_models_bring_no_warning():
    one, other = shifted(-1.0)
    words = compare([one, *(again(other, seed=seed) for seed in range(20))]).words
    assert not any(line.startswith("Selection among many") for line in words)


@pytest.mark.parametrize("lead", [0.0, 40.0])
@pytest.mark.parametrize("seed", range(3))
def test_best_of_many_is_judged_as_by_arviz(lead, seed):
    values = noisy(12, seed=seed, spread=0.02)
    values[:, 0] += lead / MULTIPLICITY.sum()
    [line] = [line for line in compare(candidates(values)).words if line.startswith("Selection among many")]
    elpd = np.sort(MULTIPLICITY @ values)[::-1]
    upper = (elpd - elpd[6])[:6]  # differences to the median model, and the half of them above their median
    by_chance = np.sqrt((upper**2).mean()) * 1.69062  # Phi^-1(1 - 1 / 22)
    assert f"leads the median model by {upper[0]:.2f}" in line
    assert f"the {by_chance:.2f} expected by chance" in line
    with pytest.warns(UserWarning) if lead == 0.0 else warnings.catch_warnings(action="error"):
        arviz_warns(values)
    assert ("no more than" in line) == (lead == 0.0)


def arviz_warns(values: np.ndarray) -> None:
    """ArviZ warns where a lead may be due to chance."""
    from test_weights import arviz_of

    arviz_of(values, MULTIPLICITY, "stacking")


def test_words_say_what_the_weights_are_and_keep_the_best_mixture_to_stacking():
    [line] = [line for line in compare(shifted(-1.0)).words if "weights" in line]
    assert line.startswith("Stacking weights give the mixture of models that predicts best. Pseudo-BMA+ weights follow")
    assert "Neither are model probabilities" in line


def test_words_say_which_question_the_standard_error_answers_and_give_the_one_by_group():
    found = compare(candidates(noisy(2)))
    [line] = [line for line in found.words if line.startswith("se diff is by row")]
    row = found.table.iloc[1]
    assert f"{row['dse_groups']:.2f} in place of {row['dse']:.2f} for {row['name']}" in line


def test_a_model_without_a_finite_elpd_comes_last_and_is_told():
    broken = candidate("broken", np.full(NUM_CELLS, np.nan), verdict="suspect")
    found = compare([broken, *shifted(-1.0)])
    assert list(found.table["name"]) == ["m0", "m1", "broken"]
    assert found.table.iloc[2][["elpd_loo", "elpd_diff", "weight_stacking"]].isna().all()
    assert "Not ranked, because their elpd_loo is not finite: broken." in found.words
    with pytest.raises(ComparisonError, match=r"fewer than two models have a finite elpd_loo \(not finite: broken\)"):
        compare([broken, *candidates(noisy(1))])


def test_differing_keys_are_kept_run_by_run():
    one, other = shifted(-1.0)
    differing = compare([one, other, again(one, seed=1)]).differing
    assert list(differing.index) == ["pooling.name", "seed"]
    assert list(differing.loc["seed"]) == ["0", "1", "0"]


# Runs of one model.


def test_runs_of_one_model_are_one_row_without_weights_between_them():
    one, other = shifted(-10.0)
    found = compare([one, again(one, seed=1, ahead=0.1), again(one, seed=2, ahead=-0.1), other])
    assert list(found.table["runs"]) == [3, 1]
    assert found.table["elpd_loo"][0] == pytest.approx(MULTIPLICITY @ one.pointwise["elpd"])
    # off 0, 0.1 and -0.1 with errors of 0.05: chi^2 = 8 with two degrees of freedom
    assert found.table["mcse"][0] == pytest.approx(0.05 / np.sqrt(3) * np.sqrt(8 / 2))
    assert list(found.runs["rank"]) == [1, 1, 1, 2]
    assert found.words[-1].startswith("Stacking weights")
    assert any(
        line.startswith("4 runs of 2 models: runs that differ only in seed are one model.") for line in found.words
    )
    assert any(
        re.match(r"The runs of a model agree within Monte Carlo error: \|z\| at most 2\.4", x) for x in found.words
    )


def test_runs_of_a_single_model_are_said_to_agree_in_place_of_a_ranking():
    [one] = candidates(noisy(1))
    found = compare([one, again(one, seed=1, ahead=0.1), again(one, seed=2)])
    assert (len(found.table), found.best) == (1, "")
    told = "The 3 runs are one model, so there is nothing to rank. They differ in seed, which does not change"
    assert found.words[0].startswith(told)
    assert "pooled over 3 runs. Standard deviation between runs: 0.06." in found.words[1]  # of 0, 0.1 and 0
    assert found.words[2].startswith("The runs of a model agree within Monte Carlo error")
    assert found.table[["weight_stacking", "weight_pseudo_bma_plus"]].isna().all().all()


def test_runs_of_a_single_model_that_disagree_are_said_to_be_wrong():
    [one] = candidates(noisy(1))
    words = compare([one, again(one, seed=1, ahead=39.0)]).words
    assert any("differ by more than Monte Carlo error" in line and "the model is suspect" in line for line in words)
    assert words[-1] == "The model is not to be relied on: its sampling is suspect."


def test_runs_that_are_not_pooled_are_named_with_the_reason():
    one, other = shifted(-10.0, posterior_sha256="p0")
    runs = [one, again(one, seed=1, verdict="suspect", posterior_sha256="p1"), again(one, seed=2), other]
    told = "Not pooled: m0 (id-of-m0, the same draws as another run), m0 (id-of-m0, suspect)."
    assert told in compare(runs).words


# Other groupings, and groups left out.


def test_other_groupings_are_ranked_and_the_words_say_what_is_not_known():
    one, other = shifted(-10.0)
    regrouped = other.pointwise.assign(group="all", elpd=np.full(NUM_CELLS, -4.0))
    other = replace(other, data_sha256="d2", pointwise=regrouped, params=other.params | {"data.group": "all"})
    found = compare([replace(one, params=one.params | {"data.group": "store"}), other])
    assert list(found.labels) == ["pooling.name", "data.group"]
    assert found.table[["weight_stacking", "weight_pseudo_bma_plus"]].isna().all().all()
    [line] = [line for line in found.words if line.startswith("The models group the rows in different ways")]
    assert "data.group: store, all" in line
    assert "there are no weights" in line


def with_groups_out(run, elpd, *, suspect=False, mcse=0.1):
    return replace(
        run, groups_out=pd.DataFrame({"group": ["0", "1", "2"], "elpd": elpd, "mcse": mcse, "suspect": suspect})
    )


def test_groups_left_out_rank_the_models_for_a_new_group():
    one, other = shifted(-10.0)
    found = compare([with_groups_out(one, [-30.0, -31.0, -35.0]), with_groups_out(other, [-20.0, -21.0, -22.0])])
    assert list(found.by_groups["name"]) == ["m1", "m0"]
    np.testing.assert_allclose(found.by_groups["elpd_leave_group_out"], [-63.0, -96.0])
    np.testing.assert_allclose(found.by_groups["elpd_diff"], [0.0, -33.0])
    assert found.by_groups["dse"][1] == pytest.approx(np.sqrt(3) * np.std([10.0, 10.0, 13.0]))
    assert found.by_groups["diff_mcse"][1] == pytest.approx(0.1 * np.sqrt(6))
    told = "For a group that is not in the data: best of 2 models by elpd_leave_group_out on 3 groups: m1"
    assert any(line.startswith(told) for line in found.words)


def test_groups_left_out_of_some_runs_only_rank_nothing_and_the_words_say_how_to_have_them():
    one, other = shifted(-10.0)
    found = compare([with_groups_out(one, [-30.0, -31.0, -35.0]), other])
    assert found.by_groups is None
    assert any("checks.leave_group_out=true" in line for line in found.words)


def test_a_model_whose_refits_are_not_reliable_is_not_best_for_a_new_group():
    one, other = shifted(-10.0)
    found = compare(
        [with_groups_out(one, [-30.0] * 3), with_groups_out(other, [-20.0] * 3, suspect=[True, False, False])]
    )
    assert list(found.by_groups["verdict"]) == ["suspect", "trusted"]
    assert any("best of 2 models by elpd_leave_group_out on 3 groups: m0" in line for line in found.words)
