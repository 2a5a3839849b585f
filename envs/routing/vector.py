"""Many copies of Routing-v0 that one compiled call steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from envs.common.copies import CopiesVectorEnv, one_each
from envs.routing import transition
from envs.routing.episode import Copy, Observation, Task
from envs.routing.layout import ENV_DTYPE, STEP_FLAGS, STEP_VALUES, TERMS, RewardMode
from envs.routing.reward import Reward
from envs.scenarios import Scenario
from envs.simulator.config import QueueOrder
from envs.workloads import RequestTable

_TERMS_FROM = len(STEP_VALUES) - len(TERMS)
_COSTS = {name: STEP_VALUES.index(name) for name in ("preemptions", "slo_misses", "rejections")}


class RoutingVectorEnv(CopiesVectorEnv):
    """`RoutingEnv` for many copies: what each one gives is what a single one would give.

    `gymnasium.make_vec("ServeGym/Routing-v0", num_envs=64)` makes it. Spaces, rewards, infos,
    reset options and the meaning of the arguments are those of `RoutingEnv`; observations are
    (num_envs, length) float32 arrays, `infos["action_mask"]` is (num_envs, actions).

    Args:
        num_envs: Copies.
        autoreset_mode: When an ended copy begins anew, as `gymnasium.vector.AutoresetMode` says.
        copy: Give observations in arrays of their own; otherwise each step writes to the same.
        scenario: One for all, or a list of one a copy; so with `trace` and `horizon_s`. Their
            windows must be equal, or `window` given.
        trace: As in `RoutingEnv`.
        reward: As in `RoutingEnv`.
        max_instances: As in `RoutingEnv`; by default the size of the largest fleet.
        window: As in `RoutingEnv`.
        queue_order: As in `RoutingEnv`.
        decision_interval_s: As in `RoutingEnv`.
        horizon_s: As in `RoutingEnv`.
        future: As in `RoutingEnv`.
        render_mode: `rgb_array` or None.

    Raises:
        ValueError: An option is out of range, or a list has another length than `num_envs`.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        scenario: str | Path | Scenario | Sequence[str | Path | Scenario] = "router-kv6k-rate9",
        trace: str | Path | RequestTable | Sequence[str | Path | RequestTable | None] | None = None,
        reward: Reward | RewardMode = "latency",
        max_instances: int | None = None,
        window: int | None = None,
        queue_order: QueueOrder | None = None,
        decision_interval_s: float | None = None,
        horizon_s: float | Sequence[float] = float("inf"),
        future: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._set_options(num_envs, autoreset_mode, copy, render_mode)
        shared: dict[tuple[int, int, float], Task] = {}
        tasks = []
        given = zip(
            one_each("scenario", scenario, num_envs),
            one_each("trace", trace, num_envs),
            one_each("horizon_s", horizon_s, num_envs),
            strict=True,
        )
        for place, requests, horizon in given:
            key = (id(place), id(requests), horizon)
            if key not in shared:
                shared[key] = Task(
                    place,
                    trace=requests,
                    reward=reward,
                    max_instances=max_instances,
                    window=window,
                    queue_order=queue_order,
                    decision_interval_s=decision_interval_s,
                    horizon_s=horizon,
                    future=future,
                )
            tasks.append(shared[key])
        self.rows = max(task.rows for task in tasks)
        for task in tasks:
            task.rows = self.rows
        first = tasks[0]
        if any(task.window != first.window for task in tasks):
            raise ValueError("the scenarios have unequal windows: choose one with window=")
        self.window, self.hold, self.reward = first.window, first.hold, first.reward

        self.single_action_space = first.action_space()
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = first.observation_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        observations: Observation = {
            key: np.zeros((num_envs, *(space.shape or ())), np.float32)
            for key, space in self.single_observation_space.items()
        }
        mask = np.zeros((num_envs, self.hold + 1), np.int8)
        self._records = np.zeros(num_envs, ENV_DTYPE)
        self._address = int(self._records.ctypes.data)
        copies = [
            Copy(
                task,
                self._records[i : i + 1],
                {key: array[i] for key, array in observations.items()},
                mask[i],
            )
            for i, task in enumerate(tasks)
        ]
        self._set_up(
            copies,
            observations,
            mask,
            len(STEP_VALUES),
            len(STEP_FLAGS),
            {term: _TERMS_FROM + TERMS.index(term) for term in self.reward.weights_in(0)},
            _COSTS,
        )

    def _step_all(
        self,
        actions: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        flags: npt.NDArray[np.bool_],
    ) -> bool:
        # The types are settled: `_checked` gives the actions, and the others are made by `step`.
        step_all = transition.step_all.machine_code
        done: bool = step_all(self._address, actions, self._over, values, flags)
        return done

    def _viewer(self) -> Any:
        from envs.common.viewer import Viewer

        return Viewer("rgb_array")
