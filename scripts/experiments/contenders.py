"""The policies of a comparison: baselines by name and parameters, and trained agents by folder."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from envs.scenarios import Scenario
from envs.simulator import Result, RoutingPolicy
from scripts.experiments.cases import Episode
from scripts.experiments.disciplines import label, named_values
from scripts.experiments.machine import AGENT_PACKAGES, AGENT_PARTS, code_identity, hash_files
from scripts.experiments.policy_file import PolicyFile, names_a_file, settings


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
        name, values = named_values(plain, "router")
        if dict(values).get("decision_interval_s", 0.0) < 0:
            raise ValueError(
                f"router {text!r}: decision_interval_s is negative; 0 decides on events"
            )
        found = cls(name, values)
        found.policy()
        return found

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return label(self.name, self.parameters)

    def policy(self) -> RoutingPolicy:
        """The rule itself."""
        return find_router(self.name, dict(self.parameters))

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        return episode.run(self.policy())

    def identity(self) -> dict[str, Any]:
        """Name and all parameters with their values; the code is in the hash of the code."""
        return {"name": self.name} | settings(self.policy())


@dataclass(frozen=True)
class Agent:
    """A trained policy.

    Attributes:
        folder: Folder of the training run.
        env: The environment that it must have been trained on.
    """

    folder: Path
    env: ClassVar[str] = "ServeGym/Routing-v0"

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

    def check(self, scenarios: Sequence[Scenario]) -> None:
        """See that the folder holds a policy that can serve scenarios, before anything is run.

        Raises:
            ValueError: There is no such folder, it holds no policy, a file of it is faulty, the
                policy is one of another environment, or a fleet is larger than those that it was
                trained for.
        """
        self._see_folder()
        try:
            evaluation = importlib.import_module("agents.evaluation")
            files = importlib.import_module("agents.model_files")
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--agent needs the package {error.name}: pip install 'servegym[agents]'"
            ) from error
        if not any((self.folder / name).is_file() for name in ("policy.json", "config.yaml")):
            raise ValueError(
                f"--agent {self.folder} holds no trained policy: expected best/policy.json and "
                "the config.yaml of a training run, or policy.json itself"
            )
        found = evaluation.find_policy(self.folder)
        if not (found / "policy.json").is_file():
            raise ValueError(
                f"--agent {self.folder} holds no trained policy: {found / 'policy.json'} is missing"
            )
        files.read_weights(found)
        config = files.read_policy_config(found)
        if config.env != self.env:
            raise ValueError(f"--agent {self.folder} was trained on {config.env}, not {self.env}")
        self._check_sizes(config, scenarios)

    def _check_sizes(self, config: Any, scenarios: Sequence[Scenario]) -> None:
        most = config.max_instances
        for scenario in scenarios:
            count = sum(group.count for group in scenario.fleet.groups.values())
            if count > most:
                raise ValueError(
                    f"--agent {self.folder} was trained for at most {most} instances, scenario "
                    f"{scenario.name} has {count}"
                )

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the folder's files and of the code that runs them.

        Raises:
            ValueError: There is no such folder.
        """
        self._see_folder()
        files = [p for p in self.folder.rglob("*") if p.is_file()]
        # Logs grow while the policy stays what it is.
        files = [p for p in files if "events.out" not in p.name and p.suffix != ".log"]
        return {"files": hash_files(files, self.folder)} | code_identity(
            AGENT_PARTS, AGENT_PACKAGES
        )

    def _see_folder(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(f"--agent {self.folder}: there is no such folder")


AnyAgent = TypeVar("AnyAgent", bound=Agent)


def trained(
    kind: type[AnyAgent], folders: Sequence[Path], scenarios: Sequence[Scenario]
) -> list[AnyAgent]:
    """Policies by the folders of their runs, checked before anything is run.

    Raises:
        ValueError: A folder holds no policy that can serve the scenarios, or two have one name.
    """
    found = [kind(folder) for folder in folders]
    labels = [agent.label for agent in found]
    for agent in found:
        if labels.count(agent.label) > 1:
            raise ValueError(f"two policies are called {agent.label}: rename a folder")
        agent.check(scenarios)
    return found


def parse_router(text: str) -> Baseline | PolicyFile:
    """A rule as the command line names it: a baseline (`Baseline.parse`), or `FILE.py:NAME`.

    Raises:
        ValueError: As `Baseline.parse` or `PolicyFile.parse`.
    """
    return PolicyFile.parse(text) if names_a_file(text) else Baseline.parse(text)


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
