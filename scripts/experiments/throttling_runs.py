"""Runs of the throttling benchmark: measuring, choosing settings at equal budget, evaluating."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from envs.scenarios import Scenario, seeds
from envs.simulator import Result
from envs.simulator.served import Served
from envs.workloads import RequestTable, unmask
from envs.workloads.tenants import TRACE_RATE
from scripts.experiments.cases import Case, Episode
from scripts.experiments.contenders import Contender
from scripts.experiments.runner import Job, run_jobs
from scripts.experiments.store import Record, Store
from scripts.experiments.tenancy import (
    Limits,
    isolation_ratio,
    tenancy_of,
    timelines,
)
from scripts.experiments.tenancy_metrics import TENANCY

COPILOT_CUT = 100 / 72
"""Cut over length of the arrivals at which FairServe's artifact compares its replay."""
_TTFT_S, _DEADLINE_S = 10.0, 60.0


@dataclass(frozen=True)
class Measurement:
    """What is kept of a run (a `runner.Measure`).

    Attributes:
        cut_s: When runs are looked at, seconds; without it, see `default_cut_s`.
        ttft_s: Seconds to a first token in time; without it, the scenario's objective or 10.
        deadline_s: Seconds to the end of an interaction in time; likewise, or 60.
        benign_rpm: Calls a minute up to which a user is benign.
        isolation: Whether everything is served a second time without the heavy tenants.
        timelines: Whether service over time is kept.
    """

    cut_s: float | None = None
    ttft_s: float | None = None
    deadline_s: float | None = None
    benign_rpm: int = 10
    isolation: bool = False
    timelines: bool = False

    def limits(self, scenario: Scenario, table: RequestTable) -> Limits:
        """What runs of an episode are judged by.

        Raises:
            ValueError: The cut comes before a first token can be late.
        """
        slo = scenario.slo
        cut_s = self.cut_s or default_cut_s(scenario, table)
        ttft_s = self.ttft_s or slo.ttft_s or _TTFT_S
        if ttft_s >= cut_s:
            raise ValueError(
                f"{scenario.name}: the cut at {cut_s:g} s leaves no time to see whether first "
                f"tokens come within {ttft_s:g} s: give a later --cut-s, a smaller --slo-ttft, or "
                "more --requests"
            )
        deadline_s = self.deadline_s or slo.e2e_s or _DEADLINE_S
        return Limits(cut_s, ttft_s, deadline_s, self.benign_rpm)

    def __call__(
        self, contender: Contender, episode: Episode, result: Result, wall_s: float
    ) -> Record:
        """The metrics of a finished run."""
        limits = self.limits(episode.scenario, episode.table)
        told, attackers = _unmasked(episode, result)
        summary = tenancy_of(told, limits)
        for name, mine in (("attacker_calls", True), ("other_calls", False)):
            summary[name] = _finished(told, attackers, mine, limits) if attackers else math.nan
        summary["isolation_ratio"] = math.nan
        if self.isolation:
            summary["isolation_ratio"] = isolation_ratio(
                episode.table, result, lambda few: contender.run(_of_tenants(episode, few)), limits
            )
        curves = timelines(told, limits.cut_s) if self.timelines else {}
        summary |= {"wall_s": wall_s, "cut_s": limits.cut_s}
        return Record(episode.scenario.name, episode.seed, contender.label, summary, curves)

    def plain(self) -> Measurement:
        """The same without what only reports need."""
        return replace(self, isolation=False, timelines=False)

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        return dict(vars(self))


class Entrant(Contender, Protocol):
    """What takes part: a discipline of the ladder, or anything else that can serve an episode."""

    def candidates(self, most: int) -> Sequence[Contender]:
        """Up to so many settings to choose from; itself alone where there is no choice."""


@dataclass(frozen=True)
class Trial:
    """A setting that was tried for a discipline.

    Attributes:
        scenario: Name of the scenario.
        name: The discipline.
        setting: Label of the setting.
        score: Its mean over the seeds; NaN where nothing was run, as there was no choice.
        seeds: Tuning seeds on which it ran.
        chosen: Whether it is the best.
    """

    scenario: str
    name: str
    setting: str
    score: float
    seeds: int
    chosen: bool


def _unmasked(episode: Episode, result: Result) -> tuple[Result, tuple[str, ...]]:
    """The result by who and what every call really is, and the names of attackers."""
    adversary = episode.scenario.adversary
    if adversary is None:
        return result, ()
    honest = episode.scenario.honest_twin().requests(episode.seed)
    table = unmask(result.table, honest)
    return replace(result, table=table), adversary.attackers(honest)


def _finished(result: Result, attackers: tuple[str, ...], mine: bool, limits: Limits) -> float:
    """Calls of the attackers, or of all others, that had finished by the cut."""
    rows = Served.of(result)
    names = [name in attackers for name in result.table.tenant.names]
    return float((rows.done(limits.cut_s) & (np.array(names)[rows.tenant] == mine)).sum())


