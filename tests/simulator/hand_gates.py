"""Admission policies of hand-made cases: plain functions, compiled by the kernel as they stand."""

from __future__ import annotations

from typing import Any

from envs.simulator.gate import LET_IN, TURN_AWAY, WAIT


def until(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Prompts of seven tokens get the verdict p1 before the time p0."""
    return int(gate.p1) if request.prompt == 7 and now_ps < gate.p0 else LET_IN


def later_and_later(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    if now_ps >= gate.p0:
        return LET_IN
    gate.delay_ps += int(gate.p1)
    return WAIT


def count_calls(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    over = tenant.recent > gate.p0 or application.recent_tokens > gate.p1
    return TURN_AWAY if over else LET_IN


def told(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    tenant.g0 += 1
    return 0


def none_told(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    return LET_IN if tenant.g0 == 0 else TURN_AWAY


def by_prompt(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """The prompt length is the verdict plus ten."""
    return int(request.prompt - 10) if request.prompt >= 10 else LET_IN


def no_misfit(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    return LET_IN if gate.fits == 1 else TURN_AWAY


def below(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Prompts of seven tokens come in while the saturation is below p0 and the KV below p1."""
    full = gate.saturation >= gate.p0 or gate.kv >= gate.p1
    return TURN_AWAY if request.prompt == 7 and full else LET_IN
