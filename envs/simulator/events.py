"""The next event of each instance: a tournament, and the instances that plan at this instant."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.layout import NEVER
from envs.simulator.memory import engine, event_ps, pending, winner


@compiled
def schedule(s: Any, i: int, time_ps: int) -> None:
    """Set instance i's next event and replay its path of the tournament."""
    times, winners = event_ps(s), winner(s)
    times[i] = time_ps
    # Compared from i's side, since a processor can foresee that: it mostly leaves.
    node, other = (i + s.leaves) >> 1, i ^ 1
    there = times[other]
    if time_ps < there or (time_ps == there and i < other):
        winners[node] = i
    else:
        winners[node] = other
    node >>= 1
    while node > 0:
        a, b = winners[2 * node], winners[2 * node + 1]
        winners[node] = a if times[a] <= times[b] else b
        node >>= 1


@compiled
def mark_pending(s: Any, i: int) -> None:
    """Have instance i plan at the end of the present instant, and have no event until then."""
    if engine(s, i).pending == 0:
        engine(s, i).pending = 1
        pending(s)[s.pending_count] = i
        s.pending_count += 1
        schedule(s, i, NEVER)
