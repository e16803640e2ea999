"""A large table is grouped as the careful reader would, or left to it."""

import gzip
import io
from collections import Counter

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poolwise.counts import streaming
from poolwise.counts.cells import MOST_ROWS, read_counts
from poolwise.counts.reading import read_texts
from poolwise.counts.streaming import distinct_rows
from poolwise.errors import DataError

ASKED = ("chips", "location")


def grouped(path, **options) -> Counter | None:
    found = distinct_rows(path, ASKED, **{"more_than": 0, **options})
    return None if found is None else Counter(dict(zip(zip(*found.texts, strict=True), found.times, strict=True)))


def by_row(path) -> Counter | None:
    try:
        return Counter(zip(*read_texts(path, ASKED)[0], strict=True))
    except DataError:
        return None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("table") / "table.csv"


@given(st.text(alphabet='a1,"\n\r ;\té', max_size=40))
@example('1,"two\nlines"\n')
@example('1,"a""b"\n')
@example('1,"a"b\n')
@example('1,a"b\n')
@example('1, "a"\n')
@example('1,"a\n')
@example("1,a\n\n \n2,b")
@example("1,a\r2,b\r\n")
@example("1,\n")
@example("NA,null\n")
def test_any_text_is_grouped_as_by_row_or_left_to_the_careful_reader(path, text):
    path.write_bytes(f"chips,location\n{text}".encode())
    assert grouped(path) in (None, by_row(path))


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_a_quote_is_judged_across_the_ends_of_blocks(block):
    def read(content: bytes) -> bytes:
        text = streaming._StrictText(io.BytesIO(content), ",")
        return b"".join(iter(lambda: text.read(block), b""))

    assert read(b'a,"b""c"\n"",d\n') == b'a,"b""c"\n"",d\n'
    for wrong in (b'a,"b"c\n', b'a,b"c"\n', b'a,"b\n', b'a,"b\n"c\n'):
        with pytest.raises(pa.ArrowInvalid):
            read(wrong)


def test_batches_are_merged(path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 64)
    monkeypatch.setattr(streaming, "MERGED", 3)
    path.write_text("location,chips\n" + "".join(f"{i % 7},{i % 3}\n" for i in range(500)))
    assert grouped(path) == by_row(path)
    assert sum(grouped(path).values()) == 500


def test_a_line_break_in_quotes_may_lie_at_the_end_of_a_block(path, monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 64)
    path.write_bytes(b"location,chips\n" + b'"a\nb",1\n' * 100)
    assert grouped(path) == Counter({("1", "a\nb"): 100})


@pytest.mark.parametrize(
    "content",
    [
        b"chips,location\n1,a\n1,a\n",
        b'\xef\xbb\xbf"chips";"location"\n1;a\n1;a\n',
        b"x\tchips\tlocation\n0\t1\ta\n9\t1\ta\n",
    ],
    ids=["comma", "BOM, quoted, semicolon", "tab"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_regular_table_is_streamed(path, content, pack):
    path.write_bytes(pack(content))
    assert grouped(path) == Counter({("1", "a"): 2})


def test_parquet_is_streamed_with_the_texts_of_its_values(path):
    frame = pd.DataFrame({"location": pd.Categorical([7, 7, 8]), "chips": [1.0, 1.0, 2.0]})
    frame.to_parquet(path)
    assert grouped(path) == by_row(path) == Counter({("1.0", "7"): 2, ("2.0", "8"): 1})


def test_parquet_of_other_types_is_left_to_the_careful_reader(path):
    pq.write_table(pa.table({"location": pa.array([0], pa.timestamp("us")), "chips": [1]}), path)
    assert grouped(path) is None


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_a_table_of_few_rows_keeps_their_order(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    frame = pd.DataFrame({"chips": [2, 1], "location": ["a", "a"]})
    frame.to_parquet(path) if suffix == "parquet" else frame.to_csv(path, index=False)
    assert grouped(path, more_than=2) is None
    assert read_counts(path, group="location", count="chips").row_number.tolist() == [2, 1]


def test_a_table_of_many_rows_is_streamed(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("chips,location\n" + "1,a\n" * (MOST_ROWS + 1))
    monkeypatch.setattr("poolwise.counts.cells.read_texts", None)  # not called
    counts = read_counts(path, group="location", count="chips")
    assert (counts.cell_multiplicity.tolist(), counts.row_number.size) == ([MOST_ROWS + 1], 0)
