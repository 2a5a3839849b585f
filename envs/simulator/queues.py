"""Queues threaded through the request rows: the router's queue and every waiting queue.

First come first served is a linked list. Shortest predicted first is a skew heap (Sleator and
Tarjan, 1986), so that neither needs memory of its own or a capacity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.simulator.jit import compiled
from envs.simulator.memory import engine, request
from envs.simulator.state import FCFS


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
def push(s: Any, queue: int, r: int) -> None:
    """Enqueue a request; its key must be set when the order is not first come first served."""
    eng, row = engine(s, queue), request(s, r)
    row.left = -1
    row.right = -1
    if eng.order == FCFS:
        if eng.root < 0:
            eng.root = r
        else:
            request(s, eng.tail).right = r
        eng.tail = r
    else:
        eng.root = _merge(s, eng.root, r)


@compiled
def push_front(s: Any, queue: int, r: int) -> None:
    """Put a preempted request at the head, before any that was preempted earlier."""
    eng, row = engine(s, queue), request(s, r)
    eng.preempted += 1
    row.key = -eng.preempted
    row.left = -1
    row.right = -1
    if eng.order == FCFS:
        row.right = eng.root
        if eng.root < 0:
            eng.tail = r
        eng.root = r
    else:
        eng.root = _merge(s, eng.root, r)


@compiled
def pop(s: Any, queue: int) -> int:
    """Take the head; the queue must not be empty."""
    eng = engine(s, queue)
    head = eng.root
    row = request(s, head)
    if eng.order == FCFS:
        eng.root = row.right
    else:
        eng.root = _merge(s, row.left, row.right)
    return head


@compiled
def peek(s: Any, queue: int, length: int, first: np.ndarray) -> None:
    """Write the first `len(first)` requests of a queue of `length` in order, -1 beyond its end."""
    count = min(length, len(first))
    for k in range(count, len(first)):
        first[k] = -1
    if engine(s, queue).order == FCFS:
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


@compiled
def remove(s: Any, queue: int, first: np.ndarray, place: int) -> None:
    """Take out the request at `place` of the head of the queue that `peek` wrote to `first`."""
    if engine(s, queue).order != FCFS:
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
