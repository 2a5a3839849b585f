"""Pools, a model in a region each: what waits for them to have room, and what they have done.

docs/simulator.md, "Elastic fleets".
"""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.layout import INTERACTIVE
from envs.simulator.memory import backlog, instance, output, pool, pool_number, request
from envs.simulator.router_queue import join_router_queue
from envs.simulator.stretch import iterations_within

MIDDLE_TIER = 1


@compiled
def note_arrival(s: Any, r: int) -> None:
    """Count a request that arrives, with the pool of its model where it comes from."""
    row = request(s, r)
    own = pool(s, row.model, row.region)
    own.arrived += 1
    own.prompt_tokens += row.prompt


@compiled
def note_finish(s: Any, i: int, r: int) -> None:
    """Count one that has finished: where it came from, and where it was served."""
    row = request(s, r)
    own, tier = pool(s, row.model, row.region), row.tier
    own.output_tokens += output(s)[r]
    first, last = row.first_token_ps - row.arrival_ps, s.now_ps - row.arrival_ps
    limits = backlog(s)
    if tier == 0:
        own.finished_0 += 1
        own.in_time_0 += 1 if first <= limits.limit_0_ps else 0
    elif tier == MIDDLE_TIER:
        own.finished_1 += 1
        own.in_time_1 += 1 if first <= limits.limit_1_ps else 0
    else:
        own.finished_2 += 1
        own.in_time_2 += 1 if last <= limits.limit_2_ps else 0
    inst = instance(s, i)
    s.pulls = 1
    if inst.model >= 0:
        pool(s, inst.model, inst.region).finishes += 1
        return
    for model in range(s.pool_count // s.region_count):
        pool(s, model, inst.region).finishes += 1


@compiled
def hold_back(s: Any, r: int) -> None:
    """Put a request behind the others of its pool that wait for room."""
    row = request(s, r)
    own = pool(s, row.model, row.region)
    row.right = -1
    if own.root < 0:
        own.root = r
    else:
        request(s, own.tail).right = r
    own.tail = r
    own.count += 1
    s.backlogged += 1


@compiled
def _release(s: Any, own: Any) -> int:
    """Let the first of a backlog into the router queue."""
    r = own.root
    own.root = request(s, r).right
    own.count -= 1
    s.backlogged -= 1
    request(s, r).right = -1
    join_router_queue(s, r)
    s.trigger = 1
    return r


@compiled
def utilisation(s: Any, model: int, region: int) -> float:
    """Share of KV in use of a pool's instances that take NIW; 1 where there are none."""
    used, most = 0, 0
    for i in range(s.size):
        inst = instance(s, i)
        if inst.down > 0 or inst.region != region or (inst.model >= 0 and inst.model != model):
            continue
        if inst.lane == INTERACTIVE:
            continue
        used += inst.context + inst.prefill_reserved
        if inst.stretch_batch > 0:
            elapsed = s.now_ps - inst.stretch_start_ps
            done = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
            used += done * inst.stretch_batch
        most += inst.kv_capacity
    return used / most if most > 0 else 1.0


@compiled
def _pull(s: Any, number: int, times: int) -> None:
    """Release what the pool has room for, as often as it signals."""
    own, rules = pool_number(s, number), backlog(s)
    if own.count == 0 or times == 0:
        return
    share = utilisation(s, number // s.region_count, number % s.region_count)
    each = 0
    if share < rules.low:
        each = rules.at_low
    elif share < rules.middle:
        each = rules.at_middle
    for _ in range(min(times * each, own.count)):
        _release(s, own)


@compiled
def pull_after_finishes(s: Any) -> None:
    """Each request that finished at this instant is a signal of the pool that served it."""
    s.pulls = 0
    for number in range(s.pool_count):
        own = pool_number(s, number)
        times = own.finishes
        own.finishes = 0
        if s.backlogged > 0:
            _pull(s, number, times)


@compiled
def pull_by_clock(s: Any) -> None:
    """Release what is old, which counts as of the middle tier from then on; then each signals."""
    rules = backlog(s)
    for number in range(s.pool_count):
        own = pool_number(s, number)
        while own.count > 0 and s.now_ps - request(s, own.root).arrival_ps >= rules.promote_ps:
            r = _release(s, own)
            request(s, r).tier = MIDDLE_TIER
        _pull(s, number, 1)


@compiled
def release_all(s: Any) -> None:
    """Release everything: nothing else is left to happen."""
    for number in range(s.pool_count):
        own = pool_number(s, number)
        while own.count > 0:
            _release(s, own)
