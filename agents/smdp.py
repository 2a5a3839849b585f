"""Discounting by elapsed time: advantages for decisions that lie unequally far apart.

A decision is due whenever something happens, so one step may take a millisecond and the next a
second. A constant discount per step would then weigh the future by how many decisions fall into
it, which the policy itself changes by holding or deferring. In a semi-Markov decision process a
step that took `dt` seconds discounts by `exp(-dt / tau)` instead (Bradtke and Duff, NeurIPS
1994; Puterman, Markov Decision Processes, chapter 11).

`gamma` of stable-baselines3 plays no part: the buffer ignores it, and the bootstrap of truncated
episodes, where stable-baselines3 would multiply by it, is made by `Durations`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback


class UnmaskedSMDPRolloutBuffer(DictRolloutBuffer):
    """Rollout buffer whose discount is `exp(-dt / tau)`, one for every step.

    The recursion is that of generalised advantage estimation (Schulman et al. 2016, equation 16)
    with gamma replaced by the discount d_t of step t, in which the reward r_t fell:

        delta_t = r_t + d_t V(s_t+1) - V(s_t),   A_t = delta_t + d_t lambda A_t+1.

    Args:
        tau_s: Time constant in seconds, infinite for no discount.

    Raises:
        ValueError: `tau_s` is not positive.
    """

    def __init__(self, *args: Any, tau_s: float = math.inf, **kwargs: Any) -> None:
        if not tau_s > 0:
            raise ValueError(f"tau_s must be positive, not {tau_s}")
        self.tau_s = tau_s
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empty the buffer."""
        self.discounts = np.ones((self.buffer_size, self.n_envs), np.float32)
        self._pending: npt.NDArray[np.float64] | None = None
        super().reset()

    def set_durations(self, dt_s: npt.ArrayLike) -> None:
        """Say how long the step that is added next took.

        Args:
            dt_s: (n_envs,) seconds.
        """
        self._pending = np.exp(-np.asarray(dt_s, np.float64) / self.tau_s)

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Add a step, whose durations were set before.

        Raises:
            RuntimeError: They were not; the callback `Durations` is missing.
        """
        if self._pending is None:
            raise RuntimeError("set_durations() comes before add(): pass the callback Durations")
        self.discounts[self.pos], self._pending = self._pending, None
        super().add(*args, **kwargs)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray) -> None:
        """Fill `advantages` and `returns`.

        Args:
            last_values: (n_envs,) values of the states after the last step.
            dones: (n_envs,) whether the last step ended an episode.
        """
        following = last_values.detach().cpu().numpy().flatten()
        alive = 1.0 - dones.astype(np.float32)
        advantage = np.zeros(self.n_envs, np.float32)
        for t in reversed(range(self.buffer_size)):
            discount = self.discounts[t] * alive
            delta = self.rewards[t] + discount * following - self.values[t]
            advantage = delta + discount * self.gae_lambda * advantage
            self.advantages[t] = advantage
            following, alive = self.values[t], 1.0 - self.episode_starts[t]
        self.returns = self.advantages + self.values


class SMDPRolloutBuffer(UnmaskedSMDPRolloutBuffer, MaskableDictRolloutBuffer):
    """The same, which also keeps the masks of the actions."""


class Durations(BaseCallback):
    """Hands `info["dt"]` of every step to the buffer, and bootstraps truncated episodes."""

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
        durations = np.array([info["dt"] for info in infos])
        buffer.set_durations(durations)
        for i in np.flatnonzero(self.locals["dones"]):
            # Left to itself, the learner would discount this value by its constant gamma.
            if infos[i].pop("TimeLimit.truncated", False):
                value = self._value(infos[i]["terminal_observation"])
                self.locals["rewards"][i] += math.exp(-durations[i] / buffer.tau_s) * value
        return True

    def _value(self, observation: dict[str, np.ndarray]) -> float:
        policy: Any = self.model.policy
        with torch.no_grad():
            return float(policy.predict_values(policy.obs_to_tensor(observation)[0])[0])
