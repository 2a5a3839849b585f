"""The native vector environment as stable-baselines3 wants one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv

from envs.common.copies import CopiesVectorEnv, Observation

Indices = None | int | Iterable[int]


class StableBaselinesVecEnv(VecEnv):
    """A vector environment of ours behind the interface of stable-baselines3.

    Observations, rewards and infos are those that `DummyVecEnv` gives of as many single
    environments: an ended copy begins anew at once, its `info` holds `terminal_observation` and
    `TimeLimit.truncated`, and `env_method("action_masks")` asks for the masks, as `MaskablePPO`
    of sb3-contrib does.

    Args:
        env: The environment, with same-step autoreset.

    Raises:
        ValueError: It resets in another way.
    """

    def __init__(self, env: CopiesVectorEnv) -> None:
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                "stable-baselines3 resets an ended copy in the same step: make the environment "
                "with autoreset_mode='SameStep'"
            )
        self.env = env
        self._actions: npt.NDArray[Any] = np.zeros(env.num_envs, np.int64)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Observation:
        """Begin an episode in every copy, with the seeds and options set for this reset."""
        names = sorted({name for options in self._options for name in options})
        for name in names:
            if any(name not in options for options in self._options):
                raise ValueError(f"the reset option {name!r} is set for some copies only")
        each: dict[str, Any] = {name: [o[name] for o in self._options] for name in names}
        observations, infos = self.env.reset(seed=self._seeds, options=each)
        self.reset_infos = [_info_of(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every copy: observations, rewards (float32), ends and infos."""
        observations, rewards, terminated, truncated, batch = self.env.step(self._actions)
        ended = terminated | truncated
        last = {name: batch.pop(name, None) for name in ("final_info", "final_obs")}
        # What the others have is that of a step; what only ended copies have is of their resets.
        steps = {k: v for k, v in batch.items() if k[0] != "_" and (batch[f"_{k}"] | ended).all()}
        infos = _infos(steps)
        for info in infos:
            info["TimeLimit.truncated"] = False
        for i in np.flatnonzero(ended).tolist():
            self.reset_infos[i] = _info_of(batch, i)
            infos[i] = _info_of(last["final_info"], i)
            infos[i]["TimeLimit.truncated"] = bool(truncated[i])
            infos[i]["terminal_observation"] = last["final_obs"][i]
        return observations, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """Release what the environment holds."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A frame of each copy, where it renders."""
        return self.env.render() or [None] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Whether the environment has an attribute."""
        return hasattr(self.env, attr_name)

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute of the environment, which all copies share, once a copy."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Refused: copies have no attributes of their own.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"{attr_name} can't be set: copies have no attributes of their own")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Rows of what a method of the environment gives, such as `action_masks`.

        Raises:
            AttributeError: There is no such method, or it does not give one value a copy.
        """
        if method_name not in ("action_masks", "render"):
            raise AttributeError(f"copies have action_masks and render, not {method_name}")
        rows = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [rows[i] for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        """No copy is wrapped."""
        return [False for _ in self._get_indices(indices)]


def _infos(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """A dict a copy of infos that all copies have."""
    names = [name for name in batch if name[0] != "_"]
    columns = [_column(batch[name]) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return _infos(values)
    return values.tolist() if values.ndim == 1 else list(values)


def _info_of(batch: dict[str, Any], i: int) -> dict[str, Any]:
    """The infos that copy i has."""
    mine = {k: v for k, v in batch.items() if f"_{k}" in batch and batch[f"_{k}"][i]}
    return {k: _info_of(v, i) if isinstance(v, dict) else _column(v)[i] for k, v in mine.items()}
