"""Fleets of a fixed size."""

from __future__ import annotations

import numpy as np

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.load import load_of
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.parameters import number
from envs.scaling.control import FleetView, Orders, Setting


class StaticPeak(Strategy):
    """A fixed count per deployment that covers the peak of the history.

    It scales at time 0, and replaces what is lost later.
    """

    name = "static_peak"
    source = "provisioning for the peak"

    quantile: float = number(1.0, 0.0, 1.0)
    """Which quantile of the history's bins counts as the peak."""
    margin: float = number(1.0, 0.0, 100.0)
    """Factor on it."""

    def begin(self, setting: Setting) -> None:
        """See the base class."""
        super().begin(setting)
        peak = np.quantile(load_of(setting, setting.history), self.quantile, axis=-1)
        needed = np.ceil(self.margin * peak / setting.throughput[:, None] - 1e-9)
        self.wanted = needed.astype(np.int64)

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        target = np.clip(self.wanted, view.floor, view.ceiling)
        change = target - view.count
        if view.now_s > 0:
            change = np.maximum(change, 0)
        return orders_for(self.setting, view, change) if change.any() else None
