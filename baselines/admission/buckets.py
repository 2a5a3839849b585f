"""Limits on tokens: buckets with estimate and reconciliation, windows, and shares of a cap.

Levels of buckets are in thousandths of a token.
"""

from __future__ import annotations

from typing import Any

from envs.simulator.gate import LET_IN, TURN_AWAY
from envs.simulator.layout import MINUTE_PS

THOUSAND = 1_000
PS_PER_S = 1e12


def take_tokens(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """A bucket of tokens a tenant: `p0` a minute, no more than `p1` seconds' worth.

    A call needs its prompt and an estimate of its answer: `p2` tokens, or its predicted output
    where that is 0. With `p4` = 1 it needs no more than one token, and is charged at its end
    alone (the call that exceeds the budget succeeds, as in the Envoy AI gateway). Calls in the
    middle of an interaction are let in whatever is left, where `p5` is 1.

    `tenant.g0` is the level, `g1` its time, `g2` whether it has begun; `traits.reserved` what was
    taken.
    """
    full = gate.p0 * gate.p1 / 60.0 * THOUSAND * tenant.weight
    if tenant.g2 == 0:
        tenant.g2 = 1
        tenant.g0 = int(full)
    else:
        grown = gate.p0 * THOUSAND * tenant.weight * ((now_ps - tenant.g1) / MINUTE_PS)
        tenant.g0 = int(min(tenant.g0 + grown, full))
    tenant.g1 = now_ps
    answer = gate.p2 if gate.p2 > 0 else request.predicted
    need = int(THOUSAND * (request.prompt + answer))
    if gate.p4 == 1.0:
        need = THOUSAND
    middle = gate.p5 == 1.0 and traits.call_index > 0
    # A call larger than the bucket can ever hold goes when it is full.
    if tenant.g0 < need and tenant.g0 < int(full) and not middle:
        return TURN_AWAY
    if gate.p4 == 1.0:
        need = 0
    tenant.g0 -= need
    traits.reserved = need
    return LET_IN


def take_turn(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """`p0` calls a tenant in each minute of the clock, as gateways count them.

    Calls in the middle of an interaction are let in, and counted, whatever is left, where `p1` is
    1. `tenant.g0` is the minute, from 1 on, `g1` the calls that were let in.
    """
    minute = now_ps // MINUTE_PS + 1
    if tenant.g0 != minute:
        tenant.g0 = minute
        tenant.g1 = 0
    middle = gate.p1 == 1.0 and traits.call_index > 0
    if tenant.g1 >= gate.p0 * tenant.weight and not middle:
        return TURN_AWAY
    tenant.g1 += 1
    return LET_IN


def settle_tokens(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Give back what the call did not use, or take what it used beyond, where `p3` is 1.

    One that is turned away before it was served has used nothing.
    """
    if gate.p3 == 1.0:
        used = request.prompt + request.generated if request.admit_ps >= 0 else 0
        tenant.g0 += traits.reserved - THOUSAND * used
    return 0


def take_window(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Azure OpenAI's limits: estimated tokens in fixed minutes, calls in short fixed windows.

    A call counts its prompt and `p1` tokens for its answer, which stands for `max_tokens`. One is
    turned away once the tenant's count has reached `p0` tokens a minute in the window of `p2`
    seconds, or `p4` calls a minute per 1,000 of these tokens in the window of `p3` seconds. The
    estimate is never corrected. Calls in the middle of an interaction are let in, and counted,
    whatever is left, where `p5` is 1.

    `tenant.g0` counts tokens of the window `g1`, `tenant.g2` calls of the window `g3`; windows
    are counted from 1 on.
    """
    limit = gate.p0 * tenant.weight / 60.0
    window = now_ps // int(PS_PER_S * gate.p2) + 1
    if tenant.g1 != window:
        tenant.g0, tenant.g1 = 0, window
    window = now_ps // int(PS_PER_S * gate.p3) + 1
    if tenant.g3 != window:
        tenant.g2, tenant.g3 = 0, window
    calls = gate.p4 / 1e3 * limit * gate.p3
    middle = gate.p5 == 1.0 and traits.call_index > 0
    if (tenant.g0 >= limit * gate.p2 or tenant.g2 >= calls) and not middle:
        return TURN_AWAY
    tenant.g0 += request.prompt + int(gate.p1)
    tenant.g2 += 1
    return LET_IN


def share_of_cap(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """A cap on all tokens a minute, and tenants' shares of it once it is nearly reached.

    The rule of LiteLLM's dynamic limiter, third version: `p0` tokens a minute for all are never
    exceeded; from the share `p1` of them on, a tenant is turned away that has used its own share:
    `p2` times its weight, over the sum of these of the tenants that have called in the minute,
    where that sum is more than 1. Use counts when a call ends, in fixed minutes. Calls in the
    middle of an interaction are let in below the cap, where `p3` is 1.

    `gate.m0` is the use of the minute `m1`, `m2` the sum of weights; `tenant.g0` the use of the
    minute `g1`, `g2` the minute of its latest call, from 1 on.
    """
    minute = now_ps // MINUTE_PS
    if gate.m1 != minute:
        gate.m0, gate.m1, gate.m2 = 0.0, minute, 0.0
    if tenant.g1 != minute:
        tenant.g0, tenant.g1 = 0, minute
    if tenant.g2 != minute + 1:
        tenant.g2 = minute + 1
        gate.m2 += tenant.weight
    if gate.m0 >= gate.p0:
        return TURN_AWAY
    if gate.p3 == 1.0 and traits.call_index > 0:
        return LET_IN
    share = gate.p2 * tenant.weight / max(1.0, gate.p2 * gate.m2)
    if gate.m0 >= gate.p1 * gate.p0 and tenant.g0 >= share * gate.p0:
        return TURN_AWAY
    return LET_IN


def note_use(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Count the tokens of a call that has ended in the minute of its end."""
    minute = now_ps // MINUTE_PS
    if gate.m1 != minute:
        gate.m0, gate.m1, gate.m2 = 0.0, minute, 0.0
    if tenant.g1 != minute:
        tenant.g0, tenant.g1 = 0, minute
    used = request.prompt + request.generated if request.admit_ps >= 0 else 0
    gate.m0 += used
    tenant.g0 += used
    return 0
