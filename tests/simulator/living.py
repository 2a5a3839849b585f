"""A fleet with a life cycle as data, run by the kernel and by the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from envs.simulator import Simulation
from envs.simulator.layout import NEVER
from envs.simulator.lifecycle import LifecycleFleet, LifecyclePlan
from envs.simulator.lifecycle.layout import DRAWS, SOURCES, STATES
from envs.simulator.policy import HOLD, RoutingPolicy
from envs.simulator.regional import regional_router
from tests.reference.lifecycle import HOLDING, STARTING, LivingFleet
from tests.reference.places import FOREVER
from tests.reference_simulator import ReferenceView
from tests.simulator.case import Case
from tests.simulator.differential import FIELDS, kernel_options, kernel_table, run_reference

PS_PER_S = 10**12
SAMPLES = 100  # that are kept
NOT_YET = -1
NAMES = ("state", "role", "until", "draws", "source", "goal", "goal_role")
Order = tuple[float, str, tuple[int, ...]]  # time in ps, name, arguments


@dataclass(frozen=True, eq=False)
class Living:
    """A case, the plan of its places, and what is ordered when; the last order ends the run."""

    case: Case
    plan: LifecyclePlan
    gpus: tuple[int, ...]
    orders: tuple[Order, ...]
    router: str = "scripted"  # or regional, with its threshold and whether it reroutes
    threshold: float = 0.7
    reroute: bool = True
    seed: int = 0

    @property
    def regions(self) -> list[str]:
        """Their names."""
        return [region.name for region in self.plan.regions]

    def policy(self) -> RoutingPolicy:
        """The router for the kernel."""
        if self.router == "regional":
            assert self.case.elastic is not None
            network = {(a, b): ps / PS_PER_S for a, b, ps in self.case.elastic.network_ps}
            return regional_router(
                self.regions, network, threshold=self.threshold, reroute=self.reroute
            )
        script = self.case.script
        values = (float(script.seed), float(script.hold_percent))
        return RoutingPolicy("scripted", scripted, parameters=values)


@dataclass
class Life:
    """What is compared of a run."""

    requests: list[tuple[int, ...]]  # FIELDS of each
    moments: list[Any]  # at each order: places, counts, and what it gave
    sums: dict[tuple[int, int], dict[str, float]]  # by role and region
    samples: list[list[tuple[int, ...]]]


def scripted(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """A rule that looks at nothing: its answer follows from the number of the decision."""
    memory[2] += 1
    mixed = memory[2] * 7919 + (now_ps % 1000003) * 104729 + int(parameters[0])
    mixed = mixed % 1000003
    if mixed % 100 < parameters[1]:
        return HOLD
    return mixed // 100 % (len(instances) * len(candidates))


def begun(living: Living) -> LifecycleFleet:
    """The kernel's fleet at time 0."""
    case = living.case
    fleet = [replace(e.config(), gpus=g) for e, g in zip(case.fleet, living.gpus, strict=True)]
    options = kernel_options(case) | {"elastic": True}
    simulation = Simulation(kernel_table(case), fleet, **options)
    room = (SAMPLES - 0.5) * living.plan.sample_s
    return LifecycleFleet(simulation, living.plan, living.policy(), living.seed, room)


def ordered(fleet: LifecycleFleet, name: str, given: tuple[int, ...]) -> int:
    """Carry out an order of a case."""
    if name in ("scale_out", "scale_in"):
        flag = {"scale_out": "acquire", "scale_in": "donate"}[name]
        return getattr(fleet, name)(*given[:3], **{flag: bool(given[3])})
    if name == "evict":
        fleet.evict(given[0], given[1] / PS_PER_S)
        return 0
    return 0 if name == "look" else getattr(fleet, name)(*given)


