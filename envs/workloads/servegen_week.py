"""ServeGen's recorded weeks, mapped to the models, regions and tiers of a fleet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import TIERS
from .convert import frozen
from .labels import Labels
from .o365 import REGIONS, TTFT_S
from .readers.servegen import Record, read_record
from .table import RequestTable

Ints = npt.NDArray[np.int64]

# SageServe's shares: the split of regions (arXiv:2502.14617's authors' 28 h run), 28 % NIW; that
# of IW-F in interactive work is assumed, as in `O365`.
_REGION_SHARES = dict(zip(REGIONS, (0.279, 0.295, 0.426), strict=True))
_TIER_SHARES = {"IW-F": 0.432, "IW-N": 0.288, "NIW": 0.28}
_RECORD, _DRAW = range(2)


@dataclass(frozen=True, kw_only=True)
class ServeGenWeek:
    """Requests of several models from ServeGen's client windows (`read_trace`, "servegen").

    A client belongs to one region and one tier, so that these differ in their patterns over time
    as clients do. Clients are placed from the largest to the smallest, each where most is lacking
    to the shares; those with more than `largest` of a model's load (one has half of m-mid) are
    split by request. Nothing is recorded of regions and tiers: the mapping is this project's.

    Attributes:
        paths: File `*_trace.parquet` by the name of the model; several models may share one.
        rate_scale: Factor on the rates of all, or by the name of the model (m-large has 196
            requests/s, m-mid 1,868, deepseek-r1 16 over one day).
        start_s: Where to start in the record (0 to 14 days), seconds; arrivals count from here.
        duration_s: How long, seconds; default a week.
        regions: Share of each region.
        tiers: Share of each tier; what is left out has none.
        largest: Share of a model's load above which a client is split.
        niw_deadline_s: Seconds after which a NIW request should have finished.

    Raises:
        ValueError: An option is out of range.
    """

    paths: Mapping[str, str | Path]
    rate_scale: float | Mapping[str, float] = 0.01
    start_s: float = 0.0
    duration_s: float = 604_800.0
    regions: Mapping[str, float] = field(default_factory=lambda: dict(_REGION_SHARES))
    tiers: Mapping[str, float] = field(default_factory=lambda: dict(_TIER_SHARES))
    largest: float = 0.1
    niw_deadline_s: float = 86_400.0

    def __post_init__(self) -> None:
        """Check what the files do not tell."""
        if not self.paths:
            raise ValueError("paths is empty; give at least one model and its file")
        for name in ("regions", "tiers"):
            shares = getattr(self, name)
            if not shares or min(shares.values()) < 0 or not 0 < sum(shares.values()) < np.inf:
                raise ValueError(f"{name} are {dict(shares)}; give shares, 0 or more, not all 0")
        for tier in self.tiers:
            if tier not in TIERS:
                raise ValueError(f"tiers: {tier!r} is none of {', '.join(TIERS)}")
        if isinstance(self.rate_scale, Mapping):
            for model in set(self.paths) ^ set(self.rate_scale):
                raise ValueError(f"rate_scale and paths differ in the model {model!r}")
        if not 0 <= self.largest <= 1:
            raise ValueError(f"largest is {self.largest}; give a share, 0 to 1")
        if not 0 < self.niw_deadline_s < np.inf:
            raise ValueError(f"niw_deadline_s is {self.niw_deadline_s}; give seconds, more than 0")

    def requests(self, seed: int = 0) -> RequestTable:
        """Draw the requests; tenants are clients, `deadline_s` is as in `O365.requests`.

        Args:
            seed: Seed of everything that is drawn.

        Raises:
            TraceError: A file is absent, damaged or holds a bad value, or has nothing in the time.
            ValueError: No request arrives, or `start_s`, `duration_s` or a rate is out of range.
        """
        first, *others = self.parts(seed, hours=24)
        for part in others:
            first = first.followed_by(part)
        return first

    def parts(self, seed: int = 0, hours: int = 6) -> Iterator[RequestTable]:
        """Requests in parts of so many hours, one after the other, in bounded memory.

        An hour's requests do not depend on `hours` or on the hours before it; request ids count
        through. Hours without a request give no part.

        Args:
            seed: As `requests`.
            hours: Hours of a part.

        Raises:
            ValueError: As `requests`, or `hours` is less than 1.
            TraceError: As `requests`.
        """
        if hours < 1:
            raise ValueError(f"hours is {hours}; give 1 or more")
        sources = [self._source(place, seed) for place in range(len(self.paths))]
        count, length = 0, int(np.ceil(self.duration_s / 3600))
        for start in range(0, length, hours):
            drawn = [
                source.hour(self, hour, place)
                for hour in range(start, min(start + hours, length))
                for place, source in enumerate(sources)
            ]
            columns = [np.concatenate(column) for column in zip(*drawn, strict=True)]
            if len(columns[0]):
                yield self._table(columns, count, sources, seed)
                count += len(columns[0])
        if not count:
            raise ValueError("no request arrives; give a larger rate_scale or duration_s")

    def _source(self, place: int, seed: int) -> _Source:
        model = list(self.paths)[place]
        scale = self.rate_scale
        record = read_record(
            Path(self.paths[model]),
            lengths=None,
            start_s=self.start_s,
            duration_s=self.duration_s,
            rate_scale=scale[model] if isinstance(scale, Mapping) else scale,
            clients=None,
            missing_lengths="borrow",
            rng=np.random.default_rng([seed, _RECORD, place]),
        )
        shares = np.outer(_normal(self.regions), _normal(self.tiers))
        loads = record.loads()
        home = dict(
            zip(
                loads.index,
                _homes(np.asarray(loads, np.float64), shares, self.largest),
                strict=True,
            )
        )
        clients = np.array(sorted(home), np.int64)
        return _Source(record, clients, np.array([home[c] for c in clients]), shares, seed)

    def _table(
        self, columns: list[npt.NDArray[Any]], count: int, sources: list[_Source], seed: int
    ) -> RequestTable:
        order = np.argsort(columns[0], kind="stable")
        arrival = columns[0][order]
        prompt, output, model, cell, client = (c[order].astype(np.int64) for c in columns[1:])
        tiers = np.array([TIERS.index(tier) for tier in self.tiers])
        tier = tiers[cell % len(tiers)].astype(np.int32)
        allowed = np.array([TTFT_S["IW-F"], TTFT_S["IW-N"], self.niw_deadline_s])
        # Clients of two models are two tenants.
        starts = np.cumsum([0, *(len(source.clients) for source in sources)])
        names = [
            f"{name} client-{c}"
            for name, source in zip(self.paths, sources, strict=True)
            for c in source.clients
        ]
        return RequestTable.from_columns(
            request_id=np.arange(count, count + len(order)),
            arrival_s=arrival,
            prompt_tokens=prompt,
            output_tokens=output,
            model=Labels(frozen(model.astype(np.int32)), tuple(self.paths)),
            region=Labels(frozen((cell // len(tiers)).astype(np.int32)), tuple(self.regions)),
            tier=Labels(frozen(tier), TIERS),
            tenant=Labels(frozen((starts[model] + client).astype(np.int32)), tuple(names)),
            deadline_s=arrival + allowed[tier],
            source=f"ServeGen weeks of {', '.join(self.paths)} (seed {seed})",
        )


@dataclass(frozen=True)
class _Source:
    """A model's record, and the cell (region x tier) of each client; -1 splits by request."""

    record: Record
    clients: Ints
    cells: Ints
    shares: npt.NDArray[np.float64]
    seed: int

    def hour(self, week: ServeGenWeek, hour: int, place: int) -> tuple[npt.NDArray[Any], ...]:
        """Arrival, prompt, output, place of the model, cell, place of the client; (n,) each."""
        start = hour * 3600.0
        stop = min(start + 3600.0, week.duration_s)
        rng = np.random.default_rng([self.seed, _DRAW, place, hour])
        arrival, client, prompt, output = self.record.draw(
            week.start_s + start, week.start_s + stop, rng
        )
        which = np.searchsorted(self.clients, client)
        cell = self.cells[which]
        split = np.flatnonzero(cell < 0)
        cell[split] = rng.choice(self.shares.size, len(split), p=self.shares.ravel())
        model = np.full(len(arrival), place)
        return arrival + start, prompt, output, model, cell, which


def _normal(shares: Mapping[str, float]) -> npt.NDArray[np.float64]:
    values = np.array(list(shares.values()), np.float64)
    return values / values.sum()


def _homes(loads: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], largest: float) -> Ints:
    """A cell for each client, the largest first, where most is lacking; -1 for those split."""
    whole = loads <= largest
    lacking = shares.ravel() * loads[whole].sum()
    home = np.full(len(loads), -1)
    for client in np.argsort(-loads, kind="stable"):
        if whole[client]:
            home[client] = int(np.argmax(lacking))
            lacking[home[client]] -= loads[client]
    return home
