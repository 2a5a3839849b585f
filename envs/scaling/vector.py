"""Many copies of Scaling-v0 that one compiled call steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.common.copies import CopiesVectorEnv, Observation, one_each
from envs.scaling import transition
from envs.scaling.layout import COSTS, COUNTS, ENV_DTYPE, STEP_FLAGS, STEP_VALUES, TERMS
from envs.scaling.task import Copy, Task, checked
from envs.scenarios import Scenario


class ScalingVectorEnv(CopiesVectorEnv):
    """`ScalingEnv` for many copies: what each one gives is what a single one would give.

    `gymnasium.make_vec("ServeGym/Scaling-v0", num_envs=8)` makes it. Spaces, rewards, infos, reset
    options and the meaning of the arguments are those of `ScalingEnv`; observations are
    (num_envs, length) float32 arrays and actions (num_envs, numbers) whole numbers.

    Args:
        num_envs: Copies.
        autoreset_mode: When an ended copy begins anew, as `gymnasium.vector.AutoresetMode` says.
        copy: Give observations in arrays of their own; otherwise each step writes to the same.
        scenario: One for all, or a list of one a copy; so with `horizon_s`.
        horizon_s: As in `ScalingEnv`.
        render_mode: `rgb_array` or None.
        **options: Further arguments of `ScalingEnv`.

    Raises:
        ValueError: An option is out of range, or a list has another length than `num_envs`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        scenario: str | Path | Scenario | Sequence[str | Path | Scenario] = "scaling-tenth",
        horizon_s: float | Sequence[float] = float("inf"),
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        self._set_options(num_envs, autoreset_mode, copy, render_mode)
        shared: dict[tuple[int, float], Task] = {}
        tasks = []
        for place, horizon in zip(
            one_each("scenario", scenario, num_envs),
            one_each("horizon_s", horizon_s, num_envs),
            strict=True,
        ):
            key = (id(place), horizon)
            if key not in shared:
                shared[key] = Task(place, horizon_s=horizon, **options)
            tasks.append(shared[key])
        self._first = tasks[0]
        self.single_action_space = self._first.action_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = self._first.observation_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        observations: Observation = {
            key: np.zeros((num_envs, *(space.shape or ())), np.float32)
            for key, space in self._first.observation_space().items()
        }
        mask = np.ones((num_envs, self._first.mask_length), np.int8)
        self._actions = np.tile(self._first.no_change(), (num_envs, 1))
        self._records = np.zeros(num_envs, ENV_DTYPE)
        self._address = int(self._records.ctypes.data)
        copies = [
            Copy(
                task,
                self._records[i : i + 1],
                {key: array[i] for key, array in observations.items()},
                mask[i],
                self._actions[i],
            )
            for i, task in enumerate(tasks)
        ]
        self._set_up(
            copies,
            observations,
            mask,
            len(STEP_VALUES),
            len(STEP_FLAGS),
            {term: len(STEP_VALUES) - len(TERMS) + k for k, term in enumerate(TERMS)},
            {cost: 2 + k for k, cost in enumerate(COSTS)},
            {count: 2 + len(COSTS) + k for k, count in enumerate(COUNTS)},
        )
        self._none = np.zeros(num_envs, np.int64)

    @property
    def task(self) -> Task:
        """The options of the first copy, settled."""
        return self._first

    def _checked(self, actions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(actions)
        if given.shape != self._actions.shape:
            raise ValueError(f"actions must have shape {self._actions.shape}, not {given.shape}")
        self._actions[:] = checked(given, self._first)
        return self._none

    def _step_all(
        self,
        actions: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        flags: npt.NDArray[np.bool_],
    ) -> bool:
        functions = self._copies[0].functions  # type: ignore[attr-defined]
        done: bool = transition.step_all(self._address, *functions, self._over, values, flags)
        return done

    def _viewer(self) -> Any:
        from envs.common.viewer import Viewer

        return Viewer("rgb_array")
