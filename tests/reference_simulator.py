"""The slow, obvious simulator that the compiled kernel must equal bit for bit.

It follows docs/simulator.md word by word: one iteration at a time, in plain Python integers and
lists. It shares nothing with the kernel but the step-time tables (`envs.hardware.StepTables`,
read by attribute). Read it next to that page; every method names the paragraph that it follows.
The parts are in tests/reference/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.reference.clients import Clients
from tests.reference.elastic import ElasticOptions
from tests.reference.fleet import Fleet
from tests.reference.look import FleetOptions, Policy, ReferenceView
from tests.reference.request import (
    NEVER,
    NO_DEADLINE,
    REJECTED_FLEET,
    REJECTED_INSTANCE,
    REJECTED_INTERACTION,
    REJECTED_LIMIT,
    SERVED,
    UNFINISHED,
    ReferenceRequest,
    Requests,
    Traits,
)

__all__ = [
    "NEVER",
    "REJECTED_FLEET",
    "REJECTED_INSTANCE",
    "REJECTED_INTERACTION",
    "REJECTED_LIMIT",
    "SERVED",
    "UNFINISHED",
    "ReferenceRequest",
    "ReferenceResult",
    "ReferenceView",
    "reference_simulate",
]


@dataclass(frozen=True)
class ReferenceResult:
    """What happened to every request."""

    requests: Requests
    decisions: list[tuple[ReferenceView, int]]  # the view, and the action as the policy gave it
    in_system_integral: int  # request-picoseconds, over the accepted requests
    tenant_counters: list[int]
    cached_tokens: int
    pooled: Requests  # those that came to the pool of their model and region


def reference_simulate(
    arrival_ps: Sequence[int],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    predicted_tokens: Sequence[int],
    fleet: Sequence[Any],
    policy: Policy,
    *,
    model: Sequence[str] | None = None,
    region: Sequence[str] | None = None,
    tenant: Sequence[int] | None = None,
    tier: Sequence[int] | None = None,
    interaction: Sequence[int] | None = None,
    call_index: Sequence[int] | None = None,
    deadline_ps: Sequence[int | None] | None = None,
    priority: Sequence[int] | None = None,
    prefix: Sequence[int] | None = None,
    prefix_tokens: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    tenant_weights: Sequence[float] | None = None,
    overrun_tokens: int = 1,
    overrun_percent: int = 0,
    queue_order: str = "fcfs",
    decision_interval_ps: int = 0,
    window: int = 1,
    closed_loop: bool = False,
    think_ps: Sequence[int] | int = 0,
    rate_limit: Any = None,
    outages: Sequence[tuple[int, int, int]] = (),
    poll_interval_ps: int = 0,
    application: Sequence[int] | None = None,
    calls_in_interaction: int = 1,
    gate: Any = None,
    retry: Any = None,
    elastic: ElasticOptions | None = None,
    kind: Callable[..., Fleet] = Fleet,
) -> ReferenceResult:
    """Simulate a fleet: (n,) columns (sorted arrivals in ps, tokens) and one engine per instance.

    The policy answers a decision with `k * len(fleet) + i`; anything else holds. Decisions are
    event-driven where `decision_interval_ps` is 0. Tenants are 0, 1, ...; a model "", a prefix -1
    and a deadline None mean none; outages are (instance, from, to) in ps; the think time of a
    request is that before it. `kind` makes the fleet, and may give it a life cycle. Raises
    ValueError for input that docs/simulator.md does not allow, AssertionError where one of its
    identities does not hold.
    """
    n = len(arrival_ps)
    times = list(arrival_ps)
    if times != sorted(times) or any(t < 1 for t in (*prompt_tokens, *output_tokens)):
        raise ValueError("arrival_ps must be sorted, prompts and outputs at least 1 token")
    for i, start, end in outages:
        if end <= start or any(i == j and start < s < end for j, s, _ in outages):
            raise ValueError("outages must end after they begin, and not overlap")

    def column(values: Any, default: Any) -> list[Any]:
        return [default] * n if values is None else list(values)

    tenants = column(tenant, 0)
    interactions = list(range(n)) if interaction is None else interaction
    deadlines = [NO_DEADLINE if d is None else d for d in column(deadline_ps, None)]
    traits = zip(
        deadlines,
        column(priority, 0),
        tenants,
        column(application, 0),
        interactions,
        column(prefix, -1),
        column(prefix_tokens, 0),
        column(weights, 1.0),
        column(call_index, 0),
        [calls_in_interaction - 1 - k for k in column(call_index, 0)],
        strict=True,
    )
    rows = zip(
        range(n),
        (int(value) for value in arrival_ps),
        (int(value) for value in prompt_tokens),
        (int(value) for value in output_tokens),
        (int(value) for value in predicted_tokens),
        column(tier, 0),
        column(model, ""),
        column(region, ""),
        column(None, overrun_tokens),
        column(None, overrun_percent),
        (Traits(*row) for row in traits),
        strict=True,
    )
    requests = [ReferenceRequest(*row) for row in rows]
    think = [think_ps] * n if isinstance(think_ps, int) else list(think_ps)
    simulation = kind(
        Clients(requests, closed_loop, column(call_index, 0), think),
        fleet,
        policy,
        tenant_weights or [1.0] * (1 + max(tenants, default=0)),
        FleetOptions(
            queue_order,
            decision_interval_ps,
            window,
            rate_limit,
            outages,
            poll_interval_ps,
            gate,
            retry,
            elastic or ElasticOptions(),
        ),
    )
    simulation.run()
    return ReferenceResult(
        requests,
        simulation.decisions,
        simulation.integral,
        [t.counter for t in simulation.counters.tenants],
        sum(instance.cached_tokens for instance in simulation.instances),
        simulation.pooled,
    )
