"""The integer program of instances against enumeration, its rules, and its own bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.scaling import (
    FORMULATIONS,
    Moves,
    Plan,
    ScalingProblem,
    outcome,
    plan_greedily,
    relaxed_bound,
    solve,
)
from tests.baselines.scaling_brute import best_score


def problem(**changes: Any) -> ScalingProblem:
    """One model and region, two instances of 100 tokens/s at 10 dollars an hour."""
    usual: dict[str, Any] = {
        "models": ["a"],
        "regions": ["r"],
        "gpus": ["g"],
        "current": 2,
        "demand": [[200.0]],
        "throughput": 100.0,
        "price": 10.0,
    }
    return ScalingProblem(**usual | changes)


def two(**changes: Any) -> ScalingProblem:
    """The same with a second model."""
    usual: dict[str, Any] = {"models": ["a", "b"], "demand": [[200.0], [200.0]]}
    return problem(**usual | changes)


@st.composite
def tiny(draw: st.DrawFn) -> ScalingProblem:
    """Two models in one or two cells, small enough to try every plan."""
    regions, gpus = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    shape = (2, regions, gpus)

    def table(low: int, high: int, shape: tuple[int, ...]) -> Any:
        size = math.prod(shape)
        values = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
        return np.array(values, dtype=float).reshape(shape)

    throughput = table(1, 4, (2, gpus)) * 100.0
    gpu_price = table(1, 9, (regions, gpus))
    maybe = draw(st.sampled_from([1.0, math.inf]))
    owned = draw(st.booleans())
    return ScalingProblem(
        models=["a", "b"],
        regions=["r", "s"][:regions],
        gpus=["g", "h"][:gpus],
        current=table(0, 2, shape),
        spot=table(0, 1, shape),
        demand=table(0, 5, (2, 2, regions)) * 70.0,
        throughput=throughput,
        price=gpu_price,
        spot_price=0.3 * gpu_price,
        donated_price=0.0 if owned else gpu_price * draw(st.sampled_from([0.3, 0.5, 1.0])),
        acquisition_s=math.inf if owned else 7200.0,
        redeploy_s=600.0 * draw(st.sampled_from([1.0, 20.0, math.inf])),
        gpus_per_instance=table(1, 2, (2, gpus)),
        quota=table(2, 8, (regions, gpus)) * maybe,
        floor=table(0, 1, (2, regions)),
        max_change=draw(st.sampled_from([1.0, 2.0, math.inf])),
        local_share=draw(st.sampled_from([0.0, 0.5, 1.0])),
        scale_in=draw(st.sampled_from(["donate", "release", "either"])),
        scale_in_cost=draw(st.sampled_from([0.0, 0.7])),
        weight=[1.0, draw(st.sampled_from([1.0, 3.0]))],
    )


def check_books(plan: Plan) -> None:
    """Nothing appears or vanishes, and nothing is taken from where there is nothing."""
    p, moves, found = plan.problem, plan.moves, plan.outcome
    for field in dataclasses.fields(Moves):
        assert (getattr(moves, field.name) >= 0).all()
    assert (found.serving >= 0).all() and (found.spot >= 0).all()
    assert (found.serving[:, ~p.runs] == 0).all()
    balance = p.current + plan.acquisitions + plan.reclaims - plan.donations - plan.releases
    pairs = plan.redeployments + plan.conversions
    balance = balance + pairs.sum(axis=0) - plan.redeployments.sum(axis=1)
    assert (balance == plan.targets).all()
    assert (plan.redeployments.sum(axis=1) == moves.withdrawn[0]).all()
    assert (plan.conversions.sum(axis=1) == moves.converted[0]).all()
    assert not pairs[np.arange(len(p.models)), np.arange(len(p.models))].any()
    # Every GPU that is held serves or is donated, unless it is on its way.
    if not (p.acquisition_lead or p.redeploy_lead or p.reclaim_lead):
        later = p.arriving.sum(axis=0) - np.cumsum(p.arriving, axis=0)
        held = ((found.serving + found.spot + later) * p.size).sum(axis=1)
        assert (held == found.held).all()


@settings(max_examples=30, deadline=None)
@given(tiny())
def test_equals_enumeration(p: ScalingProblem) -> None:
    plan = solve(p, gap=0.0)
    check_books(plan)
    # More acquisitions than were tried are never better here unless they are forced.
    if (plan.acquisitions <= 2).all():
        assert plan.outcome.score == pytest.approx(best_score(p), rel=1e-5, abs=1e-5)
    assert plan.status == "optimal"


@settings(max_examples=20, deadline=None)
@given(tiny())
def test_every_form_and_the_heuristics_can_be_carried_out(
    p: ScalingProblem,
) -> None:
    best = solve(p, gap=0.0)
    for plan in [plan_greedily(p), *(solve(p, form=name) for name in FORMULATIONS)]:
        check_books(plan)
        assert (plan.moves.started.sum(axis=3) <= p.max_change).all()
        assert (plan.moves.stopped.sum(axis=3) <= p.max_change).all()
        score = np.array(plan.outcome.score)
        worse = score - np.array(best.outcome.score)
        differs = np.flatnonzero(np.abs(worse) > 1e-5 * np.maximum(1.0, np.abs(score)))
        assert not len(differs) or worse[differs[0]] > 0


@settings(max_examples=20, deadline=None)
@given(tiny())
def test_divided_instances_are_never_dearer(p: ScalingProblem) -> None:
    plan, bound = solve(p, gap=0.0), relaxed_bound(p)
    if plan.covers_demand and plan.keeps_rules:
        assert bound <= plan.cost + 1e-6
        assert plan.bound == pytest.approx(plan.objective, rel=1e-5, abs=1e-5)


@settings(max_examples=12, deadline=None)
@given(tiny(), st.sampled_from([1e-3, 0.25, 8.0, 1e4]))
def test_units_of_tokens_and_dollars_do_not_matter(p: ScalingProblem, factor: float) -> None:
    scaled = dataclasses.replace(
        p,
        demand=p.demand * factor,
        throughput=p.throughput * factor,
        price=p.price * factor,
        spot_price=p.spot_price * factor,
        donated_price=p.donated_price * factor,
        scale_in_cost=p.scale_in_cost * factor,
    )
    first, second = solve(p, gap=0.0).outcome.score, solve(scaled, gap=0.0).outcome.score
    expected = (first[0], *(value * factor for value in first[1:]))
    assert second == pytest.approx(expected, rel=1e-5, abs=1e-5 * factor)


@settings(max_examples=15, deadline=None)
@given(tiny())
def test_the_same_problem_has_the_same_plan(p: ScalingProblem) -> None:
    first, second = solve(p), solve(p)
    for field in dataclasses.fields(Moves):
        moves = (getattr(plan.moves, field.name) for plan in (first, second))
        assert np.array_equal(*moves)


def test_spot_comes_before_acquisition_when_it_costs_less() -> None:
    plan = solve(problem(demand=[[500.0]], spot=2))
    assert plan.reclaims.sum() == 2 and plan.acquisitions.sum() == 1


def test_donated_gpus_of_another_model_are_converted() -> None:
    plan = solve(two(demand=[[300.0], [200.0]], spot=[[[0]], [[1]]]))
    assert plan.conversions[1, 0, 0, 0] == 1 and plan.acquisitions.sum() == 0


@pytest.mark.parametrize("redeploy_s", [7000.0, 7400.0])
def test_redeployed_exactly_when_that_costs_less(redeploy_s: float) -> None:
    p = two(demand=[[400.0], [0.0]], redeploy_s=redeploy_s, scale_in="release")
    plan = solve(p)
    moved = plan.redeployments[1, 0, 0, 0]
    assert moved == (2 if redeploy_s < 7200.0 else 0)
    assert plan.acquisitions.sum() == 2 - moved and plan.releases.sum() == 2 - moved


def test_instances_of_another_size_are_not_redeployed() -> None:
    p = two(demand=[[400.0], [0.0]], gpus_per_instance=[[1], [2]])
    assert solve(p).redeployments.sum() == 0


def test_what_is_donated_is_kept_when_it_is_needed_later() -> None:
    demand = np.array([200.0, 100.0, 200.0]).reshape(3, 1, 1, 1)
    usual = {"demand": demand, "scale_in": "either", "spot_price": 3.0}
    cheap = solve(problem(donated_price=3.0, **usual))
    dear = solve(problem(donated_price=13.0, acquisition_s=60.0, **usual))
    assert cheap.donations.sum() == 1 or cheap.moves.donated[1].sum() == 1
    assert dear.moves.donated.sum() == 0 and dear.moves.acquired.sum() <= 1


def test_a_short_dip_does_not_scale_in_what_is_dear_to_get_back() -> None:
    demand = np.array([200.0, 100.0, 200.0]).reshape(3, 1, 1, 1)
    keeps = solve(problem(demand=demand, scale_in="release"))
    drops = solve(problem(demand=demand, scale_in="release", acquisition_s=60.0))
    assert keeps.serving.ravel().tolist() == [2, 2, 2]
    assert drops.serving.ravel().tolist() == [2, 1, 2]


def test_leads_make_plans_act_before_the_demand_comes() -> None:
    demand = np.array([200.0, 200.0, 400.0]).reshape(3, 1, 1, 1)
    plan = solve(problem(demand=demand, acquisition_lead=2))
    assert plan.acquisitions.sum() == 2 and plan.covers_demand
    assert plan.serving.ravel().tolist() == [2, 2, 4]
    late = solve(problem(demand=demand[1:], acquisition_lead=1))
    assert late.acquisitions.sum() == 2 and late.covers_demand
    waits = solve(problem(demand=demand[1:], acquisition_lead=1, arriving=[[[[0]]], [[[2]]]]))
    assert waits.acquisitions.sum() == 0 and waits.covers_demand


def test_regions_serve_one_another_above_their_local_share() -> None:
    usual = {"regions": ["r", "s"], "demand": [[300.0, 0.0]], "price": [[50.0], [10.0]]}
    plan = solve(problem(**usual, current=0, local_share=0.5))
    assert plan.targets.ravel().tolist() == [2, 1]
    alone = solve(problem(**usual, current=0, local_share=1.0))
    assert alone.targets.ravel().tolist() == [3, 0]


def test_what_the_windows_share_is_not_covered_twice() -> None:
    demand = [[[300.0, 0.0]], [[0.0, 300.0]]]
    plan = solve(problem(regions=["r", "s"], demand=demand, local_share=0.5, current=0))
    assert plan.targets.sum() == 4
    assert plan.problem.global_need.tolist() == [[300.0]]


def test_impossible_demand_gives_the_least_shortfall_and_says_so() -> None:
    plan = solve(problem(demand=[[1000.0]], quota=5))
    assert plan.targets.sum() == 5 and plan.keeps_rules and not plan.covers_demand
    assert plan.shortfall.tolist() == [[500.0]]
    assert plan.local_shortfall.tolist() == [[[300.0]]]
    assert "a lacks 500 of 1,000 tokens/s in all" in plan.message()


def test_a_model_that_runs_nowhere_falls_short() -> None:
    plan = solve(two(throughput=[[100.0], [0.0]], current=[[[2]], [[0]]]))
    assert plan.shortfall.tolist() == [[0.0, 200.0]] and plan.targets.sum() == 2


def test_weights_decide_who_falls_short() -> None:
    usual = {"demand": [[200.0], [200.0]], "quota": 3, "current": 0, "local_share": 0.0}
    for weight, counts in (([2.0, 1.0], [2, 1]), ([1.0, 2.0], [1, 2])):
        plan = solve(two(**usual, weight=weight))
        assert plan.targets.ravel().tolist() == counts


def test_floors_that_cannot_be_reached_are_told() -> None:
    plan = solve(problem(floor=5, max_change=1))
    assert plan.targets.sum() == 3 and not plan.keeps_rules
    assert "2 instances below floors" in plan.message()


def test_a_quota_that_has_shrunk_is_kept_to() -> None:
    plan = solve(problem(current=6, demand=[[600.0]], quota=4, scale_in="release"))
    assert plan.targets.sum() == 4 and plan.releases.sum() == 2 and plan.keeps_rules


def test_no_time_gives_a_plan_of_the_heuristic() -> None:
    plan = solve(problem(demand=[[400.0]]), time_limit_s=1e-9)
    assert plan.status == "heuristic" and plan.targets.sum() == 4
    assert "no plan was found in time" in plan.message() and math.isnan(plan.gap)


def test_doing_nothing_costs_what_it_costs() -> None:
    p = problem(spot=1, spot_price=3.0, donated_price=4.0)
    found = outcome(p, Moves.none(p))
    assert found.dollars["serving"] == 20.0 and found.dollars["donated"] == 1.0


def test_the_heuristic_knows_how_far_from_the_best_it_can_be() -> None:
    covered = plan_greedily(problem(demand=[[450.0]]))
    assert covered.bound <= covered.cost and 0.0 <= covered.gap < 1.0
    short = plan_greedily(problem(demand=[[450.0]], quota=3))
    assert math.isnan(short.gap) and short.shortfall.tolist() == [[150.0]]
