"""What every scaling strategy that is not learned is, and what it plans by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from envs.scaling.control import FleetView, Orders, Setting
from envs.scaling.demand import Demand

Floats = npt.NDArray[np.float64]


class Forecast(Protocol):
    """Forecasts demand from what is past; whoever runs a strategy that plans gives it one.

    Attributes:
        oracle: Whether it knows the future.
    """

    oracle: bool

    def begin(self, history: Demand, future: Demand | None) -> None:
        """Learn from the time before the episode; an oracle takes the future instead."""

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """(M, R, horizon, levels) tokens/s of interactive requests in the bins that follow.

        Args:
            past: All that has arrived, the history and the episode so far.
            horizon: Bins ahead.
            levels: Probabilities of the quantiles.
        """


class Strategy(ABC):
    """A controller with a name and parameters (`envs.scaling.control.Controller`).

    Attributes:
        name: Name on the command line and in tables.
        source: Where it comes from.
        plans: Whether it needs a forecast.
        lanes: How instances divide the tiers: `one` for all, `two` (interactive and batch pools),
            `three` (these and a mixed one).
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    plans: ClassVar[bool] = False
    lanes: ClassVar[str] = "one"
    oracle: bool = False
    tick_s: float = 15.0

    def __init__(self, forecast: Forecast | None = None, **parameters: Any) -> None:
        self.forecast = forecast
        self.setting: Setting

    def begin(self, setting: Setting) -> None:
        """Take what is known before the first moment."""
        self.setting = setting

    @abstractmethod
    def decide(self, view: FleetView) -> Orders | None:
        """What to change now; None changes nothing."""
