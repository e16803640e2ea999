"""Tables to validated counts: the shipped cookies, every format, every refusal, and the invariances."""

import dataclasses
import gzip
import hashlib
import io
import re
from collections import Counter
from math import lgamma, log, log1p
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import yaml
from hypothesis import given
from hypothesis import strategies as st

from poolwise.counts import cells
from poolwise.counts.cells import Counts, counts_from_rows, read_counts
from poolwise.counts.statistics import sufficient_statistics
from poolwise.errors import DataError, RequestError
from support import ROOT

COOKIES = Path(__file__).parents[2] / "data" / "cookies.csv"

TABLES = st.lists(  # (label, count, exposure); few distinct values, so that cells do collect rows
    st.tuples(
        st.sampled_from(["7", "007", "-1", "NA", "a, b", "é"]),
        st.integers(0, 4),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    min_size=1,
    max_size=40,
)


@pytest.fixture(scope="module")
def cookies() -> Counts:
    return read_counts(COOKIES, group="location", count="chips")


@pytest.fixture
def write(tmp_path):
    """Write a table of the given text or bytes and return its path."""

    def write_table(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_table


@pytest.fixture(params=["as a small table", "as a large table"])
def any_size(request, monkeypatch):
    """The table is read in both ways: with the place of every row, and streamed."""
    if request.param == "as a large table":
        monkeypatch.setattr(cells, "MOST_ROWS", 0)


def read(path, **columns) -> Counts:
    return read_counts(path, **{"group": "location", "count": "chips", **columns})


def from_table(table) -> Counts:
    labels, counts, exposures = zip(*table, strict=True)
    return counts_from_rows(labels, counts, exposures)


def table_of(counts: Counts) -> list[tuple[str, int, float]]:
    group, exposure, count = counts.rows()
    return list(zip([counts.labels[g] for g in group], count.tolist(), exposure.tolist(), strict=True))


def parquet(frame: pd.DataFrame, **options) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


# The shipped table.


def test_cookies_have_the_published_mean_and_sd(cookies):
    # the source's summary of the 150 cookies
    _, _, chips = cookies.rows()
    np.testing.assert_allclose([len(chips), chips.mean(), chips.std(ddof=1)], [150, 9.153333, 3.829831], atol=5e-7)


def test_cookies_have_the_published_mean_per_location(cookies):
    location, _, chips = cookies.rows()
    means = [chips[location == g].mean() for g in range(5)]
    np.testing.assert_allclose(means, [9.300000, 5.966667, 9.566667, 8.933333, 12.000000], atol=5e-7)


def test_cookies_have_the_published_variance_per_location(cookies):
    location, _, chips = cookies.rows()
    variances = [chips[location == g].var(ddof=1) for g in range(5)]
    np.testing.assert_allclose(variances, [8.010345, 6.447126, 13.012644, 15.029885, 13.724138], atol=5e-7)


def test_cookies_collapse_to_their_distinct_pairs(cookies):
    # counted by hand over the listing: 55 distinct (location, chips)
    assert (cookies.num_rows, cookies.num_cells, cookies.num_groups) == (150, 55, 5)


def test_cookies_keep_their_totals_and_distinct_counts(cookies):
    statistics = sufficient_statistics(cookies)
    assert statistics["group_total"].tolist() == [279, 179, 287, 268, 360]
    assert len(statistics["value"]) == 20


def test_shipped_tables_have_the_hashes_that_the_readme_names(cookies):
    readme = (COOKIES.parent / "README.md").read_text(encoding="utf-8")
    presets = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / "data").glob("*.yaml"))]
    tables = [
        read_counts(ROOT / path, reference=levels or {}, **names)
        for path, levels, names in ((each.pop("path"), each.pop("reference"), each) for each in presets)
        if path != "???"
    ]
    named = {digest for each in tables for digest in (each.file_sha256, each.sha256)}
    assert {*re.findall(r"`([0-9a-f]{64})`", readme)} == named


