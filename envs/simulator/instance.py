"""One instance: planning and ending iterations, receiving requests (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues, tenants
from envs.simulator.admission import (
    admit_head,
    cached_tokens,
    fits,
    iterations_to_overflow,
    next_head,
    reject_at,
)
from envs.simulator.batch import (
    end_prefill,
    enqueue,
    finish,
    generated_at,
    heap_remove,
    join_counts,
    leave,
)
from envs.simulator.jit import compiled
from envs.simulator.layout import (
    ARRIVE,
    CHUNKED,
    DECODE,
    GROWTH,
    IDLE,
    KEYED,
    MIXED,
    NEVER,
    PREFILL,
    SLORA,
    STATIC_BATCH,
)
from envs.simulator.memory import (
    engine,
    event_ps,
    finish_iteration,
    instance,
    output,
    pending,
    request,
    running,
    scheduler_row,
    table,
    traits,
    winner,
)
from envs.simulator.stretch import duration, iterations_within

_CLOCK_END = 9.2e18
"""Picoseconds, a little below 2^63: about 106 days."""
_ANY = 1 << 62
"""More iterations than a stretch can have."""


@compiled
def schedule(s: Any, i: int, time_ps: int) -> None:
    """Set instance i's next event and replay its path of the tournament."""
    times, winners = event_ps(s), winner(s)
    times[i] = time_ps
    node, a = (i + s.leaves) >> 1, i & -2
    winners[node] = a if times[a] <= times[a + 1] else a + 1
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
def end_stretch(s: Any, i: int) -> None:
    """End the planned iterations of instance i at the clock's time."""
    inst, eng = instance(s, i), engine(s, i)
    served = s.served
    if s.counted == 1 and inst.stretch_batch > 0:
        tenants.post(s, i, eng.planned)
    grown = inst.stretch_batch * eng.planned
    inst.context += grown
    eng.taken += grown
    s.iterations += eng.planned
    if inst.stretch_batch > 0:
        inst.iteration += eng.planned
    if eng.activity == DECODE:
        eng.since_prefill += eng.planned
    else:
        eng.since_prefill = 0
        end_prefill(s, i)
    while inst.decoding > 0 and finish_iteration(s, i)[0] == inst.iteration:
        r = running(s, i)[0]
        inst.context -= request(s, r).prompt + output(s)[r]
        heap_remove(s, i, 0)
        finish(s, i, r)
    if s.counted == 1 and s.served > served and scheduler_row(s, eng.scheduler).overcharge == 1:
        tenants.charge_again(s, i)
    eng.activity = IDLE
    inst.stretch_batch = 0
    s.events += 1


