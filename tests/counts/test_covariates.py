"""Columns of covariates to a design matrix: standardised numbers, levels against a reference, and what is refused."""

import numpy as np
import pytest

from poolwise.counts.cells import counts_from_rows, read_counts
from poolwise.errors import DataError

GROUP = list("aabbcc")
COUNT = [3, 5, 0, 2, 7, 1]


def table(**covariates):
    reference = covariates.pop("reference", None)
    return counts_from_rows(GROUP, COUNT, covariates=covariates, reference=reference)


def by_row(counts):
    return np.repeat(counts.cell_x, counts.cell_multiplicity, axis=0)


def test_numbers_are_centred_and_scaled_over_rows():
    age = ["20", "30", "25", "40", "35.5", "30"]
    counts = table(age=age)
    numbers = np.array(age, float)
    [column] = counts.covariates
    assert (column.centre, column.scale) == pytest.approx((numbers.mean(), numbers.std()))
    assert np.sort(by_row(counts)[:, 0]) == pytest.approx(np.sort((numbers - numbers.mean()) / numbers.std()))
    assert counts.effects == ("age",)


def test_multiplicities_weigh_in_centre_and_scale():
    counts = counts_from_rows(["a", "b"], [1, 2], None, [3, 1], {"age": ["10", "20"]})
    assert counts.covariates[0].centre == 12.5
    assert counts.covariates[0].scale == pytest.approx(np.std([10, 10, 10, 20]))


def test_texts_are_levels_against_the_first_or_the_named_one():
    drug = ["placebo", "high", "low", "placebo", "low", "high"]
    assert table(drug=drug).effects == ("drug.low", "drug.placebo")
    counts = table(drug=drug, reference={"drug": "placebo"})
    assert counts.covariates[0].levels == ("placebo", "high", "low")
    assert counts.covariates[0].design(["low", "placebo"]).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match="has no level 'none'"):
        counts.covariates[0].design(["none"])


def test_a_reference_makes_levels_of_numbers():
    assert table(dose=["1", "2", "3", "1", "2", "3"], reference={"dose": "2"}).effects == ("dose.1", "dose.3")


def test_cells_are_told_apart_by_covariates():
    same = counts_from_rows(["a"] * 4, [2, 2, 2, 2], covariates={"sex": ["f", "m", "f", "m"]})
    assert same.cell_multiplicity.tolist() == [2, 2]
    assert same.cell_x.tolist() == [[0], [1]]


def test_order_of_rows_does_not_matter():
    sex, rng = np.array(list("fmfmmf")), np.random.default_rng(0)
    first = table(sex=sex)
    order = rng.permutation(6)
    other = counts_from_rows(np.array(GROUP)[order], np.array(COUNT)[order], covariates={"sex": sex[order]})
    assert first.sha256 == other.sha256
    assert first.sha256 != counts_from_rows(GROUP, COUNT).sha256


def test_a_file_is_read(tmp_path):
    rows = zip(GROUP, COUNT, "fmfmmf", ["1", "2", "3", "4", "5", "7"], strict=True)
    lines = [f"{g},{y},{s},{a}" for g, y, s, a in rows]
    (tmp_path / "t.csv").write_text("\n".join(["g,y,sex,age", *lines]) + "\n")
    counts = read_counts(tmp_path / "t.csv", group="g", count="y", covariates=["sex", "age"])
    assert counts.effects == ("sex.m", "age")
    assert counts.cell_x.shape == (6, 2)


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ({"sex": ["f"] * 6}, "sex is f in every row"),
        ({"dose": ["1", "1.0", "1", "1", "1", "1"]}, "dose has one value"),
        ({"sex": ["f", "m", "", "f", "m", "f"]}, "table: row 3: sex is empty; every row needs a value"),
        ({"age": ["1", "2", "NA", "4", "5", "6"]}, "table: row 3: age is 'NA'; every row needs a value"),
        (
            {"age": list("123456"), "twice": ["2", "4", "6", "8", "10", "12"]},
            "twice follows from the covariates before",
        ),
        ({"age": list("123456"), "reference": {"sex": "f"}}, "data.reference names sex"),
        ({"sex": list("fmfmfm"), "reference": {"sex": "x"}}, "not a level of sex. Levels: f, m"),
    ],
)
def test_what_has_no_effect_or_no_value_is_refused(covariates, message):
    with pytest.raises(DataError, match=message):
        table(**covariates)


def test_too_many_levels_are_refused():
    with pytest.raises(DataError, match="name has 30 levels; at most 20 are possible"):
        counts_from_rows(["a"] * 30, [1] * 30, covariates={"name": [f"p{i}" for i in range(30)]})


def test_a_text_among_many_numbers_is_named():
    age = [str(i) for i in range(29)] + ["12,5"]
    with pytest.raises(DataError, match="row 30: age is '12,5'; covariates of numbers must be finite numbers"):
        counts_from_rows(["a"] * 30, [1] * 30, covariates={"age": age})
