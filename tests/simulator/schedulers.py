"""Schedulers that the random cases use: plain functions, compiled by the kernel as they stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ARRIVE, ADMIT, TOKENS, FINISH = 0, 1, 2, 3
NAMED = ("fcfs", "sjf", "srpt", "edf", "pf", "priority", "dpa")

Rank = Callable[[int, Any, Any, Any, Any], int]
Charge = Callable[[int, int, int, Any, Any, Any, Any], int]


def least_counter(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return tenant.counter


def least_weighted_counter(
    now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    return int(tenant.counter / tenant.weight)


def longest_line(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return 3 * tenant.seen - tenant.queued


def age(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return (request.arrival_ps - now_ps) * (1 + traits.priority)


def estimated(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    left = max(tenant.estimate, request.predicted) - request.generated
    return left - int(scheduler.p0) * request.preemptions + request.tier


def tag(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return tenant.counter + request.prompt


def charge_tokens(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    if event == ADMIT:
        return request.prompt
    if event == TOKENS:
        return 2 * (end - start)
    return 0


def charge_arrival(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    if event == ARRIVE:
        return request.prompt + request.predicted
    return 0


def charge_prepaid(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    if event == ADMIT:
        traits.prepaid = request.predicted
        return request.prompt + 2 * traits.prepaid
    if event == TOKENS:
        return 2 * (max(end, traits.prepaid) - max(start, traits.prepaid))
    if event == FINISH:
        tenant.estimate = request.generated
        tenant.seen += 1
        return 2 * min(0, request.generated - traits.prepaid)
    return 0


def charge_quadratic(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    if event == ARRIVE:
        return 1
    if event == ADMIT:
        return int(scheduler.p0) * request.prompt
    if event == TOKENS:
        return int(traits.weight) * (end * end - start * start)
    tenant.estimate = (tenant.estimate + request.generated) // 2
    tenant.seen += 1
    return tenant.estimate


def open_first(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return tenant.counter - tenant.running - (10_000 if tenant.open > 0 else 0)


def inherited(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return traits.tag + traits.later


def survey_counters(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    if scheduler.surveyed == 0:
        scheduler.m0 = tenant.counter
        scheduler.m1 = 0.0
    scheduler.m0 = min(scheduler.m0, tenant.counter)
    scheduler.m1 += request.prompt
    return 0


def balanced(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int((tenant.counter - scheduler.m0) * 3 - request.prompt * 100 / scheduler.m1)


def charge_tagged(
    event: int, start: int, end: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    if event == TOKENS:
        return 0
    scheduler.m2 += int(scheduler.now_ps - scheduler.m3) // (1 + scheduler.interactions)
    scheduler.m3 = scheduler.now_ps
    if event == ARRIVE and traits.tag == 0:
        traits.tag = 1 + int(scheduler.m2) + request.prompt * 100
    return scheduler.interactions


RANKS: dict[str, tuple[Rank, str]] = {
    "least_counter": (least_counter, "tenant"),
    "least_weighted_counter": (least_weighted_counter, "tenant"),
    "longest_line": (longest_line, "tenant"),
    "any_least_counter": (least_counter, "dynamic"),
    "age": (age, "dynamic"),
    "estimated": (estimated, "dynamic"),
    "tag": (tag, "static"),
    "open_first": (open_first, "tenant"),
    "inherited": (inherited, "static"),
    "balanced": (balanced, "tenant"),
    "any_balanced": (balanced, "dynamic"),
}
SURVEYS: dict[str, Rank] = {"balanced": survey_counters, "any_balanced": survey_counters}
CHARGES: dict[str, Charge] = {
    "tokens": charge_tokens,
    "arrival": charge_arrival,
    "prepaid": charge_prepaid,
    "quadratic": charge_quadratic,
    "tagged": charge_tagged,
}


@dataclass(frozen=True)
class Order:
    """A scheduler by names: of its rank (named orders too) and of its charge, "" for none."""

    name: str
    charges: str = ""
    lift: str = "none"
    overcharge: bool = False
    parameters: tuple[float, ...] = ()

    @property
    def rank(self) -> Rank:
        """The function of a rank of this module."""
        return RANKS[self.name][0]

    @property
    def kind(self) -> str:
        """Its kind."""
        return RANKS[self.name][1]

    @property
    def survey(self) -> Rank | None:
        """The function that is shown all that a look compares, None without."""
        return SURVEYS.get(self.name)

    @property
    def charge(self) -> Charge | None:
        """The function that charges, None without."""
        return CHARGES.get(self.charges)

    def scheduler(self) -> Any:
        """Give the same as the kernel takes it."""
        from envs.simulator import Scheduler
        from envs.simulator.scheduler import SCHEDULERS

        options: dict[str, Any] = {
            "charge": self.charge,
            "lift": self.lift,
            "overcharge": self.overcharge,
            "survey": self.survey,
        }
        if self.parameters:
            options["parameters"] = self.parameters
            options["parameter_names"] = tuple(f"p{k}" for k in range(len(self.parameters)))
        if self.name in NAMED:
            return dataclasses.replace(SCHEDULERS[self.name], **options)
        return Scheduler(name=self.name, rank=self.rank, kind=self.kind, **options)
