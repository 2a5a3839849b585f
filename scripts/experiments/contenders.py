"""The policies of a comparison: baselines by name and parameters, and trained agents by folder."""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from envs.simulator import Result, RoutingPolicy
from scripts.experiments.cases import Episode
from scripts.experiments.machine import AGENT_PACKAGES, AGENT_PARTS, code_identity, hash_files


class Contender(Protocol):
    """Anything that can serve an episode; picklable, and cheap until it runs."""

    @property
    def label(self) -> str:
        """Name in tables and files."""

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""


@dataclass(frozen=True)
class Baseline:
    """A rule of `baselines.routing`.

    Attributes:
        name: Its name there.
        parameters: Values that replace its defaults.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Baseline:
        """Read `name` or `name:parameter=value,parameter=value`.

        The form `name(parameter=value, ...)`, in which a policy names itself, is read as well.

        Raises:
            ValueError: The text has another form, or there is no such rule or parameter.
        """
        own = re.fullmatch(r"([^():]+)\(([^()]*)\)(\+\w+)?", text.strip())
        plain = f"{own[1]}{own[3] or ''}:{own[2]}" if own else text.strip()
        name, colon, rest = plain.partition(":")
        parameters = []
        for part in rest.split(",") if colon else []:
            key, equals, value = part.partition("=")
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not (key.strip() and equals and math.isfinite(number)):
                raise ValueError(
                    f"router {text!r}: {part!r} is not parameter=number; "
                    "write name:parameter=number,parameter=number"
                )
            if key.strip() == "decision_interval_s" and number < 0:
                raise ValueError(f"router {text!r}: {part!r} is negative; 0 decides on events")
            parameters.append((key.strip(), number))
        found = cls(name, tuple(parameters))
        found.policy()
        return found

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        # All digits, so that no two rules share a name.
        values = ",".join(f"{key}={value!r}".removesuffix(".0") for key, value in self.parameters)
        return f"{self.name}:{values}" if values else self.name

    def policy(self) -> RoutingPolicy:
        """The rule itself."""
        return find_router(self.name, dict(self.parameters))

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        return episode.run(self.policy())

    def identity(self) -> dict[str, Any]:
        """Name and all parameters with their values; the code is in the hash of the code."""
        policy = self.policy()
        values = zip(policy.parameter_names, policy.parameters, strict=True)
        return {
            "name": self.name,
            "parameters": {key: float(value) for key, value in values},
            "queue_order": policy.queue_order,
            "decision_interval_s": policy.decision_interval_s,
            "window": policy.window,
        }


@dataclass(frozen=True)
class Agent:
    """A trained policy.

    Attributes:
        folder: Folder of the training run.
    """

    folder: Path

    @property
    def label(self) -> str:
        """Name in tables: that of the folder."""
        return f"agent:{self.folder.resolve().name}"

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        # Agents need torch, which nobody must have or wait for who compares baselines.
        evaluation = importlib.import_module("agents.evaluation")
        result: Result = evaluation.run_agent(
            self.folder, episode.table, episode.scenario, episode.seed
        )
        return result

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the folder's files and of the code that runs them.

        Raises:
            ValueError: There is no such folder.
        """
        if not self.folder.is_dir():
            raise ValueError(f"--agent {self.folder}: there is no such folder")
        files = [p for p in self.folder.rglob("*") if p.is_file()]
        # Logs grow while the policy stays what it is.
        files = [p for p in files if "events.out" not in p.name and p.suffix != ".log"]
        return {"files": hash_files(files, self.folder)} | code_identity(
            AGENT_PARTS, AGENT_PACKAGES
        )


def find_router(name: str, parameters: dict[str, float]) -> RoutingPolicy:
    """A baseline by name.

    Raises:
        ValueError: There is no such rule or parameter; the message lists those that exist.
    """
    from baselines.routing import router

    policy: RoutingPolicy = router(name, **parameters)
    return policy


def standard_routers() -> list[str]:
    """The baselines that are compared when none are named."""
    from baselines.routing import default_benchmark_set

    return [policy.name for policy in default_benchmark_set()]
