"""Sorting a few numbers."""

from __future__ import annotations

import numpy as np

from envs.simulator.jit import compiled


@compiled
def sort_in_place(values: np.ndarray, count: int) -> None:
    """Sort the first `count` numbers, which are few: Shell's method, small machine code."""
    gap = count // 2
    while gap > 0:
        for j in range(gap, count):
            value, place = values[j], j
            while place >= gap and values[place - gap] > value:
                values[place] = values[place - gap]
                place -= gap
            values[place] = value
        gap = 1 if gap == 2 else gap * 5 // 11
