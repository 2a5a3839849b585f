"""Whatever Parquet files and columns in memory hold: a good table, or a TraceError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import COLUMNS, RequestTable, read_trace
from tests.fuzzing import CONTROLS, TEXTS, Effort, damaged, efforts, scalars
from tests.workloads.checks import check_read
from tests.workloads.samples import WHOLE, servegen

WIDE = [
    pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64(),
    pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(),
    pa.binary(), pa.date32(), pa.timestamp("s"), pa.timestamp("us", "Europe/Berlin"),
    pa.timestamp("ns"), pa.time64("us"), pa.duration("us"), pa.decimal128(12, 3),
    pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.null(),
    pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.int64()),
    pa.map_(pa.string(), pa.int64()),
]  # fmt: skip
ARROW_REFUSES = (pa.ArrowException, ValueError, TypeError, OverflowError)
REQUIRED = ("arrival_s", "prompt_tokens", "output_tokens")
EXTREMES: dict[str, list[Any]] = {
    "int": [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "float": [0.0, 0.5, 1.0, -1.0, 6e4, 1e300, 5e-324, float("nan"), float("inf"), float("-inf")],
}


@st.composite
def arrow_columns(draw: st.DrawFn, n: int) -> pa.Array:
    """A column of any type, with extreme values and nulls."""
    kind = draw(st.sampled_from(WIDE))
    pools: list[Any] = [
        EXTREMES["int"], EXTREMES["float"], [*TEXTS, *CONTROLS], [b"a", b"\xff"], [True, False],
        [[1], []], [{"a": 1}, {"a": None}],
    ]  # fmt: skip
    nullable = draw(st.sampled_from([False, False, True]))
    pool = draw(st.sampled_from(pools))
    one = st.sampled_from([*pool, None]) if nullable else st.sampled_from(pool)
    values = draw(st.lists(one, min_size=n, max_size=n))
    try:
        return pa.array(values).cast(kind)
    except ARROW_REFUSES:
        pass
    try:
        return pa.array(np.array([v or 0 for v in values], np.int64)).view(kind)
    except ARROW_REFUSES:
        return pa.array([None if v is None else str(v) for v in values])


@efforts
def test_parquet_columns(effort: Effort, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    (tmp_path / "whole.csv").write_text(WHOLE)
    good = RequestTable.read(tmp_path / "whole.csv")
    good.write(path)
    columns = dict(zip(good.given, pq.read_table(path).columns, strict=True))

    @effort(60)
    @given(st.data(), st.sampled_from([0, 1, 3]))
    def check(data: st.DataObject, n: int) -> None:
        changed = {name: column.slice(0, n) for name, column in columns.items()}
        kept = data.draw(st.sets(st.sampled_from(good.given), max_size=4))
        changed = {k: v for k, v in changed.items() if k in {*kept, *list(changed)[1:3], *REQUIRED}}
        for _ in range(data.draw(st.integers(1, 2))):
            name = data.draw(st.sampled_from([*changed, *changed, "other", ""]))
            changed[name] = data.draw(arrow_columns(n))
        try:
            pq.write_table(pa.table(changed), path)
        except ARROW_REFUSES:
            return
        ends = (".csv.gz", ".parquet")
        options = {} if data.draw(st.booleans()) else {"format": "generic", "columns": {}}
        check_read(path, lambda file: read_trace(file, sort=True, **options), ends)
        check_read(path, RequestTable.read, ends)

    check()


@efforts
def test_damaged_parquet(effort: Effort, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    (tmp_path / "whole.csv").write_text(WHOLE)
    RequestTable.read(tmp_path / "whole.csv").write(path)
    whole = path.read_bytes()

    @effort(30)
    @given(damaged(whole))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        check_read(path)
        check_read(path, RequestTable.read)

    check()


@efforts
def test_client_windows(effort: Effort, tmp_path: Path) -> None:
    trace = servegen(tmp_path)
    lengths = trace.with_name(trace.name.replace("_trace", "_lengths_quantiles"))
    tables = {path: pq.read_table(path) for path in (trace, lengths)}
    # Between rare and refused lie numbers of requests that take long to draw.
    cells = st.sampled_from([v for v in (*EXTREMES["int"], *EXTREMES["float"]) if v != 6e4])

    @effort(40)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from([trace, lengths]))
        table = tables[path]
        name = data.draw(st.sampled_from(table.column_names))
        at = table.column_names.index(name)
        what = data.draw(st.sampled_from(["cell", "cell", "cell", "column", "lose", "rows"]))
        changed = table
        if what == "cell":
            values = table[name].to_pylist()
            values[data.draw(st.integers(0, len(values) - 1))] = data.draw(cells)
            try:
                changed = table.set_column(at, name, pa.array(values))
            except ARROW_REFUSES:
                return
        elif what == "column":
            changed = table.set_column(at, name, data.draw(arrow_columns(len(table))))
        elif what == "lose":
            changed = table.drop_columns([name])
        else:
            changed = table.slice(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2)))
        try:
            for file, content in {**tables, path: changed}.items():
                pq.write_table(content, file)
        except ARROW_REFUSES:
            return
        missing = data.draw(st.sampled_from(["borrow", "drop"]))
        check_read(trace, lambda file: read_trace(file, "servegen", missing_lengths=missing))

    check()


ARRAYS = (
    lambda: np.array([0.0, 1.0, 2.0], np.float16),
    lambda: np.array([1, 2, 3], np.uint8),
    lambda: np.array([1, 2, 2**64 - 1], np.uint64),
    lambda: np.array(["a", "b", "c"]),
    lambda: np.array([b"a", b"b", b"c"]),
    lambda: np.array([1 + 2j, 1, 0]),
    lambda: np.array(["2024-05-10"] * 3, "datetime64[s]"),
    lambda: np.array([1, 2, 3], "timedelta64[s]"),
    lambda: np.array([(1, 2.0)] * 3, [("a", int), ("b", float)]),
    lambda: np.array(["a", None, 3], object),
    lambda: np.ma.masked_array([1, 2, 3], [0, 1, 0]),
    lambda: np.zeros((3, 1)),
    lambda: np.zeros((1, 3)),
    lambda: np.zeros(0),
    lambda: np.array(1),
    lambda: np.array("a"),
    lambda: iter([1, 2, 3]),
    lambda: (x for x in "abc"),
    lambda: {"a", "b"},
    lambda: {"a": 1, "b": 2, "c": 3},
    lambda: range(3),
    lambda: "abc",
    lambda: b"abc",
    lambda: [[1], [1, 2], []],
    lambda: pa.array([1, None, 3]),
    lambda: object(),
)


@efforts
def test_columns_in_memory(effort: Effort, tmp_path: Path) -> None:
    values = st.lists(scalars, min_size=3, max_size=3) | scalars | st.sampled_from(ARRAYS)
    path = tmp_path / "memory"

    @effort(80)
    @given(st.dictionaries(st.sampled_from([*COLUMNS]) | st.text(max_size=3), values, max_size=3))
    def check(changes: dict[str, Any]) -> None:
        columns = {"arrival_s": [0, 1, 2], "prompt_tokens": 5, "output_tokens": 3} | {
            name: value() if callable(value) else value for name, value in changes.items()
        }
        source = {"source": "memory"} if "source" not in columns else {}
        check_read(
            path, lambda _: RequestTable.from_columns(**source, **columns), (".csv", ".parquet")
        )

    check()
