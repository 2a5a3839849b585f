"""Running a simulation whose fleet has a life cycle, up to a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator import pools
from envs.simulator.instants import next_time
from envs.simulator.jit import EntryPoint, compiled
from envs.simulator.kernel import RUN_FUNCTION as SERVE_FUNCTION
from envs.simulator.layout import END, NEVER, PAUSE, PHASE_NEXT
from envs.simulator.lifecycle import ledger, orders, transitions
from envs.simulator.lifecycle.layout import FLEET_DTYPE, FLEETS
from envs.simulator.memory import FLOAT64_1D, HEADS, INT64_1D, array_at, head_at, head_of
from envs.simulator.policy import ROUTING_FUNCTION
from envs.simulator.records import record_at

_heads_at = array_at(HEADS)
_fleet_at = record_at(FLEET_DTYPE)


@compiled
def by_clock(s: Any, f: Any) -> None:
    """What the clock does at this instant: signals to backlogs, and samples."""
    if s.now_ps >= f.next_pull_ps:
        f.next_pull_ps += f.pull_ps
        before = s.backlogged
        if before > 0:
            pools.pull_by_clock(s)
        if s.backlogged < before:
            transitions.fleet_changed(s)
    if s.now_ps >= f.next_sample_ps:
        f.next_sample_ps += f.sample_ps
        if f.sampled < f.most_samples:
            ledger.take_sample(s, f)


@compiled
def _nothing_left(s: Any, f: Any) -> bool:
    """Whether nothing is left to happen but what the clock does."""
    return (
        s.phase == PHASE_NEXT and next_time(s) == NEVER and transitions.next_change_ps(f) == NEVER
    )


def _run(
    head_address: int,
    fleet_address: int,
    serve: Any,
    decide: Any,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """Run to `until_ps` (PAUSE), or until nothing is in the system or to arrive (END).

    Args:
        head_address: Address of the simulation's head.
        fleet_address: Address of the fleet's.
        serve: `envs.simulator.kernel.run`, which runs between two changes of the fleet.
        decide: Routing rule.
        parameters: Its parameters.
        memory: Its memory.
    """
    s, f, heads = head_at(head_address, 0), _fleet_at(fleet_address, 0), _heads_at(head_address, 1)
    while True:
        time = min(transitions.next_change_ps(f), f.next_pull_ps)
        s.pause_ps = min(min(time, f.next_sample_ps), f.until_ps)
        if serve(heads, decide, parameters, memory) != PAUSE:
            ledger.settle_all(s, f)
            return END
        transitions.happen(s, f)
        by_clock(s, f)
        if f.until_ps == NEVER and _nothing_left(s, f):
            if s.backlogged == 0:
                ledger.settle_all(s, f)
                return END
            pools.release_all(s)
            transitions.fleet_changed(s)
        if s.now_ps >= f.until_ps:
            ledger.settle_all(s, f)
            return PAUSE


def _scale_out(heads: np.ndarray, fleets: np.ndarray, d: int, count: int, acquire: bool) -> int:
    return orders.scale_out(head_of(heads), fleets[0], d, count, acquire)


def _scale_in(heads: np.ndarray, fleets: np.ndarray, d: int, count: int, donate: bool) -> int:
    return orders.scale_in(head_of(heads), fleets[0], d, count, donate)


def _redeploy(heads: np.ndarray, fleets: np.ndarray, d: int, other: int, count: int) -> int:
    return orders.redeploy(head_of(heads), fleets[0], d, other, count)


def _spot(heads: np.ndarray, fleets: np.ndarray, r: int, count: int, donate: bool) -> int:
    if donate:
        return orders.donate_free(head_of(heads), fleets[0], r, count)
    return orders.give_back(head_of(heads), fleets[0], r, count)


def _evict(heads: np.ndarray, fleets: np.ndarray, i: int, notice_ps: int) -> None:
    transitions.evict(head_of(heads), fleets[0], i, notice_ps)


def _look(heads: np.ndarray, fleets: np.ndarray, found: np.ndarray) -> None:
    """Share of KV, waiting and running requests by deployment: found is (deployments * 3,)."""
    s, f = head_of(heads), fleets[0]
    ledger.settle_all(s, f)
    for d in range(f.roles * f.region_count):
        share, waiting, running_now = ledger.kv_share(s, f, d)
        found[3 * d] = share
        found[3 * d + 1] = waiting
        found[3 * d + 2] = running_now


_COUNT = types.int64(HEADS, FLEETS, types.int64, types.int64, types.boolean)
_RUN_SIGNATURE = types.int64(
    types.int64, types.int64, SERVE_FUNCTION, ROUTING_FUNCTION, FLOAT64_1D, INT64_1D
)
RUN_FUNCTION = types.FunctionType(_RUN_SIGNATURE)
run = EntryPoint(_run, _RUN_SIGNATURE)
scale_out = EntryPoint(_scale_out, _COUNT)
scale_in = EntryPoint(_scale_in, _COUNT)
redeploy = EntryPoint(_redeploy, types.int64(HEADS, FLEETS, types.int64, types.int64, types.int64))
spot = EntryPoint(_spot, _COUNT)
evict = EntryPoint(_evict, types.void(HEADS, FLEETS, types.int64, types.int64))
look = EntryPoint(_look, types.void(HEADS, FLEETS, FLOAT64_1D))
