"""The integer program: columns, rows and costs for HiGHS."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from baselines.scaling.formulation import (
    RELEASED_NET_COST,
    RELEASED_START_COST,
    Formulation,
)
from baselines.scaling.moves import Moves
from baselines.scaling.problem import ScalingProblem

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
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
    lower: Floats
    upper: Floats
    integer: npt.NDArray[np.uint8]
    rows: csr_array
    row_lower: Floats
    row_upper: Floats
    places: dict[str, Places]
    """(P, M, R, G) column of each count, -1 where there is none."""

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


class _Draft:
    """Columns and rows as they are collected."""

    def __init__(self) -> None:
        self.lower: list[Floats] = []
        self.upper: list[Floats] = []
        self.integer: list[npt.NDArray[np.uint8]] = []
        self.columns = 0
        self.entries: list[tuple[Places, Places, Floats]] = []
        self.bounds: list[tuple[Floats, Floats]] = []
        self.row_count = 0

    def column(self, allowed: Any, upper: Any = np.inf, *, integer: bool = False) -> Places:
        """New columns from 0 to `upper` where allowed."""
        allowed = np.asarray(allowed, dtype=bool)
        places = np.full(allowed.shape, -1, dtype=np.int64)
        count = int(allowed.sum())
        places[allowed] = self.columns + np.arange(count)
        self.columns += count
        self.lower.append(np.zeros(count))
        self.upper.append(np.broadcast_to(upper, allowed.shape)[allowed].astype(np.float64))
        self.integer.append(np.full(count, integer, dtype=np.uint8))
        return places

    def row(self, terms: list[tuple[Places, Any]], lower: Any, upper: Any) -> None:
        """Rows `lower <= sum(factor * column) <= upper`; the last axis of a term is summed."""
        shape = terms[0][0].shape[:-1]
        count = int(np.prod(shape))
        here = self.row_count + np.arange(count)
        for places, factor in terms:
            flat = places.reshape(count, -1)
            factors = np.broadcast_to(factor, places.shape).reshape(count, -1)
            used = flat >= 0
            rows = np.broadcast_to(here[:, None], flat.shape)
            self.entries.append((rows[used], flat[used], factors[used].astype(np.float64)))
        low, high = (np.broadcast_to(v, shape).reshape(-1).astype(float) for v in (lower, upper))
        self.bounds.append((low, high))
        self.row_count += count


def build(problem: ScalingProblem, form: Formulation) -> Program:
    """The integer program of a problem in a formulation."""
    draft = _Draft()
    places = _columns(problem, form, draft)
    _conservation(problem, form, draft, places)
    slack: dict[str, list[tuple[Places, Any]]] = {level: [] for level in LEVELS}
    _coverage(problem, form, draft, places, slack)
    _rules(problem, form, draft, places, slack)
    cost, constant = _costs(problem, form, places, draft.columns)
    levels = {}
    for level, parts in slack.items():
        weights = np.zeros(draft.columns)
        for at, factor in parts:
            weights[at[at >= 0]] = np.broadcast_to(factor, at.shape)[at >= 0]
        levels[level] = weights / (weights.max() or 1.0)
    upper = np.concatenate(draft.upper)
    for weights in levels.values():
        upper[weights > 0] = 0.0
    rows, cols, values = (np.concatenate(part) for part in zip(*draft.entries, strict=True))
    matrix = coo_array((values, (rows, cols)), shape=(draft.row_count, draft.columns)).tocsr()
    unit = float(np.abs(cost).max()) or 1.0
    return Program(
        cost=cost / unit,
        unit=unit,
        constant=constant,
        levels=levels,
        lower=np.concatenate(draft.lower),
        upper=upper,
        integer=np.concatenate(draft.integer),
        rows=matrix,
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


def held_at(program: Program, level: str, value: float) -> Program:
    """The program in which the level may be no worse than `value`."""
    weights = program.levels[level]
    extra = csr_array(weights[None, :])
    limit = value + 1e-6 * max(1.0, abs(value))
    from scipy.sparse import vstack

    return replace(
        program,
        rows=csr_array(vstack([program.rows, extra])),
        row_lower=np.append(program.row_lower, -np.inf),
        row_upper=np.append(program.row_upper, limit),
    )


def _columns(p: ScalingProblem, form: Formulation, draft: _Draft) -> dict[str, Places]:
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


def _conservation(
    p: ScalingProblem, form: Formulation, draft: _Draft, places: dict[str, Places]
) -> None:
    def before(name: str) -> Places:
        return np.concatenate([np.full_like(places[name][:1], -1), places[name][:-1]])

    def begun(name: str, lead: int) -> Places:
        late = np.full_like(places[name], -1)
        late[lead:] = places[name][: p.periods - lead]
        return late

    def at_start(counts: Any) -> Any:
        start = np.zeros((p.periods, *p.shape))
        start[0] = counts
        return start

    def summed(*parts: tuple[Places, int]) -> list[tuple[Places, Any]]:
        return [(at[..., None], sign) for at, sign in parts]

    starts = [(begun("acquired", p.acquisition_lead), -1), (begun("reclaimed", p.reclaim_lead), -1)]
    starts.append((begun("loaded", p.redeploy_lead), -1))
    stops = [(places[name], 1) for name in ("withdrawn", "donated", "released")]
    there = at_start(p.current) + p.arriving
    serving = [(places["serving"], 1), (before("serving"), -1)]
    draft.row(summed(*serving, *starts, *stops), there, there)
    draft.row(summed(*stops, (before("serving"), -1)), -np.inf, at_start(p.current))
    if not form.moves:
        return
    left = [(places[name], 1) for name in ("reclaimed", "converted", "returned")]
    spot = [(places["spot"], 1), (before("spot"), -1), (places["donated"], -1)]
    draft.row(summed(*spot, *left), at_start(p.spot), at_start(p.spot))
    draft.row(summed(*left, (before("spot"), -1)), -np.inf, at_start(p.spot))
    for size in np.unique(p.gpus_per_instance):
        mine = np.broadcast_to(p.size == size, (p.periods, *p.shape))
        terms = []
        for name, sign in (("loaded", 1), ("withdrawn", -1), ("converted", -1)):
            of_size = np.where(mine, places[name], -1)
            terms.append((np.moveaxis(of_size, 1, -1), sign))
        draft.row(terms, 0.0, 0.0)


def _coverage(
    p: ScalingProblem,
    form: Formulation,
    draft: _Draft,
    places: dict[str, Places],
    slack: dict[str, list[tuple[Places, Any]]],
) -> None:
    scale = np.where(p.throughput.max(axis=1) > 0, p.throughput.max(axis=1), 1.0)
    factor = np.broadcast_to((p.throughput / scale[:, None])[:, None, :], (p.periods, *p.shape))
    hours = p.period_s / 3600.0
    serving = places["serving"]
    local = p.local_need if form.pooled else p.demand.max(axis=1)
    short = draft.column(local > 0)
    draft.row([(serving, factor), (short[..., None], 1)], local / scale[:, None], np.inf)
    weight = hours[:, None, None] * (p.weight * scale)[:, None]
    slack["local_shortfall"].append((short, weight))
    if form.pooled:
        need = p.global_need
        short = draft.column(need > 0)
        flat = (*serving.shape[:2], -1)
        terms = [(serving.reshape(flat), factor.reshape(flat)), (short[..., None], 1)]
        draft.row(terms, need / scale, np.inf)
        slack["shortfall"].append((short, hours[:, None] * p.weight * scale))


def _rules(
    p: ScalingProblem,
    form: Formulation,
    draft: _Draft,
    places: dict[str, Places],
    slack: dict[str, list[tuple[Places, Any]]],
) -> None:
    pools = (p.periods, *p.shape[:2])
    if form.limits:
        lack = draft.column(np.broadcast_to(p.floor > 0, pools))
        excess = draft.column(np.broadcast_to(np.isfinite(p.ceiling), pools))
        draft.row([(places["serving"], 1), (lack[..., None], 1)], p.floor, np.inf)
        draft.row([(places["serving"], 1), (excess[..., None], -1)], -np.inf, p.ceiling)
        slack["rules"] += [(lack, 1.0), (excess, 1.0)]
        if np.isfinite(p.max_change).any():
            for names in (("acquired", "reclaimed", "loaded"), ("withdrawn", "donated", "released")):
                draft.row([(places[name], 1) for name in names], -np.inf, p.max_change)
    if form.quotas and (np.isfinite(p.quota).any() or np.isfinite(p.region_quota).any()):
        held = draft.column(np.ones((p.periods, *p.shape[1:]), dtype=bool))
        earlier = np.concatenate([np.full_like(held[:1], -1), held[:-1]])
        size = np.moveaxis(np.broadcast_to(p.size, (p.periods, *p.shape)), 1, -1)
        terms: list[tuple[Places, Any]] = [(held[..., None], 1), (earlier[..., None], -1)]
        for name, sign in (("acquired", -1), ("released", 1), ("returned", 1)):
            terms.append((np.moveaxis(places[name], 1, -1), sign * size))
        start = np.zeros(held.shape)
        start[0] = p.held
        draft.row(terms, start, start)
        excess = draft.column(np.broadcast_to(np.isfinite(p.quota), held.shape))
        draft.row([(held[..., None], 1), (excess[..., None], -1)], -np.inf, p.quota)
        regional = draft.column(np.broadcast_to(np.isfinite(p.region_quota), held.shape[:2]))
        draft.row([(held, 1), (regional[..., None], -1)], -np.inf, p.region_quota)
        slack["rules"] += [(excess, 1.0), (regional, 1.0)]


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
        if form.costs == "released":
            net, start = np.full(p.shape, RELEASED_NET_COST), np.full(p.shape, RELEASED_START_COST)
            net = np.broadcast_to(net, (p.periods, *p.shape))
        else:
            price = np.broadcast_to(p.hourly.mean(axis=1, keepdims=True), p.shape)
            seconds = np.where(np.isfinite(p.acquisition_s), p.acquisition_s, p.redeploy_s)
            seconds = np.where(np.isfinite(seconds), seconds, 0.0)
            net, start = hours * price, price * seconds / 3600.0
        each = {"serving": net, "acquired": start}
        constant = float((net * p.current).sum())
    cost = np.zeros(columns)
    for name, value in each.items():
        at = places[name]
        cost[at[at >= 0]] = np.broadcast_to(value, at.shape)[at >= 0]
    return cost, constant
