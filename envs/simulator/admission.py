"""Who may be admitted at one instance, and how long its decodes can go on (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import cache, gateway, queues, tenants
from envs.simulator.batch import generated_at, join_service, leave_counts, turn_away
from envs.simulator.jit import compiled, inlined
from envs.simulator.judging import tell
from envs.simulator.layout import (
    ADMIT,
    DROP,
    GROWTH,
    LET_IN,
    ORACLE,
    REJECTED_GATE,
    REJECTED_INTERACTION,
    REJECTED_PATIENCE,
    TURN_AWAY,
    WAIT,
)
from envs.simulator.memory import (
    engine,
    fetch_request,
    gate,
    instance,
    killed,
    line,
    output,
    request,
    running,
    scratch,
    tenant,
    traits,
)
from envs.simulator.order import sort_in_place
from envs.simulator.outcomes import note_turned_away
from envs.simulator.prediction import predicted_remaining

_LOW = (1 << 31) - 1


@compiled
def _blocks(tokens: int, block: int) -> int:
    """Tokens rounded up to whole blocks."""
    return (tokens + block - 1) // block * block


@compiled
def _occupied(s: Any, i: int, ahead: int) -> int:
    """KV tokens in service, `ahead` decode iterations from the start of the stretch."""
    inst, block, requests = instance(s, i), engine(s, i).block, running(s, i)
    total = 0
    for j in range(inst.decoding + inst.prefilling):
        prompt = request(s, requests[j]).prompt
        total += _blocks(prompt + generated_at(s, i, j, ahead), block)
    return total


@inlined
def overflows(s: Any, i: int) -> bool:
    """Whether the requests in service exceed the KV cache of instance i."""
    inst, block = instance(s, i), engine(s, i).block
    total = inst.context + inst.prefill_reserved
    waste = (block - 1) * (inst.decoding + inst.prefilling)
    if total > inst.kv_capacity or total + waste <= inst.kv_capacity:
        return total > inst.kv_capacity
    return _occupied(s, i, 0) > inst.kv_capacity


@inlined
def iterations_to_overflow(s: Any, i: int, most: int) -> int:
    """Decode iterations after which the KV cache is first exceeded, or some number >= `most`.

    The requests in service, some of which decode, must fit it now.
    """
    inst, block = instance(s, i), engine(s, i).block
    free = inst.kv_capacity - inst.context - inst.prefill_reserved
    # Blocks bring it forward, by at most what they can waste.
    waste = (block - 1) * (inst.decoding + inst.prefilling)
    if most * inst.decoding + waste <= free:
        return most + 1
    high = free // inst.decoding + 1
    if block == 1 or high == 1:
        return high
    low = max(free - waste, 0) // inst.decoding
    while high - low > 1:
        middle = (low + high) >> 1
        if _occupied(s, i, middle) > inst.kv_capacity:
            high = middle
        else:
            low = middle
    return high


@compiled
def _remaining(s: Any, i: int, r: int, generated: int) -> int:
    if engine(s, i).admission == ORACLE:
        return output(s)[r] - generated
    return min(predicted_remaining(request(s, r), generated), _LOW)


@compiled
def _peak(s: Any, i: int, r: int, ahead: int) -> int:
    """Largest KV of the requests in service and r, each going on for what remains of it."""
    inst, requests, order = instance(s, i), running(s, i), scratch(s)
    count = inst.decoding + inst.prefilling
    for j in range(count):
        other = requests[j]
        generated = generated_at(s, i, j, ahead)
        length = request(s, other).prompt + generated
        order[j] = -(_remaining(s, i, other, generated) << 31) - length
    row = request(s, r)
    order[count] = -(_remaining(s, i, r, row.generated) << 31) - row.prompt - row.generated
    sort_in_place(order, count + 1)
    most, lengths = 0, 0
    for k in range(count + 1):
        remaining, length = (-order[k]) >> 31, (-order[k]) & _LOW
        lengths += length
        most = max(most, remaining * (k + 1) + lengths)
    return most


@inlined
def fits(s: Any, i: int, r: int, ahead: int) -> bool:
    """Admission test of a waiting request, `ahead` iterations from the start of the stretch.

    Where it fails, `shortfall` is set to the iterations before which it can't pass: in one, what
    the requests will take falls by no more than the one token that the newcomer starts later.
    """
    inst, eng, row = instance(s, i), engine(s, i), request(s, r)
    in_service = inst.decoding + inst.prefilling
    if in_service >= inst.max_num_seqs:
        return False
    # The head is tested time and again, and its row may be far away.
    if eng.tested != r:
        eng.tested = r
        eng.tested_tokens = row.prompt + row.generated
    own = eng.tested_tokens
    if in_service == 0:
        return own <= inst.room
    limit = inst.kv_capacity - inst.watermark
    if eng.adapter_tokens > 0:
        new = 1 if line(s, i, traits(s, r).tenant).running == 0 else 0
        limit -= eng.adapter_tokens * (eng.tenants + new)
    if eng.admission == GROWTH:
        total = inst.context + inst.prefill_reserved + ahead * inst.stretch_batch + own
        if eng.block == 1 or total > limit or total + (eng.block - 1) * (in_service + 1) <= limit:
            return total <= limit
        return _occupied(s, i, ahead) + _blocks(own, eng.block) <= limit
    need = _peak(s, i, r, ahead)
    eng.shortfall = max(need - limit, 1)
    return need <= limit


@compiled
def next_head(s: Any, i: int) -> int:
    """The head of instance i's waiting queue, past calls whose interaction is over; -1 if none."""
    eng = engine(s, i)
    while eng.queued > 0:
        r = queues.head(s, i)
        if s.kills == 0 or killed(s, traits(s, r).interaction)[0] == 0:
            return r
        queues.take(s, i, r)
        eng.queued -= 1
        if s.tracked == 1:
            tenants.count_waiting(s, r, -1)
        reject_at(s, i, r, REJECTED_INTERACTION)
    return -1


