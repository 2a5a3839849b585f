"""What an instance does next: its iterations, and how long they stay alike (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import cache, tenants
from envs.simulator.admission import (
    admit_head,
    end_attempt,
    iterations_to_overflow,
    next_admission,
)
from envs.simulator.dispatch import take_in
from envs.simulator.events import schedule
from envs.simulator.instance import make_room
from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import (
    CHUNKED,
    CLOCK_END_PS,
    DECODE,
    GROWTH,
    KEYED,
    MIXED,
    PREFILL,
    SLORA,
    STATIC_BATCH,
)
from envs.simulator.memory import (
    engine,
    fetch_request,
    finish_iteration,
    instance,
    request,
    running,
    table,
)
from envs.simulator.stretch import duration
from envs.simulator.transit import note_drained

_ANY = 1 << 62
"""More iterations than a stretch can have."""


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
    if length < CLOCK_END_PS - s.now_ps:
        schedule(s, i, s.now_ps + duration(step_ps, growth_ps, planned))
    else:
        s.overflow = 1


@inlined
def _iterations_until_change(s: Any, i: int) -> int:
    """Iterations until a decode finishes or the KV cache has no room for one more."""
    remaining = finish_iteration(s, i)[0] - instance(s, i).iteration
    return min(remaining, iterations_to_overflow(s, i, remaining))


@inlined
def _iterations_until_admission(s: Any, i: int) -> int:
    """Iterations of decodes alone within which no waiting request can be admitted."""
    inst, eng = instance(s, i), engine(s, i)
    if eng.line_root >= 0:
        return 1
    if eng.queued == 0 or inst.batching == STATIC_BATCH:
        return _ANY
    if inst.batching == SLORA and eng.since_prefill < eng.decode_steps:
        return eng.decode_steps - eng.since_prefill
    if s.kills == 1 or s.looks == 1:
        return 1  # the head may be a call of an interaction that is over by then
    if inst.decoding + inst.prefilling >= inst.max_num_seqs:
        return _ANY
    if eng.kind > KEYED and (eng.front < 0 or eng.skip > 0):
        return 1
    if eng.admission == GROWTH:
        return _ANY
    return eng.shortfall if eng.skip == 0 else 1


@inlined
def _begin_decode(s: Any, i: int, preempted: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    step = table(s, inst.decode_at + inst.decoding) + inst.context_ps * inst.context
    growth = inst.context_ps * inst.decoding
    fetch_request(s, running(s, i)[0])  # the first to finish
    planned = min(_iterations_until_change(s, i), _iterations_until_admission(s, i))
    if preempted > 0 and eng.skip > 0:
        planned = 1  # there may now be room for those behind the head
    _begin(s, i, DECODE, inst.decoding, step, growth, planned)


@inlined
def _may_admit(s: Any, i: int) -> bool:
    """Whether the engine loop of instance i looks at its queue now."""
    inst, eng = instance(s, i), engine(s, i)
    if inst.batching == SLORA:
        return inst.decoding == 0 or eng.since_prefill >= eng.decode_steps
    return inst.batching != STATIC_BATCH or inst.decoding == 0


@inlined
def _plan_prefill_first(s: Any, i: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    admitted, tokens, attention = 0, 0, 0
    if _may_admit(s, i):
        while eng.queued > 0:
            r = next_admission(s, i)
            if r < 0:
                break
            row = request(s, r)
            need = row.prompt + row.generated
            history = cache.find(s, i, r) if eng.caches == 1 else 0
            chunk = need - history
            if admitted > 0 and tokens + chunk > inst.max_batched_tokens:
                break
            admit_head(s, i, r, history)
            admitted += 1
            tokens += chunk
            attention += chunk * history + chunk * (chunk + 1) // 2
            eng.batched = tokens
        eng.batched = 0
        if eng.skipped > 0:
            end_attempt(s, i)
    if admitted > 0:
        step = _prefill_time(s, i, tokens) + inst.attention_ps * attention
        eng.partial_after = 0
        _begin(s, i, PREFILL, 0, step, 0, 1)
    elif inst.decoding > 0:
        _begin_decode(s, i, make_room(s, i))


@compiled
def _plan_chunked(s: Any, i: int) -> None:
    inst, eng = instance(s, i), engine(s, i)
    preempted = 0
    if inst.decoding > 0:
        preempted = make_room(s, i)
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
            r = next_admission(s, i)
            if r < 0:
                break
            need = request(s, r).prompt + request(s, r).generated
            history = cache.find(s, i, r) if eng.caches == 1 else 0
            admit_head(s, i, r, history)
            part = min(need - history, budget - tokens)
            tokens += part
            attention += part * history + part * (part + 1) // 2
            if history + part < need:
                partial = history + part
        if eng.skipped > 0:
            end_attempt(s, i)
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
        _begin_decode(s, i, preempted)


@inlined
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
    if inst.down == 2:
        note_drained(s, i)
