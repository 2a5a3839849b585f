"""From a scenario and a seed to an episode, and to the demand of the past."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from envs.scaling import metrics
from envs.scaling.build import episode, history_of, mix_of, parts_of
from envs.scaling.demand import demand_of
from envs.scenarios import Scenario, parse_scenario
from envs.workloads import RequestTable

HOUR = 3600.0
DAY = 24 * HOUR
SCENARIO = """\
fleet:
  groups:
    x: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 90000, serves: x}
    y: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 90000, serves: y}
    z: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 90000, serves: z}
    w: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 90000, serves: w}
workload:
  {kind: o365, scale: 0.0005, start_s: 1900800.0, duration_s: 7200.0, models: [x, y, z, w],
   regions: [a, b, c], max_prompt_tokens: 5000, max_output_tokens: 200}
scaling: {regions: {a: {}, b: {}, c: {}}}
"""


def scenario(**changes: Any) -> Scenario:
    data = yaml.safe_load(SCENARIO)
    for key, value in changes.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    return parse_scenario(data)


def test_an_episode_is_at_time_0_and_runs() -> None:
    made = episode(scenario(), 3)
    assert (made.fleet.now_s, made.duration_s, made.models) == (0, 7200, ("x", "y", "z", "w"))
    assert made.fleet.simulation.regions == ("a", "b", "c")
    assert made.demand.bins == 8 and made.demand.start_s == 1900800.0
    assert made.fleet.deployments["ready"].tolist() == [[1] * 3] * 4
    assert made.fleet.deployments["donated"].tolist() == [[1] * 3] * 4
    made.fleet.run_to(made.duration_s)
    found = metrics.summary(made.fleet)
    assert found["arrived"] == len(made.table) > 50
    assert found["instance_hours"] == pytest.approx(24, rel=0.02)


def test_the_seed_decides() -> None:
    first, same, other = (episode(scenario(), seed) for seed in (3, 3, 4))
    assert first.table.arrival_s.tolist() == same.table.arrival_s.tolist()
    assert first.table.arrival_s.tolist() != other.table.arrival_s.tolist()
    normals = [made.fleet.arrays["normals"] for made in (first, same, other)]
    assert np.array_equal(normals[0], normals[1]) and not np.array_equal(normals[0], normals[2])


def test_own_requests_and_lengths_of_time() -> None:
    table = scenario().workload.build(9)[:50]
    made = episode(scenario(), 3, table=table, duration_s=500.0, bin_s=100.0)
    assert len(made.table) == 50 and made.duration_s == 500 and made.demand.bins == 5


def test_the_past_is_the_week_before_by_the_same_seed() -> None:
    """Two days: up to the episode and not into it."""
    past = history_of(scenario(), 3, ("x", "y", "z", "w"), days=2.0)
    assert past.bins == 2 * 96
    assert past.start_s == 1900800.0 - 2 * DAY
    earlier = scenario(workload={"start_s": past.start_s, "duration_s": 2 * DAY})
    again = demand_of(parts_of(earlier, 3), ("x", "y", "z", "w"), ("a", "b", "c"), 2 * DAY, 900.0)
    assert past.prompt == pytest.approx(again.prompt)
    assert past.ratio == pytest.approx(again.ratio)
    short = scenario(workload={"start_s": 1800.0})
    assert history_of(short, 3, ("x", "y", "z", "w")).bins == 2, "no more than there was"


def test_the_mix_of_a_model() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0, 2.0],
        prompt_tokens=[10, 20, 30],
        output_tokens=[1, 2, 3],
        model=["x", "y", "x"],
    )
    assert mix_of(table, "x").tolist() == [[10, 1], [30, 3]]
    assert mix_of(table, "", most=2).tolist() == [[10, 1], [20, 2]]
    assert mix_of(table, "x", most=1).tolist() == [[10, 1]]


def test_clear_errors() -> None:
    plain = yaml.safe_load(SCENARIO)
    del plain["scaling"]
    table = RequestTable.from_columns(
        arrival_s=[0.0], prompt_tokens=[1], output_tokens=[1], model=["x"]
    )
    outage = {"outages": [{"instance": 0, "start_s": 1.0, "end_s": 2.0}]}
    other = {"kind": "router_mix", "requests": 9, "rate": 1.0}
    odd = yaml.safe_load(SCENARIO)
    odd["fleet"]["groups"]["y"]["queue"] = "sjf"
    tight = scenario(scaling={"regions": {n: {"quota": 3} for n in "abc"}})
    mixed = yaml.safe_load(SCENARIO) | {"workload": other}
    for what, message in [
        (lambda: episode(parse_scenario(plain), 0), "give it the key scaling"),
        (lambda: episode(scenario(failures=outage), 0), "taken away by scaling.evictions"),
        (lambda: episode(parse_scenario(odd), 0), "one scheduler for all"),
        (lambda: episode(tight, 0), "holds 4 GPUs at the beginning, and its quota is 3"),
        (lambda: history_of(parse_scenario(mixed), 0, ("x",)), "has no past to learn from"),
        (lambda: history_of(scenario(workload={"start_s": 5.0}), 0, ("x",)), "start_s"),
        (lambda: mix_of(table, "y"), "no request is of the model 'y'"),
    ]:
        with pytest.raises(ValueError, match=message):
            what()