@compiled
def reject_at(s: Any, i: int, r: int, status: int) -> None:
    """Turn a request away that waits at instance i, in no queue."""
    engine(s, i).tested = -1
    leave_counts(s, i, r)
    if s.gated == 1:
        note_turned_away(s, r)
        tell(s, r)
    if s.counted + s.gated > 0 and traits(s, r).entered == 1:
        tenants.depart(s, r)
    turn_away(s, r, status)
    s.at_instances -= 1
    s.limited += 1


@compiled
def _look(s: Any, i: int, r: int, fit: bool) -> bool:
    """What the admission policy says of the head: whether it is admitted.

    One that is turned away or dropped leaves the queue, as `removed` says.
    """
    inst, eng = instance(s, i), engine(s, i)
    verdict = gateway.look(s, r, 1 if fit else 0)
    if verdict == LET_IN or (verdict == WAIT and fit and inst.decoding + inst.prefilling == 0):
        return True
    if verdict == TURN_AWAY or verdict == DROP:
        queues.take(s, i, r)
        eng.queued -= 1
        if s.tracked == 1:
            tenants.count_waiting(s, r, -1)
        reject_at(s, i, r, REJECTED_GATE if verdict == TURN_AWAY else REJECTED_PATIENCE)
        if gate(s).kills == 1:
            killed(s, traits(s, r).interaction)[0] = 1
        eng.removed = 1 if verdict == DROP else 2
    return False


@compiled
def _beyond_limit(s: Any, i: int, r: int) -> bool:
    """Whether the head exceeds the token limit of the prefill iteration that is being planned."""
    inst, eng, row = instance(s, i), engine(s, i), request(s, r)
    if eng.batched == 0:
        return False
    hit = cache.find(s, i, r) if eng.caches == 1 else 0
    return eng.batched + row.prompt + row.generated - hit > inst.max_batched_tokens


@inlined
def next_admission(s: Any, i: int) -> int:
    """The next waiting request that instance i may admit now, -1 if there is none.

    Up to `skip` requests that don't fit are set aside on the way.
    """
    eng = engine(s, i)
    while eng.queued > 0:
        r = eng.root if s.plain == 1 and eng.front < 0 else next_head(s, i)
        if r < 0:
            return -1
        admitted = fits(s, i, r, 0)
        if s.looks == 1:
            eng.removed = 0
            full = admitted and _beyond_limit(s, i, r)
            fitting = admitted and not full
            admitted = _look(s, i, r, fitting)
            if eng.removed > 0:
                inst = instance(s, i)
                if eng.removed == 2 and not fitting and inst.decoding + inst.prefilling > 0:
                    return -1
                continue
            if full:
                return -1
        if admitted:
            return r
        if eng.skipped == eng.skip:
            return -1
        eng.aside = queues.set_aside(s, i, r, eng.aside)
        eng.queued -= 1
        eng.skipped += 1
    return -1


@compiled
def end_attempt(s: Any, i: int) -> None:
    """Put back what an admission has set aside."""
    eng = engine(s, i)
    queues.put_back(s, i, eng.aside)
    eng.queued += eng.skipped
    eng.skipped = 0
    eng.aside = -1


@inlined
def admit_head(s: Any, i: int, r: int, hit: int) -> None:
    """Move the head of the waiting queue into prefill; `hit` of its tokens are cached."""
    inst, eng, row = instance(s, i), engine(s, i), request(s, r)
    queues.take(s, i, r)
    fetch_request(s, eng.front if eng.front >= 0 else eng.root)  # the next head
    eng.tested = -1
    tokens = row.prompt + row.generated
    eng.queued -= 1
    leave_counts(s, i, r)
    if s.tracked == 1:
        tenants.count_waiting(s, r, -1)
        tenants.count_in(s, i, r)
        _note_last(s, r)
    inst.prefill_reserved += tokens
    eng.taken += tokens
    running(s, i)[inst.decoding + inst.prefilling] = r
    join_service(s, i, r)
    inst.prefilling += 1
    s.cached_tokens += hit
    if row.admit_ps < 0:
        row.admit_ps = s.now_ps
        if s.counted == 1:
            tenants.charge(s, ADMIT, 0, 0, r)
    else:
        s.recomputed_tokens += tokens - hit


@compiled
def _note_last(s: Any, r: int) -> None:
    t = traits(s, r).tenant
    if tenant(s, t).queued == 0:
        s.last_tenant = t
