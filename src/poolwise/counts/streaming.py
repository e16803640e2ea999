"""A large table to its distinct rows and the number of times that each occurs, in bounded memory.

pyarrow reads batches of rows as text, and each batch is grouped by the texts of the requested columns; the texts are
parsed afterwards, by the rules for any table. This reader only finds *that* a table is unusual and then returns None.
`reading`, which keeps the place of every row, reads such a table again and reports what is wrong and where.
"""

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from poolwise.counts.reading import BOM, GZIP, find_separator, is_parquet, texts_of_parquet
from poolwise.errors import DataError

HEAD, BLOCK = 2**20, 2**22  # bytes that must hold the header, and bytes read at once
BATCH, MERGED = 2**20, 2**20  # rows of parquet read at once, and distinct rows from which batches are merged
SHORTEST = 4  # bytes of a line with a label, a separator and a count
QUOTE = ord('"')
TIMES = "times"

type _Stream = IO[bytes] | gzip.GzipFile
type _Rows = tuple[list[Sequence[str]], NDArray[np.int64]]  # texts of the columns, and how often each row occurs


@dataclass(frozen=True)
class DistinctRows:
    """The distinct rows of a table.

    Attributes
    ----------
    texts : the requested columns, each (D,)
    times : (D,)  number of rows of the table with these texts
    file_sha256 : of the bytes of the file
    """

    texts: list[Sequence[str]]
    times: NDArray[np.int64]
    file_sha256: str


def distinct_rows(path: str | Path, asked: Sequence[str], *, more_than: int) -> DistinctRows | None:
    """The distinct rows of a table with more than so many rows; None if it has fewer, or needs the careful reader."""
    try:
        with Path(path).open("rb") as file:
            texts, times = _read(path, file, asked, more_than)
            if times.sum() <= more_than:
                return None
            file.seek(0)
            return DistinctRows(texts, times, hashlib.file_digest(file, "sha256").hexdigest())
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error, DataError):
        return None  # `reading` says why


def _read(path: str | Path, file: IO[bytes], asked: Sequence[str], more_than: int) -> _Rows:
    start, size = file.read(len(GZIP) + 2), file.seek(0, io.SEEK_END)
    file.seek(0)
    if is_parquet(path, start):
        return _read_parquet(file, asked, more_than)
    is_zipped = start.startswith(GZIP)
    if not is_zipped and size <= SHORTEST * more_than:
        return _no_rows(asked)
    return _read_text(path, gzip.GzipFile(fileobj=file) if is_zipped else file, asked)


def _no_rows(asked: Sequence[str]) -> _Rows:
    return [[] for _ in asked], np.zeros(0, np.int64)


def _read_text(path: str | Path, file: _Stream, asked: Sequence[str]) -> _Rows:
    """Distinct rows of a text table; not if spaces separate its columns, because pyarrow does not merge them."""
    head = file.read(HEAD).removeprefix(BOM).decode(errors="ignore")
    separator = find_separator(path, head, asked)
    if separator == " ":
        return _no_rows(asked)
    file.seek(0)
    batches = pa.csv.open_csv(
        _StrictText(file, separator),
        read_options=pa.csv.ReadOptions(block_size=BLOCK),
        parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            include_columns=asked, column_types=dict.fromkeys(asked, pa.string()), strings_can_be_null=False
        ),
    )
    table, times = _grouped(batches)
    texts = [column.to_pylist() for column in table.columns]
    if any(len(text) > csv.field_size_limit() for column in texts for text in column):
        return _no_rows(asked)
    return texts, times


def _read_parquet(file: IO[bytes], asked: Sequence[str], more_than: int) -> _Rows:
    """Distinct rows of a parquet file of numbers and texts; the texts of other types depend on pandas."""
    table = pa.parquet.ParquetFile(file)
    schema = table.schema_arrow
    is_read = table.metadata.num_rows > more_than and all(schema.names.count(name) == 1 for name in asked)
    if not is_read or not all(_is_plain(schema.field(name).type) for name in asked):
        return _no_rows(asked)
    distinct, times = _grouped(batch.select(asked) for batch in table.iter_batches(BATCH, columns=list(asked)))
    return texts_of_parquet(distinct.rename_columns(list(asked)), asked), times


def _is_plain(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string)
    return any(test(kind.value_type if pa.types.is_dictionary(kind) else kind) for test in tests)


def _grouped(batches: Iterable[pa.RecordBatch]) -> tuple[pa.Table, NDArray[np.int64]]:
    """The distinct rows of all batches, and the number of rows with each."""
    parts, most = list[pa.Table](), MERGED
    for batch in batches:
        # dictionaries differ from batch to batch
        columns = [each.dictionary_decode() if pa.types.is_dictionary(each.type) else each for each in batch.columns]
        names = [*map(str, range(len(columns))), TIMES]
        parts.append(_summed(pa.table([*columns, pa.repeat(1, len(batch))], names=names)))
        if sum(map(len, parts)) > most:
            parts = [_summed(pa.concat_tables(parts))]
            most = max(MERGED, 2 * len(parts[0]))
    table = _summed(pa.concat_tables(parts))
    pa.default_memory_pool().release_unused()
    return table.drop_columns(TIMES), table[TIMES].to_numpy()


def _summed(table: pa.Table) -> pa.Table:
    keys = [name for name in table.column_names if name != TIMES]
    summed = table.group_by(keys, use_threads=False).aggregate([(TIMES, "sum")])
    return summed.select([*keys, f"{TIMES}_sum"]).rename_columns([*keys, TIMES])


class _StrictText(io.RawIOBase):
    """A stream of UTF-8 text without its byte order mark, that refuses quotes which `csv` reads otherwise or refuses.

    pyarrow accepts text after a closing quote. Here an opening quote follows a separator, a closing quote precedes
    one, and both may stand beside another quote: two quotes inside a field are one.
    """

    def __init__(self, file: _Stream, separator: str) -> None:
        self._file, self._decoder, self._quotes = file, codecs.getincrementaldecoder("utf-8")(), 0
        self._last = b"\n\n"  # the last two bytes: a quote at the end is judged with the next byte
        self._may_be_beside = np.isin(np.arange(256), [QUOTE, *separator.encode(), *b"\r\n"])
        self._is_begun = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`."""
        block = self._file.read(size)
        self._decoder.decode(block, final=not block)
        if not self._is_begun:
            block, self._is_begun = block.removeprefix(BOM), True
        self._check(self._last + (block or b"\n"), is_end=not block)
        self._last = (self._last + block)[-2:]
        return block

    def _check(self, text: bytes, *, is_end: bool) -> None:
        if b'"' in text:
            codes = np.frombuffer(text, np.uint8)
            quotes = 1 + np.flatnonzero(codes[1:-1] == QUOTE)
            first = self._quotes % 2  # place of the first opening quote
            before, after = codes[quotes[first::2] - 1], codes[quotes[1 - first :: 2] + 1]
            self._quotes += len(quotes)
            if not (self._may_be_beside[before].all() and self._may_be_beside[after].all()):
                raise pa.ArrowInvalid("a quote inside a field")
        if is_end and self._quotes % 2:
            raise pa.ArrowInvalid("an open quote")
