"""Columns of observations, with their units and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from gymnasium import spaces


class Feature(NamedTuple):
    """One column of an observation: value = quantity / scale, clipped to [low, high]."""

    name: str
    unit: str
    scale: float
    high: float
    low: float = 0.0


def box(features: Sequence[Feature], rows: int = 1) -> spaces.Box:
    """The space of so many rows of features, one after another, float32."""
    low = np.tile(np.array([f.low for f in features], np.float32), rows)
    high = np.tile(np.array([f.high for f in features], np.float32), rows)
    return spaces.Box(low, high, dtype=np.float32)
