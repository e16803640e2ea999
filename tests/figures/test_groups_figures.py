"""Which groups differ, in pictures: what is shown of many groups, and which lie outside the funnel."""

import numpy as np
import pytest

from pictures import make_counts, make_tree, picture, texts
from poolwise.figures.style import png


def test_matrix_shows_the_probabilities_of_the_contrasts_by_rate():
    counts = np.repeat([2, 12, 6], 10)
    result = picture("contrasts", make_tree(counts=counts, pooling="unpooled"))
    axes = result.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c", "a"]  # the highest rate first
    shown = axes.images[0].get_array()
    assert np.allclose(shown + shown.T, 1)
    assert shown[0, 2] > 0.99 and shown[2, 0] < 0.01
    assert "The order of 3 of 3 pairs of rates is known" in result.caption


def test_matrix_of_many_groups_shows_those_farthest_from_the_overall_rate():
    means = np.full(60, 9)
    means[[3, 40]] = 30, 0
    tree = make_tree([f"p{i:02}" for i in range(60)], rows=4, counts=np.repeat(means, 4))
    result = picture("contrasts", tree)
    names = [label.get_text() for label in result.figure.axes[0].get_yticklabels()]
    assert (len(names), names[0], names[-1]) == (30, "p03", "p40")
    assert "Shown are the 30 of 60 groups whose rates differ most clearly from the overall rate." in result.caption


def test_funnel_names_the_groups_outside_its_outer_limits():
    # the overall rate is 11: the totals of a to d, 80, are inside Poisson(110) only beyond 99.8%; e has 230
    tree = make_tree("abcde", counts=np.repeat([10, 10, 10, 10, 40], 10), pooling="unpooled")
    result = picture("funnel", tree)
    assert "e" in texts(result)
    assert (
        "those of a group with the overall rate, because unpooled groups do not inform a new one" in result.how_to_read
    )
    assert "and 5 outside the 99.8% limits: e, " in result.caption


def test_funnel_of_groups_that_follow_the_model_has_no_group_outside():
    result = picture("funnel", make_tree(counts=np.repeat([9, 9, 9], 10), pooling="pooled"))
    assert (
        "0 of 3 groups lie outside the 95% limits of the model, where about 0.2 would by chance, and 0 outside"
        in result.caption
    )


def test_funnel_table_has_the_observed_rates_inside_wider_limits():
    result = picture("funnel", make_tree(exposure=2.0, pooling="pooled"))
    table = result.table
    assert list(table.columns[:2]) == ["exposure", "rate"]
    assert np.all(np.diff(table.iloc[:, 2:], axis=1) > 0)
    total = [counts.sum() for counts in np.split(make_counts().rows()[2], 3)]
    assert table["rate"].tolist() == pytest.approx(np.array(total) / 20)


def test_axes_that_span_decades_are_logarithmic():
    counts = make_counts(exposure=1.0)
    tree = make_tree(exposure=1.0)
    assert picture("funnel", tree, counts).figure.axes[0].get_xscale() == "linear"
    tree["constant_data"]["cell_exposure"] = tree["constant_data"]["cell_exposure"] * np.where(
        tree["constant_data"]["cell_group"] == 2, 1000.0, 1.0
    )
    axes = picture("funnel", tree, counts).figure.axes[0]
    assert axes.get_xscale() == "log"
    png(axes.figure)
    assert "10,000" in [label.get_text() for label in axes.get_xticklabels()]
