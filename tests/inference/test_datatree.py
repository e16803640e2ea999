"""Labels, order and the way through a file."""

import numpy as np
import pytest
import xarray as xr

from poolwise.counts.cells import counts_from_rows
from poolwise.inference.datatree import to_tree
from poolwise.runs.artifacts import write_tree

LABELS = ["b, with comma", "a", "Åse 北", "b, with comma"]


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    draws = {"lam": rng.random((2, 5, 3)), "mu": rng.random((2, 5))}
    found = to_tree(draws, {"energy": rng.random((2, 5))}, counts_from_rows(LABELS, [3, 1, 2, 3]))
    found["posterior_predictive"] = xr.DataTree(xr.Dataset({"y": (("chain", "draw", "row"), np.ones((2, 2, 4), int))}))
    return found


def test_tree_labels_groups_in_canonical_order(tree):
    assert list(tree["posterior"]["lam"]["group"].values) == ["a", "b, with comma", "Åse 北"]


def test_tree_holds_rows_in_canonical_order(tree):
    assert list(tree["observed_data"]["y"].values) == [1, 3, 3, 2]
    assert list(tree["constant_data"]["row_group"].values) == [0, 1, 1, 2]


def test_tree_holds_the_number_of_every_row(tree):
    assert list(tree["constant_data"]["row_number"].values) == [2, 1, 4, 3]


def test_tree_says_that_it_is_not_what_arviz_expects(tree, tmp_path):
    write_tree(tree, tmp_path / "posterior.nc")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="netcdf4") as stored:
        assert "poolwise.load(run_id) gives the form that ArviZ expects" in stored.attrs["form"]


def test_tree_holds_cells_with_their_multiplicities(tree):
    assert list(tree["constant_data"]["cell_multiplicity"].values) == [1, 2, 1]


def test_tree_comes_back_from_its_file_bit_for_bit(tree, tmp_path):
    write_tree(tree, tmp_path / "posterior.nc")
    with xr.open_datatree(tmp_path / "posterior.nc", engine="netcdf4") as stored:
        for group in tree.children:
            for name, variable in tree[group].data_vars.items():
                assert np.array_equal(stored[group][name].values, variable.values), (group, name)
        assert list(stored["posterior"]["group"].values) == list(tree["posterior"]["group"].values)


def test_a_write_that_fails_leaves_the_file_before_it(tree, tmp_path, monkeypatch):
    write_tree(tree, tmp_path / "posterior.nc")
    before = (tmp_path / "posterior.nc").read_bytes()
    monkeypatch.setattr(xr.DataTree, "to_netcdf", lambda self, path, **_: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_tree(tree, tmp_path / "posterior.nc")
    assert (tmp_path / "posterior.nc").read_bytes() == before
