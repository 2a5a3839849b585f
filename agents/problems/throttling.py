"""Throttling-v0 as something to learn, by either interface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from agents.play import Actor, Played, play_with
from agents.policy_config import PolicyConfig, ThrottlingPolicyConfig
from agents.problems.base import Problem, Rows, StepLog
from agents.settings import RunConfig, ThrottlingConfig
from envs.common.copies import Observation
from envs.scenarios import Scenario
from envs.throttling.env import ThrottlingEnv
from envs.throttling.layout import (
    ADMIT,
    CALL_FEATURES,
    COSTS,
    FLEET_FEATURES,
    NEUTRAL,
    REJECT,
    SETTINGS,
    TENANT_FEATURES,
    TERMS,
    Interface,
)

VERDICTS = ("admit", "defer", "reject")
"""Actions of the gate, in their order."""
# Calls a minute; and the share of KV above which limits hold, as low as it goes, since slots
# rather than KV run out on most presets.
_HEAVY_CALLS, _FULL_KV = 20.0, 0.3


class ThrottlingProblem(Problem):
    """Overload and its tenants, judged by the return of the unscaled default reward."""

    metrics = (
        "finished_value",
        "finished_interactions",
        "waste_share",
        "turned_away",
        "benign_throttles",
        "light_late_share",
        "e2e_mean_s",
        "ttft_mean_s",
        "unfinished",
    )
    judged = "return"
    lower_is_better = False

    def __init__(self, config: RunConfig) -> None:
        assert isinstance(config, ThrottlingConfig)
        super().__init__(config)
        self.config = config
        self.names = _names(config.interface)
        self.acted = ("return", *self.names)

    @classmethod
    def environment(cls, config: PolicyConfig, scenario: Scenario) -> ThrottlingEnv:
        """Interface, clock and rows are those of training."""
        assert isinstance(config, ThrottlingPolicyConfig)
        own = {"interface": config.interface, "interval_s": config.interval_s}
        return _single(scenario, tenants=config.tenants, **own)

    @property
    def masked(self) -> bool:
        """Whether it is the gate."""
        return self.config.interface == "gate"

    def options(self) -> dict[str, Any]:
        """Interface, clock, rows and the scaled reward."""
        return self._played() | {"reward": self.config.reward_function()}

    def _played(self) -> dict[str, Any]:
        values = self.config.hyperparameters
        return {
            "interface": self.config.interface,
            "interval_s": values.interval_s,
            "tenants": values.tenants,
        }

    def make_env(self, scenario: Scenario | None = None) -> ThrottlingEnv:
        """One environment of the run, with the unscaled reward."""
        return _single(scenario or self.config.scenarios[0], **self._played())

    def network(self) -> dict[str, Any]:
        """Arguments of the policy's constructor."""
        if self.masked:
            return super().network()
        return super().network() | {"log_std_init": self.config.hyperparameters.log_std_init}

    def step_log(self, env: Any) -> StepLog:
        """Mean settings or shares of verdicts, and terms and costs of the reward."""
        return _StepLog(self.names, self.masked, self.config.hyperparameters.reward_scale)

    def row(self, played: Played) -> dict[str, float]:
        """The episode's summary, its return, and what was done."""
        done = played.actions / max(played.decisions, 1)
        acted = {name: float(value) for name, value in zip(self.names, done, strict=True)}
        return played.metrics | {"return": played.reward} | acted

    def baselines(self) -> dict[str, Rows]:
        """What fixed settings or rules reach in the same environments."""
        found: dict[str, Rows] = {name: [] for name in rules(self.config.interface)}
        for scenario, seed in self.validation():
            env = self.make_env(scenario)
            for name, act in rules(self.config.interface).items():
                (played,) = play_with(act, [env], [{"workload_seed": seed}])
                found[name].append({"seed": float(seed)} | self.row(played))
        return found

    def lost(self, row: Mapping[str, float]) -> float:
        """Calls that were neither served nor turned away; the return counts all else."""
        return row["unfinished"]

    def against(self, name: str, found: float, baseline: float) -> tuple[str, float]:
        """The difference of the returns."""
        return f"return_gain_{name}", found - baseline