def default_cut_s(scenario: Scenario, table: RequestTable) -> float:
    """When runs are looked at: the end of the arrivals.

    In whole seconds; for copilot workloads 100/72 of their length, which is the 100 s of the
    published replay.
    """
    workload = scenario.workload
    if workload.kind == "copilot":
        seconds = workload.duration_s or max(1, round(workload.requests / TRACE_RATE))
        return round(seconds * COPILOT_CUT, 3)
    end_s = float(math.ceil(float(np.max(table.arrival_s, initial=1.0))))
    return min(end_s, getattr(workload, "duration_s", None) or end_s)


def tune(
    store: Store,
    cases: Sequence[Case],
    contenders: Sequence[Entrant],
    runs: int,
    measure: Measurement,
    workers: int = 1,
) -> tuple[dict[tuple[str, str], Contender], list[Trial], int]:
    """Choose the setting of every discipline on every scenario, all with as many runs.

    A discipline of k settings runs each on the first runs // k tuning seeds (`validation` of
    `envs.scenarios.seeds`); the best mean score wins, the earlier in the grid at a tie. Contenders
    that were named with parameters, or have none, or any at all with 0 runs, stay as they are.

    Args:
        store: Where finished runs are kept.
        cases: The scenarios.
        contenders: The disciplines.
        runs: Simulated runs for each of them; grids of more settings are thinned.
        measure: What is measured.
        workers: Processes.

    Returns:
        The chosen contender by (scenario, label as given); all trials; runs that were reused.
    """
    choices = {contender.label: contender.candidates(runs) for contender in contenders}
    jobs = [
        Job(case, seed, tuple(some))
        for case in cases
        for some in choices.values()
        if len(some) > 1
        for seed in seeds("validation", max(1, runs // len(some)))
    ]
    # Jobs of one scenario and seed become one, so that its requests are drawn once.
    records, reused = run_jobs(store, _merged(jobs), workers, measure, "tuned")
    scores: dict[tuple[str, str], list[float]] = {}
    for record in records:
        scores.setdefault((record.scenario, record.router), []).append(record.summary["score"])
    chosen: dict[tuple[str, str], Contender] = {}
    trials: list[Trial] = []
    for case in cases:
        for name, some in choices.items():
            of = [scores.get((case.name, each.label), [math.nan]) for each in some]
            means = [float(np.mean(values)) for values in of]
            best = int(np.argmax(means))
            chosen[case.name, name] = some[best]
            for place, each in enumerate(some):
                count = len(of[place]) if len(some) > 1 else 0
                about = (case.name, name, each.label, means[place], count, place == best)
                trials.append(Trial(*about))
    return chosen, trials, reused


def evaluate(
    store: Store,
    cases: Sequence[Case],
    names: Sequence[str],
    chosen: Mapping[tuple[str, str], Contender],
    episodes: Sequence[int],
    measure: Measurement,
    workers: int = 1,
) -> tuple[list[Record], int]:
    """Run the chosen settings on the evaluation seeds.

    Returns:
        One record a scenario, seed and discipline, named after the discipline; and how many runs
        were reused.
    """
    jobs = [
        Job(case, seed, tuple(dict.fromkeys(chosen[case.name, name] for name in names)))
        for case in cases
        for seed in episodes
    ]
    records, reused = run_jobs(store, jobs, workers, measure, "simulated")
    at = {(r.scenario, r.seed, r.router): r for r in records}
    return [
        replace(at[case.name, seed, chosen[case.name, name].label], router=name)
        for case in cases
        for seed in episodes
        for name in names
    ], reused


def trial_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row a setting that was tried."""
    columns = list(Trial.__dataclass_fields__)
    return pd.DataFrame([vars(trial) for trial in trials], columns=columns)


def comparable(records: Sequence[Record]) -> list[str]:
    """The metrics to estimate: all, but for the isolation ratio where it was not measured."""
    measured = any(math.isfinite(r.summary["isolation_ratio"]) for r in records)
    return [key for key in TENANCY if measured or key != "isolation_ratio"]


def _merged(jobs: Sequence[Job]) -> list[Job]:
    merged: dict[tuple[str, int], Job] = {}
    for job in jobs:
        key = (job.case.name, job.seed)
        more = merged[key].contenders if key in merged else ()
        merged[key] = replace(job, contenders=tuple(dict.fromkeys((*more, *job.contenders))))
    return list(merged.values())


def _of_tenants(episode: Episode, table: RequestTable) -> Episode:
    """The episode with fewer tenants: the weights of those who are gone go, too."""
    clients = episode.scenario.clients
    weights = {k: v for k, v in clients.weights.items() if k in table.tenant.names}
    fewer = episode.scenario.model_copy(
        update={"clients": clients.model_copy(update={"weights": weights})}
    )
    return replace(episode, scenario=fewer, table=table)
