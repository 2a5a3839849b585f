"""What a scaling environment plays, and one copy of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from envs.common.copies import Observation
from envs.common.features import box
from envs.common.traces import read_given
from envs.scaling import transition
from envs.scaling.build import ScalingEpisode, episode, scaling_of
from envs.scaling.lags import WEEKS, lags_of
from envs.scaling.layout import (
    ACCOUNT_SUMS,
    CLOCK_FEATURES,
    COSTS,
    COUNTS,
    DEMAND_EPOCHS,
    ENV_DTYPE,
    HEADS,
    POOL_FEATURES,
    REGION_FEATURES,
    TERMS,
)
from envs.scaling.metrics import summary
from envs.scaling.reward import Reward
from envs.scenarios import SEEDS, Scenario, load_scenario
from envs.simulator import Result, Simulation, kernel
from envs.simulator.columns import seconds_to_ps
from envs.simulator.lifecycle import LifecycleFleet, loop
from envs.simulator.policy import RoutingPolicy
from envs.workloads import RequestTable

OPTIONS = {"scenario", "trace", "workload_seed"}
"""What `reset(options=...)` takes."""
LEAST_EPOCH_S, MOST_EPOCH_S = 60.0, 3_600.0


class Task:
    """The options of an environment, settled; `ScalingEnv` says what each means.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario,
        *,
        trace: str | Path | RequestTable | None = None,
        reward: Reward | None = None,
        epoch_s: float = 900.0,
        most: int = 2,
        cooldown_s: float = 0.0,
        roles: int = 4,
        regions: int = 3,
        horizon_s: float = math.inf,
        router: RoutingPolicy | None = None,
    ) -> None:
        if not LEAST_EPOCH_S <= epoch_s <= MOST_EPOCH_S:
            raise ValueError(f"epoch_s must be from 60 to 3,600 seconds, not {epoch_s}")
        for name, value, least, largest in (
            ("most", most, 1, 100),
            ("roles", roles, 1, 128),
            ("regions", regions, 1, 16),
        ):
            if not least <= value <= largest:
                raise ValueError(f"{name} must be from {least} to {largest}, not {value}")
        if not 0 <= cooldown_s <= 1e6:
            raise ValueError(f"cooldown_s must be from 0 to 1e6 seconds, not {cooldown_s}")
        if not horizon_s > 0:
            raise ValueError(f"horizon_s must be positive, not {horizon_s}")
        self.scenario = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        scaling_of(self.scenario)
        self.trace = read_given(trace)
        self.reward = reward or Reward()
        self.epoch_s, self.most, self.cooldown_s = float(epoch_s), most, cooldown_s
        self.roles, self.regions, self.horizon_s = roles, regions, horizon_s
        self.router = router

    @property
    def rows(self) -> int:
        """Pools that there is room for."""
        return self.roles * self.regions

    def action_space(self) -> spaces.MultiDiscrete:
        """Three numbers a pool: `HEADS`."""
        wide = 2 * self.most + 1
        sizes = [wide] * (2 * self.rows) + [self.roles + 1] * self.rows
        return spaces.MultiDiscrete(np.array(sizes))

    @property
    def mask_length(self) -> int:
        """Length of the masks of all numbers of an action."""
        return int(self.action_space().nvec.sum())

    def observation_space(self) -> spaces.Dict:
        """A box of float32 for each key."""
        return spaces.Dict(
            {
                "pools": box(POOL_FEATURES, self.rows),
                "regions": box(REGION_FEATURES, self.regions),
                "clock": box(CLOCK_FEATURES),
            }
        )

    def no_change(self) -> npt.NDArray[np.int64]:
        """The action that changes nothing."""
        action = np.full(len(HEADS) * self.rows, self.most, np.int64)
        action[2 * self.rows :] = 0
        return action

    def episode(
        self, rng: np.random.Generator, options: Mapping[str, Any]
    ) -> tuple[ScalingEpisode, Scenario, int]:
        """A new episode at time 0, its scenario and its seed.

        Args:
            rng: Draws the seed of the workload.
            options: Those of the reset, any of `OPTIONS`.

        Raises:
            ValueError: Unknown option, more roles or regions than there are rows for, or see
                `envs.scaling.build.episode`.
        """
        unknown = set(options) - OPTIONS
        if unknown:
            raise ValueError(
                f"unknown reset options {sorted(unknown)}; there are {', '.join(sorted(OPTIONS))}"
            )
        chosen = options.get("scenario", self.scenario)
        scenario = chosen if isinstance(chosen, Scenario) else load_scenario(chosen)
        # The first seeds draw the weeks that are known from before.
        drawn = int(rng.integers(SEEDS["train"].start + WEEKS, SEEDS["train"].stop))
        seed = int(options.get("workload_seed", drawn))
        trace = read_given(options["trace"]) if "trace" in options else self.trace
        built = episode(scenario, seed, table=trace, bin_s=self.epoch_s, router=self.router)
        roles, regions = built.fleet.shape
        if roles > self.roles or regions > self.regions:
            raise ValueError(
                f"the scenario {scenario.name} has {roles} roles in {regions} regions, and the "
                f"environment rows for {self.roles} in {self.regions}: make it with roles={roles}, "
                f"regions={regions}"
            )
        return built, scenario, seed


