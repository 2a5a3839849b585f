"""One instance: admission, preemption, planning and ending iterations (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues
from envs.simulator.jit import compiled
from envs.simulator.memory import (
    engine,
    event_ps,
    finish_iteration,
    instance,
    output,
    pending,
    request,
    running,
    table,
    winner,
)
from envs.simulator.state import CHUNKED, DECODE, FCFS, IDLE, MIXED, NEVER, PREFILL, SERVED
from envs.simulator.stretch import duration, iterations_within

_CLOCK_END = 9.2e18
"""Picoseconds, a little below 2^63: about 106 days."""


@compiled
def schedule(s: Any, i: int, time_ps: int) -> None:
    """Set instance i's next event and replay its path of the tournament."""
    times, winners = event_ps(s), winner(s)
    times[i] = time_ps
    node, below = (i + s.leaves) >> 1, i ^ 1
    winners[node] = i if time_ps <= times[below] else below
    node >>= 1
    while node > 0:
        a, b = winners[2 * node], winners[2 * node + 1]
        winners[node] = a if times[a] <= times[b] else b
        node >>= 1


@compiled
def mark_pending(s: Any, i: int) -> None:
    """Have instance i plan at the end of the present instant, and have no event until then."""
    if engine(s, i).pending == 0:
        engine(s, i).pending = 1
        pending(s)[s.pending_count] = i
        s.pending_count += 1
        schedule(s, i, NEVER)


@compiled
def _heap_up(s: Any, i: int, place: int, r: int, finish: int) -> None:
    requests, keys = running(s, i), finish_iteration(s, i)
    while place > 0:
        parent = (place - 1) >> 1
        if keys[parent] <= finish:
            break
        requests[place], keys[place] = requests[parent], keys[parent]
        place = parent
    requests[place], keys[place] = r, finish


@compiled
def _heap_remove(s: Any, i: int, place: int) -> None:
    """Take entry `place` out of instance i's decode heap; prefill entries close up behind it."""
    inst, requests, keys = instance(s, i), running(s, i), finish_iteration(s, i)
    last = inst.decoding - 1
    r, finish = requests[last], keys[last]
    inst.decoding = last
    for j in range(last, last + inst.prefilling):
        requests[j] = requests[j + 1]
    if place == last:
        return
    while True:
        child = 2 * place + 1
        if child >= last:
            break
        if child + 1 < last and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= finish:
            break
        requests[place], keys[place] = requests[child], keys[child]
        place = child
    _heap_up(s, i, place, r, finish)


@compiled
def _finish(s: Any, r: int) -> None:
    row, tokens = request(s, r), output(s)[r]
    row.finish_ps = s.now_ps
    row.status = SERVED
    row.generated = tokens
    s.served += 1
    s.at_instances -= 1
    s.generated_tokens += tokens
    s.trigger = 1
    tbt_ps = (row.finish_ps - row.first_token_ps) // max(tokens - 1, 1)
    if (
        row.first_token_ps - row.arrival_ps <= s.slo_ttft_ps
        and row.finish_ps - row.arrival_ps <= s.slo_e2e_ps
        and tbt_ps <= s.slo_tbt_ps
    ):
        s.good += 1
        s.good_tokens += tokens


@compiled
def _end_prefill(s: Any, i: int) -> None:
    """Hand their first token to the requests whose prefill is complete; they decode next."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    first, complete = inst.decoding, inst.prefilling
    left = 1 if eng.partial_after > 0 else 0
    complete -= left
    inst.prefilling = 0
    for j in range(first, first + complete):
        r = requests[j]
        row = request(s, r)
        inst.prefill_reserved -= row.prompt + row.generated
        row.generated += 1
        if row.first_token_ps < 0:
            row.first_token_ps = s.now_ps
        if row.generated == output(s)[r]:
            _finish(s, r)
            continue
        inst.context += row.prompt + row.generated
        row.base = inst.iteration - row.generated
        inst.decoding += 1
        _heap_up(s, i, inst.decoding - 1, r, row.base + output(s)[r])
    if left > 0:
        requests[inst.decoding] = requests[first + complete]
    inst.prefilling = left
    eng.partial_done = eng.partial_after
    if complete > 0:
        s.trigger = 1


@compiled
def end_stretch(s: Any, i: int) -> None:
    """End the planned iterations of instance i at the clock's time."""
    inst, eng = instance(s, i), engine(s, i)
    inst.context += inst.stretch_batch * eng.planned
    if inst.stretch_batch > 0:
        inst.iteration += eng.planned
    if eng.activity != DECODE:
        _end_prefill(s, i)
    while inst.decoding > 0 and finish_iteration(s, i)[0] == inst.iteration:
        r = running(s, i)[0]
        inst.context -= request(s, r).prompt + output(s)[r]
        _heap_remove(s, i, 0)
        _finish(s, r)
    eng.activity = IDLE
    inst.stretch_batch = 0
    s.events += 1


