"""How places go from state to state, and what a controller can order (docs/simulator.md)."""

from __future__ import annotations

import math
from typing import Any

from envs.simulator import cache, instants
from envs.simulator.jit import compiled
from envs.simulator.kernel import begin_anew
from envs.simulator.layout import CLOCK_END_PS, NEVER, PHASE_DECIDE
from envs.simulator.lifecycle.layout import (
    ACQUIRED,
    CONVERTED,
    DONATED,
    DRAINING,
    DRAWS,
    FAILED,
    LOAD_LOCAL,
    LOAD_REMOTE,
    LOADING,
    OFF,
    PROVISION,
    PROVISIONING,
    READY,
    RECLAIM,
    RECLAIMED,
    RECLAIMING,
    REDEPLOYED,
    REPAIR,
    deployment,
    eviction,
    given_engine,
    given_instance,
    median_ps,
    model_of,
    normals,
    pattern,
    place,
    region,
    sigma,
    weights_near,
)
from envs.simulator.lifecycle.ledger import enter
from envs.simulator.memory import engine, instance
from envs.simulator.patterns import take_over
from envs.simulator.router_queue import bring_back

_UP, _DOWN, _DRAINS = 0, 1, 2


@compiled
def fleet_changed(s: Any) -> None:
    """The router decides anew before time goes on."""
    bring_back(s)
    begin_anew(s)
    s.changed = 1
    s.stale = 1
    s.phase = PHASE_DECIDE


@compiled
def is_empty(s: Any, i: int) -> bool:
    """Whether no request is at an instance or under way to it."""
    inst = instance(s, i)
    return inst.waiting + inst.decoding + inst.prefilling == 0


@compiled
def _delay(f: Any, i: int, which: int) -> int:
    """Draw a delay of a place: lognormal about its median, cut at e^3 times it."""
    row = place(f, i)
    z = normals(f, i)[row.draws % DRAWS]
    row.draws += 1
    factor = math.exp(min(sigma(f, which) * z, 3.0))
    return int(median_ps(f, which) * factor)


@compiled
def _load_ps(f: Any, i: int, role: int) -> int:
    """Time to load the weights of a role, which then lie in the region."""
    row = place(f, i)
    near = weights_near(f, row.region)
    which = LOAD_LOCAL if near[model_of(f, role) + 1] == 1 else LOAD_REMOTE
    return _delay(f, i, which)


@compiled
def _dress(s: Any, f: Any, i: int, role: int) -> None:
    """Give an instance that is off and empty what it serves from now on."""
    j = pattern(f, role, place(f, i).kind)
    if engine(s, i).caches == 1:
        cache.forget(s, i)
    take_over(s, i, given_instance(f, j), given_engine(f, j))


@compiled
def _later(s: Any, delay_ps: int) -> int:
    return s.now_ps + delay_ps if delay_ps < CLOCK_END_PS - s.now_ps else NEVER


@compiled
def _start(s: Any, f: Any, i: int, role: int, source: int) -> None:
    """Begin to start an instance at a place that holds no request; `_go_on` comes after it."""
    row = place(f, i)
    state, delay = LOADING, 0
    if source == ACQUIRED:
        state, delay = PROVISIONING, _delay(f, i, PROVISION)
    elif source == RECLAIMED:
        state, delay = RECLAIMING, _delay(f, i, RECLAIM)
    elif source == CONVERTED:
        delay = _delay(f, i, RECLAIM) + _load_ps(f, i, role)
    else:
        delay = _load_ps(f, i, role)
    enter(s, f, i, state, role)
    row.source = source
    _dress(s, f, i, role)
    row.next_ps = _later(s, delay)
    own = deployment(f, role * f.region_count + row.region)
    if source == ACQUIRED:
        own.acquired += 1
    elif source == RECLAIMED:
        own.reclaimed += 1
    elif source == CONVERTED:
        own.converted += 1
    else:
        own.redeployed += 1


@compiled
def _go_on(s: Any, f: Any, i: int) -> None:
    """Leave states whose time is over."""
    row = place(f, i)
    while row.next_ps <= s.now_ps:
        row.next_ps = NEVER
        if row.state == PROVISIONING:
            role = row.role
            delay = _load_ps(f, i, role)
            enter(s, f, i, LOADING, role)
            row.next_ps = _later(s, delay)
        elif row.state == LOADING or row.state == RECLAIMING:
            weights_near(f, row.region)[model_of(f, row.role) + 1] = 1
            enter(s, f, i, READY, row.role)
            instance(s, i).down = _UP
            fleet_changed(s)
        elif row.state == DRAINING:
            _lose_work(s, f, i)
            _drained(s, f, i)
        elif row.state == FAILED:
            enter(s, f, i, OFF, -1)


