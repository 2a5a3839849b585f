"""Episodes that a policy, or any rule that reads observations, plays to their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from agents.networks import Policy
from envs.common.copies import Observation
from envs.simulator import Result

Actor = Callable[[Sequence[Observation], "npt.NDArray[np.bool_] | None"], Sequence[Any]]
"""From observations, and their (n, actions) masks where there are any, to an action for each."""


@dataclass(frozen=True)
class Played:
    """One episode.

    Attributes:
        result: What happened to each request.
        actions: How often each action was taken; of settings, the sum of each one's values; of
            several whole numbers, the sum of each one's distance from no change.
        obeyed: Steps in which the environment did what the action said.
        decisions: Steps.
        reward: Sum of the rewards.
        metrics: The environment's own summary of the episode.
    """

    result: Result
    actions: np.ndarray
    obeyed: int
    decisions: int = 0
    reward: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def hold_share(self) -> float:
        """Share of decisions that took the last action, which in routing holds."""
        return float(self.actions[-1] / max(self.actions.sum(), 1))


def play(
    policy: Policy,
    envs: Sequence[Any],
    options: Sequence[dict[str, Any]],
    rng: np.random.Generator,
    deterministic: bool = True,
) -> list[Played]:
    """One episode in each environment, the policy deciding for all of them at once.

    Args:
        policy: The policy.
        envs: Environments of equal spaces.
        options: Options of each one's reset.
        rng: Draws the sampled actions.
        deterministic: Take the most probable action instead of a sampled one.

    Returns:
        The episodes, in the order of the environments.
    """
    space = policy.action_space

    def act(observations: Sequence[Observation], masks: Any) -> Sequence[Any]:
        keys = observations[0]
        batch = {key: torch.from_numpy(np.stack([o[key] for o in observations])) for key in keys}
        with torch.no_grad():
            if isinstance(space, spaces.Discrete):
                return _choose(policy, batch, masks, rng, deterministic)
            if isinstance(space, spaces.MultiDiscrete):
                return _choose_each(policy, batch, masks, rng, deterministic)
            return _set(policy, batch, rng, deterministic)

    return play_with(act, envs, options)


def play_with(
    act: Actor,
    envs: Sequence[Any],
    options: Sequence[dict[str, Any]],
) -> list[Played]:
    """As `play`, with any rule."""
    observations = [env.reset(options=o)[0] for env, o in zip(envs, options, strict=True)]
    space = envs[0].action_space
    discrete = isinstance(space, spaces.Discrete)
    several = isinstance(space, spaces.MultiDiscrete)
    counts = np.zeros((len(envs), space.n if discrete else space.shape[0]), np.float64)
    if discrete:
        counts = counts.astype(np.int64)
    neutral = envs[0].no_change() if several else 0.0
    obeyed, decisions, rewards = [0] * len(envs), [0] * len(envs), [0.0] * len(envs)
    metrics: list[dict[str, float]] = [{} for _ in envs]
    active = list(range(len(envs)))
    while active:
        masked = discrete or several
        masks = np.stack([envs[i].action_masks() for i in active]) if masked else None
        actions = act([observations[i] for i in active], masks)
        left = []
        for i, action in zip(active, actions, strict=True):
            observations[i], reward, terminated, truncated, info = envs[i].step(action)
            if discrete:
                counts[i, action] += 1
            else:
                counts[i] += action - neutral
            obeyed[i] += int(info["action_obeyed"])
            decisions[i] += 1
            rewards[i] += reward
            if terminated or truncated:
                metrics[i] = info["episode_metrics"]
            else:
                left.append(i)
        active = left
    return [
        Played(env.result(), counts[i], obeyed[i], decisions[i], rewards[i], metrics[i])
        for i, env in enumerate(envs)
    ]


def mean(rows: Sequence[dict[str, float]], key: str) -> float:
    """Mean of a metric over episodes."""
    return float(np.mean([row[key] for row in rows]))


def _choose(
    policy: Any,
    batch: dict[str, torch.Tensor],
    masks: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    deterministic: bool,
) -> list[int]:
    chances = policy.get_distribution(batch, action_masks=masks).distribution.probs.numpy()
    if not deterministic:
        # Exponential race: the smallest time is action a's with probability chances[a].
        with np.errstate(divide="ignore"):
            chances = chances / rng.standard_exponential(chances.shape)
    # A mask leaves a probability of about 0, but not always 0 itself.
    return [int(a) for a in np.where(masks, chances, -1.0).argmax(axis=1)]


def _choose_each(
    policy: Any,
    batch: dict[str, torch.Tensor],
    masks: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    deterministic: bool,
) -> list[npt.NDArray[np.int64]]:
    """As `_choose`, for each number of an action."""
    numbers, start = [], 0
    for part in policy.get_distribution(batch, action_masks=masks).distributions:
        chances = part.probs.numpy()
        allowed = masks[:, start : start + chances.shape[1]]
        start += chances.shape[1]
        if not deterministic:
            with np.errstate(divide="ignore"):
                chances = chances / rng.standard_exponential(chances.shape)
        numbers.append(np.where(allowed, chances, -1.0).argmax(axis=1))
    return list(np.stack(numbers, axis=1))


def _set(
    policy: Any, batch: dict[str, torch.Tensor], rng: np.random.Generator, deterministic: bool
) -> list[npt.NDArray[np.float32]]:
    normal = policy.get_distribution(batch).distribution
    values = normal.mean.numpy()
    if not deterministic:
        values = values + normal.stddev.numpy() * rng.standard_normal(values.shape)
    space = policy.action_space
    return list(np.clip(values, space.low, space.high).astype(np.float32))
