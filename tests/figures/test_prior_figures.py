"""Prior draws to pictures: what was expected, and what the data added."""

import numpy as np
import pytest
import xarray as xr

from pictures import make_tree, picture
from poolwise.figures import prior


def test_prior_predictive_says_when_the_prior_did_not_expect_the_data():
    assert "Every group's own mean lies within the" in picture("prior_predictive", make_tree()).caption
    far = make_tree(counts=np.full(30, 1000))
    assert "100% of the groups' own means lie outside the" in picture("prior_predictive", far).caption


def test_prior_predictive_table_has_the_quantiles_of_every_group():
    tree = make_tree(["a", "b"], pooling="unpooled")
    table = picture("prior_predictive", tree).table
    lam = tree["prior"]["lam"].sel(group="b").values
    assert table.loc["b", ["rate_3%", "rate_median", "rate_97%"]].tolist() == pytest.approx(
        np.quantile(lam, [0.03, 0.5, 0.97]).tolist()
    )


def test_prior_predictive_weighs_a_cell_by_its_rows():
    tree = make_tree(["a"], rows=10, counts=[1] * 9 + [5], pooling="unpooled")
    y = np.stack([np.full(500, 3), np.full(500, 90)], axis=-1)[None]  # cells: 9 rows and 1 row
    tree["prior_predictive_cells"]["y"] = xr.DataArray(y, dims=("chain", "draw", "cell"))
    assert ", and 90% in the range of the observed ones, 1 to 5." in picture("prior_predictive", tree).caption


@pytest.mark.parametrize(("pooling", "panels"), [("pooled", 2), ("unpooled", 4), ("hierarchical", 4)])
def test_prior_predictive_has_groups_where_groups_have_rates(pooling, panels):
    assert len(picture("prior_predictive", make_tree(pooling=pooling)).figure.axes) == panels


def test_prior_posterior_ratio_is_that_of_the_widths():
    tree = make_tree()
    table = picture("prior_posterior", tree).table
    before, after = (np.quantile(tree[each]["mu"].values, [0.03, 0.97]) for each in ("prior", "posterior"))
    assert table.loc["mu", "width_ratio"] == pytest.approx(np.ptp(after) / np.ptp(before))


def test_prior_posterior_names_a_parameter_on_which_they_disagree():
    caption = picture("prior_posterior", make_tree(counts=[9] * 10 + [500] * 10 + [9] * 10)).caption
    assert caption.startswith("Prior and data disagree on lam.b: the posterior's median, 49")
    assert "No posterior median lies outside" in picture("prior_posterior", make_tree()).caption


@pytest.mark.parametrize("scale", [1e-4, 50])
def test_prior_posterior_shows_the_prior_where_it_lies_far_from_the_data(scale):
    tree = make_tree()
    tree["prior"]["mu"] = tree["prior"]["mu"] * 0 + np.random.default_rng(0).gamma(400.0, 9 * scale / 400, (1, 500))
    axes = picture("prior_posterior", tree).figure.axes[0]
    assert axes.get_xscale() == "log"
    widths = np.diff(np.log(axes.patches[0].get_data().edges))
    for drawn in axes.patches:  # prior, posterior: nearly all of each is in the panel
        assert drawn.get_data().values @ widths == pytest.approx(1, abs=0.08)


def test_prior_posterior_is_linear_where_that_shows_both():
    assert {axes.get_xscale() for axes in picture("prior_posterior", make_tree()).figure.axes} == {"linear"}


def test_prior_posterior_of_many_groups_is_of_some_evenly_spaced(monkeypatch):
    monkeypatch.setattr(prior, "MAX_MARKS", 4)
    result = picture("prior_posterior", make_tree([f"g{i}" for i in range(7)], rows=2, counts=np.repeat(range(7), 2)))
    assert [name for name in result.table.index if name.startswith("lam.")] == ["lam.g0", "lam.g2", "lam.g4", "lam.g6"]
    assert result.caption.endswith("These numbers are of 4 of 7 rates, evenly spaced by the group's mean.")
    assert "These numbers" not in picture("prior_posterior", make_tree(["a", "b"])).caption