@compiled
def _lose_work(s: Any, f: Any, i: int) -> None:
    """Turn an instance off at once; its requests go back to the router."""
    if not is_empty(s, i):
        instants.fail(s, i)
    instance(s, i).down = _DOWN
    fleet_changed(s)


@compiled
def _drained(s: Any, f: Any, i: int) -> None:
    """A place that drained goes where it was to go; what is under way to it turns back."""
    row = place(f, i)
    instance(s, i).down = _DOWN
    row.next_ps = NEVER
    role, goal_role = row.role, row.goal_role
    if row.goal == LOADING:
        _start(s, f, i, goal_role, REDEPLOYED)
    elif row.goal == FAILED:
        deployment(f, role * f.region_count + row.region).lost += 1
        enter(s, f, i, FAILED, -1)
        row.next_ps = _later(s, _delay(f, i, REPAIR))
    elif row.goal == DONATED:
        enter(s, f, i, DONATED, role)
    else:
        enter(s, f, i, OFF, -1)


@compiled
def _drain(s: Any, f: Any, i: int, goal: int, goal_role: int, limit_ps: int) -> None:
    """Have a ready instance finish what it has, then go elsewhere; `_go_on` comes after it."""
    row = place(f, i)
    row.goal, row.goal_role = goal, goal_role
    enter(s, f, i, DRAINING, row.role)
    row.next_ps = _later(s, limit_ps)
    if is_empty(s, i):
        _drained(s, f, i)
    else:
        instance(s, i).down = _DRAINS
    fleet_changed(s)


@compiled
def _undrain(s: Any, f: Any, d: int, goal: int) -> bool:
    """Keep an instance that drains towards a goal; False where there is none."""
    for i in range(f.size):
        row = place(f, i)
        if row.state == DRAINING and row.goal == goal and _is_of(f, row, d):
            enter(s, f, i, READY, row.role)
            row.next_ps = NEVER
            instance(s, i).down = _UP
            fleet_changed(s)
            return True
    return False


@compiled
def _is_of(f: Any, row: Any, d: int) -> bool:
    return row.role * f.region_count + row.region == d


@compiled
def _source_of_reclaim(f: Any, d: int) -> int:
    """A donated place for a deployment: with its weights, else with those of another; or -1."""
    role, r, other = d // f.region_count, d % f.region_count, -1
    for i in range(f.size):
        row = place(f, i)
        if row.state != DONATED or row.region != r or pattern(f, role, row.kind) < 0:
            continue
        if row.role >= 0 and model_of(f, row.role) == model_of(f, role):
            return i
        if other < 0:
            other = i
    return other


@compiled
def _source_of_acquisition(f: Any, d: int) -> int:
    """A place that is off for a deployment, of the first kind that it can have; -1 without room."""
    role, r, best = d // f.region_count, d % f.region_count, -1
    own = region(f, r)
    for i in range(f.size):
        row = place(f, i)
        if row.state != OFF or row.region != r or pattern(f, role, row.kind) < 0:
            continue
        if own.held + row.gpus <= own.quota and (best < 0 or row.kind < place(f, best).kind):
            best = i
    return best


@compiled
def scale_out(s: Any, f: Any, d: int, count: int, acquire: bool) -> int:
    """Start instances of a deployment, on new VMs or on donated ones; gives how many.

    One that drains towards the same end is kept first. Ceilings and quotas hold.
    """
    own, done = deployment(f, d), 0
    while done < count and own.ready + own.starting < own.ceiling:
        if not _undrain(s, f, d, OFF if acquire else DONATED):
            i = _source_of_acquisition(f, d) if acquire else _source_of_reclaim(f, d)
            if i < 0:
                break
            role = d // f.region_count
            source = ACQUIRED
            if not acquire:
                held = place(f, i).role
                same = held >= 0 and model_of(f, held) == model_of(f, role)
                source = RECLAIMED if same else CONVERTED
            _start(s, f, i, role, source)
            _go_on(s, f, i)
        done += 1
    if done > 0:
        own.changed_ps = s.now_ps
    return done


@compiled
def _starts(row: Any) -> bool:
    return row.state == PROVISIONING or row.state == LOADING or row.state == RECLAIMING


@compiled
def _cancel(s: Any, f: Any, i: int, goal: int) -> None:
    """Stop an instance that starts; weights that are half loaded are none.

    A VM that is not there yet can't be donated: it is called off.
    """
    row = place(f, i)
    kept = row.role if row.state == RECLAIMING and goal == DONATED else -1
    row.next_ps = NEVER
    enter(s, f, i, OFF if row.state == PROVISIONING else goal, kept)


