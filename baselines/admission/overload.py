"""Admission in overload: FairServe's OIT, the llm-d router's ceilings, fair queues with a limit."""

from __future__ import annotations

from typing import Any

from envs.simulator.gate import DROP, LET_IN, TURN_AWAY, WAIT

PS_PER_S = 1e12


def oit_as_coded(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """FairServe's overload and interaction-driven throttling, as its artifact has it.

    A head that does not fit is the sign of overload. If it is the first call of its interaction
    and its tenant has sent `p0` calls or more in the minute up to its latest one, or else its
    application `p1`, it is turned away with its interaction, and the attempt ends; else it waits.
    """
    if gate.fits == 1:
        return LET_IN
    over = tenant.recent >= gate.p0 or application.recent >= gate.p1
    # One that was preempted has been served in part, and is not turned away; nor is one of whose
    # interaction other calls were let in elsewhere, as happens in a fleet.
    begun = request.admit_ps >= 0 or interaction.served + interaction.running > 0
    if traits.call_index == 0 and over and not begun:
        return TURN_AWAY
    return WAIT


def oit_as_published(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """FairServe's throttling as the paper tells it: new interactions are put off in overload.

    The first call of an interaction comes again later while the share `p2` of the KV cache is in
    use, if its tenant has sent more than `p0` calls in the minute, its own counted, or its
    application more than `p1`.
    """
    if traits.call_index > 0 or gate.kv <= gate.p2:
        return LET_IN
    if tenant.recent > gate.p0 or application.recent > gate.p1:
        return WAIT
    return LET_IN


def give_up_late(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Drop a call that can no longer have its first token in time: `p0` less `p1` seconds old."""
    if request.admit_ps < 0 and now_ps - request.arrival_ps > PS_PER_S * (gate.p0 - gate.p1):
        return DROP
    return LET_IN if gate.fits == 1 else WAIT


def note_band(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Note the band of a tenant, of 3, in `tenant.g0`: by its calls in the minute up to this one.

    One band lower with more than `p0` of them, two with more than `p1`. A call's band is its
    tier; one of the first tier has the band of its tenant. Alone it lets all in, and `las_bands`
    serves by bands.
    """
    tenant.g0 = (1 if tenant.recent > gate.p0 else 0) + (1 if tenant.recent > gate.p1 else 0)
    return LET_IN


def soft_ceiling(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """The llm-d router's soft reflective ceiling: the lower its band, the sooner a call waits.

    Band i of 3 waits above the saturation 1 - i / 2 x saturation, but one in every
    `saturation / (1 - saturation)` attempts is let through. `gate.m1` and `m2` count the attempts
    of the lower bands. Goes with `las_bands`, so that no call waits behind one of a lower band.
    """
    if gate.fits == 0:
        return WAIT
    band = request.tier if request.tier > 0 else tenant.g0
    level = gate.saturation
    if level <= 1.0 - band * level / 2.0:
        return LET_IN
    if level >= 1.0:
        return WAIT
    tries = gate.m1 if band == 1 else gate.m2
    tries += 1.0
    passes = tries >= round(level / (1.0 - level))
    if passes:
        tries = 0.0
    if band == 1:
        gate.m1 = tries
    else:
        gate.m2 = tries
    return LET_IN if passes else WAIT


def hold_back(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """The llm-d router's priority hold-back: band i of 3 waits above a ceiling of its own.

    `p2 - i (p2 - p3) / 2` of saturation; bands are those of `note_band`. Goes with `las_bands`.
    """
    if gate.fits == 0:
        return WAIT
    band = request.tier if request.tier > 0 else tenant.g0
    ceiling = gate.p2 - band * (gate.p2 - gate.p3) / 2.0
    return LET_IN if gate.saturation <= ceiling else WAIT


def queue_limit(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Kubernetes' API Priority and Fairness, one priority level: a queue a tenant, of `p0` calls.

    A call that finds its queue full is turned away. With fair queuing by virtual time, which is
    the scheduler's part (`vtc_predict_seats`), and `seat_limit`. Tenants have queues of their own:
    with fewer queues than tenants, shuffle sharding makes that likely, not certain. The seats of
    a tenant are noted in `tenant.g0`, where the scheduler finds them.
    """
    tenant.g0 = int(gate.p1)
    return TURN_AWAY if tenant.queued >= gate.p0 else LET_IN


def seat_limit(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """A tenant may hold `p1` seats, and borrow more while the share of KV in use is below `p2`.

    Goes with `vtc_predict_seats`, so that nobody waits behind a tenant without a seat.
    """
    if gate.fits == 0:
        return WAIT
    return WAIT if tenant.running >= gate.p1 and gate.kv >= gate.p2 else LET_IN
