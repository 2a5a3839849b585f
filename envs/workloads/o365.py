"""An O365-like week: four models, three regions, three tiers, drawn in parts of bounded memory.

Source of all figures: SageServe (arXiv:2502.14617) with its authors' public notebooks, except
where "assumed" stands. Its traces are not public.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import MAX_TIME_S, TIERS
from .convert import frozen
from .labels import Labels
from .o365_shape import MINUTES, WEEK_S, Shape, week
from .table import RequestTable

Floats = npt.NDArray[np.float64]

FULL = 10_000_000
"""Requests of a week at scale 1."""
HOUR_S = 3600
REGIONS = ("westus", "centralus", "eastus")
MODELS = ("Llama-2-70B", "Bloom-176B", "Llama-3.1-8B", "Llama-3.2-3B")
"""The stand-ins of the release for its models A, B, C and D."""
TTFT_S = {"IW-F": 1.0, "IW-N": 60.0}
"""Seconds to the first token that the interactive tiers are promised."""

# Prompt tokens, lognormal: median and log-standard deviation of models A, B, C, D. Medians are
# published; A lies in 3-10 thousand, B in 0.4-10 thousand, D has 49,424 at 99 %; C is set so that
# the mean of a request is the published 7.0 thousand tokens on working days.
_PROMPT = np.array([[5500.0, 0.36], [3000.0, 0.90], [3500.0, 1.15], [4500.0, 1.03]])
# The same of tier NIW: A has 1,840 at 99 %; nothing is published of the others, which stay.
_PROMPT_NIW = np.array([[500.0, 0.56], [3000.0, 0.90], [3500.0, 1.15], [4500.0, 1.03]])
# Output tokens: 45 % of A's answers have fewer than 30 tokens, the rest 100-500; B, C, D have
# medians of 90, 100, 110 and 2,000 at 99 %.
_OUTPUT = np.array([[260.0, 0.40], [90.0, 1.333], [100.0, 1.288], [110.0, 1.247]])
_SHORT_SHARE = np.array([0.45, 0.0, 0.0, 0.0])
_SHORT = (12.0, 0.5)
_SHORT_MOST = 29

# Log-standard deviation by tier of a level that wanders from hour to hour, and of a day's level
# (assumed; NIW is told to be hardly periodic).
_HOURLY = np.array([0.10, 0.15, 0.40])
_DAILY = 0.08
# Minutes-long spikes of a model's interactive load, in all regions: A reaches 1,080 requests a
# minute where it has 300 else. Chance by model and hour, and factors (assumed).
_SPIKE_CHANCE = np.array([0.03, 0.0, 0.0, 0.006])
_SPIKE_FACTOR = (2.0, 4.0)
_SPIKE_MINUTES = (2, 6)

# What a stream of random numbers is for.
_ARRIVALS, _LEVEL, _DAY, _SPIKES = range(4)


@dataclass(frozen=True, kw_only=True)
class O365:
    """An O365-like stretch of time; Monday 0:00 is second 0, and the week repeats.

    An hour's requests depend on the seed, the hour and the options alone, so a part of the week is
    the same whatever is drawn before it. Later weeks have the same shape and other noise.

    Attributes:
        scale: Factor on the rates; 1 is 10 million requests a week (16.5/s), 1/100 a hundred
            thousand.
        start_s: Where to start, seconds; arrivals count from here. Tuesday is 86400.
        duration_s: How long, seconds; default a week.
        niw_share: Share of tier NIW. Published: 0.28 of all traffic; evaluated with 0.25, 0.1 and
            0.5; the recorded week has 0.19, its Tuesday 0.14.
        fast_share: Share of IW-F in interactive requests (assumed; it is the largest tier).
        shape: "recorded": model B falls silent on Tuesday afternoon, as in the trace of November
            2024; "regular": it goes on through the week.
        burst_copies: So many further copies of each request of the first minute of every hour but
            the first; the published burst test has 8.
        niw_deadline_s: Seconds after which a NIW request should have finished.
        max_prompt_tokens: Longest prompt; longer ones are cut.
        max_output_tokens: Longest answer.
        models: Names of the models A, B, C and D.
        regions: Names of the western, central and eastern region.

    Raises:
        ValueError: An option is out of range.
    """

    scale: float = 0.01
    start_s: float = 0.0
    duration_s: float = WEEK_S
    niw_share: float = 0.28
    fast_share: float = 0.6
    shape: Shape = "recorded"
    burst_copies: int = 0
    niw_deadline_s: float = 86_400.0
    max_prompt_tokens: int = 65_536
    max_output_tokens: int = 4_096
    models: tuple[str, ...] = MODELS
    regions: tuple[str, ...] = REGIONS

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("scale", "duration_s", "niw_deadline_s"):
            value = getattr(self, name)
            if not 0 < value < np.inf:
                raise ValueError(f"{name} is {value}; it must be positive and finite")
        for name in ("niw_share", "fast_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share, 0 to 1")
        if not 0 <= self.start_s < np.inf:
            raise ValueError(f"start_s is {self.start_s}; it must be 0 or more")
        if self.duration_s > MAX_TIME_S:
            raise ValueError(f"duration_s is {self.duration_s}; a table ends at {MAX_TIME_S:g} s")
        if self.shape not in ("recorded", "regular"):
            raise ValueError(f"shape {self.shape!r} is unknown; choose 'recorded' or 'regular'")
        if self.burst_copies < 0:
            raise ValueError(f"burst_copies is {self.burst_copies}; give 0 or more")
        for name in ("max_prompt_tokens", "max_output_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name, count in {"models": 4, "regions": 3}.items():
            given = getattr(self, name)
            if len(given) != count or len(set(given)) != count:
                raise ValueError(f"{name} are {', '.join(given)}; give {count} different names")

    def rates(self, seed: int | None = None) -> Floats:
        """Mean requests/s by minute, from the hour in which the time starts.

        Args:
            seed: With the noise of this seed, which is what its requests are drawn from; without
                one, the published shape alone.

        Returns:
            (4 models, 3 regions, 3 tiers, minutes).
        """
        return np.concatenate([self._rates(hour, seed) for hour in self._hours()], axis=-1)

    def requests(self, seed: int = 0) -> RequestTable:
        """Draw the requests: tenants and applications are unnamed, lengths not predicted.

        `deadline_s` of a NIW request is when it should have finished; of an interactive one when
        its first token is due (`TTFT_S`), which is what deadline-aware schedulers go by.

        Args:
            seed: Seed of everything that is drawn.

        Raises:
            ValueError: No request arrives.
        """
        hours = [self._hour(hour, seed) for hour in self._hours()]
        return self._table({k: np.concatenate([h[k] for h in hours]) for k in hours[0]}, seed)

    def parts(self, seed: int = 0, hours: int = 1) -> Iterator[RequestTable]:
        """The same requests in parts of so many hours, one after the other, in bounded memory.

        Request ids count through, so the parts joined are the whole. Hours without a request give
        no part.

        Args:
            seed: As `requests`.
            hours: Hours of a part.

        Raises:
            ValueError: `hours` is less than 1.
        """
        if hours < 1:
            raise ValueError(f"hours is {hours}; give 1 or more")
        every, count = self._hours(), 0
        for at in range(0, len(every), hours):
            drawn = [self._hour(hour, seed) for hour in every[at : at + hours]]
            columns = {k: np.concatenate([d[k] for d in drawn]) for k in drawn[0]}
            size = len(columns["arrival_s"])
            if size:
                ids = frozen(np.arange(count, count + size, dtype=np.int64))
                count += size
                yield self._table(columns, seed).replace(request_id=ids)

    def _hours(self) -> range:
        first = int(self.start_s // HOUR_S)
        return range(first, max(first + 1, int(np.ceil((self.start_s + self.duration_s) / HOUR_S))))

    def _rates(self, hour: int, seed: int | None) -> Floats:
        """(4, 3, 3, 60) requests/s in the minutes of an hour."""
        first = hour * 60 % MINUTES
        base = week(self.shape, self.niw_share, self.fast_share)[..., first : first + 60]
        base = base * (self.scale * FULL / WEEK_S)
        if seed is None:
            return base
        ends = [_rng(seed, _LEVEL, h).standard_normal((4, 3, 3)) for h in (hour, hour + 1)]
        share = np.arange(60) / 60.0
        level = ends[0][..., None] * (1 - share) + ends[1][..., None] * share
        spread = _HOURLY[:, None] * np.sqrt((1 - share) ** 2 + share**2)
        day = _rng(seed, _DAY, hour // 24).standard_normal((4, 1, 1, 1))
        noise = _HOURLY[:, None] * level - spread**2 / 2 + _DAILY * day - _DAILY**2 / 2
        return np.asarray(base * np.exp(noise) * self._spikes(hour, seed)[:, None, :, :])

    def _spikes(self, hour: int, seed: int) -> Floats:
        """(4, 3 tiers, 60) factors."""
        rng = _rng(seed, _SPIKES, hour)
        factor = np.ones((4, 3, 60))
        for model in np.flatnonzero(rng.random(4) < _SPIKE_CHANCE):
            start, length = rng.integers(0, 60), rng.integers(*_SPIKE_MINUTES)
            factor[model, :2, start : start + length] = rng.uniform(*_SPIKE_FACTOR)
        return factor

    def _hour(self, hour: int, seed: int) -> dict[str, npt.NDArray[Any]]:
        """The requests of an hour, sorted by their arrival."""
        rng = _rng(seed, _ARRIVALS, hour)
        counts = rng.poisson(self._rates(hour, seed).reshape(36, 60) * 60.0)
        place = np.repeat(np.arange(36 * 60, dtype=np.int32), counts.ravel())
        arrival = (place % 60 + rng.random(len(place))) * 60.0
        order = np.argsort(arrival)
        stream, arrival = place[order] // 60, arrival[order]
        model, tier = stream // 9, stream % 3
        # The same numbers whatever part of the hour is kept.
        prompt, output = self._lengths(model, tier == 2, rng)
        arrival += float(hour * HOUR_S) - self.start_s
        first, stop = np.searchsorted(arrival, [0.0, self.duration_s])
        keep = slice(first, stop)
        columns: dict[str, npt.NDArray[Any]] = {
            "arrival_s": arrival[keep],
            "stream": stream[keep],
            "prompt_tokens": prompt[keep],
            "output_tokens": output[keep],
        }
        if self.burst_copies and hour > int(self.start_s // HOUR_S):
            since = columns["arrival_s"] - (hour * HOUR_S - self.start_s)
            copies = np.where(since < 60.0, 1 + self.burst_copies, 1)
            columns = {name: np.repeat(values, copies) for name, values in columns.items()}
        return columns

    def _lengths(
        self, model: npt.NDArray[np.int32], niw: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        n = len(model)
        table = np.concatenate([_PROMPT, _PROMPT_NIW])
        row = model + 4 * niw
        prompt = np.exp(np.log(table[:, 0])[row] + table[row, 1] * rng.standard_normal(n))
        short = rng.random(n) < _SHORT_SHARE[model]
        middle = np.where(short, np.log(_SHORT[0]), np.log(_OUTPUT[:, 0])[model])
        spread = np.where(short, _SHORT[1], _OUTPUT[model, 1])
        output = np.exp(middle + spread * rng.standard_normal(n))
        most = np.where(short, _SHORT_MOST, self.max_output_tokens)
        return (
            np.clip(np.rint(prompt), 1, self.max_prompt_tokens).astype(np.int64),
            np.clip(np.rint(output), 1, most).astype(np.int64),
        )

    def _table(self, columns: dict[str, npt.NDArray[Any]], seed: int) -> RequestTable:
        arrival, stream = columns["arrival_s"], columns["stream"]
        if not len(arrival):
            raise ValueError(
                f"no request arrives in {self.duration_s:g} s from {self.start_s:g} s at scale "
                f"{self.scale:g}; give a longer duration_s or a larger scale"
            )
        tier = frozen(stream % 3)
        allowed = np.array([TTFT_S["IW-F"], TTFT_S["IW-N"], self.niw_deadline_s])
        return RequestTable.from_columns(
            arrival_s=frozen(arrival),
            prompt_tokens=frozen(columns["prompt_tokens"]),
            output_tokens=frozen(columns["output_tokens"]),
            model=Labels(frozen(stream // 9), self.models),
            region=Labels(frozen(stream // 3 % 3), self.regions),
            tier=Labels(tier, TIERS),
            deadline_s=frozen(arrival + allowed[tier]),
            source=f"O365-like week ({', '.join([*self._told(), f'seed {seed}'])})",
        )

    def _told(self) -> list[str]:
        """The options that are not the usual ones."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        usual = {item.name: item.default for item in fields(self)}
        return [
            f"{name} {value:g}" if isinstance(value, float | int) else f"{name} {value}"
            for name, value in given.items()
            if name == "scale" or value != usual[name]
        ]


def _rng(seed: int, purpose: int, place: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, place])
