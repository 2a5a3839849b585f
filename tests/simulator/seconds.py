"""Fleets with a life cycle whose times are whole seconds, to be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from envs.simulator import Simulation
from envs.simulator.lifecycle import Delays, LifecycleFleet, LifecyclePlan, Region, Role
from envs.simulator.lifecycle.layout import STATES
from envs.simulator.regional import regional_router
from tests.simulator.both import engine
from tests.simulator.case import Case, Row, Script, TableCost
from tests.simulator.differential import kernel_options, kernel_table
from tests.simulator.elastic import Elastic, Waits

S = 10**12
SECONDS = TableCost(decode_base=S, decode_step=0, prefill_base=S, prefill_step=0)
"""Every iteration takes a second: a request with n output tokens n seconds."""
DELAYS = Delays(
    provision_s=10, load_local_s=20, load_remote_s=100, reclaim_s=5, repair_s=50, sigma=0
)
LATE = 9_000
HOUR = 3600.0
Place = tuple[Any, ...]  # model, state, and as they are given region, kind, lane


def row(at_s: float, tokens: int, model: str = "", **traits: Any) -> Row:
    """A request of one prompt token that takes so many seconds."""
    return Row(round(at_s * S), 1, tokens, predicted=tokens, model=model, **traits)


def fleet_of(
    places: Sequence[Place],
    rows: Sequence[Row] = (),
    *,
    gpus: Sequence[int] = (1, 2),
    terms: dict[str, Any] | None = None,
    network: Sequence[tuple[str, str, int]] = (),
    backlog: Waits | None = None,
    late: bool = True,
    routing: dict[str, Any] | None = None,
    max_num_seqs: int = 8,
    kv: int = 1000,
    **plan: Any,
) -> LifecycleFleet:
    """A fleet at time 0; a late request keeps the run going."""
    places = [(*place, *("", 0, "any")[len(place) - 2 :]) for place in places]
    first, regions = places[0], list(dict.fromkeys(place[2] for place in places))
    rows = sorted(rows, key=lambda r: r.arrival_ps)
    if late:
        last = row(LATE, 1, first[0], tier=2 if first[4] == "batch" else 0)
        rows = [*rows, last]
    rows = [replace(r, region=r.region or regions[0]) for r in rows]
    engines = [
        engine(
            cost=SECONDS,
            model=model,
            region=region,
            lane=lane,
            max_num_seqs=max_num_seqs,
            kv_capacity_tokens=kv,
        )
        for model, _, region, _, lane in places
    ]
    elastic = Elastic(changes=((0, "pull", 0, 0),), network_ps=tuple(network), backlog=backlog)
    case = Case(tuple(rows), tuple(engines), Script(0), elastic=elastic)
    configs = [
        replace(e.config(), gpus=gpus[place[3]]) for e, place in zip(engines, places, strict=True)
    ]
    simulation = Simulation(kernel_table(case), configs, **kernel_options(case))
    roles = tuple(dict.fromkeys(Role(place[0], place[4]) for place in places))
    shape = (len(roles), len(regions))
    prices = {"price": (4.0, 6.0), "spot_price": (1.0, 2.0), "donated_price": (0.5, 0.25)}
    given: dict[str, Any] = {
        "floor": np.zeros(shape, int),
        "ceiling": np.full(shape, 99),
        "delays": DELAYS,
        "pull_s": 0.0,
        "sample_s": 0.0,
        "regions": tuple(Region(name, **(prices | (terms or {}))) for name in regions),
    }
    made = LifecyclePlan(
        roles=roles,
        role=np.array([roles.index(Role(p[0], p[4])) for p in places]),
        kind=np.array([p[3] for p in places]),
        ready=np.array([p[1] == "ready" for p in places]),
        donated=np.array([p[1] == "donated" for p in places]),
        **(given | plan),
    )
    times = {(a, b): ps / S for a, b, ps in network}
    router = regional_router(regions, times, **(routing or {}))
    return LifecycleFleet(simulation, made, router, duration_s=LATE)


def states(fleet: LifecycleFleet) -> list[str]:
    """States of the places."""
    return [STATES[row["state"]] for row in fleet.places]


def roles_held(fleet: LifecycleFleet) -> list[int]:
    """Role that each place serves, or whose weights it holds."""
    return [int(role) for role in fleet.places["role"]]


def until(fleet: LifecycleFleet, time_s: float) -> list[str]:
    """Run to a time; the states of the places then."""
    assert fleet.run_to(time_s)
    return states(fleet)


def column(fleet: LifecycleFleet, name: str) -> list[Any]:
    """A field of the requests but the late one, times in seconds."""
    values = fleet.simulation.state.arrays["requests"][name][:-1].tolist()
    return [value / S if value > 0 else value for value in values] if name[-3:] == "_ps" else values


def seconds(fleet: LifecycleFleet) -> dict[str, float]:
    """Totals with hours in seconds, where they are not 0."""
    totals = fleet.totals()
    return {
        name.removesuffix("_hours"): round(value * HOUR, 6)
        for name, value in totals.items()
        if name.endswith("_hours") and value
    }
