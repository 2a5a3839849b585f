"""Sorting a few numbers."""

from __future__ import annotations

import numpy as np

from envs.simulator.jit import compiled


@compiled
def sort_in_place(values: np.ndarray, count: int) -> None:
    """Sort the first `count` numbers, which are few or nearly in order."""
    for j in range(1, count):
        value, place = values[j], j
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value
