"""Runs to the models that they fit: runs that differ in nothing that decides the posterior are one model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from poolwise.checks.agreement import threshold
from poolwise.comparison.candidates import Candidate
from poolwise.comparison.scores import Pooled, groups_left_out, pooled, rows_left_out

# Sections and keys that change how a posterior is computed or shown. A key of a later version that is not among them
# makes another model. The table is in `data_sha256`, its columns in the labels.
NOT_OF_A_MODEL = (
    *("seed", "sampler", "device", "pooling.parameterisation", "data"),
    *("checks", "predict", "plots", "tracking", "sweep", "reuse"),
)
GROUPING = "data.group"  # the key of a table's other groupings
COVARIATES = ("data.covariates", "data.reference")  # of its design matrices
SPOKEN_FOR = ("pooling.name", "likelihood.name")  # keys whose values need no explanation
PASSED, FAILED, NOT_CHECKED = "passed", "failed", "not checked"  # values of the tag `model_check`
TRUSTED, SUSPECT = "trusted", "suspect"  # values of the tag `verdict`


@dataclass(frozen=True)
class ComparedModel:
    """A model with its runs.

    Attributes
    ----------
    name : unique among the compared models
    labels : the config keys that distinguish the models -> value, empty if this model has no such key
    runs : all, those that are pooled first, the smallest Monte Carlo error first
    num_pooled : runs that are pooled: the trusted ones with different draws; if none is trusted, the others
    rows, groups : elpd by rows, and by groups left out, of the pooled runs that have it
    """

    name: str
    labels: dict[str, str]
    runs: tuple[Candidate, ...]
    num_pooled: int
    rows: Pooled
    groups: Pooled | None

    @property
    def pooled_runs(self) -> tuple[Candidate, ...]:
        """The runs that are pooled."""
        return self.runs[: self.num_pooled]

    @property
    def shown(self) -> Candidate:
        """The run that stands for the model in figures and links."""
        return self.runs[0]

    @property
    def agrees(self) -> bool:
        """Whether its runs differ by no more than Monte Carlo error."""
        z = np.abs(self.rows.z)
        return bool(np.all(np.isnan(z) | (z <= threshold(len(z)))))

    @property
    def verdict(self) -> str:
        """`trusted` if its pooled runs are, agree and have a finite elpd_loo."""
        untrusted = {run.verdict for run in self.pooled_runs} - {TRUSTED}
        if untrusted:
            return min(untrusted)
        return TRUSTED if self.agrees and self.rows.scores.is_finite else SUSPECT

    @property
    def model_check(self) -> str:
        """`failed` if a pooled run fails, else `passed` if one passes, else `not checked`."""
        found = {run.model_check for run in self.pooled_runs}
        return next((each for each in (FAILED, PASSED) if each in found), NOT_CHECKED)

    @property
    def model_check_reasons(self) -> str:
        """Why the model check of a pooled run fails, in the words of that run."""
        return next((run.model_check_reasons for run in self.pooled_runs if run.model_check == FAILED), "")

    @property
    def suspect_groups(self) -> int:
        """Groups left out whose refit is not reliable in some pooled run."""
        tables = [run.groups_out for run in self.pooled_runs if run.groups_out is not None]
        return max((int((table["suspect"].astype(str) == "True").sum()) for table in tables), default=0)


def models_of(runs: Sequence[Candidate]) -> list[ComparedModel]:
    """The models of these runs, in the order of their first runs."""
    parts: dict[object, list[Candidate]] = {}
    for run in runs:
        parts.setdefault((run.data_sha256, frozenset(decisive(run.params).items())), []).append(run)
    members = [_pooled_first(each) for each in parts.values()]
    labels = _labels([each[0] for each, _ in members])
    names = _names(labels, [each[0] for each, _ in members])
    return [_model(name, each, *found) for name, each, found in zip(names, labels, members, strict=True)]


def eligible(table: pd.DataFrame) -> np.ndarray:
    """Which models of a ranking may be called best, (K,): the draws are trusted, the model check does not fail."""
    return ((table["verdict"] == TRUSTED) & (table["model_check"] != FAILED)).to_numpy(bool)


def faults(verdict: str, model_check: str) -> str:
    """Why a model may not be called best, or nothing."""
    sampling = [] if verdict == TRUSTED else ["its sampling is suspect" if verdict == SUSPECT else f"it is {verdict}"]
    return " and ".join(sampling + (["it fails its model check"] if model_check == FAILED else []))


def decisive(params: Mapping[str, str]) -> dict[str, str]:
    """The config keys that decide the posterior, given the table."""
    return {key: value for key, value in params.items() if not _is_in(key, NOT_OF_A_MODEL)}


def differing(runs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys whose values differ, key -> value in each run, empty if a run does not have the key."""
    keys = dict.fromkeys(key for each in runs for key in each)
    rows = {key: [each.get(key, "") for each in runs] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def heading(key: str) -> str:
    """A config key as the head of a column: `pooling.name` is `pooling`, `prior.sigma.rate` is `sigma.rate`."""
    return key.removeprefix("prior.").removeprefix("data.").removesuffix(".name")


def _is_in(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _pooled_first(runs: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], int]:
    """The runs, those to pool first, and how many these are; runs with equal draws count once."""
    worth = {run.run_id: (not rows_left_out(run).is_finite, run.verdict != TRUSTED) for run in runs}
    ordered = sorted(runs, key=lambda run: (worth[run.run_id], np.nan_to_num(run.mcse, nan=np.inf), run.run_id))
    distinct: dict[str, Candidate] = {}
    for run in ordered:
        if worth[run.run_id] == worth[ordered[0].run_id]:
            distinct.setdefault(run.posterior_sha256 or run.run_id, run)
    first = {run.run_id: run for run in distinct.values()}
    return (*first.values(), *(run for run in ordered if run.run_id not in first)), len(first)


def _labels(runs: Sequence[Candidate]) -> list[dict[str, str]]:
    """Of one run per model, the keys that distinguish the models.

    A key that only some models have, with one value, follows from another key and is left out: the prior of a site that
    the other models do not have.
    """
    is_regrouped = len({run.data_sha256 for run in runs}) > 1
    found = differing([decisive(run.params) | (_of_table(run.params) if is_regrouped else {}) for run in runs])
    chosen = {key: values for key, values in found.items() if len(set(values) - {""}) > 1}
    columns = list(zip(*chosen.values(), strict=True))
    chosen = chosen if len(set(columns)) == len(runs) else found
    return [{key: values[place] for key, values in chosen.items()} for place in range(len(runs))]


def _of_table(params: Mapping[str, str]) -> dict[str, str]:
    """The config keys that say how the rows of a table are read."""
    return {key: value for key, value in params.items() if key == GROUPING or _is_in(key, COVARIATES)}


def _names(labels: Sequence[Mapping[str, str]], runs: Sequence[Candidate]) -> list[str]:
    """The labels of each model in a line, with the beginning of a run id if these are not unique."""
    names = [" ".join(_word(key, value) for key, value in each.items() if value) for each in labels]
    names = [name or run.name for name, run in zip(names, runs, strict=True)]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({run.run_id[:6]})" for name, run in zip(names, runs, strict=True)]


def _word(key: str, value: str) -> str:
    return value if key in SPOKEN_FOR else f"{heading(key)}={value}"


def _model(name: str, labels: dict[str, str], runs: tuple[Candidate, ...], num_pooled: int) -> ComparedModel:
    first = runs[:num_pooled]
    groups = [found for run in first if (found := groups_left_out(run)) is not None]
    return ComparedModel(
        name=name,
        labels=labels,
        runs=runs,
        num_pooled=num_pooled,
        rows=pooled([rows_left_out(run) for run in first]),
        groups=pooled(groups) if groups else None,
    )
