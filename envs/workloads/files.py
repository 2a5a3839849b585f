"""Files opened with care: every fault becomes a TraceError that names the place."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from .columns import Fault
from .errors import TraceError

_WHOLE = re.compile(r"[+-]?\d{1,19}(\.0*)?\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z|[+-]?inf(inity)?\Z|nan\Z", re.I)
_PARQUET_FAULTS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzip (told by content, not by name).

    Raises:
        TraceError: The file is absent, a folder, unreadable, empty, or damaged gzip.
    """
    if path.is_dir():
        raise TraceError("is a folder", mend="Name a file in it", path=path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        mend = "Check the name, or set SERVEGYM_DATA where the data lie"
        raise TraceError("the file does not exist", mend=mend, path=path) from None
    except (OSError, ValueError) as error:
        raise TraceError(f"cannot be read ({error})", mend="Check it", path=path) from None
    if data[:2] == b"\x1f\x8b":
        with unreadable_gzip(path):
            data = gzip.decompress(data)
    if not data.strip():
        raise TraceError("the file is empty", mend="Fetch or write it again", path=path)
    return data


@contextmanager
def unreadable_gzip(path: Path) -> Iterator[None]:
    """Turn the errors of damaged gzip data into a TraceError."""
    try:
        yield
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        problem = f"the gzip data are cut short or damaged ({error})"
        raise TraceError(problem, mend="Fetch the file again", path=path) from None


def read_text(path: Path, data: bytes | None = None) -> str:
    """The content of a text file, without a byte-order mark.

    Raises:
        TraceError: As `read_bytes`, or the text is not UTF-8.
    """
    data = read_bytes(path) if data is None else data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte {data[error.start]:#04x} is not UTF-8 text"
        mend = "Save the file as UTF-8, or check that it is a trace at all"
        raise TraceError(problem, mend=mend, path=path, line=line) from None


class CsvFile:
    """A CSV file with a header, plain or gzipped.

    The separator is a comma, a semicolon or a tab: the one that the header holds most of.

    Numbers are first read by a fast strict parser; where that stumbles, a careful one goes row by
    row and either copes (12.0 for 12) or names the line.
    """

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        """Read the file and its header.

        Raises:
            TraceError: As `read_text`; or the header is unusable, or no row follows it.
        """
        self.path = path
        self._data = (read_bytes(path) if data is None else data).removeprefix(b"\xef\xbb\xbf")
        head = self._data.lstrip(b"\r\n")
        end = re.search(rb"[\r\n]", head)
        first = head[: end.start()] if end else head
        self._skipped = self._data[: len(self._data) - len(head)].count(b"\n")
        header = read_text(path, first)
        self._separator = max(",;\t", key=header.count)
        names = self._fields(header)
        self.header = tuple(name.strip() for name in names)
        for i, name in enumerate(self.header):
            if not name or name in self.header[:i]:
                problem = f"the header names column {i + 1} {name!r}, which is empty or repeated"
                mend = "Give every column its own name in the first line"
                raise TraceError(problem, mend=mend, path=path, line=self._skipped + 1)
        if not head[len(first) :].strip():
            mend = "Fetch or write the file again"
            raise TraceError("there is a header but no request", mend=mend, path=path)

    def _fields(self, line: str) -> list[str]:
        try:
            return next(csv.reader([line], strict=True, delimiter=self._separator), [])
        except csv.Error as error:
            mend = "Write a comma-separated header"
            raise TraceError(
                f"the header is not CSV ({error})", mend=mend, path=self.path, line=1
            ) from None

    def require(self, names: tuple[str, ...]) -> None:
        """Check that columns exist.

        Raises:
            TraceError: One is missing.
        """
        for name in names:
            if name not in self.header:
                problem = f"the column is missing; the header has: {', '.join(self.header)}"
                mend = (
                    "Check the format, or name the columns: columns={our name: name in the file} "
                    "(--columns OUR_NAME=NAME_IN_FILE ...)"
                )
                raise TraceError(problem[:2000], mend=mend, path=self.path, line=1, column=name)

    def columns(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        """Read columns: kind "time" as float64, "count" as int64, text as Categorical or str.

        Args:
            kinds: Kind by column name: "time", "count", "label" (few texts) or "text" (many).

        Raises:
            TraceError: A row has the wrong number of fields, or a field is no such number.
        """
        self.require(tuple(kinds))
        types = {"time": pa.float64(), "count": pa.int64()}
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(self._data),
                read_options=arrow_csv.ReadOptions(
                    use_threads=False,
                    column_names=list(self.header),
                    skip_rows=self._skipped + 1,
                ),
                parse_options=arrow_csv.ParseOptions(delimiter=self._separator),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={
                        name: types.get(kind, pa.string()) for name, kind in kinds.items()
                    },
                    include_columns=list(kinds),
                    strings_can_be_null=False,
                ),
            )
        except (pa.ArrowException, OSError, ValueError, UnicodeError, KeyError, MemoryError):
            return self._careful(kinds)
        if any(table[name].null_count for name in kinds):
            return self._careful(kinds)
        return {name: _values(table[name], kind) for name, kind in kinds.items()}

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line number and fields of every row after the header."""
        text = io.StringIO(read_text(self.path, self._data), newline="")
        reader = csv.reader(text, strict=True, delimiter=self._separator)
        line, header = 1, True
        try:
            for fields in reader:
                if fields and not header:
                    yield line, fields
                header = header and not fields
                line = reader.line_num + 1
        except csv.Error as error:
            mend = "Mend the quotes on this line"
            raise TraceError(
                f"is not CSV ({error})", mend=mend, path=self.path, line=line
            ) from None

    def _careful(self, kinds: Mapping[str, str]) -> dict[str, Any]:
        place = {name: self.header.index(name) for name in kinds}
        out: dict[str, list[Any]] = {name: [] for name in kinds}
        for line, fields in self._records():
            if len(fields) != len(self.header):
                problem = f"has {len(fields)} fields where the header has {len(self.header)}"
                mend = "Mend or drop the line (a cut file ends like this)"
                raise TraceError(problem, mend=mend, path=self.path, line=line)
            for name, kind in kinds.items():
                text = fields[place[name]]
                number = kind in ("time", "count")
                out[name].append(self._number(text, kind, line, name) if number else text)
        if not next(iter(out.values()), []):
            mend = "Fetch or write the file again"
            raise TraceError("there is a header but no request", mend=mend, path=self.path)
        types = {"time": np.float64, "count": np.int64, "text": object}
        return {
            name: np.array(values, types[kinds[name]])
            if kinds[name] in types
            else pd.Categorical(values)
            for name, values in out.items()
        }

    def _number(self, text: str, kind: str, line: int, column: str) -> float | int:
        text = text.strip()
        if kind == "time" and _NUMBER.match(text):
            return float(text)
        if kind == "count" and _WHOLE.match(text):
            number = int(text.partition(".")[0])
            if -(2**63) <= number < 2**63:
                return number
        what = "a number of seconds" if kind == "time" else "a whole number"
        large = kind == "count" and re.fullmatch(r"[+-]?\d+(\.0*)?", text, re.ASCII)
        shown = f"{text[:40]!r} is {'too large' if large else f'not {what}'}"
        shown = shown if text else "the field is empty"
        mend = f"Give {what}, or drop the line"
        raise TraceError(shown, mend=mend, path=self.path, line=line, column=column)

    def line_of(self, row: int) -> int | None:
        """Line of the file, from 1, where the 0-based row starts; None if it cannot be told."""
        try:
            return next((line for i, (line, _) in enumerate(self._records()) if i == row), None)
        except TraceError:
            return None

    def fault(self, row: int | None, column: str, problem: str, mend: str) -> TraceError:
        """An error at a 0-based row of this file (a `columns.Fault`)."""
        line = 1 if row is None else self.line_of(row)
        return TraceError(problem, mend=mend, path=self.path, line=line, column=column)

    def renamed_fault(self, names: Mapping[str, str], rows: Any = None) -> Fault:
        """As `fault`, for tables whose columns or rows were renamed or selected while reading.

        Args:
            names: Name in the file by name in the request table.
            rows: (n,) 0-based row of the file of each request; None if they are the same.
        """

        def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
            at = row if row is None or rows is None else int(rows[row])
            return self.fault(at, names.get(column, column), problem, mend)

        return fault


def _values(column: pa.ChunkedArray, kind: str) -> Any:
    if kind == "label":
        return column.dictionary_encode().unify_dictionaries().combine_chunks().to_pandas().array
    return column.to_numpy()


def is_parquet(path: Path) -> bool:
    """Whether the file starts as Parquet does; False if it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except (OSError, ValueError):
        return False


def parquet_fault(path: Path, names: Mapping[str, str] | None = None, before: int = 0) -> Fault:
    """Errors that name the row of a Parquet file (counted from 1), after `before` other rows."""

    def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        at = f"row {before + row + 1} (counted from 1): " if row is not None else ""
        column = (names or {}).get(column, column)
        return TraceError(at + problem, mend=mend, path=path, column=column)

    return fault


def parquet_columns(
    path: Path, wanted: tuple[str, ...] | None = None, keep: Callable[[str], bool] | None = None
) -> dict[str, Any]:
    """Columns of a Parquet file as NumPy arrays (numbers) and Categoricals (text).

    Args:
        path: The file.
        wanted: Columns that must be there; None reads all.
        keep: Which of the columns to read.

    Raises:
        TraceError: The file is damaged, a column is missing, holds a null or is no number or text.
    """
    with unreadable_parquet(path):
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    for name in wanted or ():
        if name not in names:
            problem = f"the column is missing; the file has: {', '.join(names)}"
            raise TraceError(problem[:2000], mend="Check the format", path=path, column=name)
    chosen = [name for name in (wanted or names) if keep is None or keep(name)]
    with unreadable_parquet(path):
        table = file.read(columns=chosen)
        return {name: parquet_column(path, name, table[name]) for name in chosen}


def parquet_column(path: Path, name: str, column: pa.ChunkedArray, before: int = 0) -> Any:
    """A column as a NumPy array (numbers) or a Categorical (text); `before` rows precede it.

    Raises:
        TraceError: It holds a null or is no number or text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        fault = parquet_fault(path, before=before)
        raise fault(row, name, "the value is missing", "Fill it or drop the row")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        return encoded.unify_dictionaries().combine_chunks().to_pandas().array
    if pa.types.is_timestamp(kind):
        try:
            return column.cast(pa.timestamp("ns", kind.tz)).to_numpy()
        except pa.ArrowInvalid:
            problem, mend = "holds times outside the years 1678 to 2261", "Correct or drop the rows"
            raise TraceError(problem, mend=mend, path=path, column=name) from None
    if pa.types.is_float16(kind):
        return column.to_numpy().astype(np.float32)  # its range is too small to compare with limits
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.to_numpy()
    mend = "Store numbers or text"
    raise TraceError(f"holds {column.type} values", mend=mend, path=path, column=name)


@contextmanager
def unreadable_parquet(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow raises of a damaged file into a TraceError."""
    try:
        yield
    except TraceError:
        raise
    except _PARQUET_FAULTS as error:
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        problem = f"is not readable Parquet ({text})"
        raise TraceError(problem, mend="Fetch it again", path=path) from None


def parquet_names(path: Path) -> tuple[str, ...]:
    """Names of the columns of a Parquet file.

    Raises:
        TraceError: The file is damaged.
    """
    with unreadable_parquet(path):
        return tuple(pq.ParquetFile(path).schema_arrow.names)