def live_in_kernel(
    living: Living,
    again: Callable[[LifecycleFleet], LifecycleFleet] | None = None,
    before: Callable[[LifecycleFleet, float], None] | None = None,
) -> Life:
    """Run the kernel.

    At each order `again` gives the fleet that goes on; `before` is called with each time to run to.
    """
    fleet, moments = begun(living), []
    for time, name, given in living.orders:
        if before is not None:
            before(fleet, time / PS_PER_S)
        if not fleet.run_to(time / PS_PER_S):
            break
        fleet = fleet if again is None else again(fleet)
        moments.append((_kernel_moment(fleet), ordered(fleet, name, given)))
    moments.append((_kernel_moment(fleet), int(fleet.simulation.state.head["now_ps"][0])))
    rows = fleet.simulation.state.arrays["requests"]
    samples = [
        [tuple(int(row[n]) for n in ("ready", "starting", "draining", "donated")) for row in at]
        for at in fleet.samples.reshape(-1, fleet.deployments.size)
    ]
    return Life(
        list(zip(*(rows[field].tolist() for field in FIELDS), strict=True)),
        moments,
        _kernel_sums(fleet),
        samples,
    )


def _kernel_moment(fleet: LifecycleFleet) -> Any:
    places = []
    for row in fleet.places:
        state = STATES[row["state"]]
        drains = state == "draining"
        places.append(
            (
                state,
                None if row["role"] < 0 else int(row["role"]),
                FOREVER if row["next_ps"] == NEVER else int(row["next_ps"]),
                int(row["draws"]),
                SOURCES[row["source"]] if state in STARTING else "",
                STATES[row["goal"]] if drains else "",
                int(row["goal_role"]) if drains and row["goal_role"] >= 0 else None,
            )
        )
    names = ("ready", "starting", "draining", "donated")
    counts = [tuple(int(row[n]) for n in names) for row in fleet.deployments.reshape(-1)]
    regions = [tuple(int(row[n]) for n in ("held", "free", "bare")) for row in fleet.regions]
    return places, counts, regions


def _kernel_sums(fleet: LifecycleFleet) -> dict[tuple[int, int], dict[str, float]]:
    fleet.look()
    times = ("ready", "starting", "draining", "donated", *SOURCES)
    sums = {}
    for (k, r), row in np.ndenumerate(fleet.deployments):
        found = {f"{name}_s": float(row[f"{name}_s"]) for name in times}
        names = ("gpu_s", "dollars", "donated_dollars", "income", *SOURCES, "stopped", "lost")
        sums[k, r] = found | {name: float(row[name]) for name in names}
    return sums


def live_in_reference(living: Living) -> Life:
    """Run the reference."""
    moments: list[Any] = []
    found: list[LivingFleet] = []

    def live(fleet: LivingFleet) -> None:
        found.append(fleet)
        for time, name, given in living.orders:
            if not fleet.run_to(time):
                break
            moment = _reference_moment(fleet)
            given = (*given[:3], bool(given[3])) if len(given) == 4 and "scale" in name else given
            gave = 0 if name == "look" else getattr(fleet, name)(*given)
            moments.append((moment, gave or 0))
        moments.append((_reference_moment(fleet), fleet.now))

    normals = np.random.default_rng([living.seed, 11]).standard_normal((len(living.gpus), DRAWS))
    kind = partial(
        LivingFleet, plan=living.plan, normals=normals.tolist(), gpus=living.gpus, live=live
    )
    decide = _reference_router(living, found)
    result = run_reference(living.case, policy=decide, kind=kind)
    fleet = found[0]
    for request in fleet.clients.to_come:  # the kernel tells of a later call when it arrives
        if request in fleet.clients.next_call.values():
            request.arrival_ps = NOT_YET
    return Life(
        [tuple(getattr(request, field) for field in FIELDS) for request in result.requests],
        moments,
        _reference_sums(fleet),
        fleet.samples[: SAMPLES if living.plan.sample_s else 0],
    )


def _reference_moment(fleet: LivingFleet) -> Any:
    places = []
    for place in fleet.places:
        drains = place.state == "draining"
        places.append(
            (
                place.state,
                place.role,
                place.until,
                place.draws,
                place.source if place.state in STARTING else "",
                place.goal if drains else "",
                place.goal_role if drains else None,
            )
        )
    regions = []
    for r in range(len(fleet.plan.regions)):
        here = [p for p in fleet.places if p.region == r]
        free = sum(p.state == "off" for p in here)
        bare = sum(p.state == "donated" and p.role is None for p in here)
        regions.append((fleet.gpus_held(r), free, bare))
    assert all((p.role is None) or (p.state in HOLDING) for p in fleet.places)
    return places, [fleet.counts(*d) for d in fleet.accounts], regions


