"""A file to columns of text, with the place of every row.

CSV, TSV, semicolons or spaces, optionally gzipped, or parquet; the bytes of the file decide the format.
"""

import codecs
import csv
import difflib
import gzip
import hashlib
import io
import reprlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from poolwise.errors import DataError

_SEPARATORS = (",", "\t", ";", " ")  # in the order tried
BOM, GZIP = codecs.BOM_UTF8, b"\x1f\x8b"  # the first bytes of UTF-8 text, at times, and of gzip data

type Where = Callable[[int], str]  # row, from 0 -> "data/cookies.csv:17"
type _Texts = tuple[list[Sequence[str]], Where]  # the requested columns, each (N,)


def read_texts(path: str | Path, asked: Sequence[str]) -> tuple[list[Sequence[str]], Where, str]:
    """The requested columns of a table, each (N,), the place of every row, and the sha256 of the file.

    Raises
    ------
    DataError
        The file cannot be read, is not a table, or lacks a column.
    """
    content = _read_bytes(path)
    read = _read_parquet if is_parquet(path, content) else _read_text
    texts, where = read(path, content, asked)
    return texts, where, hashlib.sha256(content).hexdigest()


def is_parquet(path: str | Path, start: bytes) -> bool:
    """Whether a file is parquet, by its first bytes or its name."""
    return start.startswith(b"PAR1") or Path(path).suffix in {".parquet", ".pq"}


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Correct the path; it is relative to {Path.cwd()}.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory. Give the path of a file in it.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error


def _read_parquet(path: str | Path, content: bytes, asked: Sequence[str]) -> _Texts:
    """Texts of the requested columns of a parquet file; a null is the empty text."""
    try:
        try:
            frame = _parquet_frame(content, asked)
        except ValueError:  # a column is missing, or is pandas' index: read all columns to find or to list it
            frame = _parquet_frame(content, None)
    except (ValueError, OSError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: cannot be read as parquet ({reason}). Write the file again.") from error
    _check_header(path, list(map(str, frame.columns)), asked)
    return _texts_of_frame(frame, asked), lambda row: f"{path}: row {row + 1}"


def texts_of_parquet(table: pa.Table, asked: Sequence[str]) -> list[Sequence[str]]:
    """Texts of the columns of a table, each (N,), as of the parquet file that it makes."""
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer)
    return _texts_of_frame(_parquet_frame(buffer.getvalue(), asked), asked)


def _texts_of_frame(frame: pd.DataFrame, asked: Sequence[str]) -> list[Sequence[str]]:
    columns = [zip(frame[name].tolist(), frame[name].isna(), strict=True) for name in asked]
    return [["" if is_null else str(value) for value, is_null in column] for column in columns]


def _parquet_frame(content: bytes, columns: Sequence[str] | None) -> pd.DataFrame:
    names = None if columns is None else list(columns)
    # nullable dtypes: integers with a null among them stay integers
    frame = pd.read_parquet(io.BytesIO(content), columns=names, dtype_backend="numpy_nullable")
    return frame.reset_index() if any(frame.index.names) else frame


def _read_text(path: str | Path, content: bytes, asked: Sequence[str]) -> _Texts:
    """Texts of the requested columns of a text table, with any separator."""
    text = _decode(path, content)
    separator = find_separator(path, text, asked)
    records = _records(path, text, separator)
    _, header = next(records)
    width, pick = len(header), itemgetter(*map(header.index, asked))
    lines: list[int] = []
    rows: list[tuple[str, ...]] = []
    for line, fields in records:
        if len(fields) != width and separator == " ":
            # leading and trailing spaces leave an empty field
            fields = fields[int(fields[0] == "") : len(fields) - int(fields[-1] == "")]
        if len(fields) != width:
            remedy = "Quote a separator inside a field, or correct the row."
            if not rows and all(len(f) == width + 1 for f in [fields, *map(itemgetter(1), records)]):
                remedy = "They look like R's row names: write with row.names=FALSE."
            raise DataError(f"{path}:{line}: the row has {len(fields)} fields, the header {width}. {remedy}")
        lines.append(line)
        rows.append(pick(fields))
    if not rows:
        raise DataError(f"{path}: there is a header but no rows. Add the rows.")
    return list(zip(*rows, strict=True)), lambda row: f"{path}:{lines[row]}"


def _decode(path: str | Path, content: bytes) -> str:
    try:
        content = gzip.decompress(content) if content.startswith(GZIP) else content
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: the text is not UTF-8. Save it as UTF-8, or as parquet.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: the gzip data are damaged ({error}). Compress the table again.") from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty. Write a header and rows into it.")
    return text


def find_separator(path: str | Path, text: str, asked: Sequence[str]) -> str:
    """The first separator for which the header holds the requested names."""
    headers = {sep: next(_records(path, text, sep, is_strict=False), (1, []))[1] for sep in _SEPARATORS}
    best = max(headers, key=lambda sep: len(headers[sep]))
    separator = next((sep for sep in _SEPARATORS if set(asked) <= set(headers[sep])), best)
    _check_header(path, headers[separator], asked)
    return separator


def _check_header(path: str | Path, header: Sequence[str], asked: Sequence[str]) -> None:
    for name in asked:
        if name not in header:
            folded = {column.casefold(): column for column in header}
            close = difflib.get_close_matches(name.casefold(), folded, n=1)
            hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
            shown = ", ".join(map(reprlib.repr, header[:20])) + ", ..." * (len(header) > 20)
            raise DataError(f"{path}: there is no column {name!r}; the columns are {shown}.{hint}")
        if header.count(name) > 1:
            raise DataError(f"{path}: column {name!r} appears {header.count(name)} times in the header. Rename one.")


def _records(path: str | Path, text: str, separator: str, *, is_strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """First physical line (from 1) and fields of every record that is not a blank line."""
    stream, is_spaced = io.StringIO(text, newline=""), separator == " "
    reader = csv.reader(stream, delimiter=separator, skipinitialspace=is_spaced, strict=is_strict)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}:{line}: {error}. Check the quotes of this row.") from error
        if fields is None:
            return
        if any(map(str.strip, fields)) or (len(fields) > 1 and not is_spaced):
            yield line, fields
