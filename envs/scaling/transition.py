"""One step of the scaling MDP in compiled code: order, run an epoch, account, observe."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.scaling.layout import COSTS, COUNTS, ENV_DTYPE, STEP_VALUES, TERMS
from envs.scaling.observation import keep_sums, note_epoch, observe, write_masks
from envs.simulator.jit import EntryPoint, compiled
from envs.simulator.kernel import RUN_FUNCTION as SERVE_FUNCTION
from envs.simulator.layout import END, PAUSE, PS_PER_S, UNFINISHED
from envs.simulator.lifecycle import orders
from envs.simulator.lifecycle.layout import FLEET_DTYPE, deployment
from envs.simulator.lifecycle.loop import RUN_FUNCTION
from envs.simulator.memory import array_at, backlog, head_at, request
from envs.simulator.policy import ROUTING_FUNCTION
from envs.simulator.records import record_at

_ENV_BYTES = ENV_DTYPE.itemsize
_env_at = record_at(ENV_DTYPE)
_fleet_at = record_at(FLEET_DTYPE)
_doubles_at = array_at(types.Array(types.float64, 1, "C"))
_longs_at = array_at(types.Array(types.int64, 1, "C"))
_bytes_at = array_at(types.Array(types.int8, 1, "C"))
_MARKET, _SPOT = 0, 1


@compiled
def _scale(e: Any, s: Any, f: Any, part: int, out: bool) -> None:
    """Carry out the numbers of a part of the action that start (`out`) or stop instances."""
    rows = e.role_rows * e.region_rows
    action = _longs_at(e.action_at, 3 * rows)
    for row in range(rows):
        change = action[part * rows + row] - e.most
        if change == 0 or (change > 0) != out:
            continue
        role, r = row // e.region_rows, row % e.region_rows
        if role >= f.roles or r >= f.region_count:
            e.obeyed = 0
            continue
        d, count = role * f.region_count + r, abs(change)
        if out:
            done = orders.scale_out(s, f, d, count, part == _MARKET)
        else:
            done = orders.scale_in(s, f, d, count, part == _SPOT)
        if done < count:
            e.obeyed = 0


@compiled
def _redeploy(e: Any, s: Any, f: Any) -> None:
    rows = e.role_rows * e.region_rows
    action = _longs_at(e.action_at, 3 * rows)
    for row in range(rows):
        chosen = action[2 * rows + row] - 1
        if chosen < 0:
            continue
        role, r = row // e.region_rows, row % e.region_rows
        if role >= f.roles or r >= f.region_count or chosen >= f.roles:
            e.obeyed = 0
            continue
        source, target = chosen * f.region_count + r, role * f.region_count + r
        if orders.redeploy(s, f, source, target, 1) == 0:
            e.obeyed = 0


@compiled
def _order(e: Any, s: Any, f: Any) -> None:
    """Carry out an action: stops, redeployments, then what starts, from the spot market first."""
    _scale(e, s, f, _MARKET, False)
    _scale(e, s, f, _SPOT, False)
    _redeploy(e, s, f)
    _scale(e, s, f, _SPOT, True)
    _scale(e, s, f, _MARKET, True)


@compiled
def _decide_tier(e: Any, s: Any, tier: int, first: int, limit_ps: int) -> tuple[int, int, int]:
    """Requests of a tier whose limit has passed, and those that missed it; and where to go on."""
    tiers = _bytes_at(e.tiers_at, s.count)
    decided, missed, r = 0, 0, first
    while r < s.count:
        row = request(s, r)
        if row.arrival_ps > s.now_ps - limit_ps or row.arrival_ps > s.now_ps:
            break
        if tiers[r] == tier:
            end = row.finish_ps if tier == 2 else row.first_token_ps
            decided += 1
            missed += 1 if end < 0 or end - row.arrival_ps > limit_ps else 0
        r += 1
    return decided, missed, r


@compiled
def _leftover(e: Any, s: Any, f: Any) -> float:
    """Dollars for which instances would prefill what has no first token yet."""
    dollars = _doubles_at(e.token_dollars_at, f.models + 1)
    total, r = 0.0, 0
    while r < s.count:
        row = request(s, r)
        if row.arrival_ps > s.now_ps:
            break
        if row.first_token_ps < 0 and row.status == UNFINISHED:
            total += row.prompt * dollars[row.model + 1]
        r += 1
    return total


@compiled
def _account(e: Any, s: Any, f: Any) -> None:
    """Terms and costs of the step, from the sums before and after it."""
    dollars, income, waste_s = 0.0, 0.0, 0.0
    for d in range(f.roles * f.region_count):
        own = deployment(f, d)
        dollars += own.dollars + own.donated_dollars
        income += own.income
        waste_s += own.starting_s
    limits = backlog(s)
    e.decided_iw_f, e.missed_iw_f, e.next_0 = _decide_tier(e, s, 0, e.next_0, limits.limit_0_ps)
    e.decided_iw_n, e.missed_iw_n, e.next_1 = _decide_tier(e, s, 1, e.next_1, limits.limit_1_ps)
    e.decided_niw, e.missed_niw, e.next_2 = _decide_tier(e, s, 2, e.next_2, limits.limit_2_ps)
    e.waste_hours = (waste_s - e.last_waste_s) / 3600.0
    e.dollars = -(dollars - e.last_dollars)
    e.spot_income = income - e.last_income
    e.waste = -e.waste_hours
    e.iw_f, e.iw_n, e.niw = -e.missed_iw_f, -e.missed_iw_n, -e.missed_niw
    e.leftover = -_leftover(e, s, f) if e.ended + e.cut > 0 else 0.0
    e.reward = (
        e.dollars_weight * e.dollars
        + e.spot_income_weight * e.spot_income
        + e.waste_weight * e.waste
        + e.iw_f_weight * e.iw_f
        + e.iw_n_weight * e.iw_n
        + e.niw_weight * e.niw
        + e.leftover_weight * e.leftover
    )
    e.last_dollars, e.last_income, e.last_waste_s = dollars, income, waste_s


@compiled
def _step(address: int, run: Any, serve: Any, decide: Any, start: bool) -> None:
    """Carry out the action and run an epoch, by the address of the record.

    `start` is the first call of an episode: it only looks. Results are left in the record.
    """
    e = _env_at(address, 0)
    s, f = head_at(e.head_at, 0), _fleet_at(e.fleet_at, 0)
    e.obeyed = 1
    if start:
        observe(e, s, f)
        write_masks(e, s, f)
        return
    _order(e, s, f)
    e.tick_ps = min(e.tick_ps + e.epoch_ps, e.horizon_ps)
    f.until_ps = e.tick_ps
    parameters = _doubles_at(e.parameters_at, e.parameter_count)
    memory = _longs_at(e.memory_at, e.memory_count)
    why = run(e.head_at, e.fleet_at, serve, decide, parameters, memory)
    e.ended = 1 if why == END else 0
    e.cut = 1 if why == PAUSE and s.now_ps >= e.horizon_ps else 0
    e.dt_s = (s.now_ps - e.last_ps) / PS_PER_S
    e.last_ps = s.now_ps
    e.epoch += 1
    note_epoch(e, s, f)
    observe(e, s, f)
    keep_sums(e, s, f)
    write_masks(e, s, f)
    _account(e, s, f)


# The order in which `_step_all` writes them.
assert STEP_VALUES == (
    *("reward", "dt", "missed_iw_f", "missed_iw_n", "missed_niw", "waste_hours"),
    *("decided_iw_f", "decided_iw_n", "decided_niw"),
    *("dollars", "spot_income", "waste", "iw_f", "iw_n", "niw", "leftover"),
)
assert len(STEP_VALUES) == 2 + len(COSTS) + len(COUNTS) + len(TERMS)


def _step_all(
    address: int,
    run: Any,
    serve: Any,
    decide: Any,
    skip: np.ndarray,
    values: np.ndarray,
    flags: np.ndarray,
) -> bool:
    """A step of every environment of a batch, whose records begin at an address.

    Args:
        address: Where the (n,) records lie.
        run: `envs.simulator.lifecycle.loop.run`.
        serve: `envs.simulator.kernel.run`.
        decide: The routing rule of all.
        skip: (n,) bool, environments that take no step.
        values: (len(STEP_VALUES), n) float64, filled; 0 where skipped.
        flags: (len(STEP_FLAGS), n) bool, filled; False where skipped.

    Returns:
        Whether an episode ended.
    """
    ended = False
    for k in range(len(skip)):
        if skip[k]:
            values[:, k] = 0.0
            flags[:, k] = False
            continue
        _step(address + k * _ENV_BYTES, run, serve, decide, False)
        e = _env_at(address, k)
        flags[0, k] = e.ended == 1
        flags[1, k] = e.cut == 1
        flags[2, k] = e.obeyed == 1
        ended |= e.ended == 1 or e.cut == 1
        values[0, k] = e.reward
        values[1, k] = e.dt_s
        values[2, k] = e.missed_iw_f
        values[3, k] = e.missed_iw_n
        values[4, k] = e.missed_niw
        values[5, k] = e.waste_hours
        values[6, k] = e.decided_iw_f
        values[7, k] = e.decided_iw_n
        values[8, k] = e.decided_niw
        values[9, k] = e.dollars_weight * e.dollars
        values[10, k] = e.spot_income_weight * e.spot_income
        values[11, k] = e.waste_weight * e.waste
        values[12, k] = e.iw_f_weight * e.iw_f
        values[13, k] = e.iw_n_weight * e.iw_n
        values[14, k] = e.niw_weight * e.niw
        values[15, k] = e.leftover_weight * e.leftover
    return ended


step_one = EntryPoint(
    _step, types.void(types.int64, RUN_FUNCTION, SERVE_FUNCTION, ROUTING_FUNCTION, types.boolean)
)
step_all = EntryPoint(
    _step_all,
    types.boolean(
        types.int64,
        RUN_FUNCTION,
        SERVE_FUNCTION,
        ROUTING_FUNCTION,
        types.Array(types.boolean, 1, "C"),
        types.Array(types.float64, 2, "C"),
        types.Array(types.boolean, 2, "C"),
    ),
)
