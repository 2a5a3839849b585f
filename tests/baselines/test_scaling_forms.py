"""SageServe's program as released and as published, the demand it is given, and bad problems."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from baselines.scaling import (
    AS_PUBLISHED,
    AS_RELEASED,
    CORRECTED,
    RELEASED_THROUGHPUT,
    ScalingProblem,
    planning_demand,
    realise,
    solve,
)

MODELS, REGIONS = ["A", "B", "C", "D"], ["westus", "centralus", "eastus"]


def fleet(seed: int, **changes: Any) -> ScalingProblem:
    """Four models in three regions, 20 instances each, as in SageServe's runs."""
    rng = np.random.default_rng(seed)
    theta = np.array([[RELEASED_THROUGHPUT[name]] for name in MODELS])
    usual: dict[str, Any] = {
        "models": MODELS,
        "regions": REGIONS,
        "gpus": ["a100-vm"],
        "current": rng.integers(0, 21, (4, 3, 1)),
        "demand": rng.uniform(0.0, 20.0, (4, 4, 3)) * np.minimum(theta, 4_000.0),
        "throughput": theta,
        "price": 98.32,
    }
    return ScalingProblem(**usual | changes)


@pytest.mark.parametrize("seed", range(8))
def test_as_released_every_cell_is_rounded_up_alone(seed: int) -> None:
    # Measured in the released code: 480 of 480 cells (its cells do not interact).
    p = fleet(seed)
    plan = solve(p, form="as_released", gap=0.0)
    peak = p.demand[0].max(axis=0)
    assert np.array_equal(plan.wanted[:, :, 0], np.ceil(peak / p.throughput))
    rises = np.maximum(plan.wanted - p.current, 0).sum()
    net = (plan.wanted - p.current).sum()
    assert plan.objective == pytest.approx(10.0 * net + 150.0 * rises)


def test_as_released_one_instance_is_enough_for_c_and_d() -> None:
    assert RELEASED_THROUGHPUT["A"] == pytest.approx(3_758, abs=1)
    assert RELEASED_THROUGHPUT["B"] == pytest.approx(2_699, abs=1)
    p = fleet(0, demand=np.full((4, 3), 700_000.0), floor=2)
    plan = solve(p, form=AS_RELEASED)
    assert (plan.wanted[2:] == 1).all() and (plan.targets[2:] == 2).all()


@pytest.mark.parametrize("seed", range(4))
def test_as_published_needs_no_more_than_as_released(seed: int) -> None:
    p = fleet(seed)
    published = solve(p, form="as_published", gap=0.0)
    released = solve(p, form="as_released", gap=0.0)
    assert published.wanted.sum() <= released.wanted.sum()
    assert published.covers_demand and released.covers_demand
    capacity = published.wanted[:, :, 0] * p.throughput
    assert (capacity >= p.local_need[0] - 1e-6).all()
    assert (capacity.sum(axis=1) >= p.global_need[0] - 1e-6).all()


def test_as_published_counts_net_vms_at_the_mean_price_and_starts_on_top() -> None:
    p = ScalingProblem(
        models=["a"],
        regions=["r", "s"],
        gpus=["g"],
        current=[[[1], [3]]],
        demand=[[200.0, 100.0]],
        throughput=100.0,
        price=[[10.0], [30.0]],
        acquisition_s=1800.0,
        local_share=1.0,
    )
    plan = solve(p, form=AS_PUBLISHED)
    assert plan.wanted.ravel().tolist() == [2, 1]
    # One VM fewer at 20 dollars, one start of half an hour.
    assert plan.objective == pytest.approx(-20.0 + 10.0)


def test_unknown_quotas_are_told_after_the_plan() -> None:
    p = fleet(0, demand=np.full((4, 3), 20 * 3_000.0), quota=40, floor=1)
    asked = solve(p, form="as_published")
    # Those of the fleet beyond the quota must go as well.
    assert (asked.wanted.sum(axis=0) != asked.targets.sum(axis=0)).any()
    assert solve(p).keeps_rules


