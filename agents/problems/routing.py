"""Routing-v0 as something to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from agents.play import Played
from agents.policy_config import PolicyConfig, RoutingPolicyConfig
from agents.problems.base import Problem, Rows, StepLog
from agents.settings import RoutingConfig, RunConfig
from baselines.routing import router
from envs.routing.env import RoutingEnv
from envs.scenarios import Scenario
from envs.simulator import simulate

BASELINES = ("round_robin", "jsq", "pull_sjf")
"""Rules that serve the same validation episodes."""


class RoutingProblem(Problem):
    """Requests to instances, judged by mean end-to-end latency in seconds."""

    metrics = (
        "e2e_mean_s",
        "e2e_p99_s",
        "ttft_mean_s",
        "makespan_s",
        "preemptions",
        "rejected",
        "unfinished",
    )
    judged = "e2e_mean_s"
    lower_is_better = True
    acted = ("hold_share",)

    def __init__(self, config: RunConfig) -> None:
        assert isinstance(config, RoutingConfig)
        super().__init__(config)
        self.config = config

    @classmethod
    def environment(cls, config: PolicyConfig, scenario: Scenario) -> RoutingEnv:
        """What the scenario leaves open (order of the queue, clock) is as it was in training."""
        assert isinstance(config, RoutingPolicyConfig)
        options = scenario.router
        given = options.model_fields_set
        order, interval = options.queue_order, options.decision_interval_s
        env = gymnasium.make(
            f"envs:{config.env}",
            disable_env_checker=True,
            scenario=scenario,
            max_instances=config.max_instances,
            window=config.window,
            queue_order=order or config.queue_order,
            decision_interval_s=(
                interval if "decision_interval_s" in given else config.decision_interval_s
            ),
        ).unwrapped
        assert isinstance(env, RoutingEnv)
        return env

    def options(self) -> dict[str, Any]:
        """Reward and order of the queue."""
        return {
            "reward": self.config.reward_function(),
            "queue_order": self.config.hyperparameters.queue_order,
        }

    def make_env(self, scenario: Scenario | None = None) -> RoutingEnv:
        """One environment of the run, whose episodes are played to their ends."""
        made = gymnasium.make(
            f"envs:{self.config.env}",
            disable_env_checker=True,
            scenario=scenario or self.config.scenario,
            **self.options(),
        )
        # The wrappers only guard against misuse, which costs a quarter of a step.
        env = made.unwrapped
        assert isinstance(env, RoutingEnv)
        return env

    def step_log(self, env: Any) -> StepLog:
        """Shares of the instances that were chosen, of holds, and of actions that were obeyed."""
        return _ActionLog(env.rows, int(env.action_space.n))

    def row(self, played: Played) -> dict[str, float]:
        """The summary of the result, and how often it held."""
        return {"hold_share": played.hold_share} | played.result.summary()

    def baselines(self) -> dict[str, Rows]:
        """What each of `BASELINES` reaches on the validation episodes of a run.

        What the scenario says of the router (order of its queue, clock, window), of its clients and
        of failures holds for them too.
        """
        found: dict[str, Rows] = {name: [] for name in BASELINES}
        for scenario, seed in self.validation():
            table, fleet = scenario.build(seed)
            given = scenario.options(table, seed)
            for name, rows in found.items():
                result = simulate(table, fleet, router(name), seed=seed, **given)
                rows.append({"seed": float(seed)} | result.summary())
        return found

    def lost(self, row: Mapping[str, float]) -> float:
        """Rejected and unfinished requests."""
        return row["rejected"] + row["unfinished"]

    def against(self, name: str, found: float, baseline: float) -> tuple[str, float]:
        """The ratio of the latencies."""
        return f"e2e_ratio_{name}", found / baseline


class _ActionLog:
    """Shares of the actions taken; any action beyond the multiples of `rows` is the hold."""

    def __init__(self, rows: int, actions: int) -> None:
        self._rows, self._actions = rows, actions
        self._clear()

    def _clear(self) -> None:
        self._counts = np.zeros(self._actions, np.int64)
        self._obeyed = 0

    def add(self, actions: np.ndarray, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count a step of every copy."""
        self._counts += np.bincount(actions, minlength=self._actions)
        self._obeyed += sum(info["action_obeyed"] for info in infos)

    def scalars(self) -> dict[str, float]:
        """Shares of decisions, by tag."""
        counts, total = self._counts, self._counts.sum()
        dispatched = counts[:-1].reshape(-1, self._rows).sum(axis=0)
        found = {f"action/instance_{i}": float(n / total) for i, n in enumerate(dispatched)}
        found["action/hold"] = float(counts[-1] / total)
        found["action/obeyed"] = self._obeyed / float(total)
        self._clear()
        return found
