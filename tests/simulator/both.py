"""Hand-made simulations, run by the reference and by the kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.simulator.case import Case, Engine, Row, Script, TableCost
from tests.simulator.differential import FIELDS, Trace, kernel_trace, reference_trace

# Prefill: 100 + n.  Decode: 10.
FLAT = TableCost(decode_base=10, decode_step=0, prefill_base=100, prefill_step=1)
# Decode: 10 + b + 2 C.  With prefill: 100 + (b + n) + 7 b + 3 C + 5 S.
EVERY_TERM = TableCost(
    decode_base=10,
    decode_step=1,
    prefill_base=100,
    prefill_step=1,
    sequence_step=7,
    context_ps=2,
    mixed_context_ps=3,
    attention_ps=5,
)
ENGINE = Engine(
    cost=FLAT, kv_capacity_tokens=1000, max_num_seqs=4, max_batched_tokens=100, watermark=0.0
)

Run = Callable[[Case], Trace]

on_both = pytest.mark.parametrize(
    "run", [pytest.param(reference_trace, id="reference"), pytest.param(kernel_trace, id="kernel")]
)
"""The test's `run` is the reference, then the kernel."""


def engine(**changes: Any) -> Engine:
    """Give the engine of these tests with some fields changed."""
    return dataclasses.replace(ENGINE, **changes)


def case(rows: Sequence[Row], fleet: Sequence[Engine] = (ENGINE,), **options: Any) -> Case:
    """Give a case; the script dispatches every request, with one instance to that."""
    return Case(requests=tuple(rows), fleet=tuple(fleet), script=Script(seed=0), **options)


def column(trace: Trace, field: str) -> list[int]:
    """Give one field of every request."""
    return [row[FIELDS.index(field)] for row in trace.requests]
