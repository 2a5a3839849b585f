"""FairServe's weighted service counter, whose settings may change while it runs.

Counters are in millionths of a typical call (arXiv:2411.15997 Eqs. 2 and 3). `p0` is the cost of
a token of user input, `p1` of an output token, `p3` of a token of the system prompt. `p2` is an
exponent on the typical cost: with 1 a typical call of any application costs one, with 0 tokens
are charged as in VTC. The tenant's weight divides as in VTC, so it is 1 / E of Eq. 3.
"""

from __future__ import annotations

from typing import Any

from envs.simulator import Scheduler
from envs.simulator.scheduler import ADMIT, MILLION, TOKENS


def charge_normalised(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """Tokens over the typical cost of a call of the application, as they come.

    `(p0 in + p3 system + p1 out) / weight ** p2`: the input at admission, the output token by
    token. `traits.weight` is that of `application_weights`. A ratio of sums. `tenant.service`
    counts the same with the exponent 1, whatever becomes of exponent and counter.
    """
    if event == ADMIT:
        cost = scheduler.p0 * (request.prompt - traits.system) + scheduler.p3 * traits.system
        cost *= MILLION / tenant.weight
        tenant.service += int(cost / traits.weight)
        return int(cost / traits.weight**scheduler.p2)
    if event == TOKENS:
        unit = MILLION * scheduler.p1 / tenant.weight
        typical = unit / traits.weight
        tenant.service += int(typical * end) - int(typical * start)
        unit /= traits.weight**scheduler.p2
        return int(unit * end) - int(unit * start)
    return 0


def open_interactions_first(
    now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The smallest counter first, less a bonus for tenants in the middle of an interaction.

    Those with a call in service that others of its interaction follow get `p4` cost units. With
    a bonus beyond all counters they come first, as in FairServe's scheduler (artifact).
    """
    bonus = int(MILLION * scheduler.p4) if tenant.open > 0 else 0
    return int(tenant.counter) - bonus


def service_counter(typical_tokens: float, output_weight: float = 2.0) -> Scheduler:
    """The scheduler in units of a typical call of so many cost tokens.

    Args:
        typical_tokens: Input + `output_weight` x output tokens of the average call;
            `traits.weight` is relative to it.
        output_weight: Cost of an output token in input tokens.
    """
    cost = 1.0 / typical_tokens
    return Scheduler(
        "service_counter",
        open_interactions_first,
        kind="tenant",
        charge=charge_normalised,
        lift="queued",
        parameters=(cost, output_weight * cost, 1.0, cost, 0.0),
        parameter_names=("input_cost", "output_cost", "exponent", "system_cost", "bonus"),
        source="FairServe, arXiv:2411.15997, Eq. 3, with an exponent and a bonus",
    )
