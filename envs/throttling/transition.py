"""One step of the throttling MDP in compiled code: act, run to the next decision, observe."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator import gateway, tenants
from envs.simulator.jit import EntryPoint, compiled
from envs.simulator.kernel import carry_out, proceed
from envs.simulator.layout import (
    END,
    LET_IN,
    PAUSE,
    PS_PER_S,
    ROUTE,
    TURN_AWAY,
    WAIT,
)
from envs.simulator.memory import (
    array_at,
    candidates,
    engine,
    gate,
    head_at,
    instance,
    scheduler_row,
    tenant,
    traits,
)
from envs.simulator.order import sort_in_place
from envs.simulator.outcomes import note_left
from envs.simulator.records import record_at
from envs.simulator.router_queue import can_dispatch, request_fits
from envs.throttling.layout import ADMIT, DEFER, ENV_DTYPE, REJECT, SETTINGS, STEP_VALUES
from envs.throttling.observation import is_active, observe

_ENV_BYTES = ENV_DTYPE.itemsize
_env_at = record_at(ENV_DTYPE)
_floats_at = array_at(types.Array(types.float32, 1, "C"))
_longs_at = array_at(types.Array(types.int64, 1, "C"))
_bytes_at = array_at(types.Array(types.int8, 1, "C"))

_LOW = np.array([setting.low for setting in SETTINGS])
_HIGH = np.array([setting.high for setting in SETTINGS])
_POWERS = np.array([setting.powers for setting in SETTINGS])
_OPEN = np.array([setting.open for setting in SETTINGS])
_NO_LIMIT = 1e18


@compiled
def _least_loaded(s: Any) -> int:
    """The instance with the fewest requests that can take the head of the router queue."""
    r, best, least = candidates(s)[0], -1, 0
    for i in range(s.size):
        inst = instance(s, i)
        load = inst.waiting + inst.decoding + inst.prefilling
        if (best < 0 or load < least) and can_dispatch(s, r, i) and request_fits(s, r, i):
            best, least = i, load
    return best


@compiled
def _value_of(k: int, x: float) -> float:
    """The setting that -1 .. 1 stands for."""
    share = min(max((x + 1.0) / 2.0, 0.0), 1.0)
    if _OPEN[k] and share >= 1.0:
        return _NO_LIMIT
    if _POWERS[k]:
        return _LOW[k] * (_HIGH[k] / _LOW[k]) ** share
    return _LOW[k] + (_HIGH[k] - _LOW[k]) * share


@compiled
def _class_bounds(e: Any, s: Any) -> None:
    """Bounds of the classes: the median and the upper tenth of active tenants' calls a minute."""
    calls, row = _longs_at(e.scratch_at, s.tenant_count), gate(s)
    count = 0
    for t in range(s.tenant_count):
        if is_active(s, t) and tenant(s, t).recent > 0:
            calls[count] = tenant(s, t).recent
            count += 1
    if count == 0:
        return
    sort_in_place(calls, count)
    row.p5 = calls[count // 2]
    row.p6 = calls[min(count * 9 // 10, count - 1)]


@compiled
def _tune(e: Any, s: Any) -> None:
    """Put the settings of the action in force."""
    action, now = _floats_at(e.action_at, len(_LOW)), _floats_at(e.settings_at, len(_LOW))
    limits, order = gate(s), scheduler_row(s, 0)
    tenants.post_all(s)  # at the settings that were in force until now
    half_life = _value_of(7, now[7])
    if half_life < _NO_LIMIT:
        kept = 0.5 ** (e.interval_ps / PS_PER_S / half_life)
        for t in range(s.tenant_count):
            account = tenant(s, t)
            account.counter = int(account.counter * kept)
    for k in range(len(_LOW)):
        now[k] = min(max(action[k], np.float32(-1.0)), np.float32(1.0))
    limits.p0 = _value_of(0, now[0])
    limits.p1 = _value_of(1, now[1])
    limits.p2 = _value_of(2, now[2])
    limits.p3 = _value_of(3, now[3])
    limits.p4 = _value_of(4, now[4])
    order.p2 = _value_of(5, now[5])
    order.p4 = 0.0 if now[6] <= -1.0 else _value_of(6, now[6])
    _class_bounds(e, s)


@compiled
def _may_defer(e: Any, s: Any) -> bool:
    """Whether the client of the call that is asked about would still be there."""
    r = engine(s, s.size + 2).root
    return s.now_ps - traits(s, r).logged_ps + e.delay_ps <= gate(s).patience_ps


@compiled
def _run(s: Any) -> int:
    """Run to the next decision that is not the router's."""
    why = proceed(s)
    while why == ROUTE:
        carry_out(s, _least_loaded(s))
        why = proceed(s)
    return why


@compiled
def _account(e: Any, s: Any, gap: float) -> None:
    """Terms and costs of the step, from the sums before and after it."""
    sums = gate(s)
    e.wasted_tokens = sums.wasted_tokens - e.last_wasted
    e.benign_throttles = sums.benign - e.last_benign
    e.light_late = sums.light_late - e.last_late
    e.backlogged_gap = gap
    e.value = (sums.value - e.last_value) / e.typical_tokens
    e.waste = -e.wasted_tokens / e.typical_tokens
    unmet = 0.0 if e.ended == 1 else e.unmet
    e.fairness = -0.5 * (e.last_unmet + unmet) * e.dt_s / 60.0
    e.served_tokens = sums.served_tokens - e.last_served
    e.light_calls = sums.light - e.last_light
    e.benign = -e.benign_throttles
    e.late = -e.light_late
    e.reward = (
        e.value_weight * e.value
        + e.waste_weight * e.waste
        + e.fairness_weight * e.fairness
        + e.benign_weight * e.benign
        + e.late_weight * e.late
    )
    e.last_value, e.last_wasted = sums.value, sums.wasted_tokens
    e.last_benign, e.last_late, e.last_unmet = sums.benign, sums.light_late, unmet
    e.last_served, e.last_light = sums.served_tokens, sums.light


@compiled
def _step(address: int, action: int, start: bool) -> None:
    """Carry out an action and run to the next decision, by the address of the record.

    `start` is the first call of an episode; the tuner's action then is the first interval's. The
    gate's is admit, defer or reject; anything else admits. Results are left in the record.
    """
    e = _env_at(address, 0)
    s = head_at(e.head_at, 0)
    e.obeyed = 1
    if e.tuner == 1:
        _tune(e, s)
        e.tick_ps = min(e.tick_ps + e.interval_ps, e.horizon_ps)
        s.pause_ps = e.tick_ps
    elif not start:
        gate(s).delay_ps = e.delay_ps
        verdict = LET_IN
        if action == DEFER:
            verdict = WAIT
        elif action == REJECT:
            verdict = TURN_AWAY
        elif action != ADMIT:
            e.obeyed = 0
        mask = _bytes_at(e.mask_at, 3)
        if action == DEFER and mask[DEFER] == 0:
            e.obeyed = 0  # its client would have given up: it is turned away
        if s.due == 2:
            s.due = 0
            gateway.answer(s, verdict)
    why = _run(s)
    e.ended = 1 if why == END else 0
    clock = s.now_ps
    if s.counted == 1:
        tenants.post_all(s)
    gap = observe(e, s, clock)
    if e.tuner == 0:
        _bytes_at(e.mask_at, 3)[DEFER] = 1 if s.due != 2 or _may_defer(e, s) else 0
    e.cut = 1 if why == PAUSE and clock >= e.horizon_ps else 0
    if e.ended + e.cut > 0:
        note_left(s)
    e.dt_s = (clock - e.last_ps) / PS_PER_S
    e.last_ps = clock
    _account(e, s, 0.0 if e.ended == 1 else gap)


# The order in which `_step_all` writes them.
assert STEP_VALUES == (
    *("reward", "dt", "wasted_tokens", "benign_throttles", "backlogged_gap", "light_late"),
    *("served_tokens", "light_calls", "value", "waste", "fairness", "benign", "late"),
)


def _step_all(
    address: int, actions: np.ndarray, skip: np.ndarray, values: np.ndarray, flags: np.ndarray
) -> bool:
    """A step of every environment of a batch, whose records begin at an address.

    Args:
        address: Where the (n,) records lie.
        actions: (n,) int64, of the gate.
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
        flags[1, k] = e.cut == 1
        flags[2, k] = e.obeyed == 1
        ended |= e.ended == 1 or e.cut == 1
        values[0, k] = e.reward
        values[1, k] = e.dt_s
        values[2, k] = e.wasted_tokens
        values[3, k] = e.benign_throttles
        values[4, k] = e.backlogged_gap
        values[5, k] = e.light_late
        values[6, k] = e.served_tokens
        values[7, k] = e.light_calls
        values[8, k] = e.value_weight * e.value
        values[9, k] = e.waste_weight * e.waste
        values[10, k] = e.fairness_weight * e.fairness
        values[11, k] = e.benign_weight * e.benign
        values[12, k] = e.late_weight * e.late
    return ended


step_one = EntryPoint(_step, types.void(types.int64, types.int64, types.boolean))
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
