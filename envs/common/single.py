"""A single environment over one compiled copy: stepping, pictures and the end in one place."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from envs.common.copies import Observation
from envs.common.viewer import RENDER_FPS
from envs.simulator import Result, Simulation


class CopyEnv(gymnasium.Env[Any, Any]):
    """One copy of a task; a subclass makes `_copy` and the spaces, and documents the MDP."""

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": RENDER_FPS,
    }
    _copy: Any
    _viewer: Any = None

    def _set_render_mode(self, render_mode: str | None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is one of rgb_array, human or None, not {render_mode!r}")
        self.render_mode = render_mode

    @property
    def simulation(self) -> Simulation | None:
        """The simulation under the episode, None before the first."""
        simulation: Simulation | None = self._copy.simulation
        return simulation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; see the class for `options`.

        Raises:
            ValueError: An option is unknown, or does not go with the environment.
        """
        super().reset(seed=seed)
        info = self._copy.begin(self.np_random, options or {})
        if self.render_mode == "human":
            self.render()
        return self._copy.observation(), info

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out one decision and run to the next.

        Raises:
            ResetNeeded: No episode has begun, or it has ended.
            ValueError: The action has another shape, or is not a number.
        """
        copy = self._copy
        if copy.over:
            raise gymnasium.error.ResetNeeded("the episode has not begun or is over: call reset()")
        copy.step(action)
        terminated = bool(copy.row["ended"])
        truncated = bool(copy.row["cut"]) and not terminated
        copy.over = terminated or truncated
        if terminated:
            copy.check_clock()
        info = copy.step_info()
        if copy.over:
            info["episode_metrics"] = copy.metrics()
        if self.render_mode == "human":
            self.render()
        return copy.observation(), float(copy.row["reward"]), terminated, truncated, info

    def result(self) -> Result:
        """What has happened in the episode so far."""
        if self.simulation is None:
            raise gymnasium.error.ResetNeeded("call reset() before result()")
        result: Result = self._copy.result()
        return result

    def metrics(self) -> dict[str, float]:
        """Summary of the episode so far."""
        if self.simulation is None:
            raise gymnasium.error.ResetNeeded("call reset() before metrics()")
        metrics: dict[str, float] = self._copy.metrics()
        return metrics

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the instances (waiting, running, KV) and the latency so far."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='rgb_array' or 'human' at make()")
            return None
        if self.simulation is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        if self._viewer is None:
            from envs.common.viewer import Viewer

            self._viewer = Viewer(self.render_mode)
        frame: npt.NDArray[np.uint8] | None = self._viewer.draw(self.simulation)
        return frame

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_viewer": None}
