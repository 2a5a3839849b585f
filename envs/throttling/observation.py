"""The observation of a throttling decision, filled by compiled code into fixed buffers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from envs.simulator.jit import compiled
from envs.simulator.judging import sense
from envs.simulator.layout import MINUTE_PS
from envs.simulator.memory import array_at, engine, gate, request, tenant, traits
from envs.simulator.scheduler import MILLION
from envs.throttling.layout import CALL_FEATURES, FLEET_FEATURES, TENANT_FEATURES

_floats_at = array_at(types.Array(types.float32, 1, "C"))
_longs_at = array_at(types.Array(types.int64, 1, "C"))

_FLEET_SCALE = np.array([f.scale for f in FLEET_FEATURES])
_FLEET_HIGH = np.array([f.high for f in FLEET_FEATURES])
_TENANT_SCALE = np.array([f.scale for f in TENANT_FEATURES])
_TENANT_HIGH = np.array([f.high for f in TENANT_FEATURES])
_CALL_SCALE = np.array([f.scale for f in CALL_FEATURES])
_CALL_HIGH = np.array([f.high for f in CALL_FEATURES])


@compiled
def _backlogged(s: Any) -> tuple[int, int, int]:
    """Least counter, and least and most service, of the tenants that wait; 0 where none does."""
    counter, least, most, found = 0, 0, 0, False
    for t in range(s.tenant_count):
        account = tenant(s, t)
        if account.queued > 0:
            counter = min(counter, account.counter) if found else account.counter
            least = min(least, account.service) if found else account.service
            most = max(most, account.service) if found else account.service
            found = True
    return counter, least, most


@compiled
def unmet_share(s: Any) -> float:
    """What the tenants that wait lack of the mean service of those in the system, typical calls."""
    total, count = 0.0, 0
    for t in range(s.tenant_count):
        account = tenant(s, t)
        if account.queued + account.running > 0:
            total += account.service / MILLION
            count += 1
    lacking = 0.0
    for t in range(s.tenant_count):
        account = tenant(s, t)
        if account.queued > 0:
            lacking += max(total / count - account.service / MILLION, 0.0)
    return lacking


@compiled
def _write_tenant(out: Any, at: int, s: Any, t: int, least: tuple[int, int]) -> None:
    account = tenant(s, t)
    out[at] = 1.0
    out[at + 1] = math.log1p(max(account.counter - least[0], 0) / MILLION)
    out[at + 2] = math.log1p(max(account.service - least[1], 0) / MILLION)
    out[at + 3] = math.log1p(account.queued)
    out[at + 4] = math.log1p(account.running)
    out[at + 5] = math.log1p(account.open)
    out[at + 6] = math.log1p(account.recent)
    out[at + 7] = math.log1p(account.recent_tokens / 1e3)
    out[at + 8] = math.log1p(account.turned_away)
    for f in range(len(_TENANT_SCALE)):
        out[at + f] = min(out[at + f] / _TENANT_SCALE[f], _TENANT_HIGH[f])


@compiled
def _before(s: Any, a: int, b: int) -> bool:
    """Whether tenant a stands before tenant b: by what waits, then by use; numbers do not count."""
    one, other = tenant(s, a), tenant(s, b)
    if one.queued != other.queued:
        return one.queued > other.queued
    if one.recent != other.recent:
        return one.recent > other.recent
    if one.counter != other.counter:
        return one.counter > other.counter
    if one.service != other.service:
        return one.service > other.service
    if one.running != other.running:
        return one.running > other.running
    if one.recent_tokens != other.recent_tokens:
        return one.recent_tokens > other.recent_tokens
    if one.open != other.open:
        return one.open > other.open
    return one.turned_away > other.turned_away


@compiled
def is_active(s: Any, t: int) -> bool:
    """Whether a tenant has a call in the system, or sent one within the last minute."""
    account = tenant(s, t)
    if account.queued > 0 or account.running > 0:
        return True
    return account.recent > 0 and s.now_ps - traits(s, account.latest).logged_ps < MINUTE_PS


@compiled
def _add(s: Any, t: int, sign: int, least: tuple[int, int], sums: np.ndarray) -> None:
    """Add what a tenant's features are of to whole numbers, whose order does not matter."""
    account = tenant(s, t)
    sums[0] += sign * max(account.counter - least[0], 0)
    sums[1] += sign * max(account.service - least[1], 0)
    sums[2] += sign * account.queued
    sums[3] += sign * account.running
    sums[4] += sign * account.open
    sums[5] += sign * account.recent
    sums[6] += sign * account.recent_tokens
    sums[7] += sign * account.turned_away


