"""What every scaling strategy that is not learned is, and what it plans by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from baselines.scaling.strategies.parameters import number, parameters_of, settled
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

    Parameters are class attributes made by `number`, `switch` and `choice`; an instance has their
    values.

    Attributes:
        name: Name on the command line and in tables.
        source: Where it comes from.
        plans: Whether it needs a forecast.
        lanes: How instances divide the tiers: `one` for all, `two` (interactive and batch pools),
            `three` (these and a mixed one).
        as_released: Values that the parameter `released`, where there is one, puts in the place of
            the defaults.
        oracle: Whether it needs the future, because its forecast does.

    Args:
        forecast: What it plans by, if it plans.
        parameters: Values of parameters, by name.

    Raises:
        ValueError: It plans and has no forecast, a parameter is unknown, or a value makes no sense.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    plans: ClassVar[bool] = False
    lanes: ClassVar[str] = "one"
    as_released: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    oracle: bool = False

    tick_s: float = number(15.0, 1.0, 86_400.0)
    """Seconds between decisions."""

    def __init__(self, forecast: Forecast | None = None, **parameters: Any) -> None:
        preset = self.as_released if parameters.get("released") is True else {}
        known = parameters_of(type(self))
        for name, value in settled(self.name, known, parameters, preset).items():
            setattr(self, name, value)
        if self.plans and forecast is None:
            raise ValueError(
                f"{self.name} plans by a forecast and has none: give it one, such as "
                "baselines.scaling.strategies.forecast.SeasonalForecast()"
            )
        self.forecast = forecast if self.plans else None
        self.oracle = self.forecast is not None and self.forecast.oracle
        self.setting: Setting

    def begin(self, setting: Setting) -> None:
        """Take what is known before the first moment.

        Raises:
            ValueError: An oracle is not given the future.
        """
        self.setting = setting
        if self.forecast is not None:
            if self.oracle and setting.future is None:
                raise ValueError(f"the forecast of {self.name} is an oracle: give the future")
            self.forecast.begin(setting.history, setting.future if self.oracle else None)

    @abstractmethod
    def decide(self, view: FleetView) -> Orders | None:
        """What to change now; None changes nothing."""
