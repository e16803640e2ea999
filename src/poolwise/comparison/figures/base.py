"""A figure of a comparison, and its input: the ranked models with what their runs have stored."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from poolwise.comparison.models import FAILED, TRUSTED
from poolwise.figures.base import INTERVAL
from poolwise.figures.fonts import printable
from poolwise.figures.style import BLACK, BLUE, DPI, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from poolwise.model.poolings.base import Pooling

WIDE = 1280 / DPI  # inches: 1280 pixels across
MAX_MODELS = 12  # in a figure with a panel or colour per model; each pair of colour and marker is unique
COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
MARKERS = "os^vPX<>p*H8"


@dataclass(frozen=True)
class Member:
    """A run of the comparison, read from its artifacts.

    Attributes
    ----------
    pooling, likelihood : of its model
    summary : `tables/summary.csv`, one row per parameter, indexed by name
    new_group : `tables/new_group.csv`, with columns count, probability and cumulative; empty if a run predicted a
        group of the data instead
    tree : with observed_data, constant_data and posterior_predictive; None if not available
    """

    pooling: Pooling
    likelihood: str
    summary: pd.DataFrame
    new_group: pd.DataFrame
    tree: xr.DataTree | None = None


@dataclass(frozen=True)
class Ranked:
    """The input of a figure: the ranked table and, by rank from 0, the label of every model and the known members."""

    table: pd.DataFrame
    labels: list[str]
    members: dict[int, Member]

    def first(self) -> Iterator[tuple[int, Member, str]]:
        """Rank from 0, member and label of the first `MAX_MODELS` models that have a member."""
        return ((place, each, self.labels[place]) for place, each in self.members.items() if place < MAX_MODELS)

    def left_out(self, most: int | None = None) -> str:
        """The sentence about models that a figure does not show."""
        most = MAX_MODELS if most is None else most
        total = len(self.table)
        return f" Shown are the first {most} of {total} models." if total > most else ""


@dataclass(frozen=True)
class ComparisonFigure:
    """One figure under its name.

    Attributes
    ----------
    draw : figure, and its caption: what it shows
    kind : the standard name of such a figure, the start of its alternative text
    how_to_read : what its marks mean and what to look for
    lacks : why it cannot be drawn for these members, best first, or nothing
    """

    name: str
    draw: Callable[[Ranked], tuple[Figure, str]]
    kind: str
    how_to_read: str
    lacks: Callable[[Sequence[Member]], str] = lambda members: ""


def without_draws(members: Sequence[Member]) -> str:
    """What a figure lacks that needs the stored draws of a run."""
    has_draws = any(each.tree is not None for each in members[:MAX_MODELS])
    return "" if has_draws else "it needs the stored draws of at least one run"


def without_members(members: Sequence[Member]) -> str:
    """What a figure lacks that needs the tables of a run."""
    return "" if members else "it needs the tables of at least one run"


def axis_label(name: str, place: int, verdict: str, model_check: str) -> str:
    """Rank and name of a model, short enough for an axis; marked if it may not be called best."""
    faults = [
        word for word, is_told in (("suspect", verdict != TRUSTED), ("check failed", model_check == FAILED)) if is_told
    ]
    marked = f" ({', '.join(faults)})" if faults else ""
    return f"{place + 1}. {printable(name, otherwise='model', length=36)}{marked}"


def rates_of(summary: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    """Lower end, mean and upper end of the rate of every group, (G, 3)."""
    if "lam" in summary.index:
        return np.tile(summary.loc["lam", INTERVAL].to_numpy(float), (len(groups), 1))
    return summary.loc[[f"lam.{group}" for group in groups], INTERVAL].to_numpy(float)


def group_names(summary: pd.DataFrame) -> list[str]:
    """The groups with rates of their own; none if all groups share one rate."""
    return [str(name).removeprefix("lam.") for name in summary.index if str(name).startswith("lam.")]
