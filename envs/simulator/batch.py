"""The requests in service at one instance: the heap of decodes, finishing, leaving."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.simulator import cache, pools, queues, tenants
from envs.simulator.jit import compiled, inlined
from envs.simulator.judging import tell
from envs.simulator.layout import (
    CLOCK_END_PS,
    FINISH,
    KEYED,
    MEDIUM_TOKENS,
    NEVER,
    SERVED,
    SHORT_TOKENS,
    TOKENS,
)
from envs.simulator.memory import (
    engine,
    finish_iteration,
    instance,
    outlived,
    output,
    request,
    running,
    traits,
)
from envs.simulator.outcomes import note_first_token, note_served
from envs.simulator.prediction import predicted_remaining


@compiled
def _rise(s: Any, i: int, place: int, r: int, finish: int, outlive: int) -> None:
    """Let an entry of the decode heap rise: by finish iteration, ties by request index."""
    requests, keys, limits = running(s, i), finish_iteration(s, i), outlived(s, i)
    while place > 0:
        parent = (place - 1) >> 1
        if keys[parent] < finish or (keys[parent] == finish and requests[parent] < r):
            break
        requests[place], keys[place] = requests[parent], keys[parent]
        limits[place] = limits[parent]
        place = parent
    requests[place], keys[place], limits[place] = r, finish, outlive


@compiled
def _count_decode(s: Any, i: int, r: int, change: int) -> None:
    inst, predicted = instance(s, i), request(s, r).predicted
    if predicted < MEDIUM_TOKENS:
        inst.medium += change
        if predicted < SHORT_TOKENS:
            inst.short += change


@compiled
def count_within(inst: Any, limits: np.ndarray, iteration: int) -> None:
    """Count the decodes that are within their predictions at an iteration, where that is due."""
    if iteration < inst.next_outlived:
        return
    count, total, first = 0, 0, NEVER
    for j in range(inst.decoding):
        limit = limits[j] if limits[j] > iteration else NEVER
        count += 1 if limit < NEVER else 0
        total += limit if limit < NEVER else 0
        first = limit if limit < first else first
    inst.within = count
    inst.within_limits = total
    inst.next_outlived = first


@inlined
def begin_decode(s: Any, i: int, r: int) -> None:
    """Put a request whose prefill is complete into instance i's decode heap."""
    inst, row = instance(s, i), request(s, r)
    inst.context += row.prompt + row.generated
    row.base = inst.iteration - row.generated
    inst.decoding += 1
    outlive = row.base + row.predicted
    _rise(s, i, inst.decoding - 1, r, row.base + output(s)[r], outlive)
    _count_decode(s, i, r, 1)
    if outlive > inst.iteration:
        inst.within += 1
        inst.within_limits += outlive
        inst.next_outlived = min(inst.next_outlived, outlive)


@inlined
def end_decode(s: Any, i: int, place: int) -> None:
    """Take entry `place` out of instance i's decode heap; prefill entries close up behind it."""
    inst, requests = instance(s, i), running(s, i)
    keys, limits = finish_iteration(s, i), outlived(s, i)
    _count_decode(s, i, requests[place], -1)
    if limits[place] >= inst.next_outlived:
        inst.within -= 1
        inst.within_limits -= limits[place]
        if limits[place] == inst.next_outlived:
            inst.next_outlived = 0
    last = inst.decoding - 1
    r, finish, outlive = requests[last], keys[last], limits[last]
    inst.decoding = last
    for j in range(last, last + inst.prefilling):
        requests[j] = requests[j + 1]
    if place == last:
        return
    while True:
        child = 2 * place + 1
        if child >= last:
            break
        other = child + 1
        if other < last and (
            keys[other] < keys[child]
            or (keys[other] == keys[child] and requests[other] < requests[child])
        ):
            child = other
        if keys[child] > finish or (keys[child] == finish and requests[child] > r):
            break
        requests[place], keys[place] = requests[child], keys[child]
        limits[place] = limits[child]
        place = child
    _rise(s, i, place, r, finish, outlive)


@inlined
def leave(s: Any, i: int, r: int, tokens: int, kept: int) -> None:
    """What an option keeps account of when a request of `tokens` leaves service."""
    if engine(s, i).caches == 1:
        cache.leave(s, i, r, tokens, kept)
    if s.tracked == 1:
        tenants.count_out(s, i, r)


@inlined
def join_service(s: Any, i: int, r: int) -> None:
    """Note that a request is the last one that instance i has admitted."""
    eng, row = engine(s, i), request(s, r)
    row.left, row.right = eng.latest, -1
    if eng.latest >= 0:
        request(s, eng.latest).right = r
    eng.latest = r


