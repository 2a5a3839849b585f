"""From wanted counts of instances to moves that the rules allow, the cheap ones first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.scaling.moves import Counts, Moves
from baselines.scaling.problem import ScalingProblem


def realise(problem: ScalingProblem, wanted: npt.NDArray[np.int64]) -> Moves:
    """Moves of the first period that bring the counts as near to the wanted ones as rules allow.

    Donated instances of the same model come back first. Then GPUs of other models are loaded, or
    VMs acquired, whichever costs less while the quota has room. Source: SageServe's order of spot
    of the same model, spot of others, new VMs (arXiv:2502.14617, section 5).

    Args:
        problem: The problem; floors, ceilings, limits of change and quotas are respected.
        wanted: (M, R, G) instances in all.
    """
    limited = within_limits(problem, wanted)
    moves = Moves.none(problem)
    room = problem.region_quota - problem.held.sum(axis=1)
    for r in range(problem.shape[1]):
        left = float(room[r])
        for g in range(problem.shape[2]):
            kind = _Kind(problem, limited[:, r, g], r, g, left)
            left -= kind.settle(moves)
    return moves.tidied()


def within_limits(problem: ScalingProblem, wanted: npt.NDArray[np.int64]) -> Counts:
    """(M, R, G) the wanted counts, cut to floors, ceilings and limits of change of each pool.

    What is cut first is dear, what is added first is cheap, by dollars a token. A floor gives way
    to the limit of change.
    """
    p = problem
    counts = np.where(p.runs, np.maximum(wanted, 0), 0)
    theta = np.where(p.throughput > 0, p.throughput, 1.0)[:, None, :]
    order = np.argsort(p.hourly / theta, axis=2, kind="stable")
    starts = np.maximum(counts - p.current, 0)
    stops = np.maximum(p.current - counts, 0)
    for i, r in np.ndindex(*p.shape[:2]):
        cheap = [int(g) for g in order[i, r] if p.runs[i, r, g]]
        start, stop, now = starts[i, r], stops[i, r], p.current[i, r]
        most = p.max_change[i, r]
        _cut(start, start.sum() - most, cheap[::-1])
        _cut(stop, stop.sum() - most, cheap)

        def count(now: Counts = now, start: Counts = start, stop: Counts = stop) -> int:
            return int((now + start - stop).sum())

        coming = int(p.arriving[0, i, r].sum())
        lack = int(p.floor[i, r]) - coming - count()
        lack -= _cut(stop, lack, cheap)
        if lack > 0 and cheap:
            start[cheap[0]] += min(lack, most - start.sum())
        excess = count() + coming - p.ceiling[i, r]
        excess -= _cut(start, excess, cheap[::-1])
        for g in cheap[::-1]:
            more = max(0, min(excess, most - stop.sum(), now[g] - stop[g]))
            stop[g] += int(more)
            excess -= more
    return np.asarray(p.current + starts - stops)


def _cut(counts: Counts, amount: float, order: list[int]) -> int:
    """Take away up to `amount`, in order; returns how much was there."""
    taken = 0
    for g in order:
        here = int(max(0, min(counts[g], amount - taken)))
        counts[g] -= here
        taken += here
    return taken


class _Kind:
    """The GPUs of one kind in one region."""

    def __init__(
        self, problem: ScalingProblem, counts: Counts, r: int, g: int, regional_room: float
    ) -> None:
        self.p, self.r, self.g = problem, r, g
        now = problem.current[:, r, g]
        self.starts = np.maximum(counts - now, 0)
        self.stops = np.maximum(now - counts, 0)
        self.spot = problem.spot[:, r, g].copy()
        self.size = problem.gpus_per_instance[:, g]
        self.room = min(float(problem.quota[r, g] - problem.held[r, g]), regional_room)
        self.more = 0
        self.acquire = problem.acquisition_cost[:, r, g]
        self.load = problem.redeploy_cost[:, r, g]
        dear = float(problem.donated_hourly[:, r, g].max()) > 0
        self.gives_back = problem.scale_in == "release" or (problem.scale_in == "either" and dear)
        self.may_return = problem.scale_in != "donate"

    def settle(self, moves: Moves) -> int:
        """Add the moves of this kind; returns by how many GPUs more are held."""
        self.moves = moves
        self._reclaim()
        loads = np.isfinite(self.load)
        gain = np.where(loads, self.acquire - np.where(loads, self.load, 0.0), -np.inf)
        order = [int(i) for i in np.argsort(-gain, kind="stable")]
        for i in order:
            if gain[i] >= 0:
                self._load(i)
        if self.gives_back:
            self._give_back(np.inf)
        for i in order[::-1]:
            self._acquire(i)
        for i in order:
            if np.isfinite(self.load[i]):
                self._load(i)
        moves.donated[0, :, self.r, self.g] += self.stops
        return self.more

    def _reclaim(self) -> None:
        own = np.minimum(self.starts, self.spot)
        own = np.where(np.isfinite(self.p.reclaim_cost[:, self.r, self.g]), own, 0)
        self.moves.reclaimed[0, :, self.r, self.g] = own
        self.starts -= own
        self.spot -= own

    def _load(self, new: int) -> None:
        others = [i for i in range(len(self.size)) if i != new and self.size[i] == self.size[new]]
        for donated in (False, True):
            table = self.moves.converted if donated else self.moves.withdrawn
            left = self.spot if donated else self.stops
            for old in others:
                taken = min(int(self.starts[new]), int(left[old]))
                left[old] -= taken
                self.starts[new] -= taken
                table[0, old, self.r, self.g] += taken
                self.moves.loaded[0, new, self.r, self.g] += taken

    def _give_back(self, gpus: float) -> None:
        """Give back what is free until so many GPUs are."""
        pairs = [(self.stops, self.moves.released)]
        if self.p.scale_in == "either" or gpus < np.inf:
            pairs.append((self.spot, self.moves.returned))
        freed = 0
        for left, table in pairs:
            for i in range(len(self.size)):
                needed = np.ceil((gpus - freed) / self.size[i]) if gpus < np.inf else left[i]
                given = int(max(0, min(left[i], needed)))
                left[i] -= given
                table[0, i, self.r, self.g] += given
                freed += given * int(self.size[i])
        self.room += freed
        self.more -= freed

    def _acquire(self, i: int) -> None:
        if not np.isfinite(self.acquire[i]) or not self.starts[i]:
            return
        needed = int(self.starts[i] * self.size[i])
        if needed > self.room and self.may_return:
            self._give_back(needed - self.room)
        got = self.starts[i]
        if np.isfinite(self.room):
            got = min(got, max(0, int(self.room // self.size[i])))
        self.moves.acquired[0, i, self.r, self.g] += got
        self.starts[i] -= got
        self.room -= got * self.size[i]
        self.more += int(got * self.size[i])
