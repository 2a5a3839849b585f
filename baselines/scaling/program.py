"""The integer program: columns, rows and costs for HiGHS."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, vstack

from baselines.scaling.draft import Draft, Floats, Places
from baselines.scaling.formulation import (
    RELEASED_NET_COST,
    RELEASED_START_COST,
    Formulation,
)
from baselines.scaling.moves import Moves
from baselines.scaling.problem import ScalingProblem
from baselines.scaling.rows import Slack, conservation, coverage, rules

LEVELS = ("rules", "shortfall", "local_shortfall")
"""What is kept at its least before dollars count, in this order."""


@dataclass(frozen=True, eq=False)
class Program:
    """Minimise `cost`, or one of the levels, over columns within rows.

    Coverage rows are in units of the model's largest throughput and costs in units of the largest,
    so that nothing depends on the units of the problem.
    """

    cost: Floats
    """(columns,) in units of `unit`."""
    unit: float
    constant: float
    """What the objective counts less for instances that are there already."""
    levels: dict[str, Floats]
    """(columns,) weights of the slack of each level; slack is 0 unless its level is open."""
    needs: dict[str, float]
    """What a level would be if nothing were covered; gaps of levels are relative to it."""
    lower: Floats
    upper: Floats
    integer: npt.NDArray[np.uint8]
    rows: csr_array
    row_lower: Floats
    row_upper: Floats
    places: dict[str, Places]
    """(P, M, R, G) column of each count, -1 where there is none."""

    def objective(self, level: str) -> Floats:
        """(columns,) weights of a level, and all its need as a constant (the first column is 1)."""
        weights = self.levels[level].copy()
        weights[0] = self.needs[level]
        return weights

    def counts(self, solution: Floats, name: str) -> Floats:
        """(P, M, R, G) values of a count."""
        at = self.places[name]
        return np.where(at >= 0, solution[np.maximum(at, 0)], 0.0)

    def moves(self, solution: Floats) -> Moves:
        """What the solution does, in whole instances."""
        found = {
            field.name: np.rint(self.counts(solution, field.name)).astype(np.int64)
            for field in fields(Moves)
        }
        return Moves(**found)


def build(problem: ScalingProblem, form: Formulation) -> Program:
    """The integer program of a problem in a formulation."""
    draft = Draft()
    draft.column(True, 1.0)
    draft.lower[0][:] = 1.0
    places = _columns(problem, form, draft)
    conservation(problem, form, draft, places)
    slack: Slack = {level: [] for level in LEVELS}
    coverage(problem, form, draft, places, slack)
    rules(problem, form, draft, places, slack)
    cost, constant = _costs(problem, form, places, draft.columns)
    levels, needs = {}, {}
    for level, parts in slack.items():
        weights = np.zeros(draft.columns)
        for at, factor, _ in parts:
            weights[at[at >= 0]] = np.broadcast_to(factor, at.shape)[at >= 0]
        most = float(weights.max()) or 1.0
        levels[level] = weights / most
        needs[level] = sum(float((factor * need).sum()) for _, factor, need in parts) / most
    upper = np.concatenate(draft.upper)
    for weights in levels.values():
        upper[weights > 0] = 0.0
    unit = float(np.abs(cost).max()) or 1.0
    return Program(
        cost=cost / unit,
        unit=unit,
        constant=constant,
        levels=levels,
        needs=needs,
        lower=np.concatenate(draft.lower),
        upper=upper,
        integer=np.concatenate(draft.integer),
        rows=draft.matrix(),
        row_lower=np.concatenate([low for low, _ in draft.bounds]),
        row_upper=np.concatenate([high for _, high in draft.bounds]),
        places=places,
    )


def opened(program: Program, level: str) -> Program:
    """The program in which the slack of the level, and of all that come after it, is free."""
    upper = program.upper.copy()
    for name in LEVELS[LEVELS.index(level) :]:
        upper[program.levels[name] > 0] = np.inf
    return replace(program, upper=upper)


def narrowed(program: Program, solution: Floats) -> Program:
    """The program in which each count is one of the two whole numbers beside a given solution."""
    at = program.places["serving"]
    at = at[at >= 0]
    lower, upper = program.lower.copy(), program.upper.copy()
    lower[at], upper[at] = np.floor(solution[at] + 1e-6), np.ceil(solution[at] - 1e-6)
    return replace(program, lower=lower, upper=upper)


def held_at(program: Program, level: str, value: float) -> Program:
    """The program in which the level may be no worse than `value`."""
    weights = program.levels[level]
    extra = csr_array(weights[None, :])
    limit = value + 1e-6 * max(1.0, abs(value))
    return replace(
        program,
        rows=csr_array(vstack([program.rows, extra])),
        row_lower=np.append(program.row_lower, -np.inf),
        row_upper=np.append(program.row_upper, limit),
    )


def _columns(p: ScalingProblem, form: Formulation, draft: Draft) -> dict[str, Places]:
    shape = (p.periods, *p.shape)
    runs = np.broadcast_to(p.runs, shape)
    first = np.zeros(shape, dtype=bool)
    first[0] = True
    stoppable = runs & (~first | (p.current > 0))
    donates, releases = p.scale_in != "release", p.scale_in != "donate"
    donated = runs & (p.spot > 0) if not donates else runs & (~first | (p.spot > 0))

    def in_time(lead: int) -> Any:
        return (np.arange(p.periods) + lead < p.periods)[:, None, None, None]

    # A GPU can change its model where another model takes as many of them.
    alike = p.gpus_per_instance[:, None, :] == p.gpus_per_instance[None]
    alike &= ~np.eye(len(p.models), dtype=bool)[:, :, None]
    loads = p.runs & np.isfinite(p.redeploy_cost)
    given = np.einsum("ijg,jrg->irg", alike, loads) > 0
    got = loads & (np.einsum("ijg,jrg->irg", alike, p.runs) > 0)
    allowed = {
        "acquired": runs & np.isfinite(p.acquisition_cost) & in_time(p.acquisition_lead),
        "reclaimed": donated & np.isfinite(p.reclaim_cost) & in_time(p.reclaim_lead),
        "loaded": got & in_time(p.redeploy_lead),
        "withdrawn": stoppable & given & in_time(p.redeploy_lead),
        "converted": donated & given & in_time(p.redeploy_lead),
        "donated": stoppable & donates,
        "released": stoppable & releases,
        "returned": donated & releases,
    }
    if not form.moves:
        allowed = {name: np.zeros(shape, dtype=bool) for name in allowed}
        allowed |= {"acquired": runs, "released": stoppable}
    places = {"serving": draft.column(runs, _most(p, form), integer=True)}
    for name, mask in allowed.items():
        places[name] = draft.column(mask, integer=True)
    # Whole numbers follow from the moves.
    places["spot"] = draft.column(np.broadcast_to(form.moves & runs, shape))
    return places


def _most(p: ScalingProblem, form: Formulation) -> Floats:
    """(P, M, R, G) instances beyond which more serve no purpose."""
    need = p.demand.max(axis=1) if not form.pooled else p.local_need
    need = need if not form.pooled else np.maximum(need, p.global_need[:, :, None])
    theta = np.where(p.throughput > 0, p.throughput, 1.0)[:, None, :]
    enough = np.ceil(need.max(axis=0)[:, :, None] / theta - 1e-9)
    there = p.current + p.arriving.sum(axis=0)
    most = np.maximum(np.maximum(enough, there), p.floor[:, :, None])
    return np.broadcast_to(most, (p.periods, *p.shape)).astype(np.float64)


def _costs(
    p: ScalingProblem, form: Formulation, places: dict[str, Places], columns: int
) -> tuple[Floats, float]:
    hours = (p.period_s / 3600.0)[:, None, None, None]
    constant = 0.0
    if form.costs == "dollars":
        each: dict[str, Any] = {
            "serving": hours * p.hourly,
            "spot": hours * p.donated_hourly,
            "acquired": p.acquisition_cost,
            "reclaimed": p.reclaim_cost,
            "loaded": p.redeploy_cost,
            "withdrawn": p.scale_in_cost,
            "donated": p.scale_in_cost,
            "released": p.scale_in_cost,
        }
    else:
        net: Floats
        start: Floats
        if form.costs == "released":
            net = np.full((p.periods, *p.shape), RELEASED_NET_COST)
            start = np.full(p.shape, RELEASED_START_COST)
        else:
            price = np.broadcast_to(p.hourly.mean(axis=1, keepdims=True), p.shape)
            delay = np.array(p.acquisition_s)
            barred = np.isinf(delay)
            delay[barred] = p.redeploy_s[barred]
            delay[np.isinf(delay)] = 0.0
            net = np.asarray(hours * price)
            start = np.asarray(price * delay / 3600.0)
        each = {"serving": net, "acquired": start}
        constant = float((net * p.current).sum())
    cost = np.zeros(columns)
    for name, value in each.items():
        at = places[name]
        cost[at[at >= 0]] = np.broadcast_to(value, at.shape)[at >= 0]
    return cost, constant
