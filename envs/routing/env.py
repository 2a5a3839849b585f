"""ServeGym/Routing-v0: dispatch requests over the instances of an LLM serving fleet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.routing import transition
from envs.routing.layout import (
    ENV_DTYPE,
    FLEET_FEATURES,
    FUTURE_FEATURES,
    INSTANCE_FEATURES,
    REQUEST_FEATURES,
    Feature,
    RewardMode,
)
from envs.routing.reward import Reward
from envs.scenarios import SEEDS, Scenario, load_scenario
from envs.simulator import EngineConfig, Result, Simulation
from envs.simulator.columns import seconds_to_ps
from envs.simulator.config import QueueOrder
from envs.workloads import RequestTable, read_trace

Observation = dict[str, npt.NDArray[np.float32]]
RENDER_FPS = 4


def _box(features: Sequence[Feature], rows: int = 1) -> spaces.Box:
    low = np.tile(np.array([f.low for f in features], np.float32), rows)
    high = np.tile(np.array([f.high for f in features], np.float32), rows)
    return spaces.Box(low, high, dtype=np.float32)


class RoutingEnv(gymnasium.Env[Any, Any]):
    """Route LLM requests to instances, one decision at a time.

    ## Description
    Requests arrive at one router in front of N instances that batch continuously (exact
    simulation, `docs/simulator.md`). A step is one decision about the router queue: dispatch one
    of its first `window` requests to an instance, or hold. Decisions are event-driven: when a
    request arrives, and while requests are held, whenever one finishes or a prefill completes.
    `info["dt"]` is the simulated time that the step took, for discounting by `exp(-dt / tau)`.

    ## Action space
    `Discrete(window * max_instances + 1)`: action `k * max_instances + i` dispatches the k-th
    request of the queue to instance i; the last action holds. `info["action_mask"]` and
    `action_masks()` mark the allowed ones: an existing request, an existing instance whose KV
    cache can hold the prompt, and hold unless nothing is at any instance. A masked action acts
    as a hold, and a hold with nothing in service dispatches the head of the queue; either sets
    `info["action_obeyed"]` to False.

    ## Observation space
    `Dict` of float32 vectors in fixed physical units (names, units and bounds:
    `envs.routing.layout`). Rows follow one another: `instances.reshape(max_instances, 16)`.

    | key | length | content |
    |---|---|---|
    | `requests` | window * 6 | head of the queue: prompt, predicted output, tier, age |
    | `instances` | max_instances * 16 | queue, batch, KV, predicted work, speed of each |
    | `valid` | max_instances | 1 for instances that exist |
    | `fleet` | 6 | router queue, requests in the system, time of day |
    | `future` | 8 | only with `future=True`: arrivals of the next 5/15/30/60 s |

    `future` is for a critic alone (an input-driven baseline, Mao et al. 2019: unbiased, and
    absent at evaluation); an actor that reads it cheats. No other key holds a true output length
    or anything of the future.

    ## Reward
    See `envs.routing.reward.Reward`; `info["reward_terms"]` lists the weighted terms, whose sum
    is the reward.

    ## Starting state
    An empty fleet before the first arrival. Each reset draws a new workload from the scenario
    with a training seed taken from the environment's generator.

    ## Episode end
    Termination: every request was served or rejected, and the system is empty. Truncation: the
    simulated time reached `horizon_s`. The last `info` then holds `episode_metrics`, the summary
    of the run.

    ## Arguments
        scenario: Name or path of a scenario, or a `Scenario`.
        trace: Requests to replay instead of the scenario's workload (file or `RequestTable`);
            predicted output lengths are drawn where it has none.
        reward: A `Reward` or the name of its mode.
        max_instances: Rows of the padded observation; by default the size of the fleet.
        window: Requests at the head of the queue that an action may pick from; by default the
            scenario's.
        queue_order: `fcfs` or `sjf`; by default the scenario's, else `fcfs`.
        decision_interval_s: Clock of decisions; by default the scenario's (0, event-driven). The
            Intelligent Router paper uses 0.02.
        horizon_s: Simulated seconds after which an episode is truncated.
        future: Observe the critic-only key.
        render_mode: `rgb_array` or `human`.

    `reset(options=...)` takes `scenario`, `trace`, `start_s` and `duration_s` (a part of the
    workload), and `workload_seed` (the same workload for every policy that is compared). The
    queue order, clock and window stay those of the environment whatever the scenario.

    ## Example
    >>> import gymnasium
    >>> env = gymnasium.make("envs:ServeGym/Routing-v0", scenario="router-kv6k-rate9")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(0)

    ## Version history
    * v0: first version.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array", "human"],
        "render_fps": RENDER_FPS,
    }

    def __init__(
        self,
        scenario: str | Path | Scenario = "router-kv6k-rate9",
        *,
        trace: str | Path | RequestTable | None = None,
        reward: Reward | RewardMode = "latency",
        max_instances: int | None = None,
        window: int | None = None,
        queue_order: QueueOrder | None = None,
        decision_interval_s: float | None = None,
        horizon_s: float = float("inf"),
        future: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is one of rgb_array, human or None, not {render_mode!r}")
        if not horizon_s > 0:
            raise ValueError(f"horizon_s must be positive, not {horizon_s}")
        self.render_mode = render_mode
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        self.reward = reward if isinstance(reward, Reward) else Reward(reward)
        router = self.scenario.router
        self.window = router.window if window is None else window
        self.queue_order: QueueOrder = queue_order or router.queue_order or "fcfs"
        self.decision_interval_s = (
            router.decision_interval_s if decision_interval_s is None else decision_interval_s
        )
        if self.window < 1:
            raise ValueError(f"window must be at least 1, not {self.window}")
        self.horizon_s = horizon_s
        self.simulation: Simulation | None = None
        self._trace = _read(trace)
        self._fleets: dict[str, list[EngineConfig]] = {}
        self._episode = -1
        self._weights: list[tuple[str, float]] = []
        self._viewer: Any = None

        size = len(self._engines(self.scenario))
        self.rows = size if max_instances is None else max_instances
        if self.rows < size:
            raise ValueError(
                f"max_instances is {self.rows}, but scenario {self.scenario.name} has {size} "
                "instances: raise it or leave it out"
            )
        self.hold = self.window * self.rows
        self.action_space = spaces.Discrete(self.hold + 1)
        keys: dict[str, spaces.Space[Any]] = {
            "requests": _box(REQUEST_FEATURES, self.window),
            "instances": _box(INSTANCE_FEATURES, self.rows),
            "valid": spaces.Box(0.0, 1.0, (self.rows,), np.float32),
            "fleet": _box(FLEET_FEATURES),
        }
        if future:
            keys["future"] = _box(FUTURE_FEATURES)
        self.observation_space = spaces.Dict(keys)

        self._buffers = {
            key: np.zeros(space.shape or (), np.float32) for key, space in keys.items()
        }
        self._mask = np.zeros(self.hold + 1, np.int8)
        self._record = np.zeros(1, ENV_DTYPE)
        self._token_sums = np.zeros(1, np.int64)
        self._over = True
        self._record["rows"] = self.rows
        self._record["horizon_ps"] = seconds_to_ps(horizon_s)
        self._record["tau_s"] = self.reward.tau_s
        self._record["alpha"] = self.reward.alpha
        self._record["epsilon"] = self.reward.epsilon
        self._bind()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; see the class for `options`.

        Raises:
            ValueError: Unknown option, or a fleet larger than `max_instances`.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        unknown = set(options) - {"scenario", "trace", "start_s", "duration_s", "workload_seed"}
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}")
        chosen = options.get("scenario", self.scenario)
        scenario = chosen if isinstance(chosen, Scenario) else load_scenario(chosen)
        drawn = int(self.np_random.integers(SEEDS["train"].start, SEEDS["train"].stop))
        table = self._workload(scenario, options, int(options.get("workload_seed", drawn)))
        fleet = self._engines(scenario)
        if len(fleet) > self.rows:
            raise ValueError(
                f"scenario {scenario.name} has {len(fleet)} instances, more than the "
                f"{self.rows} rows of this environment: make it with max_instances={len(fleet)}"
            )
        self.simulation = Simulation(
            table,
            fleet,
            queue_order=self.queue_order,
            decision_interval_s=self.decision_interval_s,
            window=self.window,
            slo_s=scenario.slo.limits_s(),
        )
        self._episode += 1
        self._weights = list(self.reward.weights_in(self._episode).items())
        self._point_at(self.simulation, scenario.prediction.sigma, options.get("start_s", 0.0))
        for buffer in self._buffers.values():
            buffer.fill(0.0)
        self._buffers["valid"][: len(fleet)] = 1.0
        transition.start_at(self._address)
        self._over = False
        info: dict[str, Any] = {"action_mask": self._mask.copy(), "dt": 0.0}
        if self.reward.mode == "workload_guided":
            info["guided_discount"] = self.reward.guided_discount(self._episode)
        if self.render_mode == "human":
            self.render()
        return self._observation(), info

    def step(
        self, action: int | np.integer[Any]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out one decision and run to the next.

        Raises:
            ResetNeeded: No episode has begun, or it has ended.
        """
        if self.simulation is None or self._over:
            raise gymnasium.error.ResetNeeded("the episode has not begun or is over: call reset()")
        transition.transition_at(self._address, int(action))
        row = self._row
        terms = {term: weight * float(row[term]) for term, weight in self._weights}
        terminated = bool(row["ended"])
        truncated = bool(row["cut"]) and not terminated
        self._over = terminated or truncated
        info: dict[str, Any] = {
            "action_mask": self._mask.copy(),
            "dt": float(row["dt_s"]),
            "reward_terms": terms,
            "cost": {
                "preemptions": float(row["preemptions"]),
                "slo_misses": float(row["slo_misses"]),
                "rejections": float(row["misrouted"]),
            },
            "action_obeyed": bool(row["obeyed"]),
        }
        if self._over:
            info["episode_metrics"] = self.simulation.result("episode").summary()
        if self.render_mode == "human":
            self.render()
        return self._observation(), sum(terms.values()), terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Allowed actions, as sb3-contrib asks for them."""
        return self._mask.astype(bool)

    def result(self) -> Result:
        """What has happened in the episode so far."""
        if self.simulation is None:
            raise gymnasium.error.ResetNeeded("call reset() before result()")
        return self.simulation.result("episode")

    def render(self) -> npt.NDArray[np.uint8] | None:
        """Draw the instances (waiting, running, KV) and the latency so far."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='rgb_array' or 'human' at make()")
            return None
        if self.simulation is None:
            raise gymnasium.error.ResetNeeded("call reset() before render()")
        if self._viewer is None:
            from envs.routing.viewer import Viewer

            self._viewer = Viewer(self.render_mode)
        frame: npt.NDArray[np.uint8] | None = self._viewer.draw(self.simulation)
        return frame

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def _bind(self) -> None:
        """Tell compiled code where the arrays lie."""
        record = self._record
        for key, buffer in self._buffers.items():
            record[f"{key}_at"] = buffer.ctypes.data
        record["mask_at"] = self._mask.ctypes.data
        record["tokens_at"] = self._token_sums.ctypes.data
        if self.simulation is not None:
            record["head_at"] = self.simulation.state.head.ctypes.data
        self._address = int(record.ctypes.data)
        self._row = record[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_viewer": None, "_row": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._record = self._record.view(ENV_DTYPE)
        self._bind()

    def _observation(self) -> Observation:
        return {key: buffer.copy() for key, buffer in self._buffers.items()}

    def _engines(self, scenario: Scenario) -> list[EngineConfig]:
        key = scenario.fleet.model_dump_json()
        if key not in self._fleets:
            self._fleets[key] = scenario.fleet.engines()
        return self._fleets[key]

    def _workload(self, scenario: Scenario, options: dict[str, Any], seed: int) -> RequestTable:
        trace = _read(options["trace"]) if "trace" in options else self._trace
        if trace is None:
            table = scenario.build(seed)[0]
        else:
            known = "predicted_output_tokens" in trace.given
            table = trace if known else scenario.predict(trace, seed)
        start = float(options.get("start_s", 0.0))
        return table.part(start, start + float(options.get("duration_s", float("inf"))))

    def _point_at(self, simulation: Simulation, sigma: float, start_s: float) -> None:
        record = self._record
        record["prediction_sigma"] = sigma
        record["day_start_s"] = start_s
        record["needs_outstanding"] = int(any(term == "outstanding" for term, _ in self._weights))
        if "future" in self._buffers:
            table = simulation.table
            self._token_sums = np.zeros(len(table) + 1, np.int64)
            np.cumsum(table.prompt_tokens + table.output_tokens, out=self._token_sums[1:])
        self._bind()


def _read(trace: str | Path | RequestTable | None) -> RequestTable | None:
    return read_trace(trace) if isinstance(trace, str | Path) else trace
