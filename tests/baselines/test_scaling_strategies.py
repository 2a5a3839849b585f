"""Scaling strategies by name, in whole runs within limits and without the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.scaling.strategies.catalogue import strategies, strategy
from baselines.scaling.strategies.forecast import PerfectForecast, SeasonalForecast
from baselines.scaling.strategies.parameters import parameters_of
from baselines.scaling.strategies.setting import divided, lanes, lengths_of, mix_table
from envs.scaling.build import episode
from envs.scenarios import Scenario, load_scenario
from envs.simulator.lifecycle import LifecyclePlan
from tests.baselines.scaling_strategies import SEED, Latest, demand, run, scenario, setting
from tests.paths import ROOT

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


HARD: dict[str, dict[str, Any]] = {
    "lt_i": {"plan_s": 900.0, "utilisation": 0.5},
    "lt_u": {"plan_s": 900.0, "utilisation": 0.5, "high": 0.1},
    "lt_ua": {"plan_s": 900.0, "utilisation": 0.5, "high": 0.1},
    "mpc": {"utilisation": 0.5},
}
"""Parameters with which there is much to do."""


@pytest.mark.parametrize("name", [n for n, kind in strategies().items() if "perfect" not in n])
def test_the_future_changes_no_decision(name: str) -> None:
    half = 1800.0
    table = scenario(strategies()[name].lanes).workload.build(SEED)
    late = table.arrival_s > half
    other = table.replace(
        prompt_tokens=np.where(late, table.prompt_tokens // 4 + 1, table.prompt_tokens),
        output_tokens=np.where(late, 3 * table.output_tokens, table.output_tokens),
    )
    forecast = Latest() if strategies()[name].plans else None
    first, second = (
        run(strategy(name, forecast, **HARD.get(name, {})), table=one)[0] for one in (table, other)
    )
    assert first.given(half) and first.given(half) == second.given(half)
    if name != "static_peak":
        assert first.given(3600.0) != second.given(3600.0)


def test_an_oracle_sees_the_future() -> None:
    table = scenario().workload.build(SEED)
    late = table.arrival_s > 1800.0
    more = np.where(late, 10 * table.prompt_tokens, table.prompt_tokens)
    runs = [
        run(made("mpc_perfect"), table=t)[0] for t in (table, table.replace(prompt_tokens=more))
    ]
    assert runs[0].given(1800.0) != runs[1].given(1800.0)


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


def test_every_strategy_is_described() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    names = {name for kind in strategies().values() for name in (kind.name, *parameters_of(kind))}
    assert not [name for name in sorted(names) if f"`{name}`" not in page]


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
