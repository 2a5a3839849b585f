"""Every key about instances, clients, limits and failures changes what the simulator does."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from baselines.admission import gate
from baselines.routing import router
from baselines.scheduling import application_weights, scheduler, weights_for
from envs.scenarios import EngineGroup, Scenario, ScenarioError, parse_scenario
from envs.simulator import SCHEDULERS, Result, simulate
from envs.simulator.config import ADMISSION, BATCHING
from envs.simulator.gate import Retry
from envs.workloads import RequestTable

MIX = {"kind": "router_mix", "rate": 12.0, "requests": 200, "max_output_tokens": 400}
CALLS = {"kind": "copilot", "requests": 300, "users": 12, "duration_s": 60}
CLIENTS = {"kind": "vtc", "suite": "overload-multi", "duration_s": 60.0, "requests": 200}


def scenario(workload: dict[str, Any] = MIX, sigma: float = 0.5, **keys: Any) -> Scenario:
    """Two small instances; keys that a group has go there, others to the scenario."""
    engine = {"count": 2, "preset": "v100-llama2-7b", "kv_capacity_tokens": 2_500}
    engine |= {"max_num_seqs": 32, "max_batched_tokens": 2_048}
    engine |= {key: keys.pop(key) for key in list(keys) if key in EngineGroup.model_fields}
    data = {"fleet": {"groups": {"a": engine}}, "workload": workload}
    data["prediction"] = {"sigma": sigma} | keys.pop("prediction", {})
    return parse_scenario(data | keys, "small")


def run(setting: Scenario, seed: int = 1, rule: str = "jsq", **more: Any) -> Result:
    table, fleet = setting.build(seed)
    return simulate(table, fleet, router(rule), seed=seed, **setting.options(table, seed), **more)


def summary(*given: Any, **keys: Any) -> dict[str, float]:
    return run(scenario(*given, **keys)).summary()


@pytest.mark.parametrize(
    ("key", "known"), [("queue", SCHEDULERS), ("batching", BATCHING), ("admission", ADMISSION)]
)
def test_a_group_knows_what_the_simulator_knows(key: str, known: Any) -> None:
    assert set(get_args(EngineGroup.model_fields[key].annotation)) == set(known)
    for name in known:
        (engine, _) = scenario(**{key: name}).fleet.engines()
        assert getattr(engine, key) == name


def test_request_level_batches_are_slower() -> None:
    assert summary(batching="static")["ttft_mean_s"] > 1.5 * summary()["ttft_mean_s"]


def test_decode_steps_delay_first_tokens() -> None:
    few, many = (summary(batching="slora", decode_steps=n) for n in (0, 60))
    assert many["ttft_mean_s"] > few["ttft_mean_s"]


def test_short_answers_first_wait_less() -> None:
    keys: dict[str, Any] = {"sigma": 0.0, "max_num_seqs": 4}
    assert summary(queue="sjf", **keys)["e2e_mean_s"] < 0.9 * summary(**keys)["e2e_mean_s"]


def test_room_that_is_reserved_is_not_preempted() -> None:
    assert summary(sigma=0.0)["preemptions"] > 0
    assert summary(sigma=0.0, admission="reserve")["preemptions"] == 0
    assert summary(sigma=1.0, admission="oracle")["preemptions"] == 0


@pytest.mark.parametrize("prediction", [{"overrun_tokens": 200}, {"overrun_percent": 300}])
def test_requests_that_outlive_their_prediction_keep_room(prediction: dict[str, int]) -> None:
    keys: dict[str, Any] = {"sigma": 1.5, "admission": "reserve"}
    usual = summary(**keys)["preemptions"]
    assert summary(**keys, prediction=prediction)["preemptions"] < usual


@pytest.mark.parametrize("keys", [{"adapter_tokens": 400}, {"kv_block_tokens": 512}])
def test_what_takes_room_delays(keys: dict[str, Any]) -> None:
    usual = summary(CLIENTS, max_num_seqs=64)
    other = summary(CLIENTS, max_num_seqs=64, **keys)
    assert other["queueing_mean_s"] > usual["queueing_mean_s"]


def test_a_narrow_ingress_delays() -> None:
    burst = MIX | {"rate": 500.0}
    keys: dict[str, Any] = {"kv_capacity_tokens": 30_000, "max_num_seqs": 128}
    slow = summary(burst, intake_per_iteration=1, **keys)
    assert slow["queueing_mean_s"] > summary(burst, **keys)["queueing_mean_s"]


def test_the_prefix_cache_finds_what_was_preempted() -> None:
    assert summary()["cached_tokens"] == 0
    assert summary(prefix_cache=True)["cached_tokens"] > 0


def test_instances_serve_the_model_that_they_name() -> None:
    groups = {
        name: {"preset": "v100-llama2-7b", "serves": serves}
        for name, serves in {"a": "seven", "b": "eight", "c": None}.items()
    }
    setting = parse_scenario(
        {
            "fleet": {"groups": groups},
            "workload": MIX,
            "clients": {"models": {"seven": 3, "eight": 1, "nine": 1}},
        }
    )
    result = run(setting)
    asked = np.array([result.table.model.names[code] for code in result.table.model.codes])
    assert set(result.requests["instance"][asked == "seven"]) == {0, 2}
    assert set(result.requests["instance"][asked == "eight"]) <= {1, 2}
    assert set(result.requests["instance"][asked == "nine"]) == {2}
    assert np.mean(asked == "seven") == pytest.approx(0.6, abs=0.1)
    assert result.table == setting.requests(1) != setting.requests(2)
    # Without the instance that serves any, nobody takes what asks for another model.
    del groups["c"]
    data = setting.model_dump(exclude_unset=True) | {"fleet": {"groups": groups}}
    assert run(parse_scenario(data)).summary()["rejected"] == np.sum(asked == "nine")


def test_models_of_the_workload_stay() -> None:
    setting = scenario(clients={"models": {"seven": 1}})
    table = setting.workload.build(0).replace(model="own")
    assert setting.complete(table, 0).model.names[-1] == "own"


def test_a_router_that_seldom_looks_is_slower() -> None:
    live, stale = (summary(router={"poll_interval_s": s}) for s in (0.0, 10.0))
    assert stale["e2e_mean_s"] > 1.1 * live["e2e_mean_s"]


def test_clients_that_wait_think_between_calls() -> None:
    keys: dict[str, Any] = {"kv_capacity_tokens": 30_000}
    usual = summary(CALLS, **keys)
    waiting = summary(CALLS, clients={"closed_loop": True, "think_s": 500.0}, **keys)
    assert usual["makespan_s"] < 500 < waiting["makespan_s"]
    assert usual["served"] == waiting["served"]


def test_a_rate_limit_rejects_and_ends_interactions() -> None:
    keys: dict[str, Any] = {"kv_capacity_tokens": 30_000}
    free, limited, killed = (
        summary(CALLS, rate_limit=limit, **keys)["limited"]
        for limit in (
            None,
            {"requests_per_minute": 30},
            {"requests_per_minute": 30, "kill_interactions": True},
        )
    )
    assert 0 == free < limited < killed


def test_tenants_have_weights() -> None:
    suite = CLIENTS | {"suite": "overload", "requests": 400}
    table = scenario(suite).requests(0)
    first, *others = table.tenant.names

    def mine(weight: float) -> float:
        setting = scenario(suite, clients={"weights": {first: weight}})
        fleet = [replace(e, queue=scheduler("vtc")) for e in setting.fleet.engines()]
        done = simulate(table, fleet, router("jsq"), **setting.options(table, 0)).requests
        by_first = table.tenant.codes == 0
        return float(np.mean(done["finish_ps"][by_first]))

    assert others
    assert mine(8.0) < mine(0.125)
    with pytest.raises(ScenarioError, match="no request is of tenant 'nobody'"):
        scenario(suite, clients={"weights": {"nobody": 1}}).options(table, 0)


def test_outages_send_requests_back() -> None:
    usual = summary()
    outages = [
        {"instance": 0, "start_s": 5, "end_s": 15},
        {"instance": 0, "start_s": 15, "end_s": 16},
    ]
    result = run(scenario(failures={"outages": outages}))
    assert result.requests["failures"].sum() > 0
    assert result.summary()["e2e_mean_s"] > usual["e2e_mean_s"]
    assert result.summary()["served"] == usual["served"]


def test_failures_by_chance_are_drawn_by_the_seed() -> None:
    means = {"mean_time_between_failures_s": 4.0, "mean_time_to_repair_s": 1.0}
    setting = scenario(failures=means)
    table = setting.requests(3)
    first, again, other = (setting.options(table, seed)["outages"] for seed in (3, 3, 4))
    assert first == again != other
    larger = scenario(failures=means, count=3).options(table, 3)["outages"]
    assert [o for o in larger if o.instance < 2] == first
    assert max(o.start_s for o in first) < table.arrival_s[-1]
    assert run(setting, 3).requests["failures"].sum() > 0


def test_mean_times_of_failures() -> None:
    means = {"mean_time_between_failures_s": 30.0, "mean_time_to_repair_s": 10.0}
    found = scenario(failures=means, count=1).failures.build(0, 4, 20_000.0)
    assert np.mean([o.end_s - o.start_s for o in found]) == pytest.approx(10.0, rel=0.1)
    assert len(found) == pytest.approx(4 * 20_000 / 40, rel=0.1)


def test_an_admission_policy_is_a_name_until_somebody_looks_it_up() -> None:
    keys: dict[str, Any] = {"gate": {"name": "oit", "tenant_limit": 3}, "retry": {"times": 2}}
    setting = scenario(**keys)
    table = setting.requests(0)
    given = setting.options(table, 0, gate)
    assert given["gate"] == gate("oit", tenant_limit=3)
    assert given["retry"] == Retry(times=2)
    assert parse_scenario(setting.model_dump(exclude_unset=True)) == setting
    with pytest.raises(ScenarioError, match="gate: nobody here knows the admission policy 'oit'"):
        setting.options(table, 0)
    with pytest.raises(ScenarioError, match="gate: admission policy 'oitt' is unknown"):
        scenario(gate={"name": "oitt"}).options(table, 0, gate)
    for values, message in (
        ({"tenant_limit": 3}, "gate.name: this key is required"),
        ({"name": "oit", "tenant_limit": "x"}, "gate.tenant_limit: must be a valid number"),
    ):
        with pytest.raises(ScenarioError, match=message):
            scenario(gate=values)


def test_weights_for_the_schedulers_that_read_them() -> None:
    table = scenario(CALLS).requests(0)
    np.testing.assert_array_equal(weights_for(scheduler("wsc"), table), application_weights(table))
    assert weights_for(scheduler("wsc_at_end"), table) is not None
    assert weights_for(scheduler("vtc"), table) is None
    assert weights_for(SCHEDULERS["fcfs"], table) is None


def test_schedulers_with_counters_are_the_same_everywhere() -> None:
    setting = scenario()
    table, fleet = setting.build(0)
    mixed = [replace(fleet[0], queue=scheduler("vtc")), fleet[1]]
    with pytest.raises(ValueError, match="all instances must have one scheduler, not fcfs, vtc"):
        simulate(table, mixed, router("jsq"))


DOWN = {"instance": 0, "start_s": 1, "end_s": 2}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "scheduler": ({"queue": "vtcc"}, "groups.a.queue: must be 'fcfs', 'sjf', .* not 'vtcc'"),
    "batching": ({"batching": "x"}, "groups.a.batching: must be 'prefill_first', 'chunked'"),
    "block": ({"kv_block_tokens": 0}, "groups.a.kv_block_tokens: .* not 0"),
    "model": ({"serves": ""}, "groups.a.serves"),
    "instance": ({"failures": {"outages": [DOWN | {"instance": 2}]}}, "no instance 2, .* 0 to 1"),
    "order": ({"failures": {"outages": [DOWN | {"end_s": 1}]}}, r"end_s .1. must be after"),
    "overlap": ({"failures": {"outages": [DOWN, DOWN]}}, "outages of instance 0 overlap"),
    "one mean": ({"failures": {"mean_time_to_repair_s": 1}}, "failures: .* give both"),
    "both kinds": (
        {
            "failures": {
                "outages": [DOWN],
                "mean_time_between_failures_s": 1,
                "mean_time_to_repair_s": 1,
            }
        },
        "not both",
    ),
    "unknown key": ({"failures": {"outage": []}}, "did you mean outages"),
    "thought": ({"clients": {"think_s": 1}}, "clients: .* add closed_loop: true"),
    "share": ({"clients": {"models": {"a": 0}}}, "clients.models.a: must be greater than 0"),
    "limit": ({"rate_limit": {"requests_per_minute": 0}}, "rate_limit.requests_per_minute"),
    "poll": ({"router": {"poll_interval_s": -1}}, "router.poll_interval_s"),
    "overrun": ({"prediction": {"overrun_percent": 40_000}}, "prediction.overrun_percent"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_faults_are_told(fault: str) -> None:
    keys, told = FAULTS[fault]
    with pytest.raises(ScenarioError, match=told):
        scenario(**copy.deepcopy(keys))


def test_too_many_failures_are_told_before_they_are_drawn() -> None:
    means = {"mean_time_between_failures_s": 1e-9, "mean_time_to_repair_s": 1e-9}
    table = RequestTable.from_columns(arrival_s=[0.0, 1e5], prompt_tokens=1, output_tokens=1)
    with pytest.raises(ScenarioError, match="raise mean_time_between_failures_s"):
        scenario(failures=means).options(table, 0)
