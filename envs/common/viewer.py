"""Pictures of a fleet at work: a frame for a video, or a window."""

from __future__ import annotations

import math
import os
import sys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.simulator import Simulation, view
from envs.simulator.layout import PS_PER_S

RENDER_FPS = 4

WIDTH, HEIGHT = 960, 640
"""Pixels of a frame."""
_DPI = 100
_INK, _GRID = "#2b2f36", "#e4e7eb"
_COLOURS = {"waiting": "#d9822b", "running": "#3274a1", "kv": "#4c9a6a", "full": "#c0392b"}
_BAR = 0.38  # half the width of a bar, in instances
_HISTORY = 512  # moments kept for the curves
_LEAST_TOP = 8.0


class Viewer:
    """Draws what the router faces: the load of each instance, and the queue and latency so far.

    Args:
        mode: `rgb_array` draws off screen; `human` shows a window. Where no window can be opened
            it says so once, and draws off screen.

    Raises:
        ValueError: The mode is another.
    """

    def __init__(self, mode: str = "rgb_array") -> None:
        if mode not in ("rgb_array", "human"):
            raise ValueError(f"mode is rgb_array or human, not {mode!r}")
        self.mode = mode
        self._figure: Any = None
        self._size = 0
        self._window: Any = None
        if mode == "human":
            self._window = _window_library()

    def draw(self, simulation: Simulation) -> npt.NDArray[np.uint8] | None:
        """Draw the present moment.

        Args:
            simulation: What to show; another one, or an earlier time, begins the curves anew.

        Returns:
            (HEIGHT, WIDTH, 3) uint8 for `rgb_array`; None for `human`, whose window is updated.
        """
        load = Load.of(simulation)
        if self._figure is None or load.size != self._size:
            self._build(load.size)
        self._remember(load)
        self._update(load)
        if self.mode == "human":
            self._canvas.draw_idle()
            self._canvas.flush_events()
            return None
        return self._frame()

    def close(self) -> None:
        """Close the window and forget the curves."""
        if self._figure is not None and self._window is not None:
            self._window.close(self._figure)
        self._figure = None

    def _build(self, size: int) -> None:
        """Lay out axes and artists, which `_update` then only moves."""
        self.close()
        inches = (WIDTH / _DPI, HEIGHT / _DPI)
        shape: dict[str, Any] = {"figsize": inches, "dpi": _DPI, "facecolor": "white"}
        if self._window is not None:
            self._figure = self._window.figure(**shape)
            self._canvas = self._figure.canvas
        else:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            self._figure = Figure(**shape)
            self._canvas = FigureCanvasAgg(self._figure)
        self._size = size
        self._background: Any = None
        self._clear_curves()
        grid = self._figure.add_gridspec(
            4, 1, left=0.075, right=0.925, bottom=0.075, top=0.905, hspace=0.46
        )
        self._axes = [self._figure.add_subplot(grid[i]) for i in range(4)]
        for axis in self._axes:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", color=_GRID, linewidth=0.8)
            axis.set_axisbelow(True)
            axis.tick_params(labelsize=8, colors=_INK, length=3)
        self._bars = [
            _bars(self._axes[0], size, _COLOURS["waiting"], "Waiting requests"),
            _bars(self._axes[1], size, _COLOURS["running"], "Running requests"),
            _bars(self._axes[2], size, _COLOURS["kv"], "KV cache used (%)"),
        ]
        self._axes[2].set_ylim(0, 112)
        self._axes[2].set_yticks([0, 50, 100])
        self._axes[2].axhline(100, color=_COLOURS["full"], linewidth=1.4)
        self._axes[2].set_xlabel("instance", fontsize=8, color=_INK, labelpad=1)
        self._build_curves()
        self._title = self._figure.text(
            0.075, 0.958, "", fontsize=10, fontweight="bold", color=_INK, va="center"
        )
        self._moving = [*self._bars, self._queue, self._latency, self._title]
        for artist in self._moving:
            artist.set_animated(self.mode == "rgb_array")

    def _build_curves(self) -> None:
        left = self._axes[3]
        right = self._right = left.twinx()
        right.spines[["top", "left"]].set_visible(False)
        left.spines["right"].set_visible(False)
        (self._queue,) = left.plot([], [], color=_COLOURS["waiting"], linewidth=1.6)
        (self._latency,) = right.plot([], [], color=_COLOURS["running"], linewidth=1.6)
        right.tick_params(labelsize=8, colors=_COLOURS["running"], length=3)
        left.tick_params(axis="y", colors=_COLOURS["waiting"])
        _heading(left, "Router queue (requests)", _COLOURS["waiting"])
        _heading(right, "Mean end-to-end latency so far (s)", _COLOURS["running"], "right")
        left.set_xlabel("simulated time (s)", fontsize=8, color=_INK, labelpad=1)
        left.set_ylim(0, _LEAST_TOP)
        right.set_ylim(0, _LEAST_TOP)
        left.set_xlim(0, 60)

    def _clear_curves(self) -> None:
        self._curves: list[tuple[float, float, float]] = []
        self._run: int | None = None

    def _remember(self, load: Load) -> None:
        if self._run != load.run or (self._curves and load.now_s < self._curves[-1][0]):
            self._clear_curves()
            self._run = load.run
        self._curves.append((load.now_s, float(load.queued), load.latency_s))
        if len(self._curves) > _HISTORY:
            # Half the moments, evenly, so that the curve still spans the whole episode.
            self._curves = self._curves[::2]

    def _update(self, load: Load) -> None:
        for bars, heights in zip(self._bars, (load.waiting, load.running, load.kv), strict=True):
            values = np.zeros(2 * load.size - 1)
            values[::2] = heights
            bars.set_data(values)
        times, queue, latency = np.array(self._curves).T
        self._queue.set_data(times, queue)
        self._latency.set_data(times, latency)
        known = latency[~np.isnan(latency)]
        changed = [
            self._raise_top(self._axes[0], load.waiting.max()),
            self._raise_top(self._axes[1], load.running.max()),
            self._raise_top(self._axes[3], queue.max()),
            self._raise_top(self._right, known.max() if len(known) else 0.0),
            self._widen(load.now_s),
        ]
        if any(changed):
            self._background = None
        mean = "-" if math.isnan(load.latency_s) else f"{load.latency_s:,.2f} s"
        self._title.set_text(
            f"t = {load.now_s:,.1f} s    router queue {load.queued:,}    "
            f"in the system {load.in_system:,}    served {load.served:,} of {load.requests:,}    "
            f"mean latency {mean}"
        )

    def _raise_top(self, axis: Any, value: float) -> bool:
        """Make room for a value in an axis, which never shrinks within a run."""
        top = axis.get_ylim()[1] if len(self._curves) > 1 else 0.0
        wanted = max(_round_up(1.05 * float(value)), _LEAST_TOP, top)
        if wanted == axis.get_ylim()[1]:
            return False
        axis.set_ylim(0, wanted)
        return True

    def _widen(self, now_s: float) -> bool:
        end = 60.0
        while end < now_s:
            end *= 2.0
        if end == self._axes[3].get_xlim()[1]:
            return False
        self._axes[3].set_xlim(0, end)
        return True

    def _frame(self) -> npt.NDArray[np.uint8]:
        """Draw what moves over a kept picture of what does not."""
        if self._background is None:
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._canvas.restore_region(self._background)
        for artist in self._moving:
            self._figure.draw_artist(artist)
        return np.asarray(self._canvas.buffer_rgba())[:, :, :3].copy()


