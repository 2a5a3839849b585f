"""SageServe's hourly plan, applied at once (LT-I), as load asks (LT-U), or beyond it (LT-UA)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from baselines.scaling.formulation import (
    FORMULATIONS,
    RELEASED_THROUGHPUT,
    Formulation,
    formulation,
    planning_demand,
)
from baselines.scaling.plan import Plan
from baselines.scaling.solver import solve
from baselines.scaling.strategies.load import latest, past_of
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.parameters import Parameter, number, switch
from baselines.scaling.strategies.planning import orders_of, problem_of, refuse_lanes
from baselines.scaling.strategies.thresholds import SAGESERVE, Thresholds
from envs.hardware.sageserve import MODELS
from envs.scaling.control import FleetView, Orders, Setting
from envs.scaling.demand import Demand

Floats = npt.NDArray[np.float64]
_HOUR_S = 3600.0


def _is_form(value: Any) -> bool:
    return isinstance(value, Formulation) or value in FORMULATIONS


class LongTerm(Thresholds):
    """What plans by the integer program every hour."""

    plans = True

    plan_s: float = number(_HOUR_S, 60.0)
    """Seconds between plans, and how far each looks."""
    form: Any = Parameter("as_published", _is_form, f"one of {', '.join(FORMULATIONS)}")
    """Formulation of the program (`baselines.scaling.formulation`)."""
    quantile: float = number(0.5, 0.0, 1.0)
    """Level of the forecast that is planned for."""
    local_share: float = number(0.8, 0.0, 1.0)
    """Share of its own peak that a region must cover; the paper's epsilon, whose value it does not
    give."""
    utilisation: float = number(1.0, 0.01, 10.0)
    """Share of an instance's throughput to plan with."""
    released_throughput: bool = switch(False)
    """Whether throughputs are those in the released code instead of the measured ones."""
    gap: float = number(5e-3, 0.0, 0.999)
    """Relative gap of the program."""
    time_limit_s: float = number(30.0, 0.01)
    """Wall seconds that a plan may take; plans that run into it are not reproducible."""
    as_released: ClassVar[Mapping[str, Any]] = MappingProxyType(
        dict(Thresholds.as_released) | {"form": "as_released", "released_throughput": True}
    )

    def begin(self, setting: Setting) -> None:
        """See the base class.

        Raises:
            ValueError: Instances have lanes, a model is none of SageServe's although
                `released_throughput` is set, or see the base class.
        """
        super().begin(setting)
        refuse_lanes(self.name, setting)
        self.next_plan_s = 0.0
        self.plan: Plan | None = None
        self.budget = np.zeros(setting.shape, np.int64)
        self._form = formulation(self.form)
        self._throughput = self._theta()

    def _theta(self) -> Floats:
        """(K,) tokens/s of an instance, of prompts alone where output does not count."""
        setting = self.setting
        if self.released_throughput:
            known = dict(zip(MODELS, RELEASED_THROUGHPUT.values(), strict=True))
            names = [role.model for role in setting.roles]
            if missing := [name for name in names if name not in known]:
                raise ValueError(
                    f"{self.name}: the released code has no throughput of {missing[0]!r}; give "
                    f"released_throughput=False (it has {', '.join(known)})"
                )
            found = np.array([known[name] for name in names])
        else:
            found = setting.throughput
            if not self._form.output_tokens:
                found = found / setting.history.ratio[setting.role_model]
        return np.asarray(self.utilisation * found)

    def due(self, view: FleetView) -> bool:
        """Whether it is time for a plan, which is then made."""
        if view.now_s < self.next_plan_s:
            return False
        self.next_plan_s = (math.floor(view.now_s / self.plan_s) + 1) * self.plan_s
        self.plan = self._solve(view, past_of(self.setting, view.demand))
        self.budget = self.plan.change.sum(axis=2)
        return True

    def _solve(self, view: FleetView, past: Demand) -> Plan:
        setting, form = self.setting, self._form
        assert self.forecast is not None
        bins = max(1, math.ceil(self.plan_s / past.bin_s - 1e-9))
        path = self.forecast.path(past, bins, (self.quantile,))[..., 0]
        self.path, self.path_start = path, past.bins
        if not form.output_tokens:
            path = path / past.ratio[:, None, None]
        hour = latest(past, _HOUR_S)
        model = setting.role_model
        demand = planning_demand(
            np.moveaxis(path[model], -1, 0),
            past.bin_s,
            batch_load=past.batch_tokens[model][..., hour].mean(axis=-1),
            largest_prompt=past.largest[model][..., hour].max(axis=-1),
            form=form,
        )
        problem = problem_of(
            setting,
            view,
            demand,
            period_s=self.plan_s,
            throughput=self._throughput,
            local_share=self.local_share,
        )
        return solve(problem, form=form, gap=self.gap, time_limit_s=self.time_limit_s)


