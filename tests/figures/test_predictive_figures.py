"""Simulated tables against the observed one: all rows, and group by group."""

from collections import Counter

import numpy as np
import pytest

from pictures import (
    inside_counted,
    make_tree,
    picture,
)
from poolwise.figures.style import MAX_PANELS


def test_ecdf_caption_counts_the_counts_inside_the_band():
    tree = make_tree(counts=[0] * 10 + [9] * 20)
    inside, total = inside_counted(tree)
    assert f"simulated tables at {inside} of {total} counts" in picture("ecdf", tree).caption


def test_rootogram_caption_counts_the_counts_inside_the_band():
    tree = make_tree(counts=[6] * 22 + [9] * 8)
    simulated = tree["posterior_predictive"]["y"].values.reshape(-1, 30)
    seen = Counter(tree["observed_data"]["y"].values.tolist())
    first, last = np.quantile(simulated, [0.005, 0.995], method="inverted_cdf")
    inside = 0
    for count in range(min(6, first), max(9, last) + 1):
        each = (simulated == count).sum(axis=1)
        low, high = np.quantile(each, [0.03, 0.97], method="inverted_cdf")
        inside += low <= seen[count] <= high
        if count == 6:
            most = f"most missed: 6 (22 seen, {low} to {high} expected)"
    caption = picture("rootogram", tree).caption
    assert f"{inside} of {max(9, last) - min(6, first) + 1} counts are as frequent" in caption
    assert most in caption


def test_rootogram_bars_hold_every_row():
    tree = make_tree(counts=np.arange(30) ** 3)  # so wide that a bar spans many counts
    axes = picture("rootogram", tree).figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 30
    assert "each bar spans" in axes.get_xlabel()


def test_groups_predictive_puts_the_groups_reproduced_worst_first_among_many():
    labels = [f"g{i:02}" for i in range(20)]
    counts = np.random.default_rng(0).poisson(9.0, 200)
    counts[70:80] = [0, 0, 0, 0, 0, 18, 18, 18, 18, 18]  # g07, with its mean but far too wide
    result = picture("groups_predictive", make_tree(labels, counts=counts))
    titles = [axes.get_title() for axes in result.figure.axes]
    assert len(titles) == MAX_PANELS
    assert any(title.startswith("g07\n10 rows, p ") for title in titles)
    assert titles == sorted(titles)
    assert "the lowest is" in result.caption and "(g07)" in result.caption
    assert "Shown are the 12 of 20 groups with the lowest p." in result.caption


def test_groups_predictive_p_is_the_share_of_tables_that_stray_as_far():
    tree = make_tree(["a", "b"])
    table = picture("groups_predictive", tree).table
    simulated = tree["posterior_predictive"]["y"].values.reshape(-1, 20)[:, :10]
    observed = tree["observed_data"]["y"].values[:10]
    at = np.arange(max(simulated.max(), observed.max()) + 1)
    shares = (simulated[:, :, None] <= at).mean(axis=1)  # a second route: every count, no bins
    far = np.abs(shares - shares.mean(axis=0)).max(axis=1)
    seen = np.abs((observed[:, None] <= at).mean(axis=0) - shares.mean(axis=0)).max()
    assert table.loc["a", "p_value"] == pytest.approx(np.mean(far >= seen - 1e-12), abs=0.01)


def test_groups_rootogram_marks_bars_outside_their_interval_in_two_ways():
    result = picture("groups_rootogram", make_tree(["a", "b"], counts=[9] * 10 + [1, 17] * 5))
    bars = [bar for axes in result.figure.axes for bar in axes.patches]
    odd = [bar for bar in bars if bar.get_hatch()]
    assert odd
    assert {bar.get_facecolor() for bar in odd}.isdisjoint(bar.get_facecolor() for bar in bars if not bar.get_hatch())