class Load:
    """The numbers of one moment.

    Attributes:
        run: Tells one simulation from another.
        now_s: Simulated time, seconds.
        waiting: (N,) requests waiting at each instance.
        running: (N,) requests in prefill or decode.
        kv: (N,) KV tokens in service, percent of the capacity.
        queued: Requests in the router queue.
        in_system: Requests there and at the instances.
        served: Requests served.
        requests: Requests of the whole run.
        latency_s: Mean end-to-end latency of those served, NaN before the first.
    """

    def __init__(self, simulation: Simulation) -> None:
        head, arrays = simulation.state.head[0], simulation.state.arrays
        instances, requests = arrays["instances"], arrays["requests"]
        now_ps = int(head["now_ps"])
        self.run = id(simulation)
        self.now_s = simulation.now_s
        self.size = len(instances)
        every = range(self.size)
        self.waiting = np.array([view.waiting(instances, i) for i in every], float)
        self.running = np.array([view.in_service(instances, i) for i in every], float)
        used = np.array([view.kv_tokens(instances, i, now_ps) for i in every], float)
        self.kv = 100.0 * used / [view.kv_capacity(instances, i) for i in every]
        self.queued = int(head["queued"])
        self.in_system = self.queued + int(head["at_instances"])
        self.served = int(head["served"])
        self.requests = len(requests)
        done = requests["finish_ps"] >= 0
        latencies = (requests["finish_ps"] - requests["arrival_ps"])[done]
        self.latency_s = float(latencies.mean()) / PS_PER_S if len(latencies) else math.nan

    @classmethod
    def of(cls, simulation: Simulation) -> Load:
        """The load of a simulation now."""
        return cls(simulation)


def _bars(axis: Any, size: int, colour: str, title: str) -> Any:
    """One filled outline of all bars, which is drawn far faster than a patch for each."""
    centres = np.repeat(np.arange(size, dtype=float), 2)
    edges = centres + np.tile([-_BAR, _BAR], size)
    axis.set_xlim(-0.6, size - 0.4)
    axis.set_xticks(np.arange(0, size, max(1, math.ceil(size / 32))))
    axis.set_ylim(0, _LEAST_TOP)
    _heading(axis, title, _INK)
    return axis.stairs(np.zeros(2 * size - 1), edges, fill=True, color=colour)


def _heading(axis: Any, text: str, colour: str, side: str = "left") -> None:
    axis.set_title(text, fontsize=9, color=colour, loc=side, pad=3)


def _round_up(value: float) -> float:
    """The least of 1, 2, 4, 5, 8 times a power of ten that is not below the value."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)


def _window_library() -> Any:
    """`matplotlib.pyplot` with a backend that opens windows, None where there is none."""
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return _no_window("there is no display")
    import matplotlib
    import matplotlib.pyplot as plt

    if matplotlib.get_backend().lower() in ("agg", "pdf", "ps", "svg", "cairo", "template"):
        return _no_window("matplotlib has no window backend: install tkinter or PyQt")
    plt.ion()
    return plt


@cache
def _no_window(why: str) -> None:
    text = f"ServeGym: render_mode='human' draws unseen, since {why}; rgb_array gives frames"
    print(text, file=sys.stderr, flush=True)
