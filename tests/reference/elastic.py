"""Backlogs, and what a caller changes of the fleet (docs/simulator.md, "Elastic fleets")."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.reference.instance import ReferenceInstance
from tests.reference.request import ReferenceRequest, Requests, total_tokens

LAST_TIER, MIDDLE_TIER = 2, 1

Pool = tuple[str, str]  # model and region


@dataclass(frozen=True)
class ElasticOptions:
    """What makes a fleet elastic; the defaults leave everything as it is."""

    network_ps: dict[tuple[str, str], int] = field(default_factory=dict)  # from, to: one way
    backlog: Any = None  # low, middle, at_low, at_middle, promote_ps
    changes: Sequence[tuple[int, str, int, int]] = ()  # time in ps, kind, instance, pattern


class Backlogs:
    """Requests of the last tier that wait for room at the instances of their pool."""

    def __init__(self, rules: Any, engines: Sequence[Any]) -> None:
        """Take what is like `envs.simulator.config.Backlog`, or None, and the fleet."""
        self.rules = rules
        models = [engine.model for engine in engines if engine.model]
        self.first_model = models[0] if models else ""
        self.requests: Requests = []

    def holds(self, request: ReferenceRequest) -> bool:
        """Whether a request that arrives has to wait."""
        return self.rules is not None and request.tier == LAST_TIER

    def pool(self, request: ReferenceRequest) -> Pool:
        """Its model and region; one without a model is of the first model.

        Where no instance has a model, models are not told apart.
        """
        if self.first_model == "":
            return "", request.region
        return request.model or self.first_model, request.region

    def signal(self, instances: Sequence[ReferenceInstance], served_by: Requests) -> Requests:
        """Release what the finishes of an instant signal room for; they name their instance."""
        released: Requests = []
        for pool in self._pools():
            members = [i for i, other in enumerate(instances) if _belongs(other, pool)]
            times = len([request for request in served_by if request.instance in members])
            released += self._release(pool, times, instances)
        return released

    def pull(self, instances: Sequence[ReferenceInstance], now: int) -> Requests:
        """Release what is old, then what one signal of each pool does."""
        released: Requests = []
        if self.rules is not None:
            for request in list(self.requests):
                if now - request.arrival_ps >= self.rules.promote_ps:
                    request.tier = MIDDLE_TIER
                    self.requests.remove(request)
                    released.append(request)
        for pool in self._pools():
            released += self._release(pool, 1, instances)
        return released

    def release_all(self) -> Requests:
        """Release everything."""
        released, self.requests = self.requests, []
        return released

    def _pools(self) -> list[Pool]:
        return list(dict.fromkeys(self.pool(request) for request in self.requests))

    def _release(self, pool: Pool, times: int, instances: Sequence[ReferenceInstance]) -> Requests:
        share = self._share(pool, instances)
        each = 0
        if share < self.rules.low:
            each = self.rules.at_low
        elif share < self.rules.middle:
            each = self.rules.at_middle
        waiting = [request for request in self.requests if self.pool(request) == pool]
        released = waiting[: times * each]
        self.requests = [request for request in self.requests if request not in released]
        return released

    def _share(self, pool: Pool, instances: Sequence[ReferenceInstance]) -> float:
        """KV in use over capacity, of the instances that take requests; 1 where none does."""
        taking = [i for i in instances if i.takes and _belongs(i, pool)]
        taking = [i for i in taking if getattr(i.engine, "lane", "any") != "interactive"]
        if not taking:
            return 1.0
        used = sum(total_tokens(instance.in_service) for instance in taking)
        return used / sum(instance.capacity for instance in taking)


def _belongs(instance: ReferenceInstance, pool: Pool) -> bool:
    """An instance that serves any model belongs to the pools of all."""
    model, region = pool
    return instance.engine.model in ("", model) and instance.engine.region == region


def allowed(
    instance: ReferenceInstance, kind: str, engines: Sequence[Any], i: int, pattern: int
) -> bool:
    """Whether instance i may be changed like that now; what may not is left out."""
    if kind == "off":
        return not instance.requests
    if kind == "convert":
        same = engines[pattern].queue == engines[i].queue
        return same and not instance.up and not instance.requests
    return True


def change(
    instance: ReferenceInstance, kind: str, engines: Sequence[Any], i: int, pattern: int
) -> Requests:
    """Change instance i; gives the requests that it loses."""
    if kind == "convert":
        instance.become(dataclasses.replace(engines[pattern], region=engines[i].region))
        return []
    instance.up = kind in ("ready", "draining")
    instance.draining = kind == "draining"
    if kind == "fail":
        return instance.fail()
    if kind == "off":
        instance.begin_empty()
    return []
