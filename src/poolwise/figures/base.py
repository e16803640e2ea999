"""The interface of a figure, and its input: a fit with labels that a picture can show."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from poolwise.checks.base import FitView
from poolwise.checks.predictive_statistics import observed_and_simulated, pearson, two_sided
from poolwise.checks.summary import summarise
from poolwise.counts.covariates import row_at
from poolwise.counts.description import with_covariates
from poolwise.figures.bins import edges_of, tabulate
from poolwise.figures.fonts import can_be_drawn
from poolwise.figures.names import NAMES
from poolwise.figures.style import MAX_STEPS
from poolwise.inference.datatree import STORED_DRAW, joint
from poolwise.inference.predictive import by_stratum, factor_at
from poolwise.inference.tables import Tables, observed_table
from poolwise.text import short

INTERVAL = ["hdi_3%", "mean", "hdi_97%"]
MAX_REPLACED = 5  # labels listed in a caption


@dataclass(frozen=True)
class Picture:
    """A figure, its caption and its numbers.

    Attributes
    ----------
    caption : what this one shows, the finding first, in sentences that stand alone
    table : of all groups or parameters, also those not drawn; None if another table of the run has them
    how_to_read : what the marks mean and what to look for
    kind : the standard name of such a figure
    """

    figure: Figure
    caption: str
    table: pd.DataFrame | None = None
    how_to_read: str = ""
    kind: str = ""

    @property
    def alternative(self) -> str:
        """One sentence in place of the picture: its kind and the finding."""
        finding, *_ = re.split(r"(?<=[.]) (?=[A-Z0-9])", self.caption, maxsplit=1)
        return f"{self.kind}: {finding}"


@dataclass(frozen=True)
class Plot:
    """One figure of a run, under its name.

    Attributes
    ----------
    kind : the standard name of such a figure, the start of its alternative text
    how_to_read : what its marks mean and what to look for, in every fit; a picture may add to it
    needs : name of the check that it shows; without a table of that check it is not drawn
    statistic : of the engine that it shows; without it it is not drawn
    """

    name: str
    draw: "Callable[[Drawing], Picture]"
    kind: str
    how_to_read: str
    needs: str | None = None
    statistic: str | None = None


def figure(
    name: str, *, kind: str, how_to_read: str, needs: str | None = None, statistic: str | None = None
) -> "Callable[[Callable[[Drawing], Picture]], Plot]":
    """Make a function a figure; `names.SECTIONS` gives its section."""
    if name not in NAMES:
        raise ValueError(f"figure {name!r} is in no section. Add it to figures/names.py.")
    return lambda draw: Plot(name, draw, kind, how_to_read, needs, statistic)


@dataclass(frozen=True)
class Drawing:
    """A fit with everything else that pictures need: labels, units and the glyphs of the font.

    Attributes
    ----------
    replaced : placeholder -> label, for the labels that the current picture could not write
    """

    view: FitView
    replaced: dict[str, str] = field(default_factory=dict)

    @cached_property
    def labels(self) -> list[str]:
        """The groups, in the order of the data."""
        return [str(label) for label in self.view.cells["group"].values]

    @property
    def sites(self) -> list[str]:
        """The sampled sites, the rates last; without alpha, beta and phi, which are functions of these."""
        return [*(site for site in self.view.model.sites if site != "lam"), "lam"]

    @property
    def sites_at_all_draws(self) -> list[str]:
        """The sites, without rates that are stored at some of the draws only, unless there is nothing else."""
        is_thinned = STORED_DRAW in self.view.posterior.dims
        return [site for site in self.sites if site != "lam" or not is_thinned] or self.sites

    @property
    def is_pooled(self) -> bool:
        """Whether all groups have one rate."""
        return "group" not in self.view.posterior["lam"].dims

    @property
    def has_exposure(self) -> bool:
        """Whether a rate is per unit of exposure and not per row."""
        return unit_of(self.view.tree) != "row"

    @property
    def events(self) -> str:
        """The counted events, as named in the data and drawable by the font."""
        return self._column("count", "count")

    @property
    def raw_events(self) -> str:
        """The counted events, for a caption."""
        return self.view.counts.columns.count.replace("_", " ")

    @property
    def counted_in(self) -> str:
        """The label of an axis of counts."""
        return "count of one row" if self.events == "count" else f"{self.events}, count of one row"

    @property
    def grouping(self) -> str:
        """The kind of group, as named in the data and drawable by the font."""
        return self._column("group", "group")

    @property
    def exposure_name(self) -> str:
        """The exposure, as named in the data and drawable by the font."""
        return self._column("exposure", "exposure")

    @property
    def exposure_of_a_group(self) -> str:
        """The label of an axis of the groups' exposures, in the unit that rates are per."""
        per = self.view.counts.columns.per
        return f"{self.exposure_name} of a group{'' if per == 1 else f', in {per:,.15g}'}"

    @property
    def unit(self) -> str:
        """The unit of a rate."""
        per, columns = unit_of(self.view.tree), self.view.counts.columns
        if columns.exposure and (per != "row" or columns.per != 1):
            per = columns.denominator(self.exposure_name)
        return f"{self.events} per {per}"

    def label(self, group: int | np.integer, length: int = 28) -> str:
        """The name of a group in a picture: a placeholder, explained beside the picture, if the font cannot draw it."""
        text = self.labels[int(group)]
        if can_be_drawn(text):
            return short(text, length)
        self.replaced[f"group {group + 1}"] = text
        return f"group {group + 1}"

    def titled(self, group: int | np.integer, length: int = 28) -> str:
        """The name of a group in a title, with its kind: a number alone is unclear."""
        label = self.label(group, length)
        return f"{self.grouping} {label}" if _is_number(label) else label

    def named(self, group: int | np.integer) -> str:
        """The name of a group in a caption."""
        label = short(self.labels[int(group)])
        column = self.view.counts.columns.group.replace("_", " ")
        return f"{column} {label}" if _is_number(label) else label

    def parameter(self, name: str, length: int = 28) -> str:
        """The name of a parameter in a picture."""
        group = self._places.get(name)
        return short(name if group is None or can_be_drawn(name) else f"lam.{self.label(group)}", length)

    def told(self) -> str:
        """The sentence on replaced labels."""
        if not self.replaced:
            return ""
        pairs = [f"{place} is {short(text)}" for place, text in self.replaced.items()]
        more = f" and {len(pairs) - MAX_REPLACED} more" if len(pairs) > MAX_REPLACED else ""
        return f" The picture's font lacks letters of some labels: {', '.join(pairs[:MAX_REPLACED])}{more}."

    def _column(self, role: str, otherwise: str) -> str:
        name = getattr(self.view.counts.columns, role).replace("_", " ")
        return short(name, 28) if can_be_drawn(name) else otherwise

    @cached_property
    def _places(self) -> dict[str, int]:
        return {f"lam.{label}": group for group, label in enumerate(self.labels)}

    @cached_property
    def counted(self) -> tuple[Tables, Tables]:
        """The observed table and the simulated ones."""
        return observed_and_simulated(self.view.tree)

    @cached_property
    def own(self) -> np.ndarray:
        """The rate from each group's own counts, (G,): its mean count by exposure, divided by `count_per_rate`."""
        return own_means(self.view.tree)[1] / self.count_per_rate

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The summary of the rates, and of mu, at the covariates of a prediction."""
        if self.factor is None:
            return self.view.summary
        posterior = joint(self.view.posterior)
        return summarise(posterior[[name for name in ("lam", "mu") if name in posterior]] * self.factor)

    @cached_property
    def factor(self) -> xr.DataArray | None:
        """exp(x beta) at the covariates of a prediction, (chain, draw); None at their means and reference levels."""
        x, posterior = row_at(self.view.counts.covariates, self.view.at), joint(self.view.posterior)
        if not any(x):
            return None
        return factor_at(self.view.model, posterior, x)

    @property
    def covariates(self) -> str:
        """The covariates of the shown rates in words, with a space before them."""
        return with_covariates(self.view.counts.covariates, self.view.at)

    @cached_property
    def count_per_rate(self) -> np.ndarray:
        """Expected counts by expected rates of the rows of each group, (G,): not 1 if zeros have a share of their own.

        Where the expected count is not a multiple of the rate, it is that at the rates of the fit.
        """
        draws = {str(name): each.values for name, each in self.view.posterior.items()}
        likelihood, one = self.view.model.likelihood, np.ones(())
        moments = likelihood.moments(one, one, likelihood.params_of(draws))
        if moments:
            return np.full(len(self.labels), np.mean(moments[0]))
        strata = by_stratum(self.view.model, self.view.posterior, self.view.cells)
        mean, _ = likelihood.moments_at(strata.rate, strata.params)
        count, rate = (np.bincount(strata.group, strata.rows * each.mean(axis=0)) for each in (mean, strata.rate))
        return count / rate

    def own_words(self) -> str:
        """The sentence of a caption on rescaled own means."""
        low, high = self.count_per_rate.min(), self.count_per_rate.max()
        if low == high == 1:
            return ""
        if low == high:
            return f" Own means are divided by {low:.2f}, the expected count at a rate of 1."
        return f" Own means are divided by the expected count per unit of the rate, {low:.2f} to {high:.2f}."

    @cached_property
    def reproduced(self) -> pd.DataFrame:
        """How well the model reproduces each group.

        Returns
        -------
        rows : of the group
        distance, p_value : largest, of its ECDF from the mean simulated one; share of tables with at least this
            distance
        var_over_mean, p_var_over_mean : Pearson's X^2 over the rows minus one, and its two-sided p
        """
        lines = []
        for g, label in enumerate(self.labels):
            both = [tables.of_group(g) for tables in self.counted]
            edges, num_rows = edges_of(*both, most=MAX_STEPS), both[0].num_rows
            shares = np.vstack([tabulate(tables, edges) for tables in both]).cumsum(axis=1) / num_rows
            far = np.abs(shares - shares[1:].mean(axis=0)).max(axis=1)  # (1 + draw,)
            p = float(np.mean(far[1:] >= far[0] - 1e-12))
            ratio = np.concatenate([pearson(tables, np.array([0])) for tables in both])
            lines.append((label, num_rows, far[0], p, ratio[0], two_sided(ratio)[1]))
        columns = ["group", "rows", "distance", "p_value", "var_over_mean", "p_var_over_mean"]
        return pd.DataFrame(lines, columns=columns).set_index("group")

    @cached_property
    def group_rows(self) -> np.ndarray:
        """Number of rows of each group, (G,)."""
        cells = self.view.cells
        return np.bincount(cells["cell_group"].values, cells["cell_multiplicity"].values).astype(np.int64)


def own_means(tree: xr.DataTree) -> tuple[list[str], np.ndarray]:
    """Label and mean count per unit of exposure of every group, (G,)."""
    cells = tree["constant_data"].to_dataset()
    group, rows = cells["cell_group"].values, cells["cell_multiplicity"].values
    total = np.bincount(group, rows * cells["cell_count"].values)
    exposure = np.bincount(group, rows * observed_table(tree).exposure)
    return [str(label) for label in cells["group"].values], total / exposure


def unit_of(tree: xr.DataTree) -> str:
    """The denominator of a rate."""
    return "row" if np.all(tree["constant_data"].to_dataset()["cell_exposure"] == 1) else "unit of exposure"


def _is_number(label: str) -> bool:
    return label.replace(".", "").replace("-", "").isdigit()
