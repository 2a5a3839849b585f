"""What the life cycle of a fleet's instances goes by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.simulator.config import LANES, Lane
from envs.simulator.lifecycle.layout import DELAYS


@dataclass(frozen=True)
class Role:
    """What an instance can serve: a model, and the tiers of requests.

    Attributes:
        model: Model; an empty name serves any.
        lane: `any`, `interactive` (IW-F, IW-N) or `batch` (NIW).
    """

    model: str
    lane: Lane = "any"

    @property
    def name(self) -> str:
        """The model, with the lane where it has one."""
        return self.model if self.lane == "any" else f"{self.model}/{self.lane}"


@dataclass(frozen=True)
class Delays:
    """Seconds that changes of state take: lognormal with these medians, cut at e^3 times them.

    Defaults are what SageServe (arXiv:2502.14617) quotes, where it does: a minute (median) to
    reclaim a donated instance, 10 minutes to load weights that are near, 2 hours for weights from
    afar. It gives no time for a VM alone (5 minutes for a cold start in its example) and no
    distributions; `sigma` 0.2 is a choice.

    Attributes:
        provision_s: From asking for a VM until it is there.
        load_local_s: Loading weights that lie in the region.
        load_remote_s: Loading weights from elsewhere; from then on they lie in the region.
        reclaim_s: Until a donated VM is free again.
        repair_s: Until the place of a VM that was lost can be used again.
        sigma: Log-standard deviation of them all.

    Raises:
        ValueError: A delay is negative or not finite.
    """

    provision_s: float = 300.0
    load_local_s: float = 600.0
    load_remote_s: float = 7_200.0
    reclaim_s: float = 60.0
    repair_s: float = 3_600.0
    sigma: float = 0.2

    def __post_init__(self) -> None:
        for name in (*(f"{delay}_s" for delay in DELAYS), "sigma"):
            value = getattr(self, name)
            if not 0 <= value <= 1e6:
                raise ValueError(f"{name} must be from 0 to 1e6, not {value}")

    @property
    def medians_s(self) -> tuple[float, ...]:
        """Medians in the order of `DELAYS`."""
        return tuple(getattr(self, f"{delay}_s") for delay in DELAYS)


@dataclass(frozen=True)
class Region:
    """A region: what its GPUs cost, and how many may be held.

    Attributes:
        name: Name, as in the fleet's configurations.
        quota: GPUs that may be held, donated ones and those on their way included.
        price: (K,) dollars an hour of a GPU, by kind.
        spot_price: (K,) dollars an hour that a donated GPU earns.
        donated_price: (K,) dollars an hour that a donated GPU costs.

    Raises:
        ValueError: A number is negative.
    """

    name: str
    quota: float = math.inf
    price: Sequence[float] = (0.0,)
    spot_price: Sequence[float] = (0.0,)
    donated_price: Sequence[float] = (0.0,)

    def __post_init__(self) -> None:
        for name in ("price", "spot_price", "donated_price"):
            if any(value < 0 for value in getattr(self, name)):
                raise ValueError(f"region {self.name!r}: {name} must not be negative")
        if not self.quota >= 0:
            raise ValueError(f"region {self.name!r}: quota must be 0 or more, not {self.quota}")


@dataclass(frozen=True)
class Eviction:
    """A VM that is taken away: its instance drains for the notice, then its work is lost.

    Attributes:
        place: Its place in the fleet.
        time_s: When the notice comes, seconds.
        notice_s: Seconds until it is gone; 0 is a failure.

    Raises:
        ValueError: A time is negative.
    """

    place: int
    time_s: float
    notice_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("time_s", "notice_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"{name} of an eviction must be 0 or more, not {getattr(self, name)}"
                )


@dataclass(frozen=True)
class LifecyclePlan:
    """The fleet of a simulation as a set of places, and how they change.

    Attributes:
        roles: (K,) what can be deployed.
        role: (N,) role of each instance as the fleet is given.
        kind: (N,) kind of GPU of each place, from 0.
        ready: (N,) whether it serves at the beginning.
        donated: (N,) whether it is donated then, with the weights of its role; others are off.
        regions: In the order of the fleet's regions.
        floor: (roles, regions) fewest instances ready and starting.
        ceiling: (roles, regions) most.
        delays: How long changes take.
        drain_limit_s: Seconds after which what still drains is lost and comes back to the router.
        drain_billed: Whether what drains is paid for (the released SageServe counts it as donated).
        pull_s: Seconds between the clock's signals to backlogs; 0 gives none.
        sample_s: Seconds between samples; 0 takes none.
        evictions: VMs that are taken away.

    Raises:
        ValueError: Something does not fit together; the message says what.
    """

    roles: tuple[Role, ...]
    role: np.ndarray
    kind: np.ndarray
    ready: np.ndarray
    donated: np.ndarray
    regions: tuple[Region, ...]
    floor: np.ndarray
    ceiling: np.ndarray
    delays: Delays = field(default_factory=Delays)
    drain_limit_s: float = 600.0
    drain_billed: bool = True
    pull_s: float = 60.0
    sample_s: float = 60.0
    evictions: tuple[Eviction, ...] = ()

    def __post_init__(self) -> None:
        for role in self.roles:
            if role.lane not in LANES:
                raise ValueError(f"lane must be one of {LANES}, not {role.lane!r}")
        if len(set(self.roles)) < len(self.roles):
            raise ValueError("a role is named twice")
        if not self.regions:
            raise ValueError("a plan needs a region")
        if len({len(r.price) for r in self.regions}) > 1 or any(
            len(r.spot_price) != len(r.price) or len(r.donated_price) != len(r.price)
            for r in self.regions
        ):
            raise ValueError("price, spot_price and donated_price need one value a kind of GPU")
        shape = (len(self.roles), len(self.regions))
        for name in ("floor", "ceiling"):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(
                    f"{name} must be {shape}, a value for each role and region, not "
                    f"{np.shape(getattr(self, name))}"
                )
        if bool((np.asarray(self.floor) < 0).any()):
            raise ValueError("a floor must be 0 or more")
        if bool((self.ready & self.donated).any()):
            raise ValueError("a place can't be ready and donated")
        if bool((self.floor > self.ceiling).any()):
            raise ValueError("a floor is above its ceiling")
        for name in ("pull_s", "sample_s"):
            if not 0 <= getattr(self, name) <= 1e6:
                raise ValueError(f"{name} must be from 0 to 1e6, not {getattr(self, name)}")
        if not self.drain_limit_s >= 0:
            raise ValueError(f"drain_limit_s must not be negative, and is {self.drain_limit_s}")
