"""Prior draws to pictures: what was expected, and what the data added."""

import numpy as np
import pytest
import xarray as xr

from pictures import make_tree, picture


def test_prior_predictive_says_when_the_prior_did_not_expect_the_data():
    assert "every group's own mean lies in its 94%" in picture("prior_predictive", make_tree()).caption
    far = make_tree(counts=np.full(30, 1000))
    assert "100% of the groups' own means lie outside its 94%: it" in picture("prior_predictive", far).caption


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
    assert "; 90% of its counts lie there" in picture("prior_predictive", tree).caption


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
    assert "Prior and data disagree on lam.b" in caption
    assert "No posterior median lies outside" in picture("prior_posterior", make_tree()).caption
