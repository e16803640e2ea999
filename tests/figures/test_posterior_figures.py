"""Posterior to pictures: chains, rates and energies."""

import numpy as np
import pytest
import xarray as xr

from pictures import CHAINS, DRAWS, make_summary, make_tree, picture, texts
from poolwise.figures.style import MAX_LABELS, MAX_PANELS


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree()


def test_rank_has_a_panel_for_each_sampled_parameter_and_none_for_a_derived_one(tree):
    titles = [axes.get_title() for axes in picture("rank", tree).figure.axes]
    assert titles == ["mu", "sigma", "lam.a", "lam.b", "lam.c"]  # not alpha


def test_rank_shows_the_parameters_with_the_highest_r_hat():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2)
    summary = make_summary(tree)
    worst = [f"lam.g{i:03}" for i in range(7, 199, 16)]
    summary.loc[worst, "r_hat"] = 1.2
    result = picture("rank", tree, summary=summary)
    assert result.caption.startswith("The chains do not agree: the largest R-hat is 1.200 (lam.g007).")
    assert [axes.get_title() for axes in result.figure.axes] == worst[:MAX_PANELS]
    assert "Shown are the 12 of 202 parameters with the highest R-hat." in result.caption


def test_rank_names_a_chain_that_disagrees():
    tree = make_tree()
    shifted = tree["posterior"]["mu"].values.copy()
    shifted[2] += 5.0
    tree["posterior"]["mu"] = xr.DataArray(shifted, dims=("chain", "draw"))
    caption = picture("rank", tree).caption
    assert caption.startswith("The chains agree: the largest R-hat is 1.000 (")  # of the summary
    assert "chain 3 of mu" in caption
    assert "of 20 lines, a chain of a parameter each, stay inside" in caption  # 5 parameters, 4 chains


def test_rank_line_is_the_ecdf_of_fractional_ranks_less_the_diagonal(tree):
    mu = tree["posterior"]["mu"].values
    rank = (mu.ravel().argsort().argsort().reshape(mu.shape) + 1) / mu.size  # a second route: by ranks
    line = picture("rank", tree).figure.axes[0].lines[1]
    z = line.get_xdata()
    expected = np.array([np.mean(rank[1] <= at) for at in z]) - z
    np.testing.assert_allclose(line.get_ydata(), expected, atol=1.5 / mu.shape[1])


def test_rank_treats_ties_as_agreement():
    tree = make_tree()
    tree["posterior"]["mu"] = xr.DataArray(np.ones((CHAINS, DRAWS)), dims=("chain", "draw"))
    line = picture("rank", tree).figure.axes[0].lines[0]
    assert np.all(line.get_ydata() == 0)


def test_forest_marks_each_groups_own_mean_per_exposure():
    tree = make_tree(["a", "b"], rows=2, counts=[2, 4, 10, 20], exposure=2.0)
    diamonds = next(line for line in picture("forest", tree).figure.axes[0].lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xdata(), [30 / 4, 6 / 4])  # the highest rate first


def test_forest_labels_some_of_many_groups_and_says_so():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2)
    result = picture("forest", tree)
    labels = result.figure.axes[0].get_yticklabels()
    assert len(labels) == MAX_LABELS
    assert "One in 5 of the 200 groups is labelled." in result.how_to_read


def test_forest_shows_every_group_of_many():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2)
    lines = picture("forest", tree).figure.axes[0].lines
    assert {len(line.get_xdata()) for line in lines if line.get_marker() in "oD"} >= {200}


def test_forest_shortens_a_long_label_in_the_middle():
    shown = texts(picture("forest", make_tree(["start" + "x" * 100 + "end", "b"])))
    [long] = [text for text in shown if text.startswith("start")]
    assert long.endswith("end")
    assert "…" in long
    assert len(long) == 28


def test_forest_of_one_common_rate_has_no_dots():
    axes = picture("forest", make_tree(pooling="pooled")).figure.axes[0]
    assert not any(line.get_marker() == "o" for line in axes.lines)


def test_energy_caption_gives_the_smallest_bfmi():
    tree = make_tree()
    energy = np.random.default_rng(1).normal(size=(CHAINS, DRAWS))
    energy[1] = energy[1].cumsum()  # a random walk: its steps are much smaller than its range
    tree["sample_stats"]["energy"] = xr.DataArray(energy, dims=("chain", "draw"))
    walk = energy[1]
    bfmi = np.mean(np.diff(walk) ** 2) / np.var(walk)
    caption = picture("energy", tree).caption
    # definitions differ in n or n - 1, and the caption has two decimals
    assert float(caption.removesuffix(".").split()[-1]) == pytest.approx(bfmi, abs=0.006)


@pytest.mark.parametrize(
    ("stuck", "words"), [(1, "; there is no E-BFMI for 1 chain,"), (4, "There is no E-BFMI for 4")]
)
def test_energy_of_a_stuck_chain_has_no_bfmi(stuck, words):
    tree = make_tree()
    energy = np.random.default_rng(1).normal(size=(CHAINS, DRAWS))
    energy[:stuck] = 3.0
    tree["sample_stats"]["energy"] = xr.DataArray(energy, dims=("chain", "draw"))
    caption = picture("energy", tree).caption
    assert words in caption
    assert "nan" not in caption


def test_energy_shows_the_bfmi_of_every_chain_and_the_limit():
    left = picture("energy", make_tree()).figure.axes[0]
    assert len([point for points in left.collections for point in points.get_offsets()]) == CHAINS
    assert [line.get_xdata()[0] for line in left.lines] == [0.3]


def test_trace_tells_divergences_and_the_parameter_with_the_fewest_independent_draws():
    tree = make_tree()
    diverging = np.zeros((CHAINS, DRAWS), bool)
    diverging[1, [3, 8]] = True
    tree["sample_stats"]["diverging"] = xr.DataArray(diverging, dims=("chain", "draw"))
    summary = make_summary(tree)
    summary.loc["sigma", "ess_tail"] = 77.0
    result = picture("trace", tree, summary=summary)
    assert "2 of 800 draws diverged; the lowest ESS is 77 of 800 draws, for sigma." in result.caption
    right = result.figure.axes[1]
    [ticks] = [line for line in right.lines if line.get_marker() == "|"]
    assert ticks.get_xdata().tolist() == [4, 9]


def test_trace_of_many_parameters_shows_those_with_the_lowest_ess():
    tree = make_tree([f"g{i}" for i in range(20)])
    summary = make_summary(tree)
    summary.loc[["lam.g3", "lam.g17"], "ess_bulk"] = 5.0
    result = picture("trace", tree, summary=summary)
    assert {"lam.g3", "lam.g17"} <= {axes.get_ylabel() for axes in result.figure.axes}
    assert "Shown are the 8 of 22 parameters with the lowest ESS." in result.caption
