"""Micro-benchmarks: `pytest tests/benchmarks --benchmark-enable`.

Without that flag each runs once, as a test that it still runs. Figures for people come from
`servegym benchmark speed`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from baselines.routing import router
from envs.hardware import preset
from envs.routing.env import RoutingEnv
from envs.routing.vector import RoutingVectorEnv
from envs.simulator import EngineConfig, Simulation
from envs.workloads import RequestTable, router_mix

ENGINE = EngineConfig(
    cost=preset("v100-llama2-7b"),
    kv_capacity_tokens=30_000,
    max_num_seqs=128,
    max_batched_tokens=4_096,
)


def workload(instances: int, requests: int) -> RequestTable:
    return router_mix(requests, 2.5 * instances, 0).with_predictions(0.5, 0)


@pytest.mark.parametrize("instances", [4, 64])
@pytest.mark.parametrize("name", ["jsq", "least_kv", "pull"])
def test_replay(benchmark: Any, name: str, instances: int) -> None:
    table, policy = workload(instances, 5_000), router(name)
    policy.compiled  # noqa: B018 - compile outside the measurement

    def fresh() -> tuple[tuple[Simulation], dict[str, Any]]:
        return (Simulation(table, [ENGINE] * instances),), {}

    result = benchmark.pedantic(lambda run: run.run(policy), setup=fresh, rounds=5)
    assert result.counters["served"] == 5_000


def test_environment_step(benchmark: Any) -> None:
    env = RoutingEnv("router-kv6k-rate9")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 4, 200)

    def steps() -> None:
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    benchmark(steps)


@pytest.mark.parametrize("kind", ["native", "sync"])
def test_vector_step(benchmark: Any, kind: str) -> None:
    """64 copies in one compiled call, and in Gymnasium's loop over single environments."""
    scenario = "router-kv6k-rate9"
    env: gymnasium.vector.VectorEnv[Any, Any, Any]
    if kind == "native":
        env = RoutingVectorEnv(64, scenario=scenario)
    else:
        env = gymnasium.vector.SyncVectorEnv([lambda: RoutingEnv(scenario)] * 64)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 4, (50, 64))

    def steps() -> None:
        for chosen in actions:
            env.step(chosen)

    benchmark.extra_info["decisions"] = actions.size
    benchmark(steps)


def test_cartpole_step(benchmark: Any) -> None:
    """What an environment step is held against."""
    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, 200)

    def steps() -> None:
        for action in actions:
            if env.step(action)[2]:
                env.reset()

    benchmark(steps)
