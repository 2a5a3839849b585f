"""Least attained service with decay, as in the llm-d router's flow control."""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import FINISH, MILLION

PS_PER_S = 1e12
BAND = 2 * 10**15
"""More than all scores of `least_attained`."""


def charge_attained(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """A finished call adds p0 per input and p1 per output token to what its tenant attained.

    What was attained halves every `p2` seconds. `tenant.estimate` holds it in millionths, as of
    the time `tenant.seen`; the counter holds the undecayed sum.
    """
    if event != FINISH:
        return 0
    age = (scheduler.now_ps - tenant.seen) / (PS_PER_S * scheduler.p2)
    cost = MILLION * (scheduler.p0 * request.prompt + scheduler.p1 * request.generated)
    tenant.estimate = int(tenant.estimate * 0.5**age + cost / tenant.weight)
    tenant.seen = scheduler.now_ps
    return int(cost / tenant.weight)


def survey_attained(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """Least and most attained service (m0, m1) and longest and shortest wait (m2, m3)."""
    age = (now_ps - tenant.seen) / (PS_PER_S * scheduler.p2)
    attained = tenant.estimate * 0.5**age
    wait = float(now_ps - request.arrival_ps)
    if scheduler.surveyed == 0:
        scheduler.m0 = scheduler.m1 = attained
        scheduler.m2 = scheduler.m3 = wait
    scheduler.m0 = min(scheduler.m0, attained)
    scheduler.m1 = max(scheduler.m1, attained)
    scheduler.m2 = max(scheduler.m2, wait)
    scheduler.m3 = min(scheduler.m3, wait)
    return 0


def least_attained(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The highest score first: `p3 (1 - attained) + (1 - p3) wait of the head`.

    Both are normalised to 0 .. 1 between the least and the most of the tenants that wait. With
    `p4` calls of a higher band go first; an admission policy notes a tenant's in `tenant.g0`.
    """
    age = (now_ps - tenant.seen) / (PS_PER_S * scheduler.p2)
    attained, wait = 0.0, 0.0
    if scheduler.m1 > scheduler.m0:
        attained = (tenant.estimate * 0.5**age - scheduler.m0) / (scheduler.m1 - scheduler.m0)
    if scheduler.m2 > scheduler.m3:
        wait = (now_ps - request.arrival_ps - scheduler.m3) / (scheduler.m2 - scheduler.m3)
    score = scheduler.p3 * (1.0 - attained) + (1.0 - scheduler.p3) * wait
    # Bands of calls, the highest first: p4 is 1 where the admission policy knows them.
    band = 0
    if scheduler.p4 > 0:
        band = request.tier if request.tier > 0 else tenant.g0
    return BAND * band - int(1e15 * score)
