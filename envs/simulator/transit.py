"""Requests under way to an instance of another region (docs/simulator.md, "Elastic fleets")."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues
from envs.simulator.batch import join_counts, leave_counts
from envs.simulator.dispatch import receive
from envs.simulator.jit import compiled
from envs.simulator.layout import CLOCK_END_PS
from envs.simulator.memory import engine, instance, network_ps, request
from envs.simulator.router_queue import join_router_queue, request_fits


@compiled
def dispatch(s: Any, i: int, r: int) -> None:
    """Send a request to instance i, where it waits from the router's point of view."""
    row = request(s, r)
    delay = network_ps(s, row.region, instance(s, i).region)
    if delay == 0:
        receive(s, i, r)
    elif delay > CLOCK_END_PS - s.now_ps:
        s.overflow = 1
    else:
        row.dispatch_ps = s.now_ps
        row.instance = i
        row.key = s.now_ps + delay
        join_counts(s, i, r)
        s.at_instances += 1
        s.stale = 1
        queues.push(s, s.size + 3, r)


@compiled
def note_drained(s: Any, i: int) -> None:
    """Stop at this instant for whoever changes the fleet, if instance i has drained."""
    inst = instance(s, i)
    if inst.down == 2 and inst.waiting + inst.decoding + inst.prefilling == 0:
        s.pause_ps = s.now_ps


@compiled
def deliver(s: Any) -> None:
    """Requests that are there now, by index: to an instance that takes them, or back."""
    while (
        engine(s, s.size + 3).root >= 0 and request(s, engine(s, s.size + 3).root).key == s.now_ps
    ):
        r = queues.pop(s, s.size + 3)
        row = request(s, r)
        i, sent = row.instance, row.dispatch_ps
        leave_counts(s, i, r)
        s.at_instances -= 1
        s.trigger = 1
        if instance(s, i).down == 0 and request_fits(s, r, i):
            receive(s, i, r)
            if row.instance == i:
                row.dispatch_ps = sent
        else:
            row.instance = -1
            row.dispatch_ps = -1
            join_router_queue(s, r)
            note_drained(s, i)
