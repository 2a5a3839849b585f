"""The synthetic two- to eight-client workloads of the VTC paper (OSDI 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .labels import Labels
from .table import RequestTable

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

PUBLISHED_PHASES = (0.374540, 0.950714, 0.731994)
"""Phases of the first clients in the published runs, read off their recorded arrivals."""


@dataclass(frozen=True)
class Stream:
    """Requests of one client in one stretch of time.

    Attributes:
        rate: Requests per second while it sends.
        prompt_tokens: Prompt of each request.
        output_tokens: Answer of each request.
        on_off_s: Sends for so long, then pauses for so long; 0 sends always.
        ramp_from: With a positive value the rate rises linearly from it to `rate`.
        span: (start, stop) as shares of the duration.
    """

    rate: float
    prompt_tokens: int = 256
    output_tokens: int = 256
    on_off_s: float = 0.0
    ramp_from: float = 0.0
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class VtcSuite:
    """One workload of the paper.

    Attributes:
        clients: The streams of each client, client 0 first.
        duration_s: Seconds over which requests are sent.
        poisson: Whether arrivals are one Poisson process of which each request belongs to a
            client by chance; otherwise each client sends at equal gaps.
        phased: Whether a client starts one gap and a random part of a gap after 0, or one gap.
        weights: Share of the service that each client is to have.
    """

    clients: tuple[tuple[Stream, ...], ...]
    duration_s: float = 600.0
    poisson: bool = False
    phased: bool = True
    weights: tuple[float, ...] = ()


def _even(*rates: float) -> tuple[tuple[Stream, ...], ...]:
    return tuple((Stream(rate),) for rate in rates)


_FIRST, _SECOND, _THIRD = (0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0)

VTC_SUITES: dict[str, VtcSuite] = {
    "overload": VtcSuite(_even(1.5, 3.0)),
    "overload-multi": VtcSuite(_even(0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6), 360.0),
    "proportional": VtcSuite(_even(0.25, 0.5, 1.5)),
    "on_off_less": VtcSuite(((Stream(0.5, on_off_s=60.0),), (Stream(2.0),))),
    "on_off_overload": VtcSuite(((Stream(2.0, on_off_s=60.0),), (Stream(3.0),))),
    "increase": VtcSuite(((Stream(0.5),), (Stream(2.0, ramp_from=0.2),)), phased=False),
    "poisson_short_long": VtcSuite(((Stream(8.0, 64, 64),), (Stream(1.5),)), poisson=True),
    "poisson_short_long_2": VtcSuite(
        ((Stream(8.0, 512, 32),), (Stream(1.5, 32, 512),)), poisson=True
    ),
    "dist_shift": VtcSuite(
        (
            (
                Stream(0.5, on_off_s=60.0, span=_FIRST),
                Stream(1.0, span=_SECOND),
                Stream(0.5, span=_THIRD),
            ),
            (Stream(2.0, span=_FIRST), Stream(1.0, span=_SECOND), Stream(1.5, span=_THIRD)),
        ),
        900.0,
    ),
    "weighted": VtcSuite(_even(0.8, 0.8, 1.2, 1.6), weights=(1.0, 2.0, 3.0, 4.0)),
}
"""The workloads by name: rates, lengths, durations of OSDI 2024 and its artifact (Apache-2.0)."""


def vtc_suite(
    name: str,
    seed: int = 0,
    *,
    duration_s: float | None = None,
    rate_scale: float = 1.0,
    phases: tuple[float, ...] | None = None,
) -> RequestTable:
    """A synthetic workload of the VTC paper; the clients are the tenants "0", "1" ...

    At equal gaps of `1 / rate`, a client's first request comes `(1 + phase) / rate` after the
    start; a client that switches on and off is silent in every second stretch. So the measured
    runs were made, of `overload` with VTC for 360 s and with FCFS for 600 s.

    Args:
        name: A key of `VTC_SUITES`.
        seed: Seed of the phases, or of the arrivals where these are Poisson.
        duration_s: Seconds over which requests are sent; by default as in the paper.
        rate_scale: Factor on all rates.
        phases: Phase of each client in [0, 1) instead of a drawn one; `PUBLISHED_PHASES` gives
            the arrivals of the published runs. Only where clients have a phase.

    Raises:
        ValueError: The name is unknown, an argument is out of range, or no request is sent.
    """
    if name not in VTC_SUITES:
        raise ValueError(f"VTC suite {name!r} is unknown; choose of {sorted(VTC_SUITES)}")
    suite = VTC_SUITES[name]
    duration = suite.duration_s if duration_s is None else float(duration_s)
    for label, value in {"duration_s": duration, "rate_scale": rate_scale}.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{label} is {value}; give a positive, finite number")
    rng = np.random.default_rng(seed)
    if suite.poisson:
        parts = _poisson(suite, duration, rate_scale, rng)
    else:
        parts = _even_gaps(suite, duration, rate_scale, _phase(suite, phases, rng))
    time, client, stream = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(time):
        raise ValueError(f"no request is sent in {duration:g} s; give more time or a higher rate")
    order = np.argsort(time, kind="stable")
    flat = [each for streams in suite.clients for each in streams]
    return RequestTable.from_columns(
        arrival_s=time[order],
        prompt_tokens=np.array([each.prompt_tokens for each in flat])[stream[order]],
        output_tokens=np.array([each.output_tokens for each in flat])[stream[order]],
        tenant=Labels(
            client[order].astype(np.int32), tuple(str(i) for i in range(len(suite.clients)))
        ),
        application=Labels.constant(name, len(order)),
        source=f"VTC suite {name}, {duration:g} s, seed {seed}",
    )


Part = tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _phase(suite: VtcSuite, phases: tuple[float, ...] | None, rng: Rng) -> Callable[[int], float]:
    """The phase of the next stream of a client."""
    if not suite.phased:
        return lambda client: 0.0
    if phases is None:
        return lambda client: float(rng.random())
    if len(phases) < len(suite.clients) or not all(0 <= phase < 1 for phase in phases):
        raise ValueError(f"phases is {phases}; give {len(suite.clients)} numbers in [0, 1)")
    return lambda client: phases[client]


def _even_gaps(
    suite: VtcSuite, duration: float, scale: float, phase: Callable[[int], float]
) -> list[Part]:
    parts: list[Part] = []
    number = 0
    for client, streams in enumerate(suite.clients):
        for stream in streams:
            start = stream.span[0] * duration
            length = (stream.span[1] - stream.span[0]) * duration
            if stream.ramp_from > 0:
                time = _ramp(stream.ramp_from * scale, stream.rate * scale, length)
            else:
                rate = stream.rate * scale
                # The product of an exact number of gaps may fall short of it by rounding.
                n = int(rate * length * (1 + 1e-12))
                time = np.asarray(start + (np.arange(1, n + 1) + phase(client)) / rate, np.float64)
            if stream.on_off_s > 0:
                time = time[(time // stream.on_off_s).astype(np.int64) % 2 == 0]
            parts.append((time, np.full(len(time), client), np.full(len(time), number)))
            number += 1
    return parts


def _ramp(first: float, last: float, length: float) -> Floats:
    """Times whose gaps are the inverse of a rate that rises with time."""
    times = np.empty(int(0.5 * (first + last) * length))
    now = 0.0
    for i in range(len(times)):
        now += 1.0 / (first + (last - first) * now / length)
        times[i] = now
    return times


def _poisson(suite: VtcSuite, duration: float, scale: float, rng: Rng) -> list[Part]:
    rates = np.array([streams[0].rate for streams in suite.clients]) * scale
    n = int(rates.sum() * duration)
    client = rng.choice(len(rates), n, p=rates / rates.sum())
    return [(np.cumsum(rng.exponential(1.0 / rates.sum(), n)), client, client)]
