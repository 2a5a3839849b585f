"""Routers of production stacks that weigh tokens and KV occupancy."""

from __future__ import annotations

import numpy as np

from envs.simulator.policy import HOLD
from envs.simulator.view import (
    can_hold,
    decode_work,
    kv_capacity,
    kv_demand,
    kv_tokens,
    load,
    prefill_backlog,
    prefill_token_s,
    prompt_tokens,
    waiting,
    waiting_tokens,
)


def jsq_tokens(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least work: prompt tokens yet to be prefilled + predicted output tokens yet to come.

    Over the requests in service and waiting, in tokens. Ties: lowest index. Source: "JSQ" of
    Intelligent Router, arXiv:2408.13510 A.1.
    """
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = prefill_backlog(instances, i)
            score += decode_work(instances, requests, running, i, now_ps)
            if score < least:
                best, least = i, score
    return best


def least_kv(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least (KV in service + tokens of the waiting requests) / KV capacity. Ties: lowest index.

    Source: AIBrix "least-kv-cache" `pkg/plugins/gateway/algorithms` @e3e10f9e, with the waiting
    prompts counted, so that a burst does not all go to one instance.
    """
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = kv_demand(instances, i, now_ps) / kv_capacity(instances, i)
            if score < least:
                best, least = i, score
    return best


def smg_least_load(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least `queued tokens / throughput + kv_weight_s * k / (1 - k)`, seconds.

    Queued tokens are those of the waiting requests; k is the KV utilisation in service, at most
    0.999; `kv_weight_s` is 0.15. `tokens_per_s` is the throughput; 0, the default, takes each
    instance's own prefill rate, which is the rate at which queued tokens drain and works on
    mixed fleets. The source falls back to 2,000 tokens/s and polls every 10 s; here the state is
    current, so nothing is in flight unseen. Ties: lowest index.

    Source: SMG `policies/least_load.rs` @73da68ca.
    """
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            token_s = prefill_token_s(instances, i)
            if parameters[0] > 0.0:
                token_s = 1.0 / parameters[0]
            k = min(kv_tokens(instances, i, now_ps) / kv_capacity(instances, i), 0.999)
            score = waiting_tokens(instances, i) * token_s + parameters[1] * k / (1.0 - k)
            if score < least:
                best, least = i, score
    return best


def llm_d(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Most `queue_weight * (max W - W) / (max W - min W) + kv_weight * (1 - k)`.

    W is the number of waiting requests, its extremes over the instances that can hold the
    prompt (the term is 1 for all when they are equal), k the KV utilisation in service; both
    weights are 2. The prefix scorer (weight 3) is 0: there is no prefix cache. Ties: lowest
    index, where the source picks at random.

    Source: llm-d-inference-scheduler @520af478, default profile.
    """
    low, high = np.inf, -np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            low = min(low, waiting(instances, i))
            high = max(high, waiting(instances, i))
    best, most = HOLD, -np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            queue = 1.0
            if high > low:
                queue = (high - waiting(instances, i)) / (high - low)
            k = kv_tokens(instances, i, now_ps) / kv_capacity(instances, i)
            score = parameters[0] * queue + parameters[1] * (1.0 - k)
            if score > most:
                best, most = i, score
    return best


def dynamo(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least `prefill_weight * prefill blocks + decode blocks`, this request included in both.

    Prefill blocks: tokens waiting to be prefilled or in prefill. Decode blocks: KV in service
    and of the waiting requests. Tokens are summed, then divided by `block_tokens` (16) and
    rounded up; the weight is 1. Temperature 0; ties: lowest index, where the source picks at
    random.

    Source: NVIDIA Dynamo, KV router documentation, without prefix overlap.
    """
    best, least = HOLD, np.inf
    prompt = prompt_tokens(requests, candidates[0])
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            prefill = np.ceil((prefill_backlog(instances, i) + prompt) / parameters[1])
            decode = np.ceil((kv_demand(instances, i, now_ps) + prompt) / parameters[1])
            score = parameters[0] * prefill + decode
            if score < least:
                best, least = i, score
    return best


def lmetric(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least `P_token * BS`.

    P_token is the tokens waiting to be prefilled or in prefill, plus this request's prompt; BS
    is the number of requests in service and waiting, without this one: an empty instance scores
    0. Ties: lowest index. Source: LMetric (OSDI 2026), from a literature note.
    """
    best, least = HOLD, np.inf
    prompt = prompt_tokens(requests, candidates[0])
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = (prefill_backlog(instances, i) + prompt) * load(instances, i)
            if score < least:
                best, least = i, score
    return best


def llumnix(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Most remaining steps: `(free KV - tokens of the waiting) / requests`, tokens a request.

    Requests in service and waiting; an empty instance has infinitely many steps. The source
    counts blocks of 16 tokens, a constant factor. Ties: lowest index. No live migration.

    Source: Llumnix `llumnix/load_computation.py` @24220fb8, dispatch metric `remaining_steps`.
    """
    best, most = HOLD, -np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            count = load(instances, i)
            if count == 0:
                return i
            score = (kv_capacity(instances, i) - kv_demand(instances, i, now_ps)) / count
            if score > most:
                best, most = i, score
    return best
