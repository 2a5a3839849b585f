"""What is served in a comparison: a scenario, drawn anew for every seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baselines.admission import gate
from baselines.scheduling import reads_history, traits_for
from envs.scenarios import Scenario, ScenarioError, load_fleet, load_scenario, parse_scenario
from envs.simulator import Result, simulate
from envs.workloads import TraceError, UnknownFormatError, trace_files, trace_format
from scripts.common import blame_flags
from scripts.experiments.bootstrap import resample
from scripts.experiments.disciplines import label
from scripts.experiments.history import past_requests

if TYPE_CHECKING:
    from envs.simulator import EngineConfig, RoutingPolicy
    from envs.workloads import RequestTable
    from scripts.experiments.disciplines import Discipline


@dataclass(frozen=True)
class Episode:
    """One draw of a scenario, which every policy serves.

    Attributes:
        scenario: Where it comes from.
        seed: What it was drawn with; also seeds randomised policies.
        table: The requests with their predicted lengths.
        engines: The fleet.
        bootstrap: Whether the table is resampled from a recorded trace.
    """

    scenario: Scenario
    seed: int
    table: RequestTable
    engines: Sequence[EngineConfig]
    bootstrap: bool = False

    def run(self, policy: RoutingPolicy, queue_order: Any = None, **options: Any) -> Result:
        """Serve the requests.

        Args:
            policy: The routing rule.
            queue_order: Order of the router queue; without it, the scenario's, else the rule's.
            options: Options of `Simulation`, instead of the scenario's.
        """
        given = self.scenario.options(self.table, self.seed, gate) | options
        if queue_order:
            given["queue_order"] = queue_order
        # The counters of tenants are shared, so that all instances have the same scheduler.
        scheduler = self.engines[0].scheduler
        known = reads_history(scheduler)
        past = past_requests(self.scenario, self.bootstrap) if known else None
        given = traits_for(scheduler, self.table, past) | given
        return simulate(self.table, self.engines, policy, seed=self.seed, **given)


@dataclass(frozen=True)
class Case:
    """A scenario of a comparison.

    Attributes:
        scenario: Fleet, workload and all else.
        bootstrap: Whether a recorded trace is resampled for every seed (see `resample`).
        queue: Scheduler of every instance, instead of the fleet's own.
    """

    scenario: Scenario
    bootstrap: bool = False
    queue: Discipline | None = None

    @property
    def name(self) -> str:
        """Name in tables and files."""
        return self.scenario.name

    @property
    def has_objectives(self) -> bool:
        """Whether the scenario limits a latency."""
        return any(map(math.isfinite, self.scenario.slo.limits_s()))

    @property
    def recorded(self) -> bool:
        """Whether the same requests arrive whatever the seed."""
        workload = self.scenario.workload
        if workload.kind != "trace" or self.bootstrap:
            return False
        return workload.read_format() != "servegen"

    def engines(self) -> list[EngineConfig]:
        """The fleet.

        Raises:
            ScenarioError: The scenario cannot be built.
        """
        engines = self.scenario.fleet.engines()
        if self.queue is None:
            return engines
        scheduler = self.queue.scheduler()
        return [replace(engine, queue=scheduler) for engine in engines]

    def episode(self, seed: int) -> Episode:
        """Draw the requests, the same for the same seed.

        Raises:
            ScenarioError: The scenario cannot be built.
            TraceError: The trace cannot be read.
        """
        engines, table = self.engines(), self.scenario.requests(seed)
        if self.bootstrap:
            table = resample(table, seed)
        return Episode(self.scenario, seed, table, engines, self.bootstrap)

    def conditions(self) -> list[str]:
        """What is unusual about how it is served, one short text each."""
        scenario, found = self.scenario, []
        clients, limit, failures = scenario.clients, scenario.rate_limit, scenario.failures
        if self.queue is not None:
            known = self.queue.knows_table and past_requests(scenario, self.bootstrap) is None
            told = " (knows the mean answers of this table)" if known else ""
            found.append(f"scheduler {self.queue.label}{told}")
        if scenario.router.poll_interval_s:
            found.append(f"the router looks every {scenario.router.poll_interval_s:g} s")
        if clients.closed_loop:
            found.append(f"clients wait for the answer and then {clients.think_s:g} s")
        if limit is not None:
            ends = " (a call over it ends its interaction)" if limit.kill_interactions else ""
            found.append(f"{limit.requests_per_minute} requests a minute for each tenant{ends}")
        if scenario.gate is not None:
            chosen = label(scenario.gate.name, tuple(scenario.gate.parameters.items()))
            found.append(f"admission policy {chosen}")
        if scenario.retry is not None and scenario.retry.times:
            found.append(
                f"clients send again up to {scenario.retry.times} times, first after "
                f"{scenario.retry.backoff_s:g} s"
            )
        if most := max(group.skip_ahead for group in scenario.fleet.groups.values()):
            found.append(f"an admission passes over up to {most} requests that do not fit")
        if scenario.adversary is not None:
            found.append(f"an adversary: {scenario.adversary.kind}")
        for down in failures.outages:
            found.append(f"instance {down.instance} down, {down.start_s:g} to {down.end_s:g} s")
        if failures.mean_time_between_failures_s is not None:
            found.append(
                f"instances fail after {failures.mean_time_between_failures_s:g} s for "
                f"{failures.mean_time_to_repair_s:g} s on average"
            )
        return found

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data.

        Raises:
            TraceError: The trace cannot be read.
        """
        data: dict[str, Any] = self.scenario.model_dump(mode="json")
        for about in ("description", "source"):
            data.pop(about, None)
        workload = self.scenario.workload
        if workload.kind == "trace":
            # Where the file lies says nothing of what it holds.
            data["workload"].pop("path")
            files = trace_files(workload.path, workload.format, workload.columns)
            data["workload"]["content"] = [_content(path) for path in files]
            data["bootstrap"] = self.bootstrap
        if workload.kind == "servegen_week":
            paths = data["workload"].pop("paths")
            data["workload"]["content"] = {
                model: [_content(file) for file in trace_files(path, "servegen")]
                for model, path in paths.items()
            }
        if workload.kind == "prompts":
            data["workload"].pop("path")
            data["workload"]["content"] = [_content(Path(workload.path))]
        if self.queue is not None:
            data["queue"] = self.queue.identity()
        return data


