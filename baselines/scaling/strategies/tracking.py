"""Target tracking: as many instances as bring a metric to its target (Kubernetes HPA, KEDA)."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.load import load_of, past_of, unserved
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.parameters import choice, number
from envs.scaling.control import FleetView, Orders, Setting

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TARGETS = {"kv": 0.5, "waiting": 8.0, "tokens": 0.8}
"""Target of each metric where none is given."""


def desired_count(count: Ints, load: Any, target: float, tolerance: float = 0.1) -> Ints:
    """`ceil(count * metric / target)` with metric = load / count, and no change near the target.

    Args:
        count: Instances, those that start included.
        load: The metric summed over instances.
        target: What an instance should have of it.
        tolerance: Relative distance from the target within which the count stays.
    """
    wanted = np.ceil(load / target - 1e-9).astype(np.int64)
    ratio = load / (np.maximum(count, 1) * target)
    return np.where((count > 0) & (np.abs(ratio - 1.0) <= tolerance + 1e-9), count, wanted)


class TargetTracking(Strategy):
    """Desired count = ceil(count x metric / target), out at once, in when it has been so a while.

    Metrics are sums over a deployment's instances, of which those that still start have none:
    `kv` shares of KV in use, `waiting` requests that wait or are in service, `tokens` prompt and
    output tokens/s that came in the last whole bin, in instances that sustain so many.
    """

    name = "target_tracking"
    source = "Kubernetes HPA, KEDA"

    tick_s: float = number(15.0, 1.0, 3600.0)
    """Seconds between decisions; 15 in Kubernetes."""
    metric: str = choice("tokens", *TARGETS)
    """What is tracked."""
    target: float | None = number(None, 1e-6)
    """What an instance should have of it; None: 0.5 of KV, 8 requests, 0.8 of its throughput."""
    tolerance: float = number(0.1, 0.0, 1.0)
    """Relative distance from the target within which nothing changes."""
    stabilisation_s: float = number(300.0)
    """Seconds over which the largest desired count is taken before instances stop."""

    def begin(self, setting: Setting) -> None:
        """See the base class."""
        super().begin(setting)
        self.aim = TARGETS[self.metric] if self.target is None else self.target
        self.recent: deque[tuple[float, Ints]] = deque()

    def load(self, view: FleetView) -> Floats:
        """(K, R) the metric summed over instances."""
        setting = self.setting
        waits = unserved(setting, view)
        if self.metric == "waiting":
            return np.where(view.count > 0, view.waiting + view.running, waits * self.aim)
        if self.metric == "tokens":
            tokens = load_of(setting, past_of(setting, view.demand))[..., -1]
            return np.asarray(tokens / setting.throughput[:, None])
        # Where nothing is ready nothing is measured: what starts is kept.
        unknown = self.aim * np.where(view.count > 0, view.count, waits)
        return np.asarray(np.where(view.ready > 0, view.kv * view.ready, unknown))

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        count = view.count
        desired = desired_count(count, self.load(view), self.aim, self.tolerance)
        desired = np.clip(desired, view.floor, view.ceiling)
        self.recent.append((view.now_s, desired))
        while self.recent[0][0] < view.now_s - self.stabilisation_s:
            self.recent.popleft()
        highest = np.max([wanted for _, wanted in self.recent], axis=0)
        target = np.where(desired >= count, desired, np.minimum(highest, count))
        change = target - count
        return orders_for(self.setting, view, change) if change.any() else None