def test_horse_kicks_are_those_that_bortkiewicz_published():
    kicks = read_counts(COOKIES.with_name("horse_kicks.csv"), group="corps", count="deaths")
    group, _, count = kicks.rows()
    assert np.bincount(count).tolist() == [144, 91, 32, 11, 2]
    is_kept = ~np.isin(np.array(kicks.labels)[group], ["G", "I", "VI", "XI"])
    assert np.bincount(count[is_kept]).tolist() == [109, 65, 22, 3, 1]  # of the ten corps of 1898


@pytest.mark.usefixtures("any_size")
def test_file_sha256_is_that_of_the_bytes_on_disk(write):
    content = gzip.compress(b"chips,location\n1,a\n")
    assert read(write(content)).file_sha256 == hashlib.sha256(content).hexdigest()


# Canonical form.


def test_cells_are_sorted_by_group_exposure_and_count():
    counts = counts_from_rows(["b", "a", "a", "a", "b"], [1, 5, 9, 2, 1], [1.0, 2.0, 1.0, 2.0, 1.0])
    cells = zip(counts.cell_group, counts.cell_exposure, counts.cell_count, counts.cell_multiplicity, strict=True)
    assert list(cells) == [(0, 1.0, 9, 1), (0, 2.0, 2, 1), (0, 2.0, 5, 1), (1, 1.0, 1, 2)]


def test_sha256_is_that_of_the_cells_as_json_lines():
    counts = counts_from_rows(["é", "b", "é"], [2, 0, 2], [0.1, 1, 0.1])
    lines = b'["b", 1.0, 0, 1]\n["\\u00e9", 0.1, 2, 2]\n'  # written by hand
    assert counts.sha256 == hashlib.sha256(lines).hexdigest()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-2", "1"], ("-2", "1", "9", "10")),
        (["7", "10", "007", "07"], ("007", "07", "7", "10")),  # numeric ties go by code point
        (["9" * 5000, "2", "1" + "0" * 5000], ("2", "9" * 5000, "1" + "0" * 5000)),
        (["10", "9", "NA"], ("10", "9", "NA")),  # one that is no integer: all by code point
        (["10", "9", "1.5"], ("1.5", "10", "9")),
        (["b", "B", "é", "z"], ("B", "b", "z", "é")),
        (["10", "9", "٣"], ("10", "9", "٣")),  # only 0-9 make an integer
    ],
)
def test_labels_are_in_numeric_order_only_if_all_are_integers(labels, expected):
    assert counts_from_rows(labels, [1] * len(labels)).labels == expected


def test_integer_labels_become_text():
    assert counts_from_rows(np.array([10, 9]), np.array([1, 2])).labels == ("9", "10")


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("label", ["007", "NA", "nan", " padded ", "a, b", 'say "hi"', "two\nlines", "Zürich ☃", "1,5"])
def test_labels_are_kept_exactly_as_written(write, label):
    frame = pd.DataFrame({"chips": [1], "location": [label]})
    path = write(frame.to_csv(index=False, lineterminator="\n"))
    assert read(path).labels == (label,)


@pytest.mark.usefixtures("any_size")
def test_007_and_7_are_different_groups(write):
    assert read(write("chips,location\n1,7\n1,007\n")).labels == ("007", "7")


def test_arrays_are_read_only(cookies):
    arrays = [value for value in vars(cookies).values() if isinstance(value, np.ndarray)]
    assert [array.flags.writeable for array in arrays] == [False] * 6


def test_counts_cannot_be_reassigned(cookies):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cookies.name = "other"


def test_given_arrays_are_left_as_they_were():
    labels, numbers, exposures = np.array([2, 1]), np.array([4, 3]), np.array([1.5, 0.5])
    counts_from_rows(labels, numbers, exposures)
    numbers[0] = 5  # still writeable
    assert (labels.tolist(), numbers.tolist(), exposures.tolist()) == ([2, 1], [5, 3], [1.5, 0.5])