@compiled
def _preempt_latest(s: Any, i: int) -> None:
    """Send the most recently admitted request in service back to the head of the queue."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    if inst.prefilling > 0:
        inst.prefilling -= 1
        r = requests[inst.decoding + inst.prefilling]
        row = request(s, r)
        inst.prefill_reserved -= row.prompt + row.generated
        leave(s, i, r, row.prompt + row.generated, eng.partial_done)
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
        heap_remove(s, i, place)
        leave(s, i, r, row.prompt + row.generated, row.prompt + row.generated)
    row.preemptions += 1
    s.preemptions += 1
    eng.shortfall = 1
    queues.push_front(s, i, r)
    eng.queued += 1
    if s.tracked == 1:
        tenants.count_waiting(s, r, 1)
    join_counts(s, i, r)


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
def _make_room(s: Any, i: int) -> int:
    """Preempt until the decodes fit; return the number preempted."""
    count = 0
    while iterations_to_overflow(s, i, 0) == 0:
        _preempt_latest(s, i)
        count += 1
    return count


@compiled
def _iterations_until_change(s: Any, i: int) -> int:
    """Iterations until a decode finishes or the KV cache has no room for one more."""
    remaining = finish_iteration(s, i)[0] - instance(s, i).iteration
    return min(remaining, iterations_to_overflow(s, i, remaining))


@compiled
def _iterations_until_admission(s: Any, i: int) -> int:
    """Iterations of decodes alone within which no waiting request can be admitted."""
    inst, eng = instance(s, i), engine(s, i)
    if eng.line_root >= 0:
        return 1
    if eng.queued == 0 or inst.batching == STATIC_BATCH:
        return _ANY
    if inst.batching == SLORA and eng.since_prefill < eng.decode_steps:
        return eng.decode_steps - eng.since_prefill
    if s.kills == 1:
        return 1  # the head may be a call of an interaction that is over by then
    if inst.decoding + inst.prefilling >= inst.max_num_seqs:
        return _ANY
    if eng.front < 0 and eng.kind > KEYED:
        return 1
    return _ANY if eng.admission == GROWTH else eng.shortfall


@compiled
def _begin_decode(s: Any, i: int) -> None:
    inst = instance(s, i)
    step = table(s, inst.decode_at + inst.decoding) + inst.context_ps * inst.context
    growth = inst.context_ps * inst.decoding
    planned = min(_iterations_until_change(s, i), _iterations_until_admission(s, i))
    _begin(s, i, DECODE, inst.decoding, step, growth, planned)


@compiled
def _may_admit(s: Any, i: int) -> bool:
    """Whether the engine loop of instance i looks at its queue now."""
    inst, eng = instance(s, i), engine(s, i)
    if inst.batching == SLORA:
        return inst.decoding == 0 or eng.since_prefill >= eng.decode_steps
    return inst.batching != STATIC_BATCH or inst.decoding == 0


@compiled
def _plan_prefill_first(s: Any, i: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    admitted, tokens, attention = 0, 0, 0
    if _may_admit(s, i):
        while eng.queued > 0:
            r = next_head(s, i)
            if r < 0 or not fits(s, i, r, 0):
                break
            row = request(s, r)
            need = row.prompt + row.generated
            history = cached_tokens(s, i, r)
            chunk = need - history
            if admitted > 0 and tokens + chunk > inst.max_batched_tokens:
                break
            admit_head(s, i, r, history)
            admitted += 1
            tokens += chunk
            attention += chunk * history + chunk * (chunk + 1) // 2
    if admitted > 0:
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
            if eng.line_root >= 0:
                iterations = 1
            partial = history + iterations * chunk
    if preempted == 0:
        while eng.queued > 0 and tokens < budget:
            r = next_head(s, i)
            if r < 0 or not fits(s, i, r, 0):
                break
            need = request(s, r).prompt + request(s, r).generated
            history = cached_tokens(s, i, r)
            admit_head(s, i, r, history)
            part = min(need - history, budget - tokens)
            tokens += part
            attention += part * history + part * (part + 1) // 2
            if history + part < need:
                partial = history + part
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
def take_in(s: Any, i: int, most: int) -> None:
    """Have the first requests before the ingress of instance i enter its waiting queue."""
    eng = engine(s, i)
    while eng.line_root >= 0 and most > 0:
        r = eng.line_root
        eng.line_root = request(s, r).right
        _enter(s, i, r)
        most -= 1


@compiled
def plan(s: Any, i: int) -> None:
    """Start the next stretch of instance i at the clock's time, or leave it idle."""
    inst, eng = instance(s, i), engine(s, i)
    if inst.down == 1:
        return
    eng.shortfall = 1
    if eng.line_root >= 0 and inst.decoding + inst.prefilling == 0:
        take_in(s, i, _ANY)
    if s.counted == 1 and eng.queued > 0:
        tenants.post_all(s)
    if inst.batching == CHUNKED:
        _plan_chunked(s, i)
    else:
        _plan_prefill_first(s, i)


@compiled
def _enter(s: Any, i: int, r: int) -> None:
    """Let a dispatched request into the waiting queue of instance i, or turn it away."""
    if s.limit > 0:
        status = tenants.let_in(s, r)
        if status != 0:
            reject_at(s, i, r, status)
            return
    if s.counted == 1:
        tenants.post_all(s)
        tenants.lift(s, r)
    if s.tracked == 1:
        tenants.count_waiting(s, r, 1)
    if s.counted == 1 and traits(s, r).entered == 0:
        tenants.charge(s, ARRIVE, 0, 0, r)
    if s.limit > 0 or s.counted == 1:
        traits(s, r).entered = 1
    enqueue(s, i, r)


