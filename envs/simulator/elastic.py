"""Fleets that grow, shrink and change what they serve while a simulation runs.

docs/simulator.md, "Elastic fleets". Whoever decides on the fleet runs the simulation to a time,
changes instances, and goes on; the kernel stops by itself when an instance has drained.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import types

from envs.simulator import instants, kernel, pools
from envs.simulator.columns import seconds_to_ps
from envs.simulator.jit import EntryPoint
from envs.simulator.layout import END, PHASE_DECIDE, ROUTE
from envs.simulator.memory import HEADS
from envs.simulator.policy import RoutingPolicy
from envs.simulator.simulation import Router, Simulation

Taking = Literal["ready", "draining", "off"]
_DOWN = {"ready": 0, "off": 1, "draining": 2}

PATTERN = (
    *("kv_capacity", "watermark", "room", "max_num_seqs", "max_batched_tokens", "batching"),
    *("model", "context_ps", "mixed_context_ps", "attention_ps", "prefill_tail_ps"),
    *("decode_at", "prefill_at", "sequence_at"),
)
"""Fields of an instance that depend on the model that it serves."""
_ENGINE_PATTERN = (
    *("intake", "decode_steps", "admission", "block", "adapter_tokens", "caches", "skip"),
)


def _fail(heads: np.ndarray, i: int) -> None:
    instants.fail(heads[0], i)


def _pull(heads: np.ndarray) -> None:
    pools.pull_by_clock(heads[0])


_fail_at = EntryPoint(_fail, types.void(HEADS, types.int64))
_pull_at = EntryPoint(_pull, types.void(HEADS))


class ElasticFleet:
    """The instances of a simulation, changed between one run and the next.

    Args:
        simulation: One that was made with `elastic=True`, not begun.
        router: A compiled routing rule, or a callable of the same arguments.
        seed: Seed of a randomised rule.

    Raises:
        ValueError: The simulation is not elastic.
    """

    def __init__(self, simulation: Simulation, router: Router, seed: int = 0) -> None:
        if not simulation.state.head["elastic"][0]:
            raise ValueError("the simulation was not made to change its fleet: elastic=True")
        self.simulation = simulation
        policy = router if isinstance(router, RoutingPolicy) else RoutingPolicy("", router)
        if policy.uses_prediction:
            simulation.require_predictions(f"the router {policy.name}")
        self._compiled = policy.compiled if policy is router else None
        self._decide = policy.decide
        self._parameters = np.asarray(policy.parameters, np.float64)
        self._memory = policy.memory(len(simulation.fleet), seed)

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

        Returns:
            Whether anything is left to happen. `now_s` tells how far it came.

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
        row = self.instances[i]
        return int(row["waiting"]) + int(row["decoding"]) + int(row["prefilling"]) == 0

    def set(self, i: int, taking: Taking) -> None:
        """Have an instance take requests, finish those that it has and no others, or be off.

        Raises:
            ValueError: It is to be off and has requests: drain it first, or let it fail.
        """
        if taking == "off" and not self.is_empty(i):
            raise ValueError(f"instance {i} has requests: let it drain, or fail")
        self.instances["down"][i] = _DOWN[taking]
        self._changed()

    def fail(self, i: int) -> None:
        """Turn an instance off at once; its requests go back to the router, and begin anew."""
        _fail_at(self.simulation.state.head, i)
        self.instances["down"][i] = 1
        self._changed()

    def convert(self, i: int, pattern: int) -> None:
        """Give an instance that is off the model, limits and costs of another.

        Raises:
            ValueError: It is not off, or the two have different schedulers or more places.
        """
        fleet = self.simulation.fleet
        if self.instances["down"][i] != 1 or not self.is_empty(i):
            raise ValueError(f"instance {i} is not off: it can't change what it serves")
        if fleet[i].scheduler != fleet[pattern].scheduler:
            raise ValueError(f"instances {i} and {pattern} have different schedulers")
        engines = self.simulation.state.arrays["engines"]
        for name in PATTERN:
            self.instances[name][i] = self.instances[name][pattern]
        for name in _ENGINE_PATTERN:
            engines[name][i] = engines[name][pattern]

    def pull(self) -> None:
        """A signal of the clock to every backlog: old requests, and what pools have room for."""
        _pull_at(self.simulation.state.head)
        self._changed()

    def _changed(self) -> None:
        """The router decides anew before time goes on."""
        head = self.simulation.state.head
        head["held"] = head["tick_due"] = 0
        head["stale"] = 1
        head["phase"] = PHASE_DECIDE
