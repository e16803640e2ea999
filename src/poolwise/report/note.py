"""A fit in text: the last terminal lines and the note of the run."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from poolwise.checks.gate import ModelCheck, Verdict
from poolwise.checks.groups import CHECK as COMPARED
from poolwise.checks.loo import Loo
from poolwise.checks.rate_ratios import CHECK as RATIOS
from poolwise.checks.summary import HIGH, INTERVAL, LOW
from poolwise.counts import description, look_alikes
from poolwise.counts.cells import Counts
from poolwise.figures.bins import count_quantile
from poolwise.inference.datatree import STORED_DRAW
from poolwise.inference.predictive import NewGroup
from poolwise.model.count_model import Model
from poolwise.paths import ROOT
from poolwise.report.wording import answer, at_exposure, rates_of
from poolwise.text import number, number_of, one_line
from poolwise.tracking.store import Logged

if TYPE_CHECKING:
    from poolwise.checks.base import FitView

MANY = 12  # rates shown; the rest is in tables/summary.csv
DIGITS = 4  # of a rate


def subject(counts: Counts, model: Model) -> str:
    """Model and data of the fit, in one line."""
    groups = number_of(counts.num_groups, "group")
    form = ", rates integrated out" if model.is_marginal else ""
    return f"{model.name} fit of {counts.num_rows} counts ({one_line(counts.columns.count)}) in {groups}{form}"


def judgement(verdict: Verdict) -> list[str]:
    """The verdict with its diagnostics; if it is suspect, one line per reason."""
    if not verdict.reasons:
        return [
            f"{verdict.status}: R-hat at most {verdict.r_hat_max:.3f}, ESS at least "
            f"{min(verdict.ess_bulk_min, verdict.ess_tail_min):.0f}, {verdict.sampling}, "
            f"Pareto k at most {verdict.pareto_k_max:.2f}"
        ]
    return [f"{verdict.status}:", *_reasons(verdict.reasons)]


def model_check(found: ModelCheck) -> list[str]:
    """The model check; if it failed, the settings to try, and one line per reason; if it is in doubt, why."""
    if found.status == "not checked" and found.doubt:
        return [f"model check: {found.status}, because {found.doubt}"]
    tried = f"; try {' or '.join(found.remedies)}" if found.remedies else ""
    return [f"model check: {found.status}{tried}{':' if found.reasons else ''}", *_reasons(found.reasons)]


def _reasons(sentences: Sequence[str]) -> list[str]:
    return [f"  - {reason}" for reason in sentences]


def rates_heading(counts: Counts) -> str:
    """The heading of the rates."""
    return f"mean rate and {INTERVAL:.0%} interval{description.with_covariates(counts.covariates)}"


def rates(summary: pd.DataFrame) -> list[str]:
    """The rates with their intervals, one per line, the highest first; of more than `MANY` those at both ends."""
    rows = rates_of(summary)
    left_out = max(0, len(rows) - MANY)
    shown = pd.concat([rows.head(MANY // 2), rows.tail(MANY // 2)]) if left_out else rows
    labels = ["all groups" if name == "lam" else one_line(str(name).removeprefix("lam.")) for name in shown.index]
    means = [number(mean, DIGITS) for mean in shown["mean"]]
    first, second = (max(map(len, column)) for column in (labels, means))
    lines = [
        f"  {label:<{first}}  {mean:>{second}}   {number(low, DIGITS)} to {number(high, DIGITS)}"
        for label, mean, low, high in zip(labels, means, shown[LOW], shown[HIGH], strict=True)
    ]
    if left_out:
        lines.insert(MANY // 2, f"  ... {left_out} more, in tables/summary.csv")
    return lines


def differences(view: "FitView") -> list[str]:
    """Which groups differ, if the check ran."""
    return list(view.results[COMPARED.name].lines) if COMPARED.name in view.results else []


def new_group(found: NewGroup, counts: Counts, at: Mapping[str, str] | None = None) -> str:
    """The predicted count of a new group, or of the named group."""
    group = "a new group" if found.label is None else f"one more count of {one_line(found.label)}"
    low, high = (count_quantile(found.table, q) for q in (0.05, 0.95))
    source = f" ({found.source})" if found.source else ""
    size = at_exposure(found.exposure, counts, at)
    above = "".join(f", above {k}: {number(probability)}" for k, probability in found.above)
    return (
        f"{group}{size}: mean {number(found.mean)}, sd {number(found.sd)}, 90% between {low} and {high}{above}{source}"
    )


def new_groups(view: "FitView") -> list[str]:
    """The total and the extremes of one count of each of several new groups, if asked."""
    found = view.new_groups
    if found is None:
        return []
    ends = zip(found.table.index, found.table.iloc[:, 0], found.table.iloc[:, -1], strict=True)
    intervals = ", ".join(f"{name} {low:,.0f} to {high:,.0f}" for name, low, high in ends)
    size = at_exposure(view.new_group.exposure, view.counts, view.at)
    return [f"{found.number:,} new groups, one count of each{size}: 90% between {intervals}"]


def accuracy(loo: Loo) -> str:
    """The leave-one-out predictive accuracy with its standard error and Monte Carlo error."""
    return f"elpd_loo {loo.elpd:.2f} +- {loo.se:.2f} (Monte Carlo error {loo.mcse:.2f}), p_loo {loo.p_loo:.2f}"


def line(name: str, view: "FitView") -> str:
    """A finished job of a sweep."""
    return f"{name:<24} {view.verdict.status:<8} model check {view.model_check.status}  {accuracy(view.loo)}"


def reused(twin: Logged, remark: str = "") -> list[str]:
    """A job that was not repeated; `remark` ends the sentence."""
    return [f"{twin.name:<24} reused   run {twin.run_id} ({verdicts(twin)}){remark}"]


def verdicts(logged: Logged) -> str:
    """Verdict and model check of a logged run."""
    return f"{logged.tags.get('verdict', '')}, model check {logged.tags.get('model_check', 'not checked')}"


def browse() -> str:
    """How to open the UI on the runs."""
    return "browse  " + ("make ui" if (ROOT / "Makefile").is_file() else "python -m poolwise.ui")


def command(overrides: Sequence[str]) -> str:
    """The command line that repeats this fit."""
    return shlex.join(["python", "-m", "poolwise.run", *overrides])


def reproduction(run_id: str) -> str:
    """The command line that repeats a logged run and judges whether it is the same."""
    return f"python -m poolwise.reproduce {run_id}"


def checked(view: "FitView") -> list[str]:
    """The LOO estimator, if it is not PSIS, and the lines of the checks beyond the gate."""
    others = [result for name, result in view.results.items() if name != COMPARED.name]  # see `differences`
    return [*stored(view), *integrated(view), *(line for result in others for line in result.lines)]


def stored(view: "FitView") -> list[str]:
    """At how many draws the rates are stored, if not at all of them."""
    kept, length = (view.posterior.sizes.get(name, 0) for name in (STORED_DRAW, "draw"))
    if not kept:
        return []
    summarised = "; their means and intervals are from more draws than these" if view.model.integrates_rates else ""
    return [
        f"the rates of {view.counts.num_groups:,} groups are stored at {kept:,} of {length:,} draws of each chain"
        f"{summarised}"
    ]


def integrated(view: "FitView") -> list[str]:
    """The estimator of elpd_loo, if it is not PSIS."""
    if view.loo.psis is None:
        return []
    k = view.loo.k_max_psis
    why = "" if math.isnan(k) else f" (Pareto k of PSIS was up to {k:.2f})"
    refits = f"; of {number_of(view.loo.refitted_rows, 'row')} by refits without them" if view.loo.refitted_rows else ""
    return [f"elpd of all {view.counts.num_rows:,} rows computed by integrated importance sampling{why}{refits}"]


def note(view: "FitView", again: str) -> str:
    """The run in Markdown, for the MLflow UI."""
    judged = [line.strip() for line in (*judgement(view.verdict), "", *model_check(view.model_check))]
    head = f"**{subject(view.counts, view.model)}**\n\n{answer(view)}\n\n" + "\n".join(judged)
    table = "\n".join([rates_heading(view.counts), *rates(view.summary)])
    told = view.results[RATIOS.name].lines if RATIOS.name in view.results else ()  # in the answer
    others = [line for line in checked(view) if line not in told]
    remarks = [*look_alikes.remarks(view.counts), *view.prior_warnings, *others]
    more = "".join(f"- {line.strip()}\n" for line in remarks)
    more += "\n" if more else ""
    new = "\n\n".join([new_group(view.new_group, view.counts, view.at), *new_groups(view)])
    return f"{head}\n\n```\n{table}\n```\n\n{new}\n\n{accuracy(view.loo)}\n\n{more}`{again}`\n"
