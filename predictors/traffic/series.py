"""Demand as regular series: so much per second in every bin, by model, region or tier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from envs.workloads import RequestTable

Floats = npt.NDArray[np.float64]
Unit = Literal["tokens", "prompt", "requests"]

UNITS: dict[str, str] = {
    "tokens": "prompt and output tokens/s",
    "prompt": "prompt tokens/s",
    "requests": "requests/s",
}
"""What a series can count."""
BY = ("model", "region", "tier")
INTERACTIVE = ("IW-F", "IW-N")


@dataclass(frozen=True)
class Traffic:
    """Series of equal bins, all over the same time.

    Attributes:
        values: (series, bins), amount per second, 0 or more.
        bin_s: Width of a bin, seconds.
        start_s: When the first bin begins, seconds.
        names: What each series counts, such as ("Llama-2-70B", "eastus").
        unit: Key of `UNITS`.

    Raises:
        ValueError: A shape, a width or a value is out of range.
    """

    values: Floats
    bin_s: float
    names: tuple[tuple[str, ...], ...]
    start_s: float = 0.0
    unit: str = "tokens"

    def __post_init__(self) -> None:
        """Check shapes and values."""
        if self.values.ndim != 2 or 0 in self.values.shape:
            raise ValueError(f"values are of shape {self.values.shape}; give (series, bins)")
        if len(self.names) != len(self.values):
            raise ValueError(f"{len(self.names)} names for {len(self.values)} series")
        if not 0 < self.bin_s < np.inf:
            raise ValueError(f"bin_s is {self.bin_s}; it must be positive and finite")
        if not (np.isfinite(self.values).all() and self.values.min() >= 0):
            raise ValueError("values must be finite, 0 or more")

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.values.shape[1]

    @property
    def end_s(self) -> float:
        """When the last bin ends, seconds."""
        return self.start_s + self.bins * self.bin_s

    def until(self, bins: int) -> Traffic:
        """The first bins, as a copy, through which nobody can reach the later ones.

        Raises:
            ValueError: There are not so many, or none is asked for.
        """
        if not 0 < bins <= self.bins:
            raise ValueError(f"{bins} of {self.bins} bins asked for")
        return replace(self, values=self.values[:, :bins].copy())

    def bins_of(self, seconds: float) -> int:
        """Whole bins nearest to a time, at least 1."""
        return max(1, round(seconds / self.bin_s))


def traffic(
    requests: RequestTable | Iterable[RequestTable],
    bin_s: float = 900.0,
    *,
    by: Sequence[str] = ("model", "region"),
    unit: Unit = "tokens",
    tiers: Sequence[str] | None = INTERACTIVE,
    duration_s: float | None = None,
) -> Traffic:
    """Count requests or tokens by their arrival.

    Output tokens count where their request arrives, as in the published evaluation; in the last
    bin of a history that takes answers as known which are still being written (about a
    twenty-fifth of the tokens). "prompt" does without.

    Args:
        requests: A table, or its parts in bounded memory.
        bin_s: Width of a bin, seconds; the time starts at 0.
        by: Columns that tell the series apart, of `BY`.
        unit: What to count.
        tiers: Tiers that count; None takes all. Work that can wait is planned from its queue.
        duration_s: Length of the time, seconds: whole bins of it; without it, those that are over
            when the last request arrives.

    Raises:
        ValueError: An argument is out of range, or no request counts.
    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is unknown; choose of {', '.join(UNITS)}")
    for column in by:
        if column not in BY:
            raise ValueError(f"by {column!r} is unknown; choose of {', '.join(BY)}")
    if not 0 < bin_s < np.inf:
        raise ValueError(f"bin_s is {bin_s}; it must be positive and finite")
    sums: dict[tuple[str, ...], Floats] = {}
    last_s = 0.0
    parts: Iterable[RequestTable] = [requests] if isinstance(requests, RequestTable) else requests
    for part in parts:
        last_s = max(last_s, float(part.arrival_s[-1]))
        _add(sums, part, bin_s, by, unit, tiers)
    if not sums:
        raise ValueError(f"no request of the tiers {', '.join(tiers or ('any',))}")
    bins = int((last_s if duration_s is None else duration_s) / bin_s + 1e-9)
    if bins < 1:
        raise ValueError(f"the requests end within the first bin of {bin_s:g} s; take shorter ones")
    names = tuple(sorted(sums))
    values = np.zeros((len(names), bins))
    for row, name in enumerate(names):
        kept = sums[name][:bins]
        values[row, : len(kept)] = kept
    return Traffic(values / bin_s, bin_s, names, unit=unit)


def _add(
    sums: dict[tuple[str, ...], Floats],
    part: RequestTable,
    bin_s: float,
    by: Sequence[str],
    unit: Unit,
    tiers: Sequence[str] | None,
) -> None:
    """Add what a part holds to the sums, which grow with the time."""
    counted = np.ones(len(part), bool)
    if tiers is not None:
        counted = np.isin(part.tier.codes, [part.tier.names.index(tier) for tier in tiers])
    if not counted.any():
        return
    place = (part.arrival_s[counted] / bin_s).astype(np.int64)
    first, stop = int(place[0]), int(place[-1]) + 1
    weights = None
    if unit != "requests":
        tokens = part.prompt_tokens + (part.output_tokens if unit == "tokens" else 0)
        weights = tokens[counted].astype(np.float64)
    labels = [getattr(part, column) for column in by]
    code = np.zeros(len(place), np.int64)
    for label in labels:
        code = code * len(label.names) + label.codes[counted]
    # Codes that occur, so that long lists of names cost nothing.
    found, row = np.unique(code, return_inverse=True)
    width = stop - first
    totals = np.bincount(row * width + place - first, weights, len(found) * width)
    for total, one in zip(totals.reshape(len(found), width), found.tolist(), strict=True):
        name: tuple[str, ...] = ()
        for label in reversed(labels):
            one, at = divmod(one, len(label.names))
            name = (label.names[at], *name)
        mine = sums.get(name, np.zeros(0))
        if len(mine) < stop:
            mine = np.concatenate([mine, np.zeros(stop - len(mine))])
        mine[first:stop] += total
        sums[name] = mine
