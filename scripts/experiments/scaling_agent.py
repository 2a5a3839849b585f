"""Trained scaling policies as contenders of the scaling benchmark."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.scenarios import Scenario
from scripts.experiments.cases import Episode
from scripts.experiments.contenders import Agent
from scripts.experiments.scaling_runs import ScaledResult


@dataclass(frozen=True)
class ScalingAgent(Agent):
    """A trained policy of Scaling-v0, which serves the very tables of the strategies.

    Delays and evictions are those of the episode's seed, as for the others.
    """

    env: ClassVar[str] = "ServeGym/Scaling-v0"
    variant: ClassVar[str] = ""
    plans: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    def run(self, episode: Episode) -> ScaledResult:
        """Serve all requests of the episode that arrive while it lasts."""
        evaluation = importlib.import_module("agents.evaluation")
        env, _ = evaluation.play_agent(self.folder, episode.table, episode.scenario, episode.seed)
        return ScaledResult(**vars(env.result()), episode=env.episode)

    def candidates(self, tries: int, seed: int = 0) -> list[ScalingAgent]:
        """Itself alone: what there was to choose was chosen on validation episodes."""
        return [self]

    def _check_sizes(self, config: Any, scenarios: Sequence[Scenario]) -> None:
        for scenario in scenarios:
            groups = scenario.fleet.groups.values()
            roles = len({(group.serves, group.lane) for group in groups})
            regions = len(scenario.scaling.regions) if scenario.scaling is not None else 0
            if roles > config.roles or regions > config.regions:
                raise ValueError(
                    f"--agent {self.folder} was trained with rows for {config.roles} roles in "
                    f"{config.regions} regions, scenario {scenario.name} has {roles} in {regions}"
                )
