"""Scaling-v0 through the Gymnasium API."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode

from envs.scaling.env import ScalingEnv
from envs.scaling.layout import LAGS, POOL_FEATURES
from envs.scaling.reward import Reward
from envs.scaling.vector import ScalingVectorEnv
from envs.scenarios import load_scenario
from envs.simulator import HOLD, RoutingPolicy

# Instances that are used beyond their fitted range warn, once.
pytestmark = pytest.mark.filterwarnings("ignore::envs.hardware.OutsideFitWarning")

SCENARIO = load_scenario(
    "scaling-tenth",
    {
        "workload": {"scale": 0.02, "duration_s": 4 * 3600.0},
        "scaling": {"start": 2, "delays": {"load_local_s": 200.0, "provision_s": 100.0}},
    },
)
FEATURES = [feature.name for feature in POOL_FEATURES]


def make(**options: Any) -> ScalingEnv:
    return ScalingEnv(SCENARIO, **({"epoch_s": 600.0} | options))


def allowed(env: Any, mask: np.ndarray, k: int) -> np.ndarray:
    """An action at random of those that the mask allows."""
    rng = np.random.default_rng(k)
    ends = np.cumsum(env.action_space.nvec)
    starts = ends - env.action_space.nvec
    each = [np.flatnonzero(mask[a:b]) for a, b in zip(starts, ends, strict=True)]
    assert all(len(choice) for choice in each)
    return np.array([rng.choice(choice) for choice in each])


def play(env: Any, act: Any, **reset: Any) -> list[Any]:
    """Steps of an episode: observation, reward and info of each, the reset first."""
    observation, info = env.reset(**reset)
    steps = [(observation, 0.0, info)]
    over = False
    while not over:
        observation, reward, terminated, truncated, info = env.step(act(env, info, len(steps)))
        over = terminated or truncated
        steps.append((observation, reward, info))
    return steps


def keep(env: Any, info: Any, k: int) -> np.ndarray:
    return env.no_change()


def varied(env: Any, info: Any, k: int) -> np.ndarray:
    return allowed(env, info["action_mask"], k)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of arrays and numbers are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other, equal_nan=isinstance(one, float))


def test_the_checkers_of_gymnasium_and_stable_baselines3_pass() -> None:
    from stable_baselines3.common.env_checker import check_env as check_sb3

    from envs.hardware import OutsideFitWarning

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", OutsideFitWarning)
        check_gymnasium(make(), skip_render_check=True)
        check_sb3(make())


def test_it_is_registered_and_its_pictures_are_drawn() -> None:
    env = gymnasium.make("envs:ServeGym/Scaling-v0", scenario=SCENARIO, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    assert frame.ndim == 3 and frame.dtype == np.uint8
    env.close()


def test_a_seed_gives_the_same_episode() -> None:
    one, other = (play(make(), varied, seed=5) for _ in range(2))
    assert len(one) == len(other) == 25
    for a, b in zip(one, other, strict=True):
        assert same(a[0], b[0]) and a[1] == b[1] and same(a[2], b[2])
    assert one[-1][1] != play(make(), varied, seed=6)[-1][1]


@pytest.mark.parametrize("epoch_s", [60.0, 900.0, 3600.0])
def test_epochs_of_a_minute_to_an_hour_and_observations_in_their_space(epoch_s: float) -> None:
    env = make(epoch_s=epoch_s, horizon_s=2 * 3600.0)
    steps = play(env, varied, seed=1)
    assert len(steps) - 1 == 2 * 3600.0 / epoch_s
    for observation, _, _ in steps:
        assert env.observation_space.contains(observation)


def test_allowed_numbers_alone_are_obeyed_and_limits_hold() -> None:
    env = make(most=3)
    rng = np.random.default_rng(0)
    _, info = env.reset(seed=3)
    ends = np.cumsum(env.action_space.nvec)
    over = False
    while not over:
        action = env.no_change()
        k = int(rng.integers(len(action)))
        start = ends[k] - env.action_space.nvec[k]
        action[k] = rng.choice(np.flatnonzero(info["action_mask"][start : ends[k]]))
        _, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        assert info["action_obeyed"], (k, action[k])
        assert env.fleet is not None
        rows = env.fleet.deployments
        count = rows["ready"] + rows["starting"]
        assert (count >= rows["floor"]).all() and (count <= rows["ceiling"]).all()
        assert (env.fleet.regions["held"] <= env.fleet.regions["quota"]).all()


def test_a_number_that_is_not_allowed_does_nothing_and_says_so() -> None:
    env = make()
    _, info = env.reset(seed=3)
    action = env.no_change()
    action[0] = 0  # two instances of the first pool less: the floor is one below
    assert not info["action_mask"][0] and info["action_mask"][1]
    assert not env.step(action)[4]["action_obeyed"]
    assert env.fleet is not None and env.fleet.deployments[0, 0]["ready"] == 1


def test_a_cooldown_masks_a_pool_that_was_changed() -> None:
    env = make(cooldown_s=1500.0)
    env.reset(seed=3)
    action = env.no_change()
    action[12] = 1  # donate one of the first pool
    infos = [env.step(action)[4]] + [env.step(env.no_change())[4] for _ in range(2)]
    free = [info["action_mask"][60:65].sum() for info in infos]
    assert free[0] == free[1] == 1 < free[2]


@pytest.mark.parametrize(("roles", "regions"), [(4, 3), (6, 5)])
def test_any_number_of_pools_fits_its_rows(roles: int, regions: int) -> None:
    small = make(horizon_s=1800.0)
    large = make(horizon_s=1800.0, roles=roles, regions=regions)
    one, other = play(small, keep, seed=2), play(large, keep, seed=2)
    assert [step[1] for step in one] == [step[1] for step in other]
    rows = other[-1][0]["pools"].reshape(roles, regions, -1)
    np.testing.assert_array_equal(rows[:4, :3].reshape(12, -1), one[-1][0]["pools"].reshape(12, -1))
    assert not rows[4:].any() and not rows[:, 3:].any()
    mask = other[-1][2]["action_mask"][: 5 * roles * regions].reshape(roles, regions, 5)
    padding = np.ones((roles, regions), bool)
    padding[:4, :3] = False
    assert (mask[padding] == [0, 0, 1, 0, 0]).all()


def test_too_few_rows_are_refused_with_the_mend() -> None:
    with pytest.raises(ValueError, match="make it with roles=4, regions=3"):
        make(roles=3).reset(seed=0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epoch_s": 5.0}, "epoch_s"),
        ({"most": 0}, "most"),
        ({"cooldown_s": -1.0}, "cooldown_s"),
        ({"horizon_s": 0.0}, "horizon_s"),
        ({"scenario": "router-kv6k-rate9"}, "says nothing of scaling"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], word: str) -> None:
    scenario = options.pop("scenario", SCENARIO)
    with pytest.raises(ValueError, match=word):
        ScalingEnv(scenario, **options)


def test_bad_actions_and_reset_options_are_refused() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="whole numbers"):
        env.step(np.zeros(3, int))
    with pytest.raises(ValueError, match="out of the range"):
        env.step(env.no_change() + 10)
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"seeds": 1})


def test_the_terms_make_the_reward_and_the_account_of_the_fleet() -> None:
    env = make(reward=Reward({"waste": 2.0, "iw_f": 0.5}, scale=0.1))
    steps = play(env, varied, seed=4)
    for _, reward, info in steps[1:]:
        assert reward == pytest.approx(sum(info["reward_terms"].values()))
    metrics = steps[-1][2]["episode_metrics"]
    sums = {
        term: sum(info["reward_terms"][term] for _, _, info in steps[1:])
        for term in ("dollars", "spot_income", "waste")
    }
    assert sums["dollars"] == pytest.approx(-0.1 * metrics["dollars"])
    assert sums["spot_income"] == pytest.approx(0.1 * metrics["spot_income"])
    assert sums["waste"] == pytest.approx(-0.2 * metrics["waste_hours"])
    assert metrics["waste_hours"] > 0


def test_missed_requests_are_those_that_the_table_shows() -> None:
    env = make()
    steps = play(env, keep, seed=4)
    rows, table = env.result().requests, env.result().table
    end = steps[-1][2]["episode_metrics"]
    arrival = rows["arrival_ps"] / 1e12
    first = np.where(rows["first_token_ps"] >= 0, rows["first_token_ps"] / 1e12, np.inf)
    for tier, name, limit in ((0, "iw_f", 10.0), (1, "iw_n", 60.0)):
        mine = (table.tier.codes == tier) & (arrival <= 4 * 3600.0 - limit)
        counted = [
            sum(info[kind][f"{word}_{name}"] for _, _, info in steps[1:])
            for kind, word in (("counts", "decided"), ("cost", "missed"))
        ]
        assert counted == [mine.sum(), (mine & (first - arrival > limit)).sum()]
    assert end["IW-F_missed"] > 0


def test_work_that_is_left_is_charged_at_the_end_alone() -> None:
    steps = play(make(), keep, seed=4)
    left = [info["reward_terms"]["leftover"] for _, _, info in steps[1:]]
    assert not any(left[:-1]) and left[-1] <= 0


def test_the_observation_holds_nothing_of_what_is_to_come() -> None:
    """Two workloads that are equal up to an instant look equal up to it."""
    table = SCENARIO.workload.build(7)
    cut = np.asarray(table.arrival_s) < 7200.0
    later = table.replace(
        prompt_tokens=np.where(cut, table.prompt_tokens, 64),
        output_tokens=np.where(cut, table.output_tokens, 900),
    )
    env = make(horizon_s=7200.0)
    episodes = [
        play(env, varied, seed=0, options={"trace": trace, "workload_seed": 7})
        for trace in (table, later)
    ]
    for a, b in zip(*episodes, strict=True):
        assert same(a[0], b[0]) and a[1] == b[1] and same(a[2], b[2])


def test_the_past_is_that_of_a_day_and_a_week_ago() -> None:
    env = make(horizon_s=1200.0)
    observation, _ = env.reset(options={"workload_seed": 9})
    week = SCENARIO.workload
    before = week.model_copy(update={"start_s": week.start_s - 86_400.0, "duration_s": 600.0})
    table = before.build(9)
    rows = observation["pools"].reshape(12, -1)
    engine = env.simulation.fleet[0]  # type: ignore[union-attr]
    tokens = 8192
    rate = tokens / engine.cost.step_time(0, 0, tokens, tokens * (tokens + 1) / 2)
    mine = (table.model.codes == 0) & (table.region.codes == 2)
    expected = table.prompt_tokens[mine].sum() / 600.0 / rate / 10.0
    assert rows[2, FEATURES.index("day_ago")] == pytest.approx(expected, rel=1e-5)
    assert rows[:, [FEATURES.index(name) for name in LAGS]].any(axis=0).all()


def test_another_routing_rule_can_serve_the_requests() -> None:
    def first_ready(
        now_ps: int,
        instances: Any,
        requests: Any,
        running: Any,
        candidates: Any,
        parameters: Any,
        memory: Any,
    ) -> int:
        for i in range(len(instances)):
            if instances[i].down == 0 and instances[i].model == requests[candidates[0]].model:
                return i
        return HOLD

    policy = RoutingPolicy("first_ready", first_ready)
    one, other = (play(make(router=r, horizon_s=3600.0), keep, seed=1) for r in (None, policy))
    assert one[-1][2]["episode_metrics"] != other[-1][2]["episode_metrics"]


def test_it_is_pickled_in_the_midst_of_an_episode() -> None:
    env = make()
    env.reset(seed=2)
    for _ in range(3):
        env.step(env.no_change())
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(5):
        a, b = env.step(env.no_change()), twin.step(env.no_change())
        assert same(a[0], b[0]) and a[1:4] == b[1:4]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_copies_are_what_single_environments_are(mode: AutoresetMode) -> None:
    count, horizon = 3, 3600.0
    many = ScalingVectorEnv(
        count, scenario=SCENARIO, epoch_s=600.0, horizon_s=horizon, autoreset_mode=mode
    )
    singles = [make(horizon_s=horizon) for _ in range(count)]
    observations, infos = many.reset(seed=11)
    for i, env in enumerate(singles):
        single, info = env.reset(seed=11 + i)
        assert same(single, {key: array[i] for key, array in observations.items()})
        assert same(info["action_mask"], infos["action_mask"][i])
    masks = infos["action_mask"]
    for k in range(6):
        actions = np.stack([allowed(env, masks[i], k) for i, env in enumerate(singles)])
        observations, rewards, terminated, truncated, infos = many.step(actions)
        for i, env in enumerate(singles):
            single, reward, end, cut, info = env.step(actions[i])
            assert (reward, end, cut) == (rewards[i], terminated[i], truncated[i])
            if cut and mode is AutoresetMode.SAME_STEP:
                assert same(single, infos["final_obs"][i])
                continue
            assert same(single, {key: array[i] for key, array in observations.items()})
            for term, value in info["reward_terms"].items():
                assert infos["reward_terms"][term][i] == pytest.approx(value)
            assert info["cost"] == {name: infos["cost"][name][i] for name in info["cost"]}
        masks = infos["action_mask"]
    assert truncated.all()
    many.close()


def test_make_vec_gives_the_native_one() -> None:
    envs = gymnasium.make_vec("envs:ServeGym/Scaling-v0", num_envs=2, scenario=SCENARIO)
    assert isinstance(envs, ScalingVectorEnv)
    with pytest.raises(ValueError, match="must have shape"):
        envs.reset(seed=0)
        envs.step(np.zeros((2, 3), int))
    envs.close()


def test_a_reward_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="unknown reward terms"):
        Reward({"dollar": 1.0})
