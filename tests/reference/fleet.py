"""The router queue and the instances (docs/simulator.md, "The fleet")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.reference.clients import Clients, RateLimit
from tests.reference.elastic import Backlogs, allowed, change
from tests.reference.gateway import Gateway
from tests.reference.instance import ReferenceInstance
from tests.reference.look import FleetOptions, Look, Policy, ReferenceView
from tests.reference.request import (
    NEVER,
    REJECTED_FLEET,
    REJECTED_INSTANCE,
    ReferenceRequest,
    Requests,
    total_tokens,
)
from tests.reference.scheduler import Counters, resolve


class Fleet:
    """Everything at one moment, and how it goes on."""

    def __init__(
        self,
        clients: Clients,
        engines: Sequence[Any],
        policy: Policy,
        tenant_weights: Sequence[float],
        options: FleetOptions,
    ) -> None:
        self.clients = clients
        self.policy = policy
        self.options = options
        self.limit = RateLimit(options.rate_limit)
        self.counters = Counters(tenant_weights, [resolve(engine.queue) for engine in engines])
        self.gateway = None
        if options.gate is not None:
            self.gateway = Gateway(options.gate, options.retry, self.counters, self.limit.killed)
        self.instances = [
            ReferenceInstance(engine, self.counters, self.limit.killed, self.gateway)
            for engine in engines
        ]
        if self.gateway is not None:
            self.gateway.instances = self.instances
        # Failures: the recovery (0) comes before the failure (1) of an instance.
        failures = [(start, i, 1) for i, start, _ in options.outages]
        recoveries = [(end, i, 0) for i, _, end in options.outages]
        self.fleet_events = sorted(failures + recoveries)
        self.engines = engines
        self.given = [
            ReferenceInstance(engine, self.counters, self.limit.killed, None) for engine in engines
        ]
        self.stranded: Requests = []  # Elastic fleets: those that no ready instance fits
        self.backlogs = Backlogs(options.elastic.backlog, engines)
        self.changes = sorted(options.elastic.changes, key=lambda change: change[0])
        self.pooled: Requests = []  # those that have come to a pool
        self.finished_now: Requests = []
        self.arrived: Requests = []
        self.queue: Requests = []
        self.served: Requests = []
        self.rejected: Requests = []
        self.held = False
        self.happens = True  # whether more than changes of the fleet is to happen
        self.last_look = self._look_now()  # Staleness: at time 0, at an empty fleet
        self.changed = False  # whether any instance changed since then
        self.decisions: list[tuple[ReferenceView, int]] = []
        self.integral = 0

    def run(self) -> None:
        """Go from instant to instant until nothing is left to happen."""
        now = 0
        while (instant := self._next_instant(now)) is not None:
            self.integral += len(self._in_system()) * (instant - now)
            now = self.counters.now = instant
            if self.happens:
                self._happen(now)
            else:
                self._change_fleet(now)
            self._check_conservation()
        assert not self._at_instances(), "stopped with work at hand"

    def _happen(self, now: int) -> None:
        """All that happens at an instant, in this order."""
        ended = self._end_iterations(now)
        self._fail_and_recover(now)
        for instance in ended:
            self._take_in(instance, instance.engine.intake_per_iteration, now)
        self._release(self.backlogs.signal(self.instances, self.finished_now), now)
        self._deliver(now)
        self._arrivals(now)
        self._poll(now)
        self._attend(now)
        self._decide_while_due(now)
        self._plan(now)

    def _next_instant(self, now: int) -> int | None:
        if not self._in_system() and self.clients.next_arrival() is None:
            return None  # the end: an outage still to come changes nothing
        interval = self.options.interval_ps
        instants = self._instants(now)
        if not instants and self._first_fit() is not None:
            # Rejection: nothing is left to happen, so the hold is lifted at this instant.
            assert self.held, "queued but neither due nor held"
            self.held, self.happens = False, True
            return now
        self.happens = bool(instants)
        if self.changes and (not instants or self.changes[0][0] < min(instants)):
            self.happens = False  # Elastic fleets: nothing but changes at this instant
            return self.changes[0][0]
        if not instants and self.backlogs.requests:
            # Elastic fleets: nothing else is left to happen. A clock decides at its next tick.
            self._release(self.backlogs.release_all(), now)
            self.happens = True
            return now if interval == 0 else self._next_instant(now)
        return min(instants, default=None)

    def _instants(self, now: int) -> list[int]:
        """When something happens by itself next, of each kind."""
        interval, poll = self.options.interval_ps, self.options.poll_ps
        instants = [i.busy_until for i in self.instances if i.busy_until != NEVER]
        instants += [time for time, _, _ in self.fleet_events[:1]]
        instants += [time for instance in self.instances for time, _ in instance.coming]
        if (arrival := self.clients.next_arrival()) is not None:
            instants.append(arrival)
        if poll > 0 and (self._at_instances() or self.changed):
            instants.append((now // poll + 1) * poll)
        # Elastic fleets: the clock stands still where nothing but holds is left to happen.
        holds = self.held and self._first_fit() is None
        if interval > 0 and self.queue and (instants or not holds):
            instants.append((now // interval + 1) * interval)
        return instants

    def _first_fit(self) -> int | None:
        """The first instance that is up and fits the head of the router queue, None without."""
        for i, instance in enumerate(self.instances):
            if self.queue and instance.takes and instance.fits(self.queue[0]):
                return i
        return None

    def _end_iterations(self, now: int) -> list[ReferenceInstance]:
        """Step 1: every iteration that ends now ends; the instances whose iteration it was."""
        ended = [instance for instance in self.instances if instance.busy_until == now]
        self.finished_now = []
        for instance in ended:
            finished, completed_prefill = instance.end_iteration(now)
            self.changed = True
            self.served += finished
            self.finished_now += finished
            for request in finished:
                self.clients.finished(request, now)
            if finished or completed_prefill:
                self.held = False
        return ended

    def _fail_and_recover(self, now: int) -> None:
        """Step 1: then instances fail or recover."""
        while self.fleet_events and self.fleet_events[0][0] == now:
            _, i, failure = self.fleet_events.pop(0)
            self.held, self.changed = False, True
            if failure:
                self.queue += self.instances[i].fail()
                self._sort_queue()
            else:
                self.instances[i].up = True

    def _take_in(self, instance: ReferenceInstance, count: int, now: int) -> None:
        """Ingress: the first of the line enter the waiting queue, or are rejected."""
        for request in instance.line[:count]:
            instance.line.remove(request)
            self._enter(request, instance, now)

    def _enter(self, request: ReferenceRequest, instance: ReferenceInstance, now: int) -> None:
        """Rate limit: a request that is about to enter a waiting queue."""
        self.changed = True
        if (status := self.limit.refuses(request, now)) is not None:
            if self.gateway is not None:
                self.gateway.finished(request, now)
            self.counters.depart(request)
            self._reject(request, status, now)
        else:
            instance.queue.enter(request, now)

    def _release(self, released: Requests, now: int) -> None:
        """Elastic fleets: some of a backlog enter the router queue."""
        self.queue += released
        self._sort_queue()
        if released:
            self.held = False

    def _deliver(self, now: int) -> None:
        """Elastic fleets: those that get to their instance now enter there, or turn back."""
        here = [r for i in self.instances for time, r in i.coming if time == now]
        for request in sorted(here, key=lambda request: request.index):
            instance = self.instances[request.instance]
            instance.coming.remove((now, request))
            self.held, self.changed = False, True
            if instance.takes and instance.fits(request):
                self._get_there(request, instance, now)
            else:
                request.instance, request.dispatch_ps = -1, NEVER
                self.queue.append(request)
        self._sort_queue()

    def _change_fleet(self, now: int) -> None:
        """Elastic fleets: what the caller changes after everything else of this instant."""
        changed = False
        while self.changes and self.changes[0][0] == now:
            _, kind, i, pattern = self.changes[0]
            self.changes = self.changes[1:]
            if kind == "pull":
                self._release(self.backlogs.pull(self.instances, now), now)
            elif allowed(self.instances[i], kind, self.engines, i, pattern):
                self.queue += change(self.instances[i], kind, self.engines, i, pattern)
            else:
                continue
            changed = True
        if changed:
            self._begin_anew(now)

    def _begin_anew(self, now: int) -> None:
        """Elastic fleets: after changes the hold is lifted, and decisions are due."""
        self.queue += self.stranded
        self.stranded = []
        self._sort_queue()
        self.held, self.changed = False, True
        if self.options.interval_ps == 0:
            self._decide_while_due(now)
        self._plan(now)

    def _arrivals(self, now: int) -> None:
        """Step 2: requests enter the router queue, or are rejected on arrival."""
        for request in self.clients.arrivals(now):
            if request.logged_ps == NEVER:
                self.arrived.append(request)
            self.held = False
            if not any(instance.fits(request) for instance in self.given):
                self._reject(request, REJECTED_FLEET, now)
                continue
            if request.logged_ps == NEVER:
                self.pooled.append(request)
            if self.gateway is not None:
                self.gateway.come(request, now)
            elif self.backlogs.holds(request):
                request.since = now
                self.backlogs.requests.append(request)
            else:
                request.since = now
                self.queue.append(request)
        self._sort_queue()

    def _attend(self, now: int) -> None:
        """Admission policy: it judges the calls that have come."""
        if self.gateway is None:
            return
        let_in, again, rejected = self.gateway.attend(now)
        for request in let_in:
            request.since = now
            self.queue.append(request)
        self._sort_queue()
        self.clients.send_again(again)
        for request, status in rejected:
            self._reject(request, status, now)

    def _sort_queue(self) -> None:
        if self.options.queue_order == "sjf":
            self.queue.sort(key=lambda request: (request.predicted, request.index))
        else:
            self.queue.sort(key=lambda request: (request.arrival_ps, request.index))

    def _poll(self, now: int) -> None:
        """Step 2: then, at a poll time, the router looks at the instances (Staleness)."""
        poll = self.options.poll_ps
        if poll > 0 and now % poll == 0 and (self._at_instances() or self.changed):
            self.last_look = self._look_now()
            self.changed = self.held = False

    def _decide_while_due(self, now: int) -> None:
        """Step 3: clocked, one decision at a multiple of the interval; else while not held."""
        interval = self.options.interval_ps
        if interval > 0 and now % interval == 0:
            self._strand()
            if self.queue:
                self._decide(now)
        while interval == 0 and self.queue and not self.held:
            self._strand()
            if self.queue:
                self._decide(now)

    def _strand(self) -> None:
        """Elastic fleets: set aside what no ready instance fits, at the head of the queue."""
        while self.options.elastic.changes and self.queue and self._first_fit() is None:
            self.stranded.append(self.queue.pop(0))

    def _plan(self, now: int) -> None:
        """Step 4: every instance that is not inside an iteration plans and starts its next one."""
        for instance in self.instances:
            if instance.up and instance.busy_until == NEVER:
                if not instance.in_service:
                    self._take_in(instance, len(instance.line), now)
                instance.start_iteration(now)
                for request, status in instance.refused:
                    self.changed = True
                    self._reject(request, status, now)
                instance.refused.clear()

    def _decide(self, now: int) -> None:
        """One decision, with "A hold can't stick" and "Rejection"."""
        window = self.options.window
        look = self._look_now() if self.options.poll_ps == 0 else self.last_look
        indices = [request.index for request in self.queue[:window]]
        view = ReferenceView(
            now_ps=now, candidates=indices + [-1] * (window - len(indices)), **vars(look)
        )
        action = int(self.policy(view))
        self.decisions.append((view, action))
        position, target = divmod(action, len(self.instances))
        if 0 <= position < window and position < len(self.queue):
            instance = self.instances[target]
            if instance.takes and instance.serves(self.queue[position]):
                self._dispatch(self.queue[position], target, now)
                return
        first = self._first_fit()
        if first is not None and not self._at_instances():
            self._dispatch(self.queue[0], first, now)
        else:
            self.held = True

    def _dispatch(self, request: ReferenceRequest, target: int, now: int) -> None:
        instance = self.instances[target]
        self.queue.remove(request)
        if not instance.has_room(request):
            if self.gateway is not None:
                self.gateway.finished(request, now)
            self.counters.depart(request)
            self._reject(request, REJECTED_INSTANCE, now)
        else:
            request.dispatch_ps, request.instance = now, target
            network = self.options.elastic.network_ps
            delay = network.get((request.region, instance.engine.region), 0)
            if delay > 0:
                instance.coming.append((now + delay, request))
                self.changed = True
            else:
                self._get_there(request, instance, now)

    def _get_there(self, request: ReferenceRequest, instance: ReferenceInstance, now: int) -> None:
        """Ingress: a request stands in line first, where there is one."""
        if instance.engine.intake_per_iteration > 0:
            instance.line.append(request)
            self.changed = True
        else:
            self._enter(request, instance, now)

    def _reject(self, request: ReferenceRequest, status: int, now: int) -> None:
        """Rejection: no instance and no times after arrival."""
        request.status = status
        request.instance = -1
        request.dispatch_ps = request.admit_ps = request.first_token_ps = NEVER
        self.rejected.append(request)
        # The integral counts accepted requests only: take its time in the system out again.
        if request.since != NEVER:
            self.integral -= now - request.since

    def _look_now(self) -> Look:
        fleet = self.instances
        return Look(
            running=[[(r.index, r.generated) for r in i.in_service] for i in fleet],
            waiting=[[(r.index, r.generated) for r in i.waiting] for i in fleet],
            kv_tokens=[total_tokens(i.in_service) for i in fleet],
            waiting_tokens=[total_tokens(i.waiting) for i in fleet],
            predicted_remaining=[sum(r.predicted_remaining for r in i.requests) for i in fleet],
        )

    def _at_instances(self) -> Requests:
        return [request for instance in self.instances for request in instance.requests]

    def _in_system(self) -> Requests:
        return self.queue + self.stranded + self._at_instances() + self.backlogs.requests

    def _check_conservation(self) -> None:
        """Identities: every arrived request is in exactly one place, every tenant counted right."""
        places = self.served + self.rejected + self._in_system() + self.clients.waiting
        arrived = sorted(request.index for request in self.arrived)
        assert sorted(request.index for request in places) == arrived, "conservation"
        queued = [r.traits.tenant for i in self.instances for r in i.queue.requests]
        for code, tenant in enumerate(self.counters.tenants):
            assert tenant.queued == queued.count(code), "requests of a tenant in waiting queues"
