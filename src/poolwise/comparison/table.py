"""A ranking as a table in text, Markdown and cells, as wide as there is room."""

from collections.abc import Mapping, Sequence

import pandas as pd

from poolwise.comparison.models import FAILED, TRUSTED, heading
from poolwise.text import WIDTH, aligned, short
from poolwise.text import markdown as markdown_table

SHOWN = 20  # rows of a Markdown table
ID_SHOWN = 8  # characters of a run id
GAP = 2  # characters between columns
LEAST_LABEL = 6  # characters of a shortened label

# column of a ranking -> head and format of a number, in the order of the table
NUMBERS = {
    "runs": ("runs", "d"),
    "elpd_loo": ("elpd_loo", ".2f"),
    "elpd_leave_group_out": ("elpd groups out", ".2f"),
    "se": ("se", ".2f"),
    "mcse": ("mcse", ".2f"),
    "spread": ("sd runs", ".2f"),
    "elpd_diff": ("diff", "+.2f"),
    "dse": ("se diff", ".2f"),
    "dse_groups": ("by group", ".2f"),
    "diff_mcse": ("mcse diff", ".2f"),
    "p_worse": ("p_worse", ".3f"),
    "p_loo": ("p_loo", ".2f"),
    "weight_stacking": ("stacking", ".3f"),
    "weight_pseudo_bma_plus": ("ps.-BMA+", ".3f"),
    "pareto_k_max": ("max k", ".2f"),
}
TEXTS = {"verdict": "verdict", "model_check": "check", "run_id": "run id"}
OF_A_DIFFERENCE = {"elpd_diff", "dse", "dse_groups", "diff_mcse", "p_worse"}  # a single model has none
ALWAYS = {"rank", "elpd_diff", "dse", "run_id"}  # in a table of any width, beside the labels
THEN = (  # the rest, the most telling first
    *(
        "verdict",
        "model_check",
        "elpd_loo",
        "elpd_leave_group_out",
        "p_worse",
        "runs",
        "spread",
        "diff_mcse",
        "dse_groups",
    ),
    *("se", "weight_stacking", "p_loo", "pareto_k_max", "weight_pseudo_bma_plus", "mcse"),
)


def cells(table: pd.DataFrame, labels: Sequence[str], *, width: int | None = None) -> list[list[str]]:
    """The table as strings, with its header; a verdict that rules a model out is in capitals.

    Parameters
    ----------
    table : a ranking of `ranking.compare`
    labels : its columns that distinguish the models; without any, the names
    width : the columns that fit into so many characters; None for all
    """
    columns = _columns(table, labels)
    if width is not None:
        columns = _fitting(columns, width)
    return [list(row) for row in zip(*columns.values(), strict=True)]


def text(table: pd.DataFrame, labels: Sequence[str], *, width: int = WIDTH) -> str:
    """The table in aligned columns: the most telling ones that fit into the width."""
    head, *rows = cells(table, labels, width=width)
    return "\n".join(aligned([head, *rows], left=left_aligned(head, labels)))


def markdown(
    table: pd.DataFrame, labels: Sequence[str], links: Mapping[str, str] | None = None, *, width: int = WIDTH
) -> str:
    """The table in Markdown; at most `SHOWN` models.

    Parameters
    ----------
    links : run id -> address of the run
    """
    head, *rows = cells(table, labels, width=width)
    shown = []
    for run_id, row in zip(table["run_id"].head(SHOWN), rows, strict=False):
        address = (links or {}).get(run_id)
        shown.append([*row[:-1], f"[{row[-1]}]({address})" if address else row[-1]])
    rest = len(rows) - SHOWN
    more = f"\n\nand {rest} more in tables/comparison.csv" if rest > 0 else ""
    return "\n".join(markdown_table(head, shown, left=left_aligned(head, labels))) + more


def left_aligned(head: Sequence[str], labels: Sequence[str]) -> set[int]:
    """The columns of text."""
    told = {*TEXTS.values(), *(map(heading, labels) if labels else ["model"])}
    return {place for place, name in enumerate(head) if name in told}


def _columns(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, list[str]]:
    """Column -> its head and cells, in order."""
    columns = {"rank": ["#", *table["rank"].astype(str)]}
    for key in labels:
        columns[key] = [heading(key), *(" ".join(value.split()) or "-" for value in table[key])]
    if not labels:
        columns["name"] = ["model", *table["name"]]
    for name, (head, form) in NUMBERS.items():
        if name in _told(table):
            columns[name] = [head, *(format(value, form) if pd.notna(value) else "-" for value in table[name])]
    columns["verdict"] = [TEXTS["verdict"], *(_loud(value, value != TRUSTED) for value in table["verdict"])]
    columns["model_check"] = [TEXTS["model_check"], *(_loud(value, value == FAILED) for value in table["model_check"])]
    columns["run_id"] = [TEXTS["run_id"], *(value[:ID_SHOWN] for value in table["run_id"])]
    return columns


def _told(table: pd.DataFrame) -> set[str]:
    """The columns of numbers that say something."""
    found = {str(name) for name in table if table[name].notna().any()}
    found -= OF_A_DIFFERENCE if len(table) == 1 else set()
    return found - ({"runs"} if (table["runs"] == 1).all() else set())


def _loud(value: str, is_loud: bool) -> str:
    return value.upper() if is_loud else value


def _fitting(columns: Mapping[str, list[str]], width: int) -> dict[str, list[str]]:
    """The columns that fit, the labels shortened if they alone do not."""
    size = {name: max(map(len, column)) + GAP for name, column in columns.items()}
    kept = [name for name in columns if name not in THEN]
    labels = [name for name in kept if name not in ALWAYS]
    room = width + GAP - sum(size[name] for name in kept if name in ALWAYS)
    most = next((cut for cut in range(room, 0, -1) if sum(min(size[name], cut) for name in labels) <= room), 0)
    most = min(most, width // 3)  # one long label must not push out the numbers
    shortened = {name: [short(value, max(LEAST_LABEL, most - GAP)) for value in columns[name]] for name in labels}
    left = room - sum(max(map(len, column)) + GAP for column in shortened.values())
    for name in sorted(THEN, key=lambda name: name == "model_check" and len(set(columns[name][1:])) == 1):
        if name in columns and size[name] <= left:
            kept.append(name)
            left -= size[name]
    return {name: shortened.get(name, column) for name, column in columns.items() if name in kept}
