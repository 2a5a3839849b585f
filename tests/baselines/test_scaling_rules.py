"""The rules of scaling strategies, on fleets made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.scaling import solve
from baselines.scaling.strategies.catalogue import strategy
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.planning import orders_of, problem_of
from baselines.scaling.strategies.tracking import desired_count
from tests.baselines.scaling_strategies import Steady, demand, setting, view

# --- Reactive ---


def test_reactive_starts_above_and_stops_below_its_thresholds() -> None:
    inner: Any = strategy("reactive")
    inner.begin(setting())
    assert inner.decide(view(kv=[0.7, 0.3])) is None
    orders = inner.decide(view(kv=[0.71, 0.29]))
    assert orders is not None
    assert orders.reclaim.ravel().tolist() == [1, 0]
    assert orders.donate.ravel().tolist() == [0, 1]
    # Both rest for 15 s; the floor holds.
    assert inner.decide(view(14.0, kv=[0.9, 0.9])) is None
    later = inner.decide(view(15.0, kv=[0.9, 0.1], ready=[3, 1]))
    assert later is not None and not later.donate.any() and later.reclaim[0, 0] == 1


def test_reactive_as_released_rests_by_what_it_did() -> None:
    inner: Any = strategy("reactive", released=True, low=0.1)
    inner.begin(setting())
    assert inner.low == 0.1 and inner.high == 0.5
    assert inner.decide(view(kv=0.51, donated=[2, 0])) is not None
    blocked = inner.blocked_until_s
    assert blocked.ravel().tolist() == [65.0, 155.0]  # the second is a conversion
    assert inner.decide(view(100.0, kv=[0.05, 0.9])) is not None
    assert blocked.ravel().tolist() == [100.0, 155.0]
    # Nothing is acquired.
    assert not inner.decide(view(200.0, kv=0.9, donated=0)).acquire.any()


def test_nothing_ready_is_full_only_if_something_waits() -> None:
    inner: Any = strategy("reactive")
    inner.begin(setting())
    empty = {"ready": 0, "floor": 0, "kv": 1.0}
    assert inner.decide(view(**empty)) is None
    orders = inner.decide(view(**empty, backlog=[0, 3]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [0, 1]
    assert inner.decide(view(60.0, **empty, starting=1, backlog=3)) is None


# --- Where instances come from ---


def test_own_weights_then_others_then_new_ones() -> None:
    given = view(donated=[1, 2], free=3, quota=(4 + 3 + 1) * 8)
    orders = orders_for(setting(), given, np.array([[5], [1]]))
    # The second takes its own; the first its own and the other's spare, and one fits the quota.
    assert orders.reclaim.ravel().tolist() == [2, 1]
    assert orders.acquire.ravel().tolist() == [1, 0]
    alone = orders_for(setting(), given, np.array([[5], [0]]), convert=False, acquire=False)
    assert alone.reclaim.ravel().tolist() == [1, 0] and not alone.acquire.any()


# --- Long-term plans ---


def test_lt_i_applies_the_plan_at_the_hour() -> None:
    inner: Any = strategy("lt_i", Steady([[390.0], [90.0]]), form="corrected")
    inner.begin(setting())
    orders = inner.decide(view())
    # 390 and a tenth of no batch work on 100 each: 4 instances; and one of the other model.
    assert orders is not None
    assert orders.reclaim.ravel().tolist() == [2, 0]
    assert orders.donate.ravel().tolist() == [0, 1]
    assert inner.decide(view(3599.0)) is None
    assert inner.decide(view(3600.0)) is not None


def test_lt_u_takes_no_more_than_the_plan() -> None:
    inner: Any = strategy("lt_u", Steady([[390.0], [90.0]]))
    inner.begin(setting())
    assert inner.decide(view()) is None  # in the middle, the plan waits
    ready, given = np.array([2, 2]), []
    for tick in range(1, 8):
        orders = inner.decide(view(15.0 * tick, kv=[0.9, 0.9], ready=ready))
        given.append(0 if orders is None else int(orders.reclaim[0, 0]))
        assert orders is None or not orders.reclaim[1, 0]
        ready[0] += given[-1]
    assert given == [1, 1, 0, 0, 0, 0, 0]
    down = [inner.decide(view(200.0 + 15.0 * t, kv=0.1, floor=0)) for t in range(3)]
    assert [0 if o is None else int(o.donate[1, 0]) for o in down] == [1, 0, 0]
    assert not any(o is not None and o.donate[0, 0] for o in down)


def test_lt_u_as_released_stops_at_once_and_escapes_once() -> None:
    options: dict[str, Any] = {"released": True, "released_throughput": False, "form": "corrected"}
    inner: Any = strategy("lt_u", Steady([[190.0], [90.0]]), **options)
    inner.begin(setting())
    orders = inner.decide(view())
    assert orders is not None and orders.donate.ravel().tolist() == [0, 1]
    assert inner.decide(view(15.0, kv=0.85)) is None
    assert inner.decide(view(30.0, kv=[0.95, 0.5])).reclaim[0, 0] == 1
    assert inner.decide(view(300.0, kv=[0.95, 0.5])) is None  # until it is paid back
    assert inner.decide(view(315.0, kv=[0.2, 0.5])).donate[0, 0] == 1
    assert inner.decide(view(330.0, kv=[0.95, 0.5])) is not None
    # Each of the two alone.
    tame: Any = strategy(
        "lt_u", Steady([[190.0], [90.0]]), **options, stops_at_once=False, escapes=False
    )
    tame.begin(setting())
    assert tame.decide(view()) is None and tame.decide(view(15.0, kv=0.95)) is None


def past(now_s: float, first: float, second: float) -> dict[str, Any]:
    """A view's time, and what has come by then: tokens/s of two models in every bin."""
    prompts = np.empty((2, 1, int(now_s / 900.0)))
    prompts[0], prompts[1] = first / 2.0, second / 2.0
    return {"now_s": now_s, "demand": demand(prompts)}


