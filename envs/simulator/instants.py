"""What happens at an instant before decisions (docs/simulator.md, "The fleet", 1 and 2)."""

from __future__ import annotations

from typing import Any

from envs.simulator import cache, gateway, pools, queues, transit
from envs.simulator.dispatch import strip, take_in
from envs.simulator.events import mark_pending, schedule
from envs.simulator.instance import end_stretch
from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import LAST_TIER, NEVER, PS_PER_S, REJECTED_FLEET
from envs.simulator.memory import (
    all_requests,
    all_running,
    backlog,
    ended,
    engine,
    event_ps,
    fetch_request,
    instance,
    outage,
    outlived,
    request,
    seen_instance,
    seen_instances,
    seen_outlived,
    seen_requests,
    seen_running,
    traits,
    winner,
)
from envs.simulator.outcomes import note_turned_away
from envs.simulator.router_queue import fits_some, join_router_queue, place_for
from envs.simulator.view import iterations_done

_AREA_LIMIT = 2.0**62


@inlined
def pass_time(s: Any, time_ps: int) -> None:
    """Move the clock; the integral of requests in the system is exact until it would overflow."""
    dt, system = time_ps - s.now_ps, s.queued + s.at_instances + s.backlogged + s.stranded
    # A float product tells whether the exact one fits; a division would cost more than the rest.
    area = float(dt) * system
    if s.area_ps + area < _AREA_LIMIT:
        s.area_ps += dt * system
    else:
        s.area_s += (s.area_ps + area) / PS_PER_S
        s.area_ps = 0
    s.now_ps = time_ps


@inlined
def _arrive(s: Any, r: int) -> None:
    row = request(s, r)
    if s.gated == 0 or traits(s, r).logged_ps < 0:
        s.arrived += 1
    s.trigger = 1
    s.events += 1
    if s.poll_ps > 0:
        all_seen = seen_requests(s)
        all_seen[r] = row
    if fits_some(s, r):
        if s.pooled == 1 and (s.gated == 0 or traits(s, r).logged_ps < 0):
            pools.note_arrival(s, r)
        if s.gated == 1:
            gateway.come(s, r)
        elif s.pooled == 1 and row.tier == LAST_TIER and backlog(s).on == 1:
            pools.hold_back(s, r)
        else:
            join_router_queue(s, r)
    else:
        row.status = REJECTED_FLEET
        s.rejected += 1
        if s.gated == 1:
            note_turned_away(s, r)


@compiled
def _ticks(s: Any, time_ps: int) -> bool:
    """Whether the clock of decisions goes on, where the next other thing happens at a time.

    Where nothing is left to happen, the router holds, and no instance can take the head of its
    queue, an elastic fleet waits for its caller.
    """
    if s.elastic == 0 or time_ps < NEVER or s.held == 0:
        return True
    return place_for(s, engine(s, s.size).root) >= 0


@inlined
def next_time(s: Any) -> int:
    """The next instant at which something happens, NEVER where nothing is left."""
    time = event_ps(s)[winner(s)[1]]
    if s.next_arrival < s.count:
        time = min(time, request(s, s.next_arrival).arrival_ps)
    if s.closed == 1 and engine(s, s.size + 1).root >= 0:
        time = min(time, request(s, engine(s, s.size + 1).root).key)
    if s.remote == 1 and engine(s, s.size + 3).root >= 0:
        time = min(time, request(s, engine(s, s.size + 3).root).key)
    if s.next_outage < s.outage_count:
        time = min(time, outage(s, s.next_outage).time_ps)
    if s.poll_ps > 0 and s.stale == 1:
        time = min(time, (s.now_ps // s.poll_ps + 1) * s.poll_ps)
    if s.interval_ps > 0 and s.queued > 0 and _ticks(s, time):
        tick = (s.now_ps + s.interval_ps - 1) // s.interval_ps * s.interval_ps
        if tick <= s.last_tick_ps:
            tick = s.last_tick_ps + s.interval_ps
        time = min(time, tick)
    return time


@compiled
def fail(s: Any, i: int) -> None:
    """Lose everything at instance i; the requests come back to the router."""
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
        join_router_queue(s, r)
        r = following


@compiled
def _fail_and_recover(s: Any) -> None:
    while s.next_outage < s.outage_count and outage(s, s.next_outage).time_ps == s.now_ps:
        change = outage(s, s.next_outage)
        instance(s, change.instance).down = change.down
        if change.down == 1:
            fail(s, change.instance)
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
def _arrivals_of_clients(s: Any) -> None:
    """Requests that arrive now, by index: of the trace, and calls of closed-loop clients."""
    while True:
        r, clients = _open_arrivals(s), engine(s, s.size + 1)
        if clients.root >= 0 and request(s, clients.root).key == s.now_ps:
            if r < 0 or clients.root < r:
                r = queues.pop(s, s.size + 1)
                if request(s, r).arrival_ps < 0:
                    request(s, r).arrival_ps = s.now_ps
                _arrive(s, r)
                continue
        if r < 0:
            return
        s.next_arrival += 1
        _arrive(s, r)
        _open_arrivals(s)


@compiled
def _open_ingresses(s: Any) -> None:
    for j in range(s.ended_count):
        i = ended(s)[j]
        take_in(s, i, engine(s, i).intake)
    s.ended_count = 0


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
    s.stale = 1 if s.at_instances > 0 else 0
    s.trigger = 1


@inlined
def happen(s: Any, time_ps: int) -> None:
    """What happens at an instant before decisions: iterations end, then requests arrive."""
    pass_time(s, time_ps)
    s.trigger = 0
    s.changed = 0
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
    if s.pulls == 1:
        pools.pull_after_finishes(s)
    if s.remote == 1:
        transit.deliver(s)
    if s.closed == 1:
        _arrivals_of_clients(s)
    else:
        while s.next_arrival < s.count and request(s, s.next_arrival).arrival_ps == time_ps:
            _arrive(s, s.next_arrival)
            s.next_arrival += 1
            fetch_request(s, s.next_arrival + 1)  # one ahead of what is looked at next
    if s.poll_ps > 0 and time_ps % s.poll_ps == 0 and s.stale == 1:
        _look(s)
    if s.trigger == 1:
        s.held = 0
    s.tick_due = 0
    if s.interval_ps > 0 and time_ps % s.interval_ps == 0:
        s.tick_due = 1
        s.last_tick_ps = time_ps
