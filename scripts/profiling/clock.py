"""Timing a function on a device: warm-up, repetitions, median and spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Run = Callable[[], object]
_FEWEST = 3


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one thing, in seconds."""

    median_s: float
    p10_s: float
    p90_s: float
    repeats: int


def measure(
    run: Run, device: torch.device, warmup: int, repeats: int, budget_s: float = 2.0
) -> Timing:
    """Time `run`, on CUDA by events, elsewhere by `time.perf_counter`.

    Args:
        run: What to time.
        device: Where it runs.
        warmup: Calls before the first that counts.
        repeats: Calls that count.
        budget_s: Time after which no more calls are made, three at least [s].
    """
    timed = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    start = time.perf_counter()
    for call in range(warmup):
        timed(run)
        if call and time.perf_counter() - start > budget_s:
            break
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < repeats:
        found.append(timed(run))
        if len(found) >= _FEWEST and time.perf_counter() - start > budget_s:
            break
    low, middle, high = np.percentile(found, [10, 50, 90])
    return Timing(float(middle), float(low), float(high), len(found))


def graphed(run: Run) -> Run:
    """Record `run` as a CUDA graph and give its replay, which launches all kernels at once."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # libraries set themselves up in the first calls, not to be recorded
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def settle(run: Run, device: torch.device, seconds: float) -> None:
    """Keep the device busy until its clocks and temperature are those of a loaded one."""
    timed = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        timed(run)


def _cuda_seconds(run: Run) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) * 1e-3


def _cpu_seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
