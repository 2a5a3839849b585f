"""Fleets that grow, shrink and change what they serve while a simulation runs.

docs/simulator.md, "Elastic fleets". Whoever decides on the fleet runs the simulation to a time,
changes instances, and goes on; the kernel stops by itself when an instance has drained.
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
from numba import types

from envs.simulator import cache, instants, kernel, pools
from envs.simulator.columns import seconds_to_ps
from envs.simulator.jit import EntryPoint
from envs.simulator.layout import END, PHASE_DECIDE, ROUTE
from envs.simulator.memory import ENGINES, HEADS, INSTANCES, engine, head_of, instance
from envs.simulator.patterns import take_over
from envs.simulator.policy import RoutingPolicy
from envs.simulator.router_queue import bring_back
from envs.simulator.simulation import Router, Simulation
from envs.simulator.state import Patterns

Taking = Literal["ready", "draining", "off"]
_DOWN = {"ready": 0, "off": 1, "draining": 2}
_DOWN_NOW = _DOWN["off"]


def _fail(heads: np.ndarray, i: int) -> None:
    s = head_of(heads)
    instants.fail(s, i)
    instance(s, i).down = _DOWN_NOW


def _empty_cache(heads: np.ndarray, i: int) -> None:
    if engine(head_of(heads), i).caches == 1:
        cache.forget(head_of(heads), i)


def _begin_anew(heads: np.ndarray) -> None:
    s = head_of(heads)
    bring_back(s)
    kernel.begin_anew(s)
    s.changed = s.stale = 1
    s.phase = PHASE_DECIDE


def _take_over(
    heads: np.ndarray, i: int, instances: np.ndarray, engines: np.ndarray, j: int
) -> None:
    take_over(head_of(heads), i, instances[j], engines[j])


def _pull(heads: np.ndarray) -> None:
    pools.pull_by_clock(head_of(heads))


_fail_at = EntryPoint(_fail, types.void(HEADS, types.int64))
_empty_cache_at = EntryPoint(_empty_cache, types.void(HEADS, types.int64))
_begin_anew_at = EntryPoint(_begin_anew, types.void(HEADS))
_take_over_at = EntryPoint(
    _take_over, types.void(HEADS, types.int64, INSTANCES, ENGINES, types.int64)
)
_pull_at = EntryPoint(_pull, types.void(HEADS))


class ElasticFleet:
    """The instances of a simulation, changed between one run and the next.

    Args:
        simulation: One that was made with `elastic=True`.
        router: A compiled routing rule, or a callable of the same arguments.
        seed: Seed of a randomised rule.

    Raises:
        ValueError: The simulation is not elastic, or the rule needs what it lacks.
    """

    def __init__(self, simulation: Simulation, router: Router, seed: int = 0) -> None:
        patterns = simulation.state.patterns
        if patterns is None:
            raise ValueError("the simulation was not made to change its fleet: elastic=True")
        simulation.check_router(router)
        self.simulation = simulation
        self._patterns: Patterns = patterns
        policy = router if isinstance(router, RoutingPolicy) else RoutingPolicy("", router)
        self._compiled = policy.compiled if policy is router else None
        self._decide = policy.decide
        self._parameters = np.asarray(policy.parameters, np.float64)
        self._memory = policy.memory(len(simulation.fleet), seed)

    def fork(self) -> ElasticFleet:
        """An independent copy that goes on from the present moment."""
        twin = copy.copy(self)
        twin.simulation, twin._memory = self.simulation.fork(), self._memory.copy()
        return twin

    @property
    def instances(self) -> np.ndarray:
        """(N,) rows of the instances; not to be written."""
        return self.simulation.state.arrays["instances"]

    @property
    def pools(self) -> np.ndarray:
        """(models, regions) rows of the pools."""
        return self.simulation.state.arrays["pools"]

    @property
    def now_s(self) -> float:
        """Simulated time in seconds."""
        return self.simulation.now_s

    def run_to(self, time_s: float) -> bool:
        """Run up to a time; stops before it when an instance has drained.

        Args:
            time_s: Seconds; infinity runs to the end, and releases what is left in backlogs.

        Returns:
            Whether anything is in the system or to arrive. `now_s` tells how far it came.

        Raises:
            ValueError: The time has passed, or see `Simulation.run`.
        """
        head = self.simulation.state.head
        time_ps = seconds_to_ps(time_s)
        if time_ps < head["now_ps"][0]:
            raise ValueError(f"{time_s} s has passed: it is {self.now_s} s")
        head["pause_ps"] = time_ps
        why = self._go()
        self.simulation.check_clock()
        return why != END

    def _go(self) -> int:
        simulation = self.simulation
        head = simulation.state.head
        if self._compiled is not None:
            return int(kernel.run(head, self._compiled, self._parameters, self._memory))
        while (why := int(kernel.advance(head))) == ROUTE:
            now = int(head["now_ps"][0])
            view = (*simulation.state.seen, self._parameters, self._memory)
            kernel.apply(head, int(self._decide(now, *view)))
        return why

    def is_empty(self, i: int) -> bool:
        """Whether no request is at instance i or under way to it."""
        row = self.instances[self._place(i)]
        return int(row["waiting"]) + int(row["decoding"]) + int(row["prefilling"]) == 0

    def set(self, i: int, taking: Taking) -> None:
        """Have an instance take requests, finish those that it has and no others, or be off.

        Raises:
            ValueError: It is to be off and has requests: drain it first, or let it fail.
        """
        if taking not in _DOWN:
            raise ValueError(f"an instance is set to one of {tuple(_DOWN)}, not {taking!r}")
        if taking == "off":
            if not self.is_empty(i):
                raise ValueError(
                    f"instance {i} has requests, or some are under way to it: let it drain, or fail"
                )
            _empty_cache_at(self.simulation.state.head, i)
        self.instances["down"][self._place(i)] = _DOWN[taking]
        self._changed()

    def fail(self, i: int) -> None:
        """Turn an instance off at once; its requests go back to the router.

        Those that are under way to it turn back when they get there.
        """
        _fail_at(self.simulation.state.head, self._place(i))
        self._changed()

    def convert(self, i: int, pattern: int) -> None:
        """Give an instance that is off the model, limits and costs of another.

        Args:
            i: The instance; it stays in its region.
            pattern: One of the fleet, as it was at first: `convert(i, i)` gives i its own back.

        Raises:
            ValueError: It is not off or not empty, or the two have different schedulers.
        """
        fleet = self.simulation.fleet
        self._place(pattern)
        if not self.is_empty(i) or self.instances["down"][i] != _DOWN["off"]:
            raise ValueError(f"instance {i} is not off and empty: it can't change what it serves")
        if fleet[i].scheduler != fleet[pattern].scheduler:
            raise ValueError(f"instances {i} and {pattern} have different schedulers")
        self.simulation.check_ranges()
        head, given = self.simulation.state.head, self._patterns
        _take_over_at(head, i, given["instances"], given["engines"], pattern)
        self._changed()

    def pull(self) -> None:
        """A signal of the clock to every backlog: old requests, and what pools have room for."""
        _pull_at(self.simulation.state.head)
        self._changed()

    def _place(self, i: int) -> int:
        if not 0 <= i < len(self.instances):
            raise ValueError(f"there is no instance {i}: the fleet has {len(self.instances)}")
        return i

    def _changed(self) -> None:
        """The router decides anew before time goes on."""
        _begin_anew_at(self.simulation.state.head)
