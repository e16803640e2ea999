"""A fit in words: what was fitted, whether to trust it, its rates, a new group, and the command that repeats it."""

import dataclasses
import shlex

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pictures import make_groups_out
from poolwise.checks import exact_agreement, leave_group_out, power_scaling
from poolwise.checks.base import FitView, Result
from poolwise.checks.conditions import Condition
from poolwise.checks.gate import ModelCheck, Verdict
from poolwise.checks.loo import Loo
from poolwise.counts.cells import Columns, Counts, counts_from_rows
from poolwise.inference.new_groups import NewGroups
from poolwise.inference.predictive import NewGroup
from poolwise.report import note as words
from poolwise.report.wording import answer
from support import model_of

VERDICT = Verdict(
    conditions=(Condition("R-hat, the largest", "1.0012", "at most 1.01", True),),
    r_hat_max=1.0012,
    ess_bulk_min=6000.0,
    ess_tail_min=5000.4,
    engine={"divergences": 0, "bfmi_min": 0.9, "tree_depth_hits": 0},
    sampling="0 divergences",
    pareto_k_max=0.412,
    pareto_k_bad=0,
)
REASONS = ("3 of 16000 transitions diverged", "R-hat of mu is 1.020, above 1.01")
FAILED = tuple(Condition(f"condition {i}", "", "", False, reason) for i, reason in enumerate(REASONS))
SUSPECT = dataclasses.replace(VERDICT, conditions=(*VERDICT.conditions, *FAILED), sampling="3 divergences")
LOO = Loo(elpd=-400.456, se=8.512, p_loo=5.55, mcse=0.051, cell_elpd=None, pareto_k=None, k_threshold=0.7, bad_rows=0)
NEW_GROUP = NewGroup(
    rate=np.array([9.0]),
    exposure=1.0,
    mean=9.153,
    sd=3.829,
    # 5% is reached at 5, 95% at 14; the row at 2 lies below both
    table=pd.DataFrame(
        {
            "count": [2, 5, 9, 14, 20],
            "probability": [0.04, 0.26, 0.6, 0.06, 0.04],
            "cumulative": [0.04, 0.3, 0.9, 0.96, 1],
        }
    ),
    is_informed_by_data=True,
)


PLAIN = counts_from_rows(["a", "b"], [1, 2])
HOURS = counts_from_rows(
    ["a", "b", "b"], [1, 2, 4], [800.0, 1240.0, 2000.0], columns=Columns("shop", "calls", "open_hours")
)
PSIS = dataclasses.replace(LOO, pareto_k=np.array([0.1, 0.83]))
INTEGRATED = dataclasses.replace(LOO, pareto_k=np.array([0.1, 0.2]), psis=PSIS)
GROUPS_OUT = make_groups_out("ab", [-30.0, -34.0], [0.03, 0.04])


def new_group(found: NewGroup, counts: Counts = PLAIN) -> str:
    """The words of a prediction."""
    return words.new_group(found, counts)


def summary(*names: str) -> pd.DataFrame:
    """Parameter i has mean i + 9 and the interval from i + 8.5 to i + 9.75."""
    means = np.arange(len(names)) + 9.0
    columns = {"mean": means, "hdi_3%": means - 0.5, "hdi_97%": means + 0.75}
    return pd.DataFrame(columns, index=pd.Index(names, name="parameter"))


def many(number: int) -> pd.DataFrame:
    return summary("mu", "sigma", *(f"lam.{label}" for label in range(number)))


def test_subject_says_what_was_fitted_to_what(cookies):
    # the source's 150 cookies from five locations
    assert words.subject(cookies, model_of("hierarchical", "negative_binomial")) == (
        "hierarchical negative binomial fit of 150 counts (chips) in 5 groups"
    )


def test_subject_speaks_of_one_group_in_the_singular():
    assert words.subject(counts_from_rows(["a"], [3]), model_of("pooled", "poisson")).endswith("in 1 group")


def test_judgement_of_a_trusted_fit_gives_the_figures_behind_it():
    # the ESS is the smaller of bulk and tail
    assert words.judgement(VERDICT) == [
        "trusted: R-hat at most 1.001, ESS at least 5000, 0 divergences, Pareto k at most 0.41"
    ]


def test_judgement_of_a_suspect_fit_gives_a_reason_a_line():
    assert words.judgement(SUSPECT) == ["suspect:", *(f"  - {reason}" for reason in REASONS)]


def test_rates_are_those_of_the_groups_with_their_intervals_the_highest_first():
    assert words.rates(summary("mu", "sigma", "lam.Köln", "lam.7", "alpha")) == [
        "  7     12.00   11.50 to 12.75",
        "  Köln  11.00   10.50 to 11.75",
    ]


def test_a_pooled_rate_is_that_of_all_groups():
    assert words.rates(summary("lam")) == ["  all groups  9.000   8.500 to 9.750"]


def test_rates_of_a_thousandth_keep_their_digits():
    table = summary("lam.a", "lam.b") / 1e4  # means 0.0009 and 0.001, intervals 0.00085 to 0.000975 and on
    assert words.rates(table)[0] == "  b  0.001000   0.00095 to 0.001075"


