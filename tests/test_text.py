"""Numbers, names and lists in sentences."""

import io
import math

import pytest

from poolwise.text import (
    aligned,
    cell,
    compact,
    fitting,
    lines_for,
    listed,
    listing,
    markdown,
    number,
    one_line,
    p_value,
    plural,
    share,
    short,
    unknown_group,
    wrapped,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0.00"), (9.1034, "9.10"), (401.9484, "402"), (1234567.0, "1,234,567")),
        *((0.00312, "0.00312"), (0.0001, "0.0001"), (1e-9, "1e-09"), (2e9, "2e+09")),
        *((3.67e-307, "< 1e-12"), (-1e-13, "> -1e-12"), (1.2e-12, "1.2e-12")),
    ],
)
def test_number_has_three_digits_and_no_exponent_where_that_is_readable(value, text):
    assert number(value) == text


def test_number_that_is_none_is_said():
    assert (number(math.nan), number(math.inf), number(-math.inf)) == ("n/a", "∞", "-∞")


def test_cell_keeps_whole_numbers_whole():
    assert (cell(1200), cell(1200.5), cell("-")) == ("1,200", "1,200", "-")


@pytest.mark.parametrize(("value", "text"), [(0.25, "0.25"), (12000, "12,000"), (850e3, "850k"), (1.25e6, "1.25M")])
def test_tick_is_short(value, text):
    assert compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0%"), (1, "100%"), (1e-5, "under 0.1%"), (1 - 1e-5, "over 99.9%"), (0.5, "50%"), (0.05, "5.0%")],
)
def test_share_is_never_nothing_or_all_where_it_is_not(value, text):
    assert share(value) == text


def test_p_value_is_no_smaller_than_its_tables_can_tell():
    assert p_value(0.0, 1000) == "under 0.001"
    assert p_value(0.5, 1000) == "0.50"


def test_short_keeps_both_ends_on_one_line():
    assert short("two\nlines") == "two lines"
    assert short("\x1b[31mred") == r"\x1b[31mred"
    assert short("a" * 50 + "b" * 50) == "a" * 30 + "…" + "b" * 29
    assert short("a" * 50 + "b" * 50, 28) == "a" * 14 + "…" + "b" * 13


def test_one_line_escapes_what_cannot_be_printed():
    assert (one_line("Köln"), one_line("a\nb")) == ("Köln", "a\\nb")


@pytest.mark.parametrize(
    ("noun", "many"),
    [("location", "locations"), ("city", "cities"), ("day", "days"), ("box", "boxes"), ("class", "classes")],
)
def test_plural(noun, many):
    assert plural(noun) == many


def test_listing_reads_as_a_sentence():
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_listed_names_the_first_five():
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"


def test_columns_are_aligned_to_either_side():
    rows = [("", "mean"), ("mu", "9.08"), ("lam.1", "10")]
    assert aligned(rows, left={0}) == ["       mean", "mu     9.08", "lam.1    10"]


def test_a_cell_of_markdown_cannot_end_its_column_or_begin_a_tag():
    assert markdown(("name", "n"), [(r"a|b\<i>", "1")], left={0}) == [
        "| name | n |",
        "| :-- | --: |",
        r"| a\|b\\&lt;i> | 1 |",
    ]


def test_a_wrapped_line_divides_no_number_and_keeps_its_indent():
    line = "  - the fit is off: elpd_loo -394.83 (the fit -0.150), log p(y) -401.684"
    parts = wrapped(line, 32)
    assert " ".join(part.strip() for part in parts) == line.strip()
    assert max(map(len, parts)) <= 32
    assert [len(part) - len(part.lstrip()) for part in parts] == [2] + [4] * (len(parts) - 1)
    assert any("-394.83" in part for part in parts)


def test_a_line_with_an_address_wider_than_the_terminal_is_not_broken():
    line = "page    http://127.0.0.1:5000/#/experiments/1/runs/dbddea28344b4c119d375c6708128eb8"
    assert wrapped(line, 60) == [line]
    assert wrapped("", 60) == [""]


def test_a_table_loses_its_least_columns_until_it_fits():
    rows = [["group", "rate", "rank"], ["north", "9.1", "1"]]
    assert fitting(rows, 17, least=(2, 1)) == rows
    assert fitting(rows, 16, least=(2, 1)) == [["group", "rate"], ["north", "9.1"]]
    assert fitting(rows, 2, least=(2, 1)) == [["group"], ["north"]]


@pytest.mark.parametrize(
    ("label", "labels", "expected"),
    [
        ("norht", ["north", "south"], "Did you mean north? Groups are north, south."),
        ("NORTH", ["north", "east"], "Did you mean north? Groups are north, east."),
        ("zzz", ["north", "south"], "Groups are north, south."),
        ("wrad", [*map(str, range(40)), "ward"], "Did you mean ward?"),
        ("zzz", list(map(str, range(40))), f"Groups are {', '.join(map(str, range(12)))} and 28 more."),
    ],
)
def test_an_unknown_group_is_answered_with_similar_ones_and_with_all_if_few(label, labels, expected):
    assert unknown_group("--against", label, labels) == f"--against {label} is not a group of the data. {expected}"


def test_only_a_terminal_gets_wrapped_lines_and_no_control_sequence_reaches_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    text = "elpd_loo -394.83 and more\n\x1b]0;x\x07"
    assert lines_for(terminal, text) == ["elpd_loo -394.83 and", "  more", "\\x1b]0;x\\x07"]
    assert lines_for(io.StringIO(), text) == ["elpd_loo -394.83 and more", "\\x1b]0;x\\x07"]
