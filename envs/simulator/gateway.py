"""The gateway: calls that an admission policy judges (docs/simulator.md, "Admission policy")."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues, tenants
from envs.simulator.batch import turn_away
from envs.simulator.jit import compiled
from envs.simulator.judging import judge
from envs.simulator.layout import (
    CLOCK_END_PS,
    DROP,
    LET_IN,
    MINUTE_PS,
    REJECTED_GATE,
    REJECTED_INTERACTION,
    REJECTED_PATIENCE,
    TURN_AWAY,
    WAIT,
)
from envs.simulator.memory import (
    application,
    engine,
    gate,
    interaction,
    killed,
    request,
    tenant,
    traits,
)
from envs.simulator.outcomes import note_arrival, note_turned_away
from envs.simulator.router_queue import join_router_queue


@compiled
def _log(s: Any, account: Any, r: int, by_tenant: bool) -> None:
    """Count a call among the recent ones of its tenant, or of its application."""
    if account.recent == 0:
        account.oldest = r
    elif by_tenant:
        traits(s, account.latest).next_of_tenant = r
    else:
        traits(s, account.latest).next_of_application = r
    account.latest = r
    account.recent += 1
    account.recent_tokens += request(s, r).prompt
    oldest = traits(s, account.oldest)
    while s.now_ps - oldest.logged_ps >= MINUTE_PS:
        account.recent -= 1
        account.recent_tokens -= request(s, account.oldest).prompt
        account.oldest = oldest.next_of_tenant if by_tenant else oldest.next_of_application
        oldest = traits(s, account.oldest)


@compiled
def come(s: Any, r: int) -> None:
    """A call comes to the gate, where it is judged before the next decision of the router."""
    own = traits(s, r)
    if own.logged_ps < 0:
        own.logged_ps = s.now_ps
        _log(s, tenant(s, own.tenant), r, True)
        _log(s, application(s, own.application), r, False)
        note_arrival(s, r)
    queues.push(s, s.size + 2, r)


@compiled
def look(s: Any, r: int, fits: int) -> int:
    """The verdict on the next call of a waiting queue."""
    row = gate(s)
    row.fits = fits
    verdict = judge(s, row.look_at, r)
    if verdict == TURN_AWAY or verdict == DROP or (verdict == LET_IN and fits == 1):
        return verdict
    return WAIT


@compiled
def give_up(s: Any, r: int, status: int) -> None:
    """Turn a call away for good; its interaction can end with it."""
    note_turned_away(s, r)
    turn_away(s, r, status)
    s.limited += 1
    interaction(s, traits(s, r).interaction).put_off = 0
    if gate(s).kills == 1:
        killed(s, traits(s, r).interaction)[0] = 1


@compiled
def _again(s: Any, r: int, delay_ps: int) -> None:
    """Have a call come again after a delay, or give it up where that is too late."""
    row = request(s, r)
    patience = gate(s).patience_ps
    if delay_ps < 1 or delay_ps > CLOCK_END_PS - s.now_ps:
        s.overflow = 1
    elif s.now_ps - traits(s, r).logged_ps + delay_ps > patience:
        give_up(s, r, REJECTED_PATIENCE)
    else:
        row.key = s.now_ps + delay_ps
        s.deferred += 1
        queues.push(s, s.size + 1, r)


@compiled
def settle(s: Any, r: int, verdict: int) -> None:
    """Carry out the verdict on a call that stands at the gate."""
    own, row = traits(s, r), gate(s)
    if verdict == LET_IN:
        join_router_queue(s, r)
    elif verdict == WAIT:
        _again(s, r, row.delay_ps)
    elif own.attempts < row.retries:
        own.attempts += 1
        _again(s, r, row.backoff_ps << (own.attempts - 1))
    else:
        give_up(s, r, REJECTED_GATE)


@compiled
def attend(s: Any) -> int:
    """Judge the calls that stand at the gate; gives one that the caller must decide on, or -1."""
    queue = s.size + 2
    if s.counted == 1:
        tenants.post_all(s)
    while engine(s, queue).root >= 0:
        r = engine(s, queue).root
        own, row = traits(s, r), gate(s)
        if row.kills == 1 and killed(s, own.interaction)[0] == 1:
            queues.take(s, queue, r)
            give_up(s, r, REJECTED_INTERACTION)
            continue
        if row.asks == 1 and own.call_index == 0:
            return r
        queues.take(s, queue, r)
        verdict = LET_IN
        if interaction(s, own.interaction).put_off == 1:
            verdict = WAIT
        if row.arrive_at != 0:
            verdict = judge(s, row.arrive_at, r)
        settle(s, r, verdict)
    return -1


@compiled
def answer(s: Any, verdict: int) -> None:
    """Carry out the caller's decision on the call that `attend` gave."""
    r = engine(s, s.size + 2).root
    queues.take(s, s.size + 2, r)
    # Those that follow it in an open loop wait for it.
    interaction(s, traits(s, r).interaction).put_off = 1 if verdict == WAIT else 0
    settle(s, r, verdict if verdict == WAIT or verdict == TURN_AWAY else LET_IN)
