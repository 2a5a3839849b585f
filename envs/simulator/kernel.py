"""The event loop: arrivals, router decisions and instances in time order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator import queues
from envs.simulator.instance import end_stretch, mark_pending, plan, receive
from envs.simulator.jit import compile_function, compiled
from envs.simulator.memory import (
    FLOAT64_1D,
    HEADS,
    INT64_1D,
    all_instances,
    all_requests,
    all_running,
    candidates,
    engine,
    event_ps,
    instance,
    output,
    pending,
    request,
    winner,
)
from envs.simulator.policy import ROUTING_FUNCTION
from envs.simulator.state import (
    END,
    FCFS,
    NEVER,
    PHASE_DECIDE,
    PHASE_NEXT,
    PHASE_START,
    PS_PER_S,
    REJECTED_FLEET,
    REJECTED_INSTANCE,
    ROUTE,
)

_AREA_LIMIT = 2**61


@compiled
def _pass_time(s: Any, time_ps: int) -> None:
    """Move the clock; the integral of requests in the system is exact until it would overflow."""
    dt, system = time_ps - s.now_ps, s.queued + s.at_instances
    if system > 0:
        if dt > (_AREA_LIMIT - s.area_ps) // system:
            s.area_s += s.area_ps / PS_PER_S
            s.area_ps = 0
        if dt > _AREA_LIMIT // system:
            s.area_s += float(dt) * system / PS_PER_S
        else:
            s.area_ps += dt * system
    s.now_ps = time_ps


@compiled
def _arrive(s: Any, r: int) -> None:
    row = request(s, r)
    if row.prompt + output(s)[r] - 1 > s.largest_request:
        row.status = REJECTED_FLEET
        s.rejected += 1
        return
    if engine(s, s.size).order != FCFS:
        row.key = row.predicted
    queues.push(s, s.size, r)
    s.queued += 1
    s.queued_tokens += row.prompt
    s.queued_predicted += row.predicted


@compiled
def _next_time(s: Any) -> int:
    time = event_ps(s)[winner(s)[1]]
    if s.next_arrival < s.count:
        time = min(time, request(s, s.next_arrival).arrival_ps)
    if s.interval_ps > 0 and s.queued > 0:
        tick = (s.now_ps + s.interval_ps - 1) // s.interval_ps * s.interval_ps
        if tick <= s.last_tick_ps:
            tick = s.last_tick_ps + s.interval_ps
        time = min(time, tick)
    return time


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
    while s.next_arrival < s.count and request(s, s.next_arrival).arrival_ps == time_ps:
        _arrive(s, s.next_arrival)
        s.next_arrival += 1
        s.trigger = 1
        s.events += 1
    if s.trigger == 1:
        s.held = 0
    s.tick_due = 0
    if s.interval_ps > 0 and time_ps % s.interval_ps == 0:
        s.tick_due = 1
        s.last_tick_ps = time_ps


@compiled
def _decision_due(s: Any) -> bool:
    if s.queued == 0:
        return False
    return s.tick_due == 1 if s.interval_ps > 0 else s.held == 0


@compiled
def proceed(s: Any) -> int:
    """Run until a routing decision is due (ROUTE; `candidates` is filled) or all is done (END)."""
    s.due = 0
    while s.overflow == 0:
        if s.phase == PHASE_DECIDE:
            if _decision_due(s):
                queues.peek(s, s.size, s.queued, candidates(s))
                s.due = 1
                return ROUTE
            s.phase = PHASE_START
        if s.phase == PHASE_START:
            for j in range(s.pending_count):
                i = pending(s)[j]
                engine(s, i).pending = 0
                plan(s, i)
            s.pending_count = 0
            s.phase = PHASE_NEXT
        time = _next_time(s)
        if time == NEVER:
            return END
        _happen(s, time)
        s.phase = PHASE_DECIDE
    return END


@compiled
def request_fits(s: Any, r: int, i: int) -> bool:
    """Whether instance i can ever serve the request."""
    inst = instance(s, i)
    return request(s, r).prompt + output(s)[r] - 1 <= inst.kv_capacity - inst.watermark


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
        place, i = action // s.size, action % s.size
        if queue[place] < 0:
            place = -1
    obeyed = True
    if place < 0:
        if s.at_instances > 0:
            s.held = 1
            return True
        obeyed = False
        s.forced += 1
        place, i = 0, 0
        while not request_fits(s, queue[0], i):
            i += 1
    r = queue[place]
    queues.remove(s, s.size, queue, place)
    row = request(s, r)
    s.queued -= 1
    s.queued_tokens -= row.prompt
    s.queued_predicted -= row.predicted
    if request_fits(s, r, i):
        receive(s, i, r)
    else:
        row.status = REJECTED_INSTANCE
        s.rejected += 1
        s.misrouted += 1
    return obeyed


def _advance(heads: np.ndarray) -> int:
    """`proceed` for Python: heads is (1,)."""
    return proceed(heads[0])


def _apply(heads: np.ndarray, action: int) -> bool:
    """`carry_out` for Python: heads is (1,)."""
    return carry_out(heads[0], action)


def _run(heads: np.ndarray, decide: Any, parameters: np.ndarray, memory: np.ndarray) -> None:
    """Run to the end with a compiled policy: one machine-code loop, whatever the policy."""
    s = heads[0]
    instances, requests, running = all_instances(s), all_requests(s), all_running(s)
    queue = candidates(s)
    while proceed(s) == ROUTE:
        action = decide(s.now_ps, instances, requests, running, queue, parameters, memory)
        carry_out(s, action)


advance = compile_function(_advance, types.int64(HEADS))
apply = compile_function(_apply, types.boolean(HEADS, types.int64))
run = compile_function(_run, types.void(HEADS, ROUTING_FUNCTION, FLOAT64_1D, INT64_1D))
