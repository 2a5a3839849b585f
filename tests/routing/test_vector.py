"""Many copies in one call give what as many single environments give."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import envs  # noqa: F401
from envs.routing.env import RoutingEnv
from envs.routing.reward import Reward
from envs.routing.vector import RoutingVectorEnv
from envs.workloads import router_mix
from tests.routing.situations import random_actions, scenario

OPTIONS: list[dict[str, Any]] = [
    {},
    {"window": 3, "max_instances": 4, "horizon_s": 3.0},
    {"decision_interval_s": 0.02, "reward": "paper_baseline"},
    {"queue_order": "sjf", "reward": Reward("latency_shaped", tau_s=30.0), "future": True},
    {"reward": "workload_guided"},
    {"reward": "slo_goodput"},
]
SMALL = scenario(requests=15)


def pair(count: int, mode: str, **options: Any) -> tuple[RoutingVectorEnv, SyncVectorEnv]:
    """A vector environment, and Gymnasium's loop over single ones with the same options."""
    ours = RoutingVectorEnv(count, autoreset_mode=mode, **options)
    each = [
        {k: v[i] if isinstance(v, list) else v for k, v in options.items()} for i in range(count)
    ]
    makers = [partial(RoutingEnv, **chosen) for chosen in each]
    return ours, SyncVectorEnv(makers, autoreset_mode=mode)


def same(a: Any, b: Any, path: str = "") -> None:
    """Equal values, types and shapes, all the way down."""
    if a is None:
        assert b is None, path
    elif isinstance(a, dict):
        assert set(a) == set(b), path
        for key in a:
            same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, tuple) or a.dtype == object:
        for x, y in zip(a, b, strict=True):
            same(x, y, path)
    else:
        assert a.dtype == b.dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path)


