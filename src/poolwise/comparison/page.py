"""The HTML page of a comparison."""

from base64 import b64encode
from collections.abc import Sequence

from poolwise.comparison.ranking import Comparison, cells
from poolwise.report.page import template


def page(found: Comparison, remarks: Sequence[str], pictures: Sequence[tuple[str, bytes, str]]) -> str:
    """The comparison as one self-contained HTML page; `pictures` are names, PNG files and captions."""
    head, *rows = cells(found.table)
    images = [
        (name, f"data:image/png;base64,{b64encode(image).decode()}", caption) for name, image, caption in pictures
    ]
    return template("comparison.html").render(
        num_rows=found.num_rows,
        head=head,
        rows=rows,
        words=[*found.words, *remarks],
        images=images,
        names=list(found.differing.columns),
        differing=list(found.differing.itertuples(name=None)),
    )
