"""A judged fit as everything after it reads it, and what a check gives.

A check looks at a fit and returns a `Result`: numbers for MLflow, sentences, tables, conditions of the verdict. Nothing
downstream knows a check by its name: metrics, tags, lines and tables are taken from all results alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    from poolwise.checks import Loo, Verdict
    from poolwise.counts.cells import Counts
    from poolwise.inference.predictive import NewGroup
    from poolwise.model.count_model import Model


@dataclass(frozen=True)
class Condition:
    """One condition of the verdict.

    Attributes
    ----------
    name : what is judged, as a table calls it: "R-hat, the largest: do the chains agree?"
    value, limit : as they are printed: "1.0007", "at most 1.01"
    passed : whether it holds; a value that is not a number does not pass
    sentence : the reason it gives when it fails; empty if it passes
    """

    name: str
    value: str
    limit: str
    passed: bool
    sentence: str = ""


@dataclass(frozen=True)
class Result:
    """What one check found.

    Attributes
    ----------
    metrics, tags : for MLflow
    lines : sentences for the terminal, the note and the report
    tables : name -> table; becomes `tables/<name>.csv`
    conditions : what the verdict must take in
    value : the check's own object, for the figures and the section of the report that show it
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    value: Any = None


@dataclass(frozen=True)
class FitView:
    """A fit and what was found about it: the one argument of figures, report, metrics, tags and notes.

    Attributes
    ----------
    counts, model, prior_values : what was fitted; site -> parameter -> (), the values of the priors
    tree : posterior, sample_stats, data and both predictive distributions
    summary : a row a parameter
    loo : leave-one-out predictive accuracy
    verdict : whether the fit can be trusted
    new_group : what a new group, or a named one, will produce
    results : name of a check -> what it found; a check that did not run is absent
    prior_warnings : priors that have the data in their far tail, a line each
    """

    counts: "Counts"
    model: "Model"
    prior_values: Mapping[str, Mapping[str, np.ndarray]]
    tree: xr.DataTree
    summary: pd.DataFrame
    loo: "Loo"
    verdict: "Verdict"
    new_group: "NewGroup"
    results: Mapping[str, Result] = field(default_factory=dict)
    prior_warnings: tuple[str, ...] = ()

    @cached_property
    def posterior(self) -> xr.Dataset:
        """The draws."""
        return self.tree["posterior"].to_dataset()

    @cached_property
    def cells(self) -> xr.Dataset:
        """Group and exposure by row, and the cells."""
        return self.tree["constant_data"].to_dataset()

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of all checks, by name."""
        return {name: table for result in self.results.values() for name, table in result.tables.items()}
