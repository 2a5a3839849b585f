"""Configuration of one serving instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from envs.simulator.layout import PS_PER_S
from envs.simulator.scheduler import Scheduler, scheduler

if TYPE_CHECKING:
    from envs.hardware import CostModel

Batching = Literal["prefill_first", "chunked", "slora", "static"]
Admission = Literal["growth", "reserve", "oracle"]
QueueOrder = Literal["fcfs", "sjf"]
Lane = Literal["any", "interactive", "batch"]

BATCHING: tuple[Batching, ...] = ("prefill_first", "chunked", "slora", "static")
ADMISSION: tuple[Admission, ...] = ("growth", "reserve", "oracle")
QUEUE_ORDERS: tuple[QueueOrder, ...] = ("fcfs", "sjf")
"""Orders of the router queue."""
LANES: tuple[Lane, ...] = ("any", "interactive", "batch")
"""Tiers that an instance serves: all, IW-F and IW-N, or NIW."""

_LIMITS = {
    "kv_capacity_tokens": (1, 2**40),
    "max_num_seqs": (1, 2**20),
    "max_batched_tokens": (1, 2**24),
    "gpus": (1, 2**20),
    "adapter_tokens": (0, 2**20),
    "kv_block_tokens": (1, 2**20),
    "decode_steps": (0, 2**20),
    "intake_per_iteration": (0, 2**20),
    "skip_ahead": (0, 2**20),
}
"""Least and largest values: step times are tables by sequences and by tokens."""
_LATEST_S = 9e6
"""Latest time of an outage, as of an arrival: 104 days."""


@dataclass(frozen=True)
class EngineConfig:
    """One instance: a model replica on one VM with its engine limits.

    Attributes:
        cost: Step-time model of the (model, GPU, tensor parallel, engine) combination.
        kv_capacity_tokens: Tokens that the KV cache holds.
        max_num_seqs: Requests in service (prefill and decode) at most.
        max_batched_tokens: Prefill tokens of one iteration (`prefill_first`) or the token budget
            shared by decodes and prefill chunks (`chunked`).
        batching: `prefill_first` (vLLM v0), `chunked` (vLLM v1, Sarathi), `slora` (S-LoRA and the
            VTC artifact) or `static` (request-level batches).
        queue: Scheduler of the waiting queue, or the name of one in
            `envs.simulator.scheduler.SCHEDULERS`.
        watermark: Fraction of the KV cache kept free at admission.
        admission: KV that a request must find at admission: for what it has (`growth`), for what
            all in service are predicted to grow to (`reserve`), or for what they will grow to
            (`oracle`: it knows true lengths, and serves to reproduce papers).
        adapter_tokens: KV tokens that each tenant in service takes besides (LoRA adapters).
        kv_block_tokens: Tokens of a KV block; occupancies are rounded up to whole blocks.
        decode_steps: Decode iterations between prefill iterations (`slora`).
        prefix_cache: Whether KV that was given up is found again until it is overwritten.
        intake_per_iteration: Requests that the scheduler takes in after an iteration; 0 takes
            all at once (papers: FairServe's artifact reads about 2 messages a step).
        skip_ahead: Waiting requests that do not fit which an admission may pass over to try those
            behind them; 0 stops at the first (head of line, as the published systems do).
        model: Model that the instance serves; an empty name serves any.
        region: Region that it stands in.
        lane: Tiers that it serves: `any`, `interactive` (IW-F, IW-N) or `batch` (NIW).
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
    queue: str | Scheduler = "fcfs"
    watermark: float = 0.01
    admission: Admission = "growth"
    adapter_tokens: int = 0
    kv_block_tokens: int = 1
    decode_steps: int = 10
    prefix_cache: bool = False
    intake_per_iteration: int = 0
    skip_ahead: int = 0
    model: str = ""
    region: str = ""
    lane: Lane = "any"
    name: str = ""
    gpus: int = 1
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        for field, (least, most) in _LIMITS.items():
            value = getattr(self, field)
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not least <= value <= most:
                raise ValueError(
                    f"{field} must be a whole number from {least} to {most:,}, not {value}"
                )
        if self.price_per_hour < 0:
            raise ValueError(f"price_per_hour must not be negative, and is {self.price_per_hour}")
        if not 0.0 <= self.watermark < 1.0:
            raise ValueError(f"watermark must be in [0, 1), not {self.watermark}")
        if self.batching not in BATCHING:
            raise ValueError(f"batching must be one of {BATCHING}, not {self.batching!r}")
        if self.admission not in ADMISSION:
            raise ValueError(f"admission must be one of {ADMISSION}, not {self.admission!r}")
        if self.admission != "growth" and self.kv_capacity_tokens >= 2**31:
            raise ValueError(f"admission {self.admission!r} needs a KV cache below 2^31 tokens")
        if self.lane not in LANES:
            raise ValueError(f"lane must be one of {LANES}, not {self.lane!r}")
        scheduler(self.queue)
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
        blocks = (self.kv_capacity_tokens - self.watermark_tokens) // self.kv_block_tokens
        return blocks * self.kv_block_tokens

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler of the waiting queue."""
        return scheduler(self.queue)


@dataclass(frozen=True)
class RateLimit:
    """Requests a minute that each tenant may send (docs/simulator.md, "Rate limit").

    Attributes:
        requests_per_minute: Requests that may enter a waiting queue in any 60 s.
        kill_interactions: Whether a rejected call ends its interaction (FairServe's RPM).

    Raises:
        ValueError: The limit is out of range.
    """

    requests_per_minute: int
    kill_interactions: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.requests_per_minute <= 2**20:
            raise ValueError(
                f"requests_per_minute must be from 1 to 2^20, not {self.requests_per_minute}"
            )


@dataclass(frozen=True)
class Backlog:
    """Requests of the tier NIW wait for room (docs/simulator.md, "Elastic fleets").

    Published by SageServe (arXiv:2502.14617): below 60 % of KV in use one is released, below 50 %
    two, and one that is older than 10 h has the priority of interactive ones.

    Attributes:
        low: Share of the pool's KV in use below which `at_low` are released at a signal.
        middle: Share below which `at_middle` are.
        at_low: Requests.
        at_middle: Requests.
        promote_s: Age in seconds at which one is released whatever the use.

    Raises:
        ValueError: An option is out of range.
    """

    low: float = 0.5
    middle: float = 0.6
    at_low: int = 2
    at_middle: int = 1
    promote_s: float = 36_000.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.middle:
            raise ValueError(f"low ({self.low}) must be from 0 to middle ({self.middle})")
        if min(self.at_low, self.at_middle) < 0 or max(self.at_low, self.at_middle) > 2**20:
            raise ValueError("a signal releases from 0 to 2^20 requests")
        if not self.promote_s >= 0:
            raise ValueError(f"promote_s must not be negative, and is {self.promote_s}")


@dataclass(frozen=True)
class Outage:
    """An instance that fails and comes back (docs/simulator.md, "Failures").

    Attributes:
        instance: Its place in the fleet.
        start_s: When it fails, seconds.
        end_s: When it is back.

    Raises:
        ValueError: The outage does not end after it begins.
    """

    instance: int
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s <= _LATEST_S or self.start_ps == self.end_ps:
            raise ValueError(
                f"an outage begins at 0 s or later and ends after that, by {_LATEST_S:g} s, not "
                f"{self.start_s} s to {self.end_s} s"
            )

    @property
    def start_ps(self) -> int:
        """When it fails, ps."""
        return round(self.start_s * PS_PER_S)

    @property
    def end_ps(self) -> int:
        """When it is back, ps."""
        return round(self.end_s * PS_PER_S)
