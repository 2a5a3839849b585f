"""The router queue, and which instances can take what stands in it."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues
from envs.simulator.jit import compiled, inlined
from envs.simulator.memory import engine, instance, output, request, room_of
from envs.simulator.prediction import predicted_remaining
from envs.simulator.view import serves


@inlined
def join_router_queue(s: Any, r: int) -> None:
    """Put a request into the router queue, when it arrives or comes back."""
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
    return row.prompt + output(s)[r] - 1 <= inst.room and serves(inst, row)


@inlined
def fits_some(s: Any, r: int) -> bool:
    """Whether some instance of the fleet as it was given can ever serve the request."""
    row = request(s, r)
    largest = row.prompt + output(s)[r] - 1
    if s.models == 0:
        return largest <= s.largest_request
    return largest <= room_of(s, row.model, row.tier)


@inlined
def can_dispatch(s: Any, r: int, i: int) -> bool:
    """Whether instance i is up and serves the request's model and tier."""
    inst = instance(s, i)
    return inst.down == 0 and serves(inst, request(s, r))


@compiled
def place_for(s: Any, r: int) -> int:
    """The first instance that is up and fits the request, -1 where there is none."""
    for i in range(s.size):
        if instance(s, i).down == 0 and request_fits(s, r, i):
            return i
    return -1


@compiled
def strand(s: Any) -> None:
    """Set requests aside at the head of the router queue that no ready instance fits."""
    while s.queued > 0:
        r = engine(s, s.size).root
        if place_for(s, r) >= 0:
            return
        queues.pop(s, s.size)
        row = request(s, r)
        s.queued -= 1
        s.queued_tokens -= row.prompt + row.generated
        s.queued_predicted -= predicted_remaining(row, row.generated)
        row.right = s.stranded_root
        s.stranded_root = r
        s.stranded += 1


@compiled
def bring_back(s: Any) -> None:
    """Put what was set aside into its place in the router queue: the fleet has changed."""
    while s.stranded_root >= 0:
        r = s.stranded_root
        s.stranded_root = request(s, r).right
        request(s, r).right = -1
        s.stranded -= 1
        join_router_queue(s, r)
