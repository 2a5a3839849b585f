"""Frames of the routing environment."""

import gymnasium
import numpy as np
import pytest

from envs.common import viewer as viewer_module
from envs.common.viewer import HEIGHT, WIDTH, Viewer
from envs.scenarios import load_scenario

ID = "envs:ServeGym/Routing-v0"


def scenario(instances):
    return load_scenario(
        "router-kv6k-rate9",
        {
            "fleet": {"groups": {"v100": {"count": instances}}},
            "workload": {"requests": 100 * instances, "rate": 3.0 * instances},
        },
    )


def step(env, times, rng):
    for _ in range(times):
        mask = env.unwrapped.action_masks()
        env.step(int(rng.choice(np.flatnonzero(mask))))


@pytest.mark.parametrize("instances", [1, 4, 64])
def test_frames_have_one_size_and_change_with_time(instances):
    env = gymnasium.make(ID, scenario=scenario(instances), render_mode="rgb_array")
    env.reset(seed=0)
    rng, frames = np.random.default_rng(0), []
    for _ in range(3):
        frames.append(env.render())
        step(env, 15, rng)
    for frame in frames:
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert frame.dtype == np.uint8
    assert (frames[0] != frames[1]).any()
    assert (frames[1] != frames[2]).any()
    env.close()


def test_an_unchanged_fleet_gives_the_same_frame():
    env = gymnasium.make(ID, scenario=scenario(4), render_mode="rgb_array")
    env.reset(seed=0)
    step(env, 30, np.random.default_rng(0))
    env.render()
    np.testing.assert_array_equal(env.render(), env.render())
    env.close()


def test_a_fleet_of_another_size_is_laid_out_anew():
    env = gymnasium.make(ID, scenario=scenario(4), max_instances=8, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.reset(seed=0, options={"scenario": scenario(8)})
    assert (env.render() != first).any()
    env.close()


def test_without_a_display_a_window_is_drawn_unseen(monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    viewer_module._no_window.cache_clear()
    env = gymnasium.make(ID, scenario=scenario(4), render_mode="human")
    env.reset(seed=0)
    assert env.render() is None
    env.close()
    assert "there is no display" in capsys.readouterr().err
    with pytest.raises(ValueError, match="mode"):
        Viewer("ascii")
