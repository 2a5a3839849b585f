"""Routing-v0 through Gymnasium's interface: contract, masks, episode ends, options."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.routing.env import RoutingEnv
from envs.scenarios import SEEDS, load_scenario, parse_scenario
from envs.workloads import RequestTable
from tests.routing.situations import play, random_actions, scenario

OPTIONS: list[dict[str, Any]] = [
    {},
    {"window": 3, "max_instances": 6},
    {"decision_interval_s": 0.02, "reward": "paper_baseline"},
    {"queue_order": "sjf", "reward": "latency_shaped", "future": True},
    {"reward": "workload_guided"},
    {"reward": "slo_goodput", "horizon_s": 5.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_checker_of_gymnasium_passes_without_a_warning(options: dict[str, Any]) -> None:
    env = RoutingEnv(scenario(requests=40), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_checker_of_gymnasium_passes_with_every_render_mode() -> None:
    env = gymnasium.make("envs:ServeGym/Routing-v0", scenario=scenario(requests=40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_checker_of_stable_baselines3_passes_without_a_warning(options: dict[str, Any]) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = RoutingEnv(scenario(requests=40), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(env)


@pytest.mark.parametrize("name", ["envs:ServeGym/Routing-v0", "ServeGym/Routing-v0"])
def test_gymnasium_makes_it(name: str) -> None:
    import envs  # noqa: F401

    env = gymnasium.make(name, scenario="router-kv6k-rate9")
    observation, info = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    assert info["action_mask"][:4].all()
    env.close()


def test_same_seed_same_trajectory() -> None:
    first, second, other = (
        play(RoutingEnv(scenario(requests=60), window=2), random_actions(1), seed=seed)
        for seed in (5, 5, 6)
    )
    assert first.rewards == second.rewards
    for a, b in zip(first.observations, second.observations, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert first.rewards != other.rewards


def test_next_episode_without_a_seed_is_another_workload() -> None:
    env = RoutingEnv(scenario(requests=30))
    env.reset(seed=0)
    first = env.result().table
    env.reset()
    assert not np.array_equal(env.result().table.prompt_tokens, first.prompt_tokens)


def test_workloads_are_drawn_from_the_training_seeds_unless_one_is_given() -> None:
    env = RoutingEnv(scenario(requests=30))
    evaluation = SEEDS["evaluation"][0]
    env.reset(seed=0, options={"workload_seed": evaluation})
    table, _ = scenario(requests=30).build(evaluation)
    assert env.result().table == table


def test_episode_terminates_when_all_is_served() -> None:
    episode = play(RoutingEnv(scenario(requests=25)), random_actions(2))
    assert (episode.terminated, episode.truncated) == (True, False)
    metrics = episode.infos[-1]["episode_metrics"]
    assert metrics["served"] == 25 and metrics["unfinished"] == 0
    assert "episode_metrics" not in episode.infos[0]


def test_horizon_truncates() -> None:
    episode = play(RoutingEnv(scenario(requests=200), horizon_s=3.0), random_actions(2))
    assert (episode.terminated, episode.truncated) == (False, True)
    assert sum(info["dt"] for info in episode.infos) >= 2.0
    assert episode.infos[-1]["episode_metrics"]["unfinished"] > 0


def test_mask_allows_existing_requests_on_existing_instances() -> None:
    env = RoutingEnv(scenario(requests=30, rate=100.0), window=3, max_instances=5)
    observation, _ = env.reset(seed=0)
    assert observation["valid"].tolist() == [1, 1, 0, 0, 0]
    for _ in range(20):
        present = observation["requests"].reshape(3, 6)[:, 0].astype(bool)
        mask = env.action_masks()
        assert mask.shape == (16,)
        for place in range(3):
            row = mask[place * 5 : place * 5 + 5]
            assert row[:2].all() == present[place] and not row[2:].any()
        assert mask[-1] == (observation["fleet"][3] > observation["fleet"][0])
        action = int(np.flatnonzero(mask)[-1])
        observation, _, terminated, _, info = env.step(action)
        assert info["action_obeyed"]
        np.testing.assert_array_equal(info["action_mask"], env.action_masks())
        if terminated:
            break


def test_masked_action_acts_as_a_hold() -> None:
    env = RoutingEnv(scenario(requests=30, rate=100.0), max_instances=4)
    env.reset(seed=0)
    env.step(0)
    _, _, _, _, info = env.step(3)
    assert not info["action_obeyed"]
    assert env.result().counters["rejected"] == 0


def test_hold_with_nothing_in_service_dispatches() -> None:
    env = RoutingEnv(scenario(requests=5))
    _, info = env.reset(seed=0)
    assert info["action_mask"][-1] == 0
    _, _, _, _, info = env.step(env.hold)
    assert not info["action_obeyed"]
    assert env.result().counters["forced_dispatches"] == 1


def test_holding_for_ever_still_ends() -> None:
    episode = play(RoutingEnv(scenario(requests=20)), lambda env: env.hold)
    assert episode.infos[-1]["episode_metrics"]["served"] == 20


def test_clocked_decisions_fall_on_the_clock() -> None:
    env = RoutingEnv(scenario(requests=20), decision_interval_s=0.25)
    episode = play(env, random_actions(0))
    steps = np.array([info["dt"] for info in episode.infos[:-1]])
    np.testing.assert_allclose(steps / 0.25, np.rint(steps / 0.25), atol=1e-9)


def test_part_of_a_trace() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 10.0, 20.0, 30.0], prompt_tokens=[5] * 4, output_tokens=[7] * 4
    )
    env = RoutingEnv(scenario(), trace=table)
    env.reset(seed=0, options={"start_s": 5.0, "duration_s": 20.0})
    part = env.result().table
    assert part.arrival_s.tolist() == [5.0, 15.0]
    with pytest.raises(ValueError, match="no request arrives"):
        env.reset(options={"start_s": 100.0})


def test_predictions_of_a_trace_are_kept() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0],
        prompt_tokens=[5, 5],
        output_tokens=[7, 7],
        predicted_output_tokens=[70, 3],
    )
    env = RoutingEnv(scenario(), trace=table)
    observation, _ = env.reset(seed=0)
    assert observation["requests"][2] == np.float32(0.07)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_instances": 1}, "max_instances is 1"),
        ({"reward": "speed"}, "unknown reward 'speed'"),
        ({"render_mode": "ascii"}, "render_mode is one of"),
        ({"horizon_s": 0.0}, "horizon_s must be positive"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RoutingEnv(scenario(), **arguments)


def test_bad_reset_options_are_named() -> None:
    env = RoutingEnv(scenario())
    with pytest.raises(ValueError, match=r"unknown reset options \['sead'\]"):
        env.reset(options={"sead": 3})
    larger = parse_scenario(scenario(instances=3).model_dump(exclude_unset=True))
    with pytest.raises(ValueError, match="max_instances=3"):
        env.reset(options={"scenario": larger})


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded):
        RoutingEnv(scenario()).step(0)


def test_one_environment_serves_fleets_of_several_sizes() -> None:
    env = RoutingEnv(scenario(instances=3), max_instances=4)
    for instances in (3, 1, 2):
        chosen = scenario(instances=instances, requests=10)
        observation, _ = env.reset(seed=0, options={"scenario": chosen})
        assert observation["valid"].sum() == instances
        assert not observation["instances"].reshape(4, 16)[instances:].any()
        assert env.observation_space.contains(observation)


def test_copies_in_worker_processes() -> None:
    vector = gymnasium.make_vec(
        "envs:ServeGym/Routing-v0",
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        scenario="router-kv6k-rate9",
    )
    try:
        observations, _ = vector.reset(seed=1)
        assert observations["instances"].shape == (2, 64)
        vector.step(np.array([0, 1]))
    finally:
        vector.close()


def test_step_after_the_end_is_refused() -> None:
    env = RoutingEnv(scenario(requests=10))
    play(env, random_actions(0))
    with pytest.raises(gymnasium.error.ResetNeeded, match="over"):
        env.step(0)
    env.reset()
    env.step(0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_go_their_own_way(copied: Callable[[RoutingEnv], RoutingEnv]) -> None:
    env = RoutingEnv(scenario(requests=40), future=True)
    env.reset(seed=0)
    for _ in range(10):
        env.step(0)
    twin = copied(env)
    before = env.result().requests.copy()
    mine = [twin.step(1) for _ in range(15)]
    np.testing.assert_array_equal(env.result().requests, before)
    theirs = [env.step(1) for _ in range(15)]
    for a, b in zip(mine, theirs, strict=True):
        assert a[1:4] == b[1:4]
        for key in a[0]:
            np.testing.assert_array_equal(a[0][key], b[0][key])


def test_restoring_the_simulation_under_an_environment() -> None:
    env = RoutingEnv(scenario(requests=40))
    env.reset(seed=0)
    assert env.simulation is not None
    saved = env.simulation.save()
    first = [env.step(0)[1] for _ in range(5)]
    env.simulation.restore(saved)
    assert env.result().counters["decisions"] == 0
    assert [env.step(0)[1] for _ in range(5)][1:] == first[1:]


def test_scenarios_of_one_name_keep_their_own_fleets() -> None:
    env = RoutingEnv("router-kv6k-rate9")
    roomy = load_scenario(
        "router-kv6k-rate9", {"fleet": {"groups": {"v100": {"kv_capacity_tokens": 30_000}}}}
    )
    env.reset(seed=0, options={"scenario": roomy})
    assert env.simulation is not None
    assert env.simulation.fleet[0].kv_capacity_tokens == 30_000


def test_trace_gets_the_predictions_of_its_scenario() -> None:
    """The same in the environment as in a comparison, so that agents are paired."""
    chosen = scenario(requests=12)
    table = chosen.workload.build(5)
    env = RoutingEnv(chosen, trace=table)
    env.reset(seed=0, options={"workload_seed": 5})
    assert env.result().table == chosen.build(5)[0]
