"""Requests that come to an instance, or are lost when it fails (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues, tenants
from envs.simulator.admission import fits, reject_at
from envs.simulator.batch import enqueue, generated_at, join_counts, leave, leave_counts
from envs.simulator.events import mark_pending, schedule
from envs.simulator.instance import end_stretch
from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import DECODE, GROWTH, IDLE, KEYED, MIXED, SLORA, STATIC_BATCH
from envs.simulator.memory import engine, instance, request, running, traits
from envs.simulator.stretch import duration, iterations_within


@inlined
def _enter(s: Any, i: int, r: int) -> None:
    """Let a dispatched request into the waiting queue of instance i, or turn it away."""
    if s.limit > 0 or s.kills == 1:
        status = tenants.let_in(s, r)
        if status != 0:
            reject_at(s, i, r, status)
            return
    if s.counted == 1:
        tenants.post_all(s)
        tenants.lift(s, r)
    if s.tracked == 1:
        tenants.count_waiting(s, r, 1)
    if s.counted + s.gated > 0 and traits(s, r).entered == 0:
        tenants.arrive(s, r)
    if s.limit > 0 or s.counted + s.gated > 0:
        traits(s, r).entered = 1
    enqueue(s, i, r)


@compiled
def take_in(s: Any, i: int, most: int) -> None:
    """Have the first requests before the ingress of instance i enter its waiting queue."""
    eng = engine(s, i)
    while eng.line_root >= 0 and most > 0:
        r = eng.line_root
        eng.line_root = request(s, r).right
        _enter(s, i, r)
        most -= 1


@inlined
def _cut(s: Any, i: int, least: int) -> int:
    """First iteration of the stretch that ends now or later, and is the `least`-th or later.

    After a change of the fleet, the iterations that begin at this instant have begun: later.
    """
    inst = instance(s, i)
    elapsed = s.now_ps - inst.stretch_start_ps
    cut = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
    if duration(inst.step_ps, inst.step_growth_ps, cut) < elapsed + s.changed:
        cut += 1
    return max(cut, least)


@inlined
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


@inlined
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
        growth = eng.admission == GROWTH and eng.kind <= KEYED and s.kills == 0 and s.looks == 0
        if not growth or eng.skip > 0 or (eng.front < 0 and eng.root == r):
            least = eng.decode_steps - eng.since_prefill if inst.batching == SLORA else 1
            cut = _cut(s, i, least)
            if cut < eng.planned and (not growth or fits(s, i, r, cut)):
                _shorten(s, i, cut)


@compiled
def strip(s: Any, i: int) -> int:
    """Take every request from instance i, which fails; they come as a list, by `right`.

    Those that are under way to it go on.
    """
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
        r = queues.pop_any(s, i)
        eng.queued -= 1
        leave_counts(s, i, r)
        if s.tracked == 1:
            tenants.count_waiting(s, r, -1)
        if eng.caches == 1:
            traits(s, r).kept = 0
        request(s, r).right = first
        first = r
    while eng.line_root >= 0:
        r = eng.line_root
        eng.line_root = request(s, r).right
        leave_counts(s, i, r)
        request(s, r).right = first
        first = r
    inst.iteration += done
    eng.charged = inst.iteration
    inst.decoding = 0
    inst.short = 0
    inst.medium = 0
    inst.prefilling = 0
    inst.prefill_reserved = 0
    inst.next_outlived = 0
    inst.context = 0
    inst.stretch_batch = 0
    eng.activity = IDLE
    eng.latest = -1
    eng.tested = -1
    eng.partial_done = 0
    eng.since_prefill = 0
    return first
