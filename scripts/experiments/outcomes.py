"""Outcomes of a streamed replay to a file, as they come."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from envs.simulator.layout import PS_PER_S, STATUS_TEXT

_TIMES = ("arrival", "dispatch", "admit", "first_token", "finish")
_COUNTS = ("prompt_tokens", "output_tokens", "instance", "preemptions", "failures")
_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        *((f"{name}_s", pa.float64()) for name in _TIMES),
        *((name, pa.int32()) for name in _COUNTS),
        ("status", pa.dictionary(pa.int32(), pa.string())),
    ]
)
# Times hardly repeat, so a dictionary of them is slow and large; their high bytes do.
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [*_COUNTS, "status"],
    "column_encoding": {
        "row": "DELTA_BINARY_PACKED",
        **{f"{name}_s": "BYTE_STREAM_SPLIT" for name in _TIMES},
    },
}
ENDINGS = (".parquet", ".csv", ".csv.gz")


class OutcomeFile:
    """A Parquet, CSV or gzipped CSV file of outcomes, whole whenever it is closed.

    Columns: `row` (place in the stream, from 0), `arrival_s, dispatch_s, admit_s, first_token_s,
    finish_s` (seconds; missing = never), `prompt_tokens, output_tokens, instance` (-1 = none),
    `preemptions, failures, status` (text). The rows come in the order in which the parts of the
    stream end, a row group a part. The file is made at the first `write`.

    Args:
        path: The file; its ending picks the format.

    Attributes:
        rows: Outcomes written so far.

    Raises:
        ValueError: The ending is not of `ENDINGS`.
    """

    def __init__(self, path: Path) -> None:
        if not path.name.lower().endswith(ENDINGS):
            raise ValueError(f"{path}: let the name end in {', '.join(ENDINGS)}")
        self.path, self.rows = path, 0
        self._writer: Any = None
        self._open: list[Any] = []  # to be closed, the last first

    def write(self, outcomes: np.ndarray) -> None:
        """Add outcomes (of `OUTCOME_DTYPE`)."""
        if not len(outcomes):
            return
        batch = _batch(outcomes)
        if self._writer is None:
            self._begin()
        if not isinstance(self._writer, pq.ParquetWriter):
            text = batch.column("status").cast(pa.string())
            place = _SCHEMA.get_field_index("status")
            batch = batch.set_column(place, pa.field("status", pa.string()), text)
        self._writer.write_batch(batch)
        self.rows += len(outcomes)

    def close(self) -> None:
        """Finish the file; what has been written can be read."""
        while self._open:
            self._open.pop().close()

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        raw = self.path.open("wb")
        self._open.append(raw)
        name = self.path.name.lower()
        if name.endswith(".parquet"):
            self._writer = pq.ParquetWriter(raw, _SCHEMA, **_PARQUET)
        else:
            sink: Any = raw
            if name.endswith(".gz"):
                # No time stamp and no name inside, so that equal outcomes are equal files.
                sink = gzip.GzipFile("", "wb", 6, raw, mtime=0)
                self._open.append(sink)
            place = _SCHEMA.get_field_index("status")
            plain = _SCHEMA.set(place, pa.field("status", pa.string()))
            self._writer = csv.CSVWriter(sink, plain)
        self._open.append(self._writer)

    def __enter__(self) -> OutcomeFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _batch(outcomes: np.ndarray) -> pa.RecordBatch:
    arrays = [pa.array(outcomes["row"])]
    for name in _TIMES:
        times = outcomes[f"{name}_ps"]
        arrays.append(pa.array(times / PS_PER_S, mask=times < 0))
    arrays += [pa.array(np.ascontiguousarray(outcomes[name])) for name in _COUNTS]
    codes = pa.array(outcomes["status"].astype(np.int32))
    texts = pa.array([STATUS_TEXT[code] for code in range(len(STATUS_TEXT))])
    arrays.append(pa.DictionaryArray.from_arrays(codes, texts))
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)
