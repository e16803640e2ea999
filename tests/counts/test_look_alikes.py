"""Labels that look like one label are named before a fit."""

import pytest

from poolwise.counts.cells import counts_from_rows
from poolwise.counts.look_alikes import remarks


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            ["North", "North ", "North"],
            "'North' (2 rows, first in row 1) and 'North ' (1 row, first in row 2)",
        ),
        (["a", "A"], "'A' (1 row, first in row 2) and 'a' (1 row, first in row 1)"),
        (
            ["New York", "New  York"],
            "'New  York' (1 row, first in row 2) and 'New York' (1 row, first in row 1)",
        ),
        (
            ["K\u00f6ln", "Ko\u0308ln"],
            r"'Ko\u0308ln' (1 row, first in row 2) and 'K\xf6ln' (1 row, first in row 1)",
        ),
        (
            ["a b", "a\u00a0b"],
            r"'a b' (1 row, first in row 1) and 'a\xa0b' (1 row, first in row 2)",
        ),
        (
            ["Straße", "STRASSE"],
            "'STRASSE' (1 row, first in row 2) and 'Straße' (1 row, first in row 1)",
        ),
    ],
)
def test_labels_that_look_alike_are_named_with_their_rows_and_stay_apart(labels, said):
    counts = counts_from_rows(labels, range(len(labels)), name="t")
    assert remarks(counts) == (f"{said} are different groups. If they are one group, write one label.",)
    assert set(counts.labels) == set(labels)


def test_labels_that_differ_in_letters_or_digits_are_not_remarked_on():
    assert remarks(counts_from_rows(["7", "007", "a", "b", "Köln", "Koln", "a-b", "ab"], [1] * 8)) == ()


def test_many_labels_that_look_alike_are_counted():
    found = remarks(counts_from_rows([*"abcdefg", *"ABCDEFG"], [1] * 14))
    assert (len(found), found[-1]) == (6, "2 more sets of labels look alike.")
