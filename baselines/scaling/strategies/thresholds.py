"""Reactive scaling by thresholds of the share of KV in use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.load import unserved
from baselines.scaling.strategies.moving import has_own, orders_for
from baselines.scaling.strategies.parameters import number, switch
from envs.scaling.control import FleetView, Orders, Setting

SAGESERVE = "SageServe, arXiv:2502.14617"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Thresholds(Strategy):
    """What scales single instances by the share of KV in use, and then waits.

    A deployment without instances counts as full if requests wait for it, else as empty.
    """

    high: float = number(0.7, 0.0, 2.0)
    """Share of KV in use above which one is started."""
    low: float = number(0.3, 0.0, 2.0)
    """Share below which one is stopped."""
    cooldown_s: float = number(15.0)
    """Seconds in which a deployment that was scaled is left alone."""
    reclaim_block_s: float | None = number(None)
    """The same after a donated instance of the same model was started; None: the cooldown."""
    conversion_block_s: float | None = number(None)
    """After one of another model, or a new VM, was; None: the cooldown."""
    stop_block_s: float | None = number(None)
    """After one was stopped; None: the cooldown."""
    acquires: bool = switch(True)
    """Whether new VMs are acquired where none is donated; the released code never does."""
    released: bool = switch(False)
    """Whether the other parameters have the values of the released code instead."""
    as_released: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "high": 0.5,
            "low": 0.25,
            "reclaim_block_s": 65.0,
            "conversion_block_s": 155.0,
            "stop_block_s": 0.0,
            "acquires": False,
        }
    )

    def begin(self, setting: Setting) -> None:
        """See the base class."""
        super().begin(setting)
        self.blocked_until_s = np.full(setting.shape, -np.inf)

    def use(self, view: FleetView) -> Floats:
        """(K, R) share of KV in use; NaN, neither high nor low, while the first ones start."""
        none = np.where(unserved(self.setting, view), 1.0, 0.0)
        none = np.where(view.starting > 0, np.nan, none)
        return np.where(view.ready > 0, view.kv, none)

    def single(self, view: FleetView, out: Any, back: Any) -> Orders | None:
        """Start one where `out`, stop one where `back`, but for deployments that are blocked."""
        free = view.now_s >= self.blocked_until_s
        out, back = (
            out & free & (view.count < view.ceiling),
            back & free & (view.count > view.floor),
        )
        change = np.where(out, 1, np.where(back, -1, 0))
        if not change.any():
            return None
        orders = orders_for(self.setting, view, change, acquire=self.acquires)
        self._block(view, orders)
        return orders

    def _block(self, view: FleetView, orders: Orders) -> None:
        for k, r in np.argwhere(orders.donate + orders.reclaim + orders.acquire > 0).tolist():
            block = self.stop_block_s
            if not orders.donate[k, r]:
                own = orders.reclaim[k, r] > 0 and has_own(self.setting, view, k, r)
                block = self.reclaim_block_s if own else self.conversion_block_s
            self.blocked_until_s[k, r] = view.now_s + (self.cooldown_s if block is None else block)


class Reactive(Thresholds):
    """SageServe's short-term scaling of one pool: one more above `high`, one less below `low`.

    The released code looks when a request arrives; here the clock does, every `tick_s`.
    """

    name = "reactive"
    source = f"{SAGESERVE}: Unified, Reactive"

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        use = self.use(view)
        return self.single(view, use > self.high, use < self.low)


class Siloed(Reactive):
    """The same on interactive and batch pools apart, as most providers do today."""

    name = "siloed"
    source = f"{SAGESERVE}: Siloed"
    lanes = "two"
