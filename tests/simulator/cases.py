"""Small, nasty simulations: one recipe, drawn by hypothesis or by a NumPy generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from envs.hardware import StepTables
from envs.simulator import EngineConfig

T = TypeVar("T")


class Source(Protocol):
    """Where the recipe takes its choices from."""

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""


class NumpySource:
    """Choices of a seeded generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Take the generator."""
        self.rng = rng

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return int(self.rng.integers(low, high, endpoint=True))

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]


@dataclass(frozen=True)
class TableCost:
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
class Case:
    """One simulation."""

    requests: tuple[tuple[int, int, int, int], ...]  # arrival_ps, prompt, output, predicted
    fleet: tuple[EngineConfig, ...]
    script: Script
    queue_order: str = "fcfs"
    interval_ps: int = 0
    window: int = 1

    def describe(self) -> str:
        """Give the case as code that builds it."""
        fleet = "".join(f"    {engine!r},\n" for engine in self.fleet)
        rows = "".join(f"    {row!r},\n" for row in self.requests)
        rest = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in ("script", "queue_order", "interval_ps", "window")
        )
        return f"Case(requests=(\n{rows}), fleet=(\n{fleet}), {rest})"


def build_case(source: Source) -> Case:
    """Draw a case: few tokens, tight caches and many exact ties between events."""
    ties = source.choice((True, True, False))
    # The large unit gives steps of milliseconds, where rounding in a float root would show.
    unit = source.choice((1000, 1000, 999_999_937))
    long = source.integer(0, 9) == 9
    # Short prompts with long answers make the cache overflow.
    largest_prompt, largest_output = source.choice(
        ((3, 300), (40, 300)) if long else ((3, 30), (3, 12), (12, 12), (12, 1), (60, 30), (60, 3))
    )
    count = source.integer(1, 8 if long else 40)

    size = source.integer(1, 4)
    costs = [_cost(source, unit, ties)]
    for _ in range(1, size):
        costs.append(source.choice((costs[0], _cost(source, unit, ties))))
    # A one-sequence decode iteration, so that gaps and ticks meet iteration ends.
    step = int(costs[0].tables(1, 1).decode_ps[1]) + costs[0].context_ps * (largest_prompt // 2)

    requests = []
    arrival = source.choice((0, 0, step))
    prediction = source.choice(("exact", "random", "constant"))
    for _ in range(count):
        output = source.integer(1, largest_output)
        predicted = {
            "exact": output,
            "random": source.integer(1, largest_output),
            "constant": 5,
        }[prediction]
        requests.append((arrival, source.integer(1, largest_prompt), output, predicted))
        arrival += _gap(source, unit, step)

    needs = [prompt + output - 1 for _, prompt, output, _ in requests]
    return Case(
        requests=tuple(requests),
        fleet=tuple(_engine(source, cost, needs) for cost in costs),
        script=Script(
            seed=source.integer(0, 2**32 - 1),
            hold_percent=source.choice((0, 0, 10, 50, 100)),
            stray_percent=source.choice((0, 0, 20)),
        ),
        queue_order=source.choice(("fcfs", "sjf")),
        interval_ps=source.choice((0, 0, 0, step, 3 * step, step + 1, 10 * step)),
        window=source.integer(1, 3),
    )


def random_case(seed: int) -> Case:
    """Draw the case of a seed."""
    return build_case(NumpySource(np.random.default_rng(seed)))


def _cost(source: Source, unit: int, ties: bool) -> TableCost:
    """Draw tables: multiples of `unit` ps where ties are wanted, else anything of that size."""

    def amount(low: int, high: int) -> int:
        if ties:
            return unit * source.integer(low, high)
        return source.integer(low * unit, high * unit + unit - 1)

    prefill_step = amount(0, 2)
    context = source.choice((0, 0, 1, unit, amount(0, 3)))
    return TableCost(
        decode_base=amount(1, 5),
        decode_step=source.choice((0, amount(0, 2))),
        prefill_base=amount(1, 5),
        prefill_step=prefill_step,
        sequence_step=source.choice((0, 0, unit, -prefill_step)),
        bump=source.choice((0, 0, unit)),
        context_ps=context,
        mixed_context_ps=source.choice((0, context, amount(0, 2))),
        attention_ps=source.choice((0, 0, 1, unit)),
        prefill_tail_ps=source.choice((0, prefill_step, 500)),
    )


def _gap(source: Source, unit: int, step: int) -> int:
    """Draw the time to the next arrival, ps."""
    kind = source.integer(0, 9)
    if kind <= 3:
        return 0
    if kind <= 6:
        return step * source.integer(1, 3)
    if kind == 7:
        return unit * source.integer(1, 20)
    if kind == 8:
        return source.integer(1, 4 * step)
    return step * source.integer(20, 200)


def _engine(source: Source, cost: TableCost, needs: Sequence[int]) -> EngineConfig:
    """Draw limits: caches that one request fills exactly, that thrash, or that never bind."""
    batching = source.choice(("prefill_first", "chunked"))
    watermark = source.choice((0.0, 0.01, 0.1))
    seqs = source.choice((source.integer(1, 6), source.integer(4, 6)))
    need = source.choice((max(needs), max(needs), source.choice(needs), 2 * max(needs)))
    exact = exact_capacity(need, watermark)
    capacity = source.choice((exact, exact, exact + source.integer(0, 9), 10**6))
    if batching == "chunked":
        tokens = seqs + source.choice((0, 1, source.integer(0, 10), 200))
    else:
        tokens = source.choice((1, source.integer(1, 20), 200))
    return EngineConfig(
        cost=cost,
        kv_capacity_tokens=capacity,
        max_num_seqs=seqs,
        max_batched_tokens=tokens,
        batching=batching,
        queue=source.choice(("fcfs", "sjf")),
        watermark=watermark,
    )


def exact_capacity(need: int, watermark: float) -> int:
    """Give the smallest KV capacity whose part above the watermark is at least `need` tokens."""
    capacity = need
    while capacity - math.floor(watermark * capacity) < need:
        capacity += 1
    return capacity