def test_a_table_without_exposure_has_exposure_one(cookies):
    assert not cookies.has_exposure
    assert set(cookies.cell_exposure) == {1.0}


def test_a_table_with_exposure_says_so(write):
    counts = read(write("chips,location,hours\n1,a,0.5\n"), exposure="hours")
    assert counts.has_exposure
    assert counts.cell_exposure.tolist() == [0.5]


def test_the_source_is_kept_with_the_table(write):
    path = write("n,g,h\n1,a,1\n", "visits.csv.gz")  # told from the bytes, not from the ending
    counts = read_counts(path, group="g", count="n", exposure="h")
    assert (counts.name, counts.path) == ("visits", str(path))
    assert dataclasses.astuple(counts.columns) == ("g", "n", "h", 1.0, None, ())


def test_a_given_name_beats_the_file_name():
    assert read(COOKIES, name="biscuits").name == "biscuits"


@pytest.mark.parametrize(
    ("labels", "counts"),
    [(["a", "b"], [0, 0]), (["a", "a"], [1, 2]), (["a"], [3])],
    ids=["all zero", "one group", "one row"],
)
def test_small_tables_are_fine(labels, counts):
    assert sufficient_statistics(counts_from_rows(labels, counts))["group_total"].sum() == sum(counts)


# Formats.


def _cookies_as(**options) -> bytes:
    return pd.read_csv(COOKIES).to_csv(index=False, lineterminator="\n", **options).encode()


FORMATS = {
    "comma": _cookies_as(),
    "tab": _cookies_as(sep="\t"),
    "semicolon": _cookies_as(sep=";"),
    "space, quoted": _cookies_as(sep=" ", quoting=2).replace(b'"5"', b"5"),
    "spaces, aligned": pd.read_csv(COOKIES).to_string(index=False).encode(),
    "spaces at line ends": _cookies_as(sep=" ").replace(b"\n", b"  \n ").replace(b"  \n", b"\n", 1),
    "BOM": b"\xef\xbb\xbf" + _cookies_as(),
    "CRLF": _cookies_as().replace(b"\n", b"\r\n"),
    "CR": _cookies_as().replace(b"\n", b"\r"),
    "no final newline": _cookies_as().rstrip(),
    "blank lines": b"\n \n" + _cookies_as().replace(b"\n", b"\n\n  \n"),
    "everything quoted": _cookies_as(quoting=1),
    "more columns": pd.read_csv(COOKIES).assign(note="a;b\tc").to_csv(lineterminator="\n").encode(),
    "gzip": gzip.compress(_cookies_as()),
    "gzip of tabs": gzip.compress(_cookies_as(sep="\t")),
    "parquet": parquet(pd.read_csv(COOKIES)),
    "parquet of text": parquet(pd.read_csv(COOKIES, dtype=str)),
    "parquet of categories": parquet(pd.read_csv(COOKIES).astype({"location": "category"})),
    "parquet of floats": parquet(pd.read_csv(COOKIES).astype({"chips": float})),
    "parquet with an index": parquet(pd.read_csv(COOKIES).set_index("location")),
}


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_sha256(write, cookies, content):
    assert read(write(content, "table.txt")).sha256 == cookies.sha256


@pytest.mark.usefixtures("any_size")
def test_the_separator_is_the_first_that_holds_all_names(write):
    # comma and space both give a header with both names; the comma is tried first
    assert read(write("chips,location,a chips location b\n1,g,h\n")).labels == ("g",)


@pytest.mark.usefixtures("any_size")
def test_a_separator_that_holds_only_some_names_is_passed_over(write):
    # the comma gives "chips;location;x" and "location"
    assert read(write("chips;location;x,location\n1;b;2,y\n")).labels == ("b",)


