"""What a planner of instances knows: fleet, forecast demand, prices, delays and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = Any
"""A number for all, or an array with the axes named beside it, of which those of length 1 are
stretched. Once the problem is made, it is an array of the full shape that nobody can write to."""

SCALE_IN = ("donate", "release", "either")
_AXES = {
    "current": "mrg",
    "throughput": "mg",
    "price": "rg",
    "spot_price": "rg",
    "donated_price": "rg",
    "spot": "mrg",
    "gpus_per_instance": "mg",
    "period_s": "p",
    "acquisition_s": "mrg",
    "reclaim_s": "mrg",
    "redeploy_s": "mrg",
    "acquisition_fee": "mrg",
    "scale_in_cost": "mrg",
    "quota": "rg",
    "region_quota": "r",
    "floor": "mr",
    "ceiling": "mr",
    "max_change": "mr",
    "local_share": "mr",
    "global_share": "m",
    "weight": "m",
    "arriving": "pmrg",
}
_AXIS_NAMES = {"m": "model", "r": "region", "g": "gpu", "p": "period", "w": "window"}
_COUNTS = {"current", "spot", "gpus_per_instance", "floor", "arriving"}
"""Whole numbers that must be finite; limits are whole or infinite."""
_LIMITS = {"quota", "region_quota", "ceiling", "max_change"}
_DELAYS = {"acquisition_s", "reclaim_s", "redeploy_s"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalingProblem:
    """One decision on the instances of several models in several regions.

    Arrays have the axes (models, regions, gpus), short (M, R, G); P is the number of planning
    periods, W the windows in each. The plan is made ahead of the first period: what it starts
    serves from that period on (or `*_lead` periods later), and the time until then is paid on top.
    A delay of infinity bars that way of starting an instance.

    Source: indices, shares and coverage from SageServe (arXiv:2502.14617), section 5; quotas,
    donated GPUs, redeployment, limits of change and the horizon are additions. Default delays are
    those that the paper quotes: a minute to reclaim, 10 minutes to load weights that are near, 2
    hours for weights from afar. The paper gives no share of local coverage; 0.8 is a choice.

    Raises:
        ValueError: An array has another shape, or values that make no sense; the message names it.
    """

    models: Sequence[str]
    """Names of the models, M of them."""
    regions: Sequence[str]
    """Names of the regions, R of them."""
    gpus: Sequence[str]
    """Names of the kinds of GPU (or of VM, if that is the unit of prices and quotas), G of them."""
    current: Numbers
    """(M, R, G) instances that serve now."""
    demand: Numbers
    """Forecast tokens/s by model and region: (M, R), (W, M, R) or (P, W, M, R)."""
    throughput: Numbers
    """(M, G) tokens/s that an instance serves; 0 where the model does not run."""
    price: Numbers
    """(R, G) dollars an hour of a GPU on demand."""
    spot_price: Numbers = 0.0
    """(R, G) dollars an hour that a GPU earns while it is donated to the spot market."""
    donated_price: Numbers = None
    """(R, G) dollars an hour that a donated GPU still costs; without it, what it earns."""
    spot: Numbers = 0
    """(M, R, G) donated instances that can be reclaimed, by the model whose weights they hold."""
    gpus_per_instance: Numbers = 1
    """(M, G) GPUs that an instance takes."""
    period_s: Numbers = 3600.0
    """(P,) seconds of the planning periods."""
    acquisition_s: Numbers = 7200.0
    """(M, R, G) seconds from asking for a VM until it serves, paid and useless."""
    reclaim_s: Numbers = 60.0
    """(M, R, G) seconds until a donated instance serves its own model again."""
    redeploy_s: Numbers = 600.0
    """(M, R, G) seconds until a GPU that is there serves this model instead of another."""
    acquisition_fee: Numbers = 0.0
    """(M, R, G) dollars for each acquisition, besides the time."""
    scale_in_cost: Numbers = 0.0
    """(M, R, G) dollars for each instance that stops serving its model, such as its draining."""
    quota: Numbers = math.inf
    """(R, G) GPUs that may be held, donated ones included."""
    region_quota: Numbers = math.inf
    """(R,) GPUs of all kinds together that may be held."""
    floor: Numbers = 0
    """(M, R) fewest instances."""
    ceiling: Numbers = math.inf
    """(M, R) most instances."""
    max_change: Numbers = math.inf
    """(M, R) most instances that may start, and most that may stop, in a period."""
    local_share: Numbers = 0.8
    """(M, R) share of the region's own peak that its instances must cover; the paper's epsilon."""
    global_share: Numbers = 1.0
    """(M,) share of the peak of all regions together that all instances must cover."""
    weight: Numbers = 1.0
    """(M,) how much a token/s counts that cannot be served, against those of other models."""
    scale_in: str = "donate"
    """Where GPUs go that are no longer needed: all to the spot market, as in the paper (`donate`;
    none is given back), none (`release`), or where it costs less (`either`)."""
    arriving: Numbers = 0
    """(P, M, R, G) instances started earlier that begin to serve in each period."""
    acquisition_lead: int = 0
    """Whole periods between the decision and the first period in which a new VM serves."""
    reclaim_lead: int = 0
    """The same of reclaimed instances."""
    redeploy_lead: int = 0
    """The same of redeployed instances."""

    def __post_init__(self) -> None:
        for name in ("models", "regions", "gpus"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        demand = np.array(self.demand, dtype=np.float64)
        if demand.ndim not in (2, 3, 4):
            raise ValueError(
                f"demand has {demand.ndim} axes: give (models, regions), (windows, models, "
                "regions) or (periods, windows, models, regions)"
            )
        demand = demand.reshape((1,) * (4 - demand.ndim) + demand.shape)
        sizes = {"p": demand.shape[0], "w": demand.shape[1], "m": len(self.models)}
        sizes |= {"r": len(self.regions), "g": len(self.gpus)}
        if self.donated_price is None:
            object.__setattr__(self, "donated_price", self.spot_price)
        tables = {"demand": _stretched("demand", demand, "pwmr", sizes)}
        for name, axes in _AXES.items():
            tables[name] = _stretched(name, getattr(self, name), axes, sizes)
        for name, table in tables.items():
            self._check_values(name, table)
            kind = np.int64 if name in _COUNTS else np.float64
            stored = np.rint(table).astype(np.int64) if kind is np.int64 else table
            stored.flags.writeable = False
            object.__setattr__(self, name, stored)
        self._check_together()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, R, G)."""
        return len(self.models), len(self.regions), len(self.gpus)

    @property
    def periods(self) -> int:
        """P."""
        return int(self.demand.shape[0])

    @property
    def runs(self) -> npt.NDArray[np.bool_]:
        """(M, R, G) whether the model can run on that GPU."""
        return np.broadcast_to(self.throughput[:, None, :] > 0, self.shape)

    @property
    def size(self) -> npt.NDArray[np.int64]:
        """(M, R, G) GPUs of an instance."""
        return np.broadcast_to(self.gpus_per_instance[:, None, :], self.shape)

    @property
    def hourly(self) -> npt.NDArray[np.float64]:
        """(M, R, G) dollars an hour of an instance that serves."""
        return self.price[None] * self.size

    @property
    def donated_hourly(self) -> npt.NDArray[np.float64]:
        """(M, R, G) dollars an hour of a donated instance, less what it earns."""
        return (self.donated_price - self.spot_price)[None] * self.size

    @property
    def acquisition_cost(self) -> npt.NDArray[np.float64]:
        """(M, R, G) dollars to start an instance on a new VM; infinite where barred."""
        return self.acquisition_fee + self._paid(self.acquisition_s)

    @property
    def reclaim_cost(self) -> npt.NDArray[np.float64]:
        """(M, R, G) dollars to reclaim a donated instance for its own model."""
        return self._paid(self.reclaim_s)

    @property
    def redeploy_cost(self) -> npt.NDArray[np.float64]:
        """(M, R, G) dollars to load this model on a GPU that another had."""
        return self._paid(self.redeploy_s)

    @property
    def local_need(self) -> npt.NDArray[np.float64]:
        """(P, M, R) tokens/s that each region must cover itself: its share of its own peak."""
        return self.local_share * self.demand.max(axis=1)

    @property
    def global_need(self) -> npt.NDArray[np.float64]:
        """(P, M) tokens/s that all regions must cover together: the peak of the sum."""
        return self.global_share * self.demand.sum(axis=3).max(axis=1)

    @property
    def held(self) -> npt.NDArray[np.int64]:
        """(R, G) GPUs held now: serving, donated, and on their way."""
        return ((self.current + self.spot + self.arriving.sum(axis=0)) * self.size).sum(axis=0)

    def _paid(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        # Infinity times a price of 0 would be no number.
        barred = np.isinf(seconds)
        return np.where(barred, np.inf, self.hourly * np.where(barred, 0.0, seconds) / 3600.0)

    def _at(self, axes: str, place: Sequence[Any]) -> str:
        words = []
        for axis, index in zip(axes, place, strict=True):
            names = {"m": self.models, "r": self.regions, "g": self.gpus}.get(axis)
            shown = repr(names[index]) if names else str(index)
            words.append(f"{_AXIS_NAMES[axis]} {shown}")
        return ", ".join(words)

    def _refuse(self, name: str, bad: npt.NDArray[np.bool_], table: Any, mend: str) -> None:
        if bad.any():
            place = np.argwhere(bad)[0]
            where = self._at(_AXES.get(name, "pwmr"), place)
            raise ValueError(f"{name} of {where} is {table[tuple(place)]:g}: {mend}")

    def _check_values(self, name: str, table: npt.NDArray[np.float64]) -> None:
        self._refuse(name, np.isnan(table), table, "give a number")
        self._refuse(name, table < 0, table, "it cannot be negative")
        if name not in _LIMITS | _DELAYS:
            self._refuse(name, np.isinf(table), table, "it must be finite")
        if name in _COUNTS | _LIMITS:
            whole = np.where(np.isinf(table), 0.0, table)
            self._refuse(name, whole != np.rint(whole), table, "give a whole number")
        if name in ("gpus_per_instance", "period_s", "weight"):
            self._refuse(name, table <= 0, table, "it must be more than 0")
        if name in ("local_share", "global_share"):
            self._refuse(name, table > 1, table, "a share is at most 1")

    def _check_together(self) -> None:
        for name in ("current", "spot", "arriving"):
            table = getattr(self, name)
            mend = "that model has a throughput of 0 there; give its throughput, or no instances"
            self._refuse(name, (table > 0) & ~self.runs, table, mend)
        self._refuse(
            "reclaim_s",
            self.reclaim_s > self.redeploy_s,
            self.reclaim_s,
            "an instance's own model comes back no later than another: at most redeploy_s",
        )
        self._refuse("ceiling", self.ceiling < self.floor, self.ceiling, "give at least the floor")
        gains = (self.donated_price < self.spot_price) & np.isfinite(self.acquisition_s).any(axis=0)
        self._refuse(
            "donated_price",
            gains,
            self.donated_price,
            "less than spot_price, so that it would pay to acquire GPUs only to donate them; give "
            "at least spot_price, or bar acquisition there (acquisition_s of infinity)",
        )
        self._refuse(
            "donated_price",
            self.donated_price - self.spot_price > self.price,
            self.donated_price,
            "less spot_price it is more than price, as if serving were cheaper than donating",
        )
        if self.scale_in not in SCALE_IN:
            raise ValueError(f"scale_in {self.scale_in!r}: give one of {', '.join(SCALE_IN)}")
        for name in ("acquisition_lead", "reclaim_lead", "redeploy_lead"):
            lead = getattr(self, name)
            if lead != int(lead) or not 0 <= lead < self.periods:
                raise ValueError(
                    f"{name} is {lead}: give a whole number from 0 to {self.periods - 1}, since "
                    f"the demand covers {self.periods} period(s)"
                )


def _names(kind: str, given: Sequence[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(map(str, given))
    if not names:
        raise ValueError(f"{kind} is empty: name at least one")
    if len(set(names)) < len(names):
        raise ValueError(f"{kind} {', '.join(names)}: a name occurs twice")
    return names


def _stretched(name: str, value: Any, axes: str, sizes: dict[str, int]) -> npt.NDArray[np.float64]:
    table = np.array(value, dtype=np.float64)
    shape = tuple(sizes[axis] for axis in axes)
    fits = table.ndim in (0, len(shape)) and all(
        given in (1, full) for given, full in zip(table.shape, shape, strict=False)
    )
    if not fits or 0 in table.shape:
        titles = ", ".join(f"{_AXIS_NAMES[axis]}s" for axis in axes)
        raise ValueError(
            f"{name} has shape {table.shape}: give a number or an array ({titles}) of shape {shape}"
        )
    return np.broadcast_to(table, shape).copy()
