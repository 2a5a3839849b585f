"""What an environment plays, and one copy of it: shared by `RoutingEnv` and its vector form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.common.features import box
from envs.common.traces import read_given
from envs.routing import transition
from envs.routing.layout import (
    ENV_DTYPE,
    FLEET_FEATURES,
    FUTURE_FEATURES,
    INSTANCE_FEATURES,
    REQUEST_FEATURES,
    TERMS,
    RewardMode,
)
from envs.routing.reward import Reward
from envs.scenarios import SEEDS, Scenario, load_scenario
from envs.simulator import EngineConfig, Result, Simulation
from envs.simulator.columns import seconds_to_ps
from envs.simulator.config import QueueOrder
from envs.workloads import RequestTable

Observation = dict[str, npt.NDArray[np.float32]]
OPTIONS = {"scenario", "trace", "start_s", "duration_s", "workload_seed"}
"""What `reset(options=...)` takes."""


class Task:
    """The options of an environment, settled; `RoutingEnv` says what each means.

    Attributes:
        rows: Instances that observations and actions have room for.

    Raises:
        ValueError: An option is out of range, or `max_instances` is below the fleet's size.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario,
        *,
        trace: str | Path | RequestTable | None = None,
        reward: Reward | RewardMode = "latency",
        max_instances: int | None = None,
        window: int | None = None,
        queue_order: QueueOrder | None = None,
        decision_interval_s: float | None = None,
        horizon_s: float = float("inf"),
        future: bool = False,
    ) -> None:
        if not horizon_s > 0:
            raise ValueError(f"horizon_s must be positive, not {horizon_s}")
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        self.trace = read_given(trace)
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
        self.future = future
        self._fleets: dict[str, list[EngineConfig]] = {}
        self._latest: tuple[Scenario | None, list[EngineConfig]] = (None, [])
        size = len(self.engines(self.scenario))
        self.rows = size if max_instances is None else max_instances
        if self.rows < size:
            raise ValueError(
                f"max_instances is {self.rows}, but scenario {self.scenario.name} has {size} "
                "instances: raise it or leave it out"
            )

    @property
    def hold(self) -> int:
        """The action that holds, the last one."""
        return self.window * self.rows

    def action_space(self) -> spaces.Discrete:
        """Every (queue place, instance), and hold."""
        return spaces.Discrete(self.hold + 1)

    def observation_space(self) -> spaces.Dict:
        """A box of float32 for each key."""
        keys: dict[str, spaces.Space[Any]] = {
            "requests": box(REQUEST_FEATURES, self.window),
            "instances": box(INSTANCE_FEATURES, self.rows),
            "valid": spaces.Box(0.0, 1.0, (self.rows,), np.float32),
            "fleet": box(FLEET_FEATURES),
        }
        if self.future:
            keys["future"] = box(FUTURE_FEATURES)
        return spaces.Dict(keys)

    def engines(self, scenario: Scenario) -> list[EngineConfig]:
        """The fleet of a scenario, laid out once."""
        if scenario is self._latest[0]:
            return self._latest[1]
        key = scenario.fleet.model_dump_json()
        if key not in self._fleets:
            self._fleets[key] = scenario.fleet.engines()
        self._latest = scenario, self._fleets[key]
        return self._fleets[key]

    def simulate(
        self, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> tuple[Simulation, Scenario]:
        """The simulation of a new episode, not begun, and the scenario that it is of.

        Args:
            rng: Draws the seed of the workload.
            options: Those of the reset, any of `OPTIONS`.

        Raises:
            ValueError: Unknown option, or a fleet larger than `rows`.
        """
        unknown = set(options) - OPTIONS
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}")
        chosen = options.get("scenario", self.scenario)
        scenario = chosen if isinstance(chosen, Scenario) else load_scenario(chosen)
        drawn = int(rng.integers(SEEDS["train"].start, SEEDS["train"].stop))
        fleet = self.engines(scenario)
        if len(fleet) > self.rows:
            raise ValueError(
                f"scenario {scenario.name} has {len(fleet)} instances, more than the "
                f"{self.rows} rows of this environment: make it with max_instances={len(fleet)}"
            )
        seed = int(options.get("workload_seed", drawn))
        table = self._workload(scenario, options, seed)
        own: dict[str, Any] = {
            "queue_order": self.queue_order,
            "decision_interval_s": self.decision_interval_s,
            "window": self.window,
        }
        if self.future and scenario.clients.closed_loop:
            raise ValueError(
                f"future=True needs arrivals that are settled ahead, and the clients of scenario "
                f"{scenario.name} wait for answers (closed_loop)"
            )
        return Simulation(table, fleet, **(scenario.options(table, seed) | own)), scenario

    def _workload(self, scenario: Scenario, options: Mapping[str, Any], seed: int) -> RequestTable:
        trace = read_given(options["trace"]) if "trace" in options else self.trace
        if trace is None:
            table = scenario.requests(seed)
        else:
            table = scenario.complete(trace, seed)
        if "start_s" not in options and "duration_s" not in options:
            return table
        start = float(options.get("start_s", 0.0))
        return table.part(start, start + float(options.get("duration_s", float("inf"))))


