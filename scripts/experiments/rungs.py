"""What a discipline of the throttling benchmark is: a scheduler, who is let in, and a grid."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

import numpy as np

from envs.simulator import EngineConfig, Gate, RateLimit, Scheduler
from envs.workloads import RequestTable
from scripts.experiments.disciplines import all_schedulers
from scripts.experiments.history import History

Values = tuple[tuple[str, float], ...]
_ENGINE = {item.name for item in fields(EngineConfig)}

RELATIVE: dict[str, Callable[[History], float]] = {
    "fair_shares": lambda history: history.fair_tokens_per_minute,
    "capacities": lambda history: history.tokens_per_minute,
}
"""Units in which a grid can give `tokens_per_minute`: what each of the tenants that call in a
minute gets if all get the same, and what the whole fleet serves."""


@dataclass(frozen=True)
class Rung:
    """A discipline: a scheduler of the waiting queues and who is let in at all.

    Attributes:
        name: Name on the command line and in tables.
        queue: Its scheduler, one of `disciplines.all_schedulers`.
        grid: Settings to choose from: values by parameter, the default first. A parameter is one
            of `admission` or `gate`, an option of `EngineConfig`, or one of the scheduler.
        admission: From its own parameters to options of `Simulation`; none lets all in. One that
            takes `**parameters` gets all that are nobody else's.
        gate: Its admission policy. Where that limits `tokens_per_minute`, the grid may have
            `fair_shares` or `capacities` instead (`RELATIVE`).
        engine: Options of `EngineConfig` that it needs.
        spread: Where given, it is told predictions that are off by up to this share of the truth,
            instead of the scenario's.
        of_table: Options of `Simulation` that follow from the requests, such as expected costs.
        oracle: Whether it is told the true lengths, as no real system is.
        told_all: Whether an oracle's predictions are the true lengths, by which admission may go,
            too; else it is told by `of_table` alone.
        about: What it is, in a few words.
    """

    name: str
    queue: str = "fcfs"
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    gate: Gate | None = None
    admission: Callable[..., dict[str, Any]] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    spread: float | None = None
    of_table: Callable[[RequestTable], dict[str, Any]] | None = None
    oracle: bool = False
    told_all: bool = True
    about: str = ""

    def settings(self, most: int | None = None) -> list[Values]:
        """All combinations of the grid, the default first; evenly thinned where there are more."""
        combined = product(*self.grid.values())
        found = [tuple(zip(self.grid, values, strict=True)) for values in combined]
        if most is None or len(found) <= most:
            return found
        return [found[place * len(found) // most] for place in range(most)]

    @property
    def relative(self) -> bool:
        """Whether a limit is set by what the fleet serves."""
        return any(name in RELATIVE for name in self.grid)

    def told(self, table: RequestTable, seed: int) -> RequestTable:
        """The requests of an episode with the predictions that it is told."""
        if self.oracle and self.told_all:
            return table.with_predictions(sigma=0)
        if self.spread is None:
            return table
        # A stream of its own: with the workload's seed, errors would follow the lengths.
        stream = np.random.SeedSequence([seed, 1]).generate_state(1)
        return table.with_predictions(seed=int(stream[0]), spread=self.spread)

    def parts(
        self, values: Values, history: History | None = None
    ) -> tuple[Scheduler, dict[str, Any], dict[str, Any]]:
        """Scheduler, engine options and options of the simulation of a setting.

        Args:
            values: Parameters that replace the defaults of the grid.
            history: What the fleet serves; without it, relative limits are taken as tokens.

        Raises:
            ValueError: A parameter is unknown; the message lists those that exist.
        """
        given = {name: default[0] for name, default in self.grid.items()} | dict(values)
        scheduler = all_schedulers()[self.queue]
        admitting = self._admitting(scheduler)
        gate_names = self.gate.parameter_names if self.gate else ()
        if self.gate is not None and self.gate.senses:
            gate_names = (*gate_names, "kv_limit")
        relative = RELATIVE if "tokens_per_minute" in gate_names else {}
        known = {*admitting, *self.grid, *scheduler.parameter_names, *gate_names, *relative}
        if unknown := sorted(set(given) - known):
            raise ValueError(
                f"contender {self.name} has no parameter {unknown[0]!r}; "
                f"it has: {', '.join(sorted(known)) or 'none'}"
            )
        limits = {name: given.pop(name) for name in admitting if name in given}
        engine = {name: int(given.pop(name)) for name in sorted(_ENGINE & given.keys())}
        options = self.admission(**limits) if self.admission else {}
        if self.gate is not None:
            for name in RELATIVE.keys() & given.keys():
                share = given.pop(name)
                unit = RELATIVE[name](history) if history else 1.0
                given.setdefault("tokens_per_minute", share * unit)
            own = {name: given.pop(name) for name in gate_names if name in given}
            limited = replace(self.gate, kv_limit=own.pop("kv_limit", self.gate.kv_limit))
            options |= {"gate": limited.with_parameters(**own)}
        return scheduler.with_parameters(**given), {**self.engine, **engine}, options

    def _admitting(self, scheduler: Scheduler) -> list[str]:
        """The parameters that `admission` gets."""
        if self.admission is None:
            return []
        takes = inspect.signature(self.admission).parameters
        named = [name for name, each in takes.items() if each.kind != each.VAR_KEYWORD]
        if len(named) < len(takes):
            others = _ENGINE.union(scheduler.parameter_names)
            named += [name for name in self.grid if name not in others and name not in named]
        return named


def rate_limit(requests_per_minute: float) -> dict[str, Any]:
    """Calls of a tenant that may enter in any 60 s."""
    return {"rate_limit": RateLimit(round(requests_per_minute))}


def rate_limit_kill(requests_per_minute: float) -> dict[str, Any]:
    """The same, where a call too many ends its interaction (FairServe's RPM)."""
    return {"rate_limit": RateLimit(round(requests_per_minute), kill_interactions=True)}
