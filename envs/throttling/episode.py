"""What a throttling environment plays, and one copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.common.features import box
from envs.common.traces import read_given
from envs.scenarios import SEEDS, Scenario, load_scenario
from envs.simulator import EngineConfig, Result, Retry, Simulation
from envs.simulator.columns import seconds_to_ps
from envs.simulator.scheduler import MILLION
from envs.throttling import transition
from envs.throttling.gates import ASKED, TUNED
from envs.throttling.layout import (
    CALL_FEATURES,
    COSTS,
    COUNTS,
    ENV_DTYPE,
    FLEET_FEATURES,
    INTERFACES,
    NEUTRAL,
    SETTINGS,
    TENANT_FEATURES,
    TERMS,
    Interface,
)
from envs.throttling.reward import Reward
from envs.throttling.service_counter import service_counter
from envs.workloads import RequestTable, application_costs

Observation = dict[str, npt.NDArray[np.float32]]
OPTIONS = {"scenario", "trace", "workload_seed"}
"""What `reset(options=...)` takes."""
_HISTORY = SEEDS["train"].start
"""Seed of the workload that typical costs of applications are taken from."""


@dataclass(frozen=True)
class _Setting:
    """What episodes of one scenario have in common."""

    fleet: tuple[EngineConfig, ...]
    typical_tokens: float
    costs: dict[str, float]  # by application, in typical calls
    slots: int
    gap_scale: float


class Task:
    """The options of an environment, settled; `ThrottlingEnv` says what each means.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario,
        *,
        interface: Interface = "tuner",
        trace: str | Path | RequestTable | None = None,
        history: str | Path | RequestTable | None = None,
        reward: Reward | None = None,
        tenants: int = 16,
        interval_s: float = 2.0,
        horizon_s: float = float("inf"),
        interaction_slo_s: float = 60.0,
        ttft_slo_s: float = 10.0,
        light_calls: int = 10,
        defer_s: float = 5.0,
        patience_s: float = 300.0,
        skip_ahead: int = 0,
    ) -> None:
        if interface not in INTERFACES:
            raise ValueError(f"interface is one of {', '.join(INTERFACES)}, not {interface!r}")
        if tenants < 1:
            raise ValueError(f"tenants must be at least 1, not {tenants}")
        for name, seconds in (("interval_s", interval_s), ("defer_s", defer_s)):
            if not 0.01 <= seconds <= 1e4:
                raise ValueError(f"{name} must be from 0.01 to 10,000 seconds, not {seconds}")
        for name, seconds in (
            ("horizon_s", horizon_s),
            ("interaction_slo_s", interaction_slo_s),
            ("ttft_slo_s", ttft_slo_s),
            ("patience_s", patience_s),
        ):
            if not seconds > 0:
                raise ValueError(f"{name} must be positive, not {seconds}")
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        self.trace, self.history = read_given(trace), read_given(history)
        self.interface: Interface = interface
        self.reward = reward or Reward()
        self.rows, self.interval_s, self.horizon_s = tenants, interval_s, horizon_s
        self.interaction_slo_s, self.ttft_slo_s = interaction_slo_s, ttft_slo_s
        self.light_calls, self.defer_s, self.skip_ahead = light_calls, defer_s, skip_ahead
        self.patience_s = patience_s
        self._settings: dict[tuple[str, bool], _Setting] = {}

    def action_space(self) -> spaces.Space[Any]:
        """Settings from -1 to 1, or admit, defer, reject."""
        if self.interface == "tuner":
            return spaces.Box(-1.0, 1.0, (len(SETTINGS),), np.float32)
        return spaces.Discrete(3)

    def observation_space(self) -> spaces.Dict:
        """A box of float32 for each key."""
        keys: dict[str, spaces.Space[Any]] = {
            "fleet": box(FLEET_FEATURES),
            "tenants": box(TENANT_FEATURES, self.rows + 1),
        }
        if self.interface == "tuner":
            keys["settings"] = spaces.Box(-1.0, 1.0, (len(SETTINGS),), np.float32)
        else:
            keys["call"] = box((*CALL_FEATURES, *TENANT_FEATURES))
        return spaces.Dict(keys)

    def setting(self, scenario: Scenario, own: bool = False) -> _Setting:
        """The fleet of a scenario, and what its calls typically cost, from a history of it.

        Args:
            scenario: The scenario.
            own: Whether the environment's own trace is played, which has a history of its own.
        """
        key = (scenario.model_dump_json(), own)
        if key not in self._settings:
            honest = scenario.honest_twin() if scenario.adversary is not None else scenario
            table = (self.history or self.trace) if own else None
            if table is None:
                table = honest.requests(_HISTORY)
            costs = application_costs(table)
            typical = float(np.mean(table.prompt_tokens + 2.0 * table.output_tokens))
            order = service_counter(typical)
            fleet = tuple(
                replace(engine, queue=order, skip_ahead=self.skip_ahead)
                for engine in scenario.fleet.engines()
            )
            kv = sum(engine.kv_capacity_tokens for engine in fleet)
            self._settings[key] = _Setting(
                fleet,
                typical,
                {name: cost / typical for name, cost in costs.items()},
                sum(engine.max_num_seqs for engine in fleet),
                MILLION * 4.0 * kv / typical,  # VTC's 2U, were all calls typical: U = 2 x KV tokens
            )
        return self._settings[key]

    def simulate(
        self, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> tuple[Simulation, _Setting]:
        """The simulation of a new episode, not begun.

        Args:
            rng: Draws the seed of the workload.
            options: Those of the reset, any of `OPTIONS`.

        Raises:
            ValueError: Unknown option.
        """
        unknown = set(options) - OPTIONS
        if unknown:
            raise ValueError(
                f"unknown reset options {sorted(unknown)}; there are {', '.join(sorted(OPTIONS))}"
            )
        chosen = options.get("scenario", self.scenario)
        scenario = chosen if isinstance(chosen, Scenario) else load_scenario(chosen)
        drawn = int(rng.integers(SEEDS["train"].start + 1, SEEDS["train"].stop))
        seed = int(options.get("workload_seed", drawn))
        trace = read_given(options["trace"]) if "trace" in options else self.trace
        table = scenario.requests(seed) if trace is None else scenario.complete(trace, seed)
        if scenario.rate_limit is not None:
            raise ValueError(
                f"the scenario {scenario.name} has a rate limit, which would be charged to the "
                "agent: leave rate_limit out"
            )
        setting = self.setting(scenario, own=trace is not None and "trace" not in options)
        typical = np.array([setting.costs.get(name, 1.0) for name in table.application.names])
        given = scenario.options(table, seed)
        retry = given.get("retry") or Retry()
        patience = min(self.patience_s, retry.patience_s)
        simulation = Simulation(
            table,
            setting.fleet,
            **given
            | {
                "retry": replace(retry, patience_s=patience),
                "gate": TUNED if self.interface == "tuner" else ASKED,
                "weights": typical[table.application.codes],
                "window": 1,
                "decision_interval_s": 0.0,
                "queue_order": "fcfs",
            },
        )
        gate = simulation.state.arrays["gate"]
        gate["deadline_ps"] = seconds_to_ps(self.interaction_slo_s)
        gate["ttft_ps"] = seconds_to_ps(self.ttft_slo_s)
        gate["light_calls"] = self.light_calls
        return simulation, setting


class Copy:
    """One copy of an environment: its record, the arrays it writes to, and its episode.

    Args:
        task: What it plays.
        record: (1,) of `ENV_DTYPE`.
        buffers: Float32 vector by key of the observation.
        mask: (3,) int8, of the gate.
        action: (settings,) float32, of the tuner.

    Attributes:
        row: The record, where compiled code leaves the results of a step.
        simulation: That of the episode, None before the first.
        over: Whether no episode is under way.
    """

    def __init__(
        self,
        task: Task,
        record: npt.NDArray[np.void],
        buffers: Observation,
        mask: npt.NDArray[np.int8],
        action: npt.NDArray[np.float32],
    ) -> None:
        self.task, self.buffers, self.mask, self.action = task, buffers, mask, action
        self.simulation: Simulation | None = None
        self.over = True
        self._scratch = np.zeros(1, np.int64)
        self._sums = np.zeros(len(TENANT_FEATURES) - 1, np.int64)
        self._record = record
        record["tuner"] = int(task.interface == "tuner")
        record["rows"] = task.rows
        record["interval_ps"] = seconds_to_ps(task.interval_s)
        record["horizon_ps"] = seconds_to_ps(task.horizon_s)
        record["delay_ps"] = seconds_to_ps(task.defer_s)
        for term, weight in task.reward.all_weights.items():
            record[f"{term}_weight"] = weight
        self._bind()

    @classmethod
    def alone(cls, task: Task) -> Copy:
        """A copy with arrays of its own."""
        shapes = {key: space.shape or () for key, space in task.observation_space().items()}
        buffers = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
        action = np.zeros(len(SETTINGS), np.float32)
        return cls(task, np.zeros(1, ENV_DTYPE), buffers, np.ones(3, np.int8), action)

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode and run to its first decision; returns the `info` of the reset.

        Raises:
            ValueError: See `Task.simulate`.
        """
        self.simulation, setting = self.task.simulate(rng, options)
        record = self._record
        record["gap_scale"], record["slots"] = setting.gap_scale, setting.slots
        record["typical_tokens"] = setting.typical_tokens
        for name in ENV_DTYPE.names or ():
            if name.startswith("last_"):
                record[name] = 0
        record["tick_ps"] = 0
        if self.task.interface == "gate":
            self.simulation.state.head["pause_ps"] = record["horizon_ps"]
        tenants = len(self.simulation.state.arrays["tenants"])
        self._scratch = np.zeros(max(tenants, self.task.rows), np.int64)
        for buffer in self.buffers.values():
            buffer.fill(0.0)
        self.action[:] = NEUTRAL
        self.mask.fill(1)
        if "settings" in self.buffers:
            self.buffers["settings"][:] = NEUTRAL
        self._bind()
        transition.step_one(self._address, 0, True)
        self.check_clock()
        self.over = False
        info: dict[str, Any] = {"dt": 0.0}
        if self.task.interface == "gate":
            info["action_mask"] = self.mask.copy()
        return info

    def step(self, action: Any) -> None:
        """Carry out one decision and run to the next.

        Raises:
            ValueError: The action has another shape, or is not a number.
        """
        if self.task.interface == "tuner":
            given = np.asarray(action, np.float32)
            if given.shape != self.action.shape or not np.isfinite(given).all():
                raise ValueError(f"an action is {len(SETTINGS)} finite numbers, not {action!r}")
            self.action[:] = given
            transition.step_one(self._address, 0, False)
        else:
            transition.step_one(self._address, int(action), False)

    def observation(self) -> Observation:
        """What is observed now, in arrays of its own."""
        return {key: buffer.copy() for key, buffer in self.buffers.items()}

    def step_info(self) -> dict[str, Any]:
        """The `info` of the last step."""
        row, weights = self.row, self.task.reward.all_weights
        info: dict[str, Any] = {
            "dt": float(row["dt_s"]),
            "reward_terms": {term: weights[term] * float(row[term]) for term in TERMS},
            "cost": {cost: float(row[cost]) for cost in COSTS},
            "counts": {count: float(row[count]) for count in COUNTS},
            "action_obeyed": bool(row["obeyed"]),
        }
        if self.task.interface == "gate":
            info["action_mask"] = self.mask.copy()
        return info

    def metrics(self) -> dict[str, float]:
        """Summary of the episode so far, with what the reward counts."""
        assert self.simulation is not None
        gate = self.simulation.state.arrays["gate"][0]
        served = max(float(gate["served_tokens"]), 1.0)
        return self.simulation.summary() | {
            "finished_interactions": float(gate["finished"]),
            "finished_value": float(gate["value"] / self._record["typical_tokens"][0]),
            "wasted_tokens": float(gate["wasted_tokens"]),
            "waste_share": float(gate["wasted_tokens"]) / served,
            "turned_away": float(gate["turned_away"]),
            "benign_throttles": float(gate["benign"]),
            "light_late_share": float(gate["light_late"]) / max(float(gate["light"]), 1.0),
        }

    def check_clock(self) -> None:
        """Refuse an episode that has come to the end of the clock's range."""
        assert self.simulation is not None
        self.simulation.check_clock()

    def result(self) -> Result:
        """What has happened in the episode so far."""
        assert self.simulation is not None
        return self.simulation.result("episode")

    def _bind(self) -> None:
        """Tell compiled code where the arrays lie."""
        record = self._record
        for key, buffer in self.buffers.items():
            record[f"{key}_at"] = buffer.ctypes.data
        if "settings" not in self.buffers:
            record["settings_at"] = self.action.ctypes.data
        record["action_at"] = self.action.ctypes.data
        record["mask_at"] = self.mask.ctypes.data
        record["scratch_at"] = self._scratch.ctypes.data
        record["sums_at"] = self._sums.ctypes.data
        if self.simulation is not None:
            record["head_at"] = self.simulation.state.head.ctypes.data
        self._address = int(record.ctypes.data)
        self.row = record[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"row": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._record = self._record.view(ENV_DTYPE)
        self._bind()
