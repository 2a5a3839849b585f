"""Restoring whatever a saved state holds: a state of the simulation, or a ValueError."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from envs.scenarios import load_scenario
from envs.simulator import Simulation
from tests.fuzzing import Effort, efforts

INTEGERS = st.sampled_from([-(2**63), -(2**31), -2, -1, 0, 1, 7, 64, 10**6, 2**31, 2**63 - 1])


def under_way() -> Simulation:
    simulation = Simulation(
        *load_scenario("router-kv6k-rate8", {"workload": {"requests": 40}}).build(1), window=2
    )
    for _ in range(20):
        simulation.advance()
        simulation.apply(0)
    return simulation


@efforts
def test_restoring(effort: Effort) -> None:
    simulation = under_way()
    good = simulation.save()

    @effort(40)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        saved: dict[str, Any] = {name: array.copy() for name, array in good.items()}
        name = data.draw(st.sampled_from(sorted(saved)))
        array = saved[name]
        match data.draw(st.sampled_from("value value value lose shape type".split())):
            case "value":
                field = data.draw(st.sampled_from(array.dtype.names or ("",)))
                values = (array[field] if field else array).reshape(-1)
                kind = values.dtype
                limits = np.iinfo(kind) if kind.kind in "iu" else None
                value = data.draw(INTEGERS)
                row = data.draw(st.integers(0, len(values) - 1))
                values[row] = np.clip(value, limits.min, limits.max) if limits else value
            case "lose":
                del saved[name]
            case "shape":
                saved[name] = array[: data.draw(st.integers(0, len(array) - 1))]
            case "type":
                saved[name] = np.zeros(array.shape, np.float32)
        before = simulation.save()
        try:
            simulation.restore(saved)
        except ValueError as error:
            assert "saved state" in str(error)
            after = simulation.save()
            assert all(np.array_equal(after[key], before[key]) for key in before)
        simulation.restore(good)
        after = simulation.save()
        assert all(np.array_equal(after[key], good[key]) for key in good)

    check()
