"""FairServe's weighted service counter, whose settings may change while it runs.

Counters are in millionths of a typical call. `p0` and `p1` are the costs of an input and an
output token in typical calls of the average application, `traits.weight` how many of those a
typical call of this one costs, and `p2` an exponent on it: with 1 a typical call of any
application costs one (arXiv:2411.15997 Eq. 3), with 0 tokens count alike (VTC).
"""

from __future__ import annotations

from typing import Any

from envs.simulator import Scheduler
from envs.simulator.scheduler import ADMIT, TOKENS

MILLION = 1_000_000
COUNTER_PARAMETERS = ("input_cost", "output_cost", "exponent", "bonus")


def charge_calls(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The input at admission, the output token by token."""
    unit = MILLION / (traits.weight**scheduler.p2 * tenant.weight)
    if event == ADMIT:
        return int(unit * scheduler.p0 * request.prompt)
    if event == TOKENS:
        return int(unit * scheduler.p1 * end) - int(unit * scheduler.p1 * start)
    return 0


def smallest_counter(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The smallest counter, less a bonus of `p3` typical calls in the midst of an interaction."""
    bonus = int(MILLION * scheduler.p3) if tenant.open > 0 else 0
    return int(tenant.counter) - bonus


def service_counter(typical_tokens: float, output_weight: float = 2.0) -> Scheduler:
    """The scheduler, for a typical call of so many cost tokens (input + weight x output)."""
    cost = 1.0 / typical_tokens
    return Scheduler(
        "service_counter",
        smallest_counter,
        kind="tenant",
        charge=charge_calls,
        lift="queued",
        parameters=(cost, output_weight * cost, 1.0, 0.0),
        parameter_names=COUNTER_PARAMETERS,
        source="FairServe, arXiv:2411.15997, Eq. 3, with an exponent and a bonus",
    )
