"""A streamed replay gives what one simulation of the whole gives, whatever the parts."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.routing import router
from envs.hardware import preset
from envs.simulator import HOLD, EngineConfig, RateLimit, RoutingPolicy, simulate
from envs.simulator.streaming import OUTCOME_DTYPE, StreamResult, replay
from envs.workloads import RequestTable, predicted_parts, router_mix_parts
from tests.fuzzing import Effort, efforts
from tests.simulator.both import ENGINE
from tests.simulator.cases import NumpySource, build_case
from tests.simulator.differential import kernel_options, kernel_table

QUEUES = ("fcfs", "fcfs", "sjf", "srpt", "pf")
FIELDS = [n for n in OUTCOME_DTYPE.names or () if n not in ("row", "prompt_tokens")]
FIELDS.remove("output_tokens")


def _script(
    now_ps: int,
    instances: Any,
    requests: Any,
    running: Any,
    candidates: Any,
    parameters: Any,
    memory: Any,
) -> int:
    """Hold, or dispatch anything anywhere, as the number of the decision and the time say."""
    memory[1] += 1
    mixed = (memory[0] * 7919 + memory[1] * 104729 + now_ps // 7) % 1000003
    if mixed % 100 < parameters[0]:
        return HOLD
    return mixed % (len(candidates) * len(instances))


ROUTERS = [
    *(router(name) for name in ("jsq", "pull", "round_robin", "least_kv")),
    RoutingPolicy("script", _script, (30.0,)),
]


def streamed(
    table: RequestTable, sizes: list[int], *args: Any, **options: Any
) -> tuple[np.ndarray, StreamResult]:
    """The outcomes of a table served in parts of these sizes, in table order."""
    found: list[np.ndarray] = []
    result = replay(cut(table, sizes), *args, write=found.append, **options)
    outcomes = np.concatenate(found)
    return outcomes[np.argsort(outcomes["row"])], result


def cut(table: RequestTable, sizes: list[int]) -> Iterator[RequestTable]:
    start, number = 0, 0
    while start < len(table):
        yield table[start : start + sizes[number % len(sizes)]]
        start += sizes[number % len(sizes)]
        number += 1


def assert_equal(
    table: RequestTable,
    sizes: list[int],
    fleet: list[EngineConfig],
    rule: RoutingPolicy,
    **opts: Any,
) -> None:
    whole = simulate(table, fleet, rule, **opts)
    outcomes, result = streamed(table, sizes, fleet, rule, **opts)
    assert outcomes["row"].tolist() == list(range(len(table)))
    for field in FIELDS:
        assert np.array_equal(outcomes[field], whole.requests[field]), field
    assert np.array_equal(outcomes["output_tokens"], table.output_tokens)
    assert result.counters == whole.counters
    summary = whole.summary()
    assert result.summary()["makespan_s"] == summary["makespan_s"]


@efforts
def test_any_parts_of_any_case(effort: Effort) -> None:
    @effort(60)
    @given(
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(1, 12), min_size=1, max_size=5),
        st.sampled_from(ROUTERS),
    )
    def check(seed: int, sizes: list[int], rule: RoutingPolicy) -> None:
        source = NumpySource(np.random.default_rng(seed))
        case = build_case(source)
        queue = source.choice(QUEUES)
        fleet = [
            dataclasses.replace(engine, queue=queue, adapter_tokens=0, prefix_cache=False).config()
            for engine in case.fleet
        ]
        plain = dataclasses.replace(
            case, closed_loop=False, rate_limit=None, poll_ps=0, judges=None
        )
        options = kernel_options(plain)
        options.pop("weights", None)
        options.pop("tenant_weights", None)
        assert_equal(kernel_table(case), sizes, fleet, rule, **options)

    check()


def fleet_of(count: int, **changes: Any) -> list[EngineConfig]:
    return [dataclasses.replace(ENGINE, **changes).config()] * count


def test_requests_that_arrive_together_stay_together() -> None:
    """Every part ends within an instant: the routers must not see its rest later."""
    table = RequestTable.from_columns(
        arrival_s=np.repeat([0.0, 1e-9, 1e-9, 2e-9], 4),
        prompt_tokens=np.tile([3, 1, 9], 6)[:16],
        output_tokens=np.tile([5, 2, 8, 1, 4], 4)[:16],
        predicted_output_tokens=np.tile([5, 2, 8, 1, 4], 4)[:16],
    )
    for rule in ROUTERS:
        for size in (1, 3, 5, 16):
            assert_equal(table, [size], fleet_of(2), rule, queue_order="sjf", window=2)


def test_an_oracle_sees_the_truth() -> None:
    table = next(router_mix_parts(300, 20.0))
    oracle = dataclasses.replace(router("pull"), oracle=True, queue_order="sjf")
    assert_equal(table, [70], fleet_of(2, kv_capacity_tokens=9000), oracle)


V100 = EngineConfig(cost=preset("v100-llama2-7b"), kv_capacity_tokens=10**6)


def part_stream(requests: int, rows: int) -> Iterator[RequestTable]:
    return predicted_parts(router_mix_parts(requests, 120.0, 0, rows))


def test_memory_follows_what_is_in_flight_not_the_stream() -> None:
    def peak(requests: int) -> tuple[int, StreamResult]:
        tracemalloc.start()
        try:
            result = replay(part_stream(requests, 1000), [V100] * 60, router("jsq"))
            return tracemalloc.get_traced_memory()[1], result
        finally:
            tracemalloc.stop()

    peak(3000)
    short, _ = peak(6000)
    long, result = peak(30_000)
    assert result.counters["served"] == 30_000
    assert result.most_held <= result.most_in_flight + 1000 + 1
    assert long < 1.2 * short + 1e6


def test_the_histograms_agree_with_the_whole() -> None:
    table = next(part_stream(4000, 4000))
    fleet = [V100] * 60
    whole = simulate(table, fleet, router("jsq")).summary()
    summary = streamed(table, [500], fleet, router("jsq"))[1].summary()
    for name in ("ttft", "e2e"):
        assert summary[f"{name}_mean_s"] == pytest.approx(whole[f"{name}_mean_s"])
        for percent in (50, 90, 95, 99):
            key = f"{name}_p{percent}_s"
            assert summary[key] == pytest.approx(whole[key], rel=0.011)


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"closed_loop": True}, {}),
        ({"poll_interval_s": 1.0}, {}),
        ({"rate_limit": RateLimit(requests_per_minute=5)}, {}),
        ({}, {"queue": "edf"}),
        ({}, {"prefix_cache": True}),
        ({}, {"adapter_tokens": 5}),
    ],
)
def test_what_needs_the_whole_table_is_refused(
    options: dict[str, Any], engine: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="simulate the whole table"):
        replay(part_stream(10, 5), fleet_of(1, **engine), router("jsq"), **options)


def test_wrong_streams_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no requests"):
        replay([], fleet_of(1), router("jsq"))
    table = next(part_stream(10, 10))
    with pytest.raises(ValueError, match="must follow in time"):
        replay([table, table], fleet_of(1), router("jsq"))
    bare = next(router_mix_parts(10))
    with pytest.raises(ValueError, match="predicted_output_tokens"):
        replay([bare], fleet_of(1), router("pull"), queue_order="sjf")
