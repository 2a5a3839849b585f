"""What a controller can order of a fleet (docs/simulator.md, "Life cycle")."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.layout import NEVER
from envs.simulator.lifecycle.layout import (
    ACQUIRED,
    CONVERTED,
    DONATED,
    DRAINING,
    LOADING,
    OFF,
    PROVISIONING,
    READY,
    RECLAIMED,
    RECLAIMING,
    deployment,
    model_of,
    pattern,
    place,
    region,
)
from envs.simulator.lifecycle.ledger import enter
from envs.simulator.lifecycle.transitions import UP, drain, fleet_changed, go_on, start
from envs.simulator.memory import instance


@compiled
def _undrain(s: Any, f: Any, d: int, goal: int) -> bool:
    """Keep an instance that drains towards a goal; False where there is none."""
    for i in range(f.size):
        row = place(f, i)
        if row.state == DRAINING and row.goal == goal and _is_of(f, row, d):
            enter(s, f, i, READY, row.role)
            row.next_ps = NEVER
            instance(s, i).down = UP
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
            start(s, f, i, role, source)
            go_on(s, f, i)
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
def to_stop(s: Any, f: Any, d: int, new_role: int) -> int:
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
        i = to_stop(s, f, d, -1)
        if i < 0:
            break
        if place(f, i).state == READY:
            drain(s, f, i, goal, -1, f.drain_limit_ps)
            go_on(s, f, i)
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
        i = to_stop(s, f, source, role)
        if i < 0 or take.ready + take.starting >= take.ceiling:
            break
        drain(s, f, i, LOADING, role, f.drain_limit_ps)
        go_on(s, f, i)
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