def _reference_sums(fleet: LivingFleet) -> dict[tuple[int, int], dict[str, float]]:
    sums = {}
    for d, own in fleet.accounts.items():
        times = ("ready", "starting", "draining", "donated", *SOURCES)
        found = {f"{name}_s": own.ps.get(name, 0) / PS_PER_S for name in times}
        found |= {name: float(own.starts.get(name, 0)) for name in SOURCES}
        found |= {
            name: getattr(own, name)
            for name in ("dollars", "donated_dollars", "income", "stopped", "lost")
        }
        sums[d] = found | {"gpu_s": own.gpu_ps / PS_PER_S}
    return sums


def _reference_router(living: Living, found: list[LivingFleet]) -> Callable[[ReferenceView], int]:
    """The same router over the reference's view."""
    memory = np.zeros(3, np.int64)
    parameters = np.array(living.policy().parameters)

    def script(seen: ReferenceView) -> int:
        size = np.zeros(len(living.gpus))
        return scripted(
            seen.now_ps, size, size, size, np.array(seen.candidates), parameters, memory
        )

    def regional(seen: ReferenceView) -> int:
        return _regional(living, found[0], seen.candidates[0])

    return regional if living.router == "regional" else script


def _regional(living: Living, fleet: LivingFleet, index: int) -> int:
    """The first region in order of preference with room, else the least used (regional.py)."""
    request = next(r for r in fleet.queue if r.index == index)
    assert living.case.elastic is not None
    network = {(a, b): ps for a, b, ps in living.case.elastic.network_ps}
    away = {name: network.get((request.region, name), 0) for name in living.regions}
    away[request.region] = -1
    shares = []
    for name in sorted(living.regions, key=lambda name: away[name]):
        here = [i for i in fleet.instances if i.engine.region == name and i.takes]
        here = [i for i in here if i.serves(request)]
        here = [i for i in here if i.occupancy(request.prompt) <= i.capacity - i.watermark]
        if not here:
            continue
        used = sum(r.tokens for i in here for r in i.in_service)
        share = used / sum(i.capacity for i in here)

        def load(instance: Any) -> int:
            prefilling = [r for r in instance.in_service if not r.decoding]
            queued = sum(r.tokens for r in [*instance.waiting, *prefilling])
            return queued + len(instance.requests)

        best = fleet.instances.index(min(here, key=load))
        if share < living.threshold or not living.reroute:
            return best
        shares.append((share, best))
    return min(shares, key=lambda pair: pair[0])[1] if shares else HOLD


def differences(living: Living) -> list[str]:
    """What differs between kernel and reference, in words."""
    expected, actual = live_in_reference(living), live_in_kernel(living)
    found = []
    for number, (want, got) in enumerate(zip(expected.moments, actual.moments, strict=False)):
        if want != got:
            found.append(f"moment {number}: reference {want}\n{'':12}kernel    {got}")
            break
    if len(expected.moments) != len(actual.moments):
        found.append(f"moments: {len(expected.moments)}, kernel {len(actual.moments)}")
    for index, (row, other) in enumerate(zip(expected.requests, actual.requests, strict=True)):
        for name, was, now in zip(FIELDS, row, other, strict=True):
            if was != now:
                found.append(f"request {index}: {name}: reference {was}, kernel {now}")
    if expected.samples != actual.samples:
        found.append(f"samples: reference {expected.samples}, kernel {actual.samples}")
    for d, sums in expected.sums.items():
        for name, value in sums.items():
            other = actual.sums[d][name]
            if abs(value - other) > 1e-9 * max(abs(value), 1e-12):
                found.append(f"{name} of {d}: reference {value}, kernel {other}")
    return found
