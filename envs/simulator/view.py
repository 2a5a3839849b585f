"""What a routing policy may ask of the fleet at a decision.

All functions are compiled, take the arrays that a policy gets, and bring an instance lazily to
the present: counts are current as they stand, token counts grow with the iterations completed
since the stretch began. None of them reads a true output length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import ANY_TIER, BATCH, LAST_TIER
from envs.simulator.prediction import predicted_remaining as _predicted_remaining
from envs.simulator.stretch import iterations_within


@compiled
def iterations_done(instances: np.ndarray, i: int, now_ps: int) -> int:
    """Iterations of instance i's current stretch that have ended by now."""
    row = instances[i]
    if row.stretch_batch == 0:
        return 0
    return iterations_within(row.step_ps, row.step_growth_ps, now_ps - row.stretch_start_ps)


@compiled
def in_service(instances: np.ndarray, i: int) -> int:
    """Requests in prefill or decode."""
    return instances[i].decoding + instances[i].prefilling


@compiled
def load(instances: np.ndarray, i: int) -> int:
    """Requests at the instance: waiting, in prefill and in decode."""
    return instances[i].waiting + instances[i].decoding + instances[i].prefilling


@inlined
def serves(row: Any, request: Any) -> bool:
    """Whether an instance serves the model and tier of a request, by their rows."""
    # Not `and`: which part fails can't be foreseen, and a wrong guess costs more than all parts.
    model = (row.model < 0) | (request.model < 0) | (row.model == request.model)
    tier = (row.lane == ANY_TIER) | ((row.lane == BATCH) == (request.tier == LAST_TIER))
    return bool(model & tier)


@inlined
def holds(row: Any, request: Any) -> bool:
    """`can_hold` of the rows of an instance and a request."""
    return (request.prompt <= row.room) & (row.down == 0) & serves(row, request)


@compiled
def can_hold(instances: np.ndarray, requests: np.ndarray, i: int, request: int) -> bool:
    """Whether instance i is up, serves model and tier, and holds the prompt when empty."""
    return bool(holds(instances[i], requests[request]))


@compiled
def kv_tokens(instances: np.ndarray, i: int, now_ps: int) -> int:
    """KV tokens of the requests in service: the sum of prompt + generated."""
    row = instances[i]
    grown = row.stretch_batch * iterations_done(instances, i, now_ps)
    return row.context + row.prefill_reserved + grown


@compiled
def predicted_remaining(requests: np.ndarray, request: int, generated: int) -> int:
    """Predicted output tokens still to come, at least 1, also of one that outlives them."""
    return _predicted_remaining(requests[request], generated)


@compiled
def generated_tokens(
    instances: np.ndarray, requests: np.ndarray, running: np.ndarray, i: int, j: int, done: int
) -> int:
    """Tokens generated of the j-th request in service, `done` iterations into the stretch."""
    request = running[i, j]
    if j < instances[i].decoding:
        return instances[i].iteration + done - requests[request].base
    return requests[request].generated


@compiled
def decode_work(
    instances: np.ndarray, requests: np.ndarray, running: np.ndarray, i: int, now_ps: int
) -> int:
    """Predicted output tokens still to come of the requests in service and waiting."""
    done = iterations_done(instances, i, now_ps)
    work = instances[i].waiting_predicted
    for j in range(instances[i].decoding + instances[i].prefilling):
        generated = generated_tokens(instances, requests, running, i, j, done)
        work += predicted_remaining(requests, running[i, j], generated)
    return work


@compiled
def prompt_tokens(requests: np.ndarray, request: int) -> int:
    """Prompt tokens of a request."""
    return requests[request].prompt


@compiled
def predicted_tokens(requests: np.ndarray, request: int) -> int:
    """Predicted output tokens of a request, at least 1."""
    return requests[request].predicted


@compiled
def waiting(instances: np.ndarray, i: int) -> int:
    """Requests in the waiting queue of instance i, or before its ingress."""
    return instances[i].waiting


@compiled
def waiting_tokens(instances: np.ndarray, i: int) -> int:
    """Tokens that the waiting requests will prefill: prompts, and answers cut by preemption."""
    return instances[i].waiting_tokens


@compiled
def prefill_backlog(instances: np.ndarray, i: int) -> int:
    """Tokens waiting to be prefilled or in prefill; a prompt prefilled in chunks counts whole."""
    return instances[i].waiting_tokens + instances[i].prefill_reserved


@compiled
def kv_capacity(instances: np.ndarray, i: int) -> int:
    """KV tokens that instance i holds."""
    return instances[i].kv_capacity


@compiled
def kv_limit(instances: np.ndarray, i: int) -> int:
    """KV tokens that admission may fill: capacity - watermark."""
    return instances[i].kv_capacity - instances[i].watermark


@compiled
def kv_demand(instances: np.ndarray, i: int, now_ps: int) -> int:
    """KV tokens of the requests in service plus those that the waiting ones need at admission."""
    # Not by way of `kv_tokens`: a call one level deeper is no longer inlined, at three times
    # the cost.
    row = instances[i]
    grown = row.stretch_batch * iterations_done(instances, i, now_ps)
    return row.context + row.prefill_reserved + grown + row.waiting_tokens


@compiled
def has_slot(instances: np.ndarray, i: int) -> bool:
    """Whether one more request stays within `max_num_seqs`, after those that wait."""
    return load(instances, i) < instances[i].max_num_seqs


@compiled
def prefill_token_s(instances: np.ndarray, i: int) -> float:
    """Seconds that one more prompt token costs in a large prefill step of instance i."""
    return max(instances[i].prefill_tail_ps, 1) * 1e-12


@compiled
def shared_tokens(
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    i: int,
    now_ps: int,
    tokens: int,
) -> float:
    """Sum of min(`tokens`, predicted remaining) over the requests at instance i.

    That is how many of their tokens are generated beside a newcomer of that many tokens. Of the
    waiting requests only the sum is kept: each counts with their mean.
    """
    done = iterations_done(instances, i, now_ps)
    total = 0.0
    for j in range(instances[i].decoding + instances[i].prefilling):
        generated = generated_tokens(instances, requests, running, i, j, done)
        total += min(tokens, predicted_remaining(requests, running[i, j], generated))
    if instances[i].waiting > 0:
        total += min(float(tokens) * instances[i].waiting, float(instances[i].waiting_predicted))
    return total