def preset_case(
    name: str,
    requests: int | None = None,
    changes: dict[str, Any] | None = None,
    queue: Discipline | None = None,
    skip_ahead: int | None = None,
    admission: str | None = None,
) -> Case:
    """A preset scenario, or a scenario's file.

    Args:
        name: Preset or file.
        requests: Another number of requests, or the largest number to take of a trace.
        changes: Other values to merge over the scenario's.
        queue: Scheduler of every instance, instead of the fleet's own.
        skip_ahead: `EngineConfig.skip_ahead` of every instance, likewise.
        admission: `EngineConfig.admission` of every instance, likewise.

    Raises:
        ScenarioError: There is no such scenario, or its content is refused.
        ValueError: One of `changes` is refused; the message names its flag.
    """
    changes = changes or {}
    try:
        scenario = load_scenario(name, changes)
        scenario.find_gate(gate)
        if engine := _engine(skip_ahead, admission):
            groups = {key: engine for key in scenario.fleet.groups}
            changes = changes | {"fleet": {"groups": groups}}
            scenario = load_scenario(name, changes)
    except ScenarioError as error:
        raise blame_flags(error, changes) from None
    if requests is not None:
        key = "limit" if scenario.workload.kind == "trace" else "requests"
        scenario = load_scenario(name, changes | {"workload": {key: requests}})
    return Case(scenario, queue=queue)


def trace_case(
    trace: Path,
    fleet: str,
    *,
    rate_scale: float = 1.0,
    limit: int | None = None,
    sigma: float = 0.5,
    bootstrap: bool = False,
    changes: Mapping[str, Any] | None = None,
    queue: Discipline | None = None,
    skip_ahead: int | None = None,
    admission: str | None = None,
) -> Case:
    """A recorded trace on a fleet.

    Args:
        trace: The file, of any format that `envs.workloads.read_trace` recognises.
        fleet: Preset or file of the fleet.
        rate_scale: Factor on the rate.
        limit: Take at most so many requests.
        sigma: Error of the predicted lengths, see `Prediction`.
        bootstrap: Resample the trace for every seed.
        changes: Other keys of the scenario: its objectives, clients, failures.
        queue: Scheduler of every instance, instead of the fleet's own.
        skip_ahead: `EngineConfig.skip_ahead` of every instance, likewise.
        admission: `EngineConfig.admission` of every instance, likewise.

    Raises:
        ScenarioError: The fleet does not exist or is refused.
        ValueError: An option is out of range; the message names its flag.
    """
    workload = {"kind": "trace", "path": str(trace), "rate_scale": rate_scale}
    if limit is not None:
        workload["limit"] = limit
    # Here, so that a message about the fleet names the file of the fleet.
    known = load_fleet(fleet)
    if trace.is_file():
        _demand_known_format(trace)
    served = known.model_dump(exclude_unset=True)
    for group in served["groups"].values():
        group.update(_engine(skip_ahead, admission))
    data: dict[str, Any] = {
        "name": trace.name.partition(".")[0] or "trace",
        "fleet": served,
        "workload": workload,
        "prediction": {"sigma": sigma},
    }
    data |= dict(changes or {})
    try:
        scenario = parse_scenario(data, str(trace))
        scenario.find_gate(gate)
        return Case(scenario, bootstrap, queue)
    except ScenarioError as error:
        raise blame_flags(error, data) from None


def _engine(skip_ahead: int | None, admission: str | None) -> dict[str, Any]:
    """What is set of every instance, by its keys in a fleet."""
    given = {"skip_ahead": skip_ahead, "admission": admission}
    return {key: value for key, value in given.items() if value is not None}


def _demand_known_format(trace: Path) -> None:
    try:
        trace_format(trace)
    except UnknownFormatError as error:
        mend = (
            f"Convert it first: servegym trace {trace} --columns arrival_s=... "
            "prompt_tokens=... output_tokens=... -o requests.parquet, with its own names"
        )
        raise UnknownFormatError(error.problem, mend=mend, path=trace, line=error.line) from None


def _content(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()[:16]
    except OSError as error:
        raise TraceError(
            f"cannot be read ({error.strerror})", mend="Give an existing file", path=path
        ) from None
