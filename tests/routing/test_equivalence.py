"""A policy is written once: behind the environment it does what it does in the kernel."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.routing import default_benchmark_set
from envs.routing.actor import PolicyActor
from envs.routing.env import RoutingEnv
from envs.simulator import RoutingPolicy, simulate
from tests.routing.situations import play, scenario

SEED = 1_000_003
POLICIES = {policy.name: policy for policy in default_benchmark_set()}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_environment_equals_kernel(name: str) -> None:
    policy: RoutingPolicy = POLICIES[name]
    setting = scenario(instances=3, requests=60, rate=12.0, kv=1_500)
    table, fleet = setting.build(SEED)
    expected = simulate(table, fleet, policy, seed=7).requests

    env = RoutingEnv(
        setting,
        queue_order=policy.queue_order,
        decision_interval_s=policy.decision_interval_s,
        window=policy.window,
        max_instances=5,
    )
    seen = table.with_predictions(sigma=0) if policy.oracle else table
    play(env, PolicyActor(policy, seed=7), options={"trace": seen})
    np.testing.assert_array_equal(env.result().requests, expected)


def test_actor_starts_each_episode_afresh() -> None:
    env = RoutingEnv(scenario(requests=31))
    actor = PolicyActor(POLICIES["round_robin"])
    runs = []
    for _ in range(2):
        play(env, actor, options={"workload_seed": SEED})
        runs.append(env.result().requests["instance"].tolist())
    assert runs[0] == runs[1]


def test_actor_asks_for_the_window_that_its_policy_needs() -> None:
    env = RoutingEnv(scenario())
    env.reset(seed=0)
    wide = next(policy for policy in POLICIES.values() if policy.window > 1)
    with pytest.raises(ValueError, match=f"window={wide.window}"):
        PolicyActor(wide)(env)
