"""One engine of the reference simulator (docs/simulator.md, "One instance")."""

from __future__ import annotations

import math
from typing import Any

from tests.reference.cache import PrefixCache
from tests.reference.gateway import LET_IN, TURN_AWAY, WAIT, Gateway
from tests.reference.request import (
    NEVER,
    REJECTED_GATE,
    REJECTED_INTERACTION,
    REJECTED_PATIENCE,
    SERVED,
    ReferenceRequest,
    Requests,
    total_tokens,
)
from tests.reference.scheduler import FINISH, TOKENS, Counters, WaitingQueue, resolve

LAST_TIER = 2


class ReferenceInstance:
    """A model replica, the requests at it, and the iteration that it is inside."""

    def __init__(
        self, engine: Any, counters: Counters, killed: set[int], gateway: Gateway | None
    ) -> None:
        """Take any object with the fields of `envs.simulator.EngineConfig`.

        The counters, and the interactions that were killed, are the fleet's.
        """
        self.counters = counters
        self.killed = killed
        self.gateway = gateway
        self.up = True
        self.draining = False
        self.coming: list[tuple[int, ReferenceRequest]] = []  # when they get here
        self.cached_tokens = 0  # sum of all hits
        self.refused: list[tuple[ReferenceRequest, int]] = []  # by a plan, with their status
        self.aside: Requests = []  # that this attempt has passed over
        self.become(engine)

    def become(self, engine: Any) -> None:
        """Run this engine from now on, with nothing at hand."""
        if engine.batching == "chunked" and engine.max_batched_tokens < engine.max_num_seqs:
            raise ValueError("chunked batching requires max_batched_tokens >= max_num_seqs")
        self.engine = engine
        self.tables = engine.cost.tables(engine.max_num_seqs, engine.max_batched_tokens)
        self.capacity = int(engine.kv_capacity_tokens)
        self.watermark = math.floor(engine.watermark * engine.kv_capacity_tokens)
        self.begin_empty()

    def begin_empty(self) -> None:
        """Have nothing at hand; what is under way comes all the same."""
        self.line: Requests = []  # Ingress: those that stand before the scheduler
        self.queue = WaitingQueue(resolve(self.engine.queue), self.counters)
        self.in_service: Requests = []  # in order of admission
        self.cache = PrefixCache(
            self.engine.prefix_cache, self.capacity, self.engine.kv_block_tokens
        )
        self.decodes_since_prefill = 0
        self.busy_until = NEVER  # end of the iteration that it is inside, -1 = inside none
        self.step_decodes: Requests = []  # the requests of that iteration
        self.step_chunks: list[tuple[ReferenceRequest, int]] = []

    @property
    def takes(self) -> bool:
        """Elastic fleets: whether it takes new requests."""
        return self.up and not self.draining

    @property
    def here(self) -> Requests:
        """All that wait here; Ingress: in either place."""
        return self.queue.requests + self.line

    @property
    def waiting(self) -> Requests:
        """All that wait, as it is seen; Elastic fleets: those under way to it among them."""
        return self.here + [request for _, request in self.coming]

    @property
    def requests(self) -> Requests:
        """All that are here, or under way."""
        return self.in_service + self.waiting

    def occupancy(self, tokens: int) -> int:
        """KV occupancy: rounded up to whole blocks."""
        block = self.engine.kv_block_tokens
        return (tokens + block - 1) // block * block

    @property
    def occupied(self) -> int:
        """Sum of the occupancies in service, tokens."""
        return sum(self.occupancy(request.tokens) for request in self.in_service)

    def serves(self, request: ReferenceRequest) -> bool:
        """Requests: whether it has the model, and serves the tier."""
        lane = getattr(self.engine, "lane", "any")
        if lane != "any" and (lane == "batch") != (request.tier == LAST_TIER):
            return False
        return request.model == "" or self.engine.model in ("", request.model)

    def has_room(self, request: ReferenceRequest) -> bool:
        """Rejection: whether the request can ever be held here.

        Its largest occupancy in an iteration is taken in whole blocks: else it could stick.
        """
        largest = self.occupancy(request.prompt + request.output - 1)
        return largest <= self.capacity - self.watermark

    def fits(self, request: ReferenceRequest) -> bool:
        """To fit an instance, a request needs the model and the room."""
        return self.serves(request) and self.has_room(request)

    def fail(self) -> Requests:
        """Failures: lose the iteration and everything that was here; give the requests."""
        lost = self.in_service + self.here
        for request in self.in_service:
            self.counters.serve(request, -1)
        self.queue.empty()
        self.begin_empty()
        self.up = False
        for request in lost:
            request.failures += 1
            request.instance, request.dispatch_ps = -1, NEVER
        return lost

    def start_iteration(self, now: int) -> None:
        """Plan the iteration that starts at `now`; stay idle where there is nothing to do."""
        self.step_decodes, self.step_chunks = [], []
        plan = {
            "prefill_first": self._plan_prefill_first,
            "chunked": self._plan_chunked,
            "slora": self._plan_slora,
            "static": self._plan_static,
        }[self.engine.batching]
        self.aside = []
        plan(now)
        self.aside = []
        cache = self.cache
        in_use = total_tokens(self.in_service)
        assert cache.freed - cache.taken == self.capacity - in_use, "freed - taken"
        if not self.step_decodes and not self.step_chunks:
            assert not self.in_service and not self.here, "idle with work at hand"
            return
        # Where `need` counts tokens, admission into whole blocks may go beyond the cache; the plan
        # tests only before that.
        if self.step_decodes and (self.engine.admission == "growth" or not self.step_chunks):
            assert self.occupied <= self.capacity, "decodes beyond the cache"
        self.decodes_since_prefill = 0 if self.step_chunks else self.decodes_since_prefill + 1
        duration = self._duration()
        assert duration > 0, "an iteration must take time"
        self.busy_until = now + duration

    def _plan_prefill_first(self, now: int, admits: bool = True) -> None:
        """Plan of an iteration, `prefill_first`; `admits`: whether step 1 is not left out."""
        total = 0
        while admits and (head := self._admissible_head(now, total)) is not None:
            tokens = head.tokens - self.cache.hit(head)
            if self.step_chunks and total + tokens > self.engine.max_batched_tokens:
                break
            total += tokens
            self._admit(head, now)
            self.step_chunks.append((head, tokens))
        if not self.step_chunks:
            self._preempt_as_needed()
            self.step_decodes = list(self.in_service)

    def _plan_slora(self, now: int) -> None:
        """Plan of an iteration, `slora`."""
        too_soon = self.decodes_since_prefill < self.engine.decode_steps
        self._plan_prefill_first(now, admits=not (self.in_service and too_soon))

    def _plan_static(self, now: int) -> None:
        """Plan of an iteration, `static`."""
        self._plan_prefill_first(now, admits=not self.in_service)

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
        while not preempted and budget > 0:
            head = self._admissible_head(now)
            if head is None:
                break
            chunk = min(head.tokens - self.cache.hit(head), budget)
            self._admit(head, now)
            self.step_chunks.append((head, chunk))
            budget -= chunk

    def _admissible_head(self, now: int, total: int = 0) -> ReferenceRequest | None:
        """Give the first of the waiting queue that may be admitted, past `skip_ahead` others.

        Admission policy: a head that goes beyond the token limit of the iteration, of which
        `total` are taken, does not fit for it, and ends the admission.

        Rate limit: those of killed interactions are rejected before, when they come to the head.
        """
        while (head := self.queue.head(now, self.aside)) is not None:
            if head.traits.interaction in self.killed:
                self._refuse(head, REJECTED_INTERACTION, now)
                continue
            fits = self._passes(head)
            verdict = LET_IN if fits else WAIT
            full = False
            if self.gateway is not None and self.gateway.looks:
                tokens = total + head.tokens - self.cache.hit(head)
                full = fits and total > 0 and tokens > self.engine.max_batched_tokens
                fits = fits and not full
                verdict = self.gateway.look(head, fits, now)
                if verdict == WAIT and fits and not self.in_service:
                    verdict = LET_IN
            if verdict == LET_IN:
                return head
            if verdict == WAIT and full:
                return None
            if verdict == WAIT:
                if len(self.aside) == self.engine.skip_ahead:
                    return None
                self.aside.append(head)
                continue
            assert self.gateway is not None
            self._refuse(head, REJECTED_GATE if verdict == TURN_AWAY else REJECTED_PATIENCE, now)
            if self.gateway.gate.kills_interactions:
                self.killed.add(head.traits.interaction)
            if verdict == TURN_AWAY and not fits and self.in_service:
                return None
        return None

    def _refuse(self, head: ReferenceRequest, status: int, now: int) -> None:
        self.queue.remove(head)
        self.counters.leave(head)
        if self.gateway is not None:
            self.gateway.finished(head, now)
        self.counters.depart(head)
        self.refused.append((head, status))

    def _passes(self, head: ReferenceRequest) -> bool:
        """Admission test of the head."""
        if len(self.in_service) >= self.engine.max_num_seqs:
            return False
        if not self.in_service:
            return self.occupancy(head.tokens) + self.watermark <= self.capacity
        requests = [*self.in_service, head]
        tenants = len({request.traits.tenant for request in requests})
        need = self._need(requests)
        return need + self.watermark + self.engine.adapter_tokens * tenants <= self.capacity

    def _need(self, requests: Requests) -> int:
        """What `need` is, is the option `admission`."""
        if self.engine.admission == "growth":
            return sum(self.occupancy(request.tokens) for request in requests)
        oracle = self.engine.admission == "oracle"
        remaining = [r.output - r.generated if oracle else r.predicted_remaining for r in requests]
        order = sorted(range(len(requests)), key=lambda k: -remaining[k])
        ranked = [requests[k] for k in order]
        return max(
            (k + 1) * remaining[order[k]] + total_tokens(ranked[: k + 1])
            for k in range(len(requests))
        )

    def _admit(self, request: ReferenceRequest, now: int) -> None:
        """Admission occupies p + g at once; the hit needs no prefill."""
        hit = self.cache.hit(request)
        assert 0 <= hit < request.tokens
        self.cached_tokens += hit
        self.queue.remove(request)
        request.to_prefill, request.prefilled = request.tokens, hit
        first = request.admit_ps == NEVER
        if first:
            request.admit_ps = now
        self.in_service.append(request)
        self.cache.admit(request)
        self.counters.admit(request, first)

    def _preempt_as_needed(self) -> bool:
        """Preemption: take the most recently admitted ones out; whether there were any."""
        before = len(self.in_service)
        while self.occupied > self.capacity:
            request = self.in_service.pop()
            request.preemptions += 1
            self.counters.serve(request, -1)
            self.cache.leave(request, preempted=True)
            self.queue.enter_preempted(request)
        return len(self.in_service) < before

    def _duration(self) -> int:
        """Step time of the planned iteration, ps."""
        tables = self.tables
        b = len(self.step_decodes)
        context = total_tokens(self.step_decodes)
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
        for request, chunk in self.step_chunks:
            request.prefilled += chunk
        completed = [request for request, _ in self.step_chunks if request.decoding]
        for request in self.step_decodes + completed:
            request.generated += 1
            assert request.generated <= request.output, "a token beyond the last one"
            if request.first_token_ps == NEVER:
                request.first_token_ps = now
        # Prefix cache: the tokens are taken first, then the finished leave one by one. All whose
        # prefill completes become users before anything leaves.
        self.cache.generate(len(self.step_decodes) + len(completed))
        for request in completed:
            self.cache.complete(request)
        return self._charge_and_leave(completed, now), bool(completed)

    def _charge_and_leave(self, completed: Requests, now: int) -> Requests:
        """Tenant counters: at the end of an iteration things are charged in this order."""
        finished: Requests = []

        def finish_if_last(request: ReferenceRequest) -> None:
            if request.generated == request.output:
                request.finish_ps, request.status = now, SERVED
                self.in_service.remove(request)
                self.cache.leave(request, preempted=False)
                finished.append(request)
                self.counters.serve(request, -1)
                self.counters.depart(request)
                self.counters.charge(FINISH, request)
                if self.gateway is not None:
                    interaction = self.counters.interaction(request)
                    interaction.served += 1
                    interaction.tokens += request.tokens
                    self.gateway.finished(request, now)

        for request in self.step_decodes:
            self.counters.charge(TOKENS, request, request.generated - 1, request.generated)
        for request in completed:
            self.counters.charge(TOKENS, request, request.generated - 1, request.generated)
            finish_if_last(request)
        for request in sorted(self.step_decodes, key=lambda request: request.index):
            finish_if_last(request)
        if finished and self.counters.scheduler.overcharge:
            for request in self.in_service:
                if request.decoding:
                    g = request.generated
                    self.counters.charge(TOKENS, request, g, g + 1)
        return finished
