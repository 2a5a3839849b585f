"""The compiled kernel equals the reference bit for bit: times, placements, views, decisions."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.case import Case, Engine, Row, Script, TableCost
from tests.simulator.cases import build_case, random_case
from tests.simulator.differential import differences

T = TypeVar("T")

COMMON: dict[str, Any] = {
    "deadline": None,  # the first example compiles the kernel
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


class HypothesisSource:
    """Choices of hypothesis, which shrinks them."""

    def __init__(self, draw: st.DrawFn) -> None:
        """Take the draw function of a composite strategy."""
        self.draw = draw

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return self.draw(st.integers(low, high))

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.draw(st.integers(0, len(options) - 1))]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a case of the recipe."""
    return build_case(HypothesisSource(draw))


def assert_equal(case: Case) -> None:
    """Fail with the case as code where kernel and reference differ."""
    found = differences(case)
    assert not found, "\n".join([*found, case.describe()])


@pytest.mark.parametrize("block", range(4))
def test_random_cases_equal_the_reference(block: int) -> None:
    """Fixed seeds, spread over the recipe more evenly than hypothesis spreads them."""
    for seed in range(60 * block, 60 * (block + 1)):
        assert_equal(random_case(seed))


def test_a_dispatch_at_the_end_of_an_iteration_makes_no_second_tick() -> None:
    """The second is dispatched at 690,000, where a decode iteration ends inside a stretch."""
    cost = TableCost(decode_base=3000, decode_step=0, prefill_base=3000, prefill_step=0)
    engine = Engine(
        cost=cost,
        kv_capacity_tokens=62,
        max_num_seqs=6,
        max_batched_tokens=7,
        watermark=0.0,
    )
    rows = (Row(649_875, 1, 11), Row(649_875, 1, 1), Row(649_875, 1, 1))
    assert_equal(Case(requests=rows, fleet=(engine,), script=Script(seed=0), interval_ps=30_000))


@settings(max_examples=100, derandomize=True, **COMMON)
@given(cases())
def test_kernel_equals_reference(case: Case) -> None:
    """The examples are the same in every run."""
    assert_equal(case)


@pytest.mark.slow
@settings(max_examples=500, **COMMON)
@given(cases())
def test_kernel_equals_reference_thoroughly(case: Case) -> None:
    """The examples are new in every run."""
    assert_equal(case)


@pytest.mark.slow
def test_ten_thousand_new_cases_equal_the_reference() -> None:
    """Other seeds in every run; a case that differs is printed as code."""
    first = secrets.randbelow(2**40)
    for seed in range(first, first + 10_000):
        assert_equal(random_case(seed))
