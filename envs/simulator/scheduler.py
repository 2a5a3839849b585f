"""Schedulers: the order of a waiting queue, as functions that are written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numba import from_dtype, types

from envs.simulator.address import address_or_none, caller
from envs.simulator.layout import (
    ADMIT,
    ARRIVE,
    BY_TENANT,
    FINISH,
    KEYED,
    LIFT_LAST,
    LIFT_NONE,
    LIFT_QUEUED,
    LISTED,
    PS_PER_S,
    REQUEST_DTYPE,
    SCANNED,
    SCHEDULER_DTYPE,
    TENANT_DTYPE,
    TOKENS,
    TRAITS_DTYPE,
)
from envs.simulator.parameters import Range, check, replaced
from envs.simulator.prediction import predicted_remaining

__all__ = ["ADMIT", "ARRIVE", "FINISH", "SCHEDULERS", "TOKENS", "Scheduler", "scheduler"]

_ROWS = tuple(
    from_dtype(dtype) for dtype in (REQUEST_DTYPE, TRAITS_DTYPE, TENANT_DTYPE, SCHEDULER_DTYPE)
)
RANK_SIGNATURE = types.int64(types.int64, *_ROWS)
CHARGE_SIGNATURE = types.int64(types.int64, types.int64, types.int64, *_ROWS)

_KINDS = {"static": KEYED, "dynamic": SCANNED, "tenant": BY_TENANT}
_LIFTS = {"none": LIFT_NONE, "queued": LIFT_QUEUED, "last": LIFT_LAST}
MOST_PARAMETERS = 8
MILLION = 1_000_000
"""Counters are in millionths of a unit of cost, whatever a scheduler takes for one."""


call_rank = caller(RANK_SIGNATURE)
call_charge = caller(CHARGE_SIGNATURE)


@dataclass(frozen=True)
class Scheduler:
    """The order of a waiting queue (docs/simulator.md, "Waiting queue" and "Tenant counters").

    Attributes:
        name: Name in fleets, on the command line and in tables.
        rank: `rank(now_ps, request, traits, tenant, scheduler)`; the smallest integer is served
            first. None is first come first served. The arguments are records: `request`
            (arrival_ps, prompt, predicted, generated, preemptions, tier), `traits` (deadline_ps,
            priority, tenant, application, interaction, call_index, later, prefix, prefix_tokens,
            system, weight, typical_prompt, typical_output, interaction_cost, prepaid, tag),
            `tenant` (counter, queued, running, open, weight, estimate, seen), `scheduler`
            (p0 .. p7, m0 .. m5, now_ps, interactions, surveyed).
        kind: `static`: the rank is taken once, at entry. `dynamic`: at each look, of all that
            wait. `tenant`: at each look, of the first request of each tenant.
        charge: `charge(event, start, end, request, traits, tenant, scheduler)`: what an event
            (ARRIVE, ADMIT, TOKENS, FINISH) adds to the counter of the tenant. TOKENS must be
            additive over ranges, and may read nothing that changes but the request's traits.
            `traits.prepaid`, `tenant.estimate`, `tenant.seen` and `scheduler.m0` .. `m5` are its
            own to write, and `traits.tag`, which the later calls of an interaction inherit.
        survey: A function like `rank`, called before it of all that a look compares, whose
            result is not used: for ranks that depend on the others. `scheduler.surveyed` counts
            those before. Only for `dynamic` and `tenant`.
        lift: How the counter of a tenant that comes back is raised (VTC, Alg. 2).
        overcharge: The VTC artifact's extra token when any request finishes.
        parameters: Values of `p0`, `p1`, ...
        parameter_names: Their names.
        ranges: What they can be, in the same order; without one, any finite number.
        uses_prediction: Whether it reads predicted output lengths.
        source: Where it comes from.

    Raises:
        ValueError: An option is unknown, there are more than 8 parameters, or one is out of its
            range.
    """

    name: str
    rank: Callable[..., int] | None
    kind: Literal["static", "dynamic", "tenant"] = "static"
    charge: Callable[..., int] | None = None
    lift: Literal["none", "queued", "last"] = "none"
    overcharge: bool = False
    survey: Callable[..., int] | None = None
    parameters: tuple[float, ...] = ()
    parameter_names: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    uses_prediction: bool = False
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS or self.lift not in _LIFTS:
            raise ValueError(
                f"kind is one of {', '.join(_KINDS)} and lift one of {', '.join(_LIFTS)}, not "
                f"{self.kind!r} and {self.lift!r}"
            )
        if self.survey is not None and self.kind == "static":
            raise ValueError("a static order has no survey: its ranks are taken one by one")
        check(self, MOST_PARAMETERS)

    @property
    def queue_kind(self) -> int:
        """How the kernel keeps its queue."""
        return LISTED if self.rank is None else _KINDS[self.kind]

    def with_parameters(self, **values: float) -> Scheduler:
        """Return the scheduler with some parameters replaced.

        Raises:
            ValueError: A name is unknown; the message lists those that exist. Or a value is out
                of its range.
        """
        return replace(self, parameters=replaced(self, values))

    def bind(self, row: np.void) -> None:
        """Write the addresses that the kernel calls, which hold for this process alone."""
        row["rank_at"] = address_or_none(self.rank, RANK_SIGNATURE)
        row["charge_at"] = address_or_none(self.charge, CHARGE_SIGNATURE)
        row["survey_at"] = address_or_none(self.survey, RANK_SIGNATURE)

    def write(self, row: np.void) -> None:
        """Write the options that the kernel reads."""
        row["lift"] = _LIFTS[self.lift]
        row["overcharge"] = int(self.overcharge)
        for k, value in enumerate(self.parameters):
            row[f"p{k}"] = value


def _predicted(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(request.predicted)


def _remaining(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(predicted_remaining(request, request.generated))


def _deadline(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(traits.deadline_ps)


def _tier(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(request.tier)


def _priority(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(-traits.priority)


_CLASS_PS = 2**60


def _deadline_and_priority(
    now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any
) -> int:
    # A class takes 2^60 ps of the rank, so that slacks beyond 6.7 days are all alike.
    slack = traits.deadline_ps - now_ps
    within = min(max(slack, -_CLASS_PS // 2), _CLASS_PS // 2 - 1) + _CLASS_PS // 2
    if slack < -scheduler.p0:
        place = 0
    elif slack < 0:
        place = 7
    elif slack < scheduler.p1:
        place = 1 + request.tier
    else:
        place = 4 + request.tier
    return int((place - 4) * _CLASS_PS + within)


SCHEDULERS: dict[str, Scheduler] = {
    order.name: order
    for order in (
        Scheduler("fcfs", None, source="first come first served"),
        Scheduler(
            "sjf", _predicted, uses_prediction=True, source="shortest predicted output first"
        ),
        Scheduler(
            "srpt", _remaining, uses_prediction=True, source="shortest predicted remaining first"
        ),
        Scheduler("edf", _deadline, source="earliest deadline first (SageServe, par. 6)"),
        Scheduler("pf", _tier, source="IW-F before IW-N before NIW (SageServe, par. 6)"),
        Scheduler("priority", _priority, source="largest priority first"),
        Scheduler(
            "dpa",
            _deadline_and_priority,
            kind="dynamic",
            parameters=(60.0 * PS_PER_S, 5.0 * PS_PER_S),
            parameter_names=("expiry_ps", "urgency_ps"),
            ranges=(Range(0.0), Range(0.0)),
            source="deadline and priority aware (SageServe, par. 6; thresholds not published)",
        ),
    )
}


def scheduler(name_or_scheduler: str | Scheduler) -> Scheduler:
    """The scheduler of that name, or the one given.

    Raises:
        ValueError: There is none of that name; the message lists those that exist.
    """
    if isinstance(name_or_scheduler, Scheduler):
        return name_or_scheduler
    if name_or_scheduler not in SCHEDULERS:
        known = ", ".join(SCHEDULERS)
        raise ValueError(f"queue must be one of {known}, not {name_or_scheduler!r}")
    return SCHEDULERS[name_or_scheduler]
