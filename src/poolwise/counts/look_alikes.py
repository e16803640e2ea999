"""Labels of groups that look like one label, in sentences to read before a fit."""

import functools
import unicodedata

import numpy as np

from poolwise.counts.cells import Counts
from poolwise.text import NAMED, listing, number_of


def remarks(counts: Counts) -> tuple[str, ...]:
    """A sentence on each set of labels that differ only in case, spaces or Unicode normalisation; at most `NAMED`."""
    alike = _alike(counts.labels)
    found = []
    for same in alike[:NAMED]:
        told = [f"{_spelled(each)} ({_rows(counts, each)})" for each in same]
        found.append(f"{listing(told)} are different groups. If they are one group, write one label.")
    more = [f"{len(alike) - NAMED} more sets of labels look alike."] if len(alike) > NAMED else []
    return (*found, *more)


@functools.lru_cache(maxsize=8)
def _alike(labels: tuple[str, ...]) -> list[list[str]]:
    alike: dict[str, list[str]] = {}
    for label in labels:
        folded = unicodedata.normalize("NFKC", label).casefold()
        alike.setdefault("".join(folded.split()), []).append(label)
    return [same for same in alike.values() if len(same) > 1]


def _spelled(label: str) -> str:
    """A label in quotes; letters beyond ASCII as code points if it has a form that looks the same."""
    forms = {unicodedata.normalize(form, label) for form in ("NFC", "NFD", "NFKC")}
    return ascii(label) if len(forms) > 1 else repr(label)


def _rows(counts: Counts, label: str) -> str:
    """The number of rows with a label, and the first of them in the table if their order is known."""
    of_label = counts.cell_group == counts.labels.index(label)
    number = number_of(int(counts.cell_multiplicity[of_label].sum()), "row")
    if not counts.row_number.size:
        return number
    return f"{number}, first in row {counts.row_number[np.repeat(of_label, counts.cell_multiplicity)].min()}"
