"""The event loop: arrivals, router decisions and instances in time order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator import cache, queues
from envs.simulator.batch import turn_away
from envs.simulator.dispatch import receive, strip, take_in
from envs.simulator.events import mark_pending, schedule
from envs.simulator.instance import end_stretch
from envs.simulator.jit import compile_function, compiled, inlined
from envs.simulator.layout import (
    END,
    NEVER,
    PHASE_DECIDE,
    PHASE_NEXT,
    PHASE_START,
    PS_PER_S,
    REFILL,
    REJECTED_FLEET,
    REJECTED_INSTANCE,
    ROUTE,
)
from envs.simulator.memory import (
    FLOAT64_1D,
    HEADS,
    INT64_1D,
    all_requests,
    all_running,
    candidates,
    ended,
    engine,
    event_ps,
    instance,
    outage,
    outlived,
    output,
    pending,
    request,
    seen_instance,
    seen_instances,
    seen_outlived,
    seen_requests,
    seen_running,
    traits,
    winner,
)
from envs.simulator.planning import plan
from envs.simulator.policy import ROUTING_FUNCTION
from envs.simulator.prediction import predicted_remaining
from envs.simulator.view import iterations_done

_AREA_LIMIT = 2.0**62


@inlined
def _pass_time(s: Any, time_ps: int) -> None:
    """Move the clock; the integral of requests in the system is exact until it would overflow."""
    dt, system = time_ps - s.now_ps, s.queued + s.at_instances
    # A float product tells whether the exact one fits; a division would cost more than the rest.
    area = float(dt) * system
    if s.area_ps + area < _AREA_LIMIT:
        s.area_ps += dt * system
    else:
        s.area_s += (s.area_ps + area) / PS_PER_S
        s.area_ps = 0
    s.now_ps = time_ps


@inlined
def _join_router_queue(s: Any, r: int) -> None:
    row = request(s, r)
    # A list is in order of arrival already; where requests can come back, it is a heap.
    row.key = row.arrival_ps if s.router_order == 0 else row.predicted
    queues.push(s, s.size, r)
    s.queued += 1
    s.queued_tokens += row.prompt + row.generated
    s.queued_predicted += predicted_remaining(row, row.generated)


@compiled
def request_fits(s: Any, r: int, i: int) -> bool:
    """Whether instance i can ever serve the request."""
    inst, row = instance(s, i), request(s, r)
    if row.prompt + output(s)[r] - 1 > inst.room:
        return False
    return inst.model < 0 or row.model < 0 or inst.model == row.model


@inlined
def _fits_some(s: Any, r: int) -> bool:
    if s.models == 0:
        return request(s, r).prompt + output(s)[r] - 1 <= s.largest_request
    for i in range(s.size):
        if request_fits(s, r, i):
            return True
    return False


@compiled
def _arrive(s: Any, r: int) -> None:
    row = request(s, r)
    s.arrived += 1
    s.trigger = 1
    s.events += 1
    if s.poll_ps > 0:
        all_seen = seen_requests(s)
        all_seen[r] = row
    if _fits_some(s, r):
        _join_router_queue(s, r)
    else:
        row.status = REJECTED_FLEET
        s.rejected += 1


@inlined
def _next_time(s: Any) -> int:
    time = event_ps(s)[winner(s)[1]]
    if s.next_arrival < s.count:
        time = min(time, request(s, s.next_arrival).arrival_ps)
    if s.closed == 1 and engine(s, s.size + 1).root >= 0:
        time = min(time, request(s, engine(s, s.size + 1).root).key)
    if s.next_outage < s.outage_count:
        time = min(time, outage(s, s.next_outage).time_ps)
    if s.poll_ps > 0 and s.stale == 1:
        time = min(time, (s.now_ps // s.poll_ps + 1) * s.poll_ps)
    if s.interval_ps > 0 and s.queued > 0:
        tick = (s.now_ps + s.interval_ps - 1) // s.interval_ps * s.interval_ps
        if tick <= s.last_tick_ps:
            tick = s.last_tick_ps + s.interval_ps
        time = min(time, tick)
    return time


@compiled
def _fail(s: Any, i: int) -> None:
    r = strip(s, i)
    if engine(s, i).caches == 1:
        cache.forget(s, i)
    schedule(s, i, NEVER)
    while r >= 0:
        row = request(s, r)
        following = row.right
        row.instance = -1
        row.dispatch_ps = -1
        row.failures += 1
        s.at_instances -= 1
        _join_router_queue(s, r)
        r = following


@compiled
def _fail_and_recover(s: Any) -> None:
    while s.next_outage < s.outage_count and outage(s, s.next_outage).time_ps == s.now_ps:
        change = outage(s, s.next_outage)
        instance(s, change.instance).down = change.down
        if change.down == 1:
            _fail(s, change.instance)
        s.next_outage += 1
        s.trigger = 1
        s.stale = 1


@compiled
def _open_arrivals(s: Any) -> int:
    """The next request that waits for no other, if it arrives now, else -1."""
    while s.next_arrival < s.count and traits(s, s.next_arrival).follows == 1:
        s.next_arrival += 1
    if s.next_arrival < s.count and request(s, s.next_arrival).arrival_ps == s.now_ps:
        return s.next_arrival
    return -1


@compiled
def _open_ingresses(s: Any) -> None:
    for j in range(s.ended_count):
        i = ended(s)[j]
        take_in(s, i, engine(s, i).intake)
    s.ended_count = 0


@compiled
def _arrivals_of_clients(s: Any) -> None:
    """Requests that arrive now, by index: of the trace, and calls of closed-loop clients."""
    while True:
        r, clients = _open_arrivals(s), engine(s, s.size + 1)
        if clients.root >= 0 and request(s, clients.root).key == s.now_ps:
            if r < 0 or clients.root < r:
                r = queues.pop(s, s.size + 1)
                request(s, r).arrival_ps = s.now_ps
                _arrive(s, r)
                continue
        if r < 0:
            return
        s.next_arrival += 1
        _arrive(s, r)
        _open_arrivals(s)


@compiled
def _look(s: Any) -> None:
    """The router looks at the instances; what it sees stands still until it looks again."""
    seen, requests, seen_rows = seen_instances(s), all_requests(s), seen_requests(s)
    running, seen_places = all_running(s), seen_running(s)
    for i in range(s.size):
        seen[i] = instance(s, i)
        done = iterations_done(seen, i, s.now_ps)
        row = seen_instance(s, i)
        row.context += done * row.stretch_batch
        row.iteration += done
        row.stretch_batch = 0
        limits, seen_limits = outlived(s, i), seen_outlived(s, i)
        for j in range(row.decoding + row.prefilling):
            r = running[i, j]
            seen_places[i, j] = r
            seen_limits[j] = limits[j]
            seen_rows[r] = requests[r]
    s.last_look_ps = s.now_ps
    s.stale = 1 if s.at_instances > 0 else 0
    s.trigger = 1


@compiled
def _happen(s: Any, time_ps: int) -> None:
    """What happens at an instant before decisions: iterations end, then requests arrive."""
    _pass_time(s, time_ps)
    s.trigger = 0
    times, winners = event_ps(s), winner(s)
    while times[winners[1]] == time_ps:
        i = winners[1]
        end_stretch(s, i)
        mark_pending(s, i)
        s.stale = 1
        if s.ingress == 1:
            ended(s)[s.ended_count] = i
            s.ended_count += 1
    if s.outage_count > 0:
        _fail_and_recover(s)
    if s.ended_count > 0:
        _open_ingresses(s)
    if s.closed == 1:
        _arrivals_of_clients(s)
    else:
        while s.next_arrival < s.count and request(s, s.next_arrival).arrival_ps == time_ps:
            _arrive(s, s.next_arrival)
            s.next_arrival += 1
    if s.poll_ps > 0 and time_ps % s.poll_ps == 0 and s.stale == 1:
        _look(s)
    if s.trigger == 1:
        s.held = 0
    s.tick_due = 0
    if s.interval_ps > 0 and time_ps % s.interval_ps == 0:
        s.tick_due = 1
        s.last_tick_ps = time_ps


@inlined
def _decision_due(s: Any) -> bool:
    if s.queued == 0:
        return False
    return s.tick_due == 1 if s.interval_ps > 0 else s.held == 0


@compiled
def _place_for(s: Any, r: int) -> int:
    """The first instance that is up and fits the request, -1 where there is none."""
    for i in range(s.size):
        if instance(s, i).down == 0 and request_fits(s, r, i):
            return i
    return -1


@compiled
def _stuck(s: Any) -> bool:
    """Whether requests are held though nothing is left to happen."""
    if s.held == 0 or s.queued == 0 or s.at_instances > 0:
        return False
    queues.peek(s, s.size, s.queued, candidates(s))
    return _place_for(s, candidates(s)[0]) >= 0


@compiled
def _sort(values: np.ndarray, count: int) -> None:
    """Sort the first few numbers in place."""
    for j in range(1, count):
        value, place = values[j], j
        while place > 0 and values[place - 1] > value:
            values[place] = values[place - 1]
            place -= 1
        values[place] = value


@inlined
def _start(s: Any) -> None:
    """Have the instances that are inside no iteration plan, by index where they share counters."""
    waiting = pending(s)
    if s.pending_count > 1 and (s.counted == 1 or s.limit > 0):
        _sort(waiting, s.pending_count)
    for j in range(s.pending_count):
        i = waiting[j]
        engine(s, i).pending = 0
        plan(s, i)
    s.pending_count = 0


@compiled
def proceed(s: Any) -> int:
    """Run until a routing decision is due (ROUTE; `candidates` is filled) or all is done (END).

    REFILL: the arrays hold no more requests, but more are to come.
    """
    s.due = 0
    while s.overflow == 0:
        if s.phase == PHASE_DECIDE:
            if _decision_due(s):
                if s.window == 1:
                    candidates(s)[0] = engine(s, s.size).root
                else:
                    queues.peek(s, s.size, s.queued, candidates(s))
                s.due = 1
                return ROUTE
            s.phase = PHASE_START
        if s.phase == PHASE_START:
            _start(s)
            s.phase = PHASE_NEXT
        if s.more == 1 and s.next_arrival == s.count:
            return REFILL
        time = _next_time(s)
        if time == NEVER:
            if not _stuck(s):
                return END
            s.held = 0
        else:
            _happen(s, time)
        s.phase = PHASE_DECIDE
    return END


@compiled
def carry_out(s: Any, action: int) -> bool:
    """Carry out a decision: `place * N + instance` dispatches, anything else holds.

    Returns:
        Whether the action was carried out as given; a hold with nothing in service, which
        could stick, becomes a dispatch of the head. Where no decision is due, nothing happens.
    """
    if s.due == 0:
        return False
    s.due = 0
    queue = candidates(s)
    s.decisions += 1
    s.tick_due = 0
    place, i = -1, -1
    if 0 <= action < s.window * s.size:
        place, i = 0, action
        if action >= s.size:
            place, i = action // s.size, action % s.size
        if queue[place] < 0 or not _can_dispatch(s, queue[place], i):
            place = -1
    obeyed = True
    if place < 0:
        if s.at_instances == 0:
            i = _place_for(s, queue[0])
        if s.at_instances > 0 or i < 0:
            s.held = 1
            return True
        obeyed = False
        s.forced += 1
        place = 0
    r = queue[place]
    queues.remove(s, s.size, queue, place)
    row = request(s, r)
    s.queued -= 1
    s.queued_tokens -= row.prompt + row.generated
    s.queued_predicted -= predicted_remaining(row, row.generated)
    if request_fits(s, r, i):
        receive(s, i, r)
    else:
        turn_away(s, r, REJECTED_INSTANCE)
        s.misrouted += 1
    return obeyed


@inlined
def _can_dispatch(s: Any, r: int, i: int) -> bool:
    """Whether instance i is up and serves the request's model."""
    inst, row = instance(s, i), request(s, r)
    return inst.down == 0 and (inst.model < 0 or row.model < 0 or inst.model == row.model)


def _advance(heads: np.ndarray) -> int:
    """`proceed` for Python: heads is (1,)."""
    return proceed(heads[0])


def _apply(heads: np.ndarray, action: int) -> bool:
    """`carry_out` for Python: heads is (1,)."""
    return carry_out(heads[0], action)


def _run(heads: np.ndarray, decide: Any, parameters: np.ndarray, memory: np.ndarray) -> int:
    """Run with a compiled policy in one machine-code loop, to END or REFILL."""
    s = heads[0]
    instances, requests, running = seen_instances(s), seen_requests(s), seen_running(s)
    queue = candidates(s)
    why = proceed(s)
    while why == ROUTE:
        action = decide(s.now_ps, instances, requests, running, queue, parameters, memory)
        carry_out(s, action)
        why = proceed(s)
    return why


advance = compile_function(_advance, types.int64(HEADS))
apply = compile_function(_apply, types.boolean(HEADS, types.int64))
run = compile_function(_run, types.int64(HEADS, ROUTING_FUNCTION, FLOAT64_1D, INT64_1D))
