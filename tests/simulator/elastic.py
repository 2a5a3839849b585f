"""What is elastic of a case, and a kernel run of it that stops for every change."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from envs.simulator import Backlog, ElasticFleet, Router, Simulation
from tests.reference.elastic import ElasticOptions

if TYPE_CHECKING:
    from tests.simulator.case import Engine

PS_PER_S = 10**12
Change = tuple[int, str, int, int]  # time in ps, kind, instance, pattern


@dataclass(frozen=True)
class Waits:
    """A backlog."""

    low: float = 0.5
    middle: float = 0.6
    at_low: int = 2
    at_middle: int = 1
    promote_ps: int = 36_000 * PS_PER_S


@dataclass(frozen=True)
class Elastic:
    """The elastic part of a case; without changes, nobody stops the run."""

    changes: tuple[Change, ...] = ()  # in order of time
    network_ps: tuple[tuple[str, str, int], ...] = ()
    backlog: Waits | None = None
    limits_ps: tuple[int, int, int] = (PS_PER_S, PS_PER_S, PS_PER_S)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `Simulation`."""
        options: dict[str, Any] = {"tier_slo_s": tuple(t / PS_PER_S for t in self.limits_ps)}
        if self.changes:
            options["elastic"] = True
        if self.network_ps:
            options["network_s"] = {(a, b): ps / PS_PER_S for a, b, ps in self.network_ps}
        if (waits := self.backlog) is not None:
            options["backlog"] = Backlog(
                low=waits.low,
                middle=waits.middle,
                at_low=waits.at_low,
                at_middle=waits.at_middle,
                promote_s=waits.promote_ps / PS_PER_S,
            )
        return options

    def reference_options(self) -> ElasticOptions:
        """The same for the reference."""
        network = {(source, target): ps for source, target, ps in self.network_ps}
        backlog = None if self.backlog is None else SimpleNamespace(**vars(self.backlog))
        return ElasticOptions(network, backlog, self.changes)


class ScriptedRun:
    """An elastic simulation whose fleet is changed as a case says."""

    def __init__(self, simulation: Simulation, router: Router, changes: tuple[Change, ...]) -> None:
        """Begin."""
        self.fleet = ElasticFleet(simulation, router)
        self.changes = changes

    def go_on(self, pauses: int = 10**9) -> bool:
        """Make the changes of the next instants, or all that are left; whether the run goes on."""
        while self.changes and pauses > 0:
            pauses -= 1
            time_ps = self.changes[0][0]
            if not self._run_to(time_ps):
                return False
            here = [change for change in self.changes if change[0] == time_ps]
            self.changes = self.changes[len(here) :]
            for _, kind, i, pattern in here:
                self._change(kind, i, pattern)
        return True

    def finish(self) -> None:
        """Make all the changes that are left, and run to the end."""
        if self.go_on():
            while self.fleet.run_to(float("inf")):
                self._check_stop()

    def _run_to(self, time_ps: int) -> bool:
        """Run to a time, past the stops where an instance has drained."""
        while self.fleet.run_to(time_ps / PS_PER_S):
            if int(self.fleet.simulation.state.head["now_ps"][0]) == time_ps:
                return True
            self._check_stop()
        return False

    def _check_stop(self) -> None:
        """It stopped before its time since an instance that drains is empty."""
        down = self.fleet.instances["down"].tolist()
        assert any(self.fleet.is_empty(i) for i in range(len(down)) if down[i] == 2)

    def _change(self, kind: str, i: int, pattern: int) -> None:
        """Make a change where it is allowed."""
        fleet = self.fleet
        if kind == "pull":
            fleet.pull()
        elif kind == "fail":
            fleet.fail(i)
        elif kind in ("ready", "draining"):
            fleet.set(i, kind)  # type: ignore[arg-type]
        elif kind == "off":
            if fleet.is_empty(i):
                fleet.set(i, "off")
        else:
            engines = fleet.simulation.fleet
            same = engines[i].scheduler == engines[pattern].scheduler
            if fleet.instances["down"][i] == 1 and fleet.is_empty(i) and same:
                fleet.convert(i, pattern)


def account(regions: tuple[str, ...], models: tuple[str, ...], rows: Any) -> dict[str, list[int]]:
    """The sums of pools that have any, by the names of model and region."""
    names = [name for name in rows.dtype.names if name.startswith(("arrived", "finished", "in_"))]
    names += ["prompt_tokens", "output_tokens"]
    found = {}
    for a, row in enumerate(rows):
        for b, region in enumerate(regions):
            if row[b]["arrived"]:
                model = models[a] if models else ""
                found[f"{model} in {region}"] = [int(row[b][name]) for name in names]
    return found


def reference_account(
    pooled: Any, fleet: tuple[Engine, ...], limits_ps: tuple[int, int, int]
) -> dict[str, list[int]]:
    """The same of the reference's requests."""
    first = next((engine.model for engine in fleet if engine.model), "")
    found: dict[str, list[int]] = {}
    for request in pooled:
        model = (request.model or first) if first else ""
        own = found.setdefault(f"{model} in {request.region}", [0] * 9)
        own[0] += 1
        own[7] += request.prompt
        if request.finish_ps < 0:
            continue
        own[1 + request.tier] += 1
        ends = request.finish_ps if request.tier == 2 else request.first_token_ps
        own[4 + request.tier] += ends - request.arrival_ps <= limits_ps[request.tier]
        own[8] += request.output
    return found
