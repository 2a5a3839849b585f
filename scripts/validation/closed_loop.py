"""A benchmark client in the simulator: so many connections, each with one call at a time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from envs.hardware import CostModel
from envs.simulator import EngineConfig, simulate
from envs.simulator.config import Batching
from envs.workloads import RequestTable
from scripts.validation.engines import latencies, only

CALLS = 10
"""Calls of each client: InferenceMAX sends ten requests for each of its connections."""


@dataclass(frozen=True)
class Harness:
    """How a measurement was made, as far as latencies depend on it.

    All clients send their first call at once, and each further one when the last has ended.

    Attributes:
        batching: Of the engine.
        max_batched_tokens: Of the engine.
        shortest: Lengths are uniform from this share of the stated ones up to them.
    """

    batching: Batching
    max_batched_tokens: int
    shortest: float

    def __str__(self) -> str:
        lengths = "fixed lengths"
        if self.shortest < 1:
            lengths = f"lengths from {self.shortest:.0%} of the stated ones up to them"
        return f"{self.batching} batching of {self.max_batched_tokens:,} tokens, {lengths}"


@dataclass(frozen=True)
class Load:
    """One point of a measurement.

    Attributes:
        isl: Stated prompt tokens.
        osl: Stated output tokens.
        concurrency: Clients.
    """

    isl: int
    osl: int
    concurrency: int


def calls(load: Load, harness: Harness, seed: int) -> RequestTable:
    """The calls of all clients, the first of each at time 0."""
    rng = np.random.default_rng([seed, load.isl, load.osl, load.concurrency])
    count = load.concurrency * CALLS

    def lengths(most: int) -> np.ndarray:
        return rng.integers(max(int(most * harness.shortest), 1), most, count, endpoint=True)

    return RequestTable.from_columns(
        arrival_s=np.zeros(count),
        prompt_tokens=lengths(load.isl),
        output_tokens=lengths(load.osl),
        interaction=np.tile(np.arange(load.concurrency), CALLS),
        call_index=np.repeat(np.arange(CALLS), load.concurrency),
        calls_in_interaction=np.full(count, CALLS),
    )


def measure(cost: CostModel, load: Load, harness: Harness, seed: int) -> tuple[float, float]:
    """Simulate one point; returns mean seconds to the first token and mean seconds a token.

    The KV cache holds the calls of all clients: how precise its entries are is not recorded.
    """
    # The harness sets how many tokens a step has; the fit saw only lengths and concurrency.
    anywhere = dataclasses.replace(cost, fit_seqs=0, fit_tokens=0, fit_context=0)
    engine = EngineConfig(
        cost=anywhere,
        kv_capacity_tokens=load.concurrency * (load.isl + load.osl),
        max_num_seqs=load.concurrency,
        max_batched_tokens=max(harness.max_batched_tokens, load.concurrency),
        batching=harness.batching,
        watermark=0.0,
    )
    table = calls(load, harness, seed)
    found = latencies(simulate(table, [engine], only, closed_loop=True))
    return float(np.nanmean(found["ttft"])), float(np.nanmean(found["tpot"]))
