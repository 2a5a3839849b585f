"""Routers that count requests: round robin and its relatives, shortest queues."""

from __future__ import annotations

import numpy as np

from baselines.routing.randomness import random_below
from envs.simulator.policy import HOLD
from envs.simulator.view import can_hold, in_service, load, waiting


def round_robin(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Cycle over the instances; the default of most serving stacks.

    `memory[1]` is the next instance; one that cannot hold the prompt loses its turn. Reads
    nothing of the instances.
    """
    size = len(instances)
    for step in range(size):
        i = (memory[1] + step) % size
        if can_hold(instances, requests, i, candidates[0]):
            memory[1] = (i + 1) % size
            return i
    return HOLD


def power_of_two(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Draw two different instances and take the one with fewer requests (in service + waiting).

    A tie goes to the first drawn. If one cannot hold the prompt the other is taken, and if both
    cannot, the next instance that can. Draws: `random_below`, seeded by `memory[0]`, counted in
    `memory[1]`.

    Source: SMG/SGLang `policies/power_of_two.rs` @73da68ca, the branch that compares counts of
    requests in flight.
    """
    size, request = len(instances), candidates[0]
    a = random_below(memory, size)
    b = a
    if size > 1:
        b = (a + 1 + random_below(memory, size - 1)) % size
    if not can_hold(instances, requests, a, request) or (
        can_hold(instances, requests, b, request) and load(instances, b) < load(instances, a)
    ):
        a = b
    for step in range(size):
        i = (a + step) % size
        if can_hold(instances, requests, i, request):
            return i
    return HOLD


def jsq(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Join the shortest queue: fewest requests in service + waiting. Ties: lowest index."""
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = load(instances, i)
            if score < least:
                best, least = i, score
    return best


def vllm_dp(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Least `waiting_weight * waiting + in service`, requests; the weight is 4.

    Ties: lowest index. Source: the balancer of vLLM's data-parallel ranks, as mirrored by
    inference-sim `sim/routing_scorers.go` @f90a1e3a ("vllm-dp").
    """
    best, least = HOLD, np.inf
    for i in range(len(instances)):
        if can_hold(instances, requests, i, candidates[0]):
            score = parameters[0] * waiting(instances, i) + in_service(instances, i)
            if score < least:
                best, least = i, score
    return best
