"""Rules read neither the order of the requests in service nor requests that have not arrived."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.routing import default_benchmark_set
from envs.hardware import preset
from envs.simulator import EngineConfig, Simulation
from envs.workloads import router_mix

COST = preset("v100-llama2-7b")
FLEET = [
    EngineConfig(cost=COST, kv_capacity_tokens=kv, max_num_seqs=16, max_batched_tokens=2_048)
    for kv in (1_500, 2_000, 2_500)
]
POLICIES = {policy.name: policy for policy in default_benchmark_set()}


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_order_of_decodes_and_rows_to_come_do_not_matter(name: str) -> None:
    """The decodes lie as a heap by their true ends, and rows to come lie behind those arrived."""
    policy = POLICIES[name]
    table = router_mix(120, 14.0, 0, max_output_tokens=400).with_predictions(0.5, 0)
    simulation = Simulation(table, FLEET, queue_order=policy.queue_order, window=policy.window)
    parameters = np.asarray(policy.parameters)
    memory, rng = policy.memory(len(FLEET), 3), np.random.default_rng(0)
    while simulation.advance():
        arrays = [*simulation.state.seen]
        now = int(simulation.state.head["now_ps"][0])
        other = [array.copy() for array in arrays]
        instances, requests, running = other[:3]
        for i, decoding in enumerate(instances["decoding"]):
            rng.shuffle(running[i, :decoding])
        arrived = int(simulation.state.head["next_arrival"][0])
        for field in ("prompt", "predicted", "arrival_ps"):
            requests[field][arrived:] = 1
        action = policy.compiled(now, *arrays, parameters, memory.copy())
        assert policy.compiled(now, *other, parameters, memory) == action
        simulation.apply(action)