@pytest.mark.usefixtures("any_size")
def test_parquet_keeps_na_as_a_label(write):
    assert read(write(parquet(pd.DataFrame({"chips": [1], "location": ["NA"]})))).labels == ("NA",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3.0", 3),
        ("3.", 3),
        ("+3", 3),
        (" 3\t", 3),
        ("1e+05", 100_000),
        ("-0", 0),
        ("30e-1", 3),
        (str(2**53), 2**53),
    ],
)
def test_a_count_may_be_written_in_any_plain_way(text, value):
    assert counts_from_rows(["a"], [text]).cell_count.tolist() == [value]


@pytest.mark.parametrize(("text", "value"), [(".5", 0.5), (" 2 ", 2.0), ("1e-3", 0.001), ("0.1", 0.1)])
def test_an_exposure_may_be_written_in_any_plain_way(text, value):
    assert counts_from_rows(["a"], [1], [text]).cell_exposure.tolist() == [value]


# Refusals: what, where, remedy.

COUNT_RULE = "counts must be integers >= 0"
EXPOSURE_RULE = "exposures must be finite numbers > 0"
CORRECT = "Correct the cell or drop the row."
GAP = "A missing value is not a zero: fill in the cell or drop the row."
PLAIN = "Write it like 1000 or 0.5: no thousands separator, a decimal point."


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("-2", f"is -2; {COUNT_RULE}. {CORRECT}"),
        ("3.5", f"is 3.5; {COUNT_RULE}. If it is a rate, give the count and an exposure instead."),
        ("1e-9999", f"is 1e-9999; {COUNT_RULE}. If it is a rate"),
        ("", f"is empty; {COUNT_RULE}. {GAP}"),
        ("  ", f"is empty; {COUNT_RULE}. {GAP}"),
        ("NA", f"is 'NA'; {COUNT_RULE}. {GAP}"),
        ("nan", f"is 'nan'; {COUNT_RULE}. {GAP}"),
        ("inf", f"is 'inf'; {COUNT_RULE}. Write a finite number or drop the row."),
        ("-Infinity", f"is '-Infinity'; {COUNT_RULE}. Write a finite number or drop the row."),
        ("1_000", f"is '1_000'; {COUNT_RULE}. {PLAIN}"),
        ('"1,000"', f"is '1,000'; {COUNT_RULE}. {PLAIN}"),
        ("٣", f"is '٣'; {COUNT_RULE}. Write it with the digits 0 to 9."),
        ("many", f"is 'many'; {COUNT_RULE}. {CORRECT}"),
        ("0x10", f"is '0x10'; {COUNT_RULE}. {CORRECT}"),
        (str(2**53 + 1), "is 9007199254740993; counts above 2**53 are not exact in float64. "),
        ("1e9999", "is 1e9999; counts above 2**53 are not exact in float64. "),
        ("1e99999999999999999999", f"is '1e99999999999999999999'; {COUNT_RULE}. {CORRECT}"),
        ("3" * 60, "is '333333333333...3333333333333'; counts above 2**53"),
    ],
)
def test_a_bad_count_is_refused_with_its_remedy(write, cell, message):
    path = write(f"chips,location\n3,a\n{cell},a\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:3: chips {message}")):
        read(path)


@pytest.mark.parametrize("cell", ["-", ".", "?", "<NA>", "n/a", "NaT", "None", "NULL"])
def test_a_gap_is_never_read_as_a_count(cell):
    with pytest.raises(DataError, match=GAP):
        counts_from_rows(["a"], [cell])


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("0", f"is 0; {EXPOSURE_RULE}. {CORRECT}"),
        ("-1.5", f"is -1.5; {EXPOSURE_RULE}. {CORRECT}"),
        ("1e400", f"is 1e400; {EXPOSURE_RULE}. {CORRECT}"),
        ("inf", f"is 'inf'; {EXPOSURE_RULE}. Write a finite number or drop the row."),
        ("NA", f"is 'NA'; {EXPOSURE_RULE}. {GAP}"),
        ('"3,5"', f"is '3,5'; {EXPOSURE_RULE}. {PLAIN}"),
    ],
)
def test_a_bad_exposure_is_refused_with_its_remedy(write, cell, message):
    path = write(f"chips,location,hours\n3,a,1\n3,a,{cell}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:3: hours {message}")):
        read(path, exposure="hours")


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("label", ["", "  ", '" "'])
def test_a_blank_label_is_refused(write, label):
    path = write(f"chips,location\n3,{label}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:2: location is empty; every row needs a group. Fill in")):
        read(path)


