"""Statistics of simulated tables against the observed one."""

import numpy as np
import pytest

from pictures import (
    make_tree,
    picture,
)


def test_statistics_of_a_table_as_simulated_are_as_the_model_expects():
    tree = make_tree()
    simulated = tree["posterior_predictive"]["y"].values[0, 50]  # a table as the model simulates them
    tree["constant_data"] = make_tree(counts=simulated)["constant_data"]
    assert set(picture("statistics", tree).table["finding"]) == {"as the model expects"}


def test_statistics_finds_a_variance_that_is_too_large():
    result = picture("statistics", make_tree(counts=[0, 18] * 15))
    assert result.table.loc["variance / mean", "finding"] == "larger than the model expects"
    unusual = (result.table["finding"] != "as the model expects").sum()
    assert result.caption.startswith(f"{4 - unusual} of 4 test statistics are as the model expects, by ")
    assert "larger than the model expects" in result.caption
    # 15 rows of 0 and 15 of 18: variance 83.8 over mean 9
    assert result.table.loc["variance / mean", "observed"] == pytest.approx(np.var([0, 18] * 15, ddof=1) / 9)


def test_statistics_p_counts_tables_at_least_as_unusual():
    tree = make_tree()
    table = picture("statistics", tree).table
    largest = tree["posterior_predictive"]["y"].values.reshape(-1, 30).max(axis=1)
    seen = tree["observed_data"]["y"].values.max()
    p = min(1.0, 2 * min(np.mean(largest >= seen), np.mean(largest <= seen)))
    assert table.loc["largest count", "p_value"] == pytest.approx(p)


def test_statistics_leaves_out_what_cannot_be_told():
    assert "variance / mean" not in picture("statistics", make_tree(["only"], rows=1)).table.index
