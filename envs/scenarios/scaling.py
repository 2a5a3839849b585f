"""What of a scenario can be scaled: regions, prices, places for instances, delays and tiers.

The groups of the scenario's fleet say what an instance can be; each region has `count` places of
every group. Groups that serve the same model on several kinds of GPU make a heterogeneous fleet.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from envs.scenarios.strict import Strict

if TYPE_CHECKING:
    from envs.scenarios.fleet import Fleet
    from envs.simulator.config import Backlog, EngineConfig
    from envs.simulator.lifecycle import Eviction, LifecyclePlan, Role
    from envs.simulator.policy import RoutingPolicy

Price = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=100_000)]
_EVICTIONS = 5  # stream of a seed, beside those of predictions, failures and models
MOST_EVICTIONS = 100_000
"""Evictions that may be expected of an episode; more is a slip of the pen."""


class RegionTerms(Strict):
    """Prices and limits of a region."""

    quota: int | None = Field(default=None, ge=0)
    """GPUs that may be held, donated ones and those on their way included; without it, all that
    there are places for."""
    price: Price | None = None
    """Dollars an hour of a GPU; without it, what the groups of the fleet cost."""
    spot_price: Price = 0.0
    """Dollars an hour that a GPU earns while it is donated to the spot market."""
    donated_price: Price | None = None
    """Dollars an hour that a donated GPU still costs: 0 where the fleet is owned or the provider's
    own; without it, what it earns, so that nobody gains by acquiring GPUs only to donate them."""


class DelayTerms(Strict):
    """Seconds that changes take; see `envs.simulator.lifecycle.Delays`."""

    provision_s: float = Field(default=300.0, ge=0, le=1e6)
    """Median from asking for a VM until it is there."""
    load_local_s: float = Field(default=600.0, ge=0, le=1e6)
    """Median to load weights that lie in the region."""
    load_remote_s: float = Field(default=7_200.0, ge=0, le=1e6)
    """Median to load weights from elsewhere."""
    reclaim_s: float = Field(default=60.0, ge=0, le=1e6)
    """Median until a donated VM is free again."""
    repair_s: float = Field(default=3_600.0, ge=0, le=1e6)
    """Median until the place of a VM that was lost can be used again."""
    sigma: float = Field(default=0.2, ge=0, le=3)
    """Log-standard deviation of them all."""


class BacklogTerms(Strict):
    """When requests of tier NIW are released; see `envs.simulator.config.Backlog`."""

    wait: bool = True
    """Whether they wait for room at all; else they are routed on arrival."""
    low: float = Field(default=0.5, ge=0)
    """Share of KV in use below which `at_low` are released at a signal."""
    middle: float = Field(default=0.6, ge=0)
    """Share below which `at_middle` are."""
    at_low: int = Field(default=2, ge=0, le=2**20)
    """Requests released below `low`."""
    at_middle: int = Field(default=1, ge=0, le=2**20)
    """Requests released below `middle`."""
    promote_s: float = Field(default=36_000.0, ge=0)
    """Age in seconds at which one is released whatever the use, and counts as IW-N."""


class TierTerms(Strict):
    """Seconds within which each tier must be served."""

    iw_f_ttft_s: float = Field(default=1.0, gt=0)
    """To the first token, of IW-F."""
    iw_n_ttft_s: float = Field(default=60.0, gt=0)
    """To the first token, of IW-N."""
    niw_e2e_s: float = Field(default=86_400.0, gt=0)
    """To the last token, of NIW."""

    def limits_s(self) -> tuple[float, float, float]:
        """By tier, IW-F, IW-N, NIW."""
        return self.iw_f_ttft_s, self.iw_n_ttft_s, self.niw_e2e_s


class EvictionTerms(Strict):
    """VMs that are taken away by chance."""

    mean_time_between_s: float = Field(gt=0)
    """Mean seconds between the evictions of a place."""
    notice_s: float = Field(default=30.0, ge=0, le=1e6)
    """Seconds from the notice until the VM is gone; 0 is a failure."""


class RegionRouting(Strict):
    """How requests find their region; see `envs.simulator.regional`."""

    threshold: float = Field(default=0.7, ge=0, le=2)
    """Share of KV in use from which a region is passed over."""
    reroute: bool = True
    """Whether requests may leave the first region that has an instance for them."""


class Scaling(Strict):
    """A fleet that is scaled, in one or more regions."""

    regions: dict[str, RegionTerms] = Field(min_length=1, max_length=16)
    """Terms by the name of the region, as the workload's requests name it."""
    network_s: dict[str, dict[str, Annotated[float, Field(ge=0, le=10_000)]]] = Field(
        default_factory=dict
    )
    """Seconds one way from the region of a request to that of an instance; 0 where none is given,
    and of a pair that is given one way alone, the same back."""
    start: Count | dict[str, Count] = 1
    """Instances that serve at the beginning in each region, of every model (and lane), or by its
    name (`model` or `model/lane`)."""
    spare: str = Field(default="donated", pattern="^(donated|off)$")
    """What the other places hold at the beginning: VMs that are donated, with the weights of the
    place's group, or nothing."""
    floor: Count | dict[str, Count] = 0
    """Fewest instances, ready and starting, in each region."""
    ceiling: Count | dict[str, Count] | None = None
    """Most; without it, and for a model that is not named, what there are places for."""
    delays: DelayTerms = DelayTerms()
    drain_limit_s: float = Field(default=600.0, ge=0)
    """Seconds after which the work of an instance that still drains is lost and done again."""
    drain_billed: bool = True
    """Whether an instance that drains is paid for; else it counts as where it goes."""
    niw: BacklogTerms = BacklogTerms()
    tiers: TierTerms = TierTerms()
    routing: RegionRouting = RegionRouting()
    evictions: EvictionTerms | None = None
    """VMs that are taken away; without it, none."""
    sample_s: float = Field(default=60.0, gt=0, le=1e6)
    """Seconds between samples of the series that are reported."""

    @model_validator(mode="after")
    def _check_together(self) -> Scaling:
        if self.niw.low > self.niw.middle:
            raise ValueError(f"niw: low ({self.niw.low}) must be at most middle")
        for source, targets in self.network_s.items():
            for name in (source, *targets):
                if name not in self.regions:
                    raise ValueError(
                        f"network_s names the region {name!r}; there are {', '.join(self.regions)}"
                    )
        return self

    def network(self) -> dict[tuple[str, str], float]:
        """Seconds one way by the names of source and target."""
        found = {(a, b): s for a, row in self.network_s.items() for b, s in row.items()}
        return {(b, a): s for (a, b), s in found.items()} | found

    def router(self) -> RoutingPolicy:
        """The rule that finds the region and the instance of a request."""
        from envs.simulator.regional import regional_router

        return regional_router(
            list(self.regions),
            self.network(),
            threshold=self.routing.threshold,
            reroute=self.routing.reroute,
        )

    def backlog(self) -> Backlog | None:
        """Rules of the backlogs; None where NIW is routed on arrival."""
        from envs.simulator.config import Backlog

        values = self.niw.model_dump()
        return Backlog(**values) if values.pop("wait") else None

    def engines(self, fleet: Fleet) -> list[EngineConfig]:
        """One configuration a place: region by region, group by group.

        Raises:
            ScenarioError: As `Fleet.engines`.
        """
        from dataclasses import replace

        groups = fleet.engines()
        return [
            replace(engine, region=region, name=f"{region}/{engine.name}")
            for region in self.regions
            for engine in groups
        ]

    def _check_lanes(self, roles: tuple[Role, ...]) -> None:
        # NIW that grows old is promoted to interactive, which a batch instance never takes.
        if not self.niw.wait:
            return
        for model in dict.fromkeys(role.model for role in roles):
            if all(role.lane == "batch" for role in roles if role.model == model):
                raise ValueError(
                    f"niw.wait promotes old NIW to interactive, and only batch instances serve "
                    f"{model}: give it a group of lane any or interactive, or set niw.wait: false"
                )

    def plan(self, fleet: Fleet, seed: int, duration_s: float) -> LifecyclePlan:
        """The places, what they hold at the beginning, and the rules of their change.

        Args:
            fleet: The scenario's fleet.
            seed: Seed of the episode, which draws evictions.
            duration_s: Seconds in which VMs are evicted.

        Raises:
            ValueError: A name is of no model, more is to serve than there are places, a price is
                unknown, or too many evictions are expected.
        """
        from envs.simulator.lifecycle import Delays, LifecyclePlan, Region, Role

        engines = self.engines(fleet)
        roles = tuple(dict.fromkeys(Role(engine.model, engine.lane) for engine in engines))
        self._check_lanes(roles)
        role = np.array([roles.index(Role(e.model, e.lane)) for e in engines])
        kinds, kind = _kinds(engines)
        places = np.array([engine.region for engine in engines])
        start = self._by_role("start", self.start, roles)
        ready = np.zeros(len(engines), bool)
        shape = (len(roles), len(self.regions))
        capacity = np.zeros(shape, np.int64)
        for r, region in enumerate(self.regions):
            for k in range(len(roles)):
                here = np.flatnonzero((places == region) & (role == k))
                capacity[k, r] = (places == region).sum()
                if start[k] > len(here):
                    raise ValueError(
                        f"start of {roles[k].name!r} is {start[k]}, and a region has "
                        f"{len(here)} places: raise the count of its groups"
                    )
                ready[here[: start[k]]] = True
        floor = np.repeat(self._by_role("floor", self.floor, roles)[:, None], shape[1], 1)
        ceiling = capacity
        if self.ceiling is not None:
            most = self._by_role("ceiling", self.ceiling, roles, len(engines))[:, None]
            ceiling = np.minimum(capacity, most)
        own = _own_prices(engines, kinds, kind)
        regions = []
        for name, terms in self.regions.items():
            price = own if terms.price is None else [terms.price] * len(kinds)
            donated = terms.spot_price if terms.donated_price is None else terms.donated_price
            held = sum(e.gpus for e in engines if e.region == name)
            regions.append(
                Region(
                    name,
                    quota=held if terms.quota is None else terms.quota,
                    price=tuple(price),
                    spot_price=(terms.spot_price,) * len(kinds),
                    donated_price=(donated,) * len(kinds),
                )
            )
        donated_places = ~ready & (self.spare == "donated")
        return LifecyclePlan(
            roles=roles,
            role=role,
            kind=kind,
            ready=ready,
            donated=self._within_quota(engines, ready, donated_places),
            regions=tuple(regions),
            floor=np.minimum(floor, ceiling),
            ceiling=ceiling,
            delays=Delays(**self.delays.model_dump()),
            drain_limit_s=self.drain_limit_s,
            drain_billed=self.drain_billed,
            sample_s=self.sample_s,
            evictions=self._evictions(len(engines), seed, duration_s),
        )

    def _within_quota(
        self, engines: list[EngineConfig], ready: np.ndarray, donated: np.ndarray
    ) -> np.ndarray:
        """Donate no more at the beginning than the quota lets a region hold."""
        kept = donated.copy()
        for name, terms in self.regions.items():
            if terms.quota is None:
                continue
            left = terms.quota - sum(
                e.gpus for e, up in zip(engines, ready, strict=True) if up and e.region == name
            )
            for i, engine in enumerate(engines):
                if kept[i] and engine.region == name:
                    kept[i] = engine.gpus <= left
                    left -= engine.gpus if kept[i] else 0
        return kept

    def _by_role(
        self, what: str, given: int | dict[str, int], roles: Any, default: int = 0
    ) -> np.ndarray:
        names = [role.name for role in roles]
        if isinstance(given, int):
            return np.full(len(roles), given)
        if unknown := sorted(set(given) - set(names)):
            raise ValueError(f"{what} names {unknown[0]!r}; there are {', '.join(names)}")
        return np.array([given.get(name, default) for name in names])

    def _evictions(self, size: int, seed: int, duration_s: float) -> tuple[Eviction, ...]:
        from envs.simulator.lifecycle import Eviction

        if self.evictions is None:
            return ()
        mean = self.evictions.mean_time_between_s
        if size * duration_s / mean > MOST_EVICTIONS:
            raise ValueError(f"more than {MOST_EVICTIONS} evictions: raise mean_time_between_s")
        found = []
        for place in range(size):
            rng = np.random.default_rng(np.random.SeedSequence([seed, _EVICTIONS, place]))
            time = rng.exponential(mean)
            while time < duration_s:
                found.append(Eviction(place, float(time), self.evictions.notice_s))
                time += rng.exponential(mean)
        return tuple(found)


def _kinds(engines: list[EngineConfig]) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Kinds of GPU with the number that an instance takes, and that of each place."""
    each = [(engine.cost.gpu, engine.gpus) for engine in engines]
    kinds = list(dict.fromkeys(each))
    return kinds, np.array([kinds.index(one) for one in each])


def _own_prices(
    engines: list[EngineConfig], kinds: list[tuple[str, int]], kind: np.ndarray
) -> list[float]:
    """Dollars an hour of a GPU by kind, as the groups cost; 0 where nobody knows."""
    found = []
    for k in range(len(kinds)):
        known = [
            e.price_per_hour / e.gpus for e, own in zip(engines, kind, strict=True) if own == k
        ]
        found.append(0.0 if math.isnan(known[0]) else known[0])
    return found
