"""The ladder of the throttling benchmark: disciplines by name, with what can be tuned of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from typing import Any

from envs.simulator import EngineConfig, RateLimit, Result, Scheduler
from envs.workloads import RequestTable
from scripts.experiments.cases import Episode
from scripts.experiments.contenders import find_router
from scripts.experiments.disciplines import Discipline, all_schedulers, label, named_values

Values = tuple[tuple[str, float], ...]
_ENGINE = {item.name for item in fields(EngineConfig)}


@dataclass(frozen=True)
class Rung:
    """A discipline: a scheduler of the waiting queues and who is let in at all.

    Attributes:
        name: Name on the command line and in tables.
        queue: Its scheduler, one of `disciplines.all_schedulers`.
        grid: Settings to choose from: values by parameter, the default first. A parameter is one
            of `admission`, an option of `EngineConfig`, or one of the scheduler.
        admission: From its own parameters to options of `Simulation`; none lets all in. One that
            takes `**parameters` gets all that are nobody else's.
        engine: Options of `EngineConfig` that it needs.
        of_table: Options of `Simulation` that follow from the requests, such as expected costs.
        oracle: Whether it is told the true lengths, as no real system is.
        about: What it is, in a few words.
    """

    name: str
    queue: str = "fcfs"
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    admission: Callable[..., dict[str, Any]] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    of_table: Callable[[RequestTable], dict[str, Any]] | None = None
    oracle: bool = False
    about: str = ""

    def settings(self, most: int | None = None) -> list[Values]:
        """All combinations of the grid, the default first; evenly thinned where there are more."""
        combined = product(*self.grid.values())
        found = [tuple(zip(self.grid, values, strict=True)) for values in combined]
        if most is None or len(found) <= most:
            return found
        return [found[place * len(found) // most] for place in range(most)]

    def parts(self, values: Values) -> tuple[Scheduler, dict[str, Any], dict[str, Any]]:
        """Scheduler, engine options and options of the simulation of a setting.

        Raises:
            ValueError: A parameter is unknown; the message lists those that exist.
        """
        given = {name: default[0] for name, default in self.grid.items()} | dict(values)
        scheduler = all_schedulers()[self.queue]
        admitting = self._admitting(scheduler)
        known = {*admitting, *self.grid, *scheduler.parameter_names}
        if unknown := sorted(set(given) - known):
            raise ValueError(
                f"contender {self.name} has no parameter {unknown[0]!r}; "
                f"it has: {', '.join(sorted(known)) or 'none'}"
            )
        limits = {name: given.pop(name) for name in admitting if name in given}
        engine = {name: int(given.pop(name)) for name in sorted(_ENGINE & given.keys())}
        options = self.admission(**limits) if self.admission else {}
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


_PER_MINUTE = {"requests_per_minute": (10.0, 5.0, 20.0, 30.0, 50.0, 100.0)}
_OUTPUT = {"output_weight": (2.0, 0.5, 1.0, 4.0, 8.0, 16.0)}

_PREDICT = {"output_weight": (2.0, 1.0, 4.0), "memory": (4.0, 1.0)}
_PROFILE = {"constant": (1.14601454, 0.0, 4.0, 16.0)}

# One line each. Sizes of grids divide TUNING_RUNS, so that all get exactly as many runs.
LADDER: dict[str, Rung] = {
    rung.name: rung
    for rung in (
        Rung("fcfs", about="first come first served"),
        Rung("rpm", "fcfs", _PER_MINUTE, rate_limit, about="rate limit"),
        Rung("rpm_kill", "fcfs", _PER_MINUTE, rate_limit_kill, about="rate limit of interactions"),
        Rung("sjf", "sjf", about="shortest predicted answer first"),
        Rung("srpt", "srpt", about="shortest predicted remaining answer first"),
        Rung("lcf", "lcf", _OUTPUT, about="VTC without the lift"),
        Rung("vtc", "vtc", _OUTPUT, about="virtual token counter"),
        Rung("vtc_paper", "vtc_paper", _OUTPUT, about="VTC with lines 8-10 of Alg. 2"),
        Rung("vtc_artifact", "vtc_artifact", _OUTPUT, about="VTC, its artifact's extra token"),
        Rung("vtc_predict", "vtc_predict", _PREDICT, about="VTC, usual answer ahead"),
        Rung("vtc_predicted", "vtc_predicted", _OUTPUT, about="VTC, predicted answer ahead"),
        Rung("vtc_profile", "vtc_profile", _PROFILE, about="VTC, profiled cost"),
        Rung("vtc_rpm", "vtc", _PER_MINUTE, rate_limit_kill, about="VTC behind rpm_kill"),
        Rung("wsc", "wsc", _OUTPUT, about="FairServe's counter, charged in flight"),
        Rung("wsc_at_end", "wsc_at_end", _OUTPUT, about="FairServe's counter, charged at the end"),
        Rung("wsc_rpm", "wsc", _PER_MINUTE, rate_limit_kill, about="wsc behind rpm_kill"),
    )
}
"""The disciplines by name."""

TUNING_RUNS = 12
"""Simulated runs that each discipline of several settings gets to choose one."""


@dataclass(frozen=True)
class Throttle:
    """A discipline at one setting: a contender of the benchmark.

    Attributes:
        name: Its rung, or a scheduler that has none.
        values: Parameters that replace the defaults of its grid.
        router: Routing rule, for fleets of several instances.
    """

    name: str
    values: Values = ()
    router: str = "jsq"

    @classmethod
    def parse(cls, text: str, router: str = "jsq") -> Throttle:
        """Read `name` or `name:parameter=value,parameter=value`.

        Raises:
            ValueError: The text has another form, or there is no such discipline or parameter.
        """
        name, values = named_values(text, "contender")
        found = cls(name, values, router)
        found.rung.parts(values)
        return found

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return label(self.name, self.values)

    @property
    def rung(self) -> Rung:
        """The discipline.

        Raises:
            ValueError: There is none of that name; the message lists those that exist.
        """
        if self.name in LADDER:
            return LADDER[self.name]
        if self.name in all_schedulers():
            return Rung(self.name, self.name)
        others = [name for name in all_schedulers() if name not in LADDER]
        raise ValueError(
            f"contender {self.name!r} is unknown; there are: {', '.join(LADDER)}; "
            f"and as schedulers that are not tuned: {', '.join(others)}"
        )

    def candidates(self, most: int) -> list[Throttle]:
        """Up to so many settings to choose from; itself alone where there is no choice."""
        if self.values or most < 1:
            return [self]
        found = [replace(self, values=values) for values in self.rung.settings(most)]
        return found if len(found) > 1 else [self]

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        rung = self.rung
        scheduler, engine, options = rung.parts(self.values)
        engines = [replace(each, queue=scheduler, **engine) for each in episode.engines]
        table = episode.table.with_predictions(sigma=0) if rung.oracle else episode.table
        if rung.of_table is not None:
            options = options | rung.of_table(table)
        served = replace(episode, engines=engines, table=table)
        return served.run(find_router(self.router, {}), **options)

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        rung = self.rung
        scheduler = Discipline(rung.queue).identity()
        defaults = {name: values[0] for name, values in rung.grid.items()}
        return {
            "name": self.name,
            "queue": scheduler["name"],
            "values": scheduler["parameters"] | defaults | dict(self.values),
            "router": self.router,
        }
