"""From a scenario and a seed to a fleet at time 0, the demand of its episode and of the past."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.scaling.demand import Demand, demand_of
from envs.scenarios import Scaling, Scenario
from envs.scenarios.weeks import O365Week, ServeGenWeeks
from envs.simulator import Simulation
from envs.simulator.lifecycle import LifecycleFleet
from envs.simulator.policy import RoutingPolicy
from envs.workloads import RequestTable

BIN_S = 900.0
"""Width of the bins of demand, seconds."""
HISTORY_DAYS = 21.0


@dataclass(frozen=True, eq=False)
class ScalingEpisode:
    """An episode at time 0.

    Attributes:
        fleet: The fleet; `fleet.simulation` holds the requests.
        table: The requests.
        demand: Their demand; controllers see what is past.
        duration_s: How long it lasts.
        models: (M,) names of models, in the order of accounts.
    """

    fleet: LifecycleFleet
    table: RequestTable
    demand: Demand
    duration_s: float
    models: tuple[str, ...]


def scaling_of(scenario: Scenario) -> Scaling:
    """What of the scenario can be scaled.

    Raises:
        ValueError: Nothing can.
    """
    if scenario.scaling is None:
        raise ValueError(
            f"the scenario {scenario.name} says nothing of scaling: give it the key scaling, or "
            "take one of the presets scaling-*"
        )
    return scenario.scaling


def duration_of(scenario: Scenario, table: RequestTable) -> float:
    """Seconds of an episode: those of the workload where it says so, else to the last arrival."""
    if isinstance(scenario.workload, O365Week | ServeGenWeeks):
        return scenario.workload.duration_s
    return float(table.arrival_s[-1])


def episode(
    scenario: Scenario,
    seed: int,
    *,
    table: RequestTable | None = None,
    bin_s: float = BIN_S,
    duration_s: float | None = None,
    router: RoutingPolicy | None = None,
) -> ScalingEpisode:
    """Build an episode.

    Args:
        scenario: One with the key `scaling`.
        seed: Seed of requests, delays and evictions.
        table: Requests to serve instead of the workload's.
        bin_s: Width of the bins of demand.
        duration_s: How long it lasts, instead of the workload's length.
        router: A compiled routing rule instead of the scenario's.

    Raises:
        ValueError: The scenario can't be scaled, or see `Scaling.plan`.
    """
    scaling = scaling_of(scenario)
    table = scenario.workload.build(seed) if table is None else table
    length = duration_of(scenario, table) if duration_s is None else duration_s
    engines = scaling.engines(scenario.fleet)
    if any(engine.scheduler.uses_prediction or engine.admission == "reserve" for engine in engines):
        table = scenario.complete(table, seed)
    options: dict[str, Any] = scenario.options(table, seed)
    if options.pop("outages"):
        raise ValueError(
            f"the scenario {scenario.name} has outages: VMs of a fleet that is scaled are taken "
            "away by scaling.evictions"
        )
    for name in ("queue_order", "window", "decision_interval_s"):
        options.pop(name, None)
    simulation = Simulation(
        table,
        engines,
        elastic=True,
        backlog=scaling.backlog(),
        network_s=scaling.network() or None,
        tier_slo_s=scaling.tiers.limits_s(),
        **options,
    )
    plan = scaling.plan(scenario.fleet, seed, length)
    rule = scaling.router() if router is None else router
    fleet = LifecycleFleet(simulation, plan, rule, seed, length)
    models = simulation.models or ("",)
    demand = demand_of(table, models, simulation.regions, length, bin_s, _start_s(scenario))
    return ScalingEpisode(fleet, table, demand, length, models)


def history_of(
    scenario: Scenario,
    seed: int,
    models: tuple[str, ...],
    *,
    days: float = HISTORY_DAYS,
    bin_s: float = BIN_S,
) -> Demand:
    """Demand of the days before an episode of a weekly workload, which the same seed draws.

    Raises:
        ValueError: The workload has no past: it starts at 0, or is no week.
    """
    workload = scenario.workload
    if not isinstance(workload, O365Week | ServeGenWeeks):
        raise ValueError(
            f"the workload {workload.kind!r} has no past to learn from: give a history"
        )
    length = min(days * 86_400.0, workload.start_s)
    if length < bin_s:
        raise ValueError(
            f"the workload of {scenario.name} starts at {workload.start_s:g} s and has no past: "
            "let it start later (start_s), the week repeats"
        )
    past = workload.model_copy(
        update={"start_s": workload.start_s - length, "duration_s": length, "requests": None}
    )
    regions = tuple(scaling_of(scenario).regions)
    return demand_of(past.parts(seed), models, regions, length, bin_s, past.start_s)


def mix_of(table: RequestTable, model: str, most: int = 20_000) -> np.ndarray:
    """(n, 2) prompt and output tokens of the first requests of a model, for measuring capacity.

    Raises:
        ValueError: There are none.
    """
    codes, names = table.model.codes, list(table.model.names)
    code = names.index(model) if model in names else -1
    rows = np.flatnonzero(codes == code) if model else np.arange(len(codes))
    if not len(rows):
        raise ValueError(f"no request is of the model {model!r}")
    rows = rows[:most]
    return np.stack([table.prompt_tokens[rows], table.output_tokens[rows]], axis=1)


def parts_of(scenario: Scenario, seed: int) -> Iterator[RequestTable]:
    """The requests of a weekly workload in parts, in bounded memory."""
    workload = scenario.workload
    if not isinstance(workload, O365Week | ServeGenWeeks):
        yield workload.build(seed)
        return
    yield from workload.parts(seed)


def _start_s(scenario: Scenario) -> float:
    workload = scenario.workload
    return workload.start_s if isinstance(workload, O365Week | ServeGenWeeks) else 0.0
