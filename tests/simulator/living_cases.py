"""Small, nasty fleets with a life cycle, drawn on top of the recipe of elastic_cases.py."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from envs.simulator.lifecycle import Delays, Eviction, LifecyclePlan, Region, Role
from tests.simulator.case import Case, Engine
from tests.simulator.cases import NumpySource, Source
from tests.simulator.elastic_cases import _step, build_elastic_case
from tests.simulator.living import Living, Order

PS_PER_S = 10**12
GPUS = (1, 2)  # of an instance, by kind
NAMES = (
    *("scale_out", "scale_out", "scale_in", "scale_in", "redeploy", "redeploy"),
    *("give_back", "donate_new", "evict"),
)


def random_life(seed: int) -> Living:
    """Draw the case of a seed."""
    source = NumpySource(np.random.default_rng([seed, 23]))
    case = build_elastic_case(source)
    step = _step(case)
    case, kind = _places(source, case)
    roles = tuple(dict.fromkeys(Role(e.model, e.lane) for e in case.fleet))
    role = np.array([roles.index(Role(e.model, e.lane)) for e in case.fleet])
    gpus = tuple(GPUS[k] for k in kind)
    regions = tuple(dict.fromkeys(e.region for e in case.fleet))
    horizon = case.requests[-1].arrival_ps + 100 * step
    shape = (len(roles), len(regions))
    state = [source.choice(("ready", "ready", "donated", "off")) for _ in gpus]
    ready, donated = (np.array([s == name for s in state]) for name in ("ready", "donated"))
    floor = _table(source, (0, 0, 0, 0, 1), shape)
    plan = LifecyclePlan(
        roles=roles,
        role=role,
        kind=np.array(kind),
        ready=ready,
        donated=donated,
        regions=tuple(
            _region(source, name, _held(case, gpus, ready | donated, name)) for name in regions
        ),
        floor=floor,
        ceiling=np.maximum(floor, _table(source, (1, 3, 9, 9), shape)),
        delays=_delays(source, step),
        drain_limit_s=source.choice((0, step, 5 * step, 30 * step, math.inf)) / PS_PER_S,
        drain_billed=source.choice((True, True, False)),
        pull_s=source.choice((0, horizon // 7, horizon // 30)) / PS_PER_S,
        sample_s=source.choice((0, horizon // 5, horizon // 20)) / PS_PER_S,
        evictions=_evictions(source, len(gpus), horizon, step),
    )
    plain = case.window == 1 and case.poll_ps == 0
    return Living(
        case,
        plan,
        gpus,
        _orders(source, case, plan, horizon, step),
        router="regional" if plain and source.choice((True, False)) else "scripted",
        threshold=source.choice((0.0, 0.05, 0.3, 0.7, 2.0)),
        reroute=source.choice((True, True, False)),
        seed=seed,
    )


def _places(source: Source, case: Case) -> tuple[Case, list[int]]:
    """Places in each region, of the case's engines, which all have the scheduler of the first."""
    engines = [replace(e, queue=case.fleet[0].queue) for e in case.fleet]
    rows = case.requests
    if source.choice((True, True, False)):
        engines = [replace(e, model=name) for e in engines for name in "xy"]
        rows = tuple(replace(row, model=source.choice(("x", "x", "y", ""))) for row in rows)
    several = source.choice((False, True))
    kinds = [source.integer(0, 1) if several else 0 for _ in engines]
    kinds[0] = 0
    templates: list[tuple[Engine, int]] = list(zip(engines, kinds, strict=True))
    places = [
        (replace(engine, region=name), kind)
        for name in dict.fromkeys(e.region for e in case.fleet)
        for engine, kind in (source.choice(templates) for _ in range(source.integer(1, 6)))
    ]
    elastic = replace(case.elastic, changes=((0, "pull", 0, 0),))  # type: ignore[type-var]
    fleet = tuple(engine for engine, _ in places)
    case = replace(case, requests=rows, fleet=fleet, outages=(), elastic=elastic)
    return case, [kind for _, kind in places]


def _held(case: Case, gpus: tuple[int, ...], here: np.ndarray, name: str) -> int:
    each = zip(case.fleet, gpus, here, strict=True)
    return sum(g for engine, g, held in each if held and engine.region == name)


def _region(source: Source, name: str, held: int) -> Region:
    return Region(
        name,
        quota=source.choice((held, held + 1, held + 3, math.inf)),
        price=(3.0, 5.0),
        spot_price=(1.0, 2.0),
        donated_price=source.choice(((0.0, 0.0), (0.5, 0.25))),
    )


def _table(source: Source, options: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    return np.array([[source.choice(options) for _ in range(shape[1])] for _ in range(shape[0])])


def _delays(source: Source, step: int) -> Delays:
    if source.integer(0, 3) == 3:
        return Delays(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    values = [source.choice((0, step, 4 * step, 20 * step)) / PS_PER_S for _ in range(5)]
    return Delays(*values, sigma=source.choice((0.0, 0.2, 3.0)))


def _evictions(source: Source, size: int, horizon: int, step: int) -> tuple[Eviction, ...]:
    return tuple(
        Eviction(
            source.integer(0, size - 1),
            source.integer(0, horizon) / PS_PER_S,
            source.choice((0, step, 10 * step)) / PS_PER_S,
        )
        for _ in range(source.choice((0, 0, 2, 5)))
    )


def _orders(
    source: Source, case: Case, plan: LifecyclePlan, horizon: int, step: int
) -> tuple[Order, ...]:
    """Draw orders, in order of time; the last one only looks."""
    roles, regions = plan.floor.shape
    times = sorted(
        source.choice((source.integer(0, horizon), source.choice(case.requests).arrival_ps))
        + step * source.integer(0, 2)
        for _ in range(source.choice((3, 10, 30)))
    )
    orders: list[Order] = []
    for time in times:
        k, r = source.integer(0, roles - 1), source.integer(0, regions - 1)
        new = (k + source.integer(min(1, roles - 1), roles - 1)) % roles
        count = source.choice((1, 1, 2, 9))
        name = source.choice(NAMES)
        given: tuple[int, ...] = (k, r, count, source.integer(0, 1))
        if name == "redeploy":
            given = (k, new, r, count)
        elif name == "evict":
            given = (source.integer(0, len(plan.role) - 1), source.choice((0, step, 20 * step)))
        elif name in ("give_back", "donate_new"):
            given = (r, count)
        orders.append((time, name, given))
    last = times[-1] + 200 * step if source.choice((True, False)) else math.inf
    return (*orders, (last, "look", ()))
