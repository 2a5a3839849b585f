"""Queues threaded through the request rows: the router's queue and every waiting queue.

First come first served is a linked list, and so is a queue whose ranks change while it waits (its
head is looked for) and each tenant's line in a queue kept by tenant. A static order is a skew heap
(Sleator and Tarjan, 1986). None has a capacity, and only lines by tenant need memory of their own:
a row for each tenant at each instance. Preempted requests stand in
a list of their own, ahead of all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import BY_TENANT, KEYED, LISTED, NEVER, SCANNED
from envs.simulator.memory import active, engine, line, request, scheduler_row, tenant, traits
from envs.simulator.scheduler import call_rank


@compiled
def _before(s: Any, a: int, b: int) -> bool:
    key_a, key_b = request(s, a).key, request(s, b).key
    return key_a < key_b or (key_a == key_b and a < b)


@compiled
def _merge(s: Any, a: int, b: int) -> int:
    """Merge two skew heaps top down; -1 is the empty heap."""
    if a < 0:
        return b
    if b < 0:
        return a
    if _before(s, b, a):
        a, b = b, a
    root = a
    while True:
        row = request(s, a)
        right = row.right
        row.right = row.left
        if right < 0:
            row.left = b
            return root
        if _before(s, b, right):
            right, b = b, right
        row.left = right
        a = right


@compiled
def rank(s: Any, queue: int, r: int) -> int:
    """Rank of a request under the scheduler of an instance, now."""
    row = scheduler_row(s, engine(s, queue).scheduler)
    own = traits(s, r if s.traited == 1 else 0)
    return call_rank(row.rank_at, s.now_ps, request(s, r), own, tenant(s, own.tenant), row)


@compiled
def _join_line(s: Any, queue: int, r: int) -> None:
    """Put a request behind the others of its tenant."""
    t = traits(s, r).tenant
    eng, own = engine(s, queue), line(s, queue, t)
    if own.root < 0:
        own.root = r
        own.place = eng.root
        active(s, queue)[eng.root] = t
        eng.root += 1
    else:
        request(s, own.tail).right = r
    own.tail = r


@compiled
def _leave_line(s: Any, queue: int, t: int) -> None:
    """Take out the first request of a tenant."""
    eng, own, members = engine(s, queue), line(s, queue, t), active(s, queue)
    own.root = request(s, own.root).right
    if own.root < 0:
        eng.root -= 1
        last = members[eng.root]
        members[own.place] = last
        line(s, queue, last).place = own.place


@inlined
def push(s: Any, queue: int, r: int) -> None:
    """Enqueue a request; its key must be set where the queue is KEYED."""
    eng, row = engine(s, queue), request(s, r)
    row.left = -1
    row.right = -1
    if eng.kind == KEYED:
        eng.root = _merge(s, eng.root, r)
    elif eng.kind == BY_TENANT:
        _join_line(s, queue, r)
    else:
        if eng.root < 0:
            eng.root = r
        else:
            row.left = eng.tail
            request(s, eng.tail).right = r
        eng.tail = r


@compiled
def push_front(s: Any, queue: int, r: int) -> None:
    """Put a preempted request at the head, before any that was preempted earlier."""
    eng, row = engine(s, queue), request(s, r)
    row.left = -1
    row.right = eng.front
    eng.front = r


@compiled
def _survey(s: Any, queue: int) -> None:
    """Show the scheduler all that a look compares."""
    eng = engine(s, queue)
    row = scheduler_row(s, eng.scheduler)
    row.surveyed = 0
    members = active(s, queue)
    k, r = 0, eng.root if eng.kind == SCANNED else -1
    while r >= 0 or (eng.kind == BY_TENANT and k < eng.root):
        if eng.kind == BY_TENANT:
            r = line(s, queue, members[k]).root
        own = traits(s, r)
        call_rank(row.survey_at, s.now_ps, request(s, r), own, tenant(s, own.tenant), row)
        row.surveyed += 1
        k += 1
        r = request(s, r).right if eng.kind == SCANNED else -1


@compiled
def _look_through(s: Any, queue: int) -> int:
    """The request of smallest rank, ties by index, of a queue whose ranks change."""
    eng = engine(s, queue)
    if scheduler_row(s, eng.scheduler).survey_at != 0:
        _survey(s, queue)
    best, least = -1, NEVER
    if eng.kind == SCANNED:
        r = eng.root
        while r >= 0:
            value = rank(s, queue, r)
            if best < 0 or value < least or (value == least and r < best):
                best, least = r, value
            r = request(s, r).right
        return best
    members = active(s, queue)
    for k in range(eng.root):
        r = line(s, queue, members[k]).root
        value = rank(s, queue, r)
        if best < 0 or value < least or (value == least and r < best):
            best, least = r, value
    return best


@inlined
def head(s: Any, queue: int) -> int:
    """The request that is next; the queue must not be empty."""
    eng = engine(s, queue)
    if eng.front >= 0:
        return eng.front
    if eng.kind <= KEYED:
        return eng.root
    return _look_through(s, queue)


@inlined
def take(s: Any, queue: int, r: int) -> None:
    """Take out the request that `head` gave."""
    eng, row = engine(s, queue), request(s, r)
    if eng.front >= 0:
        eng.front = row.right
    elif eng.kind == LISTED:
        eng.root = row.right
    elif eng.kind == KEYED:
        eng.root = _merge(s, row.left, row.right)
    elif eng.kind == BY_TENANT:
        _leave_line(s, queue, traits(s, r).tenant)
    else:
        if row.left >= 0:
            request(s, row.left).right = row.right
        else:
            eng.root = row.right
        if row.right >= 0:
            request(s, row.right).left = row.left
        else:
            eng.tail = row.left


@compiled
def set_aside(s: Any, queue: int, r: int, others: int) -> int:
    """Take out the request that `head` gave, for a while; `others` are those set aside before."""
    first = engine(s, queue).front == r
    take(s, queue, r)
    request(s, r).right = others
    request(s, r).left = 1 if first else 0
    return r


@compiled
def put_back(s: Any, queue: int, others: int) -> None:
    """Put what was set aside back to where it stood, the last one first."""
    eng = engine(s, queue)
    while others >= 0:
        r = others
        row = request(s, r)
        others = row.right
        if row.left == 1:
            push_front(s, queue, r)
        elif eng.kind == BY_TENANT:
            own = line(s, queue, traits(s, r).tenant)
            following = own.root
            if following < 0:
                push(s, queue, r)
            else:
                row.left, row.right = -1, following
                own.root = r
        elif eng.kind == LISTED and eng.root >= 0:
            row.left, row.right = -1, eng.root
            request(s, eng.root).left = r
            eng.root = r
        else:
            push(s, queue, r)


@compiled
def pop_any(s: Any, queue: int) -> int:
    """Take some request, whichever is at hand; the queue must not be empty."""
    eng = engine(s, queue)
    if eng.front >= 0:
        r = eng.front
    elif eng.kind == BY_TENANT:
        r = line(s, queue, active(s, queue)[0]).root
    else:
        r = eng.root
    take(s, queue, r)
    return r


@inlined
def pop(s: Any, queue: int) -> int:
    """Take the head; the queue must not be empty."""
    r = head(s, queue)
    take(s, queue, r)
    return r


@compiled
def peek(s: Any, queue: int, length: int, first: np.ndarray) -> None:
    """Write the first `window` requests of the router queue in order, -1 beyond its end."""
    count = min(length, s.window)
    for k in range(count, s.window):
        first[k] = -1
    if engine(s, queue).kind == LISTED:
        r = engine(s, queue).root
        for k in range(count):
            first[k] = r
            r = request(s, r).right
    elif count == 1:
        first[0] = engine(s, queue).root
    else:
        for k in range(count):
            first[k] = pop(s, queue)
        for k in range(count):
            push(s, queue, first[k])


@inlined
def remove(s: Any, queue: int, first: np.ndarray, place: int) -> None:
    """Take out the request at `place` of the head of the queue that `peek` wrote to `first`."""
    if engine(s, queue).kind != LISTED:
        for _ in range(place + 1):
            pop(s, queue)
        for k in range(place):
            push(s, queue, first[k])
    elif place == 0:
        pop(s, queue)
    else:
        before, r = first[place - 1], first[place]
        request(s, before).right = request(s, r).right
        if engine(s, queue).tail == r:
            engine(s, queue).tail = before