@pytest.mark.parametrize(
    ("counts", "more"),
    [("-1 2", "-1; "), ("-1 -1", "-1 (and 1 more such row); "), ("2 -3 x -4", "-3 (and 2 more such rows); ")],
)
def test_the_first_bad_row_is_reported_and_the_others_counted(counts, more):
    values = counts.split()
    with pytest.raises(DataError, match=re.escape(f"chips: row {1 + (values[0] == '2')}: count is {more}")):
        counts_from_rows(["a"] * len(values), values, name="chips")


@pytest.mark.usefixtures("any_size")
def test_a_row_is_named_by_its_physical_line(write):
    # line 1 blank, header 2, record 3-4 with a newline in quotes, blank 5, record 6-7 is bad
    path = write('\nchips,location\n1,"two\nlines"\n\nx,"two\nlines"\n')
    with pytest.raises(DataError, match=re.escape(f"{path}:6: chips is 'x'")):
        read(path)


@pytest.mark.usefixtures("any_size")
def test_a_parquet_row_is_named_by_its_number(write):
    path = write(parquet(pd.DataFrame({"chips": pd.array([1, None], "Int64"), "location": ["a", "b"]})))
    with pytest.raises(DataError, match=re.escape(f"{path}: row 2: chips is empty; {COUNT_RULE}. {GAP}")):
        read(path)


@pytest.mark.usefixtures("any_size")
def test_integers_with_a_null_stay_integers(write):
    # plain pandas dtypes would read -2 beside a null as -2.0
    columns = pa.table({"chips": pa.array([-2, None]), "location": ["a", "b"]})
    pq.write_table(columns, path := write(b""))
    with pytest.raises(DataError, match=r"row 1: chips is -2 \(and 1 more such row\); "):
        read(path)


@pytest.mark.usefixtures("any_size")
def test_a_null_label_in_parquet_is_refused(write):
    path = write(parquet(pd.DataFrame({"chips": [1, 2], "location": ["a", None]})))
    with pytest.raises(DataError, match="row 2: location is empty"):
        read(path)


