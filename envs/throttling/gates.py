"""The admission policies under the two interfaces: one that asks, one whose limits are tuned."""

from __future__ import annotations

from typing import Any

from envs.simulator import Gate
from envs.simulator.gate import LET_IN, TURN_AWAY, WAIT

LIMIT_PARAMETERS = (
    *("kv_threshold", "middle_calls", "heavy_calls", "middle_tokens", "heavy_tokens"),
    *("middle_from", "heavy_from"),
)


def tuned_limits(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    """Limits by class of tenant that hold in overload, on new interactions alone.

    Overload is a head that does not fit, or `p0` of the KV cache in use. A tenant of more than
    `p5` calls in the minute up to its latest is of the middle class, of more than `p6` of the
    heavy one; it is turned away with `p1` (`p2`) calls or `p3` (`p4`) prompt tokens or more. So
    nothing is turned away below that share of KV while it fits, and never in the midst of an
    interaction, of which no other call has been served or is in service, or once it has been in
    service itself (FairServe's throttling, arXiv:2411.15997, with limits by class).
    """
    if gate.fits == 1 and gate.kv < gate.p0:
        return LET_IN
    begun = interaction.served + interaction.running > 0
    if traits.call_index == 0 and request.admit_ps < 0 and not begun:
        if tenant.recent > gate.p6:
            over = tenant.recent >= gate.p2 or tenant.recent_tokens >= gate.p4
        elif tenant.recent > gate.p5:
            over = tenant.recent >= gate.p1 or tenant.recent_tokens >= gate.p3
        else:
            over = False
        if over:
            return TURN_AWAY
    return LET_IN if gate.fits == 1 else WAIT


TUNED = Gate(
    "tuned_limits",
    look=tuned_limits,
    senses=True,
    parameters=(1.0, 1e9, 1e9, 1e12, 1e12, 1e9, 1e9),
    parameter_names=LIMIT_PARAMETERS,
    source="FairServe, arXiv:2411.15997, with limits by class of tenant",
)
ASKED = Gate("asked", asks=True, senses=True, source="whoever steps the environment")
