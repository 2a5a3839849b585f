"""What stands before the instances: clients, and the limit of what they may send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.reference.request import (
    NEVER,
    REJECTED_INTERACTION,
    REJECTED_LIMIT,
    ReferenceRequest,
    Requests,
)

MINUTE_PS = 60 * 10**12


class Clients:
    """Closed-loop clients: which requests are yet to come, and when."""

    def __init__(
        self,
        requests: Requests,
        closed_loop: bool,
        call_index: Sequence[int],
        think_ps: Sequence[int],
    ) -> None:
        """Take the place in its interaction and the time before it for each request."""
        self.think_ps = think_ps
        self.own_arrival_ps = [request.arrival_ps for request in requests]
        self.next_call: dict[int, ReferenceRequest] = {}  # by the index of the call before
        self.to_come: Requests = []
        self.again: dict[ReferenceRequest, int] = {}
        latest: dict[int, ReferenceRequest] = {}  # row of each interaction
        for request in requests:
            before = latest.get(request.traits.interaction)
            latest[request.traits.interaction] = request
            if closed_loop and before is not None and call_index[request.index] > 0:
                self.next_call[before.index] = request
                request.arrival_ps = NEVER
            else:
                self.to_come.append(request)

    def next_arrival(self) -> int | None:
        """When the next request arrives, as far as is known."""
        times = [request.arrival_ps for request in self.to_come] + list(self.again.values())
        return min(times, default=None)

    def arrivals(self, now: int) -> Requests:
        """Take out the requests that arrive now, by request index."""
        arriving = [request for request in self.to_come if request.arrival_ps == now]
        arriving += [request for request, time in self.again.items() if time == now]
        self.to_come = [request for request in self.to_come if request.arrival_ps != now]
        self.again = {request: time for request, time in self.again.items() if time != now}
        return sorted(arriving, key=lambda request: request.index)

    def send_again(self, requests: Requests) -> None:
        """Let requests that have arrived come again at their time."""
        for request in requests:
            self.again[request] = request.come_again_ps  # type: ignore[attr-defined]

    @property
    def waiting(self) -> Requests:
        """Those that have arrived and are to come again."""
        return list(self.again)

    def finished(self, request: ReferenceRequest, now: int) -> None:
        """Let the next call of the interaction arrive a think time later."""
        call = self.next_call.get(request.index)
        if call is not None:
            earliest = self.own_arrival_ps[call.index]
            call.arrival_ps = max(earliest, now + self.think_ps[call.index])
            self.to_come.append(call)


class RateLimit:
    """Rate limit: requests a minute of a tenant, over all instances."""

    def __init__(self, limit: Any) -> None:
        """Take an object like `envs.simulator.RateLimit`, or None for no limit."""
        self.limit = limit
        self.entries: dict[int, list[int]] = {}  # by tenant: when its requests first entered
        self.killed: set[int] = set()  # interactions

    def refuses(self, request: ReferenceRequest, now: int) -> int | None:
        """Give the status of a request that may not enter a waiting queue, None if it may.

        A killed interaction is looked up first; a second entry (after a failure) is neither
        limited nor counted.
        """
        if request.traits.interaction in self.killed:
            return REJECTED_INTERACTION
        if request.entered or self.limit is None:
            return None
        entries = self.entries.setdefault(request.traits.tenant, [])
        recent = [time for time in entries if now - time < MINUTE_PS]
        if len(recent) >= self.limit.requests_per_minute:
            if self.limit.kill_interactions:
                self.killed.add(request.traits.interaction)
            return REJECTED_LIMIT
        entries.append(now)
        return None
