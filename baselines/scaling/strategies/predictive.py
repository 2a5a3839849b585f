"""Model predictive control: the integer program over a horizon, applied period by period."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.scaling.plan import Plan
from baselines.scaling.problem import SCALE_IN
from baselines.scaling.solver import solve
from baselines.scaling.strategies.base import Forecast, Strategy
from baselines.scaling.strategies.forecast import PerfectForecast
from baselines.scaling.strategies.load import latest, past_of, unserved
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.parameters import choice, number, switch
from baselines.scaling.strategies.planning import orders_of, problem_of, refuse_lanes
from envs.scaling.control import FleetView, Orders, Setting
from envs.scaling.demand import Demand

Floats = npt.NDArray[np.float64]


class PredictiveControl(Strategy):
    """The corrected integer program over a horizon, anew every `plan_s`; its first period is done.

    Demand is a quantile of the forecast of interactive work, and the mean load of NIW, which can
    wait. Between plans a net catches what the forecast missed: where requests wait, so many are
    started that none has more than `net_waiting` of them, at most as many as are there, and plans
    keep them for `hold_s`.
    """

    name = "mpc"
    source = "model predictive control over SageServe's program, arXiv:2502.14617"
    plans = True

    tick_s: float = number(30.0, 1.0, 3600.0)
    """Seconds between looks of the net."""
    plan_s: float = number(900.0, 60.0)
    """Seconds between plans, in whole ticks, and of a period, in whole bins of demand."""
    periods: int = number(4, 1, 96, whole=True)
    """Periods that a plan looks ahead."""
    quantile: float = number(0.9, 0.0, 1.0)
    """Level of the forecast that is planned for."""
    utilisation: float = number(1.0, 0.01, 10.0)
    """Share of an instance's throughput to plan with."""
    local_share: float = number(0.8, 0.0, 1.0)
    """Share of its own peak that a region must cover."""
    batch_share: float = number(1.0, 0.0, 10.0)
    """Share of the mean load of NIW that is planned for."""
    batch_window_s: float = number(86_400.0, 60.0)
    """Seconds over which that mean is taken."""
    scale_in: str = choice("either", *SCALE_IN)
    """Where GPUs go that are not needed, where donating them costs anything."""
    net: bool = switch(True)
    """Whether the net is there."""
    net_waiting: float = number(4.0, 1e-3)
    """Requests that may wait per instance before more are started."""
    net_cooldown_s: float = number(120.0)
    """Seconds for which a deployment whose instances it has started is left alone."""
    hold_s: float = number(900.0)
    """Seconds for which plans keep as many as the net has found necessary."""
    gap: float = number(5e-3, 0.0, 0.999)
    """Relative gap of the program."""
    time_limit_s: float = number(30.0, 0.01)
    """Wall seconds that a plan may take; plans that run into it are not reproducible."""

    def begin(self, setting: Setting) -> None:
        """See the base class.

        Raises:
            ValueError: Instances have lanes, or see the base class.
        """
        super().begin(setting)
        refuse_lanes(self.name, setting)
        self.next_plan_s = 0.0
        self.plan: Plan | None = None
        self.kept = np.zeros(setting.shape, np.int64)
        self.kept_until_s = np.full(setting.shape, -np.inf)
        self.caught_s = np.full(setting.shape, -np.inf)

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        if view.now_s >= self.next_plan_s:
            self.next_plan_s = (math.floor(view.now_s / self.plan_s) + 1) * self.plan_s
            self.plan = self._solve(view, past_of(self.setting, view.demand))
            return orders_of(self.plan)
        return self._catch(view) if self.net else None

    def _solve(self, view: FleetView, past: Demand) -> Plan:
        windows = max(1, round(self.plan_s / past.bin_s))
        demand = self._demand(past, self.periods * windows)
        kept = np.where(view.now_s < self.kept_until_s, self.kept, 0)
        problem = problem_of(
            self.setting,
            view,
            demand.reshape(self.periods, windows, *self.setting.shape),
            period_s=windows * past.bin_s,
            throughput=self.utilisation * self.setting.throughput,
            local_share=self.local_share,
            scale_in=self.scale_in,
            floor=np.maximum(view.floor, kept),
        )
        return solve(problem, gap=self.gap, time_limit_s=self.time_limit_s)

    def _demand(self, past: Demand, bins: int) -> Floats:
        """(bins, K, R) tokens/s to plan for."""
        assert self.forecast is not None
        path = self.forecast.path(past, bins, (self.quantile,))[..., 0]
        window = latest(past, self.batch_window_s)
        batch = self.batch_share * past.batch_tokens[..., window].mean(axis=-1)
        demand = (path + batch[..., None])[self.setting.role_model]
        return np.moveaxis(demand, -1, 0)

    def _catch(self, view: FleetView) -> Orders | None:
        """Start as many as what waits asks for, at most as many as there are."""
        rested = view.now_s >= self.caught_s + self.net_cooldown_s
        wanted = np.ceil(view.waiting / self.net_waiting).astype(np.int64)
        wanted = np.maximum(wanted, (view.ready == 0) & unserved(self.setting, view))
        more = np.clip(wanted - view.count, 0, np.maximum(view.ready, 1)) * rested
        if not more.any():
            return None
        orders = orders_for(self.setting, view, more)
        started = orders.reclaim + orders.acquire
        self.caught_s[more > 0] = view.now_s
        self.kept[started > 0] = (view.count + started)[started > 0]
        self.kept_until_s[started > 0] = view.now_s + self.hold_s
        return orders


class PerfectPredictiveControl(PredictiveControl):
    """The same with a perfect forecast: an oracle, for a bound."""

    name = "mpc_perfect"
    source = f"{PredictiveControl.source}; knows the future"

    def __init__(self, forecast: Forecast | None = None, **parameters: Any) -> None:
        super().__init__(PerfectForecast() if forecast is None else forecast, **parameters)
