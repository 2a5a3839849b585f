"""Vector environments over compiled copies: autoreset, seeds and infos in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv

Observation = dict[str, npt.NDArray[np.float32]]


class AnyCopy(Protocol):
    """What a batch needs of each of its copies."""

    simulation: Any
    over: bool

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode; returns the `info` of the reset."""

    def observation(self) -> Observation:
        """What is observed now, in arrays of its own."""

    def metrics(self) -> dict[str, float]:
        """Summary of the episode so far."""

    def check_clock(self) -> None:
        """Refuse an episode that has come to the end of the clock's range."""


class CopiesVectorEnv(VectorEnv[Any, Any, npt.NDArray[Any]]):
    """Copies of one environment that one compiled call steps, as Gymnasium 1.x specifies.

    A subclass makes the copies and the buffers that they write to, then calls `_set_up`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - an instance replaces it
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def _set_options(
        self, num_envs: int, autoreset_mode: AutoresetMode | str, copy: bool, render_mode: Any
    ) -> None:
        """Take the options that all have; first, since closing needs them whatever is refused."""
        self._viewers: list[Any] = []
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, not {num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is rgb_array or None here, not {render_mode!r}")
        self.num_envs, self.copy, self.render_mode = num_envs, copy, render_mode
        self.autoreset_mode = mode = AutoresetMode(autoreset_mode)
        self._same_step = mode is AutoresetMode.SAME_STEP
        self._disabled = mode is AutoresetMode.DISABLED
        self.metadata = type(self).metadata | {"autoreset_mode": self.autoreset_mode}

    def _set_up(
        self,
        copies: Sequence[AnyCopy],
        observations: Observation,
        mask: npt.NDArray[np.int8] | None,
        values: int,
        flags: int,
        terms: Mapping[str, int],
        costs: Mapping[str, int],
        counts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Take the copies, what they write to, and which rows of a step's values are what.

        Args:
            copies: (num_envs,) copies.
            observations: Their buffers, (num_envs, length) by key.
            mask: Allowed actions, (num_envs, actions); None where all always are.
            values: Rows of float64 that a step writes, the reward and the duration first.
            flags: Rows of bool: terminated, truncated, and whether the action was obeyed.
            terms: Row by term of the reward.
            costs: Row by cost.
            counts: Row of what costs are of, by name.
        """
        self._copies, self._observations, self._mask = copies, observations, mask
        self._rows = values, flags
        self._terms = [(name, f"_{name}", row) for name, row in terms.items()]
        self._costs = [(name, f"_{name}", row) for name, row in costs.items()]
        self._counts = [(name, f"_{name}", row) for name, row in counts.items()]
        self._over = np.ones(self.num_envs, bool)
        self._begun = False
        self._ended: list[int] = []
        self._rngs: list[tuple[np.random.Generator, int] | None] = [None] * self.num_envs

    def _checked(self, actions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Actions as the compiled call takes them.

        Raises:
            ValueError: They have another type or shape.
        """
        actions = np.asarray(actions)
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be whole numbers, not {actions.dtype}")
        actions = np.ascontiguousarray(actions, np.int64)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), not {actions.shape}")
        return actions

    def _step_all(
        self,
        actions: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
        flags: npt.NDArray[np.bool_],
    ) -> bool:
        """The compiled call; gives whether an episode ended."""
        raise NotImplementedError

    def _viewer(self) -> Any:
        """What draws a copy."""
        raise NotImplementedError

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
            options: Those of the single environment, each one value for all or a list of one a
                copy, and `reset_mask`, a (num_envs,) bool array.

        Raises:
            ValueError: Unknown option, a list of another length, a fleet larger than there
                are rows for, or a mask that marks nothing.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
            check_length("seed", seeds, self.num_envs)
        options = dict(options or {})
        chosen = self._reset_mask(options.pop("reset_mask", None))
        each = {k: one_each(k, v, self.num_envs) for k, v in options.items()}
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
        actions = self._checked(actions)
        if not self._begun or (self._ended and self._disabled):
            raise gymnasium.error.ResetNeeded("an episode has not begun or is over: call reset()")
        values = np.empty((self._rows[0], self.num_envs))
        flags = np.empty((self._rows[1], self.num_envs), bool)
        some_ended = self._step_all(actions, values, flags)
        terminated, truncated, obeyed = flags[0], flags[1], flags[2]
        stepped = ~self._over
        begin, self._ended = self._ended, []
        endings: dict[str, Any] = {}
        if some_ended:
            over = terminated | truncated
            self._ended = np.flatnonzero(over).tolist()
            endings = self._endings(values, obeyed, over)
        if some_ended and self._same_step:
            begin, self._ended = self._ended, []
            values[1:, begin], obeyed[begin], stepped[begin] = 0.0, False, False
        starts = [(i, self._begin(i, {})) for i in begin]
        infos = self._infos(values, obeyed, stepped) if len(begin) < self.num_envs else {}
        infos |= endings
        if starts:
            self._add_starts(infos, starts, stepped)
        return self._given(), values[0], terminated, truncated, infos

    def _add_starts(
        self, infos: dict[str, Any], starts: Sequence[tuple[int, dict[str, Any]]], stepped: Any
    ) -> None:
        """Add the infos of new episodes to those of the copies that took a step."""
        if "dt" not in infos:  # no copy did
            infos["dt"] = np.zeros(self.num_envs)
            if self._mask is not None:
                infos["action_mask"] = self._mask.copy()
        # Durations and masks of a new episode are there already.
        infos["_dt"] = known = stepped.copy()
        if self._mask is not None:
            infos["_action_mask"] = known
        for i, info in starts:
            known[i] = True
            others = {key: info[key] for key in info if key not in ("dt", "action_mask")}
            self._add_info(infos, others, i)

    def _endings(
        self, values: npt.NDArray[np.float64], obeyed: npt.NDArray[np.bool_], over: Any
    ) -> dict[str, Any]:
        """Infos of the copies whose episodes just ended.

        Args:
            values: What the step wrote.
            obeyed: (num_envs,) whether each action was carried out.
            over: (num_envs,) whether each episode just ended.
        """
        metrics = []
        for i in self._ended:
            copy = self._copies[i]
            copy.check_clock()
            self._over[i] = copy.over = True
            metrics.append(copy.metrics())
        if not self._same_step:
            return self._stacked(metrics, over)
        last = np.full(self.num_envs, None, dtype=object)
        for i in self._ended:
            last[i] = self._copies[i].observation()
        info = self._infos(np.where(over, values, 0.0), obeyed & over, over)
        if self._mask is not None:
            info["action_mask"][~over] = 0
        info |= self._stacked(metrics, over)
        return {"final_obs": last, "_final_obs": over, "final_info": info, "_final_info": over}

    def _stacked(self, metrics: Sequence[Mapping[str, float]], mark: Any) -> dict[str, Any]:
        """Infos with the summaries of the copies whose episodes just ended, which are marked."""
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
        if self._mask is None:
            raise AttributeError("every action of this environment is always allowed")
        return self._mask.astype(bool)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """A frame of each copy."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='rgb_array' at make_vec()")
            return None
        if not self._begun:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        if not self._viewers:
            self._viewers = [self._viewer() for _ in self._copies]
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
        infos: dict[str, Any] = {}
        if self._counts:
            infos["counts"] = counts = {}
            infos["_counts"] = stepped
            for name, mark, row in self._counts:
                counts[name], counts[mark] = values[row], stepped
        if self._mask is not None:
            infos["action_mask"], infos["_action_mask"] = self._mask.copy(), stepped
        terms: dict[str, Any] = {}
        for name, mark, row in self._terms:
            terms[name], terms[mark] = values[row], stepped
        cost: dict[str, Any] = {}
        for name, mark, row in self._costs:
            cost[name], cost[mark] = values[row], stepped
        infos["dt"], infos["_dt"] = values[1], stepped
        infos["reward_terms"], infos["_reward_terms"] = terms, stepped
        infos["cost"], infos["_cost"] = cost, stepped
        infos["action_obeyed"], infos["_action_obeyed"] = obeyed, stepped
        return infos

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


def one_each(name: str, value: Any, count: int) -> list[Any]:
    """A value for each copy: the items of a list or tuple, else the same one for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    check_length(name, value, count)
    return list(value)


def check_length(name: str, values: Sequence[object], count: int) -> None:
    """Refuse a list that is not of one value a copy."""
    if len(values) != count:
        raise ValueError(f"{name} lists {len(values)} values for {count} copies: give one each")
