"""What every forecaster of traffic is: history up to now in, a path of quantiles out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from .series import Traffic

Floats = npt.NDArray[np.float64]

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Quantiles that are forecast unless others are asked for."""
DAY_S, WEEK_S = 86_400.0, 604_800.0


class Forecaster(ABC):
    """Forecasts all series of a fleet at once, from what has been seen.

    `fit` learns from a history and may take long; `forecast` takes any history that does not end
    before that one, and is to be fast. A forecaster that was never fitted fits itself first.
    Nothing but the history is known to it: changing a series after its end changes no forecast.

    Attributes:
        oracle: Whether it knows the future. Oracles are bounds, no policies.
    """

    oracle: ClassVar[bool] = False

    def fit(self, history: Traffic) -> None:  # noqa: B027, many learn nothing
        """Learn what does not change from one forecast to the next.

        Args:
            history: All that is known now.

        Raises:
            ValueError: The history is too short.
        """

    @abstractmethod
    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """Quantiles of the bins that follow the history.

        Args:
            history: All that is known now.
            horizon: How many bins ahead, 1 or more.
            levels: Probabilities, rising, each between 0 and 1.

        Returns:
            (series, horizon, levels), 0 or more, in the unit of the history, rising along the
            last axis.

        Raises:
            ValueError: An argument is out of range, or the history is too short.
        """


def check(horizon: int, levels: Sequence[float]) -> Floats:
    """The levels as an array.

    Raises:
        ValueError: The horizon is less than 1, or the levels do not rise inside (0, 1).
    """
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}; give 1 or more bins")
    found = np.asarray(levels, np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError("levels: give at least one")
    if not (0 < found[0] and found[-1] < 1 and (np.diff(found) > 0).all()):
        raise ValueError(f"levels are {tuple(levels)}; let them rise, each between 0 and 1")
    return found


def root(values: Floats) -> Floats:
    """Square root, on whose scale the noise of counts does not grow with their level."""
    return np.sqrt(values)


def squared(values: Floats) -> Floats:
    """Back from `root`; what is below 0 there is 0."""
    return np.square(np.maximum(values, 0.0))
