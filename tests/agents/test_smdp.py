"""The rollout buffer that discounts by elapsed time."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer

from agents.smdp import SMDPRolloutBuffer

OBSERVATIONS = spaces.Dict({"x": spaces.Box(0.0, 1.0, (1,), np.float32)})
ACTIONS = spaces.Discrete(2)


def fill(buffer, rewards, values, starts, dt_s=None):
    for t, reward in enumerate(rewards):
        if dt_s is not None:
            buffer.set_durations(dt_s[t])
        n = len(reward)
        buffer.add(
            {"x": np.zeros((n, 1), np.float32)},
            np.zeros((n, 1)),
            np.asarray(reward),
            np.asarray(starts[t]),
            torch.tensor(values[t]),
            torch.zeros(n),
            action_masks=np.ones((n, 2)),
        )


@pytest.mark.parametrize("gae_lambda", [0.0, 0.9, 1.0])
def test_equal_steps_discount_like_plain_advantage_estimation(gae_lambda):
    steps, n, dt_s, tau_s = 40, 3, 0.7, 12.0
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(steps, n)).astype(np.float32)
    values = rng.normal(size=(steps, n)).astype(np.float32)
    starts = (rng.random((steps, n)) < 0.1).astype(np.float32)
    last, dones = torch.tensor(rng.normal(size=n)), rng.random(n) < 0.5
    common = {"gae_lambda": gae_lambda, "n_envs": n}
    ours = SMDPRolloutBuffer(steps, OBSERVATIONS, ACTIONS, tau_s=tau_s, **common)
    gamma = math.exp(-dt_s / tau_s)
    plain = MaskableDictRolloutBuffer(steps, OBSERVATIONS, ACTIONS, gamma=gamma, **common)
    fill(ours, rewards, values, starts, np.full((steps, n), dt_s))
    fill(plain, rewards, values, starts)
    for buffer in (ours, plain):
        buffer.compute_returns_and_advantage(last, dones)
    np.testing.assert_allclose(ours.advantages, plain.advantages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.returns, plain.returns, rtol=1e-4, atol=1e-5)


def test_an_example_by_hand():
    # Durations of 0 and tau * ln 2 discount by 1 and 1/2; lambda is 1/2, the last step goes on.
    buffer = SMDPRolloutBuffer(3, OBSERVATIONS, ACTIONS, tau_s=10.0, gae_lambda=0.5)
    half = 10.0 * math.log(2.0)
    rewards, values = [[-1.0], [-2.0], [-4.0]], [[1.0], [2.0], [3.0]]
    fill(buffer, rewards, values, [[1.0], [0.0], [0.0]], [[half], [0.0], [half]])
    buffer.compute_returns_and_advantage(torch.tensor([6.0]), np.array([False]))
    third = -4 + 0.5 * 6 - 3  # -4
    second = -2 + 1 * 3 - 2 + 1 * 0.5 * third  # -3
    first = -1 + 0.5 * 2 - 1 + 0.5 * 0.5 * second  # -1.75
    np.testing.assert_allclose(buffer.advantages[:, 0], [first, second, third], rtol=1e-6)
    np.testing.assert_allclose(buffer.returns[:, 0], [first + 1, second + 2, third + 3], rtol=1e-6)


def test_nothing_follows_an_end():
    buffer = SMDPRolloutBuffer(2, OBSERVATIONS, ACTIONS, tau_s=10.0, gae_lambda=1.0)
    fill(buffer, [[-1.0], [-2.0]], [[0.5], [0.25]], [[1.0], [1.0]], [[1.0], [1.0]])
    buffer.compute_returns_and_advantage(torch.tensor([100.0]), np.array([True]))
    np.testing.assert_allclose(buffer.returns[:, 0], [-1.0, -2.0])


def test_without_a_time_constant_nothing_is_discounted():
    buffer = SMDPRolloutBuffer(2, OBSERVATIONS, ACTIONS, gae_lambda=1.0)
    fill(buffer, [[-1.0], [-2.0]], [[0.0], [0.0]], [[1.0], [0.0]], [[50.0], [70.0]])
    buffer.compute_returns_and_advantage(torch.tensor([-5.0]), np.array([False]))
    np.testing.assert_allclose(buffer.returns[:, 0], [-8.0, -7.0])


def test_misuse_is_told():
    with pytest.raises(ValueError, match="tau_s"):
        SMDPRolloutBuffer(2, OBSERVATIONS, ACTIONS, tau_s=0.0)
    with pytest.raises(RuntimeError, match="Durations"):
        fill(SMDPRolloutBuffer(1, OBSERVATIONS, ACTIONS), [[0.0]], [[0.0]], [[1.0]])
