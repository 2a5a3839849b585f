"""Where instances can be, and what they come to (docs/simulator.md, "Life cycle")."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FOREVER = math.inf


@dataclass
class Place:
    """Where an instance can be."""

    index: int
    kind: int
    region: int
    gpus: int
    state: str
    role: int | None  # what it serves, or whose weights it holds
    source: str = ""
    goal: str = ""
    goal_role: int | None = None
    until: float = FOREVER  # when its state ends by itself
    draws: int = 0


@dataclass
class Account:
    """What a deployment has come to, times in ps."""

    ps: dict[str, int] = field(default_factory=dict)  # by state, and by source while it starts
    gpu_ps: int = 0
    dollars: float = 0.0
    donated_dollars: float = 0.0
    income: float = 0.0
    starts: dict[str, int] = field(default_factory=dict)
    stopped: int = 0
    lost: int = 0

    def add(self, name: str, ps: int) -> None:
        """Add to the time in a state, or of a source."""
        self.ps[name] = self.ps.get(name, 0) + ps
