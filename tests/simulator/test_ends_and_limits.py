"""Ends of runs, the range of the clock, and options that are refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest

from baselines.routing import router
from envs.scenarios import load_scenario
from envs.simulator import EngineConfig, Outage, RateLimit, Simulation, simulate
from envs.simulator.state import _digest
from envs.simulator.streaming import replay
from envs.workloads import RequestTable
from tests.simulator.both import Run, case, column, engine, on_both
from tests.simulator.case import Row
from tests.simulator.test_simulation import engine as one_engine

JSQ = router("jsq")


def table(arrival_s: list[float], **columns: Any) -> RequestTable:
    """Give requests of ten prompt and ten output tokens."""
    return RequestTable.from_columns(
        arrival_s=arrival_s, prompt_tokens=10, output_tokens=10, **columns
    )


@on_both
def test_all_whose_prefill_completes_use_the_prefix_before_one_leaves(run: Run) -> None:
    """The first ends with its prefill; the second keeps all ten tokens of the prefix alive."""
    rows = [
        Row(0, 10, 1, prefix=5, prefix_tokens=10),
        Row(0, 10, 3, prefix=5, prefix_tokens=5),
        Row(5000, 12, 1, prefix=5, prefix_tokens=10),
    ]
    trace = run(case(rows, [engine(kv_capacity_tokens=20, prefix_cache=True, watermark=0.0)]))
    assert trace.cached_tokens == 10
    assert column(trace, "finish_ps")[2] == 5102


def test_an_outage_after_the_last_finish_changes_nothing() -> None:
    plain = simulate(table([0.0, 1.0]), [one_engine()], JSQ)
    later = simulate(table([0.0, 1.0]), [one_engine()], JSQ, outages=[Outage(0, 1e3, 9e5)])
    assert np.array_equal(plain.requests, later.requests)
    assert later.counters == plain.counters


def test_intervals_beyond_the_clock_are_refused() -> None:
    for name in ("decision", "poll"):
        with pytest.raises(ValueError, match=f"a {name} interval is 0, or from"):
            simulate(table([2e6]), [one_engine()], JSQ, **{f"{name}_interval_s": 8e6})


def test_outages_must_last_and_end_within_the_clock() -> None:
    for start_s, end_s in ((0.0, 1e-13), (1.0, 1e9), (2.0, 1.0)):
        with pytest.raises(ValueError, match="an outage begins at 0 s or later"):
            Outage(0, start_s, end_s)


def test_a_think_time_beyond_the_clock_is_told() -> None:
    calls = table(
        [300_000.0, 300_001.0], interaction=[1, 1], call_index=[0, 1], calls_in_interaction=2
    )
    with pytest.raises(ValueError, match="beyond the clock"):
        simulate(calls, [one_engine()], JSQ, closed_loop=True, think_s=9e6)


def test_every_part_of_a_stream_needs_predictions() -> None:
    first = table([0.0, 1.0], predicted_output_tokens=10)
    parts = [first, table([2.0, 3.0]), table([4.0, 5.0])]
    with pytest.raises(ValueError, match="needs predicted_output_tokens"):
        replay(parts, [one_engine()], router("pull"))


def test_the_outcome_of_closed_loop_clients_has_their_times() -> None:
    calls = table([0.0, 0.1], interaction=[1, 1], call_index=[0, 1], calls_in_interaction=2)
    result = simulate(calls, [one_engine()], JSQ, closed_loop=True, think_s=100.0)
    frame = result.to_frame()
    assert frame["due_s"].tolist() == [0.0, 0.1]
    assert frame["arrival_s"][1] == pytest.approx(frame["finish_s"][0] + 100.0)
    assert frame["failures"].tolist() == [0, 0]


def test_a_limit_that_nobody_reaches_takes_no_memory() -> None:
    many = table(np.arange(50.0).tolist(), tenant=[f"t{k % 10}" for k in range(50)])
    simulation = Simulation(many, [one_engine()], rate_limit=RateLimit(2**20))
    assert simulation.state.arrays["entries"].nbytes < 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_order": "lifo"}, "queue_order must be one of"),
        ({"overrun_tokens": 1.5}, "overrun_tokens must be a whole number"),
        ({"slo_s": (-1.0, 1.0, 1.0)}, "slo_s is"),
        ({"slo_s": (1.0, 2.0)}, "slo_s is"),
        ({"window": 10**9}, "window must be a whole number"),
        ({"weights": [1.0, np.inf]}, "weights must hold 2 positive numbers"),
        ({"think_s": [1.0, 2.0, 3.0], "closed_loop": True}, "think_s is one number or 2"),
        ({"outages": [Outage(3, 0.0, 1.0)]}, "an outage is of instance 3"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate(table([0.0, 1.0]), [one_engine()], JSQ, **options)


def test_a_truth_value_is_no_limit() -> None:
    with pytest.raises(ValueError, match="max_num_seqs must be a whole number"):
        EngineConfig(cost=one_engine().cost, kv_capacity_tokens=100, max_num_seqs=True)


@pytest.mark.parametrize(
    ("name", "field"),
    [("requests", "right"), ("engines", "root"), ("running", ...), ("winner", ...)],
)
def test_indices_are_checked_beside_the_digest(name: str, field: Any) -> None:
    simulation = Simulation(*load_scenario("router-kv6k-rate8").build(1))
    saved = simulation.save()
    saved[name][field] = 10**6
    saved["digest"] = _digest(saved)
    with pytest.raises(ValueError, match="an index in it is out of range"):
        simulation.restore(saved)


def test_vector_environments_are_not_copied() -> None:
    envs = gymnasium.make_vec("envs:ServeGym/Routing-v0", num_envs=2).unwrapped
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            attempt(envs)  # type: ignore[operator]
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="whole numbers"):
        envs.step(np.array([0.5, 1.0]))
