"""How places go from state to state (docs/simulator.md, "Life cycle")."""

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
    sigma,
    weights_near,
)
from envs.simulator.lifecycle.ledger import enter
from envs.simulator.memory import engine, instance
from envs.simulator.patterns import take_over
from envs.simulator.router_queue import bring_back

UP, _DOWN, _DRAINS = 0, 1, 2


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
def start(s: Any, f: Any, i: int, role: int, source: int) -> None:
    """Begin to start an instance at a place that holds no request; `go_on` comes after it."""
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
def go_on(s: Any, f: Any, i: int) -> None:
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
            instance(s, i).down = UP
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
        start(s, f, i, goal_role, REDEPLOYED)
    elif row.goal == FAILED:
        deployment(f, role * f.region_count + row.region).lost += 1
        enter(s, f, i, FAILED, -1)
        row.next_ps = _later(s, _delay(f, i, REPAIR))
    elif row.goal == DONATED:
        enter(s, f, i, DONATED, role)
    else:
        enter(s, f, i, OFF, -1)


@compiled
def drain(s: Any, f: Any, i: int, goal: int, goal_role: int, limit_ps: int) -> None:
    """Have a ready instance finish what it has, then go elsewhere; `go_on` comes after it."""
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
def evict(s: Any, f: Any, i: int, notice_ps: int) -> None:
    """Take the VM of a place away after a notice, in which its instance drains."""
    row = place(f, i)
    if row.state == OFF or row.state == FAILED:
        return
    if row.state == READY:
        drain(s, f, i, FAILED, -1, notice_ps)
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
    go_on(s, f, i)


@compiled
def happen(s: Any, f: Any) -> None:
    """What happens to places at this instant: drained ones, delays that end, evictions."""
    for i in range(f.size):
        row = place(f, i)
        if row.state == DRAINING and is_empty(s, i):
            _drained(s, f, i)
        if row.next_ps <= s.now_ps:
            go_on(s, f, i)
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