BAD_FILES = {
    "empty": (b"", ": the file is empty. Write a header and rows into it."),
    "blank": (b" \n\n", ": the file is empty."),
    "blank gzip": (gzip.compress(b""), ": the file is empty."),
    "header only": (b"chips,location\n\n", ": there is a header but no rows. Add the rows."),
    "quotes only": (b'""\n', ": there is no column 'location'; the columns are ."),
    "not UTF-8": (
        "chips,location\n1,é\n".encode("latin-1"),
        ":2: the text is not UTF-8. Save it as UTF-8, or as parquet.",
    ),
    "UTF-16": ("chips,location\n1,a\n".encode("utf-16"), ":1: the text is not UTF-8."),
    "damaged gzip": (gzip.compress(FORMATS["comma"])[:-20], ": the gzip data are damaged ("),
    "not gzip": (b"\x1f\x8b and no more", ": the gzip data are damaged ("),
    "damaged parquet": (FORMATS["parquet"][:-20], ": cannot be read as parquet ("),
    "short row": (b"chips,location\n1,a\n2\n", ":3: the row has 1 fields, the header 2. Quote a separator"),
    "long row": (
        b"chips,location\n1,a,b\n2,c\n",
        ":2: the row has 3 fields, the header 2. Quote a separator",
    ),
    "row names": (
        b'"chips" "location"\n"1" 1 1\n"2" 3 1\n',
        ":2: the row has 3 fields, the header 2. They look like R's row names: write with row.names=FALSE.",
    ),
    "long last row": (
        b"chips,location\n1,a\n2,c,d\n",
        ":3: the row has 3 fields, the header 2. Quote a separator",
    ),
    "only separators": (b"chips,location\n,\n", ":2: location is empty;"),
    "open quote": (
        b'chips,location\n1,a\n2,"b\n3,c\n',
        ":3: unexpected end of data. Check the quotes of this row.",
    ),
    "huge cell": (b"chips,location\n1," + b"x" * 200_000 + b"\n", ":2: field larger than field limit"),
    "column twice": (
        b"chips,location,chips\n1,a,2\n",
        ": column 'chips' appears 2 times in the header. Rename one.",
    ),
    "other column": (
        b"chip,location\n1,a\n",
        ": there is no column 'chips'; the columns are 'chip', 'location'. Did you mean 'chip'?",
    ),
    "other case": (
        b"CHIPS;location\n1;a\n",
        ": there is no column 'chips'; the columns are 'CHIPS', 'location'. Did you mean 'CHIPS'?",
    ),
    "other parquet": (
        parquet(pd.DataFrame({"chips": [1], "place": [2]})),
        ": there is no column 'location'; the columns are 'chips', 'place'.",
    ),
}


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_its_remedy(write, content, message):
    path = write(content)
    with pytest.raises(DataError, match=re.escape(f"{path}{message}")):
        read(path)


def test_a_long_header_is_not_listed_whole(write):
    path = write(",".join(f"c{i}" for i in range(1000)) + "\n")
    with pytest.raises(DataError, match=r"'c19', \.\.\.\.$"):
        read(path)


def test_text_named_parquet_is_refused(write):
    with pytest.raises(DataError, match=r"table\.parquet: cannot be read as parquet"):
        read(write("chips,location\n1,a\n", "table.parquet"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: no such file\. Correct the path"):
        read(tmp_path / "none.csv")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r": is a directory\. Give the path of a file in it\."):
        read(tmp_path)


def test_a_forbidden_file_is_refused(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read anything, so no chmod here
    with pytest.raises(
        DataError, match=r"cookies\.csv: cannot be read \(Permission denied\)\. Check its permissions\."
    ):
        read(COOKIES)


def test_one_column_for_two_uses_is_refused():
    with pytest.raises(DataError, match=r"the same column is named twice \(chips, chips\)"):
        read(COOKIES, group="chips")


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(DataError, match=r"table: the columns have lengths \[2, 1\]"):
        counts_from_rows(["a", "b"], [1])


def test_no_rows_are_refused():
    with pytest.raises(DataError, match=r"table: there are no rows"):
        counts_from_rows([], [])


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf, None, True, 2.0**60])
def test_bad_numbers_in_arrays_are_refused(value):
    with pytest.raises(DataError, match="table: row 2: count is "):
        counts_from_rows(["a", "b"], [1, value])


def test_a_data_error_is_a_wrong_request():
    assert issubclass(DataError, RequestError)
    assert DataError.exit_code == 2


# Multiplicities: a table that was grouped elsewhere.


MULTIPLICITY_RULE = "multiplicities, numbers of equal rows, must be integers from 1 to 2**53"


def test_multiplicities_give_the_counts_of_the_rows_that_they_stand_for(write):
    # also a (group, count) that several lines hold, as the parts of a warehouse write it
    path = write("chips,location,n\n4,b,2\n3,a,1\n4,b,1.0\n0,a,2\n")
    grouped, by_row = read(path, multiplicity="n"), counts_from_rows([*"abbbaa"], [3, 4, 4, 4, 0, 0])
    assert (grouped.sha256, grouped.num_rows) == (by_row.sha256, 6)


