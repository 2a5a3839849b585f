"""Scaling-v0 as something to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from agents.play import Actor, Played, play_with
from agents.policy_config import PolicyConfig, ScalingPolicyConfig
from agents.problems.base import Problem, Rows, StepLog
from agents.settings import RunConfig, ScalingConfig
from envs.common.copies import Observation
from envs.scaling.env import ScalingEnv
from envs.scaling.layout import COSTS, HEADS, POOL_FEATURES, TERMS
from envs.scaling.task import Task
from envs.scenarios import Scenario

_FEATURES = [feature.name for feature in POOL_FEATURES]
_TEN = 10.0
"""Scale of counts and demand in the observation."""
_USE = 0.6
"""Share of its prefill throughput to which a rule loads an instance."""
_BUSY, _IDLE = 2.0, 0.1
"""Waiting requests, and requests in service, of an instance beyond which another rule scales."""
CHANGES = ("stops", "starts", "redeployed")


class ScalingProblem(Problem):
    """A fleet by the epoch, judged by the return of the unscaled default reward, in dollars."""

    metrics = (
        "net_dollars",
        "dollars",
        "instance_hours",
        "waste_hours",
        "attainment",
        "IW-F_attainment",
        "IW-N_attainment",
        "NIW_attainment",
        "unfinished",
    )
    judged = "return"
    lower_is_better = False
    acts_by_chance = True
    acted = ("return", *CHANGES)

    def __init__(self, config: RunConfig) -> None:
        assert isinstance(config, ScalingConfig)
        super().__init__(config)
        self.config = config

    @classmethod
    def environment(cls, config: PolicyConfig, scenario: Scenario) -> ScalingEnv:
        """Clock, rows and limits are those of training."""
        assert isinstance(config, ScalingPolicyConfig)
        names = ("epoch_s", "most", "cooldown_s", "roles", "regions")
        return _single(scenario, **{name: getattr(config, name) for name in names})

    def options(self) -> dict[str, Any]:
        """Clock, rows, limits and the scaled reward."""
        return self._played() | {"reward": self.config.reward_function()}

    def _played(self) -> dict[str, Any]:
        values = self.config.hyperparameters
        names = ("epoch_s", "most", "cooldown_s", "roles", "regions")
        return {name: getattr(values, name) for name in names}

    def make_env(self, scenario: Scenario | None = None) -> ScalingEnv:
        """One environment of the run, with the unscaled reward."""
        return _single(scenario or self.config.scenarios[0], **self._played())

    def prepare(self, policy: Any) -> None:
        """Begin with a policy that mostly changes nothing: a fleet that churns teaches little."""
        task = self.make_env().task
        ends = np.cumsum(task.action_space().nvec)
        neutral = ends - task.action_space().nvec + task.no_change()
        with torch.no_grad():
            policy.action_net.bias[torch.from_numpy(neutral)] += (
                self.config.hyperparameters.no_change_bias
            )

    def step_log(self, env: Any) -> StepLog:
        """Mean changes, and terms and costs of the reward."""
        return _StepLog(env.task, self.config.hyperparameters.reward_scale)

    def row(self, played: Played) -> dict[str, float]:
        """The episode's summary, its return, and what was ordered an epoch."""
        half = len(played.actions) // len(HEADS)
        # Sums of the sizes of changes, by number of an action.
        done = played.actions / max(played.decisions, 1)
        acted = {
            "stops": float(np.maximum(-done[: 2 * half], 0.0).sum()),
            "starts": float(np.maximum(done[: 2 * half], 0.0).sum()),
            "redeployed": float(done[2 * half :].sum()),
        }
        return played.metrics | {"return": played.reward} | acted

    def baselines(self) -> dict[str, Rows]:
        """What rules reach in the same environments."""
        task = self.make_env().task
        found: dict[str, Rows] = {name: [] for name in rules(task)}
        for scenario, seed in self.validation():
            env = self.make_env(scenario)
            for name, act in rules(task).items():
                (played,) = play_with(act, [env], [{"workload_seed": seed}])
                found[name].append({"seed": float(seed)} | self.row(played))
        return found

    def lost(self, row: Mapping[str, float]) -> float:
        """The return counts all that is lost."""
        return 0.0

    def against(self, name: str, found: float, baseline: float) -> tuple[str, float]:
        """The difference of the returns."""
        return f"return_gain_{name}", found - baseline


