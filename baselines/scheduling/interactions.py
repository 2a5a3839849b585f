"""Orders that serve whole interactions: Justitia's finish tags, and shortest interaction first."""

from __future__ import annotations

from typing import Any

from envs.simulator.scheduler import ARRIVE, FINISH

PS_PER_S = 1e12


def charge_virtual_time(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """Move virtual time on, and give an interaction its finish tag when its first call comes.

    Virtual time V grows by `p0` KV token-seconds a second, shared by the interactions in the
    system: dV = p0 / N dt (Justitia, arXiv:2510.17015). The tag is V at the arrival plus the cost
    of the interaction, `traits.interaction_cost`; later calls inherit it. `scheduler.m0` is V,
    m1 the time up to which it counts, m2 the interactions since then. Nothing is charged.
    """
    if event == ARRIVE or event == FINISH:
        passed = (scheduler.now_ps - scheduler.m1) / PS_PER_S
        scheduler.m0 += scheduler.p0 * passed / max(scheduler.m2, 1.0)
        scheduler.m1 = scheduler.now_ps
        scheduler.m2 = scheduler.interactions
    if event == ARRIVE and traits.tag == 0:
        traits.tag = 1 + int(1e3 * (scheduler.m0 + traits.interaction_cost))
    return 0


def finish_tag(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    """The smallest virtual finish time first."""
    return int(traits.tag)


def smallest_interaction(
    now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    """The interaction of the smallest cost first; within one, call by call."""
    return int(1e3 * traits.interaction_cost)
