"""Rows and groups predicted from all others, in pictures."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from pictures import make_groups_out, make_tree, picture, texts


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree()


def test_pareto_k_names_the_worst_cells_above_the_threshold():
    tree = make_tree(["a", "b"], rows=3, counts=[1, 2, 3, 4, 4, 6])
    k = np.array([0.1, 0.2, 0.3, 0.9, np.inf])  # the cells: a 1, a 2, a 3, b 4 (twice), b 6
    result = picture("pareto_k", tree, pareto_k=k)
    assert [text for text in texts(result) if "count" in text] == ["b: count 6", "b: count 4"]
    assert "3 of 6 rows (2 of 5 points) lie above the threshold, 0.70." in result.caption


def test_pareto_k_says_when_no_row_lies_above_the_threshold(tree):
    assert (
        "0 of 30 rows lie above the threshold, 0.70; the largest Pareto k is 0.10" in picture("pareto_k", tree).caption
    )


def places(tree, low, high):
    """Inputs with these P(Y < y) and P(Y <= y) for every cell."""
    return {"cell_below": low, "cell_elpd": np.log(np.maximum(high - low, 1e-300))}


def even(tree):
    size = tree["constant_data"].sizes["cell"]
    edges = np.linspace(0, 1, size + 1)
    return edges[:-1], edges[1:]


@pytest.fixture(scope="module")
def rows() -> xr.DataTree:
    return make_tree(["a", "b"], rows=50, counts=np.arange(100))  # a cell a row


def test_loo_pit_of_even_places_stays_inside(rows):
    result = picture("loo_pit", rows, **places(rows, *even(rows)))
    assert "LOO-PIT stays inside the band" in result.caption
    assert "The mean PIT is 0.500" in result.caption
    np.testing.assert_allclose(result.table["rows"], result.table.index, atol=1e-9)


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (lambda u: u**2, "lie below their predictions"),
        (lambda u: np.sqrt(u), "lie above their predictions"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.4, "spread wider than predicted"),
        (lambda u: 0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 2.5, "spread less than predicted"),
    ],
)
def test_loo_pit_tells_in_which_way_places_are_uneven(rows, bend, words):
    low, high = even(rows)
    caption = picture("loo_pit", rows, **places(rows, bend(low), bend(high))).caption
    assert "LOO-PIT leaves the band" in caption
    assert words in caption


def test_loo_pit_of_sparse_counts_says_how_much_of_it_is_random():
    # Poisson(0.1) predicted exactly: sum of p^3 = 0.742 of the variance is uniform between P(Y < y) and P(Y <= y)
    tree = make_tree(["a"], rows=1000, counts=[0] * 905 + [1] * 90 + [2] * 5)
    law = stats.poisson(0.1)
    caption = picture("loo_pit", tree, **places(tree, law.cdf([-1, 0, 1]), law.cdf([0, 1, 2]))).caption
    assert "These counts are sparse: 74% of that variance is the randomisation" in caption


def test_loo_pit_of_larger_counts_does_not_call_them_sparse(rows):
    assert "sparse" not in picture("loo_pit", rows, **places(rows, *even(rows))).caption


def test_loo_pit_weighs_a_cell_by_its_rows():
    tree = make_tree(["a"], rows=10, counts=[1] * 9 + [5])
    table = picture("loo_pit", tree, **places(tree, np.array([0.0, 0.5]), np.array([0.5, 1.0]))).table
    assert table["rows"].loc[0.5] == pytest.approx(0.9)


def test_calibration_covers_what_it_should_if_places_are_even(rows):
    table = picture("calibration", rows, **places(rows, *even(rows))).table
    np.testing.assert_allclose(table["covered"], table.index, atol=1e-9)


def test_calibration_calls_predictions_too_narrow_where_places_crowd_at_both_ends(rows):
    low, high = (0.5 + 0.5 * np.sign(u - 0.5) * np.abs(2 * u - 1) ** 0.4 for u in even(rows))
    assert "the intervals being too narrow" in picture("calibration", rows, **places(rows, low, high)).caption


def test_leave_group_out_caption_sums_the_groups_and_names_the_one_least_expected():
    out = make_groups_out("abc", [-30.0, -50.0, -20.0], [0.3, 0.4, 0.0])
    result = picture("leave_group_out", make_tree(), left_out=out)
    assert "that sum to -100.00, with a Monte Carlo error of 0.5; least expected, per row, is b" in result.caption
    assert result.table.loc["b", "per_row"] == -5.0  # ten rows


def test_leave_group_out_marks_refits_in_doubt():
    out = make_groups_out("abc", divergences=np.array([0, 1, 0]))
    result = picture("leave_group_out", make_tree(), left_out=out)
    [diamonds] = [line for line in result.figure.axes[0].lines if line.get_marker() == "D"]
    assert diamonds.get_ydata().tolist() == [1]
    assert "the refits of 1 are not reliable" in result.caption


def test_leave_group_out_of_many_groups_shows_those_least_expected():
    tree = make_tree([f"g{i:03}" for i in range(60)], rows=1)
    result = picture("leave_group_out", tree)
    labels = [tick.get_text() for tick in result.figure.axes[0].get_yticklabels()]
    assert labels == [f"g{i:03}" for i in range(20, 60)]  # the later, the lower
    assert "Shown are the 40 of 60 groups least expected per row." in result.caption
