"""The adapter gives stable-baselines3 what its own loop over single environments gives."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from agents.vector import StableBaselinesVecEnv
from envs.routing.env import RoutingEnv
from envs.routing.vector import RoutingVectorEnv
from tests.agents.small import small_scenario

SMALL = small_scenario(requests=20)


def adapted(count: int = 3, **options: Any) -> StableBaselinesVecEnv:
    env = RoutingVectorEnv(count, autoreset_mode="SameStep", scenario=SMALL, **options)
    return StableBaselinesVecEnv(env)


def same(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert set(a) == set(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options",
    [{}, {"reward": "workload_guided"}, {"horizon_s": [1.0, 2.0, float("inf")], "window": 2}],
    ids=str,
)
def test_equals_the_loop_of_stable_baselines3(options: dict[str, Any]) -> None:
    ours = adapted(**options)
    each = [{k: v[i] if isinstance(v, list) else v for k, v in options.items()} for i in range(3)]
    theirs = DummyVecEnv([partial(RoutingEnv, SMALL, **chosen) for chosen in each])
    assert ours.seed(5) == theirs.seed(5)
    same(dict(ours.reset()), dict(theirs.reset()))
    same(ours.reset_infos, theirs.reset_infos)
    rng, ended = np.random.default_rng(0), np.zeros(3, int)
    while ended.min() < 3:
        actions = np.array([rng.choice(np.flatnonzero(m)) for m in get_action_masks(ours)])
        got, wanted = ours.step(actions), theirs.step(actions)
        same(list(got[1:]), list(wanted[1:]))
        same(dict(got[0]), dict(wanted[0]))
        if got[2].any():
            same(ours.reset_infos, theirs.reset_infos)
        ended += got[2]
    assert got[1].dtype == np.float32


def test_options_of_a_reset_hold_for_one_reset() -> None:
    env = adapted()
    env.set_options([{"workload_seed": 1_000_003 + i} for i in range(3)])
    first = env.reset()
    env.set_options({"workload_seed": 1_000_003})
    second = env.reset()
    np.testing.assert_array_equal(first["requests"][0], second["requests"][0])
    assert (second["requests"] == second["requests"][0]).all()
    assert not (env.reset()["requests"] == second["requests"]).all()
    env.set_options([{"workload_seed": 1}, {}, {}])
    with pytest.raises(ValueError, match="some copies only"):
        env.reset()


def test_masks_are_found_as_sb3_contrib_looks_for_them() -> None:
    env = VecMonitor(adapted())
    env.reset()
    assert is_masking_supported(env)
    masks = get_action_masks(env)
    assert masks.shape == (3, env.action_space.n)  # type: ignore[attr-defined]
    assert masks.dtype == bool
    assert len(env.env_method("action_masks", indices=1)) == 1
    assert env.get_attr("rows", [0, 2]) == [2, 2]
    assert not env.has_attr("no_such_thing")
    assert env.env_is_wrapped(RoutingEnv) == [False] * 3  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        env.env_method("no_such_thing")
    with pytest.raises(AttributeError):
        env.set_attr("rows", 3)
    env.close()


def test_maskable_ppo_learns_on_it() -> None:
    env = VecMonitor(adapted(4))
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu")
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    model.learn(512)
    assert len(model.ep_info_buffer or []) > 0
    after = model.policy.state_dict()
    assert not all((before[name] == after[name]).all() for name in before)


def test_other_autoresets_are_refused() -> None:
    with pytest.raises(ValueError, match="SameStep"):
        StableBaselinesVecEnv(RoutingVectorEnv(2, scenario=SMALL))
