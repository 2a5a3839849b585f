"""Scaling strategies: their rules by hand, and whole runs within limits and without the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.scaling.strategies.catalogue import strategies, strategy
from baselines.scaling.strategies.forecast import PerfectForecast, SeasonalForecast
from baselines.scaling.strategies.moving import orders_for
from baselines.scaling.strategies.planning import orders_of, problem_of
from baselines.scaling.strategies.setting import divided, lanes, lengths_of, mix_table
from baselines.scaling.strategies.tracking import desired_count
from envs.scaling.build import episode
from envs.scenarios import Scenario, load_scenario
from envs.simulator.lifecycle import LifecyclePlan
from tests.baselines.scaling_strategies import SEED, Steady, demand, run, scenario, setting, view

pytestmark = pytest.mark.filterwarnings("ignore::envs.hardware.cost_model.OutsideFitWarning")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in strategies()),
    *((name, {"released": True}) for name in ("reactive", "lt_i", "lt_u", "lt_ua")),
    ("lt_i", {"form": "corrected"}),
    ("target_tracking", {"metric": "kv"}),
    ("target_tracking", {"metric": "waiting"}),
    ("mpc", {"utilisation": 0.5}),
]


def made(name: str, **parameters: Any) -> Any:
    forecast = SeasonalForecast() if strategies()[name].plans and "perfect" not in name else None
    return strategy(name, forecast, **parameters)


@pytest.mark.parametrize("fleet", ["owned", "rented"])
@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_runs_within_limits_to_the_end(name: str, parameters: dict[str, Any], fleet: str) -> None:
    _, found = run(made(name, **parameters), fleet)  # `Watched` checks every tick
    assert found.fleet.now_s == 3600.0
    assert found.fleet.simulation.state.head["served"][0] > 1_000


@pytest.mark.parametrize("name", [n for n, kind in strategies().items() if "perfect" not in n])
def test_the_future_changes_no_decision(name: str) -> None:
    half = 1800.0
    table = scenario(strategies()[name].lanes).workload.build(SEED)
    late = table.arrival_s > half
    other = table.replace(
        prompt_tokens=np.where(late, table.prompt_tokens // 4 + 1, table.prompt_tokens),
        output_tokens=np.where(late, 3 * table.output_tokens, table.output_tokens),
    )
    first, second = (run(made(name), table=one)[0] for one in (table, other))
    assert first.given(half) == second.given(half)


def test_an_oracle_sees_the_future() -> None:
    table = scenario().workload.build(SEED)
    late = table.arrival_s > 1800.0
    more = np.where(late, 10 * table.prompt_tokens, table.prompt_tokens)
    runs = [
        run(made("mpc_perfect"), table=t)[0] for t in (table, table.replace(prompt_tokens=more))
    ]
    assert runs[0].given(1800.0) != runs[1].given(1800.0)


# --- Reactive ---


def test_reactive_starts_above_and_stops_below_its_thresholds() -> None:
    inner = strategy("reactive")
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
    inner = strategy("reactive", released=True, low=0.1)
    inner.begin(setting())
    assert inner.low == 0.1 and inner.high == 0.5  # type: ignore[attr-defined]
    assert inner.decide(view(kv=0.51, donated=[2, 0])) is not None
    blocked = inner.blocked_until_s  # type: ignore[attr-defined]
    assert blocked.ravel().tolist() == [65.0, 155.0]  # the second is a conversion
    assert inner.decide(view(100.0, kv=[0.05, 0.9])) is not None
    assert blocked.ravel().tolist() == [100.0, 155.0]
    # Nothing is acquired.
    assert not inner.decide(view(200.0, kv=0.9, donated=0)).acquire.any()  # type: ignore[union-attr]


def test_nothing_ready_is_full_only_if_something_waits() -> None:
    inner = strategy("reactive")
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
    inner = strategy("lt_i", Steady([[390.0], [90.0]]), form="corrected")
    inner.begin(setting())
    orders = inner.decide(view())
    # 390 and a tenth of no batch work on 100 each: 4 instances; and one of the other model.
    assert orders is not None
    assert orders.reclaim.ravel().tolist() == [2, 0]
    assert orders.donate.ravel().tolist() == [0, 1]
    assert inner.decide(view(3599.0)) is None
    assert inner.decide(view(3600.0)) is not None


def test_lt_u_takes_no_more_than_the_plan() -> None:
    inner = strategy("lt_u", Steady([[390.0], [90.0]]))
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
    inner = strategy("lt_u", Steady([[190.0], [90.0]]), **options)
    inner.begin(setting())
    orders = inner.decide(view())
    assert orders is not None and orders.donate.ravel().tolist() == [0, 1]
    assert inner.decide(view(15.0, kv=0.85)) is None
    assert inner.decide(view(30.0, kv=[0.95, 0.5])).reclaim[0, 0] == 1  # type: ignore[union-attr]
    assert inner.decide(view(300.0, kv=[0.95, 0.5])) is None  # until it is paid back
    assert inner.decide(view(315.0, kv=[0.2, 0.5])).donate[0, 0] == 1  # type: ignore[union-attr]
    assert inner.decide(view(330.0, kv=[0.95, 0.5])) is not None
    # Each of the two alone.
    tame = strategy(
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
    inner = strategy("lt_ua", Steady([[190.0], [190.0]]))
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
    inner = strategy("lt_ua", Steady([[190.0], [190.0]]), **options)
    inner.begin(setting())
    inner.decide(view())
    # At no time of the hour in particular; 760 + 190 tokens/s are 5 times the last model's.
    given = past(960.0, 760.0, 190.0)
    assert inner.ratio(view(**given)).ravel().tolist() == [5.0, 5.0]  # type: ignore[attr-defined]
    orders = inner.decide(view(**given, kv=[0.5, 0.6]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [0, 1]
    mended = strategy("lt_ua", Steady([[190.0], [190.0]]), **options, pooled_ratio=False)
    mended.begin(setting())
    mended.decide(view())
    assert mended.ratio(view(**given)).ravel().tolist() == [4.0, 1.0]  # type: ignore[attr-defined]
    assert mended.decide(view(**given, kv=[0.5, 0.6])) is None


# --- Chiron ---


def test_chiron_scales_batch_from_and_to_nothing() -> None:
    roles = setting(("interactive", "any", "batch"), ("a", "a", "a"))
    inner = strategy("chiron", cooldown_s=0.0, request_tokens=100.0)
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
    assert inner.decide(view(15.0, **busy, backlog=21_601)).reclaim[2, 0] == 1  # type: ignore[union-attr]
    orders = inner.decide(view(30.0, **busy))
    assert orders is not None and orders.donate.ravel().tolist() == [0, 0, 1]


def test_chiron_follows_backpressure() -> None:
    inner = strategy("chiron", cooldown_s=0.0, window_s=0.0)
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
    inner = strategy("target_tracking", metric="waiting", target=4.0)
    inner.begin(setting())
    out = inner.decide(view(running=[10, 8], waiting=[10, 0]))
    assert out is not None and out.reclaim.ravel().tolist() == [3, 0]
    low = {"ready": [5, 2], "running": [4, 8]}
    assert inner.decide(view(15.0, **low)) is None
    assert inner.decide(view(300.0, **low)) is None
    back = inner.decide(view(301.0, **low))
    assert back is not None and back.donate.ravel().tolist() == [4, 0]


def test_target_tracking_of_tokens_and_of_kv() -> None:
    inner = strategy("target_tracking")
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
    inner = strategy("mpc", Steady([[390.0], [90.0]]))
    inner.begin(setting())
    orders = inner.decide(view())
    plan = inner.plan  # type: ignore[attr-defined]
    # Batch work of the history: 0. Prices: the second model's instance is donated.
    assert plan.targets[..., 0].ravel().tolist() == [4, 1]
    assert orders is not None and plan.problem.periods == 4
    for name, moves in (("reclaim", plan.reclaims), ("acquire", plan.acquisitions)):
        assert np.array_equal(getattr(orders, name), moves[..., 0])
    assert orders.reclaim[0, 0] + len(orders.redeploy) == 2
    assert inner.decide(view(30.0)) is None


def test_the_net_catches_what_waits_and_plans_keep_it() -> None:
    inner = strategy("mpc", Steady([[190.0], [190.0]]))
    inner.begin(setting())
    assert not inner.decide(view()).reclaim.any()  # type: ignore[union-attr]
    orders = inner.decide(view(30.0, waiting=[9, 8]))
    assert orders is not None and orders.reclaim.ravel().tolist() == [1, 0]
    assert inner.decide(view(60.0, waiting=[9, 8])) is None
    assert inner.decide(view(150.0, waiting=[9, 8], starting=[1, 0])) is None
    orders = inner.decide(view(900.0, ready=[3, 2]))
    assert orders is not None and not orders.donate.any()
    orders = inner.decide(view(2700.0, ready=[3, 2]))
    assert orders is not None and orders.donate.ravel().tolist() == [1, 0]
    without = strategy("mpc", Steady([[190.0], [190.0]]), net=False)
    without.begin(setting())
    without.decide(view())
    assert without.decide(view(30.0, waiting=50)) is None


def test_a_plan_counts_what_starts_and_keeps_to_quotas() -> None:
    given = view(ready=1, starting=[2, 0], donated=0, free=9, quota=(4 + 1) * 8)
    need = np.broadcast_to(np.array([300.0, 500.0])[:, None], (1, 1, 2, 1))
    problem = problem_of(setting(), given, need, period_s=900.0)
    assert problem.arriving[0, :, 0, 0].tolist() == [2, 0]
    from baselines.scaling import solve

    plan = solve(problem)
    assert plan.acquisitions.ravel().tolist() == [0, 1]  # one fits; 500 is out of reach
    assert not plan.covers_demand and plan.keeps_rules
    assert orders_of(plan).acquire.ravel().tolist() == [0, 1]


def test_a_plan_for_nothing_and_for_the_impossible() -> None:
    for tokens in (0.0, 1e9):
        for name in ("lt_i", "lt_u", "lt_ua", "mpc"):
            inner = strategy(name, Steady([[tokens], [tokens]]))
            inner.begin(setting())
            inner.decide(view())
            inner.decide(view(ready=0, donated=0, free=0, floor=0, now_s=3600.0))


# --- What is known, and what is asked for ---


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="did you mean reactive"):
        strategy("reactiv")
    with pytest.raises(ValueError, match=r"no parameter 'hihg': did you mean high.*cooldown_s"):
        strategy("reactive", hihg=0.5)
    with pytest.raises(ValueError, match="high of reactive is 3: give a finite number, 0 or more"):
        strategy("reactive", high=3)
    with pytest.raises(ValueError, match="metric of target_tracking is 'cpu': give one of kv"):
        strategy("target_tracking", metric="cpu")
    with pytest.raises(ValueError, match="released of reactive is 1: give True or False"):
        strategy("reactive", released=1)
    with pytest.raises(ValueError, match="form of lt_i is 'best': give one of as_released"):
        strategy("lt_i", SeasonalForecast(), form="best")
    for name, kind in strategies().items():
        if kind.plans and name != "mpc_perfect":
            with pytest.raises(ValueError, match=f"{name} plans by a forecast and has none"):
                strategy(name)
    with pytest.raises(ValueError, match="is an oracle: give the future"):
        strategy("mpc_perfect").begin(setting())
    with pytest.raises(ValueError, match="one lane"):
        made("mpc").begin(setting(("interactive", "any")))
    with pytest.raises(ValueError, match="no throughput of 'a'"):
        made("lt_i", released=True).begin(setting())


def test_every_strategy_says_what_it_is() -> None:
    for name, kind in strategies().items():
        assert kind.source and kind.__doc__
        inner = made(name)
        assert inner.name == name and inner.oracle == (name == "mpc_perfect")
        assert isinstance(inner.tick_s, float)


def roles_of(given: Scenario) -> LifecyclePlan:
    assert given.scaling is not None
    return given.scaling.plan(given.fleet, 0, 3600.0)


def test_fleets_are_divided_by_tiers() -> None:
    tuesday = load_scenario("scaling-tuesday")
    two = roles_of(lanes(tuesday, "two"))
    assert [role.name for role in two.roles[:2]] == ["Llama-2-70B/interactive", "Llama-2-70B/batch"]
    places = np.bincount(two.role, minlength=len(two.roles)) // 3
    ready = np.bincount(two.role, two.ready) // 3
    assert places[:2].tolist() == [16, 4] and ready[:2].tolist() == [6, 2]
    assert two.floor[:2, 0].tolist() == [1, 1]
    three = roles_of(lanes(tuesday, "three"))
    assert [role.lane for role in three.roles[:3]] == ["interactive", "any", "batch"]
    assert (np.bincount(three.role) // 3)[:3].tolist() == [10, 5, 5]
    assert three.floor[:3, 0].tolist() == [2, 0, 0]
    assert lanes(tuesday, "one") is tuesday
    with pytest.raises(ValueError, match="has the lane"):
        lanes(lanes(tuesday, "two"), "two")
    with pytest.raises(ValueError, match="give one of one, two, three"):
        lanes(tuesday, "four")


@pytest.mark.parametrize("count", range(3, 30))
def test_parts_sum_up(count: int) -> None:
    parts = divided(count, {"interactive": 0.5, "any": 0.25, "batch": 0.25}, least=1)
    assert sum(parts.values()) == count and min(parts.values()) >= 1


def test_throughput_is_measured_on_other_requests() -> None:
    table = mix_table(scenario())
    assert not np.isin(table.arrival_s, scenario().workload.build(SEED).arrival_s).any()
    mixes = [lengths_of(table, "Llama-2-70B", lane) for lane in ("any", "interactive", "batch")]
    assert [len(mix) > 10_000 and mix.shape[1] == 2 for mix in mixes] == [True] * 3
    with pytest.raises(ValueError, match="no request of 'Llama-3' is of the tiers NIW"):
        lengths_of(table, "Llama-3", "batch")


@pytest.mark.parametrize("queue", ["edf", "pf", "dpa"])
def test_queue_disciplines_serve_elastic_fleets(queue: str) -> None:
    given = scenario()
    groups = {
        name: group.model_copy(update={"queue": queue})
        for name, group in given.fleet.groups.items()
    }
    fleet = given.fleet.model_copy(update={"groups": groups})
    changed = given.model_copy(update={"fleet": fleet})
    found = episode(changed, SEED, duration_s=1800.0)
    found.fleet.scale_out(0, 0, 2)
    found.fleet.run_to(1800.0)
    assert found.fleet.simulation.state.head["served"][0] > 500
    assert found.fleet.deployments["ready"][0, 0] == 3


# --- Forecasts ---


def test_seasonal_forecast_repeats_the_week() -> None:
    rng = np.random.default_rng(0)
    week = rng.uniform(10.0, 20.0, (1, 1, 168))
    past = demand(np.tile(week, 3), bin_s=3600.0)
    forecast = SeasonalForecast()
    forecast.begin(past, None)
    path = forecast.path(past, 200, (0.5, 0.9))
    assert path.shape == (1, 1, 200, 2)
    assert np.allclose(path[0, 0, :168, 0], 2.0 * week[0, 0])
    assert np.allclose(path[0, 0, 168:, 0], 2.0 * week[0, 0, :32])
    # Every other week has twice the load: ratios are 2 and 1/2.
    swing = demand(np.concatenate([week, 2 * week, week, 2 * week], axis=-1), bin_s=3600.0)
    forecast.begin(swing, None)
    assert np.allclose(forecast.path(swing, 5, (0.9,))[0, 0, :, 0], 8.0 * week[0, 0, :5])


@pytest.mark.parametrize("bins", [1, 5, 30, 60])
def test_seasonal_forecast_of_a_short_past(bins: int) -> None:
    past = demand(np.ones((2, 1, bins)), bin_s=3600.0)
    forecast = SeasonalForecast()
    forecast.begin(past, None)
    assert np.allclose(forecast.path(past, 50, (0.1, 0.9)), 2.0)


def test_perfect_forecast_is_the_future() -> None:
    history, future = demand(np.ones((1, 1, 4))), demand(np.arange(1.0, 5.0).reshape(1, 1, 4))
    forecast = PerfectForecast()
    forecast.begin(history, future)
    path = forecast.path(history.followed_by(future.until(900.0)), 5, (0.1, 0.9))
    assert path[0, 0, :, 0].tolist() == [4.0, 6.0, 8.0, 8.0, 8.0]
    with pytest.raises(ValueError, match="needs the future"):
        forecast.begin(history, None)
