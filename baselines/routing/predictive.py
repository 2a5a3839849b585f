"""Routers that look ahead with predicted lengths: marginal cost and late binding."""

from __future__ import annotations

import numpy as np

from envs.simulator.policy import HOLD
from envs.simulator.view import (
    can_hold,
    decode_work,
    has_slot,
    kv_capacity,
    kv_demand,
    kv_limit,
    load,
    predicted_tokens,
    prefill_backlog,
    prefill_token_s,
    prompt_tokens,
    shared_tokens,
    waiting,
)


def marginal_cost(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least seconds that the request costs itself and the others at the instance.

    `ext + own + overflow_weight * c_p * overflow`, with
    `ext = n * c_p * p + c_b * S` (its prefill stops n others, its decode slows them),
    `own = c_p * (tokens to prefill + p) + a * d + c_b * S`,
    `overflow = max(0, KV demand + p + d + S - capacity)`: the KV when it finishes if nobody left.
    p and d are its prompt and predicted output tokens, n the requests in service and waiting,
    `S = sum of min(d, predicted remaining)` over them. Step time: c_p is the instance's own
    seconds per prompt token; a decode step of one sequence costs `a = c_p * step_tokens`, each
    further sequence `c_b = c_p * sequence_tokens`. The defaults are the V100 preset's 16.7 and
    1.5 ms over 0.32 ms, and scale with the instance's prefill speed on mixed fleets. Ties:
    lowest index.

    Source: this project; the literature's "Calibrate-then-Route" also routes by marginal cost.
    """
    step_tokens, sequence_tokens, overflow_weight = parameters[0], parameters[1], parameters[2]
    request = candidates[0]
    prompt, predicted = prompt_tokens(requests, request), predicted_tokens(requests, request)
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, request):
            beside = shared_tokens(instances, requests, running, i, now_ps, predicted)
            others = load(instances, i) * prompt + sequence_tokens * beside
            own = prefill_backlog(instances, i) + prompt + step_tokens * predicted
            own += sequence_tokens * beside
            peak = kv_demand(instances, i, now_ps) + prompt + predicted + beside
            overflow = max(0.0, peak - kv_capacity(instances, i))
            score = prefill_token_s(instances, i) * (others + own + overflow_weight * overflow)
            if score < least:
                best, least = i, score
    return best


def pull(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Late binding: dispatch only where the request is admitted at once, else hold.

    An instance qualifies if its waiting queue is empty, a slot is free and
    `KV in service + p + theta * (predicted remaining of those in service + d) <= capacity -
    watermark`, tokens, with p and d the request's prompt and predicted output; theta = 0 reserves
    nothing, 1 everything. An empty instance always qualifies, or a large request could hold the
    queue until the whole fleet is empty; hence the rule never holds while nothing is in service.
    Of those that qualify: least reserved KV as a share of capacity - watermark. Ties: lowest
    index.

    Source: this project; theta = 0 is the selective pushing of SkyWalker.
    """
    theta, request = parameters[0], candidates[0]
    prompt, predicted = prompt_tokens(requests, request), predicted_tokens(requests, request)
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if waiting(instances, i) > 0 or not has_slot(instances, i):
            continue
        if not can_hold(instances, requests, i, request):
            continue
        limit = kv_limit(instances, i)
        reserved = kv_demand(instances, i, now_ps) + prompt + theta * predicted
        # Going through the requests in service is the dear part.
        if theta > 0.0 and reserved <= limit:
            reserved += theta * decode_work(instances, requests, running, i, now_ps)
        if reserved <= limit or load(instances, i) == 0:
            score = reserved / limit
            if score < least:
                best, least = i, score
    return best