@compiled
def _cut(s: Any, i: int, least: int) -> int:
    """First iteration of the stretch that ends now or later, and is the `least`-th or later."""
    inst = instance(s, i)
    elapsed = s.now_ps - inst.stretch_start_ps
    cut = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
    if duration(inst.step_ps, inst.step_growth_ps, cut) < elapsed:
        cut += 1
    return max(cut, least)


@compiled
def _shorten(s: Any, i: int, cut: int) -> None:
    """End the stretch under way after `cut` iterations."""
    inst, eng = instance(s, i), engine(s, i)
    if eng.activity == MIXED and eng.partial_after > 0:
        chunk = (eng.partial_after - eng.partial_done) // eng.planned
        eng.partial_after = eng.partial_done + cut * chunk
    eng.planned = cut
    end = inst.stretch_start_ps + duration(inst.step_ps, inst.step_growth_ps, cut)
    if end > s.now_ps:
        schedule(s, i, end)
    else:
        end_stretch(s, i)
        mark_pending(s, i)


@compiled
def receive(s: Any, i: int, r: int) -> None:
    """Dispatch a request to instance i: to its waiting queue, or before its ingress.

    A decode stretch under way is cut at its first iteration that ends now or later where the
    request can be admitted there. Under the growth test, requests behind a head that does not
    fit can't, and nothing that did not fit at the start of a stretch fits later in it, since its
    KV only grows. Other tests, and queues whose head changes, are tried again.
    """
    inst, eng, row = instance(s, i), engine(s, i), request(s, r)
    row.dispatch_ps = s.now_ps
    row.instance = i
    join_counts(s, i, r)
    s.at_instances += 1
    s.stale = 1
    if eng.intake > 0:
        row.left = -1
        row.right = -1
        if eng.line_root < 0:
            eng.line_root = r
        else:
            request(s, eng.line_tail).right = r
        eng.line_tail = r
        if eng.activity == IDLE:
            mark_pending(s, i)
        elif eng.planned > 1:
            cut = _cut(s, i, 1)
            if cut < eng.planned:
                _shorten(s, i, cut)
        return
    _enter(s, i, r)
    if row.instance != i:
        return
    if eng.activity == IDLE:
        mark_pending(s, i)
    elif eng.activity == DECODE and inst.batching != STATIC_BATCH:
        growth = eng.admission == GROWTH and eng.kind <= KEYED and s.kills == 0
        if not growth or (eng.front < 0 and eng.root == r):
            least = eng.decode_steps - eng.since_prefill if inst.batching == SLORA else 1
            cut = _cut(s, i, least)
            if cut < eng.planned and (not growth or fits(s, i, r, cut)):
                _shorten(s, i, cut)


@compiled
def strip(s: Any, i: int) -> int:
    """Take every request from instance i, which fails; they come as a list, by `right`."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    first, done = -1, 0
    if inst.stretch_batch > 0:
        elapsed = s.now_ps - inst.stretch_start_ps
        done = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
        if s.counted == 1:
            tenants.post(s, i, done)
    eng.taken += inst.stretch_batch * done
    s.iterations += done
    for j in range(inst.decoding + inst.prefilling):
        r = requests[j]
        row = request(s, r)
        row.generated = generated_at(s, i, j, done)
        leave(s, i, r, row.prompt + row.generated, 0)
        row.right = first
        first = r
    while eng.queued > 0:
        r = queues.pop(s, i)
        eng.queued -= 1
        if s.tracked == 1:
            tenants.count_waiting(s, r, -1)
        if eng.caches == 1:
            traits(s, r).kept = 0
        request(s, r).right = first
        first = r
    while eng.line_root >= 0:
        r = eng.line_root
        eng.line_root = request(s, r).right
        request(s, r).right = first
        first = r
    inst.iteration += done
    eng.charged = inst.iteration
    inst.waiting = 0
    inst.waiting_tokens = 0
    inst.waiting_predicted = 0
    inst.decoding = 0
    inst.prefilling = 0
    inst.prefill_reserved = 0
    inst.context = 0
    inst.stretch_batch = 0
    eng.activity = IDLE
    eng.partial_done = 0
    eng.since_prefill = 0
    return first