@compiled
def _join_queue(s: Any, i: int, r: int) -> None:
    """Count a request that joins instance i's waiting queue."""
    inst, row = instance(s, i), request(s, r)
    inst.waiting += 1
    inst.waiting_tokens += row.prompt + row.generated
    inst.waiting_predicted += max(row.predicted - row.generated, 1)


@compiled
def _preempt_latest(s: Any, i: int) -> None:
    """Send the most recently admitted request in service back to the head of the queue."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    if inst.prefilling > 0:
        inst.prefilling -= 1
        r = requests[inst.decoding + inst.prefilling]
        row = request(s, r)
        inst.prefill_reserved -= row.prompt + row.generated
        eng.partial_done = 0
    else:
        place = 0
        for j in range(1, inst.decoding):
            if request(s, requests[j]).key > request(s, requests[place]).key:
                place = j
        r = requests[place]
        row = request(s, r)
        row.generated = inst.iteration - row.base
        inst.context -= row.prompt + row.generated
        _heap_remove(s, i, place)
    row.preemptions += 1
    s.preemptions += 1
    queues.push_front(s, i, r)
    _join_queue(s, i, r)


@compiled
def _fits(s: Any, i: int, r: int, grown: int) -> bool:
    """Admission test of a waiting request, `grown` tokens after the stretch's start."""
    inst, row = instance(s, i), request(s, r)
    occupied = inst.context + inst.prefill_reserved + grown
    return (
        inst.decoding + inst.prefilling < inst.max_num_seqs
        and occupied + row.prompt + row.generated + inst.watermark <= inst.kv_capacity
    )


@compiled
def _admit_head(s: Any, i: int) -> int:
    """Move the head of the waiting queue into prefill; return the tokens to prefill."""
    inst, eng = instance(s, i), engine(s, i)
    r = queues.pop(s, i)
    row = request(s, r)
    tokens = row.prompt + row.generated
    inst.waiting -= 1
    inst.waiting_tokens -= tokens
    inst.waiting_predicted -= max(row.predicted - row.generated, 1)
    inst.prefill_reserved += tokens
    running(s, i)[inst.decoding + inst.prefilling] = r
    inst.prefilling += 1
    eng.admitted += 1
    row.key = eng.admitted
    if row.admit_ps < 0:
        row.admit_ps = s.now_ps
    else:
        s.recomputed_tokens += tokens
    return tokens


@compiled
def _prefill_time(s: Any, i: int, tokens: int) -> int:
    inst = instance(s, i)
    engine(s, i).most_prefill = max(engine(s, i).most_prefill, tokens)
    beyond = max(tokens - inst.max_batched_tokens, 0)
    return table(s, inst.prefill_at + tokens - beyond) + beyond * inst.prefill_tail_ps


@compiled
def _begin(
    s: Any, i: int, activity: int, batch: int, step_ps: int, growth_ps: int, planned: int
) -> None:
    inst, eng = instance(s, i), engine(s, i)
    eng.activity = activity
    eng.planned = planned
    eng.most_decoding = max(eng.most_decoding, batch)
    inst.stretch_start_ps = s.now_ps
    inst.stretch_batch = batch
    inst.step_ps = step_ps
    inst.step_growth_ps = growth_ps
    # Floats decide where integers could already have overflowed.
    length = planned * (float(step_ps) + 0.5 * growth_ps * planned)
    if length < _CLOCK_END - s.now_ps:
        schedule(s, i, s.now_ps + duration(step_ps, growth_ps, planned))
    else:
        s.overflow = 1


