"""What several sections share: S-LoRA's engine, a run on one engine, and latencies of a run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from baselines.routing import router
from baselines.scheduling import scheduler, traits_for
from envs.hardware import CostModel
from envs.hardware.cost_model import OutsideFitWarning
from envs.simulator import EngineConfig, Gate, RateLimit, Result, Scheduler, simulate
from envs.simulator.layout import PS_PER_S
from envs.simulator.served import Served
from envs.workloads import RequestTable


def only(*_: Any) -> int:
    """A router for one instance: every request goes there at once."""
    return 0


def latencies(result: Result) -> dict[str, np.ndarray]:
    """Seconds to the first token, between tokens and to the last one, in table order.

    Returns:
        `ttft`, `tpot` and `latency`, each (n,), NaN for requests that did not finish.
    """
    served = result.requests["finish_ps"] >= 0
    times = {
        name: np.where(served, result.requests[f"{name}_ps"] / PS_PER_S, np.nan)
        for name in ("arrival", "first_token", "finish")
    }
    steps = np.maximum(result.table.output_tokens - 1, 1)
    return {
        "ttft": times["first_token"] - times["arrival"],
        "tpot": (times["finish"] - times["first_token"]) / steps,
        "latency": times["finish"] - times["arrival"],
    }


def slora(
    cost: CostModel,
    kv_capacity_tokens: int,
    max_batched_tokens: int,
    queue: str | Scheduler,
    intake: int = 0,
) -> EngineConfig:
    """S-LoRA's engine: true lengths are known at admission, 32 tokens go to each client.

    Args:
        cost: Step times.
        kv_capacity_tokens: KV cache.
        max_batched_tokens: Tokens of a prefill batch.
        queue: `fcfs`, the name of a scheduler (`baselines.scheduling`), or a scheduler.
        intake: Requests that the scheduler takes in after each iteration; 0 for all.
    """
    if isinstance(queue, str) and queue != "fcfs":
        queue = scheduler(queue)
    return EngineConfig(
        cost=cost,
        kv_capacity_tokens=kv_capacity_tokens,
        max_num_seqs=1_000,
        max_batched_tokens=max_batched_tokens,
        batching="slora",
        admission="oracle",
        adapter_tokens=32,
        watermark=0.0,
        queue=queue,
        intake_per_iteration=intake,
    )


def run_slora(
    table: RequestTable, engine: EngineConfig, limit: RateLimit | None, gate: Gate | None = None
) -> Served:
    """Serve a table with one such engine; a batch may leave what its step times were fitted to."""
    traits: dict[str, Any] = {**traits_for(engine.scheduler, table)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideFitWarning)
        result = simulate(table, [engine], router("jsq"), rate_limit=limit, gate=gate, **traits)
        return Served.of(result)