def test_each_flaw_can_be_mended_alone() -> None:
    p = fleet(3)
    mended = dataclasses.replace(AS_RELEASED, name="released, pooled", pooled=True)
    assert solve(p, form=mended).wanted.sum() <= solve(p, form=AS_RELEASED).wanted.sum()


def test_plan_of_wanted_counts_takes_spot_first() -> None:
    p = fleet(0, current=5, spot=np.array([3, 0, 0, 4])[:, None, None] * np.ones((1, 3, 1)))
    wanted = p.current + np.array([5, 3, -1, 0])[:, None, None]
    moves = realise(p, wanted)
    assert (moves.reclaimed[0, 0] == 3).all() and (moves.withdrawn[0, 2] == 1).all()
    assert (moves.converted[0, 3] == 4).all() and not moves.acquired.any()


def test_demand_of_a_forecast_path() -> None:
    path = np.arange(12.0).reshape(12, 1, 1) * np.ones((1, 4, 3))
    load, prompt = np.full((4, 3), 50.0), np.full((4, 3), 600.0)
    usual: dict[str, Any] = {"batch_load": load, "largest_prompt": prompt}
    found = planning_demand(path, 300.0, **usual, form=CORRECTED)
    assert found.shape == (1, 12, 4, 3) and found.max() == 11.0 + 5.0
    released = planning_demand(path, 300.0, **usual, form=AS_RELEASED)
    # Windows from minute 20 on, and a prompt of 600 tokens as 60 tokens a minute.
    assert released.shape == (1, 8, 4, 3) and released.min() == 4.0 + 1.0
    assert planning_demand(path, 300.0, periods=3).shape == (3, 4, 4, 3)
    with pytest.raises(ValueError, match="12 steps cannot be divided into 5"):
        planning_demand(path, 300.0, periods=5)
    with pytest.raises(ValueError, match="before the window of 'as_released'"):
        planning_demand(path[:4], 300.0, form="as_released")
    with pytest.raises(ValueError, match="models, regions"):
        planning_demand(path[:, 0], 300.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": []}, "models is empty"),
        ({"models": list("AABC")}, "a name occurs twice"),
        ({"demand": np.ones((3, 4))}, "demand has shape"),
        ({"demand": [1.0]}, "demand has 1 axes"),
        ({"demand": np.full((4, 3), np.nan)}, "demand of .* model 'A', region 'westus' is nan"),
        ({"current": -1}, "current of model 'A'.* cannot be negative"),
        ({"current": 1.5}, "give a whole number"),
        ({"throughput": np.ones(4)}, r"throughput has shape \(4,\)"),
        ({"throughput": 0.0}, "has a throughput of 0 there"),
        ({"price": math.inf}, "it must be finite"),
        ({"gpus_per_instance": 0}, "more than 0"),
        ({"local_share": 1.2}, "a share is at most 1"),
        ({"reclaim_s": 900.0}, "at most redeploy_s"),
        ({"floor": 3, "ceiling": 2}, "ceiling of model 'A', region 'westus' is 2"),
        ({"spot_price": 20.0, "donated_price": 10.0}, "acquire GPUs only to donate them"),
        ({"donated_price": 200.0}, "as if serving were cheaper"),
        ({"scale_in": "sell"}, "one of donate, release, either"),
        ({"acquisition_lead": 1}, "from 0 to 0"),
    ],
)
def test_bad_problems_are_refused_in_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fleet(0, **changes)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="time_limit_s"):
        solve(fleet(0), time_limit_s=0.0)
    with pytest.raises(ValueError, match="gap"):
        solve(fleet(0), gap=1.0)
    with pytest.raises(ValueError, match="as_released, as_published, corrected"):
        solve(fleet(0), form="as_dreamt")


def test_arrays_of_a_problem_cannot_be_written_to() -> None:
    p = fleet(0)
    with pytest.raises(ValueError, match="read-only"):
        p.current[0, 0, 0] = 3
