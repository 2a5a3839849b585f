"""Arrival processes: times of n requests at a mean rate, each drawn from a given generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Rng = np.random.Generator


def poisson(rate: float, n: int, rng: Rng) -> Times:
    """Poisson process: exponential gaps of mean 1/rate.

    Args:
        rate: Mean arrivals per second.
        n: Number of arrivals.
        rng: Source of randomness.

    Returns:
        (n,) sorted times in seconds; the first comes one gap after 0.

    Raises:
        ValueError: `rate` or `n` is not positive and finite (so for every process here).
    """
    _check(rate, n)
    gaps = rng.standard_exponential(n)
    gaps *= 1.0 / rate
    return np.cumsum(gaps, out=gaps)


def gamma(rate: float, n: int, rng: Rng, cv: float = 2.0) -> Times:
    """Renewal process with gamma gaps: coefficient of variation `cv`, mean 1/rate.

    Shape 1/cv^2 and scale cv^2/rate; cv 1 is Poisson, more is bursty. Arguments and result as
    `poisson`.
    """
    _check(rate, n, cv=cv)
    return np.cumsum(rng.gamma(cv**-2, cv**2 / rate, n))


def uniform(rate: float, n: int, rng: Rng | None = None) -> Times:
    """Equal gaps of 1/rate, the first arrival at 0. Arguments and result as `poisson`."""
    _check(rate, n)
    return np.arange(n, dtype=np.float64) / rate


def at_once(rate: float, n: int, rng: Rng | None = None) -> Times:
    """All n requests at time 0; the rate has no effect. Arguments and result as `poisson`."""
    _check(rate, n)
    return np.zeros(n)


def mmpp(
    rate: float,
    n: int,
    rng: Rng,
    burst_factor: float = 5.0,
    burst_share: float = 0.1,
    mean_burst_s: float = 10.0,
) -> Times:
    """Two-state Markov-modulated Poisson process: calm and burst periods of exponential length.

    Args:
        rate: Mean arrivals per second over a long run.
        n: Number of arrivals.
        rng: Source of randomness.
        burst_factor: Rate in a burst over the mean rate; at most 1/burst_share.
        burst_share: Share of the time spent in bursts, in (0, 1).
        mean_burst_s: Mean length of a burst in seconds.

    Returns:
        (n,) sorted times in seconds. The first state is drawn from its long-run share.

    Raises:
        ValueError: A parameter is out of range.
    """
    _check(rate, n, burst_factor=burst_factor, mean_burst_s=mean_burst_s)
    if not 0 < burst_share < 1 or burst_factor * burst_share > 1:
        raise ValueError(
            f"burst_share {burst_share} must lie in (0, 1) with burst_factor x burst_share <= 1"
        )
    calm_rate = rate * (1 - burst_share * burst_factor) / (1 - burst_share)
    rates = (calm_rate, rate * burst_factor)
    lengths = (mean_burst_s * (1 - burst_share) / burst_share, mean_burst_s)
    state = int(rng.random() < burst_share)
    pieces: list[Times] = []
    start, count = 0.0, 0
    while count < n:
        length = rng.exponential(lengths[state])
        # Given their number, the arrivals of a Poisson process are uniform in the interval.
        times = np.sort(rng.random(rng.poisson(rates[state] * length))) * length + start
        pieces.append(times)
        start, count, state = start + length, count + len(times), 1 - state
    return np.concatenate(pieces)[:n]


PROCESSES: dict[str, Callable[..., Times]] = {
    "poisson": poisson,
    "gamma": gamma,
    "mmpp": mmpp,
    "uniform": uniform,
    "at_once": at_once,
}
"""The processes by name; each is `f(rate, n, rng, **parameters)`."""


def arrivals(process: str, rate: float, n: int, rng: Rng, **parameters: float) -> Times:
    """Times of the named process.

    Raises:
        ValueError: The name is unknown, or a parameter is out of range.
    """
    if process not in PROCESSES:
        raise ValueError(f"arrival process {process!r} is unknown; choose of {list(PROCESSES)}")
    return PROCESSES[process](rate, n, rng, **parameters)


def within(process: str, rate: float, duration_s: float, rng: Rng, **parameters: float) -> Times:
    """Times of the named process that fall in [0, duration_s); their number is random.

    Raises:
        ValueError: As `arrivals`, or the duration is not positive and finite.
    """
    _check(rate, 1, duration_s=duration_s)
    if process == "at_once":
        return at_once(rate, max(1, round(rate * duration_s)))
    expected = rate * duration_s
    pieces: list[Times] = []
    start = 0.0
    while start < duration_s:
        n = int(expected + 4 * np.sqrt(expected)) + 16
        piece = arrivals(process, rate, n, rng, **parameters) + start
        pieces.append(piece)
        start = float(piece[-1]) + (1.0 / rate if process == "uniform" else 0.0)
    times = np.concatenate(pieces)
    return times[times < duration_s]


def _check(rate: float, n: int, **positive: float) -> None:
    for name, value in {"rate": rate, "n": n, **positive}.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; it must be positive and finite")
