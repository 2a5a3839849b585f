"""Orders by what can still be in time: the VTC artifact's abort queue, and token deadlines."""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import ADMIT, ARRIVE

PS_PER_S = 1e12


def charge_rates(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """Averages of arrivals between batches (m0) and of batch sizes (m1), the newest counting p0.

    m2 and m3 count since the latest batch, m4 is its time. Nothing is charged.
    """
    if event == ARRIVE:
        scheduler.m2 += 1.0
    elif event == ADMIT:
        if scheduler.now_ps > scheduler.m4:
            scheduler.m0 += scheduler.p0 * (scheduler.m2 - scheduler.m0)
            scheduler.m1 += scheduler.p0 * (scheduler.m3 - scheduler.m1)
            scheduler.m2, scheduler.m3, scheduler.m4 = 0.0, 0.0, scheduler.now_ps
        scheduler.m3 += 1.0
    return 0


def latest_in_overload(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The latest arrival first while more arrives than is admitted, else the earliest."""
    return -request.arrival_ps if scheduler.m0 >= scheduler.m1 else request.arrival_ps


def next_token_deadline(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The earliest deadline of a next token: p0 seconds to the first, p1 for each that follows.

    The order of FairBatching (arXiv:2510.14392); its batch sizes are not modelled.
    """
    allowed = scheduler.p0 + scheduler.p1 * request.generated
    return int(request.arrival_ps + int(PS_PER_S * allowed))