def rules(task: Task) -> dict[str, Actor]:
    """Rules over observations, by name: nothing, what is typical of the hour, and queues."""
    return {
        "no_change": lambda observations, masks: [task.no_change()] * len(observations),
        "typical": _each(task, _typical),
        "queues": _each(task, _queues),
    }


def _typical(pools: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.float64]:
    """(rows,) change towards what the high quantile of the next hour's peak needs."""
    count = _TEN * (_of(pools, "ready") + _of(pools, "starting"))
    needed = np.ceil(_TEN * _of(pools, "high_peak") / _USE)
    return np.asarray(needed - np.rint(count))


def _queues(pools: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.float64]:
    """(rows,) one more where requests wait, one less where hardly any is in service."""
    waiting = np.expm1(5.0 * _of(pools, "waiting"))
    running = np.expm1(5.0 * _of(pools, "running"))
    return np.where(waiting > _BUSY, 1.0, np.where(waiting + running < _IDLE, -1.0, 0.0))


def _of(pools: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    return pools[:, _FEATURES.index(name)]


def _each(task: Task, rule: Any) -> Actor:
    """A rule for the numbers of the spot market, as far as masks and the largest change allow."""
    wide, rows = 2 * task.most + 1, task.rows

    def act(observations: Sequence[Observation], masks: Any) -> list[Any]:
        chosen = []
        for observation, mask in zip(observations, masks, strict=True):
            pools = observation["pools"].astype(np.float64).reshape(rows, -1)
            wanted = np.clip(rule(pools, task), -task.most, task.most)
            wanted = np.where(_of(pools, "present") > 0, wanted, 0.0)
            allowed = mask[rows * wide : 2 * rows * wide].reshape(rows, wide)
            action = task.no_change()
            for row in range(rows):
                change = int(wanted[row])
                while change and not allowed[row, change + task.most]:
                    change -= int(math.copysign(1, change))
                action[rows + row] = change + task.most
            chosen.append(action)
        return chosen

    return act


def _single(scenario: Scenario, **options: Any) -> ScalingEnv:
    env = gymnasium.make(
        "envs:ServeGym/Scaling-v0", disable_env_checker=True, scenario=scenario, **options
    ).unwrapped
    assert isinstance(env, ScalingEnv)
    return env


class _StepLog:
    """Means over the steps of what was ordered, and of the terms and costs that followed."""

    def __init__(self, task: Task, scale: float) -> None:
        self._neutral, self._rows, self._scale = task.no_change(), task.rows, scale
        self._clear()

    def _clear(self) -> None:
        self._changes = dict.fromkeys(CHANGES, 0.0)
        self._terms = dict.fromkeys(TERMS, 0.0)
        self._costs = dict.fromkeys(COSTS, 0.0)
        self._obeyed = self._steps = 0

    def add(self, actions: np.ndarray, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count a step of every copy."""
        changes = (actions - self._neutral)[:, : 2 * self._rows]
        self._changes["stops"] += float(np.maximum(-changes, 0).sum())
        self._changes["starts"] += float(np.maximum(changes, 0).sum())
        self._changes["redeployed"] += float((actions[:, 2 * self._rows :] > 0).sum())
        for info in infos:
            for name, value in info["reward_terms"].items():
                self._terms[name] += value / self._scale
            for name, value in info["cost"].items():
                self._costs[name] += value
            self._obeyed += int(info["action_obeyed"])
        self._steps += len(infos)

    def scalars(self) -> dict[str, float]:
        """Means an epoch, by tag."""
        steps = max(self._steps, 1)
        found = {f"action/{name}": value / steps for name, value in self._changes.items()}
        found["action/obeyed"] = self._obeyed / steps
        found |= {f"reward/{name}": value / steps for name, value in self._terms.items()}
        found |= {f"cost/{name}": value / steps for name, value in self._costs.items()}
        self._clear()
        return found
