"""Who is served while there is more demand than service: a run as it stood at a cut.

What is unfinished or turned away counts as not served, so that a policy gains nothing by rejecting
or by leaving work behind. The set is that of the review of FairServe (arXiv:2411.15997) and VTC
(OSDI 2024); the figures of the papers themselves are in `served` and `fairness`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from envs.simulator.fairness import backlogged_gap
from envs.simulator.served import Served

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOBODY: Final = -1
"""Group of a tenant that asks for nothing."""
GROUPS: Final = ("light", "middle", "heavy")
"""Names of the groups of tenants, by their numbers."""
HEAVY_SHARE: Final = 1 / 3
"""Share of all demand that the heavy tenants have together."""


def chosen(rows: Served, which: Bools) -> Served:
    """Some calls of a run; tenants keep their numbers."""
    return Served(*(getattr(rows, name)[which] for name in Served.__dataclass_fields__))


def seen_by(rows: Served, cut_s: float) -> Served:
    """The run as it stood at a time.

    Calls that had arrived by then; first tokens and ends that came later are unknown. When a call
    was turned away is not recorded, so that it counts as turned away from its arrival on.

    Args:
        rows: Outcome of the whole run.
        cut_s: The time in seconds.
    """
    cut = chosen(rows, rows.arrival_s <= cut_s)
    return replace(
        cut,
        first_token_s=_until(cut.first_token_s, cut_s),
        finish_s=_until(cut.finish_s, cut_s),
    )


def tenant_groups(demand: Floats, heavy_share: float = HEAVY_SHARE) -> Ints:
    """Light, middle and heavy tenants by what they ask for, whatever they get.

    Heavy are the fewest tenants that together ask for a share of everything; light is the half of
    the tenants that asks for least, as far as it is not heavy; the others are in the middle.

    Args:
        demand: (tenants,) cost of all calls of each tenant.
        heavy_share: Share of all demand that the heavy ones have at least.

    Returns:
        (tenants,) place in `GROUPS`; `NOBODY` where there is no demand.
    """
    order = np.argsort(-demand, kind="stable")
    asking = int((demand > 0).sum())
    heavy = int(np.searchsorted(np.cumsum(demand[order]), heavy_share * demand.sum())) + 1
    group = np.full(len(demand), NOBODY, np.int64)
    group[order[:asking]] = 1
    group[order[asking - asking // 2 : asking]] = 0
    group[order[: min(heavy, asking)]] = 2
    return group


def waits(rows: Served, cut_s: float, limit_s: float) -> tuple[Floats, Bools]:
    """Time to first token of calls, those without one included.

    A call that was turned away or has no token by the cut is a miss and counts with `cut_s`, which
    no served call exceeds. Calls that arrive less than the limit before the cut are left out
    unless they were turned away, as nobody can tell yet whether they are served in time.

    Args:
        rows: Outcome as it stood at the cut (`seen_by`).
        cut_s: The cut in seconds.
        limit_s: Seconds within which the first token must be there.

    Returns:
        (n,) seconds, and (n,) which calls count.
    """
    lost = rows.rejected | ~np.isfinite(rows.first_token_s)
    wait = np.where(lost, cut_s, rows.first_token_s - rows.arrival_s)
    return wait, (rows.arrival_s <= cut_s - limit_s) | rows.rejected


def late_tenants(rows: Served, cut_s: float, limit_s: float) -> float:
    """Share of tenants of whose calls more than half had no first token within the limit.

    FairServe counts "delayed users" without a definition; this is ours. Arguments as `waits`.

    Returns:
        The share of those with calls that count; NaN where there are none.
    """
    wait, counts = waits(rows, cut_s, limit_s)
    calls = rows.by_tenant(counts)
    late = rows.by_tenant(counts & (wait > limit_s))
    asked = calls > 0
    return float((late > calls / 2)[asked].mean()) if asked.any() else float("nan")


def timely(rows: Served, deadline_s: float) -> Bools:
    """Calls of interactions that were finished in full, and in time.

    Args:
        rows: Outcome as it stood at the cut (`seen_by`).
        deadline_s: Seconds from the first arrival of an interaction to its last token.

    Returns:
        (n,) whether the call's interaction is such a one.
    """
    _, number = np.unique(rows.interaction, return_inverse=True)
    count = int(number.max(initial=-1)) + 1
    start, end = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(start, number, rows.arrival_s)
    np.maximum.at(end, number, np.where(rows.finished, rows.finish_s, -np.inf))
    done = np.bincount(number, rows.finished, count)
    needed = np.zeros(count)
    np.maximum.at(needed, number, rows.calls)
    good = (done >= needed) & (end - start <= deadline_s)
    return np.asarray(good[number] & rows.finished)


def benign_tenants(rows: Served, limit: int, window_s: float = 60.0) -> Bools:
    """(tenants,) whether a tenant never sends more than `limit` calls within a window."""
    order = np.lexsort((rows.arrival_s, rows.tenant))
    tenant, times = rows.tenant[order], rows.arrival_s[order]
    # One search for all tenants: their times on stretches of the axis that do not meet.
    stretch = float(np.ptp(times)) + 2.0 * window_s if len(times) else 0.0
    apart = times + tenant * stretch
    within = np.arange(1, len(times) + 1) - np.searchsorted(apart, apart - window_s, "right")
    most = np.zeros(rows.tenants, np.int64)
    np.maximum.at(most, tenant, within)
    return np.asarray(most <= limit)


def benign_throttle_rate(rows: Served, limit: int) -> float:
    """Share of the calls of benign tenants that were turned away; NaN without such tenants.

    Args:
        rows: Outcome of the run.
        limit: Calls in 60 s up to which a tenant is benign.
    """
    mine = benign_tenants(rows, limit)[rows.tenant]
    return float(rows.rejected[mine].mean()) if mine.any() else float("nan")


def largest_gap(rows: Served, until_s: float, most: int = 16, points: int = 200) -> float:
    """`backlogged_gap` among the tenants that ask for most, of which alone it is affordable.

    Args:
        rows: Outcome of the run.
        until_s: Where it ends, seconds.
        most: How many tenants.
        points: Points of the grid of time.
    """
    top = np.argsort(-rows.by_tenant(rows.cost), kind="stable")[:most]
    place = np.full(rows.tenants, -1)
    place[top] = np.arange(len(top))
    few = chosen(rows, place[rows.tenant] >= 0)
    return backlogged_gap(replace(few, tenant=place[few.tenant]), points, until_s=until_s)


def _until(times: Floats, cut_s: float) -> Floats:
    return np.where(times <= cut_s, times, np.nan)
