"""Every plan of a tiny problem of two models and one period, tried one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from baselines.scaling import ScalingProblem

_MOST = 2
"""Most VMs acquired by a model in a cell."""


def best_score(p: ScalingProblem) -> tuple[float, float, float, float]:
    """Least (broken rules, shortfall, local shortfall, dollars), in this order of importance.

    Two models with one size of instance; shares, floors, quotas and limits of change as in the
    problem. Redeployments are tried by their pairs, not by what leaves and arrives.
    """
    cells = list(itertools.product(range(len(p.regions)), range(len(p.gpus))))
    tables = [_cell(p, r, g) for r, g in cells]
    rows = tables[0]
    for table in tables[1:]:
        count, other = len(rows["dollars"]), len(table["dollars"])
        a, b = np.repeat(np.arange(count), other), np.tile(np.arange(other), count)
        merged = {"dollars": rows["dollars"][a] + table["dollars"][b]}
        for key in ("counts", "starts", "stops", "held"):
            merged[key] = np.concatenate([rows[key][a], table[key][b]], axis=-1)
        rows = merged
    shape = (-1, 2, len(p.regions), len(p.gpus))

    def by_pool(key: str) -> Any:
        return rows[key].reshape(shape).sum(axis=3)

    counts = rows["counts"].reshape(shape)
    held = rows["held"].reshape(-1, len(p.regions), len(p.gpus))
    change = np.maximum(by_pool("starts"), by_pool("stops"))
    allowed = (change <= p.max_change).all(axis=(1, 2))
    pools = counts.sum(axis=3)

    def over(value: Any, limit: Any) -> Any:
        return np.maximum(value - limit, 0.0).reshape(len(value), -1).sum(axis=1)

    broken = over(p.floor[None] - pools, 0.0) + over(pools, p.ceiling)
    broken = broken + over(held, p.quota) + over(held.sum(axis=2), p.region_quota)
    capacity = (counts * p.throughput[:, None, :]).sum(axis=3)
    hours = float(p.period_s[0]) / 3600.0
    short = over((p.global_need[0] - capacity.sum(axis=2)) * p.weight, 0.0) * hours
    local = over((p.local_need[0] - capacity) * p.weight[:, None], 0.0) * hours
    scores = np.stack([broken, short, local, rows["dollars"]], axis=1)[allowed]
    scores[:, 1:3][scores[:, 1:3] < 1e-6] = 0.0
    for level in range(4):
        scores = scores[scores[:, level] <= scores[:, level].min() + 1e-9]
    found = scores[0]
    return float(found[0]), float(found[1]), float(found[2]), float(found[3])


def _cell(p: ScalingProblem, r: int, g: int) -> dict[str, Any]:
    """Every way to move the instances of one region and GPU; the cheapest of those alike."""
    at = (slice(None), r, g)
    n, s = p.current[at], p.spot[at]
    donates, releases = p.scale_in != "release", p.scale_in != "donate"
    same_size = p.gpus_per_instance[0, g] == p.gpus_per_instance[1, g]
    runs = p.throughput[:, g] > 0

    def upto(most: Any, allowed: Any = True) -> Any:
        return range((int(most) if allowed else 0) + 1)

    loads = np.isfinite(p.redeploy_s[at]) & runs & same_size
    acquires = np.isfinite(p.acquisition_s[at]) & runs
    reclaims = np.isfinite(p.reclaim_s[at])
    tried = {
        "acq0": upto(_MOST, acquires[0]),
        "acq1": upto(_MOST, acquires[1]),
        "rec0": upto(s[0], reclaims[0]),
        "rec1": upto(s[1], reclaims[1]),
        "live01": upto(n[0], loads[1]),
        "live10": upto(n[1], loads[0]),
        "spot01": upto(s[0], loads[1]),
        "spot10": upto(s[1], loads[0]),
        "don0": upto(n[0], donates),
        "don1": upto(n[1], donates),
        "rel0": upto(n[0], releases),
        "rel1": upto(n[1], releases),
        "ret0": upto(s[0], releases),
        "ret1": upto(s[1], releases),
    }
    grid = np.array(list(itertools.product(*tried.values())))
    m = {name: grid[:, i] for i, name in enumerate(tried)}
    fine = np.ones(len(grid), dtype=bool)
    for i, j in ((0, 1), (1, 0)):
        fine &= m[f"live{i}{j}"] + m[f"don{i}"] + m[f"rel{i}"] <= n[i]
        fine &= m[f"rec{i}"] + m[f"spot{i}{j}"] + m[f"ret{i}"] <= s[i]
    m = {name: values[fine] for name, values in m.items()}
    starts, stops, spot = [], [], []
    dollars = np.zeros(int(fine.sum()))
    hours = float(p.period_s[0]) / 3600.0

    def each(table: Any, i: int) -> float:
        return float(table[i, r, g]) if np.isfinite(table[i, r, g]) else 0.0

    for i, j in ((0, 1), (1, 0)):
        loaded = m[f"live{j}{i}"] + m[f"spot{j}{i}"]
        starts.append(m[f"acq{i}"] + m[f"rec{i}"] + loaded)
        stops.append(m[f"live{i}{j}"] + m[f"don{i}"] + m[f"rel{i}"])
        spot.append(s[i] + m[f"don{i}"] - m[f"rec{i}"] - m[f"spot{i}{j}"] - m[f"ret{i}"])
        dollars += m[f"acq{i}"] * each(p.acquisition_cost, i)
        dollars += m[f"rec{i}"] * each(p.reclaim_cost, i) + loaded * each(p.redeploy_cost, i)
        dollars += stops[i] * p.scale_in_cost[i, r, g]
        dollars += hours * p.hourly[i, r, g] * (n[i] + starts[i] - stops[i])
        dollars += hours * p.donated_hourly[i, r, g] * spot[i]
    counts = np.stack([n[i] + starts[i] - stops[i] for i in (0, 1)], axis=1)
    size = p.gpus_per_instance[:, g]
    held = ((counts + np.stack(spot, axis=1)) * size).sum(axis=1)
    key = np.column_stack([counts, np.stack(starts, 1), np.stack(stops, 1), held])
    order = np.argsort(dollars, kind="stable")
    _, first = np.unique(key[order], axis=0, return_index=True)
    kept = order[first]
    return {
        "counts": counts[kept][:, :, None],
        "starts": np.stack(starts, 1)[kept][:, :, None],
        "stops": np.stack(stops, 1)[kept][:, :, None],
        "held": held[kept][:, None],
        "dollars": dollars[kept],
    }
