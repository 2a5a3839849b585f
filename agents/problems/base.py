"""The seam between learning, which is one for all, and what differs between environments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from agents.networks import network_arguments
from agents.play import Played, mean
from agents.policy_config import PolicyConfig
from agents.settings import RunConfig
from envs.common.copies import CopiesVectorEnv
from envs.scenarios import SEEDS, Scenario, seeds

Rows = list[dict[str, float]]
"""A row an episode: its `seed`, and metrics."""


class StepLog(Protocol):
    """Sums over the steps of training since the last update."""

    def add(self, actions: np.ndarray, infos: Sequence[Mapping[str, Any]]) -> None:
        """Count a step of every copy."""

    def scalars(self) -> dict[str, float]:
        """What to log, by tag; begins anew."""


class Problem(ABC):
    """An environment as something to learn.

    A new one is a subclass, a line in `agents.problems.PROBLEMS`, a `RunConfig`, a
    `PolicyConfig`, and a file of hyper-parameters.

    Attributes:
        metrics: Keys of an episode's summary that are logged in training and validation.
        acted: Keys of a validation row that say what was done.
        judged: Key of a validation row that a policy is judged by, where no work was lost.
        lower_is_better: Of `judged`.
        acts_by_chance: Whether a policy serves with sampled actions instead of the most probable
            ones: where rare changes add up, the most probable action is always to change nothing.
    """

    metrics: ClassVar[tuple[str, ...]]
    judged: ClassVar[str]
    lower_is_better: ClassVar[bool]
    acts_by_chance: ClassVar[bool] = False
    acted: tuple[str, ...]

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    @classmethod
    @abstractmethod
    def environment(cls, config: PolicyConfig, scenario: Scenario) -> Any:
        """One environment in which a trained policy can serve a scenario."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Arguments of the environments of training, but for scenario and horizon."""

    @abstractmethod
    def make_env(self, scenario: Scenario | None = None) -> Any:
        """One environment for validation, whose episodes are played to their ends."""

    @abstractmethod
    def step_log(self, env: Any) -> StepLog:
        """What is counted of the steps of training."""

    @abstractmethod
    def row(self, played: Played) -> dict[str, float]:
        """The metrics of a validation episode."""

    @abstractmethod
    def baselines(self) -> dict[str, Rows]:
        """What rules reach on the validation episodes, by name."""

    @abstractmethod
    def lost(self, row: Mapping[str, float]) -> float:
        """Requests of an episode that were lost in a way that `judged` does not see."""

    @abstractmethod
    def against(self, name: str, found: float, baseline: float) -> tuple[str, float]:
        """Tag and value of the comparison with a baseline by `judged`."""

    @property
    def scored(self) -> str:
        """Name of the second number of `score`."""
        return self.judged if self.lower_is_better else f"minus_{self.judged}"

    @property
    def masked(self) -> bool:
        """Whether actions have masks."""
        return True

    def network(self) -> dict[str, Any]:
        """Arguments of the policy's constructor."""
        values = self._config.hyperparameters
        return network_arguments(values.net_arch, values.activation)

    def prepare(self, policy: Any) -> None:  # noqa: B027, most begin as they are
        """Change a policy before it learns; by default nothing."""

    def make_batch(self) -> CopiesVectorEnv:
        """The environment copies that training steps.

        Copies take the scenarios in turn. Copy i of n cuts its episodes after the part
        (i + 1) / n of the longest, so that the copies do not all fill up from empty, and begin
        anew, at the same time.
        """
        n, scenarios = self._config.hyperparameters.n_envs, self._config.trained_on
        longest_s = [self._longest_episode_s(scenario) for scenario in scenarios]
        places = [i % len(scenarios) for i in range(n)]
        env = gymnasium.make_vec(
            f"envs:{self._config.env}",
            n,
            vectorization_mode="vector_entry_point",
            autoreset_mode=AutoresetMode.SAME_STEP,
            scenario=[scenarios[place] for place in places],
            horizon_s=[longest_s[place] * (i + 1) / n for i, place in enumerate(places)],
            **self.options(),
        )
        assert isinstance(env, CopiesVectorEnv)
        return env

    def _longest_episode_s(self, scenario: Scenario) -> float:
        """Simulated seconds after which the longest training episodes are cut."""
        share = self._config.hyperparameters.episode_share
        if share is None:
            return math.inf
        table = scenario.build(SEEDS["train"].start)[0]
        # A trace of one moment has no span.
        return share * float(table.arrival_s[-1]) or math.inf

    def validation(self) -> list[tuple[Scenario, int]]:
        """Scenario and seed of each validation episode."""
        chosen = seeds("validation", self._config.hyperparameters.validation_episodes)
        return [(scenario, seed) for scenario in self._config.trained_on for seed in chosen]

    def score(self, rows: Sequence[dict[str, float]]) -> tuple[float, float]:
        """What makes one policy better than another, smaller first: lost requests, then `judged`.

        Without the first, a policy could look fast by having its slow requests rejected.
        """
        value = mean(rows, self.judged)
        return sum(self.lost(row) for row in rows), value if self.lower_is_better else -value
