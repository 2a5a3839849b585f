"""The life cycle of a fleet for Python: run it to a time, look at it, change it."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.simulator import kernel
from envs.simulator.columns import seconds_to_ps
from envs.simulator.layout import END, NEVER, POOL_DTYPE
from envs.simulator.lifecycle import layout, loop
from envs.simulator.lifecycle.config import LifecyclePlan
from envs.simulator.lifecycle.layout import (
    DEPLOYMENT_DTYPE,
    DRAWS,
    EVICTION_DTYPE,
    FLEET_DTYPE,
    PLACE_DTYPE,
    REGION_DTYPE,
    SAMPLE_DTYPE,
)
from envs.simulator.policy import RoutingPolicy
from envs.simulator.simulation import Simulation

Floats = npt.NDArray[np.float64]
_FULL = 2**40  # a quota that nothing reaches
SAMPLES_DAYS = 31
"""Samples are kept of so many days at most."""


class LifecycleFleet:
    """The instances of a simulation over their life cycle (docs/simulator.md, "Life cycle").

    Args:
        simulation: One made with `elastic=True`, whose fleet has one instance a place, those of a
            region one after the other.
        plan: Roles, regions and rules.
        router: A compiled routing rule.
        seed: Seed of the delays and of a randomised rule.
        duration_s: How long it will run, for the room that samples take.

    Raises:
        ValueError: The simulation is not elastic, the plan is not of its fleet, or more GPUs are
            held at the beginning than a quota allows.
    """

    def __init__(
        self,
        simulation: Simulation,
        plan: LifecyclePlan,
        router: RoutingPolicy,
        seed: int = 0,
        duration_s: float = 7 * 86_400.0,
    ) -> None:
        state = simulation.state
        if state.patterns is None:
            raise ValueError("the simulation was not made to change its fleet: elastic=True")
        simulation.check_router(router)
        self.simulation, self.plan, self.router = simulation, plan, router
        self._decide = router.compiled
        self._parameters = np.asarray(router.parameters, np.float64)
        self._memory = router.memory(len(simulation.fleet), seed)
        self.head = np.zeros(1, FLEET_DTYPE)
        self.arrays = _arrays(simulation, plan, seed, duration_s)
        self._write_head()
        self._place_instances()
        self._bind()

    @property
    def shape(self) -> tuple[int, int]:
        """(roles, regions)."""
        return len(self.plan.roles), len(self.plan.regions)

    @property
    def now_s(self) -> float:
        """Simulated time in seconds."""
        return self.simulation.now_s

    @property
    def places(self) -> np.ndarray:
        """(N,) rows of the places; not to be written."""
        return self.arrays["places"]

    @property
    def deployments(self) -> np.ndarray:
        """(roles, regions) rows of the deployments; not to be written."""
        return self.arrays["deployments"].reshape(self.shape)

    @property
    def regions(self) -> np.ndarray:
        """(regions,) rows of the regions."""
        return self.arrays["regions"]

    @property
    def accounts(self) -> np.ndarray:
        """(models, regions) what the requests of each model and region have come to."""
        return self.simulation.state.arrays["pools"]

    @property
    def router_arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and memory of the routing rule, for compiled code."""
        return self._parameters, self._memory

    @property
    def samples(self) -> np.ndarray:
        """(samples, roles, regions) rows of SAMPLE_DTYPE, one every `sample_s`."""
        rows = self.arrays["samples"][: int(self.head["sampled"][0])]
        return rows.reshape(-1, *self.shape)

    @property
    def sampled_accounts(self) -> np.ndarray:
        """(samples, models, regions) accounts at the same times."""
        rows = self.arrays["accounts"][: int(self.head["sampled"][0])]
        return rows.reshape(-1, *self.accounts.shape)

    def run_to(self, time_s: float) -> bool:
        """Run up to a time; whether anything is in the system or to arrive.

        Infinity runs to the end, and releases what is left in backlogs when nothing else happens.

        Raises:
            ValueError: The time has passed, or see `Simulation.run`.
        """
        time_ps = seconds_to_ps(time_s)
        head = self.simulation.state.head
        if time_ps < head["now_ps"][0]:
            raise ValueError(f"{time_s} s has passed: it is {self.now_s} s")
        self.head["until_ps"] = time_ps
        why = loop.run(
            head.ctypes.data,
            self.head.ctypes.data,
            kernel.run.compiled,
            self._decide,
            self._parameters,
            self._memory,
        )
        self.simulation.check_clock()
        return int(why) != END

    def look(self) -> tuple[Floats, Floats, Floats]:
        """Share of KV in use, waiting and running requests, (roles, regions) each.

        The share is that of ready instances, 1 where there is none. Sums of the deployments are
        brought up to date.
        """
        found = np.empty(3 * math.prod(self.shape))
        loop.look(self.simulation.state.head, self.head, found)
        shares, waiting, running = found.reshape(*self.shape, 3).transpose(2, 0, 1)
        return shares, waiting, running

    def scale_out(self, role: int, region: int, count: int = 1, *, acquire: bool = False) -> int:
        """Start instances of a deployment; gives how many were started.

        Args:
            role: Number of the role.
            region: Number of the region.
            count: Instances.
            acquire: On new VMs; else on donated ones, of the same model first.
        """
        return self._order(loop.scale_out, role, region, count, acquire)

    def scale_in(self, role: int, region: int, count: int = 1, *, donate: bool = True) -> int:
        """Stop instances of a deployment, and donate their VMs or give them back."""
        return self._order(loop.scale_in, role, region, count, donate)

    def redeploy(self, role: int, new_role: int, region: int, count: int = 1) -> int:
        """Have instances of a deployment serve another role; gives how many will."""
        self._check(role, region, count)
        self._check(new_role, region, count)
        width = self.shape[1]
        source, target = role * width + region, new_role * width + region
        return int(loop.redeploy(self.simulation.state.head, self.head, source, target, count))

    def give_back(self, region: int, count: int = 1) -> int:
        """Give donated VMs back; gives how many."""
        self._check(0, region, count)
        return int(loop.spot(self.simulation.state.head, self.head, region, count, False))

    def donate_new(self, region: int, count: int = 1) -> int:
        """Acquire VMs to donate them; gives how many."""
        self._check(0, region, count)
        return int(loop.spot(self.simulation.state.head, self.head, region, count, True))

    def evict(self, place: int, notice_s: float = 0.0) -> None:
        """Take the VM of a place away after a notice.

        Raises:
            ValueError: There is no such place, or the notice is negative.
        """
        if not 0 <= place < len(self.places):
            raise ValueError(f"there is no place {place}: the fleet has {len(self.places)}")
        if notice_s < 0:
            raise ValueError(f"notice_s must be 0 or more, not {notice_s}")
        loop.evict(self.simulation.state.head, self.head, place, seconds_to_ps(notice_s))

    def totals(self) -> dict[str, float]:
        """Instance-hours, GPU-hours, dollars and starts of all deployments, up to now.

        `waste_hours` are the instance-hours of instances that started and did not serve yet;
        `dollars` is what was paid, `spot_income` what donated ones earned, `net_dollars` the
        difference.
        """
        self.look()
        rows = self.arrays["deployments"]
        found = {
            f"{name}_hours": float(rows[f"{name}_s"].sum()) / 3600.0
            for name in ("ready", "starting", "draining", "donated", *layout.SOURCES)
        }
        paid = found["ready_hours"] + found["starting_hours"]
        if self.plan.drain_billed:
            paid += found["draining_hours"]
        dollars = float((rows["dollars"] + rows["donated_dollars"]).sum())
        income = float(rows["income"].sum())
        return found | {
            "instance_hours": paid,
            "gpu_hours": float(rows["gpu_s"].sum()) / 3600.0,
            "waste_hours": found["starting_hours"],
            "dollars": dollars,
            "spot_income": income,
            "net_dollars": dollars - income,
            "starts": float(sum(rows[name].sum() for name in layout.SOURCES)),
            "stops": float(rows["stopped"].sum()),
            "lost_instances": float(rows["lost"].sum()),
        }

    def fork(self) -> LifecycleFleet:
        """An independent copy that goes on from the present moment."""
        twin = copy.copy(self)
        twin.simulation, twin._memory = self.simulation.fork(), self._memory.copy()
        twin.head = self.head.copy()
        twin.arrays = {name: array.copy() for name, array in self.arrays.items()}
        twin._bind()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_decide": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # Serialisation loses the flag that a structured dtype is aligned; the layout is the same.
        self.head = self.head.view(FLEET_DTYPE)
        self._decide = self.router.compiled
        self._bind()

    def _order(self, entry: Any, role: int, region: int, count: int, flag: bool) -> int:
        self._check(role, region, count)
        d = role * self.shape[1] + region
        return int(entry(self.simulation.state.head, self.head, d, count, flag))

    def _check(self, role: int, region: int, count: int) -> None:
        roles, regions = self.shape
        if not (0 <= role < roles and 0 <= region < regions):
            raise ValueError(
                f"there is no deployment ({role}, {region}): {roles} roles, {regions} regions"
            )
        if count < 0:
            raise ValueError(f"count must be 0 or more, not {count}")

    def _write_head(self) -> None:
        plan, row = self.plan, self.head[0]
        row["sample_ps"], row["pull_ps"] = seconds_to_ps(plan.sample_s), seconds_to_ps(plan.pull_s)
        for name in ("sample", "pull"):
            row[f"next_{name}_ps"] = row[f"{name}_ps"] if row[f"{name}_ps"] > 0 else NEVER
        row["most_samples"] = len(self.arrays["samples"])
        row["drain_limit_ps"] = seconds_to_ps(plan.drain_limit_s)
        row["drain_billed"] = int(plan.drain_billed)
        row["eviction_count"] = len(plan.evictions)
        row["size"] = len(self.places)
        row["roles"], row["region_count"] = self.shape
        row["kinds"] = len(plan.regions[0].price)
        row["models"] = len(self.simulation.models)
        row["pool_count"] = self.accounts.size

    def _place_instances(self) -> None:
        """Count the places in, and turn the instances off that do not serve."""
        arrays, size = self.simulation.state.arrays, len(self.places)
        off = self.places["state"] != layout.READY
        arrays["instances"]["down"][off] = 1
        if len(arrays["seen_instances"]) == size:  # the router's first look is at time 0
            arrays["seen_instances"]["down"][off] = 1
        deployments, regions = self.deployments, self.regions
        for row in self.places:
            state = int(row["state"])
            if state == layout.OFF:
                regions[row["region"]]["free"] += 1
                continue
            own = deployments[row["role"], row["region"]]
            own["ready" if state == layout.READY else "donated"] += 1
            regions[row["region"]]["held"] += row["gpus"]
        for region, rules in zip(regions, self.plan.regions, strict=True):
            if region["held"] > region["quota"]:
                raise ValueError(
                    f"region {rules.name!r} holds {region['held']} GPUs at the beginning, and its "
                    f"quota is {region['quota']}"
                )

    def _bind(self) -> None:
        """Tell compiled code where the arrays lie."""
        row = self.head[0]
        for name in layout.ARRAYS:
            row[f"{name}_at"] = self.arrays[name].ctypes.data


