"""One request of the reference simulator (docs/simulator.md, "Requests")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SERVED, REJECTED_FLEET, REJECTED_INSTANCE, UNFINISHED = 0, 1, 2, 3
REJECTED_LIMIT, REJECTED_INTERACTION, REJECTED_GATE, REJECTED_PATIENCE = 4, 5, 6, 7
NEVER = -1
NO_DEADLINE = 2**63 - 1


@dataclass
class Traits:
    """What only schedulers read of a request."""

    deadline_ps: int = NO_DEADLINE
    priority: int = 0
    tenant: int = 0
    application: int = 0
    interaction: int = 0
    prefix: int = -1
    prefix_tokens: int = 0
    weight: float = 1.0
    call_index: int = 0
    later: int = 0  # calls of the interaction after it, as declared
    prepaid: int = 0
    tag: int = 0
    reserved: int = 0
    system: int = 0
    typical_prompt: float = 1.0
    typical_output: float = 1.0
    interaction_cost: float = 1.0


@dataclass(eq=False)
class ReferenceRequest:
    """One request and what happened to it so far; times in ps, -1 = never."""

    index: int
    arrival_ps: int
    prompt: int
    output: int
    predicted: int
    tier: int = 0
    model: str = ""  # "" = any will do
    region: str = ""  # where it comes from
    overrun_tokens: int = 1
    overrun_percent: int = 0
    traits: Traits = field(default_factory=Traits)
    generated: int = 0
    to_prefill: int = 0  # p + g at its latest admission
    prefilled: int = 0  # of these, with what the prefix cache gave
    since: int = NEVER  # when it came into the system
    attempts: int = 0  # times that it was sent again
    logged_ps: int = NEVER  # when it first came to the gate
    entered: bool = False  # whether it was ever in a waiting queue
    dispatch_ps: int = NEVER
    admit_ps: int = NEVER
    first_token_ps: int = NEVER
    finish_ps: int = NEVER
    instance: int = -1
    preemptions: int = 0
    failures: int = 0
    status: int = UNFINISHED

    @property
    def tokens(self) -> int:
        """Requests: what attention reads and a policy sees of it, p + g."""
        return self.prompt + self.generated

    @property
    def decoding(self) -> bool:
        """Whether it is in decode (in service, its prefill complete)."""
        return self.prefilled == self.to_prefill

    @property
    def predicted_remaining(self) -> int:
        """Predicted remaining tokens."""
        left = self.predicted - self.generated
        if left > 0:
            return left
        return max(1, self.overrun_tokens, self.generated * self.overrun_percent // 100)


Requests = list[ReferenceRequest]


def total_tokens(requests: Sequence[ReferenceRequest]) -> int:
    """Give the sum of p + g."""
    return sum(request.tokens for request in requests)
