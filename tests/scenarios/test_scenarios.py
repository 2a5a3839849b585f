"""Presets, points, `extends`, and the way back to YAML."""

from typing import get_args

import numpy as np
import pytest
import yaml

from envs.hardware import kv_capacity_tokens
from envs.hardware.catalogue import WEIGHT_BYTES
from envs.scenarios import (
    ScenarioError,
    fleet_names,
    load_fleet,
    load_scenario,
    parse_scenario,
    scenario_names,
)
from envs.scenarios.fleet import EngineGroup

FLEET = {"groups": {"v100": {"count": 2, "preset": "v100-llama2-7b", "price_per_hour": 1.5}}}
WORKLOAD = {"kind": "router_mix", "rate": 5, "requests": 20}


def write(path, **content):
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", scenario_names())
def test_presets_build(name):
    scenario = load_scenario(name, {"workload": {"requests": 50}})
    table, engines = scenario.build(1_000_000)
    places = sum(group.count for group in scenario.fleet.groups.values())
    instances = {"mixed": 8, "router": 4, "throttling": 1, "scaling": places}
    assert scenario.name == name
    # Of Copilot's calls, the longest are dropped.
    assert 30 <= len(table) <= 50 and (scenario.workload.kind == "copilot" or len(table) == 50)
    assert len(engines) == instances[name.partition("-")[0]]
    assert table.predicted_output_tokens.min() >= 1


@pytest.mark.parametrize("name", fleet_names())
def test_preset_fleets_have_engines_and_a_source(name):
    fleet = load_fleet(name)
    engines = fleet.engines()
    assert fleet.source
    assert len({engine.name for engine in engines}) == len(engines)
    assert all(engine.kv_capacity_tokens > 1000 for engine in engines)


def test_the_operating_points_of_the_benchmark():
    names = [f"kv6k-rate{r}" for r in (8, 9, 10)] + ["kv4k-rate7", "kv4k-rate8", "kv8k-rate9"]
    for name in [*names, "kv30k-rate11", "kv30k-rate20"]:
        scenario = load_scenario(f"router-{name}")
        capacity, rate = name.removeprefix("kv").split("k-rate")
        (group,) = scenario.fleet.groups.values()
        assert group.kv_capacity_tokens == int(capacity) * 1000
        assert scenario.workload.rate == float(rate)
        assert scenario.workload.requests == (2000 if name == "kv30k-rate20" else 3000)
        assert (group.max_num_seqs, group.max_batched_tokens) == (128, 4096)


@pytest.mark.parametrize("name", scenario_names())
def test_round_trip(name, tmp_path):
    scenario = load_scenario(name)
    path = tmp_path / "copy.yaml"
    path.write_text(scenario.to_yaml(), encoding="utf-8")
    assert load_scenario(path) == scenario


def test_a_seed_settles_the_episode():
    scenario = parse_scenario({"fleet": FLEET, "workload": WORKLOAD})
    first, again, other = (scenario.build(seed)[0] for seed in (3, 3, 4))
    assert first == again
    assert not np.array_equal(first.output_tokens, other.output_tokens)


def test_prediction_errors_do_not_follow_the_lengths():
    workload = WORKLOAD | {"requests": 4000}
    table, _ = parse_scenario({"fleet": FLEET, "workload": workload}).build(7)
    error = np.log(table.predicted_output_tokens / table.output_tokens)
    long = table.output_tokens > 50  # rounding matters in short ones
    assert abs(np.corrcoef(error[long], table.prompt_tokens[long])[0, 1]) < 0.06
    assert error[long].std() == pytest.approx(0.5, rel=0.05)


def test_sigma_zero_is_an_oracle():
    data = {"fleet": FLEET, "workload": WORKLOAD, "prediction": {"sigma": 0}}
    table, _ = parse_scenario(data).build(0)
    assert np.array_equal(table.predicted_output_tokens, table.output_tokens)


