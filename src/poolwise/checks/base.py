"""A judged fit, as all later steps read it, and the result of a check.

A check reads a fit and returns a `Result`: numbers for MLflow, sentences, tables, conditions of the verdict. Metrics,
tags, lines, tables and conditions of all results are used in the same way. The report shows a check in the section of
checks, unless `report.page.SHOWN_APART` names it.

To add one: a module with a `CHECK`, a key in conf/checks, and a line in `findings.CHECKS`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from poolwise.checks import gate
from poolwise.checks.conditions import Condition
from poolwise.checks.integrated_loo import integrated_below
from poolwise.checks.loo import Loo, loo_below
from poolwise.checks.loo_pit import LooPit
from poolwise.checks.predictive_statistics import statistics
from poolwise.checks.summary import relative_efficiency
from poolwise.counts.cells import Counts
from poolwise.inference import predictive
from poolwise.inference.new_groups import NewGroups
from poolwise.inference.rates import evenly_spaced
from poolwise.inference.settings import Device, Sampler
from poolwise.model.count_model import Model
from poolwise.model.priors import PriorValues

__all__ = ["Check", "Condition", "FitView", "Result", "Settings"]

BELOW_DRAWS = 4000  # for the distribution function of a left-out row


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes
    ----------
    metrics, tags : for MLflow
    lines : sentences for the terminal, the note and the report
    tables : name -> table; becomes `tables/<name>.csv`
    conditions : conditions added to the verdict
    model_conditions : conditions of the model check
    is_exact : whether the draws agree with an answer that is known without them
    shown_in : the figures without which its findings are not seen, besides those of its conditions
    value : the check's own object, for its figures and its section of the report
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    model_conditions: tuple[Condition, ...] = ()
    is_exact: bool = False
    shown_in: tuple[str, ...] = ()
    value: Any = None


@dataclass(frozen=True)
class Settings:
    """What to compute from a fit besides its draws.

    Attributes
    ----------
    checks : enabled keys of conf/checks
    exposure, above, group : of the new group, or of a named one
    at : covariate -> its value of that group; others are at their mean or reference level
    new_groups : of so many at once, if more than one
    num_draws : tables simulated from the priors and from the posterior
    on_group : called with its label before each group is left out
    on_answer : called with the verdict, the rates and elpd_loo, before predictive draws and the other checks
    stage : times the code inside it, by name
    """

    seed: int
    sampler: Sampler
    device: Device
    checks: frozenset[str] = frozenset()
    exposure: float = 1.0
    above: tuple[int, ...] = ()
    group: str | None = None
    at: Mapping[str, str] = field(default_factory=dict)
    new_groups: int = 1
    num_draws: int = 1000
    on_group: Callable[[str], None] = lambda label: None
    on_answer: "Callable[[FitView], None]" = lambda view: None
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()


@dataclass(frozen=True)
class FitView:
    """A fit and its findings: the one argument of figures, report, metrics, tags and notes.

    Attributes
    ----------
    counts, model, prior_values : what was fitted; site -> parameter -> (), the values of the priors
    tree : posterior, sample_stats, data and both predictive distributions
    summary : one row per parameter
    loo : leave-one-out predictive accuracy
    verdict : whether the draws can be trusted
    model_check : whether the model suits the data
    new_group : prediction for a new group, or for a named one
    new_groups : prediction for several new groups at once, if asked
    at : covariate -> its value of the predicted groups and of the rates that are shown
    results : name of a check -> its result; a check that did not run is absent
    prior_warnings : priors with the data in their far tail, one per line
    switched_off : keys of conf/checks that are false
    """

    counts: Counts
    model: Model
    prior_values: PriorValues
    tree: xr.DataTree
    summary: pd.DataFrame
    loo: Loo
    verdict: gate.Verdict
    new_group: predictive.NewGroup
    new_groups: NewGroups | None = None
    at: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Result] = field(default_factory=dict)
    model_check: gate.ModelCheck = field(default_factory=gate.ModelCheck)
    prior_warnings: tuple[str, ...] = ()
    switched_off: tuple[str, ...] = ()

    @cached_property
    def posterior(self) -> xr.Dataset:
        """The draws."""
        return self.tree["posterior"].to_dataset()

    @cached_property
    def cells(self) -> xr.Dataset:
        """Group and exposure by row, and the cells."""
        return self.tree["constant_data"].to_dataset()

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of all checks, by name."""
        return {name: table for result in self.results.values() for name, table in result.tables.items()}

    def with_findings(self, results: Mapping[str, Result], model_check: gate.ModelCheck) -> "FitView":
        """The view with these; what has been computed from the draws is kept."""
        found, given = replace(self, results=results, model_check=model_check), {each.name for each in fields(self)}
        vars(found).update({name: value for name, value in vars(self).items() if name not in given})
        return found

    @property
    def shown_in(self) -> set[str]:
        """The names of the figures that show what failed: conditions, priors far from the data, findings of checks."""
        conditions = (*self.verdict.conditions, *self.model_check.conditions)
        failed = {each.shown_in for each in conditions if not each.passed and each.shown_in}
        priors = ("prior_predictive",) if self.prior_warnings else ()
        return failed.union(priors, *(result.shown_in for result in self.results.values()))

    @property
    def num_chains(self) -> int:
        """Chains of the posterior."""
        return self.posterior.sizes["chain"]

    @cached_property
    def cell_below(self) -> np.ndarray:
        """P(Y < y) of one row of each cell given all other rows, (C,), with weights like those of `loo`."""
        length = self.posterior.sizes["draw"]
        r_eff = relative_efficiency(self.summary, num_draws=self.num_chains * length)
        if self.loo.psis is not None:
            return integrated_below(self.posterior, self.counts, self.model, self.prior_values, r_eff=r_eff)
        some = evenly_spaced(length, max(1, BELOW_DRAWS // self.num_chains))
        given = self.model.likelihood, self.posterior.isel(draw=some), self.cells
        log_below = loo_below(
            predictive.pointwise_log_likelihood(*given),
            predictive.pointwise_log_below(*given),
            r_eff=min(1.0, r_eff * length / len(some)),
        )
        return np.exp(log_below)

    @cached_property
    def loo_pit(self) -> LooPit:
        """The place of every row in its prediction from all other rows."""
        low = np.clip(self.cell_below, 0, 1)
        return LooPit(low, np.clip(low + np.exp(self.loo.cell_elpd), low, 1), self.cells["cell_multiplicity"].values)

    @cached_property
    def predictive_statistics(self) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Test statistics in the data and in simulated tables; see `predictive_statistics.statistics`."""
        return statistics(self.tree)


@dataclass(frozen=True)
class Check:
    """A check of a fit.

    Attributes
    ----------
    name : of its result
    key : of conf/checks, which switches it
    run : computes its result
    decides : whether its conditions join the verdict: it runs before the answer is reported, without predictive draws
    """

    name: str
    key: str
    run: Callable[[FitView, Settings], Result]
    decides: bool = False
