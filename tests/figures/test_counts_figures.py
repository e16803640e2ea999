"""Counts to pictures: all of them, and group by group."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from pictures import (
    make_tree,
    picture,
)
from poolwise.figures.style import MAX_PANELS


def test_counts_bars_hold_every_row():
    axes = picture("counts", make_tree(counts=np.arange(30) ** 3)).figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 30
    assert "each bar spans" in axes.get_xlabel()


def test_counts_caption_gives_the_summary_and_the_hint():
    tree = make_tree(counts=np.tile([0, 20], 15))
    result = picture("counts", tree)
    assert "30 counts of count run from 0 to 20, quartiles 0, 10, 20, mean 10.0" in result.caption
    assert "suggests a negative binomial" in result.caption
    assert "Of 3 groups that can be judged, 3 lie outside" in result.caption


def test_counts_marks_the_groups_that_are_not_as_poisson():
    tree = make_tree(["a", "b"], counts=[9, 10] * 5 + [0, 20] * 5)
    right = picture("counts", tree).figure.axes[1]
    marked = {line.get_marker(): line for line in right.lines}
    # the variance of 0 and 20 in turns is 111; that of 9 and 10, 0.28, is too small for Poisson counts
    assert sorted(marked["D"].get_ydata()) == pytest.approx([np.var([9, 10] * 5, ddof=1), np.var([0, 20] * 5, ddof=1)])


def test_counts_expects_of_one_rate_what_poisson_says():
    from scipy.stats import poisson

    tree = make_tree(["a"], rows=20, counts=[3, 5] * 10)
    dots = next(line for line in picture("counts", tree).figure.axes[0].lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_ydata(), 20 * poisson.pmf([3, 4, 5], 4.0))


def test_groups_caption_names_the_extremes():
    tree = make_tree(["a", "b", "c"], rows=2, counts=[1, 3, 8, 8, 4, 6])
    caption = picture("groups", tree).caption
    assert (
        "The means of the groups run from 2.00 (a) to 8.00 (b), the standard deviations from 0.00 (b) to 1.41 (a)"
        in caption
    )


def test_groups_of_many_shows_some_evenly_spaced_by_mean():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2, counts=np.repeat(np.arange(200), 2))
    result = picture("groups", tree)
    labels = [tick.get_text() for tick in result.figure.axes[0].get_yticklabels()]
    assert len(labels) == MAX_PANELS
    assert (labels[0], labels[-1]) == ("g000", "g199")
    assert "Shown are 12 of the 200 groups" in result.caption
    assert len(result.table) == 200  # the table has them all


def test_groups_of_few_rows_have_dots_in_place_of_a_violin():
    # two rows a group, far from the other groups: no point of the grid lies between the counts of one
    tree = make_tree(["a", "b", "c"], rows=2, counts=[1, 2, 503, 504, 1000, 1001])
    result = picture("groups", tree)
    right = result.figure.axes[1]
    dots = [line for line in right.lines if len(line.get_xdata()) == 2]
    assert [line.get_xdata().tolist() for line in dots] == [[1, 2], [503, 504], [1000, 1001]]
    assert not [each for each in right.collections if isinstance(each, PolyCollection)]
    assert right.get_title() == "dots"


def test_groups_of_enough_rows_have_a_violin_and_rows_of_few_are_stacked():
    few, many = make_tree(["a"], rows=6, counts=[1, 4, 4, 4, 7, 7]), make_tree(["a"], rows=40)
    dots = picture("groups", few).figure.axes[1].lines[0]
    assert dots.get_xdata().tolist() == [1, 4, 4, 4, 7, 7]
    assert len(set(zip(dots.get_xdata(), dots.get_ydata(), strict=True))) == 6  # none hides another
    right = picture("groups", many).figure.axes[1]
    assert [each for each in right.collections if isinstance(each, PolyCollection)] and right.get_title() == "violins"


def test_groups_of_many_rows_narrower_than_the_grid_have_dots_too():
    right = picture("groups", make_tree(["a", "b"], rows=20, counts=[1, 2] * 10 + [0, 9000] * 10)).figure.axes[1]
    assert [1, 2] in [line.get_xdata().tolist() for line in right.lines]


def test_groups_divides_by_the_exposure():
    result = picture("groups", make_tree(["a", "b"], rows=2, counts=[2, 4, 10, 20], exposure=2.0))
    assert "The means of the groups run from 1.50 (a) to 7.50 (b)" in result.caption
    assert "Every count is divided by its exposure." in result.caption
