"""The observation of a routing decision, filled by compiled code into fixed buffers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from envs.routing.layout import (
    FLEET_FEATURES,
    FUTURE_FEATURES,
    HORIZONS_S,
    INSTANCE_FEATURES,
    REQUEST_FEATURES,
)
from envs.simulator import view
from envs.simulator.batch import count_within
from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import NEVER, PS_PER_S
from envs.simulator.memory import (
    all_instances,
    all_requests,
    all_running,
    candidates,
    engine,
    instance,
    request,
    seen_instance,
    seen_outlived,
    seen_requests,
    seen_running_at,
    table,
    words_at,
)
from envs.simulator.prediction import predicted_remaining
from envs.simulator.stretch import iterations_within

_floats_at = words_at(types.float32)
_bytes_at = words_at(types.int8)
_longs_at = words_at(types.int64)

# Factor and largest value by feature. Whole numbers and float32s times the reciprocal of a whole
# number (of 0.1: ten) round to the same float32 as their quotient, and divisions are slow.
_REQUEST, _INSTANCE, _FLEET, _FUTURE = (
    tuple((1.0 / feature.scale, feature.high) for feature in features)
    for features in (REQUEST_FEATURES, INSTANCE_FEATURES, FLEET_FEATURES, FUTURE_FEATURES)
)
_HORIZONS_PS = np.array([round(h * PS_PER_S) for h in HORIZONS_S])
_DAY_S = 86_400.0


@inlined
def _scaled(value: float, feature: tuple[float, float]) -> float:
    """A quantity as it is observed; it is rounded to float32 before it is scaled."""
    factor, high = feature
    return min(float(np.float32(value)) * factor, high)


@inlined
def _observe_requests(e: Any, s: Any) -> None:
    width, queue = len(_REQUEST), candidates(s)
    for k in range(s.window):
        out, r = _floats_at(e.requests_at + 4 * k * width), queue[k]
        if r < 0 or s.queued == 0:
            for f in range(width):
                out[f] = 0.0
            continue
        row = request(s, r)
        prompt, predicted, tier = row.prompt, row.predicted, row.tier
        age_s = (s.now_ps - row.arrival_ps) / PS_PER_S
        sigma = e.prediction_sigma
        out[0] = 1.0
        out[1] = _scaled(prompt, _REQUEST[1])
        out[2] = _scaled(predicted, _REQUEST[2])
        out[3] = _scaled(sigma, _REQUEST[3])
        out[4] = _scaled(tier, _REQUEST[4])
        out[5] = _scaled(age_s, _REQUEST[5])


@compiled
def _predicted_of(s: Any, i: int, iteration: int) -> tuple[int, int]:
    """Predicted tokens to come of the decodes of instance i: of all, and of the first to end.

    They are looked at one by one, for what depends on how much each has generated.
    """
    inst, requests, in_service = seen_instance(s, i), seen_requests(s), seen_running_at(s, i)
    growth, earliest = 0, NEVER
    for j in range(inst.decoding):
        row = requests[in_service[j]]
        rest = predicted_remaining(row, iteration - row.base)
        growth += rest
        earliest = min(earliest, rest)
    return growth, earliest


@compiled
def _prefills_of(s: Any, i: int) -> int:
    """Predicted tokens to come of the requests in prefill at instance i."""
    inst, requests, in_service = seen_instance(s, i), seen_requests(s), seen_running_at(s, i)
    growth = 0
    for j in range(inst.decoding, inst.decoding + inst.prefilling):
        row = requests[in_service[j]]
        growth += predicted_remaining(row, row.generated)
    return growth


@inlined
def _observe_instance(e: Any, s: Any, i: int, head: int) -> tuple[float, float, bool]:
    """Fill one row, and the mask for the head of the queue.

    Returns:
        The predicted request-seconds to come there, its step time, and whether the head can go
        there.
    """
    inst = seen_instance(s, i)
    decoding, prefilling, waiting = inst.decoding, inst.prefilling, inst.waiting
    done = 0
    if inst.stretch_batch > 0:
        elapsed = s.now_ps - inst.stretch_start_ps
        done = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
    iteration = inst.iteration + done
    count_within(inst, seen_outlived(s, i), iteration)
    over = decoding - inst.within
    growth = inst.within_limits - inst.within * iteration + over * s.overrun_tokens
    earliest = inst.next_outlived - iteration
    if over > 0:
        earliest = min(earliest, s.overrun_tokens)
        if s.overrun_percent > 0:
            growth, earliest = _predicted_of(s, i, iteration)
    if prefilling > 0:
        growth += _prefills_of(s, i)
    grown = done * inst.stretch_batch
    context = inst.context + grown
    step_ps = table(s, inst.decode_at + max(decoding, 1)) + inst.context_ps * context
    step = step_ps / PS_PER_S  # a decode step with the decodes and KV that are there now
    used = context + inst.prefill_reserved
    work = growth + inst.waiting_predicted
    row = request(s, max(head, 0))
    fits = used + row.prompt + inst.watermark <= inst.kv_capacity
    slot = (waiting == 0) & (decoding + prefilling < inst.max_num_seqs)
    suits = view.holds(inst, row)
    free = (head >= 0) & slot & fits & suits
    if s.poll_ps > 0:
        suits = view.holds(instance(s, i), row)
    allowed = (head >= 0) & suits
    kv, slots = 1.0 / inst.kv_capacity, 1.0 / inst.max_num_seqs
    waiting_tokens, short, medium = inst.waiting_tokens, inst.short, inst.medium
    # All is read before anything is written: compiled code can't tell that the two don't overlap.
    out = _floats_at(e.instances_at + 4 * i * len(_INSTANCE))
    out[0] = _scaled(waiting, _INSTANCE[0])
    out[1] = _scaled(waiting_tokens * kv, _INSTANCE[1])
    out[2] = _scaled(short * slots, _INSTANCE[2])
    out[3] = _scaled((medium - short) * slots, _INSTANCE[3])
    out[4] = _scaled((decoding - medium) * slots, _INSTANCE[4])
    out[5] = _scaled(prefilling * slots, _INSTANCE[5])
    out[6] = _scaled(used * kv, _INSTANCE[6])
    out[7] = _scaled((used + waiting_tokens + work) * kv, _INSTANCE[7])
    out[8] = _scaled(work, _INSTANCE[8])
    out[9] = _scaled(earliest * step if decoding > 0 else 0.0, _INSTANCE[9])
    out[10] = _scaled(over / max(decoding, 1), _INSTANCE[10])
    out[11] = _scaled(step, _INSTANCE[11])
    out[14] = np.float32(free)
    out[15] = np.float32(decoding + prefilling + waiting == 0)
    _bytes_at(e.mask_at)[i] = 1 if allowed else 0
    return step * work, step, allowed


@compiled
def observe_engines(e: Any, s: Any) -> None:
    """Fill what does not change in an episode: the costs of each instance."""
    width = len(_INSTANCE)
    for i in range(s.size):
        inst, out = instance(s, i), _floats_at(e.instances_at + 4 * i * width)
        thousand = min(1_000, inst.max_batched_tokens)
        prefill = table(s, inst.prefill_at + thousand) / PS_PER_S * 1_000.0 / thousand
        out[12] = _scaled(table(s, inst.decode_at + 1) / PS_PER_S, _INSTANCE[12])
        out[13] = _scaled(prefill, _INSTANCE[13])


@inlined
def _observe_fleet(e: Any, s: Any) -> None:
    out = _floats_at(e.fleet_at)
    clock = e.day_start_s + s.now_ps / PS_PER_S
    if clock >= _DAY_S:
        clock %= _DAY_S
    angle = 2.0 * math.pi * clock / _DAY_S
    queued, tokens, predicted = s.queued, s.queued_tokens, s.queued_predicted
    system = queued + s.at_instances
    out[0] = _scaled(queued, _FLEET[0])
    out[1] = _scaled(tokens, _FLEET[1])
    out[2] = _scaled(predicted, _FLEET[2])
    out[3] = _scaled(system, _FLEET[3])
    out[4] = _scaled(math.sin(angle), _FLEET[4])
    out[5] = _scaled(math.cos(angle), _FLEET[5])


@compiled
def _observe_future(e: Any, s: Any) -> None:
    """Arrivals still to come, for a critic alone: an unbiased baseline, never for an actor."""
    out, sums = _floats_at(e.future_at), _longs_at(e.tokens_at)
    end = s.next_arrival
    for h in range(len(_HORIZONS_PS)):
        until = s.now_ps + _HORIZONS_PS[h]
        low, high = end, s.count
        while low < high:
            middle = (low + high) >> 1
            if request(s, middle).arrival_ps <= until:
                low = middle + 1
            else:
                high = middle
        end = low
        out[2 * h] = end - s.next_arrival
        out[2 * h + 1] = sums[end] - sums[s.next_arrival]
    for f in range(len(_FUTURE)):
        out[f] = _scaled(out[f], _FUTURE[f])


@inlined
def _fill_mask(e: Any, s: Any, placed: bool) -> None:
    """Allowed actions: an existing queue place, on an instance that can hold its prompt; hold.

    They are those of this moment, however long ago the router looked. Those of the head of the
    queue, of which `placed` says whether there is one, are there already.
    """
    mask, queue = _bytes_at(e.mask_at), candidates(s)
    for i in range(s.size, e.rows):
        mask[i] = 0
    for k in range(1, s.window):
        at, r = k * e.rows, queue[k] if s.queued > 0 else -1
        if r < 0:
            for i in range(e.rows):
                mask[at + i] = 0
            continue
        row = request(s, r)
        for i in range(s.size):
            mask[at + i] = 1 if view.holds(instance(s, i), row) else 0
        for i in range(s.size, e.rows):
            mask[at + i] = 0
    # The simulator forces a dispatch of the head on who holds for nothing, where it finds a place.
    mask[s.window * e.rows] = 0 if placed and s.at_instances == 0 else 1


@inlined
def observe(e: Any, s: Any) -> float:
    """Fill every buffer for the decision that is due, after `observe_engines` in an episode.

    Returns:
        The predicted remaining latency of all requests in the system, request-seconds: each
        one's predicted tokens to come at its instance's present decode step, those in the router
        queue at the mean of the instances' steps.
    """
    _observe_requests(e, s)
    head = candidates(s)[0] if s.queued > 0 else -1
    remaining, steps, placed = 0.0, 0.0, False
    for i in range(s.size):
        there, step, allowed = _observe_instance(e, s, i, head)
        remaining += there
        steps += step
        placed |= allowed
    _observe_fleet(e, s)
    if e.future_at != 0:
        _observe_future(e, s)
    _fill_mask(e, s, placed)
    return remaining + s.queued_predicted * steps / s.size


@compiled
def outstanding(s: Any) -> float:
    """Sum over requests in the system of 1 - generated / predicted, at least 0 each.

    One that came back from a failed instance counts whole until it decodes again.
    """
    instances, requests, in_service = all_instances(s), all_requests(s), all_running(s)
    total = float(s.queued)
    for i in range(s.size):
        inst = instance(s, i)
        done = view.iterations_done(instances, i, s.now_ps)
        for j in range(inst.decoding + inst.prefilling):
            generated = view.generated_tokens(instances, requests, in_service, i, j, done)
            predicted = requests[in_service[i, j]].predicted
            total += max(1.0 - generated / predicted, 0.0)
        total += inst.waiting
        if inst.waiting > 0:
            total -= _progress_of_preempted(s, i)
    return total


@compiled
def _progress_of_preempted(s: Any, i: int) -> float:
    """Generated share of the waiting requests that were preempted from instance i."""
    total = 0.0
    r = engine(s, i).front
    while r >= 0:
        row = request(s, r)
        total += min(row.generated / row.predicted, 1.0)
        r = row.right
    return total
