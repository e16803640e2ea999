"""A calibration in text: the last terminal lines and the note of the run."""

import math

import numpy as np
import pandas as pd

from poolwise.calibration import ranks
from poolwise.calibration.findings import Findings
from poolwise.runs.job import Job
from poolwise.text import markdown, number_of

SHOWN = 20  # quantities in the note; the rest is in tables/calibration.csv


def variant(job: Job) -> str:
    """Name of the calibrated variant."""
    model = job.model
    has_choice = len(model.pooling.parameterisations) > 1
    return f"{model.name}, {model.parameterisation} parameterisation" if has_choice else model.name


def title(job: Job, findings: Findings) -> str:
    """Title of the picture."""
    return f"Are the posteriors right? {variant(job)}, {findings.recovered.done} simulated tables: {findings.status}"


def p_text(p: float) -> str:
    """A p-value, readable however small."""
    if p >= 0.1:
        return f"{p:.2f}"
    return f"{p:.2g}" if p >= 1e-4 else f"under 1e-{math.floor(-math.log10(p) + 1e-9)}"


def closing_lines(job: Job, findings: Findings) -> list[str]:
    """What was done, the verdict with its reasons, and its basis."""
    return [
        f"{variant(job)}: {_simulations(job, findings)}",
        *judgement(findings),
        _divergent(findings),
        _independence(findings),
    ]


def judgement(findings: Findings) -> list[str]:
    """The verdict; if it is miscalibrated, one line per reason."""
    smallest = findings.table["p"].idxmin()
    rests = f"smallest p {p_text(findings.table['p'].min())} ({smallest}), limit {p_text(level(findings))}"
    return [f"{findings.status}: {rests}", *(f"  - {reason}" for reason in findings.reasons)]


def level(findings: Findings) -> float:
    """The p-value below which a single quantity is miscalibrated."""
    return ranks.LEVEL / len(findings.table)


def note(job: Job, findings: Findings) -> str:
    """The calibration in a few lines, for the MLflow UI."""
    lines = [
        f"**{findings.status}**: {variant(job)}, {_simulations(job, findings)}.",
        *([""] if findings.reasons else []),
        *(f"- {reason}" for reason in findings.reasons),
        "",
        "Truths are drawn from the prior, a table is simulated from each, and the posterior of each table is sampled. "
        f"If all is right, the rank of a truth among {findings.recovered.num_draws} draws is uniform. p is the "
        "probability of ranks at least this far from uniform. "
        f"A quantity with p {p_text(level(findings))} or below ({ranks.LEVEL:.0%} over {len(findings.table)} "
        "quantities) is called miscalibrated.",
        "",
        *_markdown(findings.table.head(SHOWN)),
        "",
        f"{_divergent(findings).capitalize()}. "
        f"{_independence(findings).capitalize()}. See figures/ecdf_pit.png and tables/calibration.csv.",
    ]
    return "\n".join(lines) + "\n"


def _simulations(job: Job, findings: Findings) -> str:
    counts = job.counts
    groups = number_of(counts.num_groups, "group")
    return f"{findings.recovered.done} simulated tables of {counts.num_rows} rows in {groups}, as {counts.name}"


def _divergent(findings: Findings) -> str:
    if not findings.divergent:
        return "no fit diverged"
    return f"{findings.divergent} of {findings.recovered.done} fits diverged; their ranks are included"


def _independence(findings: Findings) -> str:
    table, found = findings.table, findings.recovered
    noise = np.random.default_rng(0).normal(size=(2000, found.num_draws))
    independent = float(np.median(ranks.effective(noise)[0])) / found.num_draws
    median = float(np.median(found.ess[found.is_fitted])) / found.num_draws
    return (
        f"kept draws: median ESS per draw {median:.2f}, minimum {table['ess_per_draw_min'].min():.2f} "
        f"(independent draws: median {independent:.2f}); "
        f"mean autocorrelation {table['autocorrelation'].mean():+.3f}"
    )


def _markdown(table: pd.DataFrame) -> list[str]:
    head = ("quantity", "p", "below .05", "above .95", "mean rank", "calibrated")
    rows = [
        (
            str(name),
            p_text(row["p"]),
            f"{row['below_05']:.1%}",
            f"{row['above_95']:.1%}",
            f"{row['mean']:.3f}",
            "yes" if row["is_calibrated"] else "no",
        )
        for name, row in table.iterrows()
    ]
    return markdown(head, rows, left={0, len(head) - 1})
