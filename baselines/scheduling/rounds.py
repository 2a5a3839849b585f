"""Deficit round robin, as the number of the round in which a tenant's next request is due.

A tenant that has been charged W since it became active has been given its quantum floor(W / Q)
times or more. So its turn comes in round floor(W / Q), and within a round tenants keep the order
in which they became active. A tenant that comes back joins the present round; what it owes
stays. Charges are in millionths of a token, `p2` is the quantum in cost units.
"""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import ADMIT, ARRIVE, MILLION, TOKENS

_PLACES = 1 << 24
"""Places in a round: more tenants than that share the last one."""


def charge_rounds(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """`p0` per input token at admission, `p1` per output token as it comes.

    `scheduler.m0` counts activations, `scheduler.m1` is the round of the latest admission;
    `tenant.seen` is the tenant's place in a round.
    """
    quantum = MILLION * scheduler.p2 * tenant.weight
    if event == ARRIVE and tenant.queued == 1:
        scheduler.m0 += 1.0
        tenant.seen = int(min(scheduler.m0, _PLACES - 1.0))
        return max(int(scheduler.m1 * quantum) - tenant.counter, 0)
    if event == ADMIT:
        scheduler.m1 = max(scheduler.m1, float(int(tenant.counter / quantum)))
        return int(MILLION * scheduler.p0 * max(request.prompt, 1))
    if event == TOKENS:
        unit = MILLION * scheduler.p1
        return int(unit * end) - int(unit * start)
    return 0


def round_of_debt(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """MDRR (VTC artifact): a tenant is served while its deficit is positive.

    It may go into debt by one request, which it pays back over the rounds that follow.
    """
    turn = int(tenant.counter / (MILLION * scheduler.p2 * tenant.weight))
    return turn * _PLACES + tenant.seen


def round_of_cost(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """DRR as in NVIDIA Dynamo's router: a request is served once its cost has been saved up.

    The cost is that of its prompt, at least one token; a head that is blocked keeps its place.
    """
    cost = MILLION * scheduler.p0 * max(request.prompt, 1)
    turn = int((tenant.counter + cost - 1.0) / (MILLION * scheduler.p2 * tenant.weight))
    return turn * _PLACES + tenant.seen
