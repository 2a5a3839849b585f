"""Configuration of one serving instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from envs.hardware import CostModel

Batching = Literal["prefill_first", "chunked"]
QueueOrder = Literal["fcfs", "sjf"]

BATCHING: tuple[Batching, ...] = ("prefill_first", "chunked")
QUEUE_ORDERS: tuple[QueueOrder, ...] = ("fcfs", "sjf")


_LIMITS = {
    "kv_capacity_tokens": 2**40,
    "max_num_seqs": 2**20,
    "max_batched_tokens": 2**24,
    "gpus": 2**20,
}
"""Largest values: step times are tables by sequences and by tokens."""


@dataclass(frozen=True)
class EngineConfig:
    """One instance: a model replica on one VM with its engine limits.

    Attributes:
        cost: Step-time model of the (model, GPU, tensor parallel, engine) combination.
        kv_capacity_tokens: Tokens that the KV cache holds.
        max_num_seqs: Requests in service (prefill and decode) at most.
        max_batched_tokens: Prefill tokens of one iteration (`prefill_first`) or the token budget
            shared by decodes and prefill chunks (`chunked`).
        batching: `prefill_first` (vLLM v0) or `chunked` (vLLM v1, Sarathi).
        queue: Order of the waiting queue: first come first served, or shortest predicted first.
        watermark: Fraction of the KV cache kept free at admission.
        name: Label in reports.
        gpus: GPUs that the instance occupies.
        price_per_hour: Dollars per hour for the whole instance, NaN where unknown.

    Raises:
        ValueError: A limit is out of range; the message names it.
    """

    cost: CostModel
    kv_capacity_tokens: int
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    batching: Batching = "prefill_first"
    queue: QueueOrder = "fcfs"
    watermark: float = 0.01
    name: str = ""
    gpus: int = 1
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        for field, most in _LIMITS.items():
            value = getattr(self, field)
            if not isinstance(value, int | np.integer) or not 1 <= value <= most:
                raise ValueError(f"{field} must be a whole number from 1 to {most:,}, not {value}")
        if self.price_per_hour < 0:
            raise ValueError(f"price_per_hour must not be negative, and is {self.price_per_hour}")
        if not 0.0 <= self.watermark < 1.0:
            raise ValueError(f"watermark must be in [0, 1), not {self.watermark}")
        if self.batching not in BATCHING:
            raise ValueError(f"batching must be one of {BATCHING}, not {self.batching!r}")
        if self.queue not in QUEUE_ORDERS:
            raise ValueError(f"queue must be one of {QUEUE_ORDERS}, not {self.queue!r}")
        if self.batching == "chunked" and self.max_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"chunked batching needs max_batched_tokens ({self.max_batched_tokens}) of at "
                f"least max_num_seqs ({self.max_num_seqs}), so that every decode gets its token"
            )

    @property
    def watermark_tokens(self) -> int:
        """KV tokens kept free at admission."""
        return int(self.watermark * self.kv_capacity_tokens)

    @property
    def largest_request_tokens(self) -> int:
        """Largest `prompt + output - 1` tokens that the instance can serve."""
        return self.kv_capacity_tokens - self.watermark_tokens
