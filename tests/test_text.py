"""Numbers, shares and labels as pictures write them."""

import pytest

from poolwise.figures.fonts import can_be_drawn, printable
from poolwise.text import compact, listing, number, p_value, share, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (9.1034, "9.10"), (0.00312, "0.00312"), (123456, "123,456"), (1e-9, "1e-09"), (float("nan"), "nan")],
)
def test_number_has_three_digits(value, text):
    assert number(value) == text


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
    assert len(short("x" * 100)) == 28


def test_listing_reads_as_a_sentence():
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_label_the_font_cannot_draw_is_replaced():
    assert not can_be_drawn("東京")
    assert printable("東京", otherwise="group 3") == "group 3"
    assert printable("Zürich, Süd", otherwise="group 3") == "Zürich, Süd"
