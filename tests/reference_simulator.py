"""The slow, obvious simulator that the compiled kernel must equal bit for bit.

It follows docs/simulator.md word by word: one iteration at a time, in plain Python integers and
lists. It shares nothing with the kernel but the step-time tables (`envs.hardware.StepTables`,
read by attribute). Read it next to that page; every method names the paragraph that it follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

SERVED, REJECTED_FLEET, REJECTED_INSTANCE, UNFINISHED = 0, 1, 2, 3
NEVER = -1


@dataclass(eq=False)
class ReferenceRequest:
    """One request and what happened to it so far; times in ps, -1 = never."""

    index: int
    arrival_ps: int
    prompt: int
    output: int
    predicted: int
    generated: int = 0
    to_prefill: int = 0  # p + g at its latest admission
    prefilled: int = 0  # of these
    dispatch_ps: int = NEVER
    admit_ps: int = NEVER
    first_token_ps: int = NEVER
    finish_ps: int = NEVER
    instance: int = -1
    preemptions: int = 0
    status: int = UNFINISHED

    @property
    def occupancy(self) -> int:
        """KV tokens that it takes while in service, and needs to be admitted: p + g."""
        return self.prompt + self.generated

    @property
    def decoding(self) -> bool:
        """Whether it is in decode (in service, its prefill complete)."""
        return self.prefilled == self.to_prefill


Requests = list[ReferenceRequest]


class ReferenceInstance:
    """One engine (docs/simulator.md, "One instance")."""

    def __init__(self, engine: Any) -> None:
        """Take any object with the fields of `envs.simulator.EngineConfig`."""
        if engine.batching == "chunked" and engine.max_batched_tokens < engine.max_num_seqs:
            raise ValueError("chunked batching requires max_batched_tokens >= max_num_seqs")
        self.engine = engine
        self.tables = engine.cost.tables(engine.max_num_seqs, engine.max_batched_tokens)
        self.capacity = int(engine.kv_capacity_tokens)
        self.watermark = math.floor(engine.watermark * engine.kv_capacity_tokens)
        self.preempted: Requests = []  # ahead of `dispatched`; last preempted first
        self.dispatched: Requests = []
        self.in_service: Requests = []  # in order of admission
        self.busy_until = NEVER  # end of the iteration that it is inside, -1 = inside none
        self.step_decodes: Requests = []  # the requests of that iteration
        self.step_chunks: list[tuple[ReferenceRequest, int]] = []

    @property
    def waiting(self) -> Requests:
        """The waiting queue, head first."""
        return self.preempted + self.dispatched

    @property
    def occupied(self) -> int:
        """Sum of the occupancies in service, tokens."""
        return sum(request.occupancy for request in self.in_service)

    def fits(self, request: ReferenceRequest) -> bool:
        """Rejection: whether the request can ever be held here."""
        return request.prompt + request.output - 1 <= self.capacity - self.watermark

    def enqueue(self, request: ReferenceRequest) -> None:
        """Waiting queue: put in a request that the router dispatches."""
        self.dispatched.append(request)
        if self.engine.queue == "sjf":
            self.dispatched.sort(key=lambda other: (other.predicted, other.index))

    def start_iteration(self, now: int) -> None:
        """Plan the iteration that starts at `now`; stay idle where there is nothing to do."""
        self.step_decodes, self.step_chunks = [], []
        chunked = self.engine.batching == "chunked"
        (self._plan_chunked if chunked else self._plan_prefill_first)(now)
        if not self.step_decodes and not self.step_chunks:
            assert not self.in_service and not self.waiting, "idle with work at hand"
            return
        assert not self.step_decodes or self.occupied <= self.capacity, "decodes beyond the cache"
        duration = self._duration()
        assert duration > 0, "an iteration must take time"
        self.busy_until = now + duration

    def _plan_prefill_first(self, now: int) -> None:
        """Plan of an iteration, `prefill_first`."""
        total = 0
        while self._head_passes():
            need = self.waiting[0].occupancy
            if self.step_chunks and total + need > self.engine.max_batched_tokens:
                break
            total += need
            self.step_chunks.append((self._admit_head(now), need))
        if not self.step_chunks:
            self._preempt_as_needed()
            self.step_decodes = list(self.in_service)

    def _plan_chunked(self, now: int) -> None:
        """Plan of an iteration, `chunked`."""
        budget = int(self.engine.max_batched_tokens)
        preempted = False
        if any(request.decoding for request in self.in_service):
            preempted = self._preempt_as_needed()
            self.step_decodes = [request for request in self.in_service if request.decoding]
            budget -= len(self.step_decodes)
        partial = [request for request in self.in_service if not request.decoding]
        assert partial in ([], self.in_service[-1:]), "only the last admitted can be in prefill"
        for request in partial:
            chunk = min(request.to_prefill - request.prefilled, budget)
            self.step_chunks.append((request, chunk))
            budget -= chunk
        while not preempted and budget > 0 and self._head_passes():
            chunk = min(self.waiting[0].occupancy, budget)
            self.step_chunks.append((self._admit_head(now), chunk))
            budget -= chunk

    def _head_passes(self) -> bool:
        """Admission test of the head of the waiting queue."""
        if not self.waiting or len(self.in_service) >= self.engine.max_num_seqs:
            return False
        return self.occupied + self.waiting[0].occupancy + self.watermark <= self.capacity

    def _admit_head(self, now: int) -> ReferenceRequest:
        request = (self.preempted or self.dispatched).pop(0)
        request.to_prefill, request.prefilled = request.occupancy, 0
        if request.admit_ps == NEVER:
            request.admit_ps = now
        self.in_service.append(request)
        return request

    def _preempt_as_needed(self) -> bool:
        """Preemption: take the most recently admitted ones out; whether there were any."""
        before = len(self.in_service)
        while self.occupied > self.capacity:
            request = self.in_service.pop()
            request.preemptions += 1
            self.preempted.insert(0, request)
        return len(self.in_service) < before

    def _duration(self) -> int:
        """Step time of the planned iteration, ps."""
        tables = self.tables
        b = len(self.step_decodes)
        context = sum(request.occupancy for request in self.step_decodes)
        if not self.step_chunks:
            return int(tables.decode_ps[b]) + int(tables.context_ps) * context
        n = sum(m for _, m in self.step_chunks)
        work = sum(m * r.prefilled + m * (m + 1) // 2 for r, m in self.step_chunks)
        last = int(self.engine.max_batched_tokens)
        beyond = max(0, b + n - last)
        return (
            int(tables.prefill_ps[b + n - beyond])
            + beyond * int(tables.prefill_tail_ps)
            + int(tables.sequence_ps[b])
            + int(tables.mixed_context_ps) * context
            + int(tables.attention_ps) * work
        )

    def end_iteration(self, now: int) -> tuple[Requests, bool]:
        """End of an iteration: the requests that finish, and whether any prefill completes."""
        self.busy_until = NEVER
        producing = list(self.step_decodes)
        completed_prefill = False
        for request, chunk in self.step_chunks:
            request.prefilled += chunk
            if request.decoding:
                completed_prefill = True
                producing.append(request)
        finished = []
        for request in producing:
            request.generated += 1
            assert request.generated <= request.output, "a token beyond the last one"
            if request.first_token_ps == NEVER:
                request.first_token_ps = now
            if request.generated == request.output:
                request.finish_ps, request.status = now, SERVED
                self.in_service.remove(request)
                finished.append(request)
        return finished, completed_prefill


@dataclass(frozen=True)
class ReferenceView:
    """What the policy sees at a decision; the lists have one entry per instance."""

    now_ps: int
    candidates: list[int]  # (window,) request indices in queue order, -1 = empty position
    running: list[list[tuple[int, int]]]  # (request index, generated) in service, as admitted
    waiting: list[list[tuple[int, int]]]  # the same of the waiting queue, head first
    kv_tokens: list[int]  # sum of p + g in service
    waiting_tokens: list[int]  # sum of p + g waiting


@dataclass(frozen=True)
class ReferenceResult:
    """What happened to every request."""

    requests: Requests
    decisions: list[tuple[ReferenceView, int]]  # the view, and the action as the policy gave it
    in_system_integral: int  # request-picoseconds, over the accepted requests


Policy = Callable[[ReferenceView], int]


class _Fleet:
    """The router queue and the instances (docs/simulator.md, "The fleet")."""

    def __init__(self, requests: Requests, fleet: Sequence[Any], policy: Policy) -> None:
        self.instances = [ReferenceInstance(engine) for engine in fleet]
        self.policy = policy
        self.to_come = list(requests)
        self.arrived: Requests = []
        self.queue: Requests = []
        self.served: Requests = []
        self.rejected: Requests = []
        self.held = False
        self.decisions: list[tuple[ReferenceView, int]] = []
        self.integral = 0

    def run(self, queue_order: str, interval: int, window: int) -> None:
        """Go from instant to instant until nothing is left to happen."""
        now = 0
        while (instant := self._next_instant(now, interval)) is not None:
            self.integral += len(self._in_system()) * (instant - now)
            now = instant
            self._end_iterations(now)
            self._arrivals(now, queue_order)
            if interval > 0 and now % interval == 0 and self.queue:
                self._decide(now, window)
            while interval == 0 and self.queue and not self.held:
                self._decide(now, window)
            for instance in self.instances:
                if instance.busy_until == NEVER:
                    instance.start_iteration(now)
            self._check_conservation()
        assert not self._in_system(), "stopped with work at hand"

    def _next_instant(self, now: int, interval: int) -> int | None:
        instants = [request.arrival_ps for request in self.to_come[:1]]
        instants += [i.busy_until for i in self.instances if i.busy_until != NEVER]
        if interval > 0 and self.queue:
            instants.append((now // interval + 1) * interval)
        return min(instants, default=None)

    def _end_iterations(self, now: int) -> None:
        for instance in self.instances:
            if instance.busy_until == now:
                finished, completed_prefill = instance.end_iteration(now)
                self.served += finished
                if finished or completed_prefill:
                    self.held = False
        self._check_conservation()

    def _arrivals(self, now: int, queue_order: str) -> None:
        while self.to_come and self.to_come[0].arrival_ps == now:
            request = self.to_come.pop(0)
            self.arrived.append(request)
            self.held = False
            if any(instance.fits(request) for instance in self.instances):
                self.queue.append(request)
            else:
                self._reject(request, REJECTED_FLEET, now)
        if queue_order == "sjf":
            self.queue.sort(key=lambda request: (request.predicted, request.index))
        self._check_conservation()

    def _decide(self, now: int, window: int) -> None:
        """One decision, with "A hold can't stick" and "Rejection"."""
        view = self._view(now, window)
        action = int(self.policy(view))
        self.decisions.append((view, action))
        position, target = divmod(action, len(self.instances))
        if 0 <= position < window and position < len(self.queue):
            self._dispatch(self.queue[position], target, now)
        elif not any(i.in_service or i.waiting for i in self.instances):
            head = self.queue[0]
            self._dispatch(head, [i.fits(head) for i in self.instances].index(True), now)
        else:
            self.held = True
        self._check_conservation()

    def _dispatch(self, request: ReferenceRequest, target: int, now: int) -> None:
        self.queue.remove(request)
        if self.instances[target].fits(request):
            request.dispatch_ps, request.instance = now, target
            self.instances[target].enqueue(request)
        else:
            self._reject(request, REJECTED_INSTANCE, now)

    def _reject(self, request: ReferenceRequest, status: int, now: int) -> None:
        request.status = status
        self.rejected.append(request)
        # The integral counts accepted requests only: take its time in the queue out again.
        self.integral -= now - request.arrival_ps

    def _view(self, now: int, window: int) -> ReferenceView:
        fleet, indices = self.instances, [request.index for request in self.queue[:window]]
        return ReferenceView(
            now_ps=now,
            candidates=indices + [-1] * (window - len(indices)),
            running=[[(r.index, r.generated) for r in i.in_service] for i in fleet],
            waiting=[[(r.index, r.generated) for r in i.waiting] for i in fleet],
            kv_tokens=[i.occupied for i in fleet],
            waiting_tokens=[sum(r.occupancy for r in i.waiting) for i in fleet],
        )

    def _in_system(self) -> Requests:
        at_instances = [i.in_service + i.waiting for i in self.instances]
        return sum(at_instances, self.queue)

    def _check_conservation(self) -> None:
        """Identities: every arrived request is in exactly one place."""
        places = self.served + self.rejected + self._in_system()
        assert sorted(r.index for r in places) == [r.index for r in self.arrived], "conservation"


def reference_simulate(
    arrival_ps: Sequence[int],
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    predicted_tokens: Sequence[int],
    fleet: Sequence[Any],
    policy: Policy,
    *,
    queue_order: str = "fcfs",
    decision_interval_ps: int = 0,
    window: int = 1,
) -> ReferenceResult:
    """Simulate a fleet: (n,) columns (sorted arrivals in ps, tokens) and one engine per instance.

    The policy answers a decision with `k * len(fleet) + i`; anything else holds. Decisions are
    event-driven where `decision_interval_ps` is 0. Raises ValueError for input that docs/
    simulator.md does not allow, AssertionError where one of its identities does not hold.
    """
    columns = (arrival_ps, prompt_tokens, output_tokens, predicted_tokens)
    rows = zip(*([int(value) for value in column] for column in columns), strict=True)
    requests = [ReferenceRequest(index, *row) for index, row in enumerate(rows)]
    arrivals = [r.arrival_ps for r in requests]
    if arrivals != sorted(arrivals) or any(r.prompt < 1 or r.output < 1 for r in requests):
        raise ValueError("arrival_ps must be sorted, prompts and outputs at least 1 token")
    simulation = _Fleet(requests, fleet, policy)
    simulation.run(queue_order, decision_interval_ps, window)
    return ReferenceResult(requests, simulation.decisions, simulation.integral)
