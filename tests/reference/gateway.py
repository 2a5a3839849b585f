"""The admission policy (docs/simulator.md, "Admission policy")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.reference.request import (
    NEVER,
    REJECTED_GATE,
    REJECTED_INTERACTION,
    REJECTED_PATIENCE,
    ReferenceRequest,
    Requests,
    total_tokens,
)
from tests.reference.scheduler import Counters, Row, Tenant

LET_IN, TURN_AWAY, WAIT, DROP = 0, 1, 2, 3
MINUTE_PS = 60 * 10**12


class Gateway:
    """Judges calls that arrive, and those that come to the head of a waiting queue."""

    def __init__(self, gate: Any, retry: Any, counters: Counters, killed: set[int]) -> None:
        """Take objects like `envs.simulator.Gate` and `Retry`; the rest is the fleet's."""
        self.gate, self.retry = gate, retry
        self.counters, self.killed = counters, killed
        self.row: Any = Row(gate.parameters)
        self.row.delay_ps = round(gate.delay_s * 10**12)
        self.instances: list[Any] = []
        self.applications: dict[int, Tenant] = {}
        self.calls: dict[tuple[str, int], Requests] = {}  # of a tenant or application, in order
        self.at_gate: Requests = []

    @property
    def looks(self) -> bool:
        """Whether it looks at the heads of waiting queues."""
        return self.gate.look is not None

    def come(self, request: ReferenceRequest, now: int) -> None:
        """A call comes to the gate; the first time it is logged."""
        if request.logged_ps == NEVER:
            request.logged_ps = now
            self._log("tenant", request.traits.tenant, self.counters.of(request), request, now)
            code = request.traits.application
            account = self.applications.setdefault(code, Tenant())
            self._log("application", code, account, request, now)
        self.at_gate.append(request)

    def _log(
        self, kind: str, code: int, account: Tenant, request: ReferenceRequest, now: int
    ) -> None:
        calls = self.calls.setdefault((kind, code), [])
        calls.append(request)
        recent = [call for call in calls if now - call.logged_ps < MINUTE_PS]
        account.recent = len(recent)
        account.recent_tokens = sum(call.prompt for call in recent)

    def _judge(
        self,
        function: Callable[..., int],
        request: ReferenceRequest,
        now: int,
        senses: bool = True,
    ) -> int:
        row = self.row
        if senses and self.gate.senses:
            waiting = [len(i.waiting) for i in self.instances]
            kv = [total_tokens(i.in_service) / i.capacity for i in self.instances]
            row.waiting = sum(waiting)
            row.in_service = sum(len(i.in_service) for i in self.instances)
            total, share = 0.0, 0.0
            for count, used in zip(waiting, kv, strict=True):
                total += max(count / self.gate.queue_limit, used / self.gate.kv_limit)
                share += used
            row.saturation = total / len(self.instances)
            row.kv = share / len(self.instances)
        return int(
            function(
                now,
                request,
                request.traits,
                self.counters.of(request),
                self.applications[request.traits.application],
                self.counters.interaction(request),
                row,
            )
        )

    def look(self, request: ReferenceRequest, fits: bool, now: int) -> int:
        """The verdict on the head of a waiting queue."""
        self.row.fits = int(fits)
        verdict = self._judge(self.gate.look, request, now)
        if verdict in (TURN_AWAY, DROP) or (verdict == LET_IN and fits):
            return verdict
        return WAIT

    def finished(self, request: ReferenceRequest, now: int) -> None:
        """Tell it of a call that has finished, or is turned away after it was let in."""
        if self.gate.finish is not None:
            self._judge(self.gate.finish, request, now, senses=False)

    def attend(self, now: int) -> tuple[Requests, Requests, list[tuple[ReferenceRequest, int]]]:
        """Judge all that stand at the gate: let in, to come again, and turned away (status)."""
        let_in: Requests = []
        again: Requests = []
        rejected: list[tuple[ReferenceRequest, int]] = []
        for request in self.at_gate:
            if self.gate.kills_interactions and request.traits.interaction in self.killed:
                rejected.append((request, REJECTED_INTERACTION))
                continue
            verdict = LET_IN
            if self.gate.arrive is not None:
                verdict = self._judge(self.gate.arrive, request, now)
            if verdict == LET_IN:
                let_in.append(request)
                continue
            delay = self.row.delay_ps
            if verdict != WAIT:
                if request.attempts == self.retry.times:
                    rejected.append((request, REJECTED_GATE))
                    self._kill(request)
                    continue
                request.attempts += 1
                delay = round(self.retry.backoff_s * 10**12) * 2 ** (request.attempts - 1)
            if now - request.logged_ps + delay > round(self.retry.patience_s * 10**12):
                rejected.append((request, REJECTED_PATIENCE))
                self._kill(request)
            else:
                request.come_again_ps = now + delay  # type: ignore[attr-defined]
                again.append(request)
        self.at_gate = []
        return let_in, again, rejected

    def _kill(self, request: ReferenceRequest) -> None:
        if self.gate.kills_interactions:
            self.killed.add(request.traits.interaction)
