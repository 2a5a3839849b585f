"""A saved, restored or forked simulation goes on exactly as the one that it was taken from."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from envs.simulator import Simulation
from tests.simulator.case import Case
from tests.simulator.cases import random_case
from tests.simulator.differential import (
    FIELDS,
    Seen,
    kernel_options,
    kernel_table,
    run_reference,
    seen_by_policy,
)

CASES = 40
VIEWS = ("instances", "requests", "running")
Saved = dict[str, np.ndarray]


class Step(NamedTuple):
    """What one decision looks like."""

    now_ps: int
    candidates: tuple[int, ...]
    seen: tuple[Seen, ...]


class Rest(NamedTuple):
    """What is left of a run after a decision."""

    steps: list[Step]
    requests: list[Any]
    tenant_counters: list[int]
    counters: dict[str, Any]


class Stepped:
    """A simulation of a case, stepped decision by decision."""

    def __init__(
        self, case: Case, simulation: Simulation | None = None, decisions: int = 0
    ) -> None:
        """Begin a new simulation, or take one in which some decisions were made."""
        self.case = case
        fleet = [engine.config() for engine in case.fleet]
        if simulation is None:
            simulation = Simulation(kernel_table(case), fleet, **kernel_options(case))
        self.simulation = simulation
        self.decisions = decisions
        self.steps: list[Step] = []

    def proceed(self, steps: int = 10**9) -> None:
        """Take that many decisions, or all that are left."""
        arrays = self.simulation.state.arrays
        size = len(self.case.fleet)
        for _ in range(steps):
            if not self.simulation.advance():
                return
            self.decisions += 1
            now = int(self.simulation.state.head["now_ps"][0])
            shown = [arrays[name] for name in VIEWS]
            seen = tuple(seen_by_policy(now, *shown, i) for i in range(size))
            self.steps.append(Step(now, tuple(arrays["candidates"].tolist()), seen))
            self.simulation.apply(
                self.case.script.action(self.decisions, now, self.case.window * size)
            )

    def rest(self) -> Rest:
        """Run to the end."""
        self.steps = []
        self.proceed()
        result = self.simulation.result()
        rows = list(zip(*(result.requests[field].tolist() for field in FIELDS), strict=True))
        return Rest(self.steps, rows, result.tenant_counters.tolist(), dict(result.counters))


def through_a_file(saved: Saved) -> Saved:
    """Write the arrays and read them again."""
    buffer = io.BytesIO()
    np.savez(buffer, **saved)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as read:
        return dict(read)


def restore_here(run: Stepped, saved: Saved) -> Simulation:
    """Go back in the simulation that has run on to its end."""
    run.simulation.restore(saved)
    return run.simulation


def restore_elsewhere(run: Stepped, saved: Saved) -> Simulation:
    """Go on in a new simulation of the same arguments."""
    fresh = Stepped(run.case).simulation
    fresh.restore(saved)
    return fresh


@pytest.mark.parametrize("restore", [restore_here, restore_elsewhere])
def test_a_restored_simulation_continues_identically(
    restore: Callable[[Stepped, Saved], Simulation],
) -> None:
    for seed in range(CASES):
        case = random_case(seed)
        cut = int(np.random.default_rng(seed).integers(0, len(run_reference(case).decisions) + 1))
        run = Stepped(case)
        run.proceed(cut)
        made, saved = run.decisions, through_a_file(run.simulation.save())
        expected = run.rest()
        again = Stepped(case, restore(run, saved), made)
        assert again.rest() == expected, case.describe()


def test_a_fork_and_its_origin_continue_identically() -> None:
    for seed in range(CASES, 2 * CASES):
        case = random_case(seed)
        rng = np.random.default_rng(seed)
        cut = int(rng.integers(0, len(run_reference(case).decisions) + 1))
        run = Stepped(case)
        run.proceed(cut)
        twin = Stepped(case, run.simulation.fork(), run.decisions)
        # In turns, so that anything they share would show.
        for _ in range(5):
            run.proceed(int(rng.integers(0, 3)))
            twin.proceed(int(rng.integers(0, 3)))
        so_far, twin_so_far = run.steps[cut:], twin.steps[:]
        rest, twin_rest = run.rest(), twin.rest()
        assert so_far + rest.steps == twin_so_far + twin_rest.steps, case.describe()
        assert rest[1:] == twin_rest[1:], case.describe()
