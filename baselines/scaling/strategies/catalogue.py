"""The scaling strategies by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from baselines.scaling.strategies.base import Forecast, Strategy
from baselines.scaling.strategies.chiron import Chiron
from baselines.scaling.strategies.long_term import LTI, LTU, LTUA
from baselines.scaling.strategies.predictive import PerfectPredictiveControl, PredictiveControl
from baselines.scaling.strategies.static import StaticPeak
from baselines.scaling.strategies.thresholds import Reactive, Siloed
from baselines.scaling.strategies.tracking import TargetTracking
from envs.scenarios.errors import did_you_mean

_ALL: tuple[type[Strategy], ...] = (
    StaticPeak,
    Reactive,
    Siloed,
    LTI,
    LTU,
    LTUA,
    Chiron,
    TargetTracking,
    PredictiveControl,
    PerfectPredictiveControl,
)


def strategies() -> Mapping[str, type[Strategy]]:
    """All of them; `plans` says which need a forecast, `lanes` how they divide the fleet."""
    return MappingProxyType({kind.name: kind for kind in _ALL})


def strategy(name: str, forecast: Forecast | None = None, **parameters: Any) -> Strategy:
    """Make a strategy.

    Args:
        name: Its name.
        forecast: What it plans by, if it plans.
        parameters: Values in place of its defaults.

    Raises:
        ValueError: The name or a parameter is unknown, a value makes no sense, or a strategy that
            plans has no forecast.
    """
    known = strategies()
    if name not in known:
        raise ValueError(f"no scaling strategy {name!r}: {did_you_mean(name, known)}")
    return known[name](forecast, **parameters)
