"""What a policy of the reference simulator sees, and the options of its fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.reference.elastic import ElasticOptions


@dataclass(frozen=True)
class Look:
    """The instances at one moment; the lists have one entry per instance."""

    running: list[list[tuple[int, int]]]  # (request index, generated) in service, as admitted
    waiting: list[list[tuple[int, int]]]  # the same of those that wait
    kv_tokens: list[int]  # sum of p + g in service
    waiting_tokens: list[int]  # sum of p + g waiting
    predicted_remaining: list[int]  # sum of it, in service and waiting


@dataclass(frozen=True)
class ReferenceView(Look):
    """What the policy sees at a decision."""

    now_ps: int
    candidates: list[int]  # (window,) request indices in queue order, -1 = empty position


Policy = Callable[[ReferenceView], int]


@dataclass(frozen=True)
class FleetOptions:
    """How the router works, and what happens to the fleet."""

    queue_order: str
    interval_ps: int
    window: int
    rate_limit: Any
    outages: Sequence[tuple[int, int, int]]  # instance, from and to in ps
    poll_ps: int
    gate: Any = None
    retry: Any = None
    elastic: ElasticOptions = field(default_factory=ElasticOptions)
