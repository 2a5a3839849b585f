"""Hand-made settings, views and forecasts, and runs of small scenarios, for scaling strategies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.setting import lanes, setting_of
from envs.scaling.build import ScalingEpisode, episode, history_of
from envs.scaling.control import FleetView, Orders, Setting, control
from envs.scaling.demand import Demand
from envs.scenarios import Scenario, load_scenario, seeds
from envs.simulator.lifecycle import LifecyclePlan, Region, Role
from envs.workloads import RequestTable

Floats = npt.NDArray[np.float64]
BIN_S = 300.0
SEED = seeds("validation", 1)[0]


def demand(prompt: Any, batch: Any = 0.0, bin_s: float = 900.0) -> Demand:
    """(M, R, bins) prompt tokens/s, with as many output tokens."""
    prompt = np.asarray(prompt, float)
    batch = np.broadcast_to(np.asarray(batch, float), prompt.shape)
    two = np.full(len(prompt), 2.0)
    return Demand(prompt, batch, batch * 10.0, bin_s, two, two)


def setting(
    lanes: tuple[str, ...] = ("any", "any"), models: tuple[str, ...] = ("a", "b"), **changes: Any
) -> Setting:
    """Roles in one region, 8 GPUs and 100 tokens/s an instance, 10 dollars a GPU hour."""
    roles = tuple(Role(m, lane) for m, lane in zip(models, lanes, strict=True))  # type: ignore[arg-type]
    size = len(roles)
    plan = LifecyclePlan(
        roles=roles,
        role=np.arange(size),
        kind=np.zeros(size, np.int64),
        ready=np.ones(size, bool),
        donated=np.zeros(size, bool),
        regions=(Region("r", price=(10.0,)),),
        floor=np.zeros((size, 1), np.int64),
        ceiling=np.full((size, 1), 9),
    )
    names = tuple(dict.fromkeys(models))
    usual: dict[str, Any] = {
        "plan": plan,
        "models": names,
        "role_model": np.array([names.index(m) for m in models]),
        "throughput": np.full(size, 100.0),
        "gpus": np.full(size, 8),
        "tier_limits_s": (1.0, 60.0, 86_400.0),
        "history": demand(np.ones((len(names), 1, 96))),
        "duration_s": 7200.0,
    }
    return Setting(**usual | changes)


def view(now_s: float = 0.0, size: int = 2, models: int = 2, **changes: Any) -> FleetView:
    """Two ready instances of each role, four donated, in the middle of the thresholds."""

    def of(value: Any, rows: int = size, kind: Any = np.int64) -> Any:
        return np.broadcast_to(np.asarray(value, kind).reshape(-1, 1), (rows, 1)).copy()

    values: dict[str, Any] = {"ready": 2, "starting": 0, "draining": 0, "donated": 4}
    values |= {"floor": 1, "ceiling": 9, "waiting": 0, "running": 0}
    found = {name: of(changes.pop(name, usual)) for name, usual in values.items()}
    found |= {name: of(changes.pop(name, 0), models) for name in ("backlog", "arrived")}
    found["kv"] = of(changes.pop("kv", 0.5), kind=float)
    found["changed_s"] = of(-np.inf, kind=float)
    held = 8 * sum(int(found[name].sum()) for name in ("ready", "starting", "draining", "donated"))
    for name, usual in (("bare", 0), ("free", 3), ("held", held), ("quota", 2**40)):
        found[name] = np.array([changes.pop(name, usual)])
    found["finished"] = found["in_time"] = np.zeros((models, 1, 3), np.int64)
    past = changes.pop("demand", None)
    found["demand"] = demand(np.ones((models, 1, int(now_s / 900.0)))) if past is None else past
    assert not changes
    return FleetView(now_s=now_s, **found)


class Steady:
    """A forecast of the same tokens/s for ever, (M, R)."""

    oracle = False

    def __init__(self, tokens: Any) -> None:
        self.tokens = np.asarray(tokens, float)

    def begin(self, history: Demand, future: Demand | None) -> None:
        """Nothing to learn."""

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """The same at every level."""
        shape = (*self.tokens.shape, horizon, len(levels))
        return np.broadcast_to(self.tokens[:, :, None, None], shape).copy()


class Latest:
    """A forecast of the last bin for ever."""

    oracle = False

    def begin(self, history: Demand, future: Demand | None) -> None:
        """Nothing to learn."""

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """The same at every level."""
        return Steady(past.tokens[..., -1]).path(past, horizon, levels)


class Watched:
    """A strategy whose views are checked, and whose orders are kept."""

    def __init__(self, inner: Strategy) -> None:
        self.inner, self.tick_s, self.oracle = inner, inner.tick_s, inner.oracle
        self.orders: list[tuple[float, Orders | None]] = []

    def begin(self, setting: Setting) -> None:
        """Begin the strategy."""
        self.inner.begin(setting)

    def decide(self, view: FleetView) -> Orders | None:
        """Check limits, then ask the strategy."""
        assert (view.count <= view.ceiling).all()
        assert (view.count >= view.floor).all()
        assert (view.held <= view.quota).all()
        orders = self.inner.decide(view)
        self.orders.append((view.now_s, orders))
        return orders

    def given(self, until_s: float) -> list[tuple[Any, ...]]:
        """Orders up to a time, as plain values."""
        return [
            (now, *(getattr(o, name).tolist() for name in NAMES), o.redeploy)
            for now, o in self.orders
            if o is not None and now <= until_s
        ]


NAMES = ("donate", "release", "reclaim", "acquire", "give_back")
FLEETS: dict[str, dict[str, Any]] = {
    "owned": {"quota": None, "spare": "donated"},
    "rented": {"quota": 13 * 8, "spare": "off"},
}


@lru_cache
def scenario(kind: str = "one", fleet: str = "owned") -> Scenario:
    """An hour on Thursday noon, two places of each group more than start."""
    terms = FLEETS[fleet]
    regions = {
        name: {"price": 5.12, "spot_price": 0.85, "donated_price": 0.0, "quota": terms["quota"]}
        for name in ("westus", "centralus", "eastus")
    }
    changes = {
        "workload": {"scale": 0.1, "duration_s": 3600.0, "start_s": 2_117_000.0},
        "scaling": {"regions": regions, "spare": terms["spare"]},
    }
    if fleet == "rented":
        changes["scaling"]["delays"] = {"provision_s": 60.0, "load_local_s": 120.0}
        for region in regions.values():
            region["donated_price"] = None
    return lanes(load_scenario("scaling-tenth", changes), kind)


@lru_cache
def history(kind: str) -> Demand:
    """Eight days before it."""
    models = ("Llama-2-70B", "Bloom-176B", "Llama-3.1-8B", "Llama-3.2-3B")
    return history_of(scenario(kind), SEED, models, days=8, bin_s=BIN_S)


def run(
    inner: Strategy, fleet: str = "owned", table: RequestTable | None = None
) -> tuple[Watched, ScalingEpisode]:
    """An episode to its end."""
    given = scenario(inner.lanes, fleet)
    found = episode(given, SEED, bin_s=BIN_S, table=table, duration_s=3600.0)
    known = history(inner.lanes)
    future = found.demand if inner.oracle else None
    watched = Watched(inner)
    known_setting = setting_of(given, found, known, SEED, future=future)
    control(found.fleet, watched, known_setting, found.demand)
    return watched, found
