"""Which runs can be compared: same rows, and refusals that name tables, runs and cells."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from candidates import MULTIPLICITY, candidates, noisy, pointwise
from poolwise.comparison.candidates import (
    ComparisonError,
    check_same_rows,
    in_common_cells,
    read_groups_out,
    read_pointwise,
)
from poolwise.comparison.ranking import compare


def test_other_tables_are_refused_with_their_names_and_runs():
    one, other = candidates(noisy(2))
    params = {"data.name": "biscuits", "data.path": "data/biscuits.csv"}
    other = replace(other, data_sha256="d2", params=params, pointwise=other.pointwise.iloc[1:])
    rows, total = MULTIPLICITY.sum(), MULTIPLICITY @ np.arange(40)
    with pytest.raises(ComparisonError) as caught:
        check_same_rows([one, other])
    told = str(caught.value)
    assert (
        f"cookies with {rows} rows and a total count of {total:,}: m0 (id-of-m0); biscuits (data/biscuits.csv)" in told
    )
    assert f"with {rows - MULTIPLICITY[0]} rows and a total count of {total:,}: m1 (id-of-m1)." in told
    assert "d2" not in told
    assert caught.value.exit_code == 2


def test_other_exposures_are_another_table():
    one, other = candidates(noisy(2))
    with pytest.raises(ComparisonError, match="different tables"):
        check_same_rows([one, replace(other, data_sha256="d2", pointwise=other.pointwise.assign(exposure=2.0))])


def test_another_grouping_of_the_same_counts_is_accepted():
    one, other = candidates(noisy(2))
    check_same_rows([one, replace(other, data_sha256="d2", pointwise=other.pointwise.assign(group="all"))])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda cells: cells.iloc[1:], r"\(group 0, exposure 1, count 0\) is in only one of the two"),
        (lambda cells: cells.assign(exposure=[1.0] * 39 + [2.5]), r"\(group 0, exposure 1, count 39\) is in only one"),
        (lambda cells: cells.assign(multiplicity=[*MULTIPLICITY[:-1], 9]), r"count 39\) has different multiplicities"),
        (lambda cells: pd.concat([cells, cells.iloc[[7]]]), r"of id-of-m1 has .*count 7\) twice"),
    ],
    ids=["missing", "other exposure", "other multiplicity", "twice"],
)
def test_records_of_one_table_that_differ_are_refused_with_the_first_cell(damage, message):
    one, other = candidates(noisy(2))
    with pytest.raises(ComparisonError, match=message):
        check_same_rows([one, replace(other, pointwise=damage(other.pointwise))])


def test_pointwise_values_are_read_as_they_were_written(tmp_path):
    cells = pointwise(noisy(1)[:4, 0]).assign(group=["NA", "007", "a,b\nc", "1.0"], pareto_k=[0.1, np.nan, np.inf, 0.3])
    cells.assign(exposure=[1, 2, 3, 4]).to_csv(tmp_path / "pointwise.csv", index=False)
    read = read_pointwise(tmp_path / "pointwise.csv")
    assert list(read["group"]) == ["NA", "007", "a,b\nc", "1.0"]
    assert read["elpd"].to_numpy().tobytes() == cells["elpd"].to_numpy().tobytes()
    np.testing.assert_array_equal(read["pareto_k"], cells["pareto_k"])
    assert read["exposure"].dtype == float  # whole numbers too, so that cells of two runs match


def test_groups_left_out_are_read_with_their_labels(tmp_path):
    table = pd.DataFrame({"group": ["NA", "007"], "elpd": [-1.5, np.nan], "mcse": 0.1, "suspect": [False, True]})
    table.to_csv(tmp_path / "leave_group_out.csv", index=False)
    read = read_groups_out(tmp_path / "leave_group_out.csv")
    assert list(read["group"]) == ["NA", "007"]
    assert list(read["suspect"].astype(str)) == ["False", "True"]
    assert np.isnan(read["elpd"][1])


def divided(run, parts):
    """The run with the cells in two parts by a covariate, each with values of its own."""
    halves = [
        run.pointwise.assign(multiplicity=rows, elpd=run.pointwise["elpd"] + apart, **{"x.drug.y": level})
        for level, rows, apart in ((0.0, parts, 0.3), (1.0, MULTIPLICITY - parts, -0.1))
    ]
    whole = pd.concat(halves, ignore_index=True)
    return replace(run, data_sha256="d2", pointwise=whole[whole["multiplicity"] > 0])


def test_runs_with_and_without_covariates_are_compared_cell_by_cell():
    one, other = candidates(noisy(2))
    a, b = (each.pointwise["elpd"].to_numpy() for each in (one, other))
    parts = MULTIPLICITY // 2
    other = divided(other, parts)
    check_same_rows([one, other])
    found = compare([one, other]).table.set_index("name")
    rows = np.concatenate([np.repeat(a - b - 0.3, parts), np.repeat(a - b + 0.1, MULTIPLICITY - parts)])
    assert abs(found["elpd_diff"]).max() == pytest.approx(abs(rows.sum()))
    assert found["dse"].max() == pytest.approx(np.sqrt(len(rows)) * rows.std())
    assert found["weight_stacking"].sum() == pytest.approx(1)


def test_runs_with_different_covariates_are_compared_within_the_bounds_of_their_cells():
    one, other = (
        divided(each, parts) for each, parts in zip(candidates(noisy(2)), (MULTIPLICITY // 2, 0), strict=True)
    )
    other = replace(other, data_sha256="d3", pointwise=other.pointwise.rename(columns={"x.drug.y": "x.age"}))
    assert in_common_cells([one, other]) == [one, other]
    assert compare([one, other]).table["weight_stacking"].isna().all()
