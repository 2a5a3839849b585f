"""Rows of the integer program: conservation, coverage and rules."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from baselines.scaling.draft import Draft, Floats, Places
from baselines.scaling.formulation import Formulation
from baselines.scaling.problem import ScalingProblem

Slack: TypeAlias = dict[str, list[tuple[Places, Any, Floats]]]
"""By level: columns, their weights, and what they would be if nothing were covered."""
STARTS = ("acquired", "reclaimed", "loaded")
STOPS = ("withdrawn", "donated", "released")
_NONE = np.zeros(1)


def conservation(
    p: ScalingProblem, form: Formulation, draft: Draft, places: dict[str, Places]
) -> None:
    """Instances and donated GPUs of a period are those of the one before and what is moved."""

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
    stops = [(places[name], 1) for name in STOPS]
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


def coverage(
    p: ScalingProblem,
    form: Formulation,
    draft: Draft,
    places: dict[str, Places],
    slack: Slack,
) -> None:
    """Instances serve each region's share of its peak, and all together the peak of the sum."""
    scale = np.where(p.throughput.max(axis=1) > 0, p.throughput.max(axis=1), 1.0)
    factor = np.broadcast_to((p.throughput / scale[:, None])[:, None, :], (p.periods, *p.shape))
    hours = p.period_s / 3600.0
    serving = places["serving"]
    local = p.local_need if form.pooled else p.demand.max(axis=1)
    short = draft.column(local > 0)
    draft.row([(serving, factor), (short[..., None], 1)], local / scale[:, None], np.inf)
    weight = hours[:, None, None] * (p.weight * scale)[:, None]
    slack["local_shortfall"].append((short, weight, local / scale[:, None]))
    if form.pooled:
        need = p.global_need
        short = draft.column(need > 0)
        flat = (*serving.shape[:2], -1)
        terms = [(serving.reshape(flat), factor.reshape(flat)), (short[..., None], 1)]
        draft.row(terms, need / scale, np.inf)
        slack["shortfall"].append((short, hours[:, None] * p.weight * scale, need / scale))


def rules(
    p: ScalingProblem,
    form: Formulation,
    draft: Draft,
    places: dict[str, Places],
    slack: Slack,
) -> None:
    """Floors, ceilings, limits of change and quotas."""
    pools = (p.periods, *p.shape[:2])
    if form.limits:
        lack = draft.column(np.broadcast_to(p.floor > 0, pools))
        excess = draft.column(np.broadcast_to(np.isfinite(p.ceiling), pools))
        draft.row([(places["serving"], 1), (lack[..., None], 1)], p.floor, np.inf)
        draft.row([(places["serving"], 1), (excess[..., None], -1)], -np.inf, p.ceiling)
        slack["rules"] += [(lack, 1.0, _NONE), (excess, 1.0, _NONE)]
        if np.isfinite(p.max_change).any():
            for names in (
                ("acquired", "reclaimed", "loaded"),
                ("withdrawn", "donated", "released"),
            ):
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
        slack["rules"] += [(excess, 1.0, _NONE), (regional, 1.0, _NONE)]