def choose(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random action for each copy, one in ten not allowed."""
    legal = [rng.choice(np.flatnonzero(mask)) for mask in masks]
    return np.where(rng.random(len(masks)) < 0.1, rng.integers(0, masks.shape[1]), legal)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_single_environments(options: dict[str, Any], mode: str) -> None:
    ours, theirs = pair(3, mode, scenario=SMALL, **options)
    rng = np.random.default_rng(0)
    same(ours.reset(seed=7), theirs.reset(seed=7))
    ended = np.zeros(3, int)
    while ended.min() < 3:
        actions = choose(ours.action_masks(), rng)
        got = ours.step(actions)
        same(got, theirs.step(actions))
        over = got[2] | got[3]
        ended += over
        if mode == "Disabled" and over.any():
            settings = [ours, theirs]
            again = [env.reset(options={"reset_mask": over.copy()}) for env in settings]
            same(*again)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_copies_may_differ(mode: str) -> None:
    each = {
        "scenario": [scenario(instances=1, requests=9), SMALL, scenario(instances=3, requests=12)],
        "trace": [None, router_mix(10, 8.0, 3), None],
        "horizon_s": [float("inf"), float("inf"), 1.0],
        "max_instances": 3,
    }
    ours, theirs = pair(3, mode, **each)
    rng = np.random.default_rng(1)
    seeds = [5, None, 3]
    same(ours.reset(seed=[5, 1, 3]), theirs.reset(seed=[5, 1, 3]))
    for step in range(60):
        if step == 30:
            same(ours.reset(seed=seeds), theirs.reset(seed=seeds))
        actions = choose(ours.action_masks(), rng)
        same(ours.step(actions), theirs.step(actions))
    assert ours.np_random_seed == theirs.np_random_seed


def test_rows_fit_the_largest_fleet() -> None:
    env = RoutingVectorEnv(2, scenario=[scenario(instances=1), scenario(instances=3)])
    observation, _ = env.reset(seed=0)
    assert observation["valid"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert env.single_action_space.n == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["envs:ServeGym/Routing-v0", "ServeGym/Routing-v0"])
@pytest.mark.parametrize("mode", ["vector_entry_point", None])
def test_gymnasium_makes_it(name: str, mode: str | None) -> None:
    env = gymnasium.make_vec(name, num_envs=5, vectorization_mode=mode, scenario=SMALL)
    assert isinstance(env, RoutingVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert RoutingVectorEnv.metadata is not env.metadata
    assert env.spec is not None and env.spec.id == "ServeGym/Routing-v0"
    env.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_it_gives_lies_in_its_spaces(options: dict[str, Any]) -> None:
    env = RoutingVectorEnv(4, scenario=SMALL, **options)
    observation, infos = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(80):
        assert observation in env.observation_space
        for array in observation.values():
            assert array.dtype == np.float32 and array.flags.c_contiguous
        actions = env.action_space.sample()
        observation, rewards, terminated, truncated, infos = env.step(actions)
        assert rewards.dtype == np.float64
        assert terminated.dtype == truncated.dtype == bool
        assert rewards.shape == terminated.shape == truncated.shape == (4,)
        assert infos["action_mask"].shape == (4, env.single_action_space.n)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(infos["action_mask"], env.action_masks())


def test_gymnasium_counts_its_episodes() -> None:
    env = RoutingVectorEnv(3, scenario=SMALL)
    counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    _, infos = counted.reset(seed=0)
    total, found = np.zeros(3), None
    for _ in range(200):
        _, rewards, terminated, _, infos = counted.step(np.zeros(3, int))
        total += rewards
        if terminated[0]:
            found = infos["episode"]["r"][0]
            break
    assert found == pytest.approx(total[0], rel=1e-5)


def test_a_copy_of_observations_unless_asked_not_to() -> None:
    kept = RoutingVectorEnv(2, scenario=SMALL)
    first, infos = kept.reset(seed=0)
    before, mask = copy.deepcopy(first), infos["action_mask"].copy()
    kept.step(np.zeros(2, int))
    same(first, before)
    np.testing.assert_array_equal(infos["action_mask"], mask)
    bare = RoutingVectorEnv(2, scenario=SMALL, copy=False)
    first, _ = bare.reset(seed=0)
    second, *_ = bare.step(np.zeros(2, int))
    assert all(first[key] is second[key] for key in first)


def test_final_observation_outlives_the_reset() -> None:
    env = RoutingVectorEnv(1, scenario=SMALL, autoreset_mode="SameStep", copy=False)
    env.reset(seed=0)
    while True:
        observation, _, terminated, _, infos = env.step(np.zeros(1, int))
        if terminated[0]:
            break
    final = infos["final_obs"][0]
    assert final["fleet"][3] == 0.0 and observation["fleet"][0, 3] > 0.0
    assert infos["final_info"]["episode_metrics"]["served"][0] == 15


def test_reset_options_are_those_of_the_single_environment() -> None:
    ours, theirs = pair(2, "NextStep", scenario=SMALL)
    options = {"workload_seed": 1_000_003, "start_s": 0.5, "duration_s": 1.0}
    same(ours.reset(seed=0, options=options), theirs.reset(seed=0, options=options))
    apart = ours.reset(options={"workload_seed": [1_000_003, 1_000_004]})[0]
    assert (apart["requests"][0] != apart["requests"][1]).any()
    with pytest.raises(ValueError, match="unknown reset options"):
        ours.reset(options={"workload": 3})


def test_masks_allow_what_the_single_environment_allows() -> None:
    env = RoutingEnv(SMALL, window=2)
    batch = RoutingVectorEnv(1, scenario=SMALL, window=2)
    env.reset(seed=4)
    batch.reset(seed=4)
    actor = random_actions(2)
    for _ in range(12):
        np.testing.assert_array_equal(batch.action_masks()[0], env.action_masks())
        action = actor(env)
        env.step(action)
        batch.step([action])


def test_frames_of_all_copies() -> None:
    pytest.importorskip("matplotlib")
    env = RoutingVectorEnv(2, scenario=SMALL, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None and [frame.ndim for frame in frames] == [3, 3]
    env.close()


def test_misuse_is_told() -> None:
    with pytest.raises(ValueError, match="num_envs"):
        RoutingVectorEnv(0)
    with pytest.raises(ValueError, match="scenario lists 1 values for 2 copies"):
        RoutingVectorEnv(2, scenario=[SMALL])
    with pytest.raises(ValueError, match="render_mode"):
        RoutingVectorEnv(2, render_mode="human")
    with pytest.raises(ValueError, match="unequal windows"):
        wide = SMALL.model_copy(update={"router": SMALL.router.model_copy(update={"window": 2})})
        RoutingVectorEnv(2, scenario=[SMALL, wide])
    env = RoutingVectorEnv(2, scenario=SMALL, autoreset_mode="Disabled")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
    env.reset(options={"reset_mask": np.array([False, True])})
    with pytest.raises(ValueError, match="actions must have shape"):
        env.step([0, 0, 0])
    while not env.step([0, 0])[2].any():
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step([0, 0])