@given(TABLES)
def test_a_grouped_table_is_the_table_that_it_groups(table):
    distinct, times = zip(*Counter(table).items(), strict=True)
    grouped, by_row = counts_from_rows(*zip(*distinct, strict=True), times), from_table(table)
    assert (grouped.sha256, table_of(grouped)) == (by_row.sha256, table_of(by_row))
    assert grouped.row_number.size == 0  # its rows have no order


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("0", f"is 0; {MULTIPLICITY_RULE}. {CORRECT}"),
        ("-3", f"is -3; {MULTIPLICITY_RULE}. {CORRECT}"),
        ("2.5", f"is 2.5; {MULTIPLICITY_RULE}. {CORRECT}"),
        (str(2**53 + 1), f"is 9007199254740993; {MULTIPLICITY_RULE}. {CORRECT}"),
        ("", f"is empty; {MULTIPLICITY_RULE}. {GAP}"),
        ('"1,000"', f"is '1,000'; {MULTIPLICITY_RULE}. {PLAIN}"),
    ],
)
def test_a_bad_multiplicity_is_refused_with_its_remedy(write, cell, message):
    path = write(f"chips,location,n\n3,a,1\n3,a,{cell}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}:3: n {message}")):
        read(path, multiplicity="n")


@pytest.mark.usefixtures("any_size")
def test_multiplicities_beyond_float64_in_total_are_refused(write):
    path = write(f"chips,location,n\n3,a,{2**53}\n4,a,{2**53}\n")
    with pytest.raises(DataError, match=r"the multiplicities in n sum to 1\.8e\+16; above 2\*\*53"):
        read(path, multiplicity="n")


# Invariances and sufficient statistics.


@given(TABLES, st.randoms(use_true_random=False))
def test_permuting_rows_changes_nothing(table, random):
    shuffled = random.sample(table, len(table))
    one, other = from_table(table), from_table(shuffled)
    assert (one.labels, one.sha256, table_of(one)) == (other.labels, other.sha256, table_of(other))


@given(TABLES)
def test_rows_give_back_the_table(table):
    assert sorted(table_of(from_table(table))) == sorted(table)


@given(TABLES)
def test_row_numbers_give_back_the_order_of_the_table(table):
    counts = from_table(table)
    assert [table[number - 1] for number in counts.row_number] == table_of(counts)
    same = [number for number, row in enumerate(table, 1) if row == table[0]]
    assert [number for number in counts.row_number if number in same] == same  # equal rows keep their order


def test_row_numbers_count_neither_the_header_nor_blank_lines(write):
    counts = read(write("location,chips\n\nb,2\n\na,5\nb,1\n"))
    assert counts.row_number.tolist() == [2, 3, 1]
    assert counts.row_number.dtype == np.int32


@given(TABLES, TABLES)
def test_different_tables_have_different_sha256(one, other):
    is_same = sorted(one) == sorted(other)
    assert (from_table(one).sha256 == from_table(other).sha256) is is_same


@given(TABLES)
def test_splitting_cells_keeps_the_sufficient_statistics(table):
    counts = from_table(table)
    group, exposure, count = counts.rows()
    one = np.ones_like(count)
    split = dataclasses.replace(
        counts, cell_group=group, cell_exposure=exposure, cell_count=count, cell_multiplicity=one
    )
    for collapsed, by_row in zip(
        sufficient_statistics(counts).values(), sufficient_statistics(split).values(), strict=True
    ):
        np.testing.assert_allclose(by_row, collapsed, rtol=1e-13, atol=1e-12)


@given(TABLES)
def test_sufficient_statistics_are_plain_sums_over_rows(table):
    counts = from_table(table)
    statistics = sufficient_statistics(counts)
    for g, label in enumerate(counts.labels):
        assert statistics["group_total"][g] == sum(y for other, y, _ in table if other == label)
        assert statistics["group_exposure"][g] == sum(e for other, _, e in table if other == label)
    strata = zip(
        *(statistics[f"stratum_{key}"].tolist() for key in ("group", "exposure", "rows", "total")),
        strict=True,
    )
    for g, exposure, rows, total in strata:
        members = [y for label, y, e in table if (label, e) == (counts.labels[g], exposure)]
        assert (rows, total) == (len(members), sum(members))
    assert len(statistics["stratum_group"]) == len({(label, e) for label, _, e in table})


