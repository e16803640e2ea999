"""A ranking to figures, each with a caption of what it shows and a text on how to read it.

Every figure has the models in the order of the ranked table, with their ranks. If there are too many models or groups,
a figure shows the first models and the groups on which the models differ most, and the caption reports this.
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from poolwise.comparison.figures.base import MAX_MODELS, ComparisonFigure, Member, Ranked, axis_label
from poolwise.comparison.figures.elpd import ELPD
from poolwise.comparison.figures.forest import FOREST
from poolwise.comparison.figures.new_group import NEW_GROUP
from poolwise.comparison.figures.predictive import PREDICTIVE
from poolwise.comparison.figures.shrinkage import SHRINKAGE
from poolwise.figures.base import Picture

__all__ = ["FIGURES", "MAX_MODELS", "ComparisonFigure", "Member", "absent", "draw"]

FIGURES = {each.name: each for each in (ELPD, PREDICTIVE, FOREST, SHRINKAGE, NEW_GROUP)}


def draw(names: Sequence[str], table: pd.DataFrame, members: Mapping[str, Member]) -> Iterator[tuple[str, Picture]]:
    """Draw the named figures one at a time; skip those that cannot be drawn (`absent`).

    Parameters
    ----------
    names : keys of `FIGURES`
    table : of `ranking.compare`
    members : run id -> member, for the runs of the table that have one
    """
    told = zip(table["name"], table["verdict"], table["model_check"], strict=True)
    labels = [axis_label(name, place, *judged) for place, (name, *judged) in enumerate(told)]
    ranked = Ranked(
        table, labels, {place: members[run_id] for place, run_id in enumerate(table["run_id"]) if run_id in members}
    )
    for name in names:
        if not absent(name, list(ranked.members.values())):
            one = FIGURES[name]
            yield name, Picture(*one.draw(ranked), how_to_read=one.how_to_read, kind=one.kind)


def absent(name: str, members: Sequence[Member]) -> str:
    """Why a figure cannot be drawn for these members, best first, or nothing."""
    lacks = FIGURES[name].lacks(members)
    return f"{name}: {lacks}" if lacks else ""
