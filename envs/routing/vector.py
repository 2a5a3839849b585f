"""Many copies of Routing-v0 that one compiled call steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.routing import transition
from envs.routing.episode import Copy, Observation, Task
from envs.routing.layout import ENV_DTYPE, STEP_FLAGS, STEP_VALUES, TERMS, RewardMode
from envs.routing.reward import Reward
from envs.scenarios import Scenario
from envs.simulator.config import QueueOrder
from envs.workloads import RequestTable

_TERMS_FROM = len(STEP_VALUES) - len(TERMS)
_COSTS = tuple(
    (name, f"_{name}", STEP_VALUES.index(name))
    for name in ("preemptions", "slo_misses", "rejections")
)


class RoutingVectorEnv(VectorEnv[Observation, npt.NDArray[np.int64], npt.NDArray[Any]]):
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

    metadata: dict[str, Any] = {  # noqa: RUF012 - an instance replaces it
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

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
        self._viewers: list[Any] = []  # first, since closing needs it whatever is refused below
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, not {num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is rgb_array or None here, not {render_mode!r}")
        self.num_envs, self.copy, self.render_mode = num_envs, copy, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode}
        shared: dict[tuple[int, int, float], Task] = {}
        tasks = []
        given = zip(
            _one_each("scenario", scenario, num_envs),
            _one_each("trace", trace, num_envs),
            _one_each("horizon_s", horizon_s, num_envs),
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
        self._observations: Observation = {
            key: np.zeros((num_envs, *(space.shape or ())), np.float32)
            for key, space in self.single_observation_space.items()
        }
        self._mask = np.zeros((num_envs, self.hold + 1), np.int8)
        self._records = np.zeros(num_envs, ENV_DTYPE)
        self._copies = [
            Copy(
                task,
                self._records[i : i + 1],
                {key: array[i] for key, array in self._observations.items()},
                self._mask[i],
            )
            for i, task in enumerate(tasks)
        ]
        self._terms = [
            (term, f"_{term}", _TERMS_FROM + TERMS.index(term))
            for term in self.reward.weights_in(0)
        ]
        self._address = int(self._records.ctypes.data)
        self._over = np.ones(num_envs, bool)
        self._begun = False
        self._ended: list[int] = []
        self._rngs: list[tuple[np.random.Generator, int] | None] = [None] * num_envs

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Generator of each copy."""
        return tuple(self._seeded(i)[0] for i in range(self.num_envs))

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Seed of each copy."""
        return tuple(self._seeded(i)[1] for i in range(self.num_envs))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every copy, or in those that `options["reset_mask"]` marks.

        Args:
            seed: Copy i gets `seed + i`; or one a copy, None leaving its generator as it is.
            options: Those of `RoutingEnv.reset`, each one value for all or a list of one a copy,
                and `reset_mask`, a (num_envs,) bool array.

        Raises:
            ValueError: Unknown option, a list of another length, a fleet larger than
                `max_instances`, or a mask that marks nothing.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
            _check_length("seed", seeds, self.num_envs)
        options = dict(options or {})
        chosen = self._reset_mask(options.pop("reset_mask", None))
        each = {k: _one_each(k, v, self.num_envs) for k, v in options.items()}
        infos: dict[str, Any] = {}
        self._begun = False  # until every copy that is reset has begun
        for i in np.flatnonzero(chosen).tolist():
            if seeds[i] is not None:
                self._rngs[i] = seeding.np_random(seeds[i])
            info = self._begin(i, {key: values[i] for key, values in each.items()})
            infos = self._add_info(infos, info, i)
        self._ended = [i for i in self._ended if not chosen[i]]
        self._begun = all(copy.simulation is not None for copy in self._copies)
        return self._given(), infos

    def step(
        self, actions: npt.ArrayLike
    ) -> tuple[
        Observation,
        npt.NDArray[np.float64],
        npt.NDArray[np.bool_],
        npt.NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Carry out one decision in each copy and run it to its next.

        Args:
            actions: (num_envs,) whole numbers.

        Raises:
            ResetNeeded: No episodes have begun, or one has ended and autoreset is disabled.
            ValueError: The actions have another shape.
        """
        actions = np.asarray(actions)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be whole numbers, not {actions.dtype}")
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), not {actions.shape}")
        same_step = self.autoreset_mode is AutoresetMode.SAME_STEP
        if not self._begun or (self._ended and self.autoreset_mode is AutoresetMode.DISABLED):
            raise gymnasium.error.ResetNeeded("an episode has not begun or is over: call reset()")
        values = np.empty((len(STEP_VALUES), self.num_envs))
        flags = np.empty((len(STEP_FLAGS), self.num_envs), bool)
        some_ended = transition.step_all(self._address, actions, self._over, values, flags)
        terminated, truncated, obeyed = flags[0], flags[1], flags[2]
        stepped = np.logical_not(self._over)
        begin, self._ended = self._ended, []
        endings: dict[str, Any] = {}
        if some_ended:
            self._ended = np.flatnonzero(terminated | truncated).tolist()
            endings = self._endings()
        if same_step and some_ended:
            begin, self._ended = self._ended, []
            values[1:, begin], obeyed[begin], stepped[begin] = 0.0, False, False
        starts = [(i, self._begin(i, {})) for i in begin]
        infos = self._infos(values, obeyed, stepped) if len(begin) < self.num_envs else {}
        infos |= endings
        if starts and "dt" in infos:  # marks of the new episodes are of these two alone
            infos["_action_mask"] = infos["_dt"] = stepped.copy()
        for i, info in starts:
            infos = self._add_info(infos, info, i)
        return self._given(), values[0], terminated, truncated, infos

    def _endings(self) -> dict[str, Any]:
        """Infos of the copies whose episodes just ended."""
        infos: dict[str, Any] = {}
        metrics = []
        for i in self._ended:
            copy = self._copies[i]
            copy.check_clock()
            self._over[i] = copy.over = True
            metrics.append(copy.metrics())
            if self.autoreset_mode is AutoresetMode.SAME_STEP:
                info = {"final_obs": copy.observation(), "final_info": copy.step_info()}
                infos = self._add_info(infos, info, i)
        stacked = self._stacked(metrics)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos["final_info"] |= stacked
            return infos
        return stacked

    def _stacked(self, metrics: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Infos with the summaries of the copies whose episodes just ended."""
        mark = np.zeros(self.num_envs, bool)
        mark[self._ended] = True
        values = np.zeros((len(metrics[0]), self.num_envs))
        values[:, self._ended] = np.array([list(each.values()) for each in metrics]).T
        named: dict[str, Any] = {}
        for name, row in zip(metrics[0], values, strict=True):
            named[name], named[f"_{name}"] = row, mark
        return {"episode_metrics": named, "_episode_metrics": mark}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse copies: compiled code writes to these very arrays."""
        raise TypeError("a vector environment can't be copied or pickled: make another one")

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Allowed actions of each copy, (num_envs, actions)."""
        return self._mask.astype(bool)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """A frame of each copy."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='rgb_array' at make_vec()")
            return None
        if not self._begun:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        if not self._viewers:
            from envs.routing.viewer import Viewer

            self._viewers = [Viewer(self.render_mode) for _ in self._copies]
        pairs = zip(self._viewers, self._copies, strict=True)
        return tuple(viewer.draw(copy.simulation) for viewer, copy in pairs)

    def close_extras(self, **kwargs: Any) -> None:
        """Forget the pictures."""
        for viewer in self._viewers:
            viewer.close()
        self._viewers = []

    def _seeded(self, i: int) -> tuple[np.random.Generator, int]:
        seeded = self._rngs[i]
        if seeded is None:
            seeded = self._rngs[i] = seeding.np_random()
        return seeded

    def _begin(self, i: int, options: Mapping[str, Any]) -> dict[str, Any]:
        info = self._copies[i].begin(self._seeded(i)[0], options)
        self._over[i] = False
        return info

    def _given(self) -> Observation:
        if not self.copy:
            return self._observations
        return {key: array.copy() for key, array in self._observations.items()}

    def _infos(
        self, values: npt.NDArray[np.float64], obeyed: npt.NDArray[np.bool_], stepped: Any
    ) -> dict[str, Any]:
        """Infos of a step, with the marks of the copies that took it."""
        terms: dict[str, Any] = {}
        for term, mark, row in self._terms:
            terms[term], terms[mark] = values[row], stepped
        cost: dict[str, Any] = {}
        for name, mark, row in _COSTS:
            cost[name], cost[mark] = values[row], stepped
        return {
            "action_mask": self._mask.copy(),
            "_action_mask": stepped,
            "dt": values[1],
            "_dt": stepped,
            "reward_terms": terms,
            "_reward_terms": stepped,
            "cost": cost,
            "_cost": stepped,
            "action_obeyed": obeyed,
            "_action_obeyed": stepped,
        }

    def _reset_mask(self, mask: Any) -> npt.NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, bool)
        if not isinstance(mask, np.ndarray) or mask.dtype != bool:
            raise ValueError("reset_mask must be a NumPy array of bool")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must have shape ({self.num_envs},) and mark a copy, but has shape "
                f"{mask.shape} and marks {int(mask.sum())}"
            )
        return mask


def _one_each(name: str, value: Any, count: int) -> list[Any]:
    """A value for each copy: the items of a list or tuple, else the same one for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    _check_length(name, value, count)
    return list(value)


def _check_length(name: str, values: Sequence[object], count: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name} lists {len(values)} values for {count} copies: give one each")
