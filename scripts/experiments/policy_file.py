"""Routing policies from a user's Python file: `FILE.py:NAME`."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from numba.core.errors import NumbaError

from envs.simulator import Result, RoutingPolicy
from scripts.experiments.cases import Episode

_FORM = re.compile(r"(?P<path>.+\.py):(?P<name>[^:]+)")


def names_a_file(text: str) -> bool:
    """Whether a router is given as `FILE.py:NAME`, not by the name of a baseline."""
    return text.endswith(".py") or ".py:" in text


def settings(policy: RoutingPolicy) -> dict[str, Any]:
    """How a rule is set, as plain data."""
    values = zip(policy.parameter_names, policy.parameters, strict=True)
    return {
        "parameters": {key: float(value) for key, value in values},
        "queue_order": policy.queue_order,
        "decision_interval_s": policy.decision_interval_s,
        "window": policy.window,
    }


@dataclass(frozen=True)
class PolicyFile:
    """A `RoutingPolicy` in a Python file, which is run to get it.

    Attributes:
        path: The file; absolute, since other processes load it as well.
        name: Name of the policy in the file.
    """

    path: Path
    name: str

    @classmethod
    def parse(cls, text: str) -> PolicyFile:
        """Read `FILE.py:NAME`, and check that there is a policy that compiles.

        Raises:
            ValueError: The text has another form, the file is absent or fails, it holds no such
                name, or what it holds is no `RoutingPolicy` or does not compile.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise ValueError(f"router {text!r}: write FILE.py:NAME, the policy's name in the file")
        found = cls(Path(form["path"]).absolute(), form["name"])
        policy = found.policy()
        try:
            _ = policy.compiled
        except NumbaError as error:
            raise ValueError(
                f"{found.path}: {found.name} does not compile with Numba: {_brief(error)}"
            ) from error
        return found

    @property
    def label(self) -> str:
        """Name in tables: that of the policy in the file."""
        return self.name

    def policy(self) -> RoutingPolicy:
        """The rule itself."""
        module = _load(self.path, self._digest())
        names = [key for key, value in vars(module).items() if isinstance(value, RoutingPolicy)]
        found = getattr(module, self.name, None)
        if isinstance(found, RoutingPolicy):
            return found
        have = f"it has: {', '.join(names)}" if names else "it has none"
        if found is None:
            raise ValueError(f"{self.path}: there is no policy {self.name!r}; {have}")
        raise ValueError(
            f"{self.path}: {self.name} is a {type(found).__name__}, not a RoutingPolicy; {have}"
        )

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        return episode.run(self.policy())

    def identity(self) -> dict[str, Any]:
        """Name in the file, fingerprint of the file, and how the policy is set."""
        return {"name": self.name, "file": self._digest()} | settings(self.policy())

    def _digest(self) -> str:
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror})") from None


@lru_cache(maxsize=64)
def _load(path: Path, digest: str) -> ModuleType:
    """The module of a file; `digest` has an edited file loaded again."""
    # The same name in every process: Numba's cache on disk imports the module by it.
    place = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"servegym_policy_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path}: {type(error).__name__}: {_brief(error)}") from error
    return module


def _brief(error: BaseException) -> str:
    """The line of a message that says what is wrong."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
    lines = [line for line in lines if line]
    first = lines[0] if lines else "no message"
    # Numba begins with where in itself it failed; the reason is the second line.
    return " ".join(lines[:2]) if first.startswith("Failed in") else first
