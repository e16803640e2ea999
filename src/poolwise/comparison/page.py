"""The HTML page of a comparison."""

from collections.abc import Mapping, Sequence

import pandas as pd

from poolwise.comparison.models import heading
from poolwise.comparison.ranking import Comparison
from poolwise.comparison.table import cells, left_aligned
from poolwise.figures.base import Picture
from poolwise.report.page import images, template

PAGE_WIDTH = 140  # characters of a table that fit into 1280 pixels
RUN_NUMBERS = {"elpd_loo": "{:.2f}", "mcse": "{:.3f}", "z": "{:+.1f}"}


def page(found: Comparison, remarks: Sequence[str], pictures: Mapping[str, tuple[bytes, Picture]]) -> str:
    """The comparison as one self-contained HTML page; `pictures` are names with bytes of a PNG file and the picture."""
    return template("comparison.html").render(
        num_models=len(found.table),
        num_runs=len(found.runs),
        num_rows=found.num_rows,
        ranking=_grid(found.table, found.labels),
        by_groups=None if found.by_groups is None else _grid(found.by_groups, found.labels),
        runs=_runs(found.runs) if len(found.runs) > len(found.table) else None,
        words=[*found.words, *remarks],
        images=list(images(pictures)),
        names=list(found.differing.columns),
        differing=list(found.differing.itertuples(name=None)),
    )


def _grid(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, object]:
    """Head, rows and columns of text of a ranking."""
    head, *rows = cells(table, labels, width=PAGE_WIDTH)
    return {"head": head, "rows": rows, "left": left_aligned(head, labels)}


def _runs(runs: pd.DataFrame) -> dict[str, object]:
    """The same of the table of runs."""
    texts = [name for name in runs.columns if name not in {"rank", *RUN_NUMBERS}]
    shown = runs.assign(**{name: runs[name].map(form.format) for name, form in RUN_NUMBERS.items()}).astype(str)
    return {
        "head": [heading(str(name)) for name in runs.columns],
        "rows": shown.replace({"nan": "-", "+nan": "-"}).to_numpy().tolist(),
        "left": {list(runs.columns).index(name) for name in texts},
    }
