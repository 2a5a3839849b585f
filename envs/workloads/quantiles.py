"""Token counts drawn from tables of quantiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CHUNK = 1_000_000


def sample_quantiles(levels: Floats, tables: Floats, row: Ints, u: Floats) -> Ints:
    """Token counts at given probabilities, by linear interpolation between quantiles.

    Below the first level the first quantile holds. Above the last one, unless it is 1, the tail is
    exponential through the last two quantiles, cut at four times the last: longest answers are
    not recorded, and without a tail the mean would be too low.

    Args:
        levels: (q,) rising probabilities.
        tables: (k, q) quantiles in tokens, rising along a row.
        row: (n,) which table each draw uses.
        u: (n,) probabilities in [0, 1).

    Returns:
        (n,) whole tokens, at least 1.
    """
    out = np.empty(len(row), np.int64)
    for start in range(0, len(row), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = _sample(levels, tables, row[part], u[part])
    return out


def _sample(levels: Floats, tables: Floats, row: Ints, u: Floats) -> Ints:
    right = np.clip(np.searchsorted(levels, u, side="right"), 1, len(levels) - 1)
    low, high = tables[row, right - 1], tables[row, right]
    share = np.clip((u - levels[right - 1]) / (levels[right] - levels[right - 1]), 0.0, 1.0)
    value = low + share * (high - low)
    if levels[-1] < 1.0:
        beyond = u > levels[-1]
        last, before = tables[row[beyond], -1], tables[row[beyond], -2]
        decay = np.log((1.0 - levels[-2]) / (1.0 - levels[-1]))
        steps = np.log((1.0 - levels[-1]) / (1.0 - u[beyond])) / decay
        value[beyond] = np.minimum(last + steps * (last - before), 4.0 * last)
    return np.maximum(np.rint(value), 1).astype(np.int64)
