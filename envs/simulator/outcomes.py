"""What an admission policy's calls come to: interactions finished and lost, for its scores."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.memory import gate, interaction, request, tenant, traits


@compiled
def note_arrival(s: Any, r: int) -> None:
    """A call comes to the gate for the first time."""
    whole = interaction(s, traits(s, r).interaction)
    if whole.arrived == 0:
        whole.first_ps = s.now_ps
    whole.arrived += 1


@compiled
def note_served(s: Any, r: int) -> None:
    """A call has finished, and perhaps its interaction with it."""
    own, row, sums = traits(s, r), request(s, r), gate(s)
    whole, account = interaction(s, own.interaction), tenant(s, own.tenant)
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
    if account.recent < sums.light_calls:
        sums.light += 1
        if row.first_token_ps - row.arrival_ps > sums.ttft_ps:
            sums.light_late += 1


@compiled
def note_turned_away(s: Any, r: int) -> None:
    """A call is turned away for good; what its interaction was given before is wasted."""
    own, sums = traits(s, r), gate(s)
    whole, account = interaction(s, own.interaction), tenant(s, own.tenant)
    account.turned_away += 1
    sums.turned_away += 1
    if account.recent < sums.light_calls:
        sums.light += 1
        sums.light_late += 1
        sums.benign += 1
    if whole.lost == 0:
        whole.lost = 1
        sums.wasted_tokens += whole.tokens
