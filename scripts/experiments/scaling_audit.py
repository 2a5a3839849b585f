"""The runs that show what of SageServe's claims survives its simulator's flaws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from envs.scenarios import Scenario, load_scenario
from envs.scenarios.fleet import EngineGroup
from scripts.experiments.cases import Case
from scripts.experiments.runner import Job, run_jobs
from scripts.experiments.scaling_flaws import AS_PUBLISHED, AS_RELEASED, FIXED, Flaws
from scripts.experiments.scaling_runs import (
    FORECASTER,
    QUEUES,
    REFERENCE,
    Queue,
    Scaler,
    measure,
    prepare,
)
from scripts.experiments.store import Record, Store

SCENARIO = "scaling-corrected"
MODEL = "Llama-2-70B"
"""Model A of the paper, on which its figures are."""
PLANNED = ("lt_i", "lt_u", "lt_ua")
LADDER = (REFERENCE, *PLANNED)
SWEEP = tuple(range(2, 11))
"""Ratios above which LT-UA goes beyond its plan, as the authors swept them."""
BURST_COPIES = 8

STEPS: Mapping[str, tuple[str, ...]] = {
    "(a) equal starts": ("unequal_starts",),
    "(b) causal forecast": ("leaky_forecast",),
    "(c) cold starts": ("no_cold_start", "free_draining"),
    "(d) NIW causal and served": ("early_niw", "niw_unserved", "inverted_niw"),
    "(e) units and grouped heads": ("wrong_units", "ungrouped_heads"),
    "(f) hours and waste measured": ("guessed_waste", "bucket_maxima"),
}
"""What section 10 of the notes turns off one after the other, and the measures after that."""


@dataclass(frozen=True)
class Variant:
    """The flaws of some runs.

    Attributes:
        name: In tables.
        flaws: What is wrong.
        kind: `form`, `alone` (one flaw turned off) or `step` (all up to here turned off).
        queue: Order of the queues of instances, instead of first come, first served.
    """

    name: str
    flaws: Flaws
    kind: str = "form"
    queue: Queue | None = None

    def scaler(
        self, name: str, forecaster: str = FORECASTER, *, queue: Queue | None = None, **given: Any
    ) -> Scaler:
        """A strategy with these flaws."""
        own = queue or self.queue
        return Scaler(name, tuple(given.items()), forecaster, own, self.flaws, self.name)

    def label(self, name: str, **given: Any) -> str:
        """Name of a strategy's runs."""
        return self.scaler(name, **given).label


RELEASED = Variant("as released", AS_RELEASED)
PUBLISHED = Variant("as published", AS_PUBLISHED, queue="dpa")
CORRECTED = Variant("corrected", FIXED)


def variants(alone: bool = True) -> list[Variant]:
    """All of them: as released, step by step, as published and corrected, each flaw alone.

    Args:
        alone: With one for each flaw that is turned off alone.
    """
    found, flaws = [RELEASED], AS_RELEASED
    for name, off in STEPS.items():
        flaws = flaws.without(*off)
        found.append(Variant(name, flaws, "step"))
    found += [PUBLISHED, CORRECTED]
    # Last, so that what is run for the others does not depend on whether these are.
    for one in fields(Flaws) if alone else ():
        found.append(Variant(f"without {one.name}", AS_RELEASED.without(one.name), "alone"))
    return found


def audit_case(scale: float = 1.0, days: float | None = None, burst: bool = False) -> Case:
    """The corrected Tuesday, with a fleet to match its scale.

    Args:
        scale: Factor on requests, places, starts, floors and quotas.
        days: Its length, if not one.
        burst: With nine times the requests in the first minute of every hour.
    """
    workload: dict[str, Any] = {"scale": scale, "burst_copies": BURST_COPIES if burst else 0}
    if days is not None:
        workload["duration_s"] = 86_400.0 * days
    scenario = load_scenario(SCENARIO, {"workload": workload})
    name = f"tuesday{'-burst' if burst else ''}"
    return Case(_scaled(scenario, scale).model_copy(update={"name": name}))