def test_new_group_of_a_small_rate_has_a_mean():
    found = dataclasses.replace(NEW_GROUP, mean=0.00103, sd=0.0321)
    assert "mean 0.00103, sd 0.0321" in new_group(found)


def test_a_label_is_one_printable_line():
    lines = words.rates(summary("lam.two\nlines", "lam.\x1b[31m"))
    assert {line.split()[0] for line in lines} == {"two\\nlines", "\\x1b[31m"}


def test_a_label_keeps_its_points():
    assert words.rates(summary("lam.lam.a"))[0].split()[0] == "lam.a"


def test_of_many_rates_both_ends_are_shown_and_the_rest_is_counted():
    # the means of many(15) rise with the label; the 6 highest and the 6 lowest are shown
    lines = words.rates(many(15))
    assert [line.split()[0] for line in lines if "more" not in line] == list(
        map(str, [*range(14, 8, -1), *range(5, -1, -1)])
    )
    assert lines[6] == "  ... 3 more, in tables/summary.csv"


def test_as_many_rates_as_are_shown_leave_no_rest():
    assert [line.split()[0] for line in words.rates(many(12))] == [str(label) for label in range(11, -1, -1)]


def test_new_group_says_mean_spread_and_interval():
    assert new_group(NEW_GROUP) == "a new group: mean 9.15, sd 3.83, 90% between 5 and 14"


def test_new_group_says_its_exposure_where_it_is_not_one():
    found = dataclasses.replace(NEW_GROUP, exposure=2.5)
    assert new_group(found).startswith("a new group at exposure 2.5: mean 9.15")


def test_new_group_names_the_unit_of_its_exposure_and_says_that_it_is_the_median():
    found = dataclasses.replace(NEW_GROUP, exposure=1240.0)
    assert new_group(found, HOURS).startswith("a new group at exposure 1,240 open hours (the median): mean 9.15")
    found = dataclasses.replace(NEW_GROUP, exposure=1.0)
    assert new_group(found, HOURS).startswith("a new group at exposure 1 open hours: mean 9.15")


def test_several_new_groups_are_told_by_their_total_and_extremes():
    ends = pd.DataFrame({"quantile_5%": [68, 11, 1], "quantile_50%": [91, 15, 4], "quantile_95%": [1117, 22, 7]})
    found = view_of(many(2), new_groups=NewGroups(10, ends.set_axis(["total", "largest", "smallest"])))
    (line,) = words.new_groups(found)
    assert line == "10 new groups, one count of each: 90% between total 68 to 1,117, largest 11 to 22, smallest 1 to 7"
    assert line in words.note(found, "again")
    assert words.new_groups(view_of(many(2))) == []


def test_groups_that_differ_are_told_beside_the_rates_and_not_among_the_checks():
    found = view_of(many(2), results={"groups": Result(lines=("shop a has the highest rate",))})
    assert words.differences(found) == ["shop a has the highest rate"]
    assert words.checked(found) == []


def test_new_group_of_an_unpooled_fit_says_that_it_is_the_prior():
    source = model_of("unpooled", "poisson").pooling.new_group_words.source
    found = dataclasses.replace(NEW_GROUP, is_informed_by_data=False, source=source)
    assert new_group(found) == (
        new_group(NEW_GROUP) + " (from the prior alone: unpooled groups do not inform a new one)"
    )


def test_accuracy_gives_both_errors():
    assert words.accuracy(LOO) == "elpd_loo -400.46 +- 8.51 (Monte Carlo error 0.05), p_loo 5.55"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["pooling=unpooled", "seed=3"],
        ["data.path=my counts.csv", "data.group='a $HOME'", "plots.figures=[rank,ecdf]", "~plots"],
    ],
)
def test_command_reaches_the_program_as_it_was_given(overrides):
    assert shlex.split(words.command(overrides)) == ["python", "-m", "poolwise.run", *overrides]


def view_of(table: pd.DataFrame, *results: Result, **found) -> FitView:
    """A fit of which no more is known than its summary, LOO, verdict and new group, and these results."""
    fitted = {"counts": counts_from_rows(["a", "b"], [1, 2]), "model": model_of("hierarchical", "poisson")}
    plain = {
        "prior_values": {},
        "tree": xr.DataTree.from_dict({"posterior": xr.Dataset()}),
        "loo": LOO,
        "verdict": VERDICT,
        "new_group": NEW_GROUP,
    }
    named = {str(i): result for i, result in enumerate(results)}
    return FitView(**fitted | {"summary": table, "results": named} | plain | found)


def test_new_group_names_a_group_of_the_data_and_what_lies_above():
    found = dataclasses.replace(NEW_GROUP, label="a\nb", above=((12, 0.20449), (15, 0.0512)))
    assert new_group(found) == (
        "one more count of a\\nb: mean 9.15, sd 3.83, 90% between 5 and 14, above 12: 0.204, above 15: 0.0512"
    )


def test_a_fit_with_no_more_checks_says_nothing_of_them():
    assert words.checked(view_of(many(2))) == []


