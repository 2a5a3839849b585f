"""Chiron: interactive and mixed instances by backpressure, batch instances by waiting time."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.load import unserved
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.parameters import number
from envs.scaling.control import FleetView, Orders, Setting

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Chiron(Strategy):
    """Chiron (arXiv:2501.08090) in the form that SageServe compares with, made fair.

    Interactive backpressure is the share of a model's interactive and mixed instances in a region
    that serve anything; a view counts requests and not busy instances, so that as many count as
    busy as there are requests, up to all. Above `backpressure` one is started, and one is stopped
    if the others would stay at or below it; the pool that is short of its share is the one to grow.
    It is averaged over `window_s`, since the few instances of a pool are all busy one moment and
    idle the next.

    Batch instances are as many as serve what waits for them within `deadline_share` of what NIW is
    promised, by measured throughput, with the idle mixed instances counted. The first one starts
    when that much work has come together or the time is over, and they stop, down to none, when
    nothing waits. As released they never get a request, and never stop.
    """

    name = "chiron"
    source = "Chiron, arXiv:2501.08090; parameters of SageServe's configuration"
    lanes = "three"

    backpressure: float = number(0.6, 0.0, 1.0)
    """Share of busy instances above which one is started."""
    window_s: float = number(300.0)
    """Seconds over which backpressure is averaged; the released code looks at the moment."""
    cooldown_s: float = number(60.0)
    """Seconds in which a deployment that was scaled is left alone; 0 in the released code."""
    interactive_share: float = number(2 / 3, 0.0, 1.0)
    """Interactive instances in those and mixed ones: 20 of 30."""
    deadline_share: float = number(0.25, 0.001, 1.0)
    """Share of the limit of NIW within which a backlog should be served."""
    request_tokens: float = number(4_000.0, 1.0)
    """Tokens of a request before the first whole bin tells."""

    def begin(self, setting: Setting) -> None:
        """See the base class.

        Raises:
            ValueError: The fleet has not three lanes.
        """
        super().begin(setting)
        lanes = {(role.model, role.lane): k for k, role in enumerate(setting.roles)}
        self.pools = []
        for model in dict.fromkeys(role.model for role in setting.roles):
            found = [lanes.get((model, lane), -1) for lane in ("interactive", "any", "batch")]
            if min(found) < 0:
                raise ValueError(
                    "chiron needs interactive, mixed and batch instances of every model: divide "
                    "the scenario by lanes(scenario, 'three')"
                )
            self.pools.append((found[0], found[1], found[2]))
        self.blocked_until_s = np.full(setting.shape, -np.inf)
        self.arrived_at_bin = np.zeros((len(setting.models), setting.shape[1]))
        self.bins = 0
        self.seen: deque[tuple[float, Ints]] = deque()
        self.idle_s = np.zeros(setting.shape)

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        change = np.zeros(self.setting.shape, np.int64)
        busy = self._busy(view)
        waits = unserved(self.setting, view)
        size = self._tokens_of_a_request(view)
        for interactive, mixed, batch in self.pools:
            for r in range(self.setting.shape[1]):
                k, step = self._interactive(view, busy, interactive, mixed, r)
                if view.count[[interactive, mixed], r].sum() == 0 and waits[interactive, r]:
                    k, step = interactive, 1
                change[k, r] = step
                idle = max(0, int(view.ready[mixed, r] - math.ceil(busy[mixed, r])))
                change[batch, r] = self._batch(view, batch, r, idle, size)
        change[view.now_s < self.blocked_until_s] = 0
        if not change.any():
            return None
        self.blocked_until_s[change != 0] = view.now_s + self.cooldown_s
        return orders_for(self.setting, view, change)

    def _busy(self, view: FleetView) -> Floats:
        """(K, R) instances that serve anything, on the mean of the window."""
        self.seen.append((view.now_s, np.minimum(view.waiting + view.running, view.ready)))
        while self.seen[0][0] < view.now_s - self.window_s:
            self.seen.popleft()
        return np.asarray(np.mean([busy for _, busy in self.seen], axis=0))

    def _interactive(
        self, view: FleetView, busy: Floats, interactive: int, mixed: int, r: int
    ) -> tuple[int, int]:
        """The pool of the two to change, and by how many."""
        own, shared = int(view.count[interactive, r]), int(view.count[mixed, r])
        count = own + shared
        used = float(busy[interactive, r] + busy[mixed, r])
        short = own < self.interactive_share * (count + 1)
        if used > self.backpressure * count:
            full = own >= view.ceiling[interactive, r]
            return (interactive if short and not full else mixed), 1
        if count and used <= self.backpressure * (count - 1):
            may = own > view.floor[interactive, r]
            spare = own > self.interactive_share * (count - 1) or shared <= view.floor[mixed, r]
            return (interactive if spare and may else mixed), -1
        return mixed, 0

    def _batch(self, view: FleetView, batch: int, r: int, idle: int, size: Floats) -> int:
        """By how many to change the batch instances of a region."""
        model = self.setting.role_model[batch]
        count = int(view.count[batch, r])
        here = int(view.waiting[batch, r] + view.running[batch, r])
        pending = int(view.backlog[model, r]) + here
        if not pending:
            self.idle_s[batch, r] = view.now_s
            return -1 if count else 0
        limit = self.deadline_share * self.setting.tier_limits_s[2]
        loads = pending * size[model] / (self.setting.throughput[batch] * limit)
        if count + idle == 0:
            late = view.now_s - self.idle_s[batch, r] >= limit
            return 1 if late or loads >= 1.0 else 0
        if count + idle < math.ceil(loads):
            return 1
        return -1 if count and not here and count + idle > math.ceil(loads) else 0

    def _tokens_of_a_request(self, view: FleetView) -> Floats:
        """(M,) mean tokens of a request so far, in whole bins."""
        if view.demand.bins > self.bins:
            self.bins = view.demand.bins
            self.arrived_at_bin = view.arrived.astype(np.float64)
        demand, history = view.demand, self.setting.history
        prompts = demand.prompt.sum(axis=-1) * history.ratio[:, None]
        prompts += demand.batch.sum(axis=-1) * history.batch_ratio[:, None]
        tokens = prompts.sum(axis=1) * demand.bin_s
        arrived = self.arrived_at_bin.sum(axis=1)
        start = np.full(len(tokens), self.request_tokens)
        return np.divide(tokens, arrived, out=start, where=(arrived > 0) & (tokens > 0))
