"""One simulation as data, which prints itself as the code that builds it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.hardware import StepTables
from envs.simulator import EngineConfig, Scheduler
from tests.simulator.elastic import Elastic
from tests.simulator.gates import Given, Judges
from tests.simulator.schedulers import Order


class _Brief:
    """Dataclasses that print only what differs from the defaults."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._changed())})"

    def _changed(self) -> list[str]:
        return [f"{name}={value!r}" for name, value in changed(self).items()]


def changed(thing: Any) -> dict[str, Any]:
    """Give the fields of a dataclass that differ from their defaults."""
    values = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    defaults = {field.name: field.default for field in dataclasses.fields(thing)}
    return {name: value for name, value in values.items() if value != defaults[name]}


@dataclass(frozen=True, repr=False)
class TableCost(_Brief):
    """Step-time tables made by hand; takes the place of a `CostModel`. All fields in ps."""

    decode_base: int
    decode_step: int
    prefill_base: int
    prefill_step: int
    sequence_step: int = 0
    bump: int = 0  # on every second batch size: the tables need not be monotone
    context_ps: int = 0
    mixed_context_ps: int = 0
    attention_ps: int = 0
    prefill_tail_ps: int = 0

    def check_range(self, *largest: int) -> None:
        """Any range will do."""

    def tables(self, max_num_seqs: int, max_batched_tokens: int) -> StepTables:
        """Lay the tables out, as `CostModel.tables` does."""
        batch = np.arange(max_num_seqs + 1, dtype=np.int64)
        tokens = np.arange(max_batched_tokens + 1, dtype=np.int64)
        return StepTables(
            decode_ps=self.decode_base + self.decode_step * batch + self.bump * (batch % 2),
            prefill_ps=self.prefill_base + self.prefill_step * tokens + self.bump * (tokens % 2),
            sequence_ps=self.sequence_step * batch,
            context_ps=self.context_ps,
            mixed_context_ps=self.mixed_context_ps,
            attention_ps=self.attention_ps,
            prefill_tail_ps=self.prefill_tail_ps,
        )


@dataclass(frozen=True, repr=False)
class Engine(_Brief):
    """The fields of `EngineConfig` that matter here, its scheduler by name."""

    cost: TableCost
    kv_capacity_tokens: int
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    batching: str = "prefill_first"
    queue: str | Order | Scheduler = "fcfs"
    watermark: float = 0.01
    admission: str = "growth"
    adapter_tokens: int = 0
    kv_block_tokens: int = 1
    decode_steps: int = 10
    prefix_cache: bool = False
    intake_per_iteration: int = 0
    skip_ahead: int = 0
    model: str = ""
    region: str = ""
    lane: str = "any"

    def config(self) -> EngineConfig:
        """Give the same as the kernel takes it."""
        fields = changed(self)
        if isinstance(self.queue, Order):
            fields["queue"] = self.queue.scheduler()
        return EngineConfig(**fields)


@dataclass(frozen=True, repr=False)
class Row(_Brief):
    """One request."""

    arrival_ps: int
    prompt: int
    output: int
    predicted: int = 1
    tenant: int = 0
    application: int = 0
    tier: int = 0
    model: str = ""
    region: str = ""
    deadline_ps: int | None = None
    priority: int = 0
    interaction: int | None = None  # None: its own
    call_index: int = 0
    prefix: int = -1
    prefix_tokens: int = 0
    weight: float = 1.0
    think_ps: int = 0  # before it


@dataclass(frozen=True)
class Script:
    """A policy that looks at nothing: the answer follows from decision number and time."""

    seed: int
    hold_percent: int = 0
    stray_percent: int = 0  # of answers far outside the range

    def action(self, number: int, now_ps: int, actions: int) -> int:
        """Answer decision `number` at `now_ps`; 0..actions-1 dispatches."""
        mixed = self.seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + now_ps
        mixed %= 1 << 64
        mixed = (mixed ^ (mixed >> 31)) * 0x94D049BB133111EB % (1 << 64)
        mixed ^= mixed >> 29
        percent, rest = mixed % 100, mixed // 100
        if percent < self.hold_percent:
            return actions
        if percent < self.hold_percent + self.stray_percent:
            return (-1, actions + 1, 10**15, -(10**15))[rest % 4]
        return rest % actions


@dataclass(frozen=True)
class Limit:
    """A rate limit."""

    requests_per_minute: int
    kill_interactions: bool = False


@dataclass(frozen=True, repr=False)
class Case(_Brief):
    """One simulation."""

    requests: tuple[Row, ...]
    fleet: tuple[Engine, ...]
    script: Script
    queue_order: str = "fcfs"
    interval_ps: int = 0
    window: int = 1
    closed_loop: bool = False
    rate_limit: Limit | None = None
    outages: tuple[tuple[int, int, int], ...] = ()  # instance, from and to in ps
    poll_ps: int = 0
    overrun_tokens: int = 1
    overrun_percent: int = 0
    judges: Judges | Given | None = None
    tenant_weights: tuple[float, ...] = ()  # by number of the tenant; empty: all 1
    elastic: Elastic | None = None

    @property
    def calls(self) -> int:
        """Calls that every interaction is declared to have."""
        return 1 + max(row.call_index for row in self.requests)

    def describe(self) -> str:
        """Give the case as code that builds it."""
        rows = "".join(f"    {row!r},\n" for row in self.requests)
        fleet = "".join(f"    {engine!r},\n" for engine in self.fleet)
        rest = [text for text in self._changed() if not text.startswith(("requests=", "fleet="))]
        return f"Case(requests=(\n{rows}), fleet=(\n{fleet}), {', '.join(rest)})"