def test_checked_says_that_psis_was_not_enough_and_how_bad_it_was():
    assert words.checked(view_of(many(2), loo=INTEGRATED)) == [
        "elpd of all 2 rows computed by integrated importance sampling (Pareto k of PSIS was up to 0.83)"
    ]


def test_checked_gives_the_elpd_of_groups_left_out_with_both_errors():
    # -30 - 34; sqrt(2) * sd([-30, -34]) = 4; sqrt(0.03^2 + 0.04^2) = 0.05
    assert words.checked(view_of(many(2), leave_group_out.result(GROUPS_OUT))) == [
        "groups left out, one at a time: elpd -64.00 +- 4.00 (Monte Carlo error 0.05)"
    ]


def test_checked_names_the_groups_whose_refit_misses_the_gate():
    out = dataclasses.replace(GROUPS_OUT, divergences=np.array([0, 2]), r_hat=np.array([1.0, 1.3]))
    assert words.checked(view_of(many(2), leave_group_out.result(out)))[1:] == [
        "  not reliable for b: the refit misses the gate"
    ]


def test_checked_says_how_the_fit_stands_to_the_exact_answer():
    beside = exact_agreement.Agreement(
        pd.DataFrame({"z": [1.0]}), 0.0, 0.0, -410.0, 1.0, 4.0, "exact answer: the fit agrees"
    )
    assert words.checked(view_of(many(2), exact_agreement.result(beside))) == ["exact answer: the fit agrees"]


def test_checked_says_what_the_priors_weigh():
    table = pd.DataFrame(
        {"prior.sigma": [0.31, 0.01], "prior": [0.31, 0.01], "likelihood": [0.02, 0.4]}, index=["sigma", "mu"]
    ).assign(diagnosis=[power_scaling.DOMINANT, power_scaling.NOTHING])
    result = Result(lines=tuple(power_scaling.lines(table)))
    (line,) = words.checked(view_of(many(2), result))
    assert line.startswith("prior.sigma moves sigma, the likelihood hardly (power-scaling: prior 0.31")


def test_note_is_the_whole_answer_in_markdown():
    table = many(2)
    view = view_of(table)
    assert words.note(view, "python -m poolwise.run seed=3").splitlines() == [
        *("**hierarchical poisson fit of 2 counts (count) in 2 groups**", ""),
        *(answer(view), ""),
        *(*words.judgement(VERDICT), "", "model check: not checked"),
        *("", "```", "mean rate and 94% interval", *words.rates(table), "```", ""),
        *(new_group(NEW_GROUP), ""),
        *(words.accuracy(LOO), ""),
        "`python -m poolwise.run seed=3`",
    ]


def test_note_lists_the_warnings_and_then_the_checks():
    out = leave_group_out.result(dataclasses.replace(GROUPS_OUT, pareto_k=np.ones(2)))
    found = view_of(many(2), out, loo=INTEGRATED, prior_warnings=("prior.mu is far off",))
    lines = words.note(found, "again").splitlines()
    begin = lines.index(words.accuracy(LOO)) + 2
    expected = ["prior.mu is far off", *(line.strip() for line in words.checked(found))]
    assert lines[begin:] == [*(f"- {line}" for line in expected), "", "`again`"]
    assert len(expected) == 4  # the warning, values replaced, groups left out, those not to be relied on


def test_note_of_a_suspect_fit_lists_the_reasons():
    note = words.note(view_of(many(2), verdict=SUSPECT), "again")
    reasons = "- 3 of 16000 transitions diverged\n- R-hat of mu is 1.020, above 1.01\n"
    assert f"\n\nsuspect:\n{reasons}\nmodel check: not checked\n" in note


def test_a_failed_model_check_names_its_remedy_and_gives_a_reason_a_line():
    failed = Condition(
        "zeros", "9", "p above 0.002", passed=False, sentence="9 rows have a zero", remedy=("a=b", "c=d")
    )
    assert words.model_check(ModelCheck((failed,))) == [
        "model check: failed; try a=b or c=d:",
        "  - 9 rows have a zero",
    ]


def test_the_answer_of_a_suspect_fit_or_of_a_model_that_failed_begins_with_a_warning():
    failed = ModelCheck((Condition("zeros", "9", "p above 0.002", passed=False, sentence="9 rows have a zero"),))
    assert answer(view_of(many(2))).startswith("The rates run from")
    assert answer(view_of(many(2), verdict=SUSPECT)).startswith("These draws are suspect: do not rely on the answer. ")
    assert answer(view_of(many(2), model_check=failed)).startswith("The model does not describe these counts. ")


@pytest.mark.parametrize(
    ("likelihood", "told"),
    [
        ("poisson", ""),
        ("zero_inflated_poisson", " Rates are those of the rows that are not structural zeros."),
        ("hurdle_poisson", " Rates are those of the law before its zeros are left out: "),
    ],
)
def test_the_answer_says_whose_rates_they_are_where_zeros_are_apart(likelihood, told):
    found = answer(view_of(many(2), model=model_of("hierarchical", likelihood)))
    assert told in found and ("Rates are" in found) == bool(told)