@compiled
def _to_stop(s: Any, f: Any, d: int, new_role: int) -> int:
    """The instance of a deployment to stop: one that starts, else the ready one with least load.

    Where it is to serve a new role, it is a ready one whose kind of GPU can have that.
    """
    best, least = -1, 0
    for i in range(f.size - 1, -1, -1):
        row = place(f, i)
        if not _is_of(f, row, d):
            continue
        if new_role < 0 and _starts(row):
            return i
        if row.state == READY and (new_role < 0 or pattern(f, new_role, row.kind) >= 0):
            inst = instance(s, i)
            load = inst.waiting + inst.decoding + inst.prefilling
            if best < 0 or load < least:
                best, least = i, load
    return best


@compiled
def scale_in(s: Any, f: Any, d: int, count: int, donate: bool) -> int:
    """Stop instances of a deployment, to be donated or given back; gives how many.

    One that still starts is stopped first. The floor holds.
    """
    own, done = deployment(f, d), 0
    goal = DONATED if donate else OFF
    while done < count and own.ready + own.starting > own.floor:
        i = _to_stop(s, f, d, -1)
        if i < 0:
            break
        if place(f, i).state == READY:
            _drain(s, f, i, goal, -1, f.drain_limit_ps)
            _go_on(s, f, i)
        else:
            _cancel(s, f, i, goal)
        done += 1
    if done > 0:
        own.stopped += done
        own.changed_ps = s.now_ps
    return done


@compiled
def redeploy(s: Any, f: Any, source: int, target: int, count: int) -> int:
    """Have instances of a deployment serve another of the same region; gives how many."""
    give, take, done = deployment(f, source), deployment(f, target), 0
    if source == target or source % f.region_count != target % f.region_count:
        return 0
    while done < count and give.ready + give.starting > give.floor:
        role = target // f.region_count
        i = _to_stop(s, f, source, role)
        if i < 0 or take.ready + take.starting >= take.ceiling:
            break
        _drain(s, f, i, LOADING, role, f.drain_limit_ps)
        _go_on(s, f, i)
        done += 1
    if done > 0:
        give.stopped += done
        give.changed_ps = take.changed_ps = s.now_ps
    return done


@compiled
def give_back(s: Any, f: Any, r: int, count: int) -> int:
    """Give donated VMs of a region back; gives how many."""
    done = 0
    for i in range(f.size - 1, -1, -1):
        row = place(f, i)
        if done < count and row.state == DONATED and row.region == r:
            enter(s, f, i, OFF, -1)
            done += 1
    return done


@compiled
def donate_free(s: Any, f: Any, r: int, count: int) -> int:
    """Acquire VMs of a region for the spot market alone, without weights; gives how many."""
    done = 0
    for i in range(f.size):
        row, own = place(f, i), region(f, r)
        if done == count:
            break
        if row.state == OFF and row.region == r and own.held + row.gpus <= own.quota:
            enter(s, f, i, DONATED, -1)
            done += 1
    return done


@compiled
def evict(s: Any, f: Any, i: int, notice_ps: int) -> None:
    """Take the VM of a place away after a notice, in which its instance drains."""
    row = place(f, i)
    if row.state == OFF or row.state == FAILED:
        return
    if row.state == READY:
        _drain(s, f, i, FAILED, -1, notice_ps)
    elif row.state == DRAINING:
        # Counted as starting elsewhere, if it was to be redeployed: no longer.
        role = row.role
        enter(s, f, i, READY, role)
        row.goal, row.goal_role = FAILED, -1
        enter(s, f, i, DRAINING, role)
        row.next_ps = min(row.next_ps, _later(s, notice_ps))
    else:
        if row.role >= 0:
            deployment(f, row.role * f.region_count + row.region).lost += 1
        enter(s, f, i, FAILED, -1)
        row.next_ps = _later(s, _delay(f, i, REPAIR))
    _go_on(s, f, i)


@compiled
def happen(s: Any, f: Any) -> None:
    """What happens to places at this instant: drained ones, delays that end, evictions."""
    for i in range(f.size):
        row = place(f, i)
        if row.state == DRAINING and is_empty(s, i):
            _drained(s, f, i)
        if row.next_ps <= s.now_ps:
            _go_on(s, f, i)
    while f.next_eviction < f.eviction_count:
        next_one = eviction(f, f.next_eviction)
        if next_one.time_ps > s.now_ps:
            break
        f.next_eviction += 1
        evict(s, f, next_one.place, next_one.notice_ps)


@compiled
def next_change_ps(f: Any) -> int:
    """When the next place changes by itself."""
    time = NEVER
    for i in range(f.size):
        time = min(time, place(f, i).next_ps)
    if f.next_eviction < f.eviction_count:
        time = min(time, eviction(f, f.next_eviction).time_ps)
    return time
