"""Request tables on disk: Parquet, CSV and gzipped CSV."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from .errors import TraceError
from .files import is_parquet, parquet_columns
from .labels import Labels

if TYPE_CHECKING:
    from .columns import Fault
    from .table import RequestTable

_ROWS_AT_A_TIME = 1_000_000


def write_table(table: RequestTable, path: Path) -> Path:
    """Write the stored columns; the name's ending picks the format.

    Raises:
        TraceError: The ending is not .parquet, .csv or .csv.gz, or the folder is absent.
    """
    name = path.name.lower()
    if not name.endswith((".parquet", ".csv", ".csv.gz")):
        mend = "Let the name end in .parquet, .csv or .csv.gz"
        raise TraceError("the ending tells no known format", mend=mend, path=path)
    if not path.parent.is_dir() or path.is_dir():
        mend = "Name a file in an existing folder"
        raise TraceError("cannot be written", mend=mend, path=path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if name.endswith(".parquet"):
            _write_parquet(table, part)
        else:
            with part.open("wb") as raw:
                if name.endswith(".gz"):
                    # No time stamp and no name inside, so that equal tables are equal files.
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                        _write_csv(table, packed)
                else:
                    _write_csv(table, raw)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _batches(table: RequestTable, plain_text: bool) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(table), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        arrays = []
        for name in table.given:
            values = getattr(table, name)
            if isinstance(values, Labels):
                text = pa.DictionaryArray.from_arrays(
                    pa.array(values.codes[rows]), pa.array(values.names, pa.string())
                )
                arrays.append(text.cast(pa.string()) if plain_text else text)
            else:
                arrays.append(pa.array(values[rows]))
        yield pa.RecordBatch.from_arrays(arrays, names=list(table.given))


def _write_parquet(table: RequestTable, path: Path) -> None:
    writer: pq.ParquetWriter | None = None
    for batch in _batches(table, plain_text=False):
        writer = writer or pq.ParquetWriter(path, batch.schema, compression="zstd")
        writer.write_batch(batch)
    assert writer is not None
    writer.close()


def _write_csv(table: RequestTable, file: Any) -> None:
    file.write((",".join(table.given) + "\n").encode())
    options = csv.WriteOptions(include_header=False)
    for batch in _batches(table, plain_text=True):
        csv.write_csv(pa.Table.from_batches([batch]), file, options)


def read_table(path: Path) -> RequestTable:
    """Read what `write_table` wrote.

    Raises:
        TraceError: As `RequestTable.read`.
    """
    from .files import parquet_fault
    from .table import RequestTable

    if is_parquet(path):
        data = parquet_columns(path)
        return RequestTable.from_mapping(
            data, f"{path.name} (request table, Parquet)", parquet_fault(path)
        )
    return read_csv(path)[0]


def read_csv(path: Path, data: bytes | None = None) -> tuple[RequestTable, Fault]:
    """A request table from CSV, and what builds errors at its rows.

    Args:
        path: The file.
        data: The content, where it has been read.

    Raises:
        TraceError: As `RequestTable.read`.
    """
    from .columns import COLUMNS
    from .files import CsvFile
    from .table import RequestTable

    file = CsvFile(path, data)
    unknown = [name for name in file.header if name not in COLUMNS]
    if unknown:
        mend = f"Columns are: {', '.join(COLUMNS)}. For others use read_trace (servegym trace)"
        raise TraceError("is not a column", mend=mend, path=path, line=1, column=unknown[0])
    columns = file.columns({name: COLUMNS[name].kind for name in file.header})
    source = f"{path.name} (request table, CSV)"
    return RequestTable.from_mapping(columns, source, file.fault), file.fault
