"""Waiting queues and tenant counters (docs/simulator.md, "Waiting queue", "Tenant counters")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.reference.request import ReferenceRequest, Requests

ARRIVE, ADMIT, TOKENS, FINISH = 0, 1, 2, 3

Rank = Callable[..., int]


@dataclass
class Tenant:
    """What schedulers read, and may write, of a tenant."""

    weight: float = 1.0
    counter: int = 0
    service: int = 0
    queued: int = 0  # its requests in waiting queues
    running: int = 0  # its requests in service
    open: int = 0  # of these, calls that others of their interaction follow
    estimate: int = 0
    seen: int = 0
    recent: int = 0  # calls of the minute up to its latest one, that came to the gate
    recent_tokens: int = 0
    g0: int = 0
    g1: int = 0
    g2: int = 0
    g3: int = 0


@dataclass
class Interaction:
    """What schedulers and admission policies know of an interaction."""

    in_system: int = 0  # calls between their first waiting queue and their end
    running: int = 0  # calls in service
    served: int = 0
    tokens: int = 0  # prompt and output tokens of those served
    tag: int = 0


class Row:
    """Parameters of a policy, and what it notes for itself."""

    def __init__(self, parameters: Sequence[float]) -> None:
        """Take the parameters p0, p1, ...; those that are not given are 0."""
        for k in range(12):
            setattr(self, f"p{k}", float(parameters[k]) if k < len(parameters) else 0.0)
        for k in range(6):
            setattr(self, f"m{k}", 0.0)

    def __getattr__(self, name: str) -> Any:
        """Give what no one has written yet."""
        raise AttributeError(name)


@dataclass(frozen=True)
class Scheduler:
    """How an instance orders its waiting queue, and what it charges to tenants."""

    rank: Rank | None
    kind: str
    charge: Callable[..., int] | None = None
    lift: str = "none"
    overcharge: bool = False
    parameters: tuple[float, ...] = ()
    survey: Rank | None = None


def _dpa(now: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    slack = traits.deadline_ps - now
    if slack < -scheduler.p0:
        place = 0
    elif slack < 0:
        place = 7
    elif slack < scheduler.p1:
        place = 1 + request.tier
    else:
        place = 4 + request.tier
    return place * 2**64 + traits.deadline_ps


NAMED: dict[str, tuple[Rank | None, str]] = {
    "fcfs": (None, "static"),
    "sjf": (lambda now, request, traits, tenant, scheduler: request.predicted, "static"),
    "srpt": (lambda now, request, *_: request.predicted_remaining, "static"),
    "edf": (lambda now, request, traits, *_: traits.deadline_ps, "static"),
    "pf": (lambda now, request, *_: request.tier, "static"),
    "priority": (lambda now, request, traits, *_: -traits.priority, "static"),
    "dpa": (_dpa, "dynamic"),
}
"""The table under "Waiting queue"."""

DPA_PS = (60e12, 5e12)
"""Expiry and urgency of `dpa` by name: the paper does not state them, 60 s and 5 s are taken."""


def resolve(queue: Any) -> Scheduler:
    """Give the scheduler of a name, or of an object like `envs.simulator.Scheduler`."""
    if isinstance(queue, str):
        return Scheduler(*NAMED[queue], parameters=DPA_PS if queue == "dpa" else ())
    rank, kind = NAMED[queue.name] if queue.name in NAMED else (queue.rank, queue.kind)
    return Scheduler(
        rank,
        kind,
        queue.charge,
        queue.lift,
        queue.overcharge,
        tuple(queue.parameters),
        queue.survey,
    )


class Counters:
    """Tenant counters: one for each tenant of the fleet."""

    def __init__(self, weights: Sequence[float], schedulers: Sequence[Scheduler]) -> None:
        """Take a weight for each tenant, and the scheduler of each instance."""
        self.tenants = [Tenant(weight) for weight in weights]
        self.scheduler = schedulers[0]
        self.now = 0
        if any(s.charge is not None for s in schedulers) and len(set(schedulers)) > 1:
            raise ValueError("counters are the fleet's: all instances must have one scheduler")
        self.rows: dict[Scheduler, Any] = {s: Row(s.parameters) for s in schedulers}
        self.interactions: dict[int, Interaction] = {}
        self.left_last: Tenant | None = None  # whose last waiting request was admitted latest

    def of(self, request: ReferenceRequest) -> Tenant:
        """Give the tenant of a request."""
        return self.tenants[request.traits.tenant]

    def interaction(self, request: ReferenceRequest) -> Interaction:
        """Give the interaction of a request."""
        return self.interactions.setdefault(request.traits.interaction, Interaction())

    def charge(self, event: int, request: ReferenceRequest, start: int = 0, end: int = 0) -> None:
        """Add the charge of an event to the counter of the request's tenant."""
        if self.scheduler.charge is not None:
            tenant, row = self.of(request), self.rows[self.scheduler]
            row.interactions = sum(i.in_system > 0 for i in self.interactions.values())
            row.now_ps = self.now
            amount = self.scheduler.charge(event, start, end, request, request.traits, tenant, row)
            tenant.counter += int(amount)

    def enter(self, request: ReferenceRequest) -> None:
        """Count a dispatched request that enters a waiting queue: lift, then ARRIVE.

        It counts as queued when ARRIVE is charged and a static rank is taken.
        """
        tenant = self.of(request)
        if self.scheduler.lift != "none" and tenant.queued == 0:
            others = [other for other in self.tenants if other.queued > 0]
            if not others and self.scheduler.lift == "last" and self.left_last is not None:
                others = [self.left_last]
            for name in ("counter", "service") if others else ():
                least = min(getattr(other, name) for other in others)
                setattr(tenant, name, max(getattr(tenant, name), least))
        tenant.queued += 1
        if not request.entered:
            request.entered = True
            interaction = self.interaction(request)
            interaction.in_system += 1
            request.traits.tag = interaction.tag
            self.charge(ARRIVE, request)
            interaction.tag = request.traits.tag

    def preempt(self, request: ReferenceRequest) -> None:
        """A preempted request waits in a waiting queue."""
        self.of(request).queued += 1

    def leave(self, request: ReferenceRequest) -> None:
        """Count a request that leaves a waiting queue, for whatever reason."""
        self.of(request).queued -= 1

    def depart(self, request: ReferenceRequest) -> None:
        """Count one that is done with, or turned away after it had entered a waiting queue."""
        if request.entered:
            self.interaction(request).in_system -= 1

    def serve(self, request: ReferenceRequest, change: int) -> None:
        """Count one that goes into service, or leaves it."""
        self.of(request).running += change
        self.interaction(request).running += change
        self.of(request).open += change if request.traits.later > 0 else 0

    def admit(self, request: ReferenceRequest, first: bool) -> None:
        """Count one that is admitted, and charge ADMIT the first time."""
        self.leave(request)
        self.serve(request, 1)
        if self.of(request).queued == 0:
            self.left_last = self.of(request)
        if first:
            self.charge(ADMIT, request)


