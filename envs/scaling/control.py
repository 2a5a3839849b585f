"""What a controller of a fleet sees and orders, and how it is run: causal, on the clock.

The same view and the same orders serve strategies that are not learned, and the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from envs.scaling.demand import Demand
from envs.simulator.lifecycle import LifecycleFleet, LifecyclePlan, Role

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TIERS = ("IW-F", "IW-N", "NIW")


@dataclass(frozen=True, eq=False)
class FleetView:
    """The fleet at a moment; arrays are copies. K roles, R regions, M models.

    Attributes:
        now_s: Seconds since the start.
        ready: (K, R) instances that serve.
        starting: (K, R) instances that are provisioned, loaded or reclaimed.
        draining: (K, R) instances that finish what they have.
        donated: (K, R) VMs on the spot market that hold the weights of the role.
        bare: (R,) VMs there that hold none.
        free: (R,) places without a VM.
        held: (R,) GPUs held; `quota`: (R,) GPUs that may be.
        floor: (K, R) fewest ready and starting; `ceiling`: (K, R) most.
        changed_s: (K, R) when each was last scaled, -inf before.
        kv: (K, R) share of KV in use of ready instances, 1 where there is none.
        waiting: (K, R) requests that wait at instances; `running`: (K, R) in service.
        backlog: (M, R) NIW that wait for room, by where they come from.
        arrived: (M, R) requests so far; `finished`, `in_time`: (M, R, 3) of them, by tier.
        demand: What has arrived so far, in whole bins.
    """

    now_s: float
    ready: Ints
    starting: Ints
    draining: Ints
    donated: Ints
    bare: Ints
    free: Ints
    held: Ints
    quota: Ints
    floor: Ints
    ceiling: Ints
    changed_s: Floats
    kv: Floats
    waiting: Ints
    running: Ints
    backlog: Ints
    arrived: Ints
    finished: Ints
    in_time: Ints
    demand: Demand

    @property
    def count(self) -> Ints:
        """(K, R) instances that serve or will."""
        return self.ready + self.starting

    @classmethod
    def of(cls, fleet: LifecycleFleet, demand: Demand) -> FleetView:
        """Look at a fleet now."""
        kv, waiting, running = fleet.look()
        rows, regions, accounts = fleet.deployments, fleet.regions, fleet.accounts
        changed = rows["changed_ps"].astype(np.float64) * 1e-12
        return cls(
            now_s=fleet.now_s,
            **{name: rows[name].copy() for name in ("ready", "starting", "draining", "donated")},
            **{name: regions[name].copy() for name in ("bare", "free", "held", "quota")},
            floor=rows["floor"].copy(),
            ceiling=rows["ceiling"].copy(),
            changed_s=np.where(changed < 0, -np.inf, changed),
            kv=kv,
            waiting=waiting.astype(np.int64),
            running=running.astype(np.int64),
            backlog=accounts["count"].copy(),
            arrived=accounts["arrived"].copy(),
            finished=np.stack([accounts[f"finished_{tier}"] for tier in range(3)], axis=-1),
            in_time=np.stack([accounts[f"in_time_{tier}"] for tier in range(3)], axis=-1),
            demand=demand.until(fleet.now_s),
        )


@dataclass(eq=False)
class Orders:
    """Changes of a fleet, instances each; what limits do not allow is not done.

    They are carried out in this order: stops, redeployments, reclaims, acquisitions, returns.

    Attributes:
        donate: (K, R) instances to stop, whose VMs go to the spot market.
        release: (K, R) instances to stop, whose VMs are given back.
        redeploy: (role, new role, region, count) each.
        reclaim: (K, R) instances to start on donated VMs, those with the same weights first.
        acquire: (K, R) instances to start on new VMs.
        give_back: (R,) donated VMs to give back.
    """

    donate: Ints
    release: Ints
    reclaim: Ints
    acquire: Ints
    give_back: Ints
    redeploy: list[tuple[int, int, int, int]] = field(default_factory=list)

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Orders:
        """No change of (K, R) deployments."""
        donate, release, reclaim, acquire = (np.zeros(shape, np.int64) for _ in range(4))
        return cls(donate, release, reclaim, acquire, np.zeros(shape[1], np.int64))

    @classmethod
    def changing(cls, change: npt.NDArray[np.int64]) -> Orders:
        """Reclaim where the (K, R) change is positive, donate where it is negative."""
        orders = cls.none((change.shape[0], change.shape[1]))
        orders.reclaim, orders.donate = np.maximum(change, 0), np.maximum(-change, 0)
        return orders


def carry_out(fleet: LifecycleFleet, orders: Orders) -> int:
    """Carry out what limits allow; gives how many instances and VMs changed."""
    done = 0
    for name in ("donate", "release"):
        table = getattr(orders, name)
        for k, r in np.argwhere(table > 0).tolist():
            done += fleet.scale_in(k, r, int(table[k, r]), donate=name == "donate")
    for k, new, r, count in orders.redeploy:
        done += fleet.redeploy(k, new, r, count)
    for name in ("reclaim", "acquire"):
        table = getattr(orders, name)
        for k, r in np.argwhere(table > 0).tolist():
            done += fleet.scale_out(k, r, int(table[k, r]), acquire=name == "acquire")
    for r in np.flatnonzero(orders.give_back > 0).tolist():
        done += fleet.give_back(r, int(orders.give_back[r]))
    return done


@dataclass(frozen=True, eq=False)
class Setting:
    """What a controller knows before the first moment.

    Attributes:
        plan: Roles, regions with their prices and quotas, delays, floors and ceilings.
        models: (M,) names of models, in the order of accounts; that of role k is
            `models[role_model[k]]`.
        role_model: (K,) place of each role's model.
        throughput: (K,) tokens/s (prompt and output) that an instance of a role sustains.
        gpus: (K,) GPUs of an instance.
        tier_limits_s: Seconds that the tiers are promised: TTFT of IW-F and IW-N, E2E of NIW.
        history: Demand of the time before the start.
        duration_s: How long the episode lasts.
        seed: Seed of whatever the controller draws.
        future: Demand of the whole episode, for oracles alone.
    """

    plan: LifecyclePlan
    models: tuple[str, ...]
    role_model: Ints
    throughput: Floats
    gpus: Ints
    tier_limits_s: tuple[float, float, float]
    history: Demand
    duration_s: float
    seed: int = 0
    future: Demand | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """What can be deployed."""
        return self.plan.roles

    @property
    def shape(self) -> tuple[int, int]:
        """(K, R)."""
        return len(self.plan.roles), len(self.plan.regions)

    @property
    def price(self) -> Floats:
        """(R,) dollars an hour of a GPU of the first kind."""
        return np.array([region.price[0] for region in self.plan.regions])


class Controller(Protocol):
    """What scales a fleet.

    Attributes:
        tick_s: Seconds between decisions.
        oracle: Whether it needs the future.
    """

    tick_s: float
    oracle: bool

    def begin(self, setting: Setting) -> None:
        """Take what is known before the first moment."""

    def decide(self, view: FleetView) -> Orders | None:
        """What to change now; None changes nothing."""


def control(
    fleet: LifecycleFleet,
    controller: Controller,
    setting: Setting,
    demand: Demand,
    advance: Callable[[float], None] | None = None,
) -> None:
    """Run an episode under a controller: from time 0 on, it decides every `tick_s`.

    Args:
        fleet: The fleet at time 0.
        controller: Begins anew.
        setting: What it knows; the future is taken away from those that are no oracles.
        demand: Demand of the episode, of which it sees what is past.
        advance: Called with the seconds that have passed since the last call.
    """
    if not controller.oracle and setting.future is not None:
        raise ValueError("only an oracle may be given the future")
    controller.begin(setting)
    demand = demand.with_ratios_of(setting.history)
    tick, end = 0, setting.duration_s
    going = True
    while going and fleet.now_s < end:
        orders = controller.decide(FleetView.of(fleet, demand))
        if orders is not None:
            carry_out(fleet, orders)
        tick += 1
        before = fleet.now_s
        going = fleet.run_to(min(tick * controller.tick_s, end))
        if advance is not None:
            advance(fleet.now_s - before)
