"""What an admission policy's calls come to: interactions finished and lost, for its scores."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.memory import gate, interaction, request, tenant, traits

_LIGHT, _KNOWN = 1, 2
"""Of a call of a light tenant: whether its wait for the first token is known yet."""


@compiled
def note_arrival(s: Any, r: int) -> None:
    """A call comes to the gate for the first time, and is counted among those of its tenant."""
    own = traits(s, r)
    whole = interaction(s, own.interaction)
    if whole.arrived == 0:
        whole.first_ps = s.now_ps
    whole.arrived += 1
    own.light = _LIGHT if tenant(s, own.tenant).recent <= gate(s).light_calls else 0


@compiled
def _know(s: Any, r: int, late: bool) -> None:
    own, sums = traits(s, r), gate(s)
    if own.light == _LIGHT:
        own.light = _KNOWN
        sums.light += 1
        sums.light_late += 1 if late else 0


@compiled
def _overdue(s: Any, r: int) -> bool:
    return s.now_ps - request(s, r).arrival_ps > gate(s).ttft_ps


@compiled
def note_first_token(s: Any, r: int) -> None:
    """A call has its first token."""
    _know(s, r, _overdue(s, r))


@compiled
def note_left(s: Any) -> None:
    """The episode ends: calls that have waited for too long are late."""
    for r in range(s.count):
        if traits(s, r).light == _LIGHT and _overdue(s, r):
            _know(s, r, True)


@compiled
def note_served(s: Any, r: int) -> None:
    """A call has finished, and perhaps its interaction with it."""
    own, row, sums = traits(s, r), request(s, r), gate(s)
    whole = interaction(s, own.interaction)
    used = row.prompt + row.generated
    whole.served += 1
    whole.tokens += used
    whole.value += (row.prompt + 2.0 * row.generated) / own.weight
    sums.served_tokens += used
    if whole.lost == 1:
        sums.wasted_tokens += used
    elif (
        whole.served == own.call_index + own.later + 1
        and s.now_ps - whole.first_ps <= sums.deadline_ps
    ):
        sums.finished += 1
        sums.value += whole.value


@compiled
def note_turned_away(s: Any, r: int) -> None:
    """A call is turned away for good; what its interaction was given before is wasted.

    So are the tokens of the call itself, if it has been in service; it must not be cleared yet.
    """
    own, row, sums = traits(s, r), request(s, r), gate(s)
    whole = interaction(s, own.interaction)
    tenant(s, own.tenant).turned_away += 1
    sums.turned_away += 1
    if own.light > 0:
        sums.benign += 1
        _know(s, r, True)
    if row.admit_ps >= 0:
        used = row.prompt + row.generated
        sums.served_tokens += used
        sums.wasted_tokens += used
    if whole.lost == 0:
        whole.lost = 1
        sums.wasted_tokens += whole.tokens
