"""The event loop: arrivals, router decisions and instances in time order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator import gateway, pools, queues, tenants, transit
from envs.simulator.batch import turn_away
from envs.simulator.dispatch import receive
from envs.simulator.instants import happen, next_time, pass_time
from envs.simulator.jit import EntryPoint, compiled, inlined
from envs.simulator.judging import tell
from envs.simulator.layout import (
    ADMISSION,
    END,
    NEVER,
    PAUSE,
    PHASE_DECIDE,
    PHASE_NEXT,
    PHASE_START,
    REFILL,
    REJECTED_INSTANCE,
    ROUTE,
)
from envs.simulator.memory import (
    FLOAT64_1D,
    HEADS,
    INT64_1D,
    all_candidates,
    candidates,
    engine,
    head_of,
    pending,
    request,
    seen_instances,
    seen_requests,
    seen_running,
    traits,
)
from envs.simulator.order import sort_in_place
from envs.simulator.outcomes import note_turned_away
from envs.simulator.planning import plan
from envs.simulator.policy import ROUTING_FUNCTION
from envs.simulator.prediction import predicted_remaining
from envs.simulator.router_queue import can_dispatch, place_for, request_fits, strand


@inlined
def _decision_due(s: Any) -> bool:
    if s.queued == 0:
        return False
    return s.tick_due == 1 if s.interval_ps > 0 else s.held == 0


@inlined
def _all_arrived(s: Any) -> bool:
    if s.next_arrival < s.count or s.more == 1:
        return False
    return s.closed == 0 or engine(s, s.size + 1).root < 0


@compiled
def _stuck(s: Any) -> bool:
    """Whether requests are held though nothing is left to happen."""
    if s.held == 0 or s.queued == 0 or s.at_instances > 0:
        return False
    queues.peek(s, s.size, s.queued, candidates(s))
    return place_for(s, candidates(s)[0]) >= 0


@compiled
def begin_anew(s: Any) -> None:
    """Have the router decide anew at this instant, on a clock at the tick after it."""
    s.held = 0
    s.tick_due = 0
    if s.interval_ps > 0 and s.now_ps % s.interval_ps == 0:
        s.last_tick_ps = s.now_ps


@inlined
def proceed(s: Any) -> int:
    """Run until a routing decision is due (ROUTE; `candidates` is filled) or all is done (END).

    REFILL: the arrays hold no more requests, but more are to come. ADMISSION: a decision on the
    call at the head of the gate's queue is due. PAUSE: nothing more happens up to `pause_ps`.
    """
    s.due = 0
    while s.overflow == 0:
        if s.phase == PHASE_DECIDE:
            if s.gated == 1 and engine(s, s.size + 2).root >= 0 and gateway.attend(s) >= 0:
                s.due = 2
                return ADMISSION
            if s.elastic == 1 and _decision_due(s):
                strand(s)
            if _decision_due(s):
                if s.window == 1:
                    candidates(s)[0] = engine(s, s.size).root
                else:
                    queues.peek(s, s.size, s.queued, candidates(s))
                s.due = 1
                return ROUTE
            s.phase = PHASE_START
        if s.phase == PHASE_START:
            waiting = pending(s)
            if s.pending_count > 1 and s.counted + s.limit + s.gated > 0:
                sort_in_place(waiting, s.pending_count)  # they share counters
            for j in range(s.pending_count):
                engine(s, waiting[j]).pending = 0
                plan(s, waiting[j])
            s.pending_count = 0
            s.phase = PHASE_NEXT
        if s.more == 1 and s.next_arrival == s.count:
            return REFILL
        waiting_off = s.backlogged + s.stranded
        if s.queued + s.at_instances + waiting_off == 0 and _all_arrived(s):
            return END  # an outage still to come changes nothing
        time = next_time(s)
        if time == NEVER and _stuck(s):
            s.held = 0
        elif time == NEVER and (s.elastic == 0 or s.pause_ps == NEVER):
            if s.backlogged == 0:
                return END
            pools.release_all(s)
            begin_anew(s)
        elif time > s.pause_ps:
            pass_time(s, max(s.pause_ps, s.now_ps))
            return PAUSE
        else:
            happen(s, time)
        s.phase = PHASE_DECIDE
    return END


@inlined
def carry_out(s: Any, action: int) -> bool:
    """Carry out a decision: `place * N + instance` dispatches, anything else holds.

    Returns:
        Whether the action was carried out as given; a hold with nothing in service, which
        could stick, becomes a dispatch of the head. Where no decision is due, nothing happens.
    """
    if s.due != 1:
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
        if queue[place] < 0 or not can_dispatch(s, queue[place], i):
            place = -1
    obeyed = True
    if place < 0:
        if s.at_instances == 0:
            i = place_for(s, queue[0])
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
        if s.remote == 0:
            receive(s, i, r)
        else:
            transit.dispatch(s, i, r)
    else:
        if s.gated == 1:
            note_turned_away(s, r)
            tell(s, r)
        if s.counted + s.gated > 0 and traits(s, r).entered == 1:
            tenants.depart(s, r)
        turn_away(s, r, REJECTED_INSTANCE)
        s.misrouted += 1
    return obeyed


def _advance(heads: np.ndarray) -> int:
    """`proceed` for Python: heads is (1,)."""
    return proceed(head_of(heads))


def _apply(heads: np.ndarray, action: int) -> bool:
    """`carry_out` for Python: heads is (1,)."""
    return carry_out(head_of(heads), action)


def _run(heads: np.ndarray, decide: Any, parameters: np.ndarray, memory: np.ndarray) -> int:
    """Run with a compiled policy in one machine-code loop, to END or REFILL."""
    s = head_of(heads)
    instances, requests, running = seen_instances(s), seen_requests(s), seen_running(s)
    queue = all_candidates(s)
    why = proceed(s)
    while why == ROUTE:
        action = decide(s.now_ps, instances, requests, running, queue, parameters, memory)
        carry_out(s, action)
        why = proceed(s)
    return why


advance = EntryPoint(_advance, types.int64(HEADS))
apply = EntryPoint(_apply, types.boolean(HEADS, types.int64))
_RUN_SIGNATURE = types.int64(HEADS, ROUTING_FUNCTION, FLOAT64_1D, INT64_1D)
RUN_FUNCTION = types.FunctionType(_RUN_SIGNATURE)
run = EntryPoint(_run, _RUN_SIGNATURE)
"""Other compiled code takes it as an argument: to contain the whole kernel once more would double
the time that compiling takes."""
