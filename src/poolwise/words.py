"""A fit in words: the last lines at the terminal and the note of the run."""

import difflib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from poolwise import sensitivity
from poolwise.checks import Loo, Verdict
from poolwise.counts.cells import Counts
from poolwise.inference.predictive import NewGroup
from poolwise.paths import ROOT
from poolwise.store import Logged
from poolwise.text import listed, one_line

if TYPE_CHECKING:
    from poolwise.findings import Findings

MANY = 12  # rates shown; the rest is in tables/summary.csv


def subject(counts: Counts, pooling: str, likelihood: str) -> str:
    """What was fitted to what, in a line."""
    noise = likelihood.replace("_", " ")
    groups = f"{counts.num_groups} group{'s' if counts.num_groups > 1 else ''}"
    return f"{pooling} {noise} fit of {counts.num_rows} counts ({counts.columns.count}) in {groups}"


def judgement(verdict: Verdict) -> list[str]:
    """The verdict with what it rests on; a reason a line where it is suspect."""
    if not verdict.reasons:
        return [
            f"{verdict.status}: R-hat at most {verdict.r_hat_max:.3f}, ESS at least "
            f"{min(verdict.ess_bulk_min, verdict.ess_tail_min):.0f}, {verdict.divergences} divergences, "
            f"Pareto k at most {verdict.pareto_k_max:.2f}"
        ]
    return [f"{verdict.status}:", *(f"  - {reason}" for reason in verdict.reasons)]


def rates(summary: pd.DataFrame) -> list[str]:
    """The rates with their 94% intervals, a line each; at most `MANY`."""
    rows = summary[[name == "lam" or str(name).startswith("lam.") for name in summary.index]]
    shown = rows.head(MANY)
    labels = ["all groups" if name == "lam" else str(name).removeprefix("lam.") for name in shown.index]
    width = max(map(len, labels))
    lines = [
        f"  {label:<{width}}  {mean:8.3f}   {low:.3f} to {high:.3f}"
        for label, mean, low, high in zip(labels, shown["mean"], shown["hdi_3%"], shown["hdi_97%"], strict=True)
    ]
    return lines + ([f"  and {len(rows) - MANY} more, in tables/summary.csv"] if len(rows) > MANY else [])


def new_group(found: NewGroup) -> str:
    """What a group will produce, one that is not in the data unless it is named."""
    table, group = found.table, "a new group" if found.label is None else f"one more count of {one_line(found.label)}"
    low, high = (int(table["count"][(table["cumulative"] >= q).argmax()]) for q in (0.05, 0.95))
    source = "" if found.is_informed_by_data else " (from the prior alone: unpooled groups say nothing of a new one)"
    size = "" if found.exposure == 1 else f" at exposure {found.exposure:g}"
    told = "".join(f", above {k}: {probability:.3g}" for k, probability in found.above)
    return f"{group}{size}: mean {found.mean:.2f}, sd {found.sd:.2f}, 90% between {low} and {high}{told}{source}"


def accuracy(loo: Loo) -> str:
    """The leave-one-out predictive accuracy with both of its errors."""
    return f"elpd_loo {loo.elpd:.2f} +- {loo.se:.2f} (Monte Carlo error {loo.mcse:.2f}), p_loo {loo.p_loo:.2f}"


def line(name: str, verdict: Verdict, loo: Loo) -> str:
    """A finished job of a sweep."""
    return f"{name:<24} {verdict.status:<8} {accuracy(loo)}"


def reused(twin: Logged) -> list[str]:
    """A job that was not done again."""
    return [f"{twin.name:<24} reused   run {twin.run_id} ({twin.tags.get('verdict', '')})"]


def browse() -> str:
    """How to open the UI on the runs."""
    return "browse  " + ("make ui" if (ROOT / "Makefile").is_file() else "python -m poolwise.ui")


def command(overrides: Sequence[str]) -> str:
    """The command line that makes this fit again."""
    return shlex.join(["python", "-m", "poolwise.run", *overrides])


def reproduction(run_id: str) -> str:
    """The command line that makes a logged run again and judges whether it is the same."""
    return f"python -m poolwise.reproduce {run_id}"


def checked(findings: "Findings") -> list[str]:
    """What the checks beyond the gate say, a line each where there is something to say."""
    lines = []
    if replaced := findings.left_out.num_rows:
        values = "value with a doubtful Pareto k was" if replaced == 1 else "values with a doubtful Pareto k were"
        lines.append(
            f"{replaced} leave-one-out {values} made again with the rates integrated out "
            f"(k up to {findings.left_out.k_max_before:.2f})"
        )
    if groups := findings.groups_out:
        lines.append(
            f"groups left out, one at a time: elpd {groups.total:.2f} +- {groups.se:.2f} "
            f"(Monte Carlo error {groups.total_mcse:.2f})"
        )
        if groups.suspect:
            lines.append(
                f"  not to be relied on for {listed(map(one_line, groups.suspect))}: the refit misses the gate"
            )
    if findings.comparison:
        lines.append(findings.comparison.line)
    if findings.sensitivity is not None:
        lines += sensitivity.lines(findings.sensitivity)
    return lines


def unknown_group(label: str, labels: Sequence[str]) -> str:
    """The sentence for a group that is asked for and not in the data."""
    near = difflib.get_close_matches(label, labels, n=1)
    there = f"did you mean {one_line(near[0])}?" if near else f"there are {listed(map(one_line, labels))}."
    return f"predict.group is {one_line(label)}, which is no group of the data; {there}"


def note(what: str, findings: "Findings", warnings: Sequence[str], again: str) -> str:
    """The run in Markdown, for the MLflow UI."""
    verdict, summary, group, loo = findings.verdict, findings.summary, findings.new_group, findings.loo
    status, *reasons = judgement(verdict)
    head = f"**{what}**\n\n{status}\n" + "\n".join(reason.strip() for reason in reasons)
    table = "\n".join(["mean rate and 94% interval", *rates(summary)])
    more = "".join(f"- {line.strip()}\n" for line in [*warnings, *checked(findings)])
    more += "\n" if more else ""
    return f"{head}\n\n```\n{table}\n```\n\n{new_group(group)}\n\n{accuracy(loo)}\n\n{more}`{again}`\n"