def _arrays(
    simulation: Simulation, plan: LifecyclePlan, seed: int, duration_s: float
) -> dict[str, np.ndarray]:
    """Everything that the head points at, as it is at the beginning."""
    fleet, patterns = simulation.fleet, simulation.state.patterns
    assert patterns is not None
    size, roles, regions = len(fleet), len(plan.roles), len(plan.regions)
    kinds = len(plan.regions[0].price)
    _check_plan(simulation, plan)
    places = np.zeros(size, PLACE_DTYPE)
    places["kind"] = plan.kind
    places["region"] = [simulation.regions.index(engine.region) for engine in fleet]
    places["gpus"] = [engine.gpus for engine in fleet]
    places["next_ps"] = NEVER
    held = plan.ready | plan.donated
    places["state"] = np.where(
        plan.ready, layout.READY, np.where(plan.donated, layout.DONATED, layout.OFF)
    )
    places["role"] = np.where(held, plan.role, -1)
    deployments = np.zeros((roles, regions), DEPLOYMENT_DTYPE)
    deployments["floor"], deployments["ceiling"] = plan.floor, np.minimum(plan.ceiling, _FULL)
    deployments["changed_ps"] = -(2**62)
    rows = np.zeros(regions, REGION_DTYPE)
    rows["quota"] = [int(min(region.quota, _FULL)) for region in plan.regions]
    pattern = np.full((roles, kinds), -1, np.int64)
    for i in range(size - 1, -1, -1):
        pattern[plan.role[i], plan.kind[i]] = i
    near = np.zeros((regions, len(simulation.models) + 1), np.int64)
    near[:, 0] = 1
    models = [_model_code(simulation, role.model) for role in plan.roles]
    for row in places:
        if row["role"] >= 0:
            near[row["region"], models[row["role"]] + 1] = 1
    evictions = np.zeros(max(len(plan.evictions), 1), EVICTION_DTYPE)
    ordered = sorted(plan.evictions, key=lambda one: (one.time_s, one.place))
    for row, one in zip(evictions, ordered, strict=False):
        if not 0 <= one.place < size:
            raise ValueError(f"an eviction is of place {one.place}: the fleet has {size}")
        row["time_ps"], row["place"] = seconds_to_ps(one.time_s), one.place
        row["notice_ps"] = seconds_to_ps(one.notice_s)
    count = 0
    if plan.sample_s > 0:
        count = int(min(duration_s, SAMPLES_DAYS * 86_400.0) / plan.sample_s) + 1
    normals = np.random.default_rng([seed, 11]).standard_normal((size, DRAWS))
    return {
        "places": places,
        "deployments": deployments.reshape(-1),
        "regions": rows,
        "patterns": pattern,
        "weights_near": near,
        "role_model": np.array(models, np.int64),
        **{
            name: np.array([getattr(region, name) for region in plan.regions], np.float64) / 3600.0
            for name in ("price", "spot_price", "donated_price")
        },
        "medians": np.array([seconds_to_ps(s) for s in plan.delays.medians_s], np.int64),
        "sigmas": np.full(len(layout.DELAYS), plan.delays.sigma),
        "normals": normals,
        "evictions": evictions,
        "given_instances": patterns["instances"],
        "given_engines": patterns["engines"],
        "samples": np.zeros((count, roles * regions), SAMPLE_DTYPE),
        "accounts": np.zeros((count, simulation.state.arrays["pools"].size), POOL_DTYPE),
    }