class LTI(LongTerm):
    """All changes of the plan at once, at the full hour."""

    name = "lt_i"
    source = f"{SAGESERVE}: LT-I"

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        if not self.due(view):
            return None
        assert self.plan is not None
        return orders_of(self.plan)


class LTU(LongTerm):
    """The plan caps what thresholds do: one more above `high`, one less below `low`."""

    name = "lt_u"
    source = f"{SAGESERVE}: LT-U"

    stops_at_once: bool = switch(False)
    """Whether the instances that the plan has too many of stop at the full hour."""
    escapes: bool = switch(False)
    """Whether one is started although the plan has none left, above `escape_use`."""
    escape_use: float = number(0.9, 0.0, 2.0)
    """Share of KV in use above which that happens."""
    once_beyond: bool = switch(False)
    """Whether what is started beyond the plan must stop before another one is."""
    as_released: ClassVar[Mapping[str, Any]] = MappingProxyType(
        dict(LongTerm.as_released) | {"stops_at_once": True, "escapes": True, "once_beyond": True}
    )

    def decide(self, view: FleetView) -> Orders | None:
        """See the base class."""
        orders = self._stop_at_once(view) if self.due(view) and self.stops_at_once else None
        if orders is None:
            use = self.use(view)
            out, back = self.beyond(view, use)
            out |= (use > self.high) & (self.budget > 0)
            back |= (use < self.low) & (self.budget < 0)
            orders = self.single(view, out, back & ~out)
        if orders is not None:
            self.budget -= orders.reclaim + orders.acquire - orders.donate
        return orders

    def _stop_at_once(self, view: FleetView) -> Orders | None:
        change = np.minimum(self.budget, 0)
        self.budget = np.maximum(self.budget, 0)
        if not change.any():
            return None
        orders = orders_for(self.setting, view, change)
        self.budget -= orders.donate  # which `decide` counts back
        return orders

    def beyond(self, view: FleetView, use: Floats) -> tuple[Any, Any]:
        """(K, R) what to start and to stop although the plan has it not."""
        out = (use > self.escape_use) & self.spent() if self.escapes else np.zeros(use.shape, bool)
        return out, np.zeros(use.shape, bool)

    def spent(self) -> npt.NDArray[np.bool_]:
        """(K, R) whether more may be started, and the plan has none left."""
        return self.budget == 0 if self.once_beyond else self.budget <= 0


class LTUA(LTU):
    """LT-U that goes beyond its plan where demand is far from the forecast.

    In the last `gate_s` of a plan, while the last whole bin of demand has at least `over` times
    the forecast tokens, it starts instances above `high` without a cap; while it has at most
    `under` times as many, it stops them below `low` without a cap.
    """

    name = "lt_ua"
    source = f"{SAGESERVE}: LT-UA"

    over: float = number(5.0)
    """Observed over forecast tokens from which the cap does not hold."""
    under: float = number(0.5)
    """The same up to which it does not hold for stops."""
    gate_s: float = number(1200.0)
    """Seconds at the end of a plan in which that is looked at."""
    gated: bool = switch(True)
    """Whether it is looked at only then."""
    keeps_stopping: bool = switch(True)
    """Whether the rule with `under` is there."""
    pooled_ratio: bool = switch(False)
    """Whether the ratio is that of all models' prompts in a region to the forecast of the last
    model alone, as the released code has it."""
    as_released: ClassVar[Mapping[str, Any]] = MappingProxyType(
        dict(LTU.as_released)
        | {"escapes": False, "gated": False, "keeps_stopping": False, "pooled_ratio": True}
    )

    def beyond(self, view: FleetView, use: Floats) -> tuple[Any, Any]:
        """See the base class."""
        out, back = super().beyond(view, use)
        if self.gated and view.now_s < self.next_plan_s - self.gate_s:
            return out, back
        ratio = self.ratio(view)
        out |= (ratio >= self.over) & (use > self.high) & self.spent()
        if self.keeps_stopping:
            back |= (ratio <= self.under) & (use < self.low)
        return out, back

    def ratio(self, view: FleetView) -> Floats:
        """(K, R) observed over forecast tokens of the last whole bin, 1 where it is not known."""
        past = past_of(self.setting, view.demand)
        at = past.bins - 1 - self.path_start
        if not 0 <= at < self.path.shape[-1]:
            return np.ones(self.setting.shape)
        if self.pooled_ratio:
            prompts = (past.prompt + past.batch)[..., -1].sum(axis=0)
            observed = np.broadcast_to(prompts, self.path.shape[:2])
            expected = self.path[-1:, :, at] / past.ratio[-1]
        else:
            observed, expected = past.tokens[..., -1], self.path[..., at]
        expected = np.broadcast_to(expected, observed.shape)
        high = np.where(observed > 0, np.inf, 1.0)
        ratio = np.divide(observed, expected, out=high, where=expected > 0)
        return np.asarray(ratio[self.setting.role_model])
