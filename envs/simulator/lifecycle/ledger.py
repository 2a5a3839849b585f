"""What instances cost and what they were doing: sums by deployment, brought up to date lazily."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.layout import PS_PER_S
from envs.simulator.lifecycle.layout import (
    ACQUIRED,
    CONVERTED,
    DONATED,
    DRAINING,
    FAILED,
    LOADING,
    OFF,
    PROVISIONING,
    READY,
    RECLAIMED,
    RECLAIMING,
    REDEPLOYED,
    deployment,
    model_of,
    place,
    price,
    region,
    sample,
    sampled_account,
)
from envs.simulator.memory import instance, pool_number
from envs.simulator.stretch import iterations_within


@compiled
def _add_income(f: Any, row: Any, own: Any, dt: float) -> None:
    own.donated_s += dt
    gpu_s = dt * row.gpus
    own.donated_dollars += gpu_s * price(f, f.donated_price_at, row.region, row.kind)
    own.income += gpu_s * price(f, f.spot_price_at, row.region, row.kind)


@compiled
def settle(s: Any, f: Any, i: int) -> None:
    """Account for the time of a place up to now; without weights it counts with the first role."""
    row = place(f, i)
    dt = (s.now_ps - row.since_ps) / PS_PER_S
    row.since_ps = s.now_ps
    if row.state == OFF or row.state == FAILED or dt <= 0.0:
        return
    own = deployment(f, max(row.role, 0) * f.region_count + row.region)
    if row.state == DONATED:
        _add_income(f, row, own, dt)
        return
    if row.state == DRAINING:
        own.draining_s += dt
        if f.drain_billed == 0:
            if row.goal == DONATED:
                _add_income(f, row, own, dt)
            return
    own.gpu_s += dt * row.gpus
    own.dollars += dt * row.gpus * price(f, f.price_at, row.region, row.kind)
    if row.state == READY:
        own.ready_s += dt
    elif row.state == PROVISIONING or row.state == LOADING or row.state == RECLAIMING:
        own.starting_s += dt
        if row.source == ACQUIRED:
            own.acquired_s += dt
        elif row.source == RECLAIMED:
            own.reclaimed_s += dt
        elif row.source == CONVERTED:
            own.converted_s += dt
        elif row.source == REDEPLOYED:
            own.redeployed_s += dt


@compiled
def settle_all(s: Any, f: Any) -> None:
    """Account for the time of all places up to now."""
    for i in range(f.size):
        settle(s, f, i)


@compiled
def _counted_in(f: Any, row: Any, state: int, change: int) -> None:
    """Count a place in or out of its deployment, as what it is in a state."""
    if row.role < 0:
        if state == DONATED:
            region(f, row.region).bare += change
        return
    own = deployment(f, row.role * f.region_count + row.region)
    if state == READY:
        own.ready += change
    elif state == DRAINING:
        own.draining += change
        if row.goal == LOADING:
            deployment(f, row.goal_role * f.region_count + row.region).starting += change
    elif state == DONATED:
        own.donated += change
    elif state == PROVISIONING or state == LOADING or state == RECLAIMING:
        own.starting += change


@compiled
def enter(s: Any, f: Any, i: int, state: int, role: int) -> None:
    """Put a place into a state and a role; `goal` and `goal_role` are set before it drains."""
    row = place(f, i)
    settle(s, f, i)
    _counted_in(f, row, row.state, -1)
    own = region(f, row.region)
    was, now = row.state != OFF and row.state != FAILED, state != OFF and state != FAILED
    own.held += row.gpus * (int(now) - int(was))
    own.free += int(state == OFF) - int(row.state == OFF)
    row.state = state
    row.role = role
    _counted_in(f, row, state, 1)
    f.changes += 1


@compiled
def kv_share(s: Any, f: Any, d: int) -> tuple[float, int, int]:
    """Share of KV in use of the ready instances of a deployment, its waiting and running requests.

    The share is 1 where none is ready; requests are those of instances that drain, too.
    """
    used, most, waiting, running = 0, 0, 0, 0
    for i in range(f.size):
        row = place(f, i)
        if row.role * f.region_count + row.region != d:
            continue
        if row.state != READY and row.state != DRAINING:
            continue
        inst = instance(s, i)
        waiting += inst.waiting
        running += inst.decoding + inst.prefilling
        if row.state == DRAINING:
            continue
        used += inst.context + inst.prefill_reserved
        if inst.stretch_batch > 0:
            elapsed = s.now_ps - inst.stretch_start_ps
            done = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
            used += done * inst.stretch_batch
        most += inst.kv_capacity
    return (used / most if most > 0 else 1.0), waiting, running


@compiled
def _backlogged(s: Any, f: Any, d: int) -> int:
    """NIW of a deployment's model and region that wait for room; of all models where it has any."""
    model, r, count = model_of(f, d // f.region_count), d % f.region_count, 0
    for number in range(r, f.pool_count, f.region_count):
        if model < 0 or number // f.region_count == model:
            count += pool_number(s, number).count
    return count


@compiled
def take_sample(s: Any, f: Any) -> None:
    """Write down what each deployment is and has cost."""
    settle_all(s, f)
    k = f.sampled
    for d in range(f.roles * f.region_count):
        own, row = deployment(f, d), sample(f, k, d)
        share, waiting, running = kv_share(s, f, d)
        row.ready = own.ready
        row.starting = own.starting
        row.draining = own.draining
        row.donated = own.donated
        row.waiting = waiting
        row.running = running
        row.kv = share if own.ready > 0 else 0.0
        row.dollars = own.dollars + own.donated_dollars - own.income
        row.backlog = _backlogged(s, f, d)
    for number in range(f.pool_count):
        account, now = sampled_account(f, k, number), pool_number(s, number)
        account.count = now.count
        account.arrived = now.arrived
        account.prompt_tokens = now.prompt_tokens
        account.output_tokens = now.output_tokens
        account.finished_0, account.in_time_0 = now.finished_0, now.in_time_0
        account.finished_1, account.in_time_1 = now.finished_1, now.in_time_1
        account.finished_2, account.in_time_2 = now.finished_2, now.in_time_2
    f.sampled = k + 1
