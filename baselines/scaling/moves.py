"""What is done with instances, period by period, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from baselines.scaling.problem import ScalingProblem

Counts = npt.NDArray[np.int64]
_EXACT = 1e-7
"""Relative shortfall below which demand counts as met: what the solver's tolerances can leave."""


@dataclass(frozen=True, eq=False)
class Moves:
    """Instances by what is done with them; every array is (P, M, R, G).

    A GPU that changes its model leaves one (`withdrawn` from service, or `converted` from the spot
    pool) and is `loaded` with another, in the same region, kind and number of GPUs.
    """

    acquired: Counts
    """Started on new VMs."""
    reclaimed: Counts
    """Taken back from the spot market for the model whose weights they hold."""
    loaded: Counts
    """Started on GPUs that another model had, by the new model."""
    withdrawn: Counts
    """Stopped so that another model gets the GPUs."""
    converted: Counts
    """Taken back from the spot market for another model, by the old model."""
    donated: Counts
    """Stopped and given to the spot market."""
    released: Counts
    """Stopped and given back."""
    returned: Counts
    """Given back out of the spot market."""

    @classmethod
    def none(cls, problem: ScalingProblem) -> Moves:
        """Nothing is done."""
        shape = (problem.periods, *problem.shape)
        return cls(*(np.zeros(shape, dtype=np.int64) for _ in fields(cls)))

    @property
    def started(self) -> Counts:
        """Instances that are started."""
        return self.acquired + self.reclaimed + self.loaded

    @property
    def stopped(self) -> Counts:
        """Instances that are stopped."""
        return self.withdrawn + self.donated + self.released

    def tidied(self) -> Moves:
        """The same counts at no more cost: no model is loaded on GPUs that it had itself."""
        both = np.minimum(self.loaded, self.withdrawn)
        loaded = self.loaded - both
        own = np.minimum(loaded, self.converted)
        return Moves(
            acquired=self.acquired,
            reclaimed=self.reclaimed + own,
            loaded=loaded - own,
            withdrawn=self.withdrawn - both,
            converted=self.converted - own,
            donated=self.donated,
            released=self.released,
            returned=self.returned,
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the moves lead to in each period, and what they cost; shortfalls are in tokens/s."""

    serving: Counts
    """(P, M, R, G) instances that serve."""
    spot: Counts
    """(P, M, R, G) donated instances."""
    held: Counts
    """(P, R, G) GPUs held."""
    shortfall: npt.NDArray[np.float64]
    """(P, M) of the share of the peak of all regions that nobody covers."""
    local_shortfall: npt.NDArray[np.float64]
    """(P, M, R) of each region's share of its own peak that the region does not cover."""
    broken: dict[str, int]
    """Instances below floors and above ceilings, GPUs above quotas, changes above their limit."""
    dollars: dict[str, float]
    """Parts of the cost over all periods."""
    score: tuple[float, float, float, float]
    """In the order in which they are kept small: what is broken, weighted shortfall of all regions
    and of single ones (both tokens/s times hours), dollars."""


def outcome(problem: ScalingProblem, moves: Moves) -> Outcome:
    """Follow the moves through the periods."""
    p = problem
    arrived = (
        p.arriving
        + _later(moves.acquired, p.acquisition_lead)
        + _later(moves.reclaimed, p.reclaim_lead)
        + _later(moves.loaded, p.redeploy_lead)
    )
    serving = p.current + np.cumsum(arrived - moves.stopped, axis=0)
    left = moves.reclaimed + moves.converted + moves.returned
    spot = p.spot + np.cumsum(moves.donated - left, axis=0)
    net = (moves.acquired - moves.released - moves.returned) * p.size
    held = p.held + np.cumsum(net.sum(axis=1), axis=0)
    capacity = (serving * p.throughput[:, None, :]).sum(axis=3)
    local = _lack(p.local_need, capacity)
    everywhere = _lack(p.global_need, capacity.sum(axis=2))
    pools = serving.sum(axis=3)
    started, stopped = moves.started.sum(axis=3), moves.stopped.sum(axis=3)
    change = np.maximum(started, stopped)
    broken = {
        "instances below floors": _over(p.floor, pools),
        "instances above ceilings": _over(pools, p.ceiling),
        "GPUs above quotas": _over(held, p.quota),
        "GPUs above regional quotas": _over(held.sum(axis=2), p.region_quota),
        "changes above their limit": _over(change, p.max_change),
    }
    hours = p.period_s[:, None, None, None] / 3600.0
    dollars = {
        "serving": float((hours * p.hourly * serving).sum()),
        "donated": float((hours * p.donated_hourly * spot).sum()),
        "acquisitions": _cost(moves.acquired, p.acquisition_cost),
        "reclaims": _cost(moves.reclaimed, p.reclaim_cost),
        "redeployments": _cost(moves.loaded, p.redeploy_cost),
        "scale_in": _cost(moves.stopped, p.scale_in_cost),
    }
    of_all = (hours[..., 0, 0] * p.weight * everywhere).sum()
    of_regions = (hours[..., 0] * p.weight[:, None] * local).sum()
    score = (float(sum(broken.values())), float(of_all), float(of_regions), sum(dollars.values()))
    return Outcome(serving, spot, held, everywhere, local, broken, dollars, score)


def matched(problem: ScalingProblem, moves: Moves) -> tuple[Counts, Counts]:
    """Who gets whose GPUs in the first period.

    Returns:
        (M, M, R, G) instances by old and new model, of those that served and of those donated.
    """
    models, regions, gpus = problem.shape
    served = np.zeros((models, models, regions, gpus), dtype=np.int64)
    donated = np.zeros_like(served)
    loaded, withdrawn, converted = moves.loaded[0], moves.withdrawn[0], moves.converted[0]
    for r, g in np.argwhere(loaded.any(axis=0)):
        sources = [(served, i, n) for i, n in enumerate(withdrawn[:, r, g]) if n]
        sources += [(donated, i, n) for i, n in enumerate(converted[:, r, g]) if n]
        sizes = problem.gpus_per_instance[:, g]
        for new in np.flatnonzero(loaded[:, r, g]):
            missing = int(loaded[new, r, g])
            for place, (table, old, left) in enumerate(sources):
                if sizes[old] == sizes[new]:
                    taken = min(missing, int(left))
                    table[old, new, r, g] += taken
                    sources[place] = (table, old, left - taken)
                    missing -= taken
    return served, donated


def _later(counts: Counts, lead: int) -> Counts:
    if not lead:
        return counts
    shifted = np.zeros_like(counts)
    shifted[lead:] = counts[:-lead]
    return shifted


def _lack(
    need: npt.NDArray[np.float64], capacity: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    lack = need - capacity
    return np.where(lack > _EXACT * need, lack, 0.0)


def _over(value: npt.NDArray[np.number], limit: npt.NDArray[np.number]) -> int:
    return int(np.maximum(value - limit, 0).sum())


def _cost(counts: Counts, each: npt.NDArray[np.float64]) -> float:
    # What is barred costs infinity and is never done.
    return float((counts * np.where(counts > 0, each, 0.0)).sum())
