"""The router queue, and which instances can take what stands in it."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues
from envs.simulator.jit import compiled, inlined
from envs.simulator.memory import instance, output, request
from envs.simulator.prediction import predicted_remaining


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
    if row.prompt + output(s)[r] - 1 > inst.room:
        return False
    return inst.model < 0 or row.model < 0 or inst.model == row.model


@inlined
def fits_some(s: Any, r: int) -> bool:
    """Whether some instance of the fleet can ever serve the request."""
    if s.models == 0 and s.elastic == 0:
        return request(s, r).prompt + output(s)[r] - 1 <= s.largest_request
    for i in range(s.size):
        if request_fits(s, r, i):
            return True
    return False


@inlined
def can_dispatch(s: Any, r: int, i: int) -> bool:
    """Whether instance i is up and serves the request's model."""
    inst, row = instance(s, i), request(s, r)
    return inst.down == 0 and (inst.model < 0 or row.model < 0 or inst.model == row.model)


@compiled
def place_for(s: Any, r: int) -> int:
    """The first instance that is up and fits the request, -1 where there is none."""
    for i in range(s.size):
        if instance(s, i).down == 0 and request_fits(s, r, i):
            return i
    return -1
