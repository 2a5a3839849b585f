"""Fairness between tenants: service differences of VTC (OSDI 2024), Jain's index of FairServe.

FairServe is arXiv:2411.15997. Both read `Served`, one row a request.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from envs.simulator.served import Served

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Difference(NamedTuple):
    """Service difference over the points of a run, in cost per second."""

    max: float
    mean: float
    variance: float


def service(rows: Served, time_s: float, cost: Floats | None = None) -> Floats:
    """Cumulative service W of each tenant at a time.

    The cost of a request is spread evenly from its first to its last token. (OSDI 2024, artifact)

    Args:
        rows: Outcome of the run.
        time_s: Until when, seconds.
        cost: (n,) cost of each request; by default input + 2 x output tokens.

    Returns:
        (tenants,) in units of the cost.
    """
    return rows.by_tenant(_cost(rows, cost) * _share(rows, -np.inf, time_s))


def service_rate(
    rows: Served, time_s: float, window_s: float = 60.0, cost: Floats | None = None
) -> Floats:
    """(tenants,) service per second in the window around a time; arguments as `service`."""
    share = _share(rows, time_s - window_s / 2, time_s + window_s / 2)
    return rows.by_tenant(_cost(rows, cost) * share) / window_s


def demand_rate(
    rows: Served, time_s: float, window_s: float = 60.0, keep_rejected: bool = True
) -> Floats:
    """(tenants,) input + 2 x output tokens that arrive per second in the window around a time."""
    inside = np.abs(rows.arrival_s - time_s) <= window_s / 2
    return rows.by_tenant(rows.cost * (inside & (keep_rejected | ~rows.rejected))) / window_s


def service_difference(
    rows: Served,
    keep_rejected: bool = True,
    duration_s: float = 600.0,
    cost: Floats | None = None,
) -> Difference:
    """The VTC paper's service difference (Tables 2 to 6).

    With s_i the service rate and q_i the demand rate of tenant i, both in the 60 s around x, it
    is `sum_j min(max_i s_i - s_j, |q_j - s_j|)` at x = 30 + k (duration - 30) / 20, k = 1 .. 19.

    Args:
        rows: Outcome of the run.
        keep_rejected: Whether requests that were turned away count as demand. The paper leaves
            them out, so that a policy looks fairer the more it rejects.
        duration_s: How long requests were sent.
        cost: As `service`; demand is in tokens whatever the cost, as in the paper.
    """
    points = []
    for time_s in 30.0 + (duration_s - 30.0) / 20.0 * np.arange(1, 20):
        got = service_rate(rows, time_s, cost=cost)
        asked = demand_rate(rows, time_s, keep_rejected=keep_rejected)
        points.append(np.minimum(got.max() - got, np.abs(asked - got)).sum())
    return Difference(float(np.max(points)), float(np.mean(points)), float(np.var(points)))


def accumulated_difference(rows: Served, cost: Floats | None = None) -> float:
    """The VTC paper's largest difference of cumulative service between two tenants.

    `max |W_i - W_j|` over all pairs at 100 points from 0 in steps of 1 % of the last arrival.
    Only tenants that always have requests waiting are bounded by 2U (OSDI 2024, Theorem 4.4).
    """
    times = rows.arrival_s.max() * np.arange(100) / 100
    spread = [float(np.ptp(service(rows, time, cost))) for time in times]
    return max(spread)


def backlogged_gap(
    rows: Served, points: int = 1000, cost: Floats | None = None, until_s: float = np.inf
) -> float:
    """Largest change of `W_i - W_j` over a time in which both tenants had requests waiting.

    The left side of Theorem 4.4 of OSDI 2024, to be held against 2U; a request waits until its
    first token. Takes time with the square of the number of tenants.

    Args:
        rows: Outcome of the run.
        points: Points of the grid, from 0 to the last first token.
        cost: As `service`.
        until_s: Where the grid ends at the latest, seconds.

    Returns:
        The gap in units of the cost; 0 if no two tenants ever wait together.
    """
    last = np.nanmax(np.append(rows.first_token_s, 0.0))
    times = np.linspace(0.0, min(last, until_s), points)
    work = np.array([service(rows, time, cost) for time in times])
    waits = np.array([_waiting(rows, time) for time in times])
    gap = 0.0
    for i in range(rows.tenants):
        for j in range(i):
            both = waits[:, i] & waits[:, j]
            change = np.flatnonzero(np.diff(both))
            for part in np.split(np.arange(points), change + 1):
                if both[part[0]]:
                    gap = max(gap, float(np.ptp(work[part, i] - work[part, j])))
    return gap


def fair_level(demand: Floats, total: float) -> float:
    """The max-min fair share: L with `sum_i min(demand_i, L) = total`.

    Returns:
        L; infinite where the total covers every demand.
    """
    if total >= demand.sum():
        return float("inf")
    rising = np.sort(demand)
    left = total
    for place, value in enumerate(rising):
        share = left / (len(rising) - place)
        if value >= share:
            return float(share)
        left -= value
    return float("inf")


def jain(rows: Served, cut_s: float | None = None, unmet_only: bool = False) -> float:
    """Jain's index of normalised service: `(sum x)^2 / (n sum x^2)`, 1 where all are equal.

    `x_i = served_i / min(demand_i, L)` over the tenants that asked for anything, where L is the
    max-min fair level of all that was served, in tokens of requests that finished by the cut.

    Args:
        rows: Outcome of the run.
        cut_s: Until when service counts; by default to the end.
        unmet_only: Count only tenants whose demand was not met in full.

    Returns:
        The index; NaN where nothing was served or, with `unmet_only`, all demand was met.
    """
    tokens = (rows.prompt + rows.output).astype(np.float64)
    done = rows.done(cut_s)
    demand, got = rows.by_tenant(tokens), rows.by_tenant(tokens * done)
    asked = (demand > got) if unmet_only else (demand > 0)
    if not asked.any() or got.sum() == 0:
        return float("nan")
    share = got / np.maximum(np.minimum(demand, fair_level(demand[demand > 0], got.sum())), 1e-12)
    share = share[asked]
    square = (share**2).sum()
    return float(share.sum() ** 2 / (len(share) * square)) if square > 0 else float("nan")


def _cost(rows: Served, cost: Floats | None) -> Floats:
    return rows.cost if cost is None else cost


def _share(rows: Served, start_s: float, stop_s: float) -> Floats:
    """(n,) share of each finished request's time of generation inside an interval."""
    length = rows.finish_s - rows.first_token_s
    overlap = np.minimum(rows.finish_s, stop_s) - np.maximum(rows.first_token_s, start_s)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(length > 0, overlap / length, (overlap >= 0).astype(np.float64))
    return np.where(rows.finished, np.clip(share, 0.0, 1.0), 0.0)


def _waiting(rows: Served, time_s: float) -> Bools:
    """(tenants,) whether a request has arrived and has no token yet."""
    started = np.where(np.isfinite(rows.first_token_s), rows.first_token_s, np.inf)
    waits = (rows.arrival_s <= time_s) & (started > time_s) & ~rows.rejected
    return rows.by_tenant(waits) > 0
