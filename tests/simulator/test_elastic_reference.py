"""Elastic fleets equal the reference bit for bit, also from a saved state on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.simulator import Simulation
from tests.simulator.differential import (
    FIELDS,
    Decision,
    differences,
    kernel_options,
    kernel_table,
    recording_policy,
)
from tests.simulator.elastic import ScriptedRun
from tests.simulator.elastic_cases import random_elastic_case

RESTORED = 60


@pytest.mark.parametrize("block", range(4))
def test_random_elastic_cases_equal_the_reference(block: int) -> None:
    for seed in range(75 * block, 75 * (block + 1)):
        case = random_elastic_case(seed)
        found = differences(case)
        assert not found, "\n".join([*found, case.describe()])


@pytest.mark.slow
def test_many_more_elastic_cases_equal_the_reference() -> None:
    """New ones are drawn by `python -m tests.simulator.fuzz --elastic`."""
    for seed in range(1_000_000, 1_000_600):
        case = random_elastic_case(seed)
        found = differences(case)
        assert not found, "\n".join([*found, case.describe()])


def test_a_stuck_hold_is_lifted_before_a_change_of_the_same_instant() -> None:
    """The only request at an instance is turned away by the rate limit when an instance fails."""
    assert not differences(random_elastic_case(1_001_237))


def _rest(run: ScriptedRun, decisions: list[Decision]) -> tuple[Any, ...]:
    """What is left of a run from here on."""
    made = len(decisions)
    run.finish()
    result = run.fleet.simulation.result()
    rows = list(zip(*(result.requests[field].tolist() for field in FIELDS), strict=True))
    pools = run.fleet.pools.tolist()
    return decisions[made:], rows, result.tenant_counters.tolist(), dict(result.counters), pools


def test_a_saved_restored_or_forked_elastic_simulation_goes_on_identically() -> None:
    """At a pause, after the changes of some instants; the restored one is a simulation anew."""
    tried = 0
    for seed in range(10_000):
        case = random_elastic_case(seed)
        if case.elastic is None or not case.elastic.changes:
            continue
        fleet = [engine.config() for engine in case.fleet]
        rng = np.random.default_rng(seed)

        def begun() -> Simulation:
            return Simulation(kernel_table(case), fleet, **kernel_options(case))  # noqa: B023

        decisions: list[Decision] = []
        router = recording_policy(case, decisions)
        run = ScriptedRun(begun(), router, case.elastic.changes)
        run.go_on(int(rng.integers(0, len(case.elastic.changes) + 1)))
        left, made, saved = run.changes, list(decisions), run.fleet.simulation.save()
        twin = ScriptedRun(run.fleet.simulation.fork(), router, left)
        expected = _rest(run, decisions)
        for simulation in (twin.fleet.simulation, begun(), run.fleet.simulation):
            if simulation is not twin.fleet.simulation:
                simulation.restore(saved)
            decisions[:] = made
            again = ScriptedRun(simulation, router, left)
            assert _rest(again, decisions) == expected, case.describe()
        tried += 1
        if tried == RESTORED:
            return


def test_a_forked_fleet_goes_on_by_itself() -> None:
    """It has a memory of its own, too."""
    case = random_elastic_case(next(s for s in range(99) if random_elastic_case(s).elastic))
    decisions: list[Decision] = []
    router = recording_policy(case, decisions)
    options = kernel_options(case) | {"elastic": True, "outages": ()}
    simulation = Simulation(kernel_table(case), [e.config() for e in case.fleet], **options)
    run = ScriptedRun(simulation, router, ())
    twin = run.fleet.fork()
    run.finish()
    assert twin.now_s == 0.0
    assert twin.fork().simulation.state is not twin.simulation.state
    first = list(decisions)
    decisions.clear()
    while twin.run_to(float("inf")):
        pass
    assert decisions == first


def test_a_damaged_configuration_is_refused() -> None:
    """An instance may have the configuration of any of the fleet, and no other."""
    case = random_elastic_case(0)
    options = kernel_options(case) | {"elastic": True, "outages": ()}
    simulation = Simulation(kernel_table(case), [e.config() for e in case.fleet], **options)
    saved = simulation.save()
    simulation.state.arrays["instances"]["kv_capacity"][0] += 1
    damaged = simulation.save()
    simulation.restore(saved)
    with pytest.raises(ValueError, match="like none of the fleet"):
        simulation.restore(damaged)
