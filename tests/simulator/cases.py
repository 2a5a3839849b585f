"""Small, nasty simulations: one recipe, drawn by hypothesis or by a NumPy generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from tests.simulator.case import Case, Engine, Limit, Row, Script, TableCost
from tests.simulator.gates import ARRIVALS, ENDS, LOOKS, Judges
from tests.simulator.schedulers import CHARGES, NAMED, RANKS, Order

T = TypeVar("T")

# In seconds a multiple of a power of two: it passes through floats unharmed over hours.
EIGHTH_OF_A_SECOND = 125 * 10**9


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


def build_case(source: Source) -> Case:
    """Draw a case: few tokens, tight caches, many exact ties between events, most options off."""
    ties = source.choice((True, True, False))
    # The large unit gives steps of milliseconds, where rounding in a float root would show; the
    # largest makes the minute of a rate limit matter.
    limited = source.integer(0, 7) == 7
    unit = EIGHTH_OF_A_SECOND if limited else source.choice((1000, 1000, 999_999_937))
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
    if limited:
        step = math.ceil(step / unit) * unit
    tick = 8 * step if limited else step  # there are few hours in a test

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
        requests.append(Row(arrival, source.integer(1, largest_prompt), output, predicted))
        arrival += _gap(source, unit, step)
    for option in (_tenants, _prefixes, _interactions, _deadlines, _models):
        requests = option(source, requests, step)
    fleet = tuple(_engine(source, cost, requests) for cost in costs)
    fleet = _orders(source, fleet, step)
    if any(row.model for row in requests):
        fleet = tuple(replace(engine, model=source.choice(("", "a", "b"))) for engine in fleet)

    return Case(
        requests=tuple(requests),
        fleet=fleet,
        script=Script(
            seed=source.integer(0, 2**32 - 1),
            hold_percent=source.choice((0, 0, 10, 50, 100)),
            stray_percent=source.choice((0, 0, 20)),
        ),
        queue_order=source.choice(("fcfs", "sjf")),
        interval_ps=source.choice((0, 0, 0, tick, 3 * tick, tick + unit, 10 * tick)),
        window=source.integer(1, 3),
        closed_loop=source.choice((False, False, True)),
        rate_limit=(
            Limit(source.choice((1, 2, 4, 10)), source.choice((False, True)))
            if limited or source.integer(0, 19) == 19
            else None
        ),
        outages=_outages(source, requests, costs, unit, step),
        judges=_judges(source, step, unit),
        poll_ps=source.choice((0, 0, 0, tick, 3 * tick, 10 * tick, tick + unit)),
        overrun_tokens=source.choice((1, 1, 2, 10)),
        overrun_percent=source.choice((0, 0, 20, 150)),
        tenant_weights=source.choice(((), (1.0, 2.0, 0.5, 3.0))),
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
    if unit == EIGHTH_OF_A_SECOND:
        return (*[0] * 4, step, 2 * step, unit, 20 * unit, 480 * unit, 479 * unit)[kind]
    if kind <= 3:
        return 0
    if kind <= 6:
        return step * source.integer(1, 3)
    if kind == 7:
        return unit * source.integer(1, 20)
    if kind == 8:
        return source.integer(1, 4 * step)
    return step * source.integer(20, 200)


def _tenants(source: Source, rows: list[Row], step: int) -> list[Row]:
    """Draw tenants, tiers, priorities and weights: few of each."""
    tenants, others = source.choice((1, 1, 2, 3, 4)), source.choice((False, True))
    return [
        replace(
            row,
            tenant=source.integer(0, tenants - 1),
            application=source.integer(0, tenants - 1) if others else 0,
            tier=source.integer(0, 2) if others else 0,
            priority=source.integer(-1, 2) if others else 0,
            weight=float(source.integer(1, 3)) if others else 1.0,
        )
        for row in rows
    ]


def _prefixes(source: Source, rows: list[Row], step: int) -> list[Row]:
    """Draw shared prefixes, mostly of one length each."""
    prefixes = source.choice((0, 0, 1, 2, 3))
    if prefixes == 0:
        return rows
    lengths = [source.integer(1, 40) for _ in range(prefixes)]

    def drawn(row: Row) -> Row:
        prefix = source.integer(-1, prefixes - 1)
        if prefix < 0:
            return row
        length = source.choice((lengths[prefix], lengths[prefix], source.integer(0, 40)))
        return replace(row, prefix=prefix, prefix_tokens=min(length, row.prompt))

    return [drawn(row) for row in rows]


def _interactions(source: Source, rows: list[Row], step: int) -> list[Row]:
    """Draw interactions of a few calls, and the time that a client thinks before each."""
    longest = source.choice((0, 0, 2, 4))
    if longest == 0:
        return rows
    think = source.choice((0, 0, step, 3 * step))
    calls: dict[int, int] = {}
    drawn = []
    for row in rows:
        unfinished = [name for name, made in calls.items() if made < longest]
        name = source.choice((len(calls), *unfinished, *unfinished))
        index = calls.get(name, 0)
        calls[name] = index + 1
        drawn.append(
            replace(
                row,
                interaction=name,
                call_index=source.choice((index, index, index, index, 0, index + 1)),
                think_ps=source.choice((think, think, 2 * step)),
            )
        )
    return drawn


def _deadlines(source: Source, rows: list[Row], step: int) -> list[Row]:
    """Draw deadlines: none, or some steps after the arrival."""
    if source.choice((True, True, False)):
        return rows
    after = (None, 0, 2 * step, 10 * step, 50 * step)

    def drawn(row: Row) -> Row:
        time = source.choice(after)
        return row if time is None else replace(row, deadline_ps=row.arrival_ps + time)

    return [drawn(row) for row in rows]


def _models(source: Source, rows: list[Row], step: int) -> list[Row]:
    """Draw models, for one case in six; a table has them for all requests or for none."""
    if source.integer(0, 5) < 5:
        return rows
    return [replace(row, model=source.choice(("a", "b", "c"))) for row in rows]


def _engine(source: Source, cost: TableCost, rows: Sequence[Row]) -> Engine:
    """Draw limits: caches that one request fills exactly, that thrash, or that never bind."""
    batching = source.choice(("prefill_first", "chunked", "slora", "static"))
    watermark = source.choice((0.0, 0.01, 0.1))
    seqs = source.choice((source.integer(1, 6), source.integer(4, 6)))
    block = source.choice((1, 1, 1, 2, 4, 16))
    needs = [math.ceil((row.prompt + row.output - 1) / block) * block for row in rows]
    need = source.choice((max(needs), max(needs), source.choice(needs), 2 * max(needs)))
    exact = exact_capacity(need, watermark)
    capacity = source.choice((exact, exact, exact + source.integer(0, 9), 10**6))
    if batching == "chunked":
        tokens = seqs + source.choice((0, 1, source.integer(0, 10), 200))
    else:
        tokens = source.choice((1, source.integer(1, 20), 200))
    return Engine(
        cost=cost,
        kv_capacity_tokens=capacity,
        max_num_seqs=seqs,
        max_batched_tokens=tokens,
        batching=batching,
        watermark=watermark,
        admission=source.choice(("growth", "growth", "growth", "reserve", "oracle")),
        adapter_tokens=source.choice((0, 0, 0, 1, capacity // 5)),
        kv_block_tokens=block,
        decode_steps=source.choice((10, 1, 2, 3)) if batching == "slora" else 10,
        prefix_cache=source.choice((False, True)),
        intake_per_iteration=source.choice((0, 0, 0, 0, 1, 2)),
        skip_ahead=source.choice((0, 0, 0, 1, 2, 10)),
    )


def exact_capacity(need: int, watermark: float) -> int:
    """Give the smallest KV capacity whose part above the watermark is at least `need` tokens."""
    capacity = need
    while capacity - math.floor(watermark * capacity) < need:
        capacity += 1
    return capacity


def _orders(source: Source, fleet: tuple[Engine, ...], step: int) -> tuple[Engine, ...]:
    """Draw schedulers: one for each instance, or one for all that charges to tenants."""

    def order(names: Sequence[str], **charging: object) -> Order:
        name = source.choice(names)
        parameters = (float(source.choice((0, 2, 3 * step))), float(5 * step))
        return Order(name, parameters=parameters if name == "dpa" else (2.0,), **charging)  # type: ignore[arg-type]

    if source.choice((False, True)):
        shared = order(
            (*RANKS, *RANKS, *NAMED),
            charges=source.choice(tuple(CHARGES)),
            lift=source.choice(("none", "queued", "last")),
            overcharge=source.choice((False, False, True)),
        )
        return tuple(replace(engine, queue=shared) for engine in fleet)
    return tuple(
        replace(
            engine,
            queue=source.choice(("fcfs", "fcfs", *NAMED, order(("dpa", "age", "estimated")))),
        )
        for engine in fleet
    )


def _judges(source: Source, step: int, unit: int) -> Judges | None:
    """Draw an admission policy, for one case in four."""
    if source.integer(0, 3) < 3:
        return None
    second = 1e12
    delay = source.choice((step, 3 * step, unit, 20 * step)) / second
    count = float(source.integer(0, 6))
    amount = float(source.choice((5, 20, 60)))
    times = float(source.choice((step, 4 * step, 20 * step)))
    return Judges(
        arrival=source.choice(tuple(ARRIVALS)),
        head=source.choice(tuple(LOOKS)),
        end=source.choice(tuple(ENDS)),
        senses=True,
        kills_interactions=source.choice((True, False)),
        queue_limit=source.choice((5.0, 1.0)),
        kv_limit=source.choice((0.8, 0.3)),
        delay_s=max(delay, 1e-6),
        parameters=(count, amount, times),
        times=source.choice((0, 0, 1, 3)),
        backoff_s=max(source.choice((step, 2 * step, unit)) / second, 1e-6),
        # Without an end to patience, a policy could let a call wait for ever.
        patience_s=source.choice((100.0, 40.0, 10.0, 0.0)) * step / second,
    )


def _outages(
    source: Source, rows: Sequence[Row], costs: Sequence[TableCost], unit: int, step: int
) -> tuple[tuple[int, int, int], ...]:
    """Draw outages that begin and end where iterations may end."""
    if source.integer(0, 3) < 3:
        return ()
    outages = []
    for i, cost in enumerate(costs):
        start = 0
        for _ in range(source.choice((0, 1, 2))):
            row = source.choice(rows)
            prefill = cost.prefill_base + cost.prefill_step * row.prompt
            meeting = row.arrival_ps + source.choice((0, prefill, unit))
            start = max(start, meeting + step * source.choice((0, 0, 1, 2, 5)))
            end = start + source.choice((step, 2 * step, unit, prefill, 20 * step))
            outages.append((i, start, end))
            start = end + source.choice((0, 0, step))
    if unit == EIGHTH_OF_A_SECOND:
        outages = [(i, a - a % unit, b - b % unit) for i, a, b in outages]
    return tuple((i, a, b) for i, a, b in outages if b > a)
