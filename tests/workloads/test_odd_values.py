"""Values that look harmless and are not: told with their column, never let through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.workloads import Labels, RequestTable, TraceError, read_trace
from tests.workloads.samples import servegen

GOOD: dict[str, Any] = {"arrival_s": [0.0, 1.0, 2.0], "prompt_tokens": 5, "output_tokens": 3}


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("request_id", 10**400, "not numbers"),
        ("priority", [1, 2, 10**400], "not numbers"),
        ("prompt_tokens", [[1], [1, 2], []], "3 values in 2 dimension"),
        ("arrival_s", [[0.0], [1.0, 2.0], []], "3 values in 2 dimension"),
        ("tenant", {"a", "b"}, "values that are not text"),
        ("tenant", {"a": 1}, "values that are not text"),
        ("tenant", iter("ab"), "values that are not text"),
        ("tenant", None, "values that are not text"),
        ("region", "\x1f", "control character"),
        ("model", Labels.constant("a\nb", 3), "control character"),
    ],
)
def test_columns_in_memory(column: str, values: object, words: str) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        RequestTable.from_columns(**(GOOD | {column: values}))
    assert caught.value.column == column


def test_half_precision_is_a_number_like_any_other() -> None:
    columns = GOOD | {"request_id": np.array([1, 2, 3], np.float16)}
    np.testing.assert_array_equal(RequestTable.from_columns(**columns).request_id, [1, 2, 3])
    with pytest.raises(TraceError, match="inf is not a whole number"):
        RequestTable.from_columns(**(GOOD | {"prompt_tokens": np.array([1, np.inf, 3], "f2")}))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (pa.array([0, -(2**63), 5], pa.timestamp("ns")), "row 2 .*NaT lies outside the years"),
        (pa.array([-(2**63) + 1, 0, 2**63 - 1], pa.timestamp("ns")), "row 1 .*outside the years"),
        (pa.array([0, 1, 10**18], pa.timestamp("us")), "times outside the years 1678 to 2261"),
    ],
)
def test_times_beyond_the_range_of_nanoseconds(times: pa.Array, words: str, tmp_path: Path) -> None:
    path = tmp_path / "times.parquet"
    pq.write_table(pa.table({"arrival_s": times, "p": [1, 1, 1], "o": [1, 1, 1]}), path)
    names = {"prompt_tokens": "p", "output_tokens": "o"}
    with pytest.raises(TraceError, match=words) as caught:
        read_trace(path, columns=names, sort=True)
    assert caught.value.column == "arrival_s"


@pytest.mark.parametrize(("column", "kind"), [("rate", "f2"), ("t", "i2"), ("client", "u1")])
def test_narrow_numbers_in_client_windows(column: str, kind: str, tmp_path: Path) -> None:
    path = servegen(tmp_path)
    table, whole = pq.read_table(path), read_trace(path)
    narrow = pa.array(table[column].to_numpy().astype(kind))
    pq.write_table(table.set_column(table.column_names.index(column), column, narrow), path)
    assert len(read_trace(path)) == pytest.approx(len(whole), rel=0.01)


def test_a_window_in_narrow_numbers_ends_where_it_does(tmp_path: Path) -> None:
    path = servegen(tmp_path)
    table = pq.read_table(path)
    late = pa.array([32_400, 32_700, 32_700], pa.int16())
    pq.write_table(table.set_column(table.column_names.index("t"), "t", late), path)
    assert len(read_trace(path, start_s=32_700.0)) > 0


def test_a_client_is_a_whole_number(tmp_path: Path) -> None:
    path = servegen(tmp_path)
    table = pq.read_table(path)
    halves = pa.array([1.0, 1.5, 2.0])
    pq.write_table(table.set_column(table.column_names.index("client"), "client", halves), path)
    with pytest.raises(TraceError, match=r"'client': row 2 .*not a whole number"):
        read_trace(path)


def test_client_windows_without_a_row(tmp_path: Path) -> None:
    path = servegen(tmp_path)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(TraceError, match="there are no windows"):
        read_trace(path)