def test_lt_ua_goes_beyond_its_plan_in_the_last_minutes() -> None:
    inner: Any = strategy("lt_ua", Steady([[190.0], [190.0]]))
    inner.begin(setting())
    assert inner.decide(view()) is None
    high, low = {"kv": [0.9, 0.5]}, {"kv": [0.5, 0.1]}
    assert inner.decide(view(**past(2399.0, 950.0, 95.0), **high)) is None  # too early
    assert inner.decide(view(**past(2400.0, 949.0, 190.0), **high)) is None  # 4.99 times
    orders = inner.decide(view(**past(2415.0, 950.0, 190.0), **high))
    assert orders is not None and orders.reclaim.ravel().tolist() == [1, 0]
    assert inner.decide(view(**past(2430.0, 950.0, 190.0), **high)) is not None  # again
    assert inner.decide(view(**past(2445.0, 190.0, 96.0), **low)) is None
    orders = inner.decide(view(**past(2460.0, 190.0, 95.0), **low))
    assert orders is not None and orders.donate.ravel().tolist() == [0, 1]


def test_lt_ua_as_released_compares_all_models_with_the_last() -> None:
    options = {"released": True, "released_throughput": False, "form": "corrected"}
    inner: Any = strategy("lt_ua", Steady([[190.0], [190.0]]), **options)
    inner.begin(setting())
    inner.decide(view())
    # At no time of the hour in particular; 760 + 190 tokens/s are 5 times the last model's.
    given = past(960.0, 760.0, 190.0)
    assert inner.ratio(view(**given)).ravel().tolist() == [5.0, 5.0]
    orders = inner.decide(view(**given, kv=[0.5, 0.6]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [0, 1]
    mended: Any = strategy("lt_ua", Steady([[190.0], [190.0]]), **options, pooled_ratio=False)
    mended.begin(setting())
    mended.decide(view())
    assert mended.ratio(view(**given)).ravel().tolist() == [4.0, 1.0]
    assert mended.decide(view(**given, kv=[0.5, 0.6])) is None


# --- Chiron ---


def test_chiron_scales_batch_from_and_to_nothing() -> None:
    roles = setting(("interactive", "any", "batch"), ("a", "a", "a"))
    inner: Any = strategy("chiron", cooldown_s=0.0, request_tokens=100.0)
    inner.begin(roles)
    usual: dict[str, Any] = {"size": 3, "models": 1, "floor": [1, 0, 0], "running": [1, 0, 0]}
    at_rest = usual | {"ready": [2, 0, 0]}
    assert inner.decide(view(**at_rest)) is None
    # 100 tokens each, 100 tokens/s for a quarter of a day: less than an instance, but it waits.
    assert inner.decide(view(15.0, **at_rest, backlog=100)) is None
    orders = inner.decide(view(21_600.0, **at_rest, backlog=100))
    assert orders is not None and orders.reclaim.ravel().tolist() == [0, 0, 1]
    inner.begin(roles)
    orders = inner.decide(view(**at_rest, backlog=21_601))
    assert orders is not None and orders.reclaim[2, 0] == 1  # at once, and one more
    busy = usual | {"ready": [2, 0, 1]}
    assert inner.decide(view(15.0, **busy, backlog=21_601)).reclaim[2, 0] == 1
    orders = inner.decide(view(30.0, **busy))
    assert orders is not None and orders.donate.ravel().tolist() == [0, 0, 1]


def test_chiron_follows_backpressure() -> None:
    inner: Any = strategy("chiron", cooldown_s=0.0, window_s=0.0)
    inner.begin(setting(("interactive", "any", "batch"), ("a", "a", "a")))
    usual: dict[str, Any] = {"size": 3, "models": 1, "floor": [1, 0, 0]}
    # 2 of 3 are busy: one more, and a third of them is to be mixed.
    orders = inner.decide(view(**usual, ready=[3, 0, 0], running=[2, 0, 0]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [0, 1, 0]
    assert inner.decide(view(15.0, **usual, ready=[3, 1, 0], running=[2, 0, 0])) is None
    orders = inner.decide(view(30.0, **usual, ready=[3, 1, 0], running=[1, 0, 0]))
    assert orders is not None and orders.donate.ravel().tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="lanes"):
        strategy("chiron").begin(setting())


# --- Target tracking ---


def test_desired_count_is_that_of_the_horizontal_autoscaler() -> None:
    count = np.array([4, 4, 4, 4, 0, 1])
    load = np.array([8.0, 4.4, 4.5, 3.0, 2.5, 0.0])
    assert desired_count(count, load, 1.0).tolist() == [8, 4, 5, 3, 3, 0]


def test_target_tracking_stops_when_it_has_been_so_a_while() -> None:
    inner: Any = strategy("target_tracking", metric="waiting", target=4.0)
    inner.begin(setting())
    out = inner.decide(view(running=[10, 8], waiting=[10, 0]))
    assert out is not None and out.reclaim.ravel().tolist() == [3, 0]
    low = {"ready": [5, 2], "running": [4, 8]}
    assert inner.decide(view(15.0, **low)) is None
    assert inner.decide(view(300.0, **low)) is None
    back = inner.decide(view(301.0, **low))
    assert back is not None and back.donate.ravel().tolist() == [4, 0]


def test_target_tracking_of_tokens_and_of_kv() -> None:
    inner: Any = strategy("target_tracking")
    inner.begin(setting())
    came = past(900.0, 320.0, 160.0)  # of 80 each
    orders = inner.decide(view(**came))
    assert orders is not None and orders.reclaim.ravel().tolist() == [2, 0]
    inner = strategy("target_tracking", metric="kv")
    inner.begin(setting())
    orders = inner.decide(view(kv=[0.9, 0.5]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [2, 0]
    assert inner.decide(view(15.0, kv=1.0, ready=0, starting=2)) is None


# --- Predictive control ---


def test_predictive_control_applies_the_first_period() -> None:
    inner: Any = strategy("mpc", Steady([[390.0], [90.0]]))
    inner.begin(setting())
    orders = inner.decide(view())
    plan = inner.plan
    # Batch work of the history: 0. Prices: the second model's instance is donated.
    assert plan.targets[..., 0].ravel().tolist() == [4, 1]
    assert orders is not None and plan.problem.periods == 4
    for name, moves in (("reclaim", plan.reclaims), ("acquire", plan.acquisitions)):
        assert np.array_equal(getattr(orders, name), moves[..., 0])
    assert orders.reclaim[0, 0] + len(orders.redeploy) == 2
    assert inner.decide(view(30.0)) is None


def test_the_net_catches_what_waits_and_plans_keep_it() -> None:
    inner: Any = strategy("mpc", Steady([[190.0], [190.0]]))
    inner.begin(setting())
    assert not inner.decide(view()).reclaim.any()
    orders = inner.decide(view(30.0, waiting=[9, 8]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [1, 0]
    assert inner.decide(view(60.0, waiting=[9, 8])) is None
    assert inner.decide(view(150.0, waiting=[9, 8], starting=[1, 0])) is None
    orders = inner.decide(view(900.0, ready=[3, 2]))
    assert orders is not None and not orders.donate.any()
    orders = inner.decide(view(2700.0, ready=[3, 2]))
    assert orders is not None and orders.donate.ravel().tolist() == [1, 0]
    without: Any = strategy("mpc", Steady([[190.0], [190.0]]), net=False)
    without.begin(setting())
    without.decide(view())
    assert without.decide(view(30.0, waiting=50)) is None


def test_a_plan_counts_what_starts_and_keeps_to_quotas() -> None:
    given = view(ready=1, starting=[2, 0], donated=0, free=9, quota=(4 + 1) * 8)
    need = np.broadcast_to(np.array([300.0, 500.0])[:, None], (1, 1, 2, 1))
    problem = problem_of(setting(), given, need, period_s=900.0)
    assert problem.arriving[0, :, 0, 0].tolist() == [2, 0]
    plan = solve(problem)
    assert plan.acquisitions.ravel().tolist() == [0, 1]  # one fits; 500 is out of reach
    assert not plan.covers_demand and plan.keeps_rules
    assert orders_of(plan).acquire.ravel().tolist() == [0, 1]


@pytest.mark.parametrize(("donated", "moved"), [([0, 0], True), ([0, 1], False)])
def test_a_plan_moves_gpus_between_models(donated: list[int], moved: bool) -> None:
    given = view(ready=[1, 2], donated=donated, free=0)
    need = np.broadcast_to(np.array([150.0, 90.0])[:, None], (1, 1, 2, 1))
    orders = orders_of(solve(problem_of(setting(), given, need, period_s=900.0)))
    # An instance of the second model is not needed; it is loaded anew, or donated for one that was.
    assert orders.redeploy == ([(1, 0, 0, 1)] if moved else orders.redeploy)
    assert orders.reclaim[0, 0] + len(orders.redeploy) == 1
    assert not orders.acquire.any()


def test_a_plan_for_nothing_and_for_the_impossible() -> None:
    for tokens in (0.0, 1e9):
        for name in ("lt_i", "lt_u", "lt_ua", "mpc"):
            inner: Any = strategy(name, Steady([[tokens], [tokens]]))
            inner.begin(setting())
            inner.decide(view())
            inner.decide(view(ready=0, donated=0, free=0, floor=0, now_s=3600.0))
