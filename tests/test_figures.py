"""Draws to pictures: what each shows, what its caption says, and tables that are hard to draw."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from poolwise.data import counts_from_rows
from poolwise.figures import FIGURES, MAX_LABELS, MAX_PANELS, Picture, draw, png
from poolwise.tree import to_tree

CHAINS, DRAWS = 4, 200
THRESHOLD = 0.7
HARD_LABELS = ["Zürich, Süd", "a$b$_{c}", r"$\oops{$", "東京", "x" * 300, "<script>", "two\nlines", "مدينة"]


def make_tree(labels=("a", "b", "c"), *, pooling="hierarchical", rows=10, chains=CHAINS, counts=None, exposure=None):
    """A tree as a fit leaves it, with draws from the posterior of every group by itself."""
    rng = np.random.default_rng(0)
    labels = list(labels)
    counts = rng.poisson(9.0, len(labels) * rows) if counts is None else np.asarray(counts)
    exposures = None if exposure is None else np.full(len(counts), exposure)
    table = counts_from_rows(np.repeat(labels, rows), counts, exposures)
    group, size, count = table.rows()
    shape = (chains, DRAWS)
    lam = rng.gamma(np.bincount(group, count) + 2.0, 1 / (np.bincount(group, size) + 0.2), (*shape, len(labels)))
    posterior = {"lam": lam if pooling != "pooled" else lam.mean(axis=2)}
    if pooling == "hierarchical":
        posterior |= {"mu": rng.normal(9, 0.5, shape), "sigma": rng.gamma(9.0, 0.2, shape)}
        posterior["alpha"] = posterior["mu"] ** 2 / posterior["sigma"] ** 2
    tree = to_tree(posterior, {"energy": rng.gamma(3.0, 1.0, shape)}, table)
    rate = lam[:, ::2, group] if pooling != "pooled" else posterior["lam"][:, ::2, None]
    y = rng.poisson(rate * size)
    tree["posterior_predictive"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "row"), y)}))
    return tree


def make_summary(tree: xr.DataTree) -> pd.DataFrame:
    flat = {}
    for name, values in tree["posterior"].to_dataset().items():
        if "group" in values.dims:
            flat |= {f"{name}.{label}": values.sel(group=label).values for label in values["group"].values}
        else:
            flat[name] = values.values
    draws = pd.DataFrame({name: values.ravel() for name, values in flat.items()})
    low, high = draws.quantile(0.03), draws.quantile(0.97)
    table = pd.DataFrame({"mean": draws.mean(), "hdi_3%": low, "hdi_97%": high})
    return table.assign(ess_bulk=len(draws), ess_tail=len(draws), r_hat=1.0)


def picture(name: str, tree: xr.DataTree, *, summary=None, pareto_k=None) -> Picture:
    summary = make_summary(tree) if summary is None else summary
    if pareto_k is None:
        pareto_k = np.full(tree["constant_data"].sizes["cell"], 0.1)
    [(drawn, result)] = draw([name], tree, summary=summary, pareto_k=pareto_k, k_threshold=THRESHOLD)
    assert drawn == name
    return result


def texts(result: Picture) -> list[str]:
    """Everything written in the picture, once laid out."""
    png(result.figure)
    labels = [tick.get_text() for axes in result.figure.axes for tick in axes.get_yticklabels()]
    notes = [note.get_text() for axes in result.figure.axes for note in axes.texts]
    return labels + notes + [axes.get_title() for axes in result.figure.axes]


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    return make_tree()


def test_draw_yields_the_figures_asked_for_in_their_order(tree):
    names = ["energy", "rank"]
    k = np.full(tree["constant_data"].sizes["cell"], 0.1)
    drawn = draw(names, tree, summary=make_summary(tree), pareto_k=k, k_threshold=THRESHOLD)
    assert [name for name, _ in drawn] == names


def test_draw_leaves_nothing_with_pyplot(tree):
    from matplotlib import pyplot

    for name in FIGURES:
        picture(name, tree)
    assert pyplot.get_fignums() == []


def test_png_is_a_picture_1056_pixels_wide(tree):
    image = png(picture("energy", tree).figure)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(image[16:20]) == 1056  # the width in the IHDR chunk


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(
    "case",
    [
        {"labels": HARD_LABELS, "exposure": 2.5},
        {"labels": ["only"], "rows": 1},
        {"counts": np.zeros(30, int)},
        {"chains": 1},
        {"chains": 12, "pooling": "pooled"},
        {"counts": np.arange(30) * 10**7, "pooling": "unpooled"},
    ],
    ids=["hard_labels", "one_row", "all_zero", "one_chain", "pooled", "huge"],
)
def test_every_figure_survives_a_hard_table(name, case):
    result = picture(name, make_tree(**case))  # a missing glyph or an overflow would warn, which is an error
    assert len(png(result.figure)) > 5000
    assert result.caption.startswith("Look for ")
    assert "nan" not in result.caption


def test_rank_has_a_panel_for_each_sampled_parameter_and_none_for_a_derived_one(tree):
    titles = [axes.get_title() for axes in picture("rank", tree).figure.axes]
    assert titles == ["mu", "sigma", "lam.a", "lam.b", "lam.c"]  # not alpha


def test_rank_shows_the_parameters_with_the_highest_r_hat():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2)
    summary = make_summary(tree)
    worst = [f"lam.g{i:03}" for i in range(7, 199, 16)]
    summary.loc[worst, "r_hat"] = 1.2
    result = picture("rank", tree, summary=summary)
    assert [axes.get_title() for axes in result.figure.axes] == worst[:MAX_PANELS]
    assert "Shown are the 12 of 202 parameters with the highest R-hat." in result.caption


def test_rank_names_a_chain_that_disagrees():
    tree = make_tree()
    shifted = tree["posterior"]["mu"].values.copy()
    shifted[2] += 5.0
    tree["posterior"]["mu"] = xr.DataArray(shifted, dims=("chain", "draw"))
    caption = picture("rank", tree).caption
    assert "chain 3 of mu" in caption
    assert "of 20 lines stay inside" in caption  # 5 parameters, 4 chains


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


def test_ecdf_caption_counts_the_counts_inside_the_band():
    tree = make_tree(counts=[0] * 10 + [9] * 20)
    simulated = tree["posterior_predictive"]["y"].values.reshape(-1, 30)
    observed = tree["observed_data"]["y"].values
    top = int(max(9, np.quantile(simulated, 0.995, method="inverted_cdf")))
    inside = 0
    for count in range(top + 1):  # a second route: one count at a time
        low, high = np.quantile((simulated <= count).mean(axis=1), [0.03, 0.97])
        inside += low <= np.mean(observed <= count) <= high
    assert f"the line is inside at {inside} of {top + 1} counts" in picture("ecdf", tree).caption


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
    assert f"Here {inside} of {max(9, last) - min(6, first) + 1} counts lie inside" in caption
    assert most in caption


def test_rootogram_bars_hold_every_row():
    tree = make_tree(counts=np.arange(30) ** 3)  # so wide that a bar spans many counts
    axes = picture("rootogram", tree).figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 30
    assert "each bar spans" in axes.get_xlabel()


def test_forest_marks_each_groups_own_mean_per_exposure():
    tree = make_tree(["a", "b"], rows=2, counts=[2, 4, 10, 20], exposure=2.0)
    diamonds = next(line for line in picture("forest", tree).figure.axes[0].lines if line.get_marker() == "D")
    np.testing.assert_allclose(diamonds.get_xdata(), [6 / 4, 30 / 4])


def test_forest_labels_some_of_many_groups_and_says_so():
    tree = make_tree([f"g{i:03}" for i in range(200)], rows=2)
    result = picture("forest", tree)
    labels = result.figure.axes[0].get_yticklabels()
    assert len(labels) == MAX_LABELS
    assert "The 200 groups are sorted by rate; one in 5 is labelled." in result.caption


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


def test_forest_tells_a_label_without_glyphs_by_its_position():
    shown = texts(picture("forest", make_tree(["a", "東京"])))
    assert "#2 □□" in shown


def test_forest_of_one_common_rate_has_no_dots():
    axes = picture("forest", make_tree(pooling="pooled")).figure.axes[0]
    assert not any(line.get_marker() == "o" for line in axes.lines)


def test_pareto_k_names_the_worst_cells_above_the_threshold():
    tree = make_tree(["a", "b"], rows=3, counts=[1, 2, 3, 4, 4, 6])
    k = np.array([0.1, 0.2, 0.3, 0.9, np.inf])  # the cells: a 1, a 2, a 3, b 4 (twice), b 6
    result = picture("pareto_k", tree, pareto_k=k)
    assert [text for text in texts(result) if "count" in text] == ["b: count 6", "b: count 4"]
    assert "Here 3 of 6 rows (2 of 5 points) lie above it." in result.caption


def test_pareto_k_says_when_no_row_lies_above_the_threshold(tree):
    assert "none of the 30 rows lies above it; the largest k is 0.10" in picture("pareto_k", tree).caption


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
