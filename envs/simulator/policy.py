"""Routing policies: a function over the state views, written once.

The same function is called by the compiled kernel through a first-class function pointer, by a
Gymnasium step, and, as plain Python, by a debugger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numba import types

from envs.simulator.config import QueueOrder
from envs.simulator.jit import compile_function
from envs.simulator.memory import FLOAT64_1D, INSTANCES, INT32_2D, INT64_1D, REQUESTS
from envs.simulator.parameters import replaced

ROUTING_SIGNATURE = types.int64(
    types.int64, INSTANCES, REQUESTS, INT32_2D, INT64_1D, FLOAT64_1D, INT64_1D
)
ROUTING_FUNCTION = types.FunctionType(ROUTING_SIGNATURE)

DecideFunction = Callable[..., int]
HOLD = -1
# Arrays of the state that `decide` gets, in order, between the time and the parameters.
POLICY_VIEWS = ("instances", "requests", "running", "candidates")


@cache
def compile_decision(function: DecideFunction) -> Any:
    """Compile a decision function for the kernel; the machine code is cached on disk."""
    return compile_function(function, ROUTING_SIGNATURE)


@dataclass(frozen=True)
class RoutingPolicy:
    """A routing rule with its parameters.

    Attributes:
        name: Name on the command line and in tables.
        decide: `decide(now_ps, instances, requests, running, candidates, parameters, memory)`
            returns `place * N + instance` to dispatch the request at that place of the queue's
            head, or HOLD. It may read everything that `envs.simulator.view` offers, and keep
            state in `memory`, (64 + 4 N,) int64, which starts as zeros but for `memory[0]`, the
            seed. It must not read anything else: requests in service lie in the order of their
            true ends, and behind the requests that have arrived lie those still to come.
        parameters: Values of the tunable numbers, in the order of `parameter_names`.
        parameter_names: Their names.
        queue_order: Order of the router queue that the rule is meant for.
        decision_interval_s: Clock of the rule in seconds; 0 is event-driven.
        window: Requests at the head of the queue that the rule looks at.
        uses_prediction: Whether it reads predicted output lengths.
        oracle: Whether `simulate` replaces the predictions with the true output lengths.
        source: Where the rule comes from.
    """

    name: str
    decide: DecideFunction
    parameters: tuple[float, ...] = ()
    parameter_names: tuple[str, ...] = ()
    queue_order: QueueOrder = "fcfs"
    decision_interval_s: float = 0.0
    window: int = 1
    uses_prediction: bool = False
    oracle: bool = False
    source: str = field(default="", compare=False)

    @property
    def compiled(self) -> Any:
        """The machine-code form of `decide`."""
        return compile_decision(self.decide)

    def with_parameters(self, **values: float) -> RoutingPolicy:
        """Return the rule with some parameters replaced.

        Raises:
            ValueError: A name is unknown; the message lists those that exist.
        """
        return replace(self, parameters=replaced(self, values))

    def memory(self, instances: int, seed: int) -> np.ndarray:
        """Fresh memory for one run."""
        memory = np.zeros(64 + 4 * instances, np.int64)
        memory[0] = seed
        return memory
