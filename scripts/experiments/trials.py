"""What was tried in tuning, whatever it was judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class AnyTrial(Protocol):
    """A setting that was tried for a contender on a scenario."""

    @property
    def scenario(self) -> str:
        """Name of the scenario."""

    @property
    def name(self) -> str:
        """The contender as given."""

    @property
    def setting(self) -> str:
        """Label of the setting."""

    @property
    def chosen(self) -> bool:
        """Whether it is the one."""


def chosen_settings(trials: Iterable[AnyTrial]) -> dict[str, dict[str, str]]:
    """The chosen setting by scenario and contender."""
    found: dict[str, dict[str, str]] = {}
    for trial in trials:
        if trial.chosen:
            found.setdefault(trial.scenario, {})[trial.name] = trial.setting
    return found
