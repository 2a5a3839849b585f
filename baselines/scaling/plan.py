"""A plan: what to do with instances now, what it costs, and what it cannot do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from baselines.scaling.moves import Counts, Moves, Outcome, matched, outcome
from baselines.scaling.problem import ScalingProblem

Status = Literal["optimal", "time_limit", "heuristic"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """The answer to a `ScalingProblem`; counts are those of the first period, which is applied.

    `acquisitions`, `reclaims`, `donations`, `releases` and `returns` are (M, R, G) instances,
    `redeployments` and `conversions` (M, M, R, G) by old and new model. For every model, region and
    GPU `targets = current + acquisitions + reclaims + redeployments and conversions in -
    redeployments out - donations - releases`.
    """

    problem: ScalingProblem
    moves: Moves
    """(P, M, R, G) moves of all periods."""
    formulation: str
    status: Status
    """`optimal`: within the gap that was asked for. `time_limit`: the best that was found when time
    ran out. `heuristic`: from the greedy plan or the rounded relaxation."""
    objective: float
    """What was minimised last, in units of the formulation (dollars, but for `as_released`)."""
    bound: float
    """No plan with as little broken and as little shortfall has a smaller objective; NaN if
    unknown."""
    gap: float
    """`(objective - bound) / |objective|`, where a constant of the formulation is left out of both;
    NaN if unknown."""
    seconds: float
    """Wall time of solving."""
    wanted: Counts
    """(M, R, G) counts that the formulation asked for, which the rules may cut to `targets`."""
    note: str = ""
    """What kept the solver from the optimum, if anything did."""

    @cached_property
    def outcome(self) -> Outcome:
        """What the plan leads to in each period."""
        return outcome(self.problem, self.moves)

    @property
    def targets(self) -> Counts:
        """(M, R, G) instances after the moves, those that still start included."""
        first = self.moves.started[0] - self.moves.stopped[0]
        return np.asarray(self.problem.current + first)

    @property
    def change(self) -> Counts:
        """(M, R, G) targets less what serves now; the paper's delta."""
        return np.asarray(self.targets - self.problem.current)

    @property
    def acquisitions(self) -> Counts:
        """(M, R, G) instances on new VMs."""
        return self.moves.acquired[0]

    @property
    def reclaims(self) -> Counts:
        """(M, R, G) donated instances that serve their own model again."""
        return self.moves.reclaimed[0]

    @property
    def donations(self) -> Counts:
        """(M, R, G) instances given to the spot market."""
        return self.moves.donated[0]

    @property
    def releases(self) -> Counts:
        """(M, R, G) serving instances whose VM is given back."""
        return self.moves.released[0]

    @property
    def returns(self) -> Counts:
        """(M, R, G) donated instances whose VM is given back."""
        return self.moves.returned[0]

    @cached_property
    def _matched(self) -> tuple[Counts, Counts]:
        return matched(self.problem, self.moves)

    @property
    def redeployments(self) -> Counts:
        """(M, M, R, G) serving instances that get another model: old, new."""
        return self._matched[0]

    @property
    def conversions(self) -> Counts:
        """(M, M, R, G) donated instances that get another model: old, new."""
        return self._matched[1]

    @property
    def serving(self) -> Counts:
        """(P, M, R, G) instances that serve in each period."""
        return self.outcome.serving

    @property
    def shortfall(self) -> npt.NDArray[np.float64]:
        """(P, M) tokens/s of all regions together that nobody covers."""
        return self.outcome.shortfall

    @property
    def local_shortfall(self) -> npt.NDArray[np.float64]:
        """(P, M, R) tokens/s that a region should cover itself and does not."""
        return self.outcome.local_shortfall

    @property
    def dollars(self) -> dict[str, float]:
        """Parts of the cost over all periods, whatever the formulation minimised."""
        return self.outcome.dollars

    @property
    def cost(self) -> float:
        """Dollars over all periods."""
        return sum(self.dollars.values())

    @property
    def covers_demand(self) -> bool:
        """Whether nothing falls short of the shares that were asked for."""
        return not (self.shortfall.any() or self.local_shortfall.any())

    @property
    def keeps_rules(self) -> bool:
        """Whether floors, ceilings, quotas and limits of change hold."""
        return not any(self.outcome.broken.values())

    def message(self) -> str:
        """In words: how good the plan is, and what it does not do."""
        p = self.problem
        gap = "" if math.isnan(self.gap) else f", gap {100 * self.gap:.2g} %"
        words = [f"{self.formulation}: {self.status} in {self.seconds:.2f} s{gap}"]
        words += [self.note] if self.note else []
        words += [f"{count} {rule}" for rule, count in self.outcome.broken.items() if count]
        for i in map(int, np.flatnonzero(self.shortfall.max(axis=0))):
            lack = self.shortfall[:, i].max()
            need = p.global_need[:, i].max()
            words.append(f"{p.models[i]} lacks {lack:,.0f} of {need:,.0f} tokens/s in all")
        for i, r in np.argwhere(self.local_shortfall.max(axis=0)):
            lack, need = self.local_shortfall[:, i, r].max(), p.local_need[:, i, r].max()
            words.append(
                f"{p.models[i]} in {p.regions[r]} lacks {lack:,.0f} of {need:,.0f} tokens/s that "
                "it should cover itself"
            )
        return "; ".join(words)
