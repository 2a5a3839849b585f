"""The prefix cache: KV that was given up and not yet overwritten (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.memory import engine, prefix, request, traits


@compiled
def _alive(s: Any, i: int, p: int) -> int:
    """Tokens of prefix p that instance i still holds."""
    row, eng = prefix(s, i, p), engine(s, i)
    if row.users > 0:
        return row.tokens
    return max(0, min(row.tokens, row.mark - eng.taken))


@compiled
def find(s: Any, i: int, r: int) -> int:
    """Tokens of a request that need no prefill at instance i, in whole blocks."""
    own, row, eng = traits(s, r), request(s, r), engine(s, i)
    hit = 0
    if own.prefix >= 0:
        hit = min(own.prefix_tokens, _alive(s, i, own.prefix))
    if own.kept > 0:
        hit = max(hit, min(own.kept, own.mark - eng.taken))
    hit = min(hit, row.prompt + row.generated - 1)
    return hit // eng.block * eng.block


@compiled
def become_user(s: Any, i: int, r: int) -> None:
    """The prefill of a request is complete: others can use its prefix."""
    own = traits(s, r)
    if own.prefix >= 0:
        row = prefix(s, i, own.prefix)
        row.tokens = max(_alive(s, i, own.prefix), own.prefix_tokens)
        row.users += 1
        own.user = 1


@compiled
def leave(s: Any, i: int, r: int, tokens: int, kept: int) -> None:
    """A request of `tokens` leaves service; it may find `kept` of them again."""
    eng, own = engine(s, i), traits(s, r)
    eng.freed += tokens
    own.mark = eng.freed
    own.kept = kept
    if own.user == 1:
        row = prefix(s, i, own.prefix)
        row.users -= 1
        row.mark = eng.freed
        own.user = 0


@compiled
def forget(s: Any, i: int) -> None:
    """Empty the cache of instance i."""
    for p in range(s.prefix_count):
        row = prefix(s, i, p)
        row.users = 0
        row.tokens = 0
        row.mark = 0
