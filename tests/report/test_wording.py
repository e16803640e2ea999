"""A fit in the words of its report."""

import math

import pytest

from poolwise.report.wording import model_maths
from poolwise.text import cell, number, plural, short


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (9.1034, "9.10"), (401.9484, "402"), (1234567.0, "1,234,567"), (0.0001, "0.0001"), (2e9, "2e+09")],
)
def test_number_has_three_digits_and_no_exponent_where_that_is_readable(value, text):
    assert number(value) == text


def test_number_that_is_none_is_said():
    assert (number(math.nan), number(math.inf), number(-math.inf)) == ("n/a", "∞", "-∞")


@pytest.mark.parametrize(
    ("noun", "many"),
    [("location", "locations"), ("city", "cities"), ("day", "days"), ("box", "boxes"), ("class", "classes")],
)
def test_plural(noun, many):
    assert plural(noun) == many


def test_cell_keeps_whole_numbers_whole():
    assert (cell(1200), cell(1200.5), cell("-")) == ("1,200", "1,200", "-")


def test_short_leaves_out_the_middle():
    assert short("a" * 100) == "a" * 30 + "…" + "a" * 29


def test_maths_escapes_what_a_prior_was_given():
    lines = model_maths("pooled", "poisson", {"lam": {"name": "<b>", "rate": "<i>"}}, has_exposure=True)
    assert "λ ~ &lt;b&gt;(rate &lt;i&gt;)" in [str(formula) for formula, _ in lines]
    assert "r<sub>i</sub> = e<sub>i</sub> · λ" in [str(formula) for formula, _ in lines]
