"""Trained throttling policies as contenders of the throttling benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from envs.scenarios import Scenario
from scripts.experiments.contenders import Agent


@dataclass(frozen=True)
class ThrottlingAgent(Agent):
    """A trained policy of Throttling-v0, which serves the very tables of the others.

    It brings FairServe's counter as the scheduler, and chooses its settings or who is let in.
    """

    env: ClassVar[str] = "ServeGym/Throttling-v0"

    def candidates(self, most: int) -> list[ThrottlingAgent]:
        """Itself alone: what there was to choose was chosen on validation episodes."""
        return [self]

    def _check_sizes(self, config: Any, scenarios: Sequence[Scenario]) -> None:
        """Any number of tenants and instances fits its observation."""
