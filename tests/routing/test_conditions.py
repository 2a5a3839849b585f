"""The environment under polling, failures, models, limits and waiting clients."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401 - registers the ids
from baselines.routing import router
from envs.routing.actor import PolicyActor
from envs.routing.env import RoutingEnv
from envs.routing.layout import INSTANCE_FEATURES
from envs.routing.vector import RoutingVectorEnv
from envs.scenarios import Scenario, parse_scenario
from envs.simulator import simulate
from tests.routing.situations import play, random_actions

SEED = 1_000_005
PRESET = {"preset": "v100-llama2-7b", "kv_capacity_tokens": 2_000, "max_num_seqs": 16}
MIX = {"kind": "router_mix", "rate": 10.0, "requests": 80, "max_output_tokens": 300}
CALLS = {"kind": "copilot", "requests": 120, "users": 9, "duration_s": 20}
UNEQUAL = {
    "groups": {
        "big": PRESET | {"kv_capacity_tokens": 6_000, "serves": "seven", "queue": "srpt"},
        "small": PRESET | {"count": 2, "kv_block_tokens": 16, "prefix_cache": True},
        "slow": PRESET | {"batching": "static", "serves": "eight"},
    }
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "polling": {"router": {"poll_interval_s": 0.7}},
    "outages": {
        "failures": {
            "outages": [
                {"instance": 0, "start_s": 1.0, "end_s": 4.0},
                {"instance": 1, "start_s": 2.0, "end_s": 3.0},
            ]
        }
    },
    "random failures": {
        "failures": {"mean_time_between_failures_s": 3.0, "mean_time_to_repair_s": 1.0}
    },
    "models": {"fleet": UNEQUAL, "clients": {"models": {"seven": 2, "eight": 1, "default": 1}}},
    "limit": {
        "workload": CALLS,
        "rate_limit": {"requests_per_minute": 6, "kill_interactions": True},
    },
    "closed loop": {"workload": CALLS, "clients": {"closed_loop": True, "think_s": 0.5}},
    "overrun": {"prediction": {"sigma": 1.0, "overrun_tokens": 10, "overrun_percent": 30}},
    "all": {
        "fleet": UNEQUAL,
        "workload": CALLS,
        "router": {"poll_interval_s": 0.3},
        "clients": {"closed_loop": True, "models": {"seven": 1, "eight": 1}},
        "rate_limit": {"requests_per_minute": 20},
        "failures": {"mean_time_between_failures_s": 5.0, "mean_time_to_repair_s": 1.0},
    },
}


def scenario(name: str) -> Scenario:
    usual = {"fleet": {"groups": {"v100": PRESET | {"count": 3}}}, "workload": MIX}
    return parse_scenario(usual | CONDITIONS[name], f"under {name}")


@pytest.mark.parametrize("rule", ["jsq", "pull_sjf", "power_of_two"])
@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_environment_equals_kernel(name: str, rule: str) -> None:
    setting, policy = scenario(name), router(rule)
    table, fleet = setting.build(SEED)
    given = setting.options(table, SEED)
    expected = simulate(table, fleet, policy, seed=7, **given).requests
    env = RoutingEnv(setting, queue_order=policy.queue_order, max_instances=5)
    play(env, PolicyActor(policy, seed=7), options={"workload_seed": SEED})
    np.testing.assert_array_equal(env.result().requests, expected)


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_vector_copies_equal_single_environments(name: str) -> None:
    setting = scenario(name)
    single = RoutingEnv(setting)
    batch = RoutingVectorEnv(2, scenario=setting, autoreset_mode="Disabled")
    options = {"workload_seed": SEED}
    episode = play(single, random_actions(0), options=options)
    observed, _ = batch.reset(seed=0, options=options)
    for step, action in enumerate(episode.actions):
        for key, value in episode.observations[step].items():
            np.testing.assert_array_equal(observed[key][1], value)
        observed, rewards, ended, _, _ = batch.step([action, action])
        assert rewards[0] == rewards[1] == episode.rewards[step]
    assert ended.all()


@pytest.mark.parametrize("name", ["models", "all", "outages"])
def test_gymnasium_finds_no_fault(name: str) -> None:
    env = gymnasium.make("ServeGym/Routing-v0", scenario=scenario(name)).unwrapped
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*For Box.*")
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_some_action_is_always_allowed_and_obeyed(name: str) -> None:
    env = RoutingEnv(scenario(name), window=3)
    actor = random_actions(1)

    def checked(env: RoutingEnv) -> int:
        assert env.action_masks().any()
        return actor(env)

    episode = play(env, checked, seed=4)
    assert episode.terminated
    for observation in episode.observations:
        assert env.observation_space.contains(observation)
    allowed = [info["action_obeyed"] for info in episode.infos]
    assert np.mean(allowed) > 0.9


def test_observations_are_those_of_the_last_look_and_masks_live() -> None:
    outages = {"outages": [{"instance": 0, "start_s": 0.3, "end_s": 0.9}]}
    data = {
        "fleet": {"groups": {"v100": PRESET | {"count": 2}}},
        "workload": MIX | {"arrivals": "uniform"},
        "router": {"poll_interval_s": 1.0},
        "failures": outages,
    }
    env = RoutingEnv(parse_scenario(data))
    waiting = [f.name for f in INSTANCE_FEATURES].index("idle")
    observation, _ = env.reset(seed=0)
    masks, seen = [], []
    while env.simulation is not None and env.simulation.now_s < 0.95:
        masks.append((env.simulation.now_s, bool(env.action_masks()[0])))
        seen.append(observation["instances"].reshape(2, -1)[:, waiting].tolist())
        observation, *_ = env.step(1)
    # The fleet was empty at the only look so far, whatever was dispatched since.
    assert seen == [[1.0, 1.0]] * len(seen)
    assert all(up == (not 0.3 <= now < 0.9) for now, up in masks)
    assert {up for _, up in masks} == {True, False}


def test_holding_is_allowed_where_nothing_is_up() -> None:
    outages = {"outages": [{"instance": 0, "start_s": 0, "end_s": 30}]}
    data = {"fleet": {"groups": {"a": PRESET}}, "workload": MIX, "failures": outages}
    env = RoutingEnv(parse_scenario(data))
    env.reset(seed=0)
    assert env.action_masks().tolist() == [False, True]
    *_, info = env.step(1)
    assert info["action_obeyed"]


def test_the_critic_cannot_know_arrivals_that_depend_on_the_policy() -> None:
    with pytest.raises(ValueError, match="closed_loop"):
        RoutingEnv(scenario("closed loop"), future=True).reset(seed=0)
