"""Schedulers of multi-tenant serving: VTC and its variants, least counter first.

Each is a rank and a charge over the rows of a request, its traits, its tenant and the scheduler
(docs/simulator.md, "Tenant counters"). Counters are in millionths of a cost unit, an input token
unless said otherwise. A range of tokens is charged the difference of two running totals, each
rounded down by itself, so that charging it in parts or at once gives the same sum.
"""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import ADMIT, FINISH, MILLION, TOKENS

PROFILED_COST = (0.21001891, 0.10075395, 0.0039868, 0.00324733, 1.14601454)
"""Milliseconds on an A10G with a 7B model of x input and y output tokens: per x, per y, per x y,
per y^2, and constant (OSDI 2024, artifact; the paper prints ten times these)."""


def smallest_counter(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The tenant with the smallest counter first (OSDI 2024, Alg. 2)."""
    return int(tenant.counter)


def smallest_counter_with_seats(
    now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The same; tenants with `tenant.g0` requests in service or more come behind all others."""
    # Half the range of integers, which no counter comes near.
    return int(tenant.counter) + (2**62 if tenant.running >= tenant.g0 else 0)


def charge_tokens(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """VTC: p0 per input token at admission, p1 per output token as it comes, over the weight.

    OSDI 2024, Alg. 2; weighted VTC divides by the tenant's weight.
    """
    if event == ADMIT:
        return int(MILLION * scheduler.p0 * request.prompt / tenant.weight)
    if event == TOKENS:
        unit = MILLION * scheduler.p1 / tenant.weight
        return int(unit * end) - int(unit * start)
    return 0


def charge_profile(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """VTC with a profiled cost h(x, y) = p0 x + p1 y + p2 x y + p3 y^2 + p4 of x in, y out.

    h(x, 0) at admission, h(x, y) - h(x, y - 1) for token y (OSDI 2024, artifact). Units of h.
    """
    if event == ADMIT:
        first = scheduler.p0 * request.prompt + scheduler.p4
        return int(MILLION * first / tenant.weight)
    if event == TOKENS:
        slope = scheduler.p1 + scheduler.p2 * request.prompt
        unit = MILLION / tenant.weight
        after = int(unit * (slope * end + scheduler.p3 * end * end))
        return after - int(unit * (slope * start + scheduler.p3 * start * start))
    return 0


def charge_ahead(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """VTC with length prediction: the expected answer is charged ahead, and settled at the end.

    At admission p0 per input and p1 per expected output token; tokens beyond the expected ones as
    they come; at the end those that did not come are given back (OSDI 2024, artifact). Expected
    is, with p3 = 0, the request's predicted output: with true ones it is the paper's VTC-oracle.
    With p3 = 1 it is VTC-predict's: what the tenant's finished requests made on average,
    `(p2 old + new) / (p2 + 1)` with p2 = 4, first the first answer, and 0 before. That average is
    kept in millionths of a token and charged in whole tokens.
    """
    unit = MILLION * scheduler.p1 / tenant.weight
    if event == ADMIT:
        if scheduler.p3 > 0:
            traits.prepaid = tenant.estimate // MILLION
        else:
            traits.prepaid = max(request.predicted, 0)
        first = MILLION * scheduler.p0 * request.prompt / tenant.weight
        return int(first) + int(unit * traits.prepaid)
    if event == TOKENS:
        return int(unit * max(end, traits.prepaid)) - int(unit * max(start, traits.prepaid))
    if event == FINISH:
        new = MILLION * request.generated
        if tenant.seen == 0:
            tenant.estimate = new
        else:
            tenant.estimate = int((scheduler.p2 * tenant.estimate + new) / (scheduler.p2 + 1.0))
        tenant.seen += 1
        if request.generated < traits.prepaid:
            return int(unit * request.generated) - int(unit * traits.prepaid)
    return 0
