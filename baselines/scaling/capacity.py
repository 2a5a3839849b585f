"""What load one instance sustains, measured by simulation: the throughput that planners need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.routing import router
from envs.simulator import EngineConfig, simulate
from envs.workloads import RequestTable

Ints = npt.NDArray[np.int64]

_GROWTH = 0.02
"""Seconds by which the wait may grow in a second: a queue that is overloaded by more is unstable
and would show in the wait only after a stream longer than is simulated."""

_WARM_UP = 0.2
"""Share of a stream that finds the instance too empty to count."""

_REQUESTS = (10_000, 20_000)
"""Least and most requests of a stream."""

_LEAST = 0.01
"""Least rate tried, in requests in the time that one takes alone."""

_LONGEST_S = 4e6
"""Longest stream [s]; the clock ends at 9e6."""

_RESIDENCES = 40.0
"""Length of a stream, in times that a request takes alone, as far as the most requests allow."""


@dataclass(frozen=True)
class SustainedLoad:
    """The largest load that one instance was found to sustain."""

    requests_per_s: float
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    ttft_s: float
    """Time to first token at that load, at the percentile asked for [s]."""

    @property
    def tokens_per_s(self) -> float:
        """Prompt and output tokens."""
        return self.prompt_tokens_per_s + self.output_tokens_per_s


def sustained_load(
    engine: EngineConfig,
    lengths: RequestTable | npt.ArrayLike,
    *,
    ttft_s: float = 10.0,
    tbt_s: float = math.inf,
    percent: float = 95.0,
    tolerance: float = 0.02,
    seed: int = 0,
) -> SustainedLoad:
    """Find the largest Poisson rate of requests that one instance serves within limits.

    A rate is sustained if the percentiles of TTFT and of the mean time between tokens stay within
    their limits, and the wait does not grow by more than 0.02 s a second from the first to the
    second half of the stream. It is found by doubling and bisection, with the same gaps and lengths
    at every rate. A stream has 10,000 requests, or as many as come in 40 times the time that one
    takes alone, up to 20,000; its first fifth is not counted. Cached by its arguments.

    Args:
        engine: The instance; its model, lane and region do not matter.
        lengths: The mix: a request table, or (n, 2) prompt and output tokens; each as likely as
            any other. Those that never fit the cache are left out.
        ttft_s: Limit of the time to first token [s]; the default is what the authors of
            SageServe wrote into their traces.
        tbt_s: Limit of the mean time between a request's tokens [s].
        percent: Percentile that must be within the limits.
        tolerance: Relative error of the rate.
        seed: Seed of the gaps and of the draws from the mix.

    Raises:
        ValueError: No request of the mix fits the instance, or it misses a limit even at
            a rate at which requests hardly meet.
    """
    if not (ttft_s > 0 and tbt_s > 0 and 0 < percent <= 100 and tolerance > 0):
        raise ValueError(
            f"ttft_s = {ttft_s}, tbt_s = {tbt_s} and tolerance = {tolerance} must be positive, and "
            f"percent = {percent} in (0, 100]"
        )
    mix = _mix(lengths)
    fits = mix.sum(axis=1) - 1 <= engine.largest_request_tokens
    if not fits.any():
        raise ValueError(
            f"none of {len(mix)} requests fits a cache of {engine.largest_request_tokens:,} tokens"
        )
    alone = dataclasses.replace(engine, model="", lane="any", region="", name="")
    return _search(alone, mix[fits].tobytes(), (ttft_s, tbt_s), percent, tolerance, seed)


def sustainable_throughput(
    engine: EngineConfig, lengths: RequestTable | npt.ArrayLike, **options: Any
) -> float:
    """Give the prompt and output tokens/s that one instance sustains: see `sustained_load`."""
    return sustained_load(engine, lengths, **options).tokens_per_s


def _mix(lengths: RequestTable | npt.ArrayLike) -> Ints:
    if isinstance(lengths, RequestTable):
        return np.stack([lengths.prompt_tokens, lengths.output_tokens], axis=1)
    mix = np.asarray(lengths)
    if mix.ndim != 2 or mix.shape[1] != 2 or not len(mix) or mix.min() < 1:
        raise ValueError(
            f"lengths of shape {mix.shape}: give a request table, or (n, 2) prompt and output "
            "tokens of 1 or more"
        )
    return mix.astype(np.int64)


@lru_cache(maxsize=256)
def _search(
    engine: EngineConfig,
    mix: bytes,
    limits: tuple[float, float],
    percent: float,
    tolerance: float,
    seed: int,
) -> SustainedLoad:
    rows = np.frombuffer(mix, np.int64).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    drawn = rows[rng.integers(0, len(rows), _REQUESTS[1])]
    gaps = rng.exponential(1.0, _REQUESTS[1])
    few = drawn[:400]
    # One by one: each arrives when the one before has long gone.
    apart = _latencies(engine, few, np.arange(400.0) * _longest_s(engine, few))
    residence = float(apart["e2e_s"].mean())

    def judged(rate: float) -> SustainedLoad | None:
        count = int(min(np.clip(rate * residence * _RESIDENCES, *_REQUESTS), rate * _LONGEST_S))
        arrival, part = np.cumsum(gaps[:count]), drawn[:count]
        arrival *= count / (rate * arrival[-1])  # exactly this rate, without the luck of the draw
        latencies = _latencies(engine, part, arrival)
        ttft = _judge(latencies, float(arrival[-1]), limits, percent)
        if ttft is None:
            return None
        tokens = part.mean(axis=0) * rate
        return SustainedLoad(rate, float(tokens[0]), float(tokens[1]), ttft)

    best = _descend(judged, 0.25 / residence)
    if best is None:
        ttft = float(np.percentile(apart["ttft_s"], percent))
        raise ValueError(
            f"the limits of {limits[0]:g} s to the first token and {limits[1]:g} s between tokens "
            f"are missed even by requests that hardly meet: {percent:g} % of those that come one "
            f"by one have their first token within {ttft:.3g} s"
        )
    return _bisect(judged, best, tolerance)


def _descend(judged: Callable[[float], SustainedLoad | None], rate: float) -> SustainedLoad | None:
    """Halve the rate until it passes, None if it does not at the least rate tried."""
    least = 4.0 * _LEAST * rate
    while (best := judged(rate)) is None:
        if rate < least:
            return None
        rate /= 2.0
    return best


def _bisect(
    judged: Callable[[float], SustainedLoad | None], best: SustainedLoad, tolerance: float
) -> SustainedLoad:
    """Find the largest rate that passes: up in doublings, then between the last two."""
    while (more := judged(2.0 * best.requests_per_s)) is not None:
        best = more
    low, high = best.requests_per_s, 2.0 * best.requests_per_s
    while high > low * (1.0 + tolerance):
        middle = math.sqrt(low * high)
        found = judged(middle)
        if found is None:
            high = middle
        else:
            best, low = found, middle
    return best


def _judge(
    latencies: dict[str, npt.NDArray[np.float64]],
    duration_s: float,
    limits: tuple[float, float],
    percent: float,
) -> float | None:
    """Give the percentile of TTFT of a stream that was sustained, else None."""
    start = int(len(latencies["ttft_s"]) * _WARM_UP)
    ttft, tbt = latencies["ttft_s"][start:], latencies["tbt_s"][start:]
    highest = float(np.percentile(ttft, percent))
    tbt = tbt[~np.isnan(tbt)]  # answers of one token have none
    if highest > limits[0] or (len(tbt) and np.percentile(tbt, percent) > limits[1]):
        return None
    half = len(ttft) // 2
    growth = ttft[half:].mean() - ttft[:half].mean()
    return highest if growth <= _GROWTH * duration_s * (1.0 - _WARM_UP) / 2.0 else None


def _latencies(
    engine: EngineConfig, lengths: Ints, arrival_s: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.float64]]:
    table = RequestTable.from_columns(
        arrival_s=arrival_s, prompt_tokens=lengths[:, 0], output_tokens=lengths[:, 1]
    )
    if engine.admission == "reserve" or engine.scheduler.uses_prediction:
        table = table.with_predictions(sigma=0)
    return simulate(table, [engine], router("round_robin")).latencies()


def _longest_s(engine: EngineConfig, lengths: Ints) -> float:
    """Bound the time of any of these requests alone."""
    prompt, output = (float(value) for value in lengths.max(axis=0))
    cost = engine.cost
    work = prompt * (prompt + 1.0) / 2.0
    steps = math.ceil(prompt / engine.max_batched_tokens)
    prefill = cost.step_time(0, 0, min(prompt, engine.max_batched_tokens), 0.0)
    tail = steps * prefill + cost.attention_s * work
    return float(tail + output * cost.step_time(1, prompt + output)) + 1.0
