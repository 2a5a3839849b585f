"""The observation of a scaling decision and its masks, filled by compiled code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from envs.scaling.layout import (
    ACCOUNT_SUMS,
    CLOCK_FEATURES,
    DEMAND_EPOCHS,
    FIRST_LAG,
    LAGS,
    POOL_FEATURES,
    REGION_FEATURES,
)
from envs.simulator.jit import compiled
from envs.simulator.layout import PS_PER_S
from envs.simulator.lifecycle import layout, ledger, orders
from envs.simulator.lifecycle.layout import deployment, model_of, pattern, place, price
from envs.simulator.memory import array_at, backlog, pool_number, request

_floats_at = array_at(types.Array(types.float32, 1, "C"))
_doubles_at = array_at(types.Array(types.float64, 1, "C"))
_longs_at = array_at(types.Array(types.int64, 1, "C"))
_bytes_at = array_at(types.Array(types.int8, 1, "C"))

_POOL_SCALE = np.array([f.scale for f in POOL_FEATURES])
_POOL_HIGH = np.array([f.high for f in POOL_FEATURES])
_REGION_SCALE = np.array([f.scale for f in REGION_FEATURES])
_REGION_HIGH = np.array([f.high for f in REGION_FEATURES])
_POOLS, _REGIONS, _CLOCK = len(POOL_FEATURES), len(REGION_FEATURES), len(CLOCK_FEATURES)
_DAY_S, _WEEK_S, _HOUR_PS = 86_400.0, 604_800.0, 3_600 * PS_PER_S


@compiled
def _missed(now: int, in_time: int, last: int, last_in_time: int) -> float:
    """Share of what finished since the last decision that was late."""
    finished = now - last
    return 1.0 - (in_time - last_in_time) / finished if finished > 0 else 0.0


@compiled
def note_epoch(e: Any, s: Any, f: Any) -> None:
    """Remember the demand of the epoch that has ended, by account."""
    count = f.pool_count
    past = _doubles_at(e.past_at, count * DEMAND_EPOCHS)
    before = _longs_at(e.before_at, count * ACCOUNT_SUMS)
    for n in range(count):
        now = pool_number(s, n)
        tokens = now.prompt_tokens - before[n * ACCOUNT_SUMS]
        past[n * DEMAND_EPOCHS + e.epoch % DEMAND_EPOCHS] = tokens / max(e.dt_s, 1e-9)


@compiled
def keep_sums(e: Any, s: Any, f: Any) -> None:
    """Keep the sums of accounts, for the next epoch."""
    before = _longs_at(e.before_at, f.pool_count * ACCOUNT_SUMS)
    for n in range(f.pool_count):
        now, at = pool_number(s, n), n * ACCOUNT_SUMS
        before[at] = now.prompt_tokens
        before[at + 1], before[at + 2] = now.finished_0, now.in_time_0
        before[at + 3], before[at + 4] = now.finished_1, now.in_time_1
        before[at + 5], before[at + 6] = now.finished_2, now.in_time_2


@compiled
def _mean_past(e: Any, past: Any, n: int) -> float:
    """Mean demand of an account in the last hour, as far as it is known."""
    wanted = max(1, min(_HOUR_PS // e.epoch_ps, DEMAND_EPOCHS))
    count = min(wanted, e.epoch + 1)
    total = 0.0
    for k in range(count):
        total += past[n * DEMAND_EPOCHS + (e.epoch - k) % DEMAND_EPOCHS]
    return total / count


@compiled
def _pool_row(e: Any, s: Any, f: Any, d: int, n: int, throughput: float, out: Any) -> None:
    """Fill the features of deployment d, whose requests are counted in account n."""
    own, account = deployment(f, d), pool_number(s, n)
    share, waiting, running = ledger.kv_share(s, f, d)
    ready = max(own.ready, 1)
    out[0] = 1.0
    out[1], out[2], out[3], out[4] = own.ready, own.starting, own.draining, own.donated
    count = own.ready + own.starting
    out[5] = max(count - own.floor, 0)
    out[6] = max(own.ceiling - count, 0)
    out[7] = 1.0 if s.now_ps - own.changed_ps < e.cooldown_ps else 0.0
    out[8] = share
    out[9] = math.log1p(running / ready)
    out[10] = math.log1p(waiting / ready)
    out[11] = math.log1p(account.count)
    if account.root >= 0:
        age = s.now_ps - request(s, account.root).arrival_ps
        out[12] = age / max(float(backlog(s).limit_2_ps), 1.0)
    past = _doubles_at(e.past_at, f.pool_count * DEMAND_EPOCHS)
    if e.epoch >= 0:
        out[13] = past[n * DEMAND_EPOCHS + e.epoch % DEMAND_EPOCHS] / throughput
        out[15] = _mean_past(e, past, n) / throughput
    if e.epoch >= 1:
        out[14] = past[n * DEMAND_EPOCHS + (e.epoch - 1) % DEMAND_EPOCHS] / throughput
    lags = _doubles_at(e.lags_at, (e.epochs + 1) * f.pool_count * len(LAGS))
    at = (min(e.epoch + 1, e.epochs) * f.pool_count + n) * len(LAGS)
    for k in range(len(LAGS)):
        out[FIRST_LAG + k] = lags[at + k] / throughput
    before, at = _longs_at(e.before_at, f.pool_count * ACCOUNT_SUMS), n * ACCOUNT_SUMS
    late = FIRST_LAG + len(LAGS)
    out[late] = _missed(account.finished_0, account.in_time_0, before[at + 1], before[at + 2])
    out[late + 1] = _missed(account.finished_1, account.in_time_1, before[at + 3], before[at + 4])
    out[late + 2] = _missed(account.finished_2, account.in_time_2, before[at + 5], before[at + 6])


@compiled
def observe(e: Any, s: Any, f: Any) -> None:
    """Fill the observation of the present moment."""
    rows = e.role_rows * e.region_rows
    pools = _floats_at(e.pools_at, rows * _POOLS)
    throughput = _doubles_at(e.throughput_at, f.roles)
    line = np.zeros(_POOLS)
    pools[:] = np.float32(0.0)
    for role in range(f.roles):
        model = max(model_of(f, role), 0)
        for r in range(f.region_count):
            line[:] = 0.0
            d, n = role * f.region_count + r, model * s.region_count + r
            _pool_row(e, s, f, d, n, throughput[role], line)
            at = (role * e.region_rows + r) * _POOLS
            for k in range(_POOLS):
                pools[at + k] = min(max(line[k] / _POOL_SCALE[k], 0.0), _POOL_HIGH[k])
    regions = _floats_at(e.regions_at, e.region_rows * _REGIONS)
    regions[:] = np.float32(0.0)
    for r in range(f.region_count):
        own = layout.region(f, r)
        line[0] = 1.0
        line[1] = own.held / own.quota if own.quota > 0 else 1.0
        line[2], line[3] = own.free, own.bare
        line[4] = 3600.0 * price(f, f.price_at, r, 0)
        line[5] = 3600.0 * price(f, f.spot_price_at, r, 0)
        for k in range(_REGIONS):
            regions[r * _REGIONS + k] = min(line[k] / _REGION_SCALE[k], _REGION_HIGH[k])
    clock = _floats_at(e.clock_at, _CLOCK)
    time_s = e.start_s + s.now_ps / PS_PER_S
    day, week = 2 * math.pi * (time_s / _DAY_S), 2 * math.pi * (time_s / _WEEK_S)
    clock[0], clock[1] = math.sin(day), math.cos(day)
    clock[2], clock[3] = math.sin(week), math.cos(week)
    clock[4] = min(e.epoch_ps / _HOUR_PS, 1.0)
    clock[5] = e.known


@compiled
def _room_to_acquire(f: Any, d: int) -> int:
    """VMs that can be acquired for a deployment now, by places, kinds and quota."""
    role, r, count = d // f.region_count, d % f.region_count, 0
    own = layout.region(f, r)
    left = own.quota - own.held
    for i in range(f.size):
        row = place(f, i)
        if row.state == layout.OFF and row.region == r and pattern(f, role, row.kind) >= 0:
            if row.gpus <= left:
                left -= row.gpus
                count += 1
    return count


@compiled
def _room_to_reclaim(f: Any, d: int) -> int:
    """Donated VMs that a deployment can have now."""
    role, r, count = d // f.region_count, d % f.region_count, 0
    for i in range(f.size):
        row = place(f, i)
        if row.state == layout.DONATED and row.region == r and pattern(f, role, row.kind) >= 0:
            count += 1
    return count


@compiled
def _draining_to(f: Any, d: int, goal: int) -> int:
    """Instances of a deployment that drain towards a goal, and can be kept."""
    count = 0
    for i in range(f.size):
        row = place(f, i)
        if row.state == layout.DRAINING and row.goal == goal:
            count += 1 if row.role * f.region_count + row.region == d else 0
    return count


@compiled
def _allow(mask: Any, at: int, most: int, stops: int, starts: int) -> None:
    """Allow changes of -stops .. starts around no change."""
    for k in range(-most, most + 1):
        mask[at + most + k] = 1 if -stops <= k <= starts else 0


@compiled
def write_masks(e: Any, s: Any, f: Any) -> None:
    """Allow what quota, floors, ceilings, cooldowns and places leave for each number alone."""
    rows, wide = e.role_rows * e.region_rows, 2 * e.most + 1
    mask = _bytes_at(e.mask_at, rows * (2 * wide + e.role_rows + 1))
    redeploys = 2 * rows * wide
    for row in range(rows):
        _allow(mask, row * wide, e.most, 0, 0)
        _allow(mask, (rows + row) * wide, e.most, 0, 0)
        at = redeploys + row * (e.role_rows + 1)
        mask[at] = 1
        for k in range(e.role_rows):
            mask[at + 1 + k] = 0
    for role in range(f.roles):
        for r in range(f.region_count):
            d, row = role * f.region_count + r, role * e.region_rows + r
            own = deployment(f, d)
            if s.now_ps - own.changed_ps < e.cooldown_ps:
                continue
            count = own.ready + own.starting
            stops = max(count - own.floor, 0)
            starts = max(own.ceiling - count, 0)
            new = _room_to_acquire(f, d) + _draining_to(f, d, layout.OFF)
            back = _room_to_reclaim(f, d) + _draining_to(f, d, layout.DONATED)
            _allow(mask, row * wide, e.most, stops, min(starts, new))
            _allow(mask, (rows + row) * wide, e.most, stops, min(starts, back))
            if starts == 0:
                continue
            at = redeploys + row * (e.role_rows + 1)
            for other in range(f.roles):
                source = other * f.region_count + r
                give = deployment(f, source)
                cooling = s.now_ps - give.changed_ps < e.cooldown_ps
                if other != role and not cooling and give.ready + give.starting > give.floor:
                    found = orders.to_stop(s, f, source, role) >= 0
                    mask[at + 1 + other] = 1 if found else 0
