"""Plans of several periods against dynamic programming over all counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.scaling import ScalingProblem, plan_greedily, solve

_MOST = 4
Score = tuple[float, float, float, float]


@st.composite
def horizons(draw: st.DrawFn) -> ScalingProblem:
    """One model, region and GPU over two or three periods."""
    periods = draw(st.integers(2, 3))
    demand = draw(st.lists(st.integers(0, 3), min_size=periods, max_size=periods))
    price = float(draw(st.integers(1, 9)))
    return ScalingProblem(
        models=["a"],
        regions=["r"],
        gpus=["g"],
        current=draw(st.integers(0, 2)),
        spot=draw(st.integers(0, 1)),
        demand=np.array(demand, dtype=float).reshape(periods, 1, 1, 1) * 90.0,
        throughput=100.0,
        price=price,
        spot_price=0.3 * price,
        donated_price=draw(st.sampled_from([0.3, 0.6, 1.0])) * price,
        acquisition_s=draw(st.sampled_from([300.0, 3000.0, 9000.0])),
        scale_in_cost=draw(st.sampled_from([0.0, 0.4])),
        scale_in=draw(st.sampled_from(["donate", "release", "either"])),
        quota=draw(st.sampled_from([2.0, 3.0, math.inf])),
        floor=draw(st.integers(0, 1)),
        max_change=draw(st.sampled_from([1.0, math.inf])),
        acquisition_lead=draw(st.integers(0, 1)),
        local_share=0.5,
        period_s=draw(st.sampled_from([1800.0, 3600.0])),
    )


def best_score(p: ScalingProblem) -> Score:
    """Least score by trying every move from every state, period by period."""
    start = (int(p.current[0, 0, 0]), int(p.spot[0, 0, 0]), 0)
    states: dict[tuple[int, int, int], Score] = {start: (0.0, 0.0, 0.0, 0.0)}
    hours, price = float(p.period_s[0]) / 3600.0, float(p.price[0, 0])
    acquire, reclaim = float(p.acquisition_cost[0, 0, 0]), float(p.reclaim_cost[0, 0, 0])
    for t in range(p.periods):
        found: dict[tuple[int, int, int], Score] = {}
        for (n, s, coming), before in states.items():
            useful = t + p.acquisition_lead < p.periods
            ranges = (
                range(_MOST if useful else 1),
                range(s + 1),
                range((n if p.scale_in != "release" else 0) + 1),
                range((n if p.scale_in != "donate" else 0) + 1),
                range((s if p.scale_in != "donate" else 0) + 1),
            )
            for acq, rec, don, rel, ret in itertools.product(*ranges):
                if don + rel > n or rec + ret > s:
                    continue
                if max(acq + rec, don + rel) > p.max_change[0, 0]:
                    continue
                arrived, waiting = (coming, acq) if p.acquisition_lead else (acq, 0)
                count, spot = n + arrived + rec - don - rel, s + don - rec - ret
                broken = max(0.0, p.floor[0, 0] - count)
                broken += max(0.0, count + spot + waiting - p.quota[0, 0])
                lack = max(0.0, p.global_need[t, 0] - 100.0 * count) * hours
                local = max(0.0, p.local_need[t, 0, 0] - 100.0 * count) * hours
                dollars = hours * (price * count + float(p.donated_hourly[0, 0, 0]) * spot)
                dollars += acq * acquire + rec * reclaim
                dollars += (don + rel) * float(p.scale_in_cost[0, 0, 0])
                score = (before[0] + broken, before[1] + lack, before[2] + local)
                total = (*map(float, score), round(before[3] + dollars, 9))
                key = (count, spot, waiting)
                if key not in found or total < found[key]:
                    found[key] = total
        states = found
    return min(states.values())


@settings(max_examples=20, deadline=None)
@given(horizons())
def test_equals_dynamic_programming(p: ScalingProblem) -> None:
    expected = best_score(p)
    plan = solve(p, gap=0.0)
    assert plan.outcome.score == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert plan_greedily(p).outcome.score >= tuple(np.array(expected) - 1e-5)
