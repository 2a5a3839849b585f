"""The baselines of the Intelligent Router paper (arXiv:2408.13510 A.1-A.2)."""

from __future__ import annotations

import numpy as np

from envs.simulator.mixing import mixing_impact
from envs.simulator.policy import HOLD
from envs.simulator.view import (
    can_hold,
    has_slot,
    in_service,
    kv_demand,
    kv_limit,
    load,
    predicted_tokens,
    prefill_backlog,
    prefill_token_s,
    prompt_tokens,
)

HEAVY_DECODE_TOKENS = 147.0
"""A decode phase of 5 s at 34 ms a token (arXiv:2408.13510 section 4.2)."""


def max_capacity(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Every second, the head of the queue goes to the instance with the most available capacity.

    Available: KV capacity - watermark - KV in service - tokens of the waiting requests. If the
    prompt exceeds it, or no slot is free there, the rule holds. Ties: lowest index.

    The paper's words, taken literally, dispatch one request a second whatever the load. With
    `decision_interval_s=0` the same rule decides at every event.
    """
    best, most = HOLD, -np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]) and has_slot(instances, i):
            room = kv_limit(instances, i) - kv_demand(instances, i, now_ps)
            if room > most:
                best, most = i, room
    if most < prompt_tokens(requests, candidates[0]):
        return HOLD
    return best


def min_min(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Of all (request of the window, instance) pairs, the one that would complete first.

    Completion, in seconds, with c the instance's seconds per prompt token:
    `c * (tokens to prefill + prompt + bucket * (step_tokens + sequence_tokens * n))`, where n is
    the number of requests in service there and `bucket` the upper end of the predicted bucket:
    256, 2,048, or 4,096 tokens. A decode step of one sequence costs as much as `step_tokens`
    prompt tokens (16.7 ms / 0.32 ms), each further one as `sequence_tokens` (1.5 ms / 0.32 ms).
    Only instances whose free KV and slots take the prompt now are looked at, and if there is
    none the rule holds: without a queue there is nothing to choose from. Ties: first in the
    queue, then lowest index.

    Source: arXiv:2408.13510 A.1 (buckets: A.9), after Chen et al. 2013; the paper gives no
    formula for the completion time, this one is the project's.
    """
    size = len(instances)
    best, least = HOLD, np.inf
    for place in range(len(candidates)):
        request = candidates[place]
        if request < 0:
            break
        prompt, predicted = prompt_tokens(requests, request), predicted_tokens(requests, request)
        bucket = 4096.0
        if predicted < 256:
            bucket = 256.0
        elif predicted < 2048:
            bucket = 2048.0
        for i in range(size):
            demand = kv_demand(instances, i, now_ps) + prompt
            if has_slot(instances, i) and demand <= kv_limit(instances, i):
                step = parameters[0] + parameters[1] * in_service(instances, i)
                tokens = prefill_backlog(instances, i) + prompt + bucket * step
                score = prefill_token_s(instances, i) * tokens
                if score < least:
                    best, least = place * size + i, score
    return best


def decode_balancer(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least sum of the predicted output tokens of all requests ever sent to the instance.

    `memory[64 + i]` is the sum of instance i. Ties: lowest index. The paper's version knows the
    true lengths: that is `baselines.oracles.oracle` of this one. Source: arXiv:2408.13510 A.1.
    """
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = memory[64 + i]
            if score < least:
                best, least = i, score
    if best != HOLD:
        memory[64 + best] += predicted_tokens(requests, candidates[0])
    return best


def dedicated(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Dedicated small-large: light decodes on the lower half, heavy ones on the upper half.

    Heavy: predicted output > `heavy_tokens` (147). The lower half are the first N // 2
    instances; a single instance is both halves. Inside a half: fewest requests in service +
    waiting, ties to the lowest index. If no instance of the half can hold the prompt, all are
    looked at. Source: arXiv:2408.13510 Table 2, for two instances; halves are this project's
    extension.
    """
    size, request = len(instances), candidates[0]
    first, last = 0, size
    if size > 1 and predicted_tokens(requests, request) > parameters[0]:
        first = size // 2
    elif size > 1:
        last = size // 2
    best, least = HOLD, np.inf
    elsewhere, least_elsewhere = HOLD, np.inf
    for i in range(size):
        if can_hold(instances, requests, i, request):
            score = load(instances, i)
            if first <= i < last:
                if score < least:
                    best, least = i, score
            elif score < least_elsewhere:
                elsewhere, least_elsewhere = i, score
    return best if best != HOLD else elsewhere


def argmax_r_mixing(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least mixing impact: most `r_mixing` of `envs.simulator.mixing` (a reconstruction).

    Parameters: `alpha` (0.5) and `epsilon` (0.3 s). Ties: lowest index. The paper names a
    "light-weight heuristic" without defining it; this is its natural reading.
    """
    request = candidates[0]
    best, most = HOLD, -np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, request):
            score = mixing_impact(
                instances, requests, i, request, now_ps, parameters[0], parameters[1]
            )
            if score > most:
                best, most = i, score
    return best
