"""Plans without the integer program: greedy, or from its relaxation, rounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.scaling.moves import Counts, Moves, outcome
from baselines.scaling.problem import ScalingProblem
from baselines.scaling.realise import realise

Floats = npt.NDArray[np.float64]
_SLACK = 1e-9


def greedy(problem: ScalingProblem, start: Floats | None = None) -> Moves:
    """Moves of the first period that cover the peak of the horizon, in order of dollars a token.

    Instances are added where a region lacks its local share, then wherever they are cheapest until
    all regions together are covered, then taken away where nothing needs them. Models that weigh
    more come first. With several periods the first is planned for the peak of all, and nothing is
    done after it.

    Args:
        problem: The problem.
        start: (M, R, G) counts to begin with, such as those of the relaxation, which are rounded
            down; without it, what is there.
    """
    base = problem.current if start is None else np.floor(start + 1e-6)
    counts = np.where(problem.runs, base, 0).astype(np.int64)
    local, everywhere = problem.local_need.max(axis=0), problem.global_need.max(axis=0)
    most = _most(problem)
    gpus = _room(problem)
    used = (counts * problem.size).sum(axis=0)
    for i in np.argsort(-problem.weight, kind="stable"):
        cells = _Cells(problem, int(i), counts, most, gpus, used)
        for r in range(problem.shape[1]):
            cells.add(local[i, r], r)
        cells.add(everywhere[i])
        cells.trim(local[i], everywhere[i])
    return realise(problem, counts)


def best(problem: ScalingProblem, *choices: Moves) -> Moves:
    """The one with the least broken, then the least shortfall, then the fewest dollars."""
    return min(choices, key=lambda moves: outcome(problem, moves).score)


def heuristic(problem: ScalingProblem, relaxed: Floats | None = None) -> Moves:
    """The best of the greedy plan, the one from relaxed counts (if given), and doing nothing."""
    choices = [greedy(problem), Moves.none(problem)]
    if relaxed is not None:
        choices.insert(0, greedy(problem, relaxed))
    return best(problem, *choices)


def _most(p: ScalingProblem) -> Floats:
    """(M, R, G) instances that a cell can have: all it wants, or what was there already."""
    anew = np.isfinite(p.acquisition_cost) | np.isfinite(p.redeploy_cost)
    back = np.where(np.isfinite(p.reclaim_cost), p.spot, 0)
    return np.where(p.runs, np.where(anew, np.inf, p.current + back), 0.0)


def _room(p: ScalingProblem) -> tuple[Floats, Floats]:
    """(R, G) and (R,) GPUs that may serve."""
    grows = np.isfinite(p.acquisition_cost).any(axis=0)
    kept = np.where(grows, np.inf, p.held.astype(np.float64))
    return np.minimum(p.quota, kept), np.minimum(p.region_quota, kept.sum(axis=1))


class _Cells:
    """One model's instances by region and GPU."""

    def __init__(
        self,
        problem: ScalingProblem,
        i: int,
        counts: Counts,
        most: Floats,
        gpus: tuple[Floats, Floats],
        used: npt.NDArray[np.int64],
    ) -> None:
        self.p, self.i = problem, i
        self.counts, self.most, self.used = counts[i], most[i], used
        self.of_kind, self.of_region = gpus
        self.theta = problem.throughput[i]
        self.size = problem.gpus_per_instance[i]
        hours = float(problem.period_s.sum()) / 3600.0
        there = problem.current[i] + problem.spot[i]
        starts = np.minimum(problem.acquisition_cost[i], problem.redeploy_cost[i])
        starts = np.where(np.isfinite(starts), starts, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            dollars = hours * problem.hourly[i] + np.where(self.counts < there, 0.0, starts)
            self.dear = np.where(self.theta > 0, dollars / self.theta, np.inf)

    def _order(self, rising: bool) -> list[tuple[int, int]]:
        flat = np.argsort(self.dear if rising else -self.dear, axis=None, kind="stable")
        shape = self.dear.shape
        return [(int(f) // shape[1], int(f) % shape[1]) for f in flat]

    def capacity(self) -> Floats:
        """(R,) tokens/s."""
        return np.asarray((self.counts * self.theta).sum(axis=1), dtype=np.float64)

    def add(self, need: float, region: int | None = None) -> None:
        """Add the cheapest instances, of one region or any, until they serve the need."""

        def lack() -> float:
            capacity = self.capacity()
            return need - float(capacity.sum() if region is None else capacity[region])

        for r, g in self._order(rising=True):
            if lack() <= _SLACK * need:
                return
            if self.theta[g] <= 0 or (region is not None and r != region):
                continue
            wanted = int(np.ceil(lack() / self.theta[g] - _SLACK))
            self._change(r, g, min(wanted, self._free(r, g)))

    def _free(self, r: int, g: int) -> int:
        p, i = self.p, self.i
        started = np.maximum(self.counts[r] - p.current[i, r], 0).sum()
        limits = [
            self.most[r, g] - self.counts[r, g],
            (self.of_kind[r, g] - self.used[r, g]) / self.size[g],
            (self.of_region[r] - self.used[r].sum()) / self.size[g],
            p.ceiling[i, r] - self.counts[r].sum(),
            p.max_change[i, r] - started + max(0, p.current[i, r, g] - self.counts[r, g]),
        ]
        least = min(limits)
        return 10**9 if np.isinf(least) else max(0, int(least))

    def trim(self, local: Floats, everywhere: float) -> None:
        """Take away the dearest instances that neither coverage nor the floor needs."""
        p, i = self.p, self.i
        for r, g in self._order(rising=False):
            count = int(self.counts[r, g])
            if not count or p.hourly[i, r, g] <= 0:
                continue
            capacity = self.capacity()
            spare = min(capacity[r] - local[r], capacity.sum() - everywhere)
            spare += _SLACK * everywhere
            free = count if self.theta[g] <= 0 else int(max(0.0, spare) // self.theta[g])
            stopped = np.maximum(p.current[i, r] - self.counts[r], 0).sum()
            left = p.max_change[i, r] - stopped + max(0, count - p.current[i, r, g])
            floor = int(self.counts[r].sum() - p.floor[i, r])
            self._change(r, g, -max(0, int(min(count, free, left, floor))))

    def _change(self, r: int, g: int, by: int) -> None:
        self.counts[r, g] += by
        self.used[r, g] += by * self.size[g]
