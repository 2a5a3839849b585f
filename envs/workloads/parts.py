"""Request tables in parts, for streams that are longer than memory.

The parts follow one another in time. `envs.simulator.streaming.replay` serves them.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import TraceError
from .files import (
    is_parquet,
    parquet_column,
    parquet_fault,
    read_bytes,
    unreadable_gzip,
    unreadable_parquet,
)
from .generators import router_mix
from .storage import read_csv
from .table import RequestTable

ROWS = 200_000
"""Requests of a part: some 30 MB of simulator state, and parts still cost nothing beside it."""
_RENEWAL = ("poisson", "gamma")
# What a seed is for: with the workload's own, the errors of predictions would follow the lengths.
_WORKLOAD, _PREDICTION = 0, 1


def read_parts(path: str | Path, rows: int = ROWS) -> Iterator[RequestTable]:
    """Read a request table in parts: Parquet, CSV or gzipped CSV, told by content.

    The parts together are what `RequestTable.read` gives, with the same checks and errors, row
    and line counted through the whole file. One check differs: that a `request_id` occurs once is
    seen within a part, and from part to part only where the numbers ascend.

    Args:
        path: A file with the columns of a request table; convert others with `servegym trace`.
        rows: Requests of a part.

    Returns:
        The tables, of at most `rows` requests each. Where the file has no `request_id`, it
        counts through the file.

    Raises:
        ValueError: `rows` is less than 1.
        TraceError: The file is absent, damaged, or breaks a rule of a column; parts before the
            fault have been given by then.
    """
    _check_rows(rows)
    path = Path(path)
    parts = _parquet_parts(path, rows) if is_parquet(path) else _csv_parts(path, rows)
    return _numbered(parts)


def parquet_rows(path: str | Path) -> int | None:
    """Rows of a Parquet file as its end tells; None of another file.

    Raises:
        TraceError: The file is damaged.
    """
    path = Path(path)
    if not is_parquet(path):
        return None
    with unreadable_parquet(path):
        return int(pq.read_metadata(path).num_rows)


def drawn_parts(
    draw: Callable[[int, int], RequestTable], requests: int, seed: int = 0, rows: int = ROWS
) -> Iterator[RequestTable]:
    """A synthetic stream: every part is drawn with a seed of its own, after the one before it.

    It is a stream of the same distribution as `draw(requests, seed)`, not the same draw, and it
    depends on `rows`. Times of a part count from the last arrival before it, so `draw` must give
    a renewal process whose first arrival comes one gap after 0, such as "poisson" and "gamma".

    Args:
        draw: Called with a number of requests and a seed.
        requests: Requests of the stream.
        seed: Seed of the seeds.
        rows: Requests of a part.

    Raises:
        ValueError: `requests` or `rows` is less than 1.
        TraceError: The stream becomes longer than a table's clock, 104 days.
    """
    _check_rows(rows)
    if requests < 1:
        raise ValueError(f"a stream of {requests} requests; give 1 or more")
    return _numbered(_moved(draw, requests, seed, rows))


def router_mix_parts(
    requests: int,
    rate: float = 20.0,
    seed: int = 0,
    rows: int = ROWS,
    *,
    arrivals: str = "poisson",
    **options: Any,
) -> Iterator[RequestTable]:
    """`router_mix` as a stream of any length; see `drawn_parts` for what is the same.

    Args:
        requests: Requests of the stream.
        rate: Mean requests per second.
        seed: Seed of everything that is drawn.
        rows: Requests of a part.
        arrivals: "poisson" or "gamma".
        **options: The other options of `router_mix`.

    Raises:
        ValueError: A parameter is out of range.
    """
    if arrivals not in _RENEWAL:
        raise ValueError(f"a stream takes the arrivals {' or '.join(_RENEWAL)}, not {arrivals!r}")

    def draw(count: int, child: int) -> RequestTable:
        return router_mix(count, rate, child, arrivals=arrivals, **options)

    return drawn_parts(draw, requests, seed, rows)


def predicted_parts(
    parts: Iterator[RequestTable], sigma: float = 0.5, seed: int = 0
) -> Iterator[RequestTable]:
    """The parts with predicted lengths, the errors of each drawn with a seed of its own.

    Args:
        parts: Any stream.
        sigma: As in `RequestTable.with_predictions`.
        seed: Seed of the seeds; it may be that of the workload, which draws other ones.
    """
    for number, part in enumerate(parts):
        yield part.with_predictions(sigma, _child(seed, number, _PREDICTION))


def _child(seed: int, number: int, purpose: int) -> int:
    return int(np.random.SeedSequence([seed, number, purpose]).generate_state(1, np.uint64)[0])


def _check_rows(rows: int) -> None:
    if rows < 1:
        raise ValueError(f"a part of {rows} requests; give 1 or more")


def _moved(
    draw: Callable[[int, int], RequestTable], requests: int, seed: int, rows: int
) -> Iterator[RequestTable]:
    """The parts of a synthetic stream, one behind the other."""
    end_s = 0.0
    for number, start in enumerate(range(0, requests, rows)):
        part = draw(min(rows, requests - start), _child(seed, number, _WORKLOAD))
        if end_s:
            moved = {"arrival_s": part.arrival_s + end_s}
            if "deadline_s" in part.given:
                moved["deadline_s"] = part.deadline_s + end_s
            part = part.replace(**moved)
        end_s = float(part.arrival_s[-1])
        yield part


def _numbered(parts: Iterator[RequestTable]) -> Iterator[RequestTable]:
    """The parts with request ids that count through."""
    count = 0
    for part in parts:
        if "request_id" not in part.given:
            part = part.replace(request_id=np.arange(count, count + len(part)))
        count += len(part)
        yield part


class _Seam:
    """What a part must know of the one before it."""

    def __init__(self) -> None:
        self.arrival_s, self.request_id = 0.0, -1
        self.ascending = True

    def check(self, part: RequestTable, fault: Callable[..., TraceError]) -> None:
        """Refuse a part that does not follow."""
        first = part.arrival_s[0]
        if first < self.arrival_s:
            problem = f"the value {first} is earlier than the row before it"
            raise fault(0, "arrival_s", problem, "Sort the trace by arrival")
        self.arrival_s = float(part.arrival_s[-1])
        if "request_id" not in part.given:
            return
        ids = part.request_id
        # Ids that ascended so far are all at or below the last one.
        if self.ascending and ids[0] == self.request_id:
            mend = "Number the requests, or drop the column"
            raise fault(0, "request_id", f"the value {ids[0]} occurs twice", mend)
        self.ascending = self.ascending and ids[0] > self.request_id
        self.ascending = self.ascending and bool((ids[1:] > ids[:-1]).all())
        self.request_id = int(ids[-1])


def _parquet_parts(path: Path, rows: int) -> Iterator[RequestTable]:
    seam, before = _Seam(), 0
    source = f"{path.name} (request table, Parquet)"
    with unreadable_parquet(path):
        file = pq.ParquetFile(path)
        batches = file.iter_batches(rows, use_threads=False)
    try:
        while True:
            with unreadable_parquet(path):
                batch = next(batches, None)
            if batch is None:
                break
            columns = {}
            with unreadable_parquet(path):
                for name in batch.schema.names:
                    column = pa.chunked_array([batch.column(name)])
                    columns[name] = parquet_column(path, name, column, before)
            if not len(batch):
                continue
            fault = parquet_fault(path, before=before)
            part = RequestTable.from_mapping(columns, source, fault)
            seam.check(part, fault)
            before += len(part)
            yield part
    finally:
        file.close()
    if not before:
        raise parquet_fault(path)(None, "arrival_s", "there are no requests", "Give at least one")


def _csv_parts(path: Path, rows: int) -> Iterator[RequestTable]:
    """The parts of a CSV file, each read as a file of its own with the header on top."""
    seam = _Seam()
    with _opened(path) as file:
        blank, header = _header(path, file)
        before, any_rows = blank.count(b"\n"), False
        while chunk := _whole_rows(path, file, rows):
            if not chunk.strip():
                before += chunk.count(b"\n")
                continue
            with _lines_later(before):
                part, fault = read_csv(path, header + chunk)
                seam.check(part, fault)
            any_rows = True
            before += chunk.count(b"\n")
            yield part
        if not any_rows:  # all in one line, by line breaks of old, or an error
            yield read_csv(path, blank + header)[0]


@contextmanager
def _lines_later(lines: int) -> Iterator[None]:
    """Errors that name the line of the whole file; those of the header stay at line 1."""
    try:
        yield
    except TraceError as error:
        if lines == 0 or error.line is None or error.line == 1:
            raise
        line = error.line + lines
        raise TraceError(
            error.problem, mend=error.mend, path=error.path, line=line, column=error.column
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A plain or gzipped file, unpacked as it is read."""
    try:
        raw = path.open("rb")
    except (OSError, ValueError):
        read_bytes(path)  # says what is wrong
        raise
    with raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[misc]


def _header(path: Path, file: IO[bytes]) -> tuple[bytes, bytes]:
    """Blank lines before the header, and its line."""
    blank = b""
    with unreadable_gzip(path):
        for line in file:
            text = line.removeprefix(b"\xef\xbb\xbf") if not blank else line
            if text.strip():
                return blank, text
            blank += line
    raise TraceError("the file is empty", mend="Fetch or write it again", path=path)


def _whole_rows(path: Path, file: IO[bytes], rows: int) -> bytes:
    """The next lines; more of them where a quoted field goes on in the next line."""
    with unreadable_gzip(path):
        chunk = b"".join(islice(file, rows))
        more = []
        quotes = chunk.count(b'"')
        while quotes % 2 and (line := file.readline()):
            more.append(line)
            quotes += line.count(b'"')
    return b"".join([chunk, *more])
