"""The simulator as users call it: whole runs, identities, saved states, errors, summaries."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.routing import router
from envs.hardware import OutsideFitWarning, preset
from envs.scenarios import load_scenario, seeds
from envs.simulator import EngineConfig, Simulation, simulate
from envs.simulator.layout import STATUS_TEXT
from envs.workloads import RequestTable, router_mix

COST = preset("v100-llama2-7b")


def engine(kv: int = 3_000, **options: object) -> EngineConfig:
    limits = {"max_num_seqs": 16, "max_batched_tokens": 2_048} | options
    return EngineConfig(cost=COST, kv_capacity_tokens=kv, **limits)  # type: ignore[arg-type]


def workload(n: int = 200, rate: float = 12.0, seed: int = 0) -> RequestTable:
    table = router_mix(n, rate, seed, max_output_tokens=500)
    return table.with_predictions(0.5, seed)


def random_callable(seed: int):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)

    def choose(now_ps, instances, requests, running, candidates, parameters, memory) -> int:  # type: ignore[no-untyped-def]
        return int(rng.integers(-1, len(instances) * len(candidates)))

    return choose


@pytest.mark.parametrize("batching", ["prefill_first", "chunked"])
@pytest.mark.parametrize("queue", ["fcfs", "sjf"])
def test_conservation_at_every_decision(batching: str, queue: str) -> None:
    fleet = [engine(batching=batching, queue=queue), engine(900, batching=batching)]
    simulation = Simulation(workload(), fleet, window=2)
    choose = random_callable(1)
    seen = 0
    while simulation.advance():
        counters = simulation.result().counters
        at_hand = sum(counters[k] for k in ("running", "waiting", "queued"))
        assert counters["arrived"] == counters["served"] + counters["rejected"] + at_hand
        simulation.apply(choose(0, fleet, None, None, [0, 1], None, None))
        seen += 1
    result = simulation.result()
    assert seen > 200 and result.counters["preemptions"] > 0
    assert result.counters["served"] + result.counters["rejected"] == 200


@pytest.mark.parametrize("name", ["round_robin", "jsq", "pull_sjf", "max_capacity"])
def test_littles_law(name: str) -> None:
    result = simulate(workload(), [engine()] * 3, router(name))
    total = float(result.latencies()["e2e_s"].sum())
    assert result.counters["request_seconds"] == pytest.approx(total, rel=1e-12)


def test_integral_is_kept_beyond_64_bits() -> None:
    """5,000 requests that wait for about 3,000 s are more request-picoseconds than 2^63."""
    table = RequestTable.from_columns(
        arrival_s=np.zeros(5_000), prompt_tokens=[500] * 5_000, output_tokens=[100] * 5_000
    )
    result = simulate(table, [engine(700)], router("jsq"))
    total = float(result.latencies()["e2e_s"].sum())
    assert total > 2**63 / 1e12
    assert result.counters["request_seconds"] == pytest.approx(total, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    cut=st.integers(0, 150),
    batching=st.sampled_from(["prefill_first", "chunked"]),
    order=st.sampled_from(["fcfs", "sjf"]),
    seed=st.integers(0, 5),
)
def test_saved_state_continues_to_the_same_end(
    cut: int, batching: str, order: str, seed: int
) -> None:
    fleet = [engine(batching=batching), engine(1_000)]
    simulation = Simulation(workload(80, seed=seed), fleet, queue_order=order)  # type: ignore[arg-type]
    policy = router("jsq")

    def proceed(run: Simulation, steps: int) -> None:
        arrays = [run.state.arrays[k] for k in ("instances", "requests", "running", "candidates")]
        memory = policy.memory(2, 0)
        for _ in range(steps):
            if not run.advance():
                return
            run.apply(policy.decide(0, *arrays, np.zeros(0), memory))

    proceed(simulation, cut)
    buffer = io.BytesIO()
    np.savez(buffer, **simulation.save())
    twin = simulation.fork()
    proceed(simulation, 10_000)
    expected = simulation.result().requests
    proceed(twin, 10_000)
    np.testing.assert_array_equal(twin.result().requests, expected)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as saved:
        simulation.restore(dict(saved))
    proceed(simulation, 10_000)
    np.testing.assert_array_equal(simulation.result().requests, expected)


def test_isolated_request_of_the_router_paper() -> None:
    """1,000 + 1,000 tokens take 17 s alone, 31 s with 500 + 500 every 50 iterations."""
    fleet = [EngineConfig(cost=COST, kv_capacity_tokens=30_000)]
    alone = RequestTable.from_columns(arrival_s=[0.0], prompt_tokens=[1_000], output_tokens=[1_000])
    result = simulate(alone, fleet, router("jsq"))
    assert result.summary()["e2e_mean_s"] == pytest.approx(17.0, rel=0.02)

    # Requests that arrive at the end of each 50th iteration of the first, by fixed point.
    arrivals = [0.0]
    for _ in range(19):
        table = RequestTable.from_columns(
            arrival_s=arrivals,
            prompt_tokens=[1_000] + [500] * (len(arrivals) - 1),
            output_tokens=[1_000] + [500] * (len(arrivals) - 1),
        )
        simulation = Simulation(table, fleet)
        while simulation.advance():
            simulation.apply(0)
        arrivals.append(_time_of_token(table, fleet, 50 * len(arrivals)))
    table = RequestTable.from_columns(
        arrival_s=arrivals,
        prompt_tokens=[1_000] + [500] * 19,
        output_tokens=[1_000] + [500] * 19,
    )
    first = simulate(table, fleet, router("jsq")).latencies()["e2e_s"][0]
    assert first == pytest.approx(31.0, rel=0.10)


def _time_of_token(table: RequestTable, fleet: list[EngineConfig], token: int) -> float:
    """When the first request has generated its n-th token: it ends there if it asks for n."""
    output = table.output_tokens.copy()
    output[0] = token
    result = simulate(table.replace(output_tokens=output), fleet, router("jsq"))
    return float(result.latencies()["e2e_s"][0])


def test_round_robin_in_the_papers_overload() -> None:
    """The paper's round robin needs 168-173 s for 2,000 requests at 20 a second.

    Its decode slope and the clip of its answers are not stated: 1.4 ms and 1,024 tokens, both in
    the range that the rest of the paper leaves open, give that.
    """
    scenario = load_scenario("router-kv30k-rate20", {"workload": {"max_output_tokens": 1_024}})
    cost = preset("v100-llama2-7b", 1.4e-3)
    spans = []
    for seed in seeds("evaluation", 10):
        table, fleet = scenario.build(seed)
        fleet = [dataclasses.replace(instance, cost=cost) for instance in fleet]
        spans.append(simulate(table, fleet, router("round_robin")).summary()["makespan_s"])
    assert np.mean(spans) == pytest.approx(170.5, rel=0.03)


def test_requests_that_fit_nowhere_are_rejected_with_a_reason() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0, 2.0], prompt_tokens=[10, 5_000, 10], output_tokens=[5, 5, 5_000]
    )
    result = simulate(table, [engine()], router("jsq"))
    frame = result.to_frame()
    assert frame["status"].tolist() == [STATUS_TEXT[0], STATUS_TEXT[1], STATUS_TEXT[1]]
    assert frame["finish_s"].isna().tolist() == [False, True, True]
    summary = result.summary()
    assert (summary["served"], summary["rejected"]) == (1, 2)


def test_predictions_are_asked_for() -> None:
    table = router_mix(5, 1.0, 0)
    with pytest.raises(ValueError, match="needs predicted_output_tokens"):
        simulate(table, [engine()], router("pull"))
    with pytest.raises(ValueError, match="shortest-predicted-first router queue"):
        simulate(table, [engine()], router("jsq+sjf"))
    with pytest.raises(ValueError, match="waiting queue 'sjf'"):
        simulate(table, [engine(queue="sjf")], router("jsq"))
    assert simulate(table, [engine()], router("jsq")).counters["served"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_capacity_tokens": 0}, "kv_capacity_tokens must be a whole number from 1"),
        ({"kv_capacity_tokens": 1000.7}, "kv_capacity_tokens must be a whole number"),
        ({"max_batched_tokens": 10**9}, "max_batched_tokens must be a whole number"),
        ({"price_per_hour": -1.0}, "price_per_hour must not be negative"),
        ({"watermark": 1.0}, "watermark must be in"),
        ({"batching": "dynamic"}, "batching must be one of"),
        ({"queue": "lifo"}, "queue must be one of"),
        ({"batching": "chunked", "max_batched_tokens": 8, "max_num_seqs": 9}, "at least"),
    ],
)
def test_bad_limits_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**({"cost": COST, "kv_capacity_tokens": 100} | options))  # type: ignore[arg-type]


def test_bad_options_are_named() -> None:
    table = workload(5)
    with pytest.raises(ValueError, match="no instance"):
        simulate(table, [], router("jsq"))
    with pytest.raises(ValueError, match="window must be a whole number from 1"):
        Simulation(table, [engine()], window=0)
    with pytest.raises(ValueError, match="interval must not be negative"):
        Simulation(table, [engine()], decision_interval_s=-1.0)


def test_summary_by_hand() -> None:
    """Two requests of 100 + 3 tokens, one after the other on an idle instance."""
    table = RequestTable.from_columns(
        arrival_s=[1.0, 2.0], prompt_tokens=[100, 100], output_tokens=[3, 1]
    )
    fleet = [engine(gpus=2, price_per_hour=3.6)]
    slo = (0.049, 1.0, 0.05)
    summary = simulate(table, fleet, router("jsq"), slo_s=slo).summary()
    first_token, step = 0.0167 + 0.032, 0.0167
    assert summary["ttft_mean_s"] == pytest.approx(first_token)
    assert summary["e2e_mean_s"] == pytest.approx(first_token + step)
    assert summary["tbt_p50_s"] == pytest.approx(step)
    assert summary["queueing_mean_s"] == 0.0
    assert summary["makespan_s"] == pytest.approx(1.0 + first_token)
    assert summary["output_tokens_per_s"] == pytest.approx(4 / (1.0 + first_token))
    assert summary["slo_attainment"] == 0.5
    assert summary["goodput_tokens_per_s"] == pytest.approx(1 / (1.0 + first_token))
    assert summary["gpu_hours"] == pytest.approx(2 * (1.0 + first_token) / 3600)
    assert summary["dollars"] == pytest.approx(0.001 * (1.0 + first_token))


def test_memory_of_a_result() -> None:
    """The kernel keeps at most 100 bytes a request."""
    state = Simulation(workload(50), [engine()]).state
    per_request = state.arrays["requests"].itemsize + state.arrays["output"].itemsize
    assert per_request <= 100


def test_decisions_are_only_taken_when_they_are_due() -> None:
    simulation = Simulation(workload(20), [engine()] * 2)
    with pytest.raises(ValueError, match="no decision is due"):
        simulation.apply(0)
    assert simulation.advance()
    simulation.apply(0)
    with pytest.raises(ValueError, match="no decision is due"):
        simulation.apply(0)
    while simulation.advance():
        simulation.apply(1)
    with pytest.raises(ValueError, match="no decision is due"):
        simulation.apply(0)
    assert simulation.result().counters["served"] == 20


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_are_independent(copied: Callable[[Simulation], Simulation]) -> None:
    simulation = Simulation(workload(60), [engine()] * 2)
    for _ in range(20):
        simulation.advance()
        simulation.apply(0)
    before = simulation.result().requests.copy()
    twin = copied(simulation)
    twin.run(router("jsq"))
    np.testing.assert_array_equal(simulation.result().requests, before)
    simulation.run(router("jsq"))
    np.testing.assert_array_equal(simulation.result().requests, twin.result().requests)


@pytest.mark.parametrize("options", [{}, {"window": 3, "poll_interval_s": 0.5}])
def test_simulations_of_a_fleet_share_step_times_alone(options: dict[str, float]) -> None:
    fleet = [engine(), engine(900, queue="sjf")]
    first, second = (Simulation(workload(60), fleet, **options) for _ in range(2))  # type: ignore[arg-type]
    for name, array in first.state.arrays.items():
        shared = np.shares_memory(array, second.state.arrays[name])
        assert shared == (name == "tables"), name
    untouched = second.save()["digest"]
    expected = first.run(router("jsq")).requests
    np.testing.assert_array_equal(second.save()["digest"], untouched)
    third = Simulation(workload(60), fleet, **options)  # type: ignore[arg-type]
    for simulation in (second, third):
        np.testing.assert_array_equal(simulation.run(router("jsq")).requests, expected)


def test_summary_of_a_simulation_is_that_of_its_result() -> None:
    simulation = Simulation(workload(60), [engine(), engine(500)])
    for step in range(90):
        if simulation.advance():
            simulation.apply(step % 2)
        if step % 30 == 0:
            expected = simulation.result().summary()
            assert repr(simulation.summary()) == repr(expected)  # NaN is not equal to itself


def test_restored_state_runs_compiled() -> None:
    simulation = Simulation(workload(60), [engine()] * 2)
    buffer = io.BytesIO()
    np.savez(buffer, **simulation.save())
    expected = simulation.run(router("jsq")).requests
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as saved:
        simulation.restore(saved)
    np.testing.assert_array_equal(simulation.run(router("jsq")).requests, expected)


def test_damaged_states_are_refused() -> None:
    simulation = Simulation(workload(60), [engine()] * 2)
    saved = simulation.save()
    for name in ("running", "winner"):
        damaged = saved | {name: np.full_like(saved[name], 1_000_000)}
        with pytest.raises(ValueError, match="its digest is not that of its values"):
            simulation.restore(damaged)
    head = saved["head"].copy()
    head["count"] = 10_000
    with pytest.raises(ValueError, match="another simulation: count"):
        simulation.restore(saved | {"head": head})
    with pytest.raises(ValueError, match="of another simulation"):
        Simulation(workload(61), [engine()] * 2).restore(saved)
    with pytest.raises(ValueError, match="has no array 'tables'"):
        simulation.restore({name: a for name, a in saved.items() if name != "tables"})


def test_end_of_the_clock_is_an_error() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0], prompt_tokens=[10], output_tokens=[2_000_000_000]
    )
    with pytest.raises(ValueError, match="beyond the clock's 106 days"):
        simulate(table, [engine(2**40)], router("jsq"))
    late = table.replace(arrival_s=[9e6], output_tokens=[13_000_000])
    with pytest.raises(ValueError, match="beyond the clock's 106 days"):
        simulate(late, [engine(2**40)], router("jsq"))
    early = late.replace(arrival_s=[8.9e6])
    assert simulate(early, [engine(2**40)], router("jsq")).counters["served"] == 1


@pytest.mark.parametrize("seconds", [float("nan"), 1e-13, 1e9])
def test_impossible_intervals_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"NaN|decision interval"):
        Simulation(workload(5), [engine()], decision_interval_s=seconds)


def test_use_outside_the_fitted_range_warns_once_of_what_was_reached() -> None:
    cost = dataclasses.replace(COST, name="narrow", fit_seqs=4, fit_tokens=100, fit_context=300)
    small = RequestTable.from_columns(
        arrival_s=[0.0, 0.0], prompt_tokens=[40, 40], output_tokens=[50, 50]
    )
    fleet = [EngineConfig(cost=cost, kv_capacity_tokens=30_000)]
    simulate(small, fleet, router("jsq"))  # inside: the limits of the engine do not matter
    with pytest.warns(OutsideFitWarning, match=r"16 sequences .fitted to 4.*tokens a step"):
        table = RequestTable.from_columns(
            arrival_s=np.zeros(16), prompt_tokens=[40] * 16, output_tokens=[50] * 16
        )
        simulate(table, fleet, router("jsq"))
    simulate(table, fleet, router("jsq"))
