"""Arrays that every simulation of a kind begins with, kept in one piece of memory to be copied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_LINE = 64  # bytes of a line of the processor's cache; each array begins a new one


class Block:
    """Arrays with their values at the start.

    To allocate and fill two dozen small arrays takes longer than to copy them as one.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._fields: list[tuple[str, tuple[int, ...], np.dtype, int]] = []
        end = 0
        for name, array in arrays.items():
            self._fields.append((name, array.shape, array.dtype, end))
            end += -(-array.nbytes // _LINE) * _LINE
        self._bytes = np.zeros(end, np.uint8)
        for name, own in self._views(self._bytes).items():
            own[...] = arrays[name]

    def copy(self) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Arrays of their own with these values, and the address of each."""
        memory = self._bytes.copy()
        start = memory.ctypes.data
        return self._views(memory), {name: start + at for name, _, _, at in self._fields}

    def _views(self, memory: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: np.ndarray(shape, dtype, memory, at) for name, shape, dtype, at in self._fields
        }
