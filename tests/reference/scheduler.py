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
    queued: int = 0  # its requests in waiting queues
    estimate: int = 0
    seen: int = 0


@dataclass(frozen=True)
class Scheduler:
    """How an instance orders its waiting queue, and what it charges to tenants."""

    rank: Rank | None
    kind: str
    charge: Callable[..., int] | None = None
    lift: str = "none"
    overcharge: bool = False
    parameters: tuple[float, ...] = ()

    def __getattr__(self, name: str) -> float:
        """Give the parameters p0 .. p7; those that are not given are 0."""
        if name not in {f"p{k}" for k in range(8)}:
            raise AttributeError(name)
        k = int(name[1:])
        return float(self.parameters[k]) if k < len(self.parameters) else 0.0


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
        rank, kind, queue.charge, queue.lift, queue.overcharge, tuple(queue.parameters)
    )


class Counters:
    """Tenant counters: one for each tenant of the fleet."""

    def __init__(self, weights: Sequence[float], schedulers: Sequence[Scheduler]) -> None:
        """Take a weight for each tenant, and the scheduler of each instance."""
        self.tenants = [Tenant(weight) for weight in weights]
        self.scheduler = schedulers[0]
        if any(s.charge is not None for s in schedulers) and len(set(schedulers)) > 1:
            raise ValueError("counters are the fleet's: all instances must have one scheduler")
        self.left_last: Tenant | None = None  # whose last waiting request was admitted latest

    def of(self, request: ReferenceRequest) -> Tenant:
        """Give the tenant of a request."""
        return self.tenants[request.traits.tenant]

    def charge(self, event: int, request: ReferenceRequest, start: int = 0, end: int = 0) -> None:
        """Add the charge of an event to the counter of the request's tenant."""
        if self.scheduler.charge is not None:
            tenant = self.of(request)
            amount = self.scheduler.charge(
                event, start, end, request, request.traits, tenant, self.scheduler
            )
            tenant.counter += int(amount)

    def enter(self, request: ReferenceRequest) -> None:
        """Count a dispatched request that enters a waiting queue: lift, then ARRIVE.

        It counts as queued when ARRIVE is charged and a static rank is taken.
        """
        tenant = self.of(request)
        if self.scheduler.lift != "none" and tenant.queued == 0:
            others = [other.counter for other in self.tenants if other.queued > 0]
            if others:
                tenant.counter = max(tenant.counter, min(others))
            elif self.scheduler.lift == "last" and self.left_last is not None:
                tenant.counter = max(tenant.counter, self.left_last.counter)
        tenant.queued += 1
        if not request.entered:
            request.entered = True
            self.charge(ARRIVE, request)

    def preempt(self, request: ReferenceRequest) -> None:
        """A preempted request waits in a waiting queue."""
        self.of(request).queued += 1

    def leave(self, request: ReferenceRequest) -> None:
        """Count a request that leaves a waiting queue, for whatever reason."""
        self.of(request).queued -= 1

    def admit(self, request: ReferenceRequest, first: bool) -> None:
        """Count one that is admitted, and charge ADMIT the first time."""
        self.leave(request)
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

    def head(self, now: int) -> ReferenceRequest | None:
        """Give the head."""
        if self.preempted:
            return self.preempted[0]
        if self.scheduler.rank is None:
            return self.entered[0] if self.entered else None
        looked_at = list(self.entered)
        if self.scheduler.kind == "tenant":
            tenants = [request.traits.tenant for request in self.entered]
            looked_at = [r for k, r in enumerate(self.entered) if tenants[k] not in tenants[:k]]
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
        return int(self.scheduler.rank(now, request, request.traits, tenant, self.scheduler))
