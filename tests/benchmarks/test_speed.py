"""Micro-benchmarks: `pytest tests/benchmarks --benchmark-enable -s`.

Without that flag each runs once, as a test that it still runs. Each prints its cost beside that of
something else measured in the same run, since alone it says more of the machine than of the code.
Nothing timed is asserted. Figures for people come from `servegym benchmark speed`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from baselines.routing import router
from baselines.scheduling import scheduler
from envs.hardware import preset
from envs.routing.env import RoutingEnv
from envs.routing.vector import RoutingVectorEnv
from envs.simulator import EngineConfig, Simulation
from envs.simulator.streaming import replay
from envs.workloads import RequestTable, router_mix

ENGINE = EngineConfig(
    cost=preset("v100-llama2-7b"),
    kv_capacity_tokens=30_000,
    max_num_seqs=128,
    max_batched_tokens=4_096,
)
REQUESTS = 5_000
SCENARIO = "router-kv6k-rate9"

Beside = Callable[[str, float], None]
_COSTS: dict[str, dict[str, float]] = {}


@pytest.fixture
def beside(benchmark: Any, request: pytest.FixtureRequest) -> Iterator[Beside]:
    """Call with a group's name and the number of things done: prints the cost over the first's."""
    told: list[tuple[str, float]] = []
    yield lambda group, count: told.append((group, count))
    if benchmark.disabled or not told:
        return
    (group, count), name = told[0], request.node.name
    costs = _COSTS.setdefault(group, {})
    costs[name] = benchmark.stats.stats.median / count
    first = next(iter(costs))
    benchmark.extra_info["ns_each"] = 1e9 * costs[name]
    benchmark.extra_info["over_the_first"] = costs[name] / costs[first]
    print(f"\n{group}: {name} {1e9 * costs[name]:,.0f} ns, x {costs[name] / costs[first]:.2f} "
          f"of {first}")  # fmt: skip


def workload(instances: int, requests: int = REQUESTS) -> RequestTable:
    return router_mix(requests, 2.5 * instances, 0).with_predictions(0.5, 0)


def measure(benchmark: Any, table: RequestTable, fleet: list[EngineConfig], name: str) -> None:
    policy = router(name)
    policy.compiled  # noqa: B018 - compile outside the measurement

    def fresh() -> tuple[tuple[Simulation], dict[str, Any]]:
        return (Simulation(table, fleet),), {}

    result = benchmark.pedantic(lambda run: run.run(policy), setup=fresh, rounds=5)
    assert result.counters["served"] == len(table)


@pytest.mark.parametrize("instances", [4, 64, 240])
@pytest.mark.parametrize("name", ["jsq", "least_kv", "pull"])
def test_replay(benchmark: Any, beside: Beside, name: str, instances: int) -> None:
    measure(benchmark, workload(instances), [ENGINE] * instances, name)
    beside("a request", REQUESTS)


KINDS: dict[str, dict[str, Any]] = {
    "prefill_first": {},
    "chunked": {"batching": "chunked"},
    "slora": {"batching": "slora"},
    "slora with counters": {"batching": "slora", "queue": scheduler("vtc")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_replay_by_engine(benchmark: Any, beside: Beside, kind: str) -> None:
    engine = dataclasses.replace(ENGINE, **KINDS[kind])
    tenants = [f"tenant {k}" for k in np.random.default_rng(0).integers(0, 27, REQUESTS)]
    measure(benchmark, workload(4).replace(tenant=tenants), [engine] * 4, "jsq")
    beside("a request by engine", REQUESTS)


@pytest.mark.parametrize("rows", [REQUESTS, 500, 50])
def test_change_of_parts(benchmark: Any, beside: Beside, rows: int) -> None:
    """The same stream in one part and in many: the difference is what a change of parts costs."""
    table, policy = workload(4), router("jsq")
    parts = [table[start : start + rows] for start in range(0, REQUESTS, rows)]
    result = benchmark.pedantic(lambda: replay(parts, [ENGINE] * 4, policy), rounds=3)
    assert result.counters["served"] == REQUESTS
    beside("a streamed request", REQUESTS)


def under_way() -> Simulation:
    simulation = Simulation(workload(4), [ENGINE] * 4)
    for number in range(500):
        simulation.advance()
        simulation.apply(number % 4)
    return simulation


@pytest.mark.parametrize("what", ["fork", "save", "restore"])
def test_copies(benchmark: Any, beside: Beside, what: str) -> None:
    simulation = under_way()
    saved = simulation.save()
    calls: dict[str, Callable[[], object]] = {
        "fork": simulation.fork,
        "save": simulation.save,
        "restore": lambda: simulation.restore(saved),
    }
    benchmark(calls[what])
    beside(f"a copy of {REQUESTS} requests", 1)


def test_environment_step(benchmark: Any, beside: Beside) -> None:
    env = RoutingEnv(SCENARIO)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 4, 200)

    def steps() -> None:
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    benchmark(steps)
    beside("a decision", actions.size)


def test_cartpole_step(benchmark: Any, beside: Beside) -> None:
    """What an environment step is held against."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, 200)

    def steps() -> None:
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    benchmark(steps)
    beside("a decision", actions.size)


@pytest.mark.parametrize("kind", ["native", "sync"])
def test_vector_step(benchmark: Any, beside: Beside, kind: str) -> None:
    """64 copies in one compiled call, and in Gymnasium's loop over single environments."""
    env: gymnasium.vector.VectorEnv[Any, Any, Any]
    if kind == "native":
        env = RoutingVectorEnv(64, scenario=SCENARIO)
    else:
        env = gymnasium.vector.SyncVectorEnv([lambda: RoutingEnv(SCENARIO)] * 64)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 4, (50, 64))

    def steps() -> None:
        for chosen in actions:
            env.step(chosen)

    benchmark.extra_info["decisions"] = actions.size
    benchmark(steps)
    beside("a decision", actions.size)


@pytest.mark.parametrize("max_instances", [4, 64])
def test_observation(benchmark: Any, beside: Beside, max_instances: int) -> None:
    """A held decision is an observation and little else; more rows are more to write."""
    env = RoutingVectorEnv(64, scenario=SCENARIO, max_instances=max_instances, copy=False)
    env.reset(seed=0)
    masked = np.full(64, -1)  # what is not allowed becomes a hold

    def steps() -> None:
        for _ in range(20):
            env.step(masked)

    benchmark(steps)
    beside("a held decision", 20 * 64)


def test_reset(benchmark: Any, beside: Beside) -> None:
    """An episode of 2,000 requests begins anew."""
    env = RoutingEnv(SCENARIO)
    benchmark(lambda: env.reset(seed=0))
    beside("a request laid out", 2_000)


def test_summary(benchmark: Any, beside: Beside) -> None:
    """What an episode's end costs: the metrics of 2,000 requests."""
    result = Simulation(workload(4, 2_000), [ENGINE] * 4).run(router("jsq"))
    benchmark(result.summary)
    beside("a request laid out", 2_000)