def _model_code(simulation: Simulation, model: str) -> int:
    return simulation.models.index(model) if model else -1


def _check_plan(simulation: Simulation, plan: LifecyclePlan) -> None:
    """Refuse a plan that is not one of the simulation's fleet."""
    size = len(simulation.fleet)
    for name in ("role", "kind", "ready", "donated"):
        if len(getattr(plan, name)) != size:
            raise ValueError(f"{name} has {len(getattr(plan, name))} values for {size} instances")
    for name, most in (("role", len(plan.roles)), ("kind", len(plan.regions[0].price))):
        values = np.asarray(getattr(plan, name))
        if values.min() < 0 or values.max() >= most:
            raise ValueError(f"{name} must be from 0 to {most - 1}")
    for kind in np.unique(plan.kind):
        if len({e.gpus for e, k in zip(simulation.fleet, plan.kind, strict=True) if k == kind}) > 1:
            raise ValueError(f"instances of kind {kind} take different numbers of GPUs")
    if tuple(region.name for region in plan.regions) != tuple(simulation.regions):
        raise ValueError(
            f"the plan's regions are {', '.join(r.name for r in plan.regions)}, the fleet's "
            f"{', '.join(simulation.regions)}: give them in that order"
        )
    for engine, role in zip(simulation.fleet, plan.role, strict=True):
        given = plan.roles[role]
        if (engine.model, engine.lane) != (given.model, given.lane):
            raise ValueError(f"instance {engine.name!r} is not of the role {given.name!r}")
    if len({engine.scheduler for engine in simulation.fleet}) > 1:
        raise ValueError("instances that change what they serve need one scheduler for all")
    for i in range(1, size):
        if simulation.fleet[i].region != simulation.fleet[i - 1].region and any(
            simulation.fleet[j].region == simulation.fleet[i].region for j in range(i)
        ):
            raise ValueError("the instances of a region must follow one another in the fleet")