@inlined
def leave_service(s: Any, i: int, r: int) -> None:
    """Take a request out of the order of admission."""
    row = request(s, r)
    before, after = row.left, row.right
    if after >= 0:
        request(s, after).left = before
    else:
        engine(s, i).latest = before
    if before >= 0:
        request(s, before).right = after


@compiled
def _release(s: Any, r: int) -> None:
    """Have the next call of a closed-loop client sent."""
    following = traits(s, r).next_call
    if following >= 0:
        own, row = traits(s, following), request(s, following)
        if own.think_ps > CLOCK_END_PS - s.now_ps:
            s.overflow = 1
            return
        row.key = max(own.due_ps, s.now_ps + own.think_ps)
        queues.push(s, s.size + 1, following)


@inlined
def finish(s: Any, i: int, r: int) -> None:
    """A request has its last token; what it has generated is up to date."""
    row = request(s, r)
    tokens = row.generated
    leave_service(s, i, r)
    row.finish_ps = s.now_ps
    row.status = SERVED
    s.served += 1
    s.at_instances -= 1
    s.generated_tokens += tokens
    s.trigger = 1
    if (
        row.first_token_ps - row.arrival_ps <= s.slo_ttft_ps
        and row.finish_ps - row.arrival_ps <= s.slo_e2e_ps
        and (
            s.slo_tbt_ps == NEVER
            or (row.finish_ps - row.first_token_ps) // max(tokens - 1, 1) <= s.slo_tbt_ps
        )
    ):
        s.good += 1
        s.good_tokens += tokens
    leave(s, i, r, row.prompt + tokens, 0)
    if s.counted + s.gated > 0:
        tenants.depart(s, r)
    if s.counted == 1:
        tenants.charge(s, FINISH, 0, 0, r)
    if s.gated == 1:
        note_served(s, r)
        tell(s, r)
    if s.pooled == 1:
        pools.note_finish(s, i, r)
    if s.closed == 1:
        _release(s, r)


@inlined
def end_prefill(s: Any, i: int) -> None:
    """Hand their first token to the requests whose prefill is complete; they decode next."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    first, complete = inst.decoding, inst.prefilling
    left = 1 if eng.partial_after > 0 else 0
    complete -= left
    inst.prefilling = 0
    eng.taken += complete
    if eng.caches == 1:
        for j in range(first, first + complete):
            cache.become_user(s, i, requests[j])
    for j in range(first, first + complete):
        r = requests[j]
        row = request(s, r)
        inst.prefill_reserved -= row.prompt + row.generated
        row.generated += 1
        if s.counted == 1:
            tenants.charge(s, TOKENS, row.generated - 1, row.generated, r)
        if row.first_token_ps < 0:
            row.first_token_ps = s.now_ps
            if s.gated == 1:
                note_first_token(s, r)
        if row.generated == output(s)[r]:
            finish(s, i, r)
            continue
        begin_decode(s, i, r)
    if left > 0:
        requests[inst.decoding] = requests[first + complete]
    inst.prefilling = left
    eng.partial_done = eng.partial_after
    if complete > 0:
        s.trigger = 1


@compiled
def generated_at(s: Any, i: int, j: int, done: int) -> int:
    """Tokens generated of the j-th request in service, `done` iterations into the stretch."""
    inst, row = instance(s, i), request(s, running(s, i)[j])
    if j < inst.decoding:
        return inst.iteration + done - row.base
    return row.generated


@inlined
def join_counts(s: Any, i: int, r: int) -> None:
    """Count a request that waits at instance i."""
    inst, row = instance(s, i), request(s, r)
    inst.waiting += 1
    inst.waiting_tokens += row.prompt + row.generated
    inst.waiting_predicted += predicted_remaining(row, row.generated)


@inlined
def leave_counts(s: Any, i: int, r: int) -> None:
    """Count out a request that waited at instance i."""
    inst, row = instance(s, i), request(s, r)
    inst.waiting -= 1
    inst.waiting_tokens -= row.prompt + row.generated
    inst.waiting_predicted -= predicted_remaining(row, row.generated)


@inlined
def enqueue(s: Any, i: int, r: int) -> None:
    """Put a request into the waiting queue of instance i."""
    eng = engine(s, i)
    if eng.kind == KEYED:
        request(s, r).key = queues.rank(s, i, r)
    queues.push(s, i, r)
    eng.queued += 1


@compiled
def turn_away(s: Any, r: int, status: int) -> None:
    """Reject a request that is in no queue; nothing of what it had before counts."""
    row = request(s, r)
    row.status = status
    row.instance = -1
    row.dispatch_ps = -1
    row.admit_ps = -1
    row.first_token_ps = -1
    s.rejected += 1