def _scaled(scenario: Scenario, scale: float) -> Scenario:
    if scale >= 1.0 or scenario.scaling is None:
        return scenario

    def some(count: int, least: int = 1) -> int:
        return max(least, round(scale * count))

    def smaller(group: EngineGroup) -> EngineGroup:
        return group.model_copy(update={"count": some(group.count, 4)})

    groups = {key: smaller(group) for key, group in scenario.fleet.groups.items()}
    held = sum(8 * group.count for group in groups.values())
    terms = scenario.scaling
    quota = {key: one.model_copy(update={"quota": held // 2}) for key, one in terms.regions.items()}
    changes = {"start": some(8), "floor": some(2), "regions": quota}
    return scenario.model_copy(
        update={
            "fleet": scenario.fleet.model_copy(update={"groups": groups}),
            "scaling": terms.model_copy(update=changes),
        }
    )


def scalers(forecaster: str = FORECASTER, alone: bool = True) -> list[Scaler]:
    """Everything that is run on the Tuesday."""
    found = []
    for variant in variants(alone):
        more = ("siloed", "chiron") if variant.kind == "form" else ()
        found += [variant.scaler(name, forecaster) for name in (*LADDER, *more)]
    found += [RELEASED.scaler("lt_ua", forecaster, over=over) for over in SWEEP]
    found += [PUBLISHED.scaler("lt_u", forecaster, queue=queue) for queue in QUEUES]
    return list(dict.fromkeys(found))


def burst_scalers(forecaster: str = FORECASTER) -> list[Scaler]:
    """What is run on the Tuesday with bursts."""
    forms = (RELEASED, PUBLISHED, CORRECTED)
    return [form.scaler(name, forecaster) for form in forms for name in LADDER]


def run_audit(
    store: Store,
    cases: Sequence[tuple[Case, Sequence[Scaler]]],
    seeds: Sequence[int],
    workers: int,
) -> tuple[list[Record], int]:
    """Run everything once: what flaws do not touch is the same run, and is shared.

    Returns:
        A record for each case, seed and scaler, named by its label; and how many runs were in the
        store already.
    """
    jobs, owner = [], dict[tuple[str, str], str]()
    for case, some in cases:
        first: dict[str, Scaler] = {}
        for scaler in some:
            same = first.setdefault(_key(case.scenario, scaler), scaler)
            owner[case.name, scaler.label] = same.label
        jobs += [Job(case, seed, tuple(first.values())) for seed in seeds]
    records, reused = run_jobs(store, jobs, workers, measure, "audited", prepare)
    at = {(r.scenario, r.seed, r.router): r for r in records}
    return [
        replace(at[case.name, seed, owner[case.name, scaler.label]], router=scaler.label)
        for case, some in cases
        for seed in seeds
        for scaler in some
    ], reused


def _key(scenario: Scenario, scaler: Scaler) -> str:
    """What a run of it depends on."""
    flaws = scaler.flaws or FIXED
    about = scaler.identity() | {"flaws": None}
    seen = scaler.name in LADDER or scaler.name == "siloed"
    more = [
        flaws.divided(flaws.scenario(scenario, scaler.name), scaler.name).model_dump(
            mode="json", exclude={"name"}
        ),
        flaws.early_niw,
        flaws.arrivals_only and seen,
        flaws.bin_s if scaler.plans or scaler.name == "chiron" else None,
    ]
    return json.dumps([about, more], sort_keys=True, default=str)


Told = Callable[[Record, Flaws], float]


def hours(record: Record, flaws: Flaws) -> float:
    """Instance-hours of model A as the flaws let one count them."""
    own = "released_instance_hours" if flaws.bucket_maxima else "instance_hours"
    return record.summary[f"{MODEL}/{own}"]


def waste(record: Record, flaws: Flaws) -> float:
    """Scaling waste of models A and B, likewise."""
    own = "released_waste_hours" if flaws.guessed_waste else "waste_hours"
    return sum(record.summary[f"{model}/{own}"] for model in (MODEL, "Bloom-176B"))


def ttft_p90(record: Record, flaws: Flaws) -> float:
    """90th percentile of TTFT of interactive requests of model A, seconds."""
    return record.summary[f"{MODEL}/ttft_p90_s"]


def all_hours(record: Record, flaws: Flaws) -> float:
    """Instance-hours of all models."""
    return record.summary["released_instance_hours" if flaws.bucket_maxima else "instance_hours"]
