"""Draws to pictures: that all are drawn, of tables that are hard to draw too, and that labels and captions hold."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.axis import Axis
from matplotlib.text import Text

from pictures import HARD_LABELS, make_counts, make_tree, picture, texts, view_of
from poolwise.checks.base import FitView, Result
from poolwise.checks.conditions import Condition
from poolwise.checks.gate import ModelCheck
from poolwise.figures.base import Picture, figure
from poolwise.figures.names import FAILED_CHECKS
from poolwise.figures.registry import FIGURES, draw
from poolwise.figures.style import DPI, png

pytestmark = pytest.mark.fit


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree()


def test_draw_yields_the_figures_asked_for_in_their_order(tree):
    names = ["energy", "rank"]
    assert [name for name, _ in draw(names, view_of(tree))] == names


@pytest.mark.parametrize(
    ("name", "check"),
    [("sensitivity", "power_scaling"), ("leave_group_out", "leave_group_out"), ("contrasts", "groups")],
)
def test_figure_of_a_check_that_did_not_run_is_left_out(name, check, tree):
    view = view_of(tree)
    results = {each: result for each, result in view.results.items() if each != check}
    assert [drawn for drawn, _ in draw([name, "energy"], replace(view, results=results))] == ["energy"]


HELD = Condition("E-BFMI", "1", "at least 0.3", passed=True, shown_in="energy")
FAILED = Condition("Pareto k", "0.9", "at most 0.7", passed=False, sentence="it is high", shown_in="pareto_k")


def judged(tree, *conditions: Condition, **changes) -> FitView:
    """A fit without findings of checks, with these conditions of its verdict."""
    view = view_of(tree)
    return replace(view, **{"verdict": replace(view.verdict, conditions=conditions), "results": {}} | changes)


def test_failed_checks_stand_for_the_figures_of_the_conditions_that_fail(tree):
    def drawn(*names: str) -> list[str]:
        return [name for name, _ in draw(names, judged(tree, HELD, FAILED))]

    assert drawn("rank", FAILED_CHECKS, "forest") == ["rank", "forest", "pareto_k"]
    assert drawn("pareto_k", FAILED_CHECKS) == ["pareto_k"]
    assert drawn("rank") == ["rank"]


def test_failed_checks_are_also_those_of_the_model_and_of_the_priors_and_what_checks_find(tree):
    assert judged(tree, HELD).shown_in == set()
    assert judged(tree, model_check=ModelCheck((replace(FAILED, shown_in="statistics"),))).shown_in == {"statistics"}
    assert judged(tree, prior_warnings=("far away",)).shown_in == {"prior_predictive"}
    assert judged(tree, results={"power_scaling": Result(shown_in=("sensitivity",))}).shown_in == {"sensitivity"}


def test_figure_without_a_section_is_refused():
    with pytest.raises(ValueError, match="Add it to figures/names"):
        figure("portrait", kind="Portrait", how_to_read="Look.")


CASES = {
    "hard_labels": {"labels": HARD_LABELS, "exposure": 2.5},
    "one_row": {"labels": ["only"], "rows": 1, "chains": 1},
    "one_group": {"labels": ["only"], "rows": 40, "pooling": "unpooled"},
    "all_zero": {"counts": np.zeros(30, int)},
    "pooled": {"chains": 12, "pooling": "pooled"},
    "millions": {"counts": np.arange(30) * 10**7, "pooling": "unpooled"},
    "many_groups": {"labels": [f"store {i:03}" for i in range(200)], "rows": 2},
}


@pytest.fixture(scope="module", params=CASES)
def hard(request) -> xr.DataTree:
    return make_tree(**CASES[request.param])


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_survives_a_hard_table(hard, name):
    results = view_of(hard).results
    if (check := FIGURES[name].needs) and not (check in results and results[check].tables):  # as of one rate, no pair
        assert list(draw([name], view_of(hard))) == []
        return
    result = picture(name, hard)
    image = png(result.figure)  # a missing glyph, an overflow or a failed layout would warn, which is an error
    assert len(image) > 5000
    assert int.from_bytes(image[20:24]) < 1600  # pixels high, so that it can be looked at
    assert clipped(result) == []
    assert overlapping_ticks(result) == []
    assert result.how_to_read.startswith("Look ")
    assert "nan" not in result.how_to_read
    assert result.caption.endswith(".")
    assert "nan" not in result.caption


def clipped(result: Picture) -> list[str]:
    """Texts of a drawn picture that leave it."""
    figure = result.figure
    width, height = figure.get_size_inches() * DPI
    shown = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        shown += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        shown += [*ticks_of(axes.xaxis), *ticks_of(axes.yaxis)]
    boxes = [(each.get_text(), each.get_window_extent()) for each in shown if each.get_text() and each.get_visible()]
    return [text for text, box in boxes if min(box.x0, box.y0) < -1 or box.x1 > width + 1 or box.y1 > height + 1]


def overlapping_ticks(result: Picture) -> list[tuple[str, str]]:
    """Neighbours among the tick labels of a drawn picture that lie on one another."""
    found = []
    for axes in result.figure.axes:
        for axis, begin, end in ((axes.xaxis, "x0", "x1"), (axes.yaxis, "y0", "y1")):
            boxes = [(each.get_window_extent(), each.get_text()) for each in ticks_of(axis)]
            boxes.sort(key=lambda pair: getattr(pair[0], begin))
            found += [
                (first, second)
                for (one, first), (other, second) in pairwise(boxes)
                if getattr(one, end) > getattr(other, begin) + 1
            ]
    return found


def ticks_of(axis: Axis) -> list[Text]:
    """The tick labels that are drawn."""
    low, high = sorted(axis.get_view_interval())
    near = 1e-9 * (high - low)
    drawn = [tick.label1 for tick in axis.get_major_ticks() if low - near <= tick.get_loc() <= high + near]
    return [label for label in drawn if label.get_text() and label.get_visible()]


@pytest.mark.parametrize("name", ["groups", "forest", "rank", "prior_predictive", "leave_group_out"])
def test_label_without_glyphs_has_a_placeholder_that_is_explained(name):
    result = picture(name, make_tree(["a", "東京"]))
    shown = " ".join(texts(result))
    assert "group 2" in shown
    assert "東" not in shown
    assert "The picture's font lacks letters of some labels: group 2 is 東京." in result.how_to_read


def test_drawable_labels_have_no_placeholder(tree):
    assert "lacks letters" not in picture("forest", tree).how_to_read


def test_placeholders_of_one_picture_are_not_told_under_the_next():
    tree = make_tree(["a", "東京"])
    drawn = dict(draw(["forest", "energy"], view_of(tree)))
    assert "東京" not in drawn["energy"].how_to_read


def test_group_named_by_a_number_is_called_by_its_column_in_captions():
    counts = make_counts(["1", "2"], columns=("shop", "calls", None))
    assert "(shop 1)" in picture("forest", make_tree(["1", "2"]), counts).caption


def test_axes_are_named_as_the_data_name_what_is_counted():
    counts = make_counts(["1", "2"], exposure=2.0, columns=("shop", "daily_calls", "open_hours"))
    axes = picture("forest", make_tree(["1", "2"], exposure=2.0), counts).figure.axes[0]
    assert axes.get_xlabel() == "rate, daily calls per unit of open hours"
    assert axes.get_ylabel() == "shop"


def test_axes_name_the_size_that_rates_are_per():
    # exposures are 1 in that unit: the rate is still not per row
    counts = make_counts(["1", "2"], exposure=1000.0, columns=("ward", "falls", "patient_days", 1000.0))
    axes = picture("forest", make_tree(["1", "2"], exposure=1.0), counts).figure.axes[0]
    assert axes.get_xlabel() == "rate, falls per 1000 patient days"