def test_engines_follow_their_group():
    groups = {"a": {"count": 2, "preset": "v100-llama2-7b", "price_per_hour": 1.5}}
    groups["b"] = groups["a"] | {"count": 1, "kv_capacity_tokens": 777, "queue": "sjf"}
    engines = parse_scenario({"fleet": {"groups": groups}, "workload": WORKLOAD}).fleet.engines()
    assert [engine.name for engine in engines] == ["a-0", "a-1", "b-0"]
    assert [engine.kv_capacity_tokens for engine in engines] == [30_000, 30_000, 777]
    assert [engine.queue for engine in engines] == ["fcfs", "fcfs", "sjf"]
    assert engines[0].price_per_hour == 1.5


def test_the_precision_of_the_weights_sets_steps_and_cache():
    def engine(**options):
        group = {"model": "Llama-3.1-8B", "gpu": "H100-SXM-80GB"} | options
        fleet = {"groups": {"h100": group}}
        (built,) = parse_scenario({"fleet": fleet, "workload": WORKLOAD}).fleet.engines()
        return built

    names = get_args(EngineGroup.model_fields["precision"].annotation)
    assert set(names) == set(WEIGHT_BYTES)
    plain, full, small = engine(), engine(precision="bf16"), engine(precision="fp4")
    assert plain == full
    assert small.cost.precision == "fp4"
    assert small.cost.step_time(1) < plain.cost.step_time(1)
    assert small.kv_capacity_tokens == kv_capacity_tokens(
        "Llama-3.1-8B", "H100-SXM-80GB", precision="fp4"
    )
    assert small.kv_capacity_tokens > plain.kv_capacity_tokens
    for name in names:
        assert engine(precision=name).cost.precision == name


def test_a_file_extends_a_preset(tmp_path):
    own = {"fleet": {"groups": {"v100": {"count": 6}}}, "workload": {"rate": 12.5}}
    path = write(tmp_path / "mine.yaml", extends="router-kv6k-rate8", **own)
    scenario = load_scenario(path)
    assert scenario.name == "mine"
    assert scenario.fleet.groups["v100"].count == 6
    assert scenario.fleet.groups["v100"].kv_capacity_tokens == 6000
    assert (scenario.workload.rate, scenario.workload.requests) == (12.5, 3000)


def test_a_named_fleet_and_another_kind_of_workload_replace_the_inherited(tmp_path):
    write(tmp_path / "fleet.yaml", **FLEET)
    path = write(
        tmp_path / "mine.yaml",
        extends="router-kv6k-rate8",
        fleet="fleet.yaml",
        workload={"kind": "router_classes", "rate": 1.0, "requests": 9, "pattern": "all"},
    )
    scenario = load_scenario(path)
    assert [engine.name for engine in scenario.fleet.engines()] == ["v100-0", "v100-1"]
    assert len(scenario.build(0)[0]) == 9


def test_points_of_a_users_file(tmp_path):
    points = {"slow": {"workload": {"rate": 1.0}}, "fast": {"workload": {"rate": 2.0}}}
    path = write(tmp_path / "mine.yaml", fleet=FLEET, workload=WORKLOAD, points=points)
    fast = load_scenario(f"{path}#fast")
    assert (fast.name, fast.workload.rate) == ("mine-fast", 2.0)
    with pytest.raises(ScenarioError, match=r"name one: mine.yaml#slow, mine.yaml#fast"):
        load_scenario(path)
    with pytest.raises(ScenarioError, match="no point 'fats'; did you mean fast"):
        load_scenario(f"{path}#fats")


@pytest.mark.parametrize(
    "workload",
    [
        {"kind": "azure_conversation"},
        {"kind": "azure_code", "rate": 3.0},
        {"kind": "azure_code", "rate": 3.0, "arrivals": "gamma", "cv": 4.0},
        {"kind": "router_mix", "rate": 3.0, "arrivals": "mmpp", "burst_share": 0.2},
        {"kind": "router_classes", "rate": 3.0, "arrivals": "at_once", "pattern": "LH then HL"},
        {"kind": "copilot", "users": 6, "max_request_tokens": None, "held_out": ["app-7"]},
        {"kind": "vtc", "suite": "overload"},
    ],
)
def test_every_kind_of_workload(workload):
    table, _ = parse_scenario({"fleet": FLEET, "workload": workload | {"requests": 30}}).build(0)
    assert len(table) == 30


def test_scenarios_are_immutable():
    scenario = load_scenario("router-kv6k-rate8")
    with pytest.raises(ValueError, match="frozen"):
        scenario.prediction.sigma = 0.0