def rules(interface: Interface) -> dict[str, Actor]:
    """Fixed settings of the tuner, or rules of the gate, by name."""
    if interface == "gate":
        return {"neutral": _always(ADMIT), "reject_heavy": _reject_heavy}
    limits = {"heavy_calls": _HEAVY_CALLS, "kv_threshold": _FULL_KV}
    return {
        "neutral": _always(np.array(NEUTRAL, np.float32)),
        "vtc": _always(settings(exponent=0.0)),
        "limit_heavy": _always(settings(**limits)),
        "limit_both": _always(settings(**limits, middle_calls=2 * _HEAVY_CALLS)),
        "ahead": _always(settings(bonus=10.0)),
    }


def settings(**values: float) -> npt.NDArray[np.float32]:
    """The tuner's action of settings in their own units, the others as in `NEUTRAL`."""
    action = np.array(NEUTRAL, np.float32)
    for k, each in enumerate(SETTINGS):
        if each.name in values:
            low, high, value = each.low, each.high, values.pop(each.name)
            if each.powers:
                low, high, value = math.log(low), math.log(high), math.log(value)
            action[k] = 2.0 * (value - low) / (high - low) - 1.0
    if values:
        raise ValueError(f"unknown settings {sorted(values)}")
    return action


def _always(action: Any) -> Actor:
    return lambda observations, masks: [action] * len(observations)


def _reject_heavy(observations: Sequence[Observation], masks: Any) -> list[int]:
    """Reject calls of tenants with more calls in the last minute, while limits hold."""
    kv = [f.name for f in FLEET_FEATURES].index("kv")
    calls = len(CALL_FEATURES) + [f.name for f in TENANT_FEATURES].index("recent_calls")
    many = math.log1p(_HEAVY_CALLS) / 3.0
    return [
        REJECT if o["fleet"][kv] >= _FULL_KV and o["call"][calls] > many else ADMIT
        for o in observations
    ]


def _names(interface: Interface) -> tuple[str, ...]:
    return VERDICTS if interface == "gate" else tuple(setting.name for setting in SETTINGS)


def _single(scenario: Scenario, **options: Any) -> ThrottlingEnv:
    env = gymnasium.make(
        "envs:ServeGym/Throttling-v0", disable_env_checker=True, scenario=scenario, **options
    ).unwrapped
    assert isinstance(env, ThrottlingEnv)
    return env


class _StepLog:
    """Means over the steps of what was done, and of the terms and costs that followed."""

    def __init__(self, names: Sequence[str], gate: bool, scale: float) -> None:
        self._names, self._gate, self._scale = names, gate, scale
        self._clear()

    def _clear(self) -> None:
        self._actions = np.zeros(len(self._names))
        self._terms = dict.fromkeys(TERMS, 0.0)
        self._costs = dict.fromkeys(COSTS, 0.0)
        self._steps = 0

    def add(self, actions: np.ndarray, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count a step of every copy."""
        if self._gate:
            self._actions += np.bincount(actions, minlength=len(self._names))
        else:
            self._actions += np.clip(actions, -1.0, 1.0).sum(axis=0)
        for info in infos:
            for name, value in info["reward_terms"].items():
                self._terms[name] += value / self._scale
            for name, value in info["cost"].items():
                self._costs[name] += value
        self._steps += len(infos)

    def scalars(self) -> dict[str, float]:
        """Means a decision, by tag."""
        steps = max(self._steps, 1)
        acted = zip(self._names, self._actions, strict=True)
        found = {f"action/{name}": float(value / steps) for name, value in acted}
        found |= {f"reward/{name}": value / steps for name, value in self._terms.items()}
        found |= {f"cost/{name}": value / steps for name, value in self._costs.items()}
        self._clear()
        return found