@compiled
def _observe_tenants(e: Any, s: Any, least: tuple[int, int]) -> int:
    """The tenants that wait most, a row each, then the mean of the rest; gives who waits at all."""
    width, rows = len(_TENANT_SCALE), e.rows
    out, chosen = _floats_at(e.tenants_at, (rows + 1) * width), _longs_at(e.scratch_at, rows)
    sums = _longs_at(e.sums_at, width - 1)
    out[:] = 0.0
    sums[:] = 0
    count, waiting, active = 0, 0, 0
    for t in range(s.tenant_count):
        if not is_active(s, t):
            continue
        active += 1
        waiting += 1 if tenant(s, t).queued > 0 else 0
        _add(s, t, 1, least, sums)
        if count == rows and not _before(s, t, chosen[rows - 1]):
            continue
        place = count if count < rows else rows - 1
        while place > 0 and _before(s, t, chosen[place - 1]):
            chosen[place] = chosen[place - 1]
            place -= 1
        chosen[place] = t
        count = min(count + 1, rows)
    for k in range(count):
        _write_tenant(out, k * width, s, chosen[k], least)
        _add(s, chosen[k], -1, least, sums)
    rest = active - count
    if rest > 0:
        at = rows * width
        out[at] = rest / active
        for f in range(1, width):
            unit = MILLION if f <= 2 else 1e3 if f == 7 else 1.0
            mean = math.log1p(sums[f - 1] / unit / rest)
            out[at + f] = min(mean / _TENANT_SCALE[f], _TENANT_HIGH[f])
    return waiting


@compiled
def _observe_call(e: Any, s: Any, r: int, least: tuple[int, int]) -> None:
    width, more = len(_CALL_SCALE), len(_TENANT_SCALE)
    out = _floats_at(e.call_at, width + more)
    for f in range(width + more):
        out[f] = 0.0
    if r < 0:
        return
    row, own = request(s, r), traits(s, r)
    out[0] = math.log1p(row.prompt / 100.0)
    out[1] = math.log1p(row.predicted / 100.0)
    out[2] = math.log1p(own.weight)
    out[3] = math.log1p(own.later + 1.0)
    out[4] = (s.now_ps - own.logged_ps) / MINUTE_PS
    out[5] = own.attempts
    for f in range(width):
        out[f] = min(out[f] / _CALL_SCALE[f], _CALL_HIGH[f])
    _write_tenant(out, width, s, own.tenant, least)


@compiled
def observe(e: Any, s: Any, clock_ps: int) -> float:
    """Fill every buffer for the decision that is due.

    Gives the spread of the service of the tenants that wait, over its scale.
    """
    counter, service, most = _backlogged(s)
    least = (counter, service)
    waiting = _observe_tenants(e, s, least)
    gap = (most - service) / e.gap_scale
    e.unmet = unmet_share(s)
    sense(s)
    row = gate(s)
    out = _floats_at(e.fleet_at, len(_FLEET_SCALE))
    out[0] = row.kv
    out[1] = row.in_service / e.slots
    out[2] = math.log1p(row.waiting)
    out[3] = math.log1p(row.saturation)
    out[4] = math.log1p(waiting)
    out[5] = math.log1p(s.open_interactions)
    out[6] = row.turned_away / max(s.arrived, 1)
    out[7] = row.wasted_tokens / max(row.served_tokens, 1)
    out[8] = math.log1p(gap)
    out[9] = math.log1p(clock_ps / MINUTE_PS)
    for f in range(len(_FLEET_SCALE)):
        out[f] = min(out[f] / _FLEET_SCALE[f], _FLEET_HIGH[f])
    if e.tuner == 0:
        _observe_call(e, s, engine(s, s.size + 2).root if s.due == 2 else -1, least)
    return gap