class Copy:
    """One copy of an environment: its record, the arrays it writes to, and its episode.

    Args:
        task: What it plays.
        record: (1,) of `ENV_DTYPE`.
        buffers: Float32 vector by key of the observation.
        mask: (actions,) int8.

    Attributes:
        row: The record, where compiled code leaves the results of a step.
        simulation: That of the episode, None before the first.
        weights: Weight of each reward term that counts in the episode.
        over: Whether no episode is under way.
    """

    def __init__(
        self,
        task: Task,
        record: npt.NDArray[np.void],
        buffers: Observation,
        mask: npt.NDArray[np.int8],
    ) -> None:
        self.task, self.buffers, self.mask = task, buffers, mask
        self.simulation: Simulation | None = None
        self.weights: dict[str, float] = {}
        self.over = True
        self._episode = -1
        self._token_sums = np.zeros(1, np.int64)
        self._record = record
        record["rows"] = task.rows
        record["horizon_ps"] = seconds_to_ps(task.horizon_s)
        record["tau_s"] = task.reward.tau_s
        record["alpha"] = task.reward.alpha
        record["epsilon"] = task.reward.epsilon
        self._bind()

    @classmethod
    def alone(cls, task: Task) -> Copy:
        """A copy with arrays of its own."""
        shapes = {key: space.shape or () for key, space in task.observation_space().items()}
        buffers = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
        mask = np.zeros(task.hold + 1, np.int8)
        return cls(task, np.zeros(1, ENV_DTYPE), buffers, mask)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode and run to its first decision; returns the `info` of the reset.

        Raises:
            ValueError: See `Task.simulate`.
        """
        self.simulation, scenario = self.task.simulate(rng, options)
        self._episode += 1
        reward, record = self.task.reward, self._record
        self._weigh(reward.weights_in(self._episode))
        record["prediction_sigma"] = scenario.prediction.sigma
        record["day_start_s"] = options.get("start_s", 0.0)
        if self.task.future:
            table = self.simulation.table
            self._token_sums = np.zeros(len(table) + 1, np.int64)
            np.cumsum(table.prompt_tokens + table.output_tokens, out=self._token_sums[1:])
        for buffer in self.buffers.values():
            buffer.fill(0.0)
        self.buffers["valid"][: len(self.simulation.fleet)] = 1.0
        self._bind_episode()
        transition.step_one(self._address, 0, True)
        self.check_clock()
        self.over = False
        info: dict[str, Any] = {"action_mask": self.mask.copy(), "dt": 0.0}
        if reward.mode == "workload_guided":
            info["guided_discount"] = reward.guided_discount(self._episode)
        return info

    def step(self, action: int) -> None:
        """Carry out one decision and run to the next."""
        transition.step_one(self._address, int(action), False)

    def observation(self) -> Observation:
        """What is observed now, in arrays of its own."""
        return {key: buffer.copy() for key, buffer in self.buffers.items()}

    def step_info(self) -> dict[str, Any]:
        """The `info` of the last step."""
        row = self.row
        return {
            "action_mask": self.mask.copy(),
            "dt": float(row["dt_s"]),
            "reward_terms": {term: w * float(row[term]) for term, w in self.weights.items()},
            "cost": {
                "preemptions": float(row["preemptions"]),
                "slo_misses": float(row["slo_misses"]),
                "rejections": float(row["misrouted"]),
            },
            "action_obeyed": bool(row["obeyed"]),
        }

    def check_clock(self) -> None:
        """Refuse an episode that has come to the end of the clock's range."""
        assert self.simulation is not None
        self.simulation.check_clock()

    def metrics(self) -> dict[str, float]:
        """The summary of the episode so far (`Result.summary`)."""
        assert self.simulation is not None
        return self.simulation.summary()

    def result(self) -> Result:
        """What has happened in the episode so far."""
        assert self.simulation is not None
        return self.simulation.result("episode")

    def _weigh(self, weights: dict[str, float]) -> None:
        """Take over the weights of the reward terms, most often those of the episode before."""
        if weights != self.weights:
            for term in TERMS:
                self._record[f"{term}_weight"] = weights.get(term, 0.0)
        self.weights = weights

    def _bind(self) -> None:
        """Tell compiled code where the arrays lie."""
        record = self._record
        for key, buffer in self.buffers.items():
            record[f"{key}_at"] = buffer.ctypes.data
        record["mask_at"] = self.mask.ctypes.data
        self._address = int(record.ctypes.data)
        self.row = record[0]
        self._bind_episode()

    def _bind_episode(self) -> None:
        """Tell compiled code where the arrays lie that each episode has of its own."""
        self._record["tokens_at"] = self._token_sums.ctypes.data
        if self.simulation is not None:
            self._record["head_at"] = self.simulation.state.head.ctypes.data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"row": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._record = self._record.view(ENV_DTYPE)
        self._bind()
