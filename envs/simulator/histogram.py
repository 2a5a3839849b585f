"""Percentiles of a stream in bounded memory."""

from __future__ import annotations

import numpy as np

_LEAST, _MOST = 1e-6, 1e8
_RATIO = 1.01
_BINS = int(np.ceil(np.log(_MOST / _LEAST) / np.log(_RATIO))) + 2


class LatencyHistogram:
    """Counts in bins that are 1 % wide, from a microsecond to three years.

    The mean is exact; a percentile is off by at most half a bin, 0.5 %.
    """

    def __init__(self) -> None:
        """Begin with no values."""
        self.counts = np.zeros(_BINS, np.int64)
        self.total = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count values in seconds, 0 or more."""
        place = np.log(np.maximum(values, _LEAST) / _LEAST) / np.log(_RATIO)
        bins = np.clip(place.astype(np.int64) + 1, 1, _BINS - 1)
        bins[values < _LEAST] = 0
        self.counts += np.bincount(bins, minlength=_BINS)
        self.total += float(values.sum())

    @property
    def mean(self) -> float:
        """Mean in seconds, NaN of no values."""
        count = int(self.counts.sum())
        return self.total / count if count else float("nan")

    def percentile(self, percent: float) -> float:
        """Value in seconds that so many percent lie below, NaN of no values."""
        count = int(self.counts.sum())
        if count == 0:
            return float("nan")
        rank = percent / 100.0 * (count - 1)
        place = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return 0.0 if place == 0 else float(_LEAST * _RATIO ** (place - 0.5))