@compiled
def _iterations_until_change(s: Any, i: int) -> int:
    """Iterations until a decode finishes or the KV cache has no room for one more."""
    inst = instance(s, i)
    room = inst.kv_capacity - inst.context - inst.prefill_reserved
    return min(finish_iteration(s, i)[0] - inst.iteration, room // inst.decoding + 1)


@compiled
def _make_room(s: Any, i: int) -> int:
    """Preempt until the decodes fit; return the number preempted."""
    inst, count = instance(s, i), 0
    while inst.context + inst.prefill_reserved > inst.kv_capacity:
        _preempt_latest(s, i)
        count += 1
    return count


@compiled
def _begin_decode(s: Any, i: int) -> None:
    inst = instance(s, i)
    step = table(s, inst.decode_at + inst.decoding) + inst.context_ps * inst.context
    growth = inst.context_ps * inst.decoding
    _begin(s, i, DECODE, inst.decoding, step, growth, _iterations_until_change(s, i))


@compiled
def _plan_prefill_first(s: Any, i: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    tokens, attention = 0, 0
    while inst.waiting > 0:
        head = request(s, eng.root)
        need = head.prompt + head.generated
        if tokens > 0 and tokens + need > inst.max_batched_tokens:
            break
        if not _fits(s, i, eng.root, 0):
            break
        _admit_head(s, i)
        tokens += need
        attention += need * (need + 1) // 2
    if tokens > 0:
        step = _prefill_time(s, i, tokens) + inst.attention_ps * attention
        eng.partial_after = 0
        _begin(s, i, PREFILL, 0, step, 0, 1)
    elif inst.decoding > 0:
        _make_room(s, i)
        _begin_decode(s, i)


@compiled
def _plan_chunked(s: Any, i: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    preempted = 0
    if inst.decoding > 0:
        preempted = _make_room(s, i)
    batch = inst.decoding
    budget = inst.max_batched_tokens - batch
    tokens, attention, partial = 0, 0, 0
    iterations, chunk = 1, 0
    if inst.prefilling > 0:
        row = request(s, running(s, i)[batch])
        history = eng.partial_done
        rest = row.prompt + row.generated - history
        chunk = min(rest, budget)
        tokens = chunk
        attention = chunk * history + chunk * (chunk + 1) // 2
        if chunk < rest:
            # Chunks of the whole budget repeat until the last one, which may leave some over.
            iterations = (rest - 1) // chunk
            if batch > 0:
                iterations = min(iterations, _iterations_until_change(s, i))
            partial = history + iterations * chunk
    if preempted == 0:
        while inst.waiting > 0 and tokens < budget and _fits(s, i, eng.root, 0):
            need = _admit_head(s, i)
            part = min(need, budget - tokens)
            tokens += part
            attention += part * (part + 1) // 2
            if part < need:
                partial = part
    if tokens > 0:
        step = (
            _prefill_time(s, i, batch + tokens)
            + table(s, inst.sequence_at + batch)
            + inst.mixed_context_ps * inst.context
            + inst.attention_ps * attention
        )
        growth = inst.mixed_context_ps * batch + inst.attention_ps * chunk * chunk
        eng.partial_after = partial
        _begin(s, i, MIXED, batch, step, growth, iterations)
    elif batch > 0:
        _begin_decode(s, i)


@compiled
def plan(s: Any, i: int) -> None:
    """Start the next stretch of instance i at the clock's time, or leave it idle."""
    if instance(s, i).batching == CHUNKED:
        _plan_chunked(s, i)
    else:
        _plan_prefill_first(s, i)


@compiled
def receive(s: Any, i: int, r: int) -> None:
    """Put a dispatched request into instance i's waiting queue.

    A decode stretch under way is cut at its first iteration that ends now or later if the
    request can be admitted there. Requests behind a head that does not fit can't, and nothing
    that did not fit at the start of a stretch fits later in it, since its KV only grows.
    """
    inst, eng, row = instance(s, i), engine(s, i), request(s, r)
    row.dispatch_ps = s.now_ps
    row.instance = i
    if eng.order != FCFS:
        row.key = row.predicted
    queues.push(s, i, r)
    _join_queue(s, i, r)
    s.at_instances += 1
    if eng.activity == IDLE:
        mark_pending(s, i)
    elif eng.activity == DECODE and eng.root == r:
        elapsed = s.now_ps - inst.stretch_start_ps
        cut = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
        if duration(inst.step_ps, inst.step_growth_ps, cut) < elapsed:
            cut += 1
        if cut < eng.planned and _fits(s, i, r, cut * inst.stretch_batch):
            eng.planned = cut
            end = inst.stretch_start_ps + duration(inst.step_ps, inst.step_growth_ps, cut)
            if end > s.now_ps:
                schedule(s, i, end)
            else:
                end_stretch(s, i)
                mark_pending(s, i)
