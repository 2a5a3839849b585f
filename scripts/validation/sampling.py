"""The state of one simulated engine, second by second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.simulator import EngineConfig, simulate
from envs.simulator.layout import PS_PER_S
from envs.simulator.policy import HOLD
from envs.simulator.view import (
    generated_tokens,
    in_service,
    iterations_done,
    prompt_tokens,
    waiting,
)
from envs.workloads import RequestTable

EVERY_S = 1.0
"""Seconds between looks."""


@dataclass(frozen=True)
class Samples:
    """Looks at one engine.

    Attributes:
        seconds: (n,) when.
        running: (n,) requests in service.
        waiting: (n,) requests that wait.
        kv_tokens: (n,) KV in use in tokens, whole blocks.
    """

    seconds: np.ndarray
    running: np.ndarray
    waiting: np.ndarray
    kv_tokens: np.ndarray

    def at(self, seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Values at other times: those of the last look; 0 before the first and after the end."""
        last = np.searchsorted(self.seconds, seconds, side="right") - 1
        known = (last >= 0) & (seconds < self.seconds[-1] + EVERY_S)
        return np.where(known, values[np.maximum(last, 0)], 0.0)


class _Looking:
    """A router for one instance that dispatches at once, and notes what it sees every second.

    The first request of the table is never dispatched while there is other work: it stays in
    the router queue, so that a decision is due at every look.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.rows: list[tuple[float, int, int, int]] = []

    def __call__(
        self,
        now_ps: int,
        instances: np.ndarray,
        requests: np.ndarray,
        running: np.ndarray,
        candidates: np.ndarray,
        parameters: np.ndarray,
        memory: np.ndarray,
    ) -> int:
        if candidates[1] >= 0:
            return 1
        if now_ps % round(EVERY_S * PS_PER_S) == 0:
            self.rows.append(self._look(now_ps, instances, requests, running))
        return HOLD

    def _look(self, now_ps: int, instances: Any, requests: Any, running: Any) -> Any:
        done = iterations_done(instances, 0, now_ps)
        count = in_service(instances, 0)
        blocks = 0
        for j in range(count):
            tokens = prompt_tokens(requests, running[0, j]) + generated_tokens(
                instances, requests, running, 0, j, done
            )
            blocks += -(-int(tokens) // self.block)
        return now_ps / PS_PER_S, count, waiting(instances, 0), blocks * self.block


def sampled(table: RequestTable, engine: EngineConfig) -> Samples:
    """Serve a table with one engine, and look at it every second until it is done."""
    looking = _Looking(engine.kv_block_tokens)
    with_watch = RequestTable.from_columns(
        arrival_s=np.concatenate([[0.0], table.arrival_s]),
        prompt_tokens=np.concatenate([[1], table.prompt_tokens]),
        output_tokens=np.concatenate([[1], table.output_tokens]),
    )
    simulate(with_watch, [engine], looking, window=2, poll_interval_s=EVERY_S)
    seconds, running, waits, kv = np.array(looking.rows, float).T
    return Samples(seconds, running, waits, kv)
