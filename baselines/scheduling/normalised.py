"""FairServe's weighted service counter in its variants (arXiv:2411.15997 Eqs. 2 and 3).

Counters are in millionths of a typical call. `p0` is the cost of a token of user input, `p1` of
an output token, `p3` of a token of the system prompt. `p2` is an exponent on the typical cost:
with 1 a typical call of any application costs one, with 0 tokens are charged as in VTC. The
tenant's weight divides as in VTC, so it is 1 / E of Eq. 3.
"""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import ADMIT, FINISH, MILLION, TOKENS
from envs.throttling.service_counter import charge_normalised, open_interactions_first

__all__ = [
    "charge_at_end",
    "charge_normalised",
    "charge_ratios",
    "charge_ratios_at_end",
    "open_interactions_first",
]


def charge_at_end(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The same as FairServe's artifact has it: the whole call is charged when it has finished.

    Nothing is charged before, so that one tenant can fill a batch with its whole queue.
    """
    if event == FINISH:
        cost = scheduler.p0 * (request.prompt - traits.system) + scheduler.p3 * traits.system
        cost += scheduler.p1 * request.generated
        return int(MILLION * cost / (traits.weight**scheduler.p2 * tenant.weight))
    return 0


def charge_ratios(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """A sum of ratios, as the artifact's early variants: input over typical input, and so on.

    `p0 in / N_in + p1 out / N_out` with the typical tokens of the application, as they come.
    Tokens of the system prompt are input.
    """
    if event == ADMIT:
        ratio = scheduler.p0 * request.prompt / traits.typical_prompt
        return int(MILLION * ratio / tenant.weight)
    if event == TOKENS:
        unit = MILLION * scheduler.p1 / (traits.typical_output * tenant.weight)
        return int(unit * end) - int(unit * start)
    return 0


def charge_ratios_at_end(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The sum of ratios, charged when the call has finished."""
    if event == FINISH:
        ratio = scheduler.p0 * request.prompt / traits.typical_prompt
        ratio += scheduler.p1 * request.generated / traits.typical_output
        return int(MILLION * ratio / tenant.weight)
    return 0
