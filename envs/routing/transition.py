"""One step of the routing MDP in compiled code: act, run to the next decision, observe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from envs.routing.layout import ENV_DTYPE, FIXED_IN_ENV, STEP_VALUES
from envs.routing.observation import observe, observe_engines, outstanding
from envs.simulator.jit import EntryPoint, compiled, inlined
from envs.simulator.kernel import carry_out, proceed
from envs.simulator.layout import PS_PER_S, ROUTE
from envs.simulator.memory import all_instances, all_requests, candidates, head_at, words_at
from envs.simulator.mixing import mixing_impact
from envs.simulator.records import record_at

TICK_S = 0.02
"""The paper's decision interval, the unit of its per-step penalties."""

_ENV_BYTES = ENV_DTYPE.itemsize
_env_at = record_at(ENV_DTYPE, FIXED_IN_ENV)
_bytes_at = words_at(types.int8)


@compiled
def _mixing_regret(e: Any, s: Any, action: int) -> float:
    """Mixing score of the chosen instance minus the best one's (<= 0); 0 for a hold."""
    if action >= s.window * e.rows:
        return 0.0
    instances, requests = all_instances(s), all_requests(s)
    r = candidates(s)[action // e.rows]
    best = -np.inf
    for i in range(s.size):
        score = mixing_impact(instances, requests, i, r, s.now_ps, e.alpha, e.epsilon)
        best = max(best, score)
        if i == action % e.rows:
            chosen = score
    return chosen - best


@compiled
def _area_s(s: Any) -> float:
    return s.area_s + s.area_ps / PS_PER_S


@compiled
def _weighted_sum(e: Any) -> float:
    return (
        e.latency_weight * e.latency
        + e.outstanding_weight * e.outstanding
        + e.completions_weight * e.completions
        + e.mixing_weight * e.mixing
        + e.potential_weight * e.potential
        + e.slo_goodput_weight * e.slo_goodput
        + e.rejections_weight * e.rejections
    )


@inlined
def _step(address: int, action: int, start: bool) -> None:
    """Carry out an action and run to the next decision, by the address of the record.

    A masked action becomes a hold. `start` is the first call of an episode, which takes no
    action; what requests wait before the first decision (on a clock, to the first tick) counts in
    the first step. Results are left in the record.
    """
    e = _env_at(address, 0)
    s = head_at(e.head_at, 0)
    before = s.now_ps
    served, good, good_tokens = s.served, s.good, s.good_tokens
    preemptions, misrouted = s.preemptions, s.misrouted
    pressure = 0.0
    if not start:
        if e.outstanding_weight != 0.0:
            pressure = outstanding(s)
        hold = s.window * e.rows
        legal = 0 <= action <= hold and _bytes_at(e.mask_at)[action] == 1
        if not legal:
            action = hold
        e.mixing = _mixing_regret(e, s, action) if e.mixing_weight != 0.0 else 0.0
        place, i = 0, action
        if action >= e.rows:  # to divide takes as long as a dozen other instructions
            place, i = action // e.rows, action % e.rows
        obeyed = carry_out(s, place * s.size + i if action < hold else -1)
        e.obeyed = 1 if legal and obeyed else 0
    e.ended = 0 if proceed(s) == ROUTE else 1
    if start:
        observe_engines(e, s)
        e.area_s = 0.0
    value = observe(e, s)
    if start:
        e.value = value
        return
    e.dt_s = (s.now_ps - before) / PS_PER_S
    e.cut = 1 if s.now_ps >= e.horizon_ps else 0
    area = _area_s(s)
    e.latency = e.area_s - area
    e.area_s = area
    e.outstanding = -pressure * e.dt_s / TICK_S
    e.completions = s.served - served
    e.slo_goodput = s.good_tokens - good_tokens
    e.rejections = -(s.misrouted - misrouted)
    e.preemptions = s.preemptions - preemptions
    e.slo_misses = (s.served - served) - (s.good - good)
    e.misrouted = s.misrouted - misrouted
    if e.ended == 1:
        value = 0.0
    e.potential = 0.0
    if e.potential_weight != 0.0:
        e.potential = e.value - math.exp(-e.dt_s / e.tau_s) * value
    e.value = value
    e.reward = _weighted_sum(e)


def _step_one(address: int, action: int, start: bool) -> None:
    """`_step` for Python."""
    _step(address, action, start)


# The order in which `_step_all` writes them.
assert STEP_VALUES == (
    *("reward", "dt", "preemptions", "slo_misses", "rejections", "latency", "outstanding"),
    *("completions", "mixing", "potential", "slo_goodput", "rejections"),
)


def _step_all(
    address: int, actions: np.ndarray, skip: np.ndarray, values: np.ndarray, flags: np.ndarray
) -> bool:
    """A step of every environment of a batch, whose records begin at an address.

    Args:
        address: Where the (n,) records lie.
        actions: (n,) int64.
        skip: (n,) bool, environments that take no step.
        values: (len(STEP_VALUES), n) float64, filled; 0 where skipped.
        flags: (len(STEP_FLAGS), n) bool, filled; False where skipped.

    Returns:
        Whether an episode ended.
    """
    ended = False
    for k in range(len(actions)):
        if skip[k]:
            values[:, k] = 0.0
            flags[:, k] = False
            continue
        _step(address + k * _ENV_BYTES, actions[k], False)
        e = _env_at(address, k)
        flags[0, k] = e.ended == 1
        flags[1, k] = e.cut == 1 and e.ended == 0
        flags[2, k] = e.obeyed == 1
        ended |= e.ended == 1 or e.cut == 1
        values[0, k] = e.reward
        values[1, k] = e.dt_s
        values[2, k] = e.preemptions
        values[3, k] = e.slo_misses
        values[4, k] = e.misrouted
        values[5, k] = e.latency_weight * e.latency
        values[6, k] = e.outstanding_weight * e.outstanding
        values[7, k] = e.completions_weight * e.completions
        values[8, k] = e.mixing_weight * e.mixing
        values[9, k] = e.potential_weight * e.potential
        values[10, k] = e.slo_goodput_weight * e.slo_goodput
        values[11, k] = e.rejections_weight * e.rejections
    return ended


step_one = EntryPoint(_step_one, types.void(types.int64, types.int64, types.boolean))
step_all = EntryPoint(
    _step_all,
    types.boolean(
        types.int64,
        types.Array(types.int64, 1, "C"),
        types.Array(types.boolean, 1, "C"),
        types.Array(types.float64, 2, "C"),
        types.Array(types.boolean, 2, "C"),
    ),
)