def prefill_throughput(fleet: LifecycleFleet) -> npt.NDArray[np.float64]:
    """(roles,) prompt tokens/s of an instance whose steps are full prefills."""
    found = []
    for k in range(fleet.shape[0]):
        engine = fleet.simulation.fleet[int(np.flatnonzero(fleet.plan.role == k)[0])]
        tokens = min(engine.max_batched_tokens, 8_192)
        step_s = engine.cost.step_time(0, 0, tokens, tokens * (tokens + 1) / 2)
        found.append(tokens / step_s)
    return np.array(found)


class Copy:
    """One copy of an environment: the buffers that compiled code fills, and its episode.

    Args:
        task: What is played.
        record: (1,) of ENV_DTYPE, part of the batch's records.
        buffers: (length,) float32 by key of the observation.
        mask: int8, allowed values of all numbers.
        action: int64, the numbers of an action.
    """

    def __init__(
        self,
        task: Task,
        record: np.ndarray,
        buffers: Observation,
        mask: npt.NDArray[np.int8],
        action: npt.NDArray[np.int64],
    ) -> None:
        self.task, self.buffers, self.mask, self.action = task, buffers, mask, action
        self.simulation: Simulation | None = None
        self.episode: ScalingEpisode | None = None
        self.over = True
        self._own: dict[str, np.ndarray] = {}
        self._record = record
        record["role_rows"], record["region_rows"] = task.roles, task.regions
        record["most"] = task.most
        record["cooldown_ps"] = seconds_to_ps(task.cooldown_s)
        record["epoch_ps"] = seconds_to_ps(task.epoch_s)
        for term, weight in task.reward.all_weights.items():
            record[f"{term}_weight"] = weight
        self._bind()

    @classmethod
    def alone(cls, task: Task) -> Copy:
        """A copy with arrays of its own."""
        shapes = {key: space.shape or () for key, space in task.observation_space().items()}
        buffers = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
        mask = np.ones(task.mask_length, np.int8)
        return cls(task, np.zeros(1, ENV_DTYPE), buffers, mask, task.no_change())

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> dict[str, Any]:
        """Begin an episode and look at it; returns the `info` of the reset.

        Raises:
            ValueError: See `Task.episode`.
        """
        built, scenario, seed = self.task.episode(rng, options)
        self.episode, self.simulation = built, built.fleet.simulation
        regions = self.simulation.regions
        lags, known = lags_of(scenario, seed, built.demand, built.models, regions)
        throughput = prefill_throughput(built.fleet)
        accounts = built.fleet.accounts.size
        self._own = {
            "lags": np.ascontiguousarray(lags),
            "past": np.zeros(accounts * DEMAND_EPOCHS),
            "before": np.zeros(accounts * ACCOUNT_SUMS, np.int64),
            "tiers": _tiers(self.simulation),
            "throughput": throughput,
            "token_dollars": _token_dollars(built.fleet, throughput),
        }
        record = self._record
        for name in ENV_DTYPE.names or ():
            if name.startswith(("last_", "next_")):
                record[name] = 0
        horizon = min(self.task.horizon_s, built.duration_s)
        record["horizon_ps"] = seconds_to_ps(horizon)
        record["tick_ps"], record["epoch"] = 0, -1
        record["epochs"] = built.demand.bins
        record["start_s"], record["known"] = built.demand.start_s, int(known)
        for buffer in self.buffers.values():
            buffer.fill(0.0)
        self.action[:] = self.task.no_change()
        self._bind()
        transition.step_one(self._address, *self.functions, True)
        self.over = False
        return {"dt": 0.0, "action_mask": self.mask.copy()}

    @property
    def fleet(self) -> LifecycleFleet | None:
        """The fleet of the episode, None before the first."""
        return None if self.episode is None else self.episode.fleet

    @property
    def functions(self) -> tuple[Any, Any, Any]:
        """Machine code that a step takes: runs of fleet and kernel, and the routing rule."""
        assert self.fleet is not None
        return loop.run.compiled, kernel.run.compiled, self.fleet.router.compiled

    def step(self, action: Any) -> None:
        """Carry out one action and run an epoch.

        Raises:
            ValueError: The action has another shape, or numbers out of range.
        """
        self.action[:] = checked(action, self.task)
        transition.step_one(self._address, *self.functions, False)

    def observation(self) -> Observation:
        """What is observed now, in arrays of its own."""
        return {key: buffer.copy() for key, buffer in self.buffers.items()}

    def step_info(self) -> dict[str, Any]:
        """The `info` of the last step."""
        row, weights = self.row, self.task.reward.all_weights
        return {
            "dt": float(row["dt_s"]),
            "reward_terms": {term: weights[term] * float(row[term]) for term in TERMS},
            "cost": {cost: float(row[cost]) for cost in COSTS},
            "counts": {count: float(row[count]) for count in COUNTS},
            "action_obeyed": bool(row["obeyed"]),
            "action_mask": self.mask.copy(),
        }

    def metrics(self) -> dict[str, float]:
        """Summary of the episode so far."""
        assert self.fleet is not None
        return summary(self.fleet)

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
        record["action_at"], record["mask_at"] = self.action.ctypes.data, self.mask.ctypes.data
        for name, array in self._own.items():
            record[f"{name}_at"] = array.ctypes.data
        if self.fleet is not None and self.simulation is not None:
            record["head_at"] = self.simulation.state.head.ctypes.data
            record["fleet_at"] = self.fleet.head.ctypes.data
            parameters, memory = self.fleet.router_arrays
            record["parameters_at"], record["parameter_count"] = (
                parameters.ctypes.data,
                len(parameters),
            )
            record["memory_at"], record["memory_count"] = memory.ctypes.data, len(memory)
        self._address = int(record.ctypes.data)
        self.row = record[0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"row": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._record = self._record.view(ENV_DTYPE)
        self._bind()


def checked(action: Any, task: Task) -> npt.NDArray[np.int64]:
    """An action, or a batch of them, as the compiled call takes it.

    Raises:
        ValueError: It has another type or shape, or a number is out of range.
    """
    given = np.asarray(action)
    sizes = task.action_space().nvec
    if given.dtype.kind not in "iu" or given.shape[-1:] != sizes.shape:
        raise ValueError(f"an action is {len(sizes)} whole numbers, not {action!r}")
    if (given < 0).any() or (given >= sizes).any():
        raise ValueError("an action has a number out of the range of its space")
    return given.astype(np.int64)


def _tiers(simulation: Simulation) -> npt.NDArray[np.int8]:
    """(R,) tier of each request as it arrives."""
    return np.array(simulation.state.arrays["requests"]["tier"], np.int8)


def _token_dollars(
    fleet: LifecycleFleet, throughput: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(models + 1,) dollars for which the cheapest instance prefills a prompt token; 0: of none."""
    plan, names = fleet.plan, fleet.simulation.models
    price = min(region.price[0] for region in plan.regions) / 3600.0
    found = np.zeros(len(names) + 1)
    for k, role in enumerate(plan.roles):
        engine = fleet.simulation.fleet[int(np.flatnonzero(plan.role == k)[0])]
        dollars = price * engine.gpus / throughput[k]
        at = 1 + names.index(role.model) if role.model else 0
        found[at] = dollars if found[at] == 0.0 else min(found[at], dollars)
    found[0] = found[0] or float(found[1:].mean() if len(found) > 1 else 0.0)
    return found
