"""Rows of structured arrays in compiled code, some of whose fields are fixed."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import NumbaError

from envs.simulator.layout import FIXED_IN_HEAD, HEAD_DTYPE
from envs.simulator.memory import head_at, head_of
from envs.simulator.records import first_of, record_at

DTYPE = np.dtype([("limit", "i8"), ("count", "i4"), ("share", "f8")], align=True)
row_at = record_at(DTYPE, ["limit"])
first = first_of(DTYPE, ["limit"])


@njit
def grow(address: int, index: int, by: int) -> float:
    row = row_at(address, index)
    total = 0.0
    for _ in range(by):
        if row.count < row.limit:
            row.count += 1
        total += row.count * row.share
    return total


def test_rows_are_read_and_written_in_place() -> None:
    rows = np.zeros(3, DTYPE)
    rows["limit"], rows["share"] = [0, 3, 0], 0.5
    assert grow(rows.ctypes.data, 1, 5) == 0.5 * (1 + 2 + 3 + 3 + 3)
    assert rows["count"].tolist() == [0, 3, 0]


def test_fixed_fields_are_read_anew_by_each_call() -> None:
    rows = np.zeros(1, DTYPE)
    for limit in (2, 4, 1):
        rows["limit"] = limit
        grow(rows.ctypes.data, 0, 10)
        assert rows["count"][0] == max(limit, rows["count"][0])
    assert rows["count"][0] == 4


def test_compiled_code_must_not_set_a_fixed_field() -> None:
    @njit
    def change(rows: np.ndarray) -> None:
        first(rows).limit = 1

    with pytest.raises((NumbaError, TypeError), match=r"limit.*fixed field"):
        change(np.zeros(1, DTYPE))


def test_a_head_is_the_same_by_address_and_by_array() -> None:
    @njit
    def read(heads: np.ndarray, address: int) -> tuple[int, int]:
        return head_of(heads).window + head_of(heads).served, head_at(address, 0).window

    heads = np.zeros(1, HEAD_DTYPE)
    heads["window"], heads["served"] = 7, 5
    assert read(heads, heads.ctypes.data) == (12, 7)
    assert set(FIXED_IN_HEAD) < set(HEAD_DTYPE.names or ())