def test_sufficient_statistics_have_their_documented_order_and_types(cookies):
    types = {key: str(value.dtype) for key, value in sufficient_statistics(cookies).items()}
    assert list(types) == [
        *("group_total", "group_exposure"),
        *("stratum_group", "stratum_exposure", "stratum_rows", "stratum_total"),
        *("value", "value_rows", "constant"),
    ]
    assert [key for key, dtype in types.items() if dtype != "float64"] == ["stratum_group"]
    assert types["stratum_group"] == "int32"


@given(TABLES, st.floats(0.1, 30))
def test_sufficient_statistics_give_the_poisson_log_likelihood(table, scale):
    counts = from_table(table)
    s = sufficient_statistics(counts)
    lam = scale * (1.0 + np.arange(counts.num_groups))  # (G,)
    expected = sum(scipy.stats.poisson.logpmf(y, e * lam[counts.labels.index(g)]) for g, y, e in table)
    collapsed = s["group_total"] @ np.log(lam) - s["group_exposure"] @ lam + s["constant"]
    np.testing.assert_allclose(collapsed, expected, rtol=1e-10)


@given(TABLES, st.floats(0.1, 30), st.floats(0.5, 100))
def test_sufficient_statistics_give_the_negative_binomial_log_likelihood(table, scale, phi):
    counts = from_table(table)
    s = sufficient_statistics(counts)
    lam = scale * (1.0 + np.arange(counts.num_groups))  # (G,)
    rates = [e * lam[counts.labels.index(g)] for g, _, e in table]  # (N,)
    # SciPy's p is phi / (phi + r)
    expected = sum(
        scipy.stats.nbinom.logpmf(y, phi, phi / (phi + r)) for (_, y, _), r in zip(table, rates, strict=True)
    )
    r = s["stratum_exposure"] * lam[s["stratum_group"]]  # (T,)
    rising = [sum(log1p(j / phi) for j in range(int(y))) for y in s["value"]]  # (K,)
    collapsed = s["group_total"] @ np.log(lam) + s["constant"] + s["value_rows"] @ rising
    collapsed -= (s["stratum_total"] + phi * s["stratum_rows"]) @ np.log1p(r / phi)
    np.testing.assert_allclose(collapsed, expected, rtol=1e-9)


def test_constant_is_the_sum_of_its_terms():
    # 2 log 3 - log 2! + 4 log 0.5 - log 4!
    constant = sufficient_statistics(counts_from_rows(["a", "b"], [2, 4], [3.0, 0.5]))["constant"]
    assert constant.shape == ()
    assert float(constant) == pytest.approx(2 * log(3) - lgamma(3) + 4 * log(0.5) - lgamma(5), rel=1e-14)


def test_per_scales_the_exposures_and_the_rates_and_names_the_unit(write):
    path = write("ward,falls,patient_days\na,3,500\nb,1,2000\n")
    asked = {"group": "ward", "count": "falls", "exposure": "patient_days"}
    plain, scaled = read_counts(path, **asked), read_counts(path, **asked, per=1000.0)
    assert scaled.cell_exposure.tolist() == [0.5, 2.0] and plain.cell_exposure.tolist() == [500.0, 2000.0]
    assert scaled.cell_count.tolist() == plain.cell_count.tolist()
    assert scaled.sha256 != plain.sha256  # priors are in the unit of the rates
    assert scaled.file_sha256 == plain.file_sha256
    assert plain.columns.denominator("patient days") == "unit of patient days"
    assert scaled.columns.denominator("patient days") == "1000 patient days"
