"""Columns and rows of an integer program as they are collected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
"""Numbers of columns; -1 where there is none."""


class Draft:
    """Columns and rows; both are numbered in the order in which they are added."""

    def __init__(self) -> None:
        self.lower: list[Floats] = []
        self.upper: list[Floats] = []
        self.integer: list[npt.NDArray[np.uint8]] = []
        self.columns = 0
        self.entries: list[tuple[Places, Places, Floats]] = []
        self.bounds: list[tuple[Floats, Floats]] = []
        self.row_count = 0

    def column(self, allowed: Any, upper: Any = np.inf, *, integer: bool = False) -> Places:
        """New columns from 0 to `upper` where allowed."""
        allowed = np.asarray(allowed, dtype=bool)
        places = np.full(allowed.shape, -1, dtype=np.int64)
        count = int(allowed.sum())
        places[allowed] = self.columns + np.arange(count)
        self.columns += count
        self.lower.append(np.zeros(count))
        self.upper.append(np.broadcast_to(upper, allowed.shape)[allowed].astype(np.float64))
        self.integer.append(np.full(count, integer, dtype=np.uint8))
        return places

    def row(self, terms: list[tuple[Places, Any]], lower: Any, upper: Any) -> None:
        """Rows `lower <= sum(factor * column) <= upper`; the last axis of a term is summed."""
        shape = terms[0][0].shape[:-1]
        count = int(np.prod(shape))
        here = self.row_count + np.arange(count)
        for places, factor in terms:
            flat = places.reshape(count, -1)
            factors = np.broadcast_to(factor, places.shape).reshape(count, -1)
            used = flat >= 0
            rows = np.broadcast_to(here[:, None], flat.shape)
            self.entries.append((rows[used], flat[used], factors[used].astype(np.float64)))
        low, high = (np.broadcast_to(v, shape).reshape(-1).astype(float) for v in (lower, upper))
        self.bounds.append((low, high))
        self.row_count += count

    def matrix(self) -> csr_array:
        """(rows, columns) factors."""
        rows, columns, values = (
            np.concatenate([entry[part] for entry in self.entries]) for part in range(3)
        )
        shape = (self.row_count, self.columns)
        return coo_array((values, (rows, columns)), shape=shape).tocsr()
