"""The life cycle in compiled code against the slow one, on random fleets and orders."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from envs.simulator.lifecycle import LifecycleFleet
from tests.simulator.living import Life, begun, differences, live_in_kernel
from tests.simulator.living_cases import random_life

CHUNK = 120


@pytest.mark.parametrize("start", [0, 120, 240])
def test_random_lives_are_equal(start: int) -> None:
    for seed in range(start, start + CHUNK):
        assert differences(random_life(seed)) == [], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 5000, 1000))
def test_thousands_of_random_lives_are_equal(start: int) -> None:
    for seed in range(start, start + 1000):
        assert differences(random_life(seed)) == [], f"seed {seed}"


def same(one: Life, other: Life) -> None:
    """The same life, up to the rounding of sums."""
    assert one.requests == other.requests
    assert one.moments == other.moments
    assert one.samples == other.samples
    for d, sums in one.sums.items():
        assert other.sums[d] == pytest.approx(sums, rel=1e-9, abs=1e-21)


def restored(fleet: LifecycleFleet) -> LifecycleFleet:
    """Another fleet that has taken over the arrays of this one."""
    saved = fleet.simulation.save()
    arrays = {name: array.copy() for name, array in fleet.arrays.items()}
    twin = copy.deepcopy(fleet)
    twin.run_to(float("inf"))
    twin.simulation.restore(saved)
    for name, array in arrays.items():
        twin.arrays[name][...] = array
    own = [name for name in fleet.head.dtype.names or () if not name.endswith("_at")]
    twin.head[own] = fleet.head[own]
    twin._memory[:] = fleet._memory
    return twin


def forked(fleet: LifecycleFleet) -> LifecycleFleet:
    """A fork, after which the first one goes its own way."""
    twin = fleet.fork()
    fleet.run_to(float("inf"))
    return twin


def sent(fleet: LifecycleFleet) -> LifecycleFleet:
    """A copy by way of bytes."""
    twin: LifecycleFleet = pickle.loads(pickle.dumps(fleet))
    for array in fleet.arrays.values():
        array.view(np.uint8)[...] = 255
    return twin


@pytest.mark.parametrize("again", [forked, restored, sent])
def test_a_copy_goes_on_as_the_first_would(again: Callable[..., LifecycleFleet]) -> None:
    for seed in range(300, 330):
        living = random_life(seed)
        same(live_in_kernel(living), live_in_kernel(living, again))


def in_steps(fleet: LifecycleFleet, time_s: float, rng: np.random.Generator) -> None:
    """Run towards a time with stops."""
    while np.isfinite(time_s) and fleet.now_s < time_s and rng.random() < 0.9:
        going = fleet.run_to(fleet.now_s + (time_s - fleet.now_s) * rng.random())
        if not going:
            return


def test_many_small_runs_are_like_one() -> None:
    for seed in range(330, 390):
        living = random_life(seed)
        rng = np.random.default_rng(seed)
        stops = live_in_kernel(living, before=lambda *given: in_steps(*given, rng))  # noqa: B023
        same(live_in_kernel(living), stops)


def test_random_lives_are_eventful() -> None:
    """They begin to start from every source, and lose work and VMs."""
    sums: dict[str, float] = {}
    failures = 0
    for seed in range(150):
        life = live_in_kernel(random_life(seed))
        failures += sum(row[7] for row in life.requests)
        for own in life.sums.values():
            for name, value in own.items():
                sums[name] = sums.get(name, 0.0) + value
    assert min(sums.values()) > 0
    assert min(sums[name] for name in ("acquired", "reclaimed", "converted")) > 5
    assert min(sums["redeployed"], sums["lost"], failures) > 5


def test_the_beginning_is_that_of_the_plan() -> None:
    for seed in range(20):
        living = random_life(seed)
        fleet = begun(living)
        assert fleet.deployments["ready"].sum() == living.plan.ready.sum()
        assert fleet.deployments["donated"].sum() == living.plan.donated.sum()