class WaitingQueue:
    """The waiting queue of an instance."""

    def __init__(self, scheduler: Scheduler, counters: Counters) -> None:
        """Take the scheduler of the instance and the counters of the fleet."""
        self.scheduler = scheduler
        self.counters = counters
        self.preempted: Requests = []  # ahead of `entered`; last preempted first
        self.entered: Requests = []  # in order of dispatch (intake)
        self.static_ranks: dict[int, int] = {}

    @property
    def requests(self) -> Requests:
        """All that wait in it."""
        return self.preempted + self.entered

    def enter(self, request: ReferenceRequest, now: int) -> None:
        """Put in a dispatched request."""
        self.counters.enter(request)
        self.entered.append(request)
        if self.scheduler.rank is not None and self.scheduler.kind == "static":
            self.static_ranks[request.index] = self._rank(request, now)

    def enter_preempted(self, request: ReferenceRequest) -> None:
        """Put a preempted request to the head."""
        self.counters.preempt(request)
        self.preempted.insert(0, request)

    def head(self, now: int, aside: Requests) -> ReferenceRequest | None:
        """Give the head of those that are not set aside."""
        for request in self.preempted:
            if request not in aside:
                return request
        looked_at = [request for request in self.entered if request not in aside]
        if self.scheduler.rank is None:
            return looked_at[0] if looked_at else None
        if self.scheduler.kind == "tenant":
            tenants = [request.traits.tenant for request in looked_at]
            looked_at = [r for k, r in enumerate(looked_at) if tenants[k] not in tenants[:k]]
        if self.scheduler.survey is not None:
            row = self.counters.rows[self.scheduler]
            for row.surveyed, r in enumerate(looked_at):
                self.scheduler.survey(now, r, r.traits, self.counters.of(r), row)
            row.surveyed = len(looked_at)
        if self.scheduler.kind == "static":
            key = lambda request: (self.static_ranks[request.index], request.index)  # noqa: E731
        else:
            key = lambda request: (self._rank(request, now), request.index)  # noqa: E731
        return min(looked_at, key=key, default=None)

    def remove(self, request: ReferenceRequest) -> None:
        """Take out a request that is admitted, or rejected."""
        (self.preempted if request in self.preempted else self.entered).remove(request)

    def empty(self) -> None:
        """Take everything out (a failure)."""
        for request in self.requests:
            self.counters.leave(request)
        self.preempted, self.entered = [], []

    def _rank(self, request: ReferenceRequest, now: int) -> int:
        tenant = self.counters.of(request)
        assert self.scheduler.rank is not None
        row = self.counters.rows[self.scheduler]
        return int(self.scheduler.rank(now, request, request.traits, tenant, row))
