"""Fleets put into a chosen state by hand, and what a rule decides in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from envs.hardware import preset
from envs.simulator import EngineConfig, RoutingPolicy, Simulation
from envs.simulator.policy import POLICY_VIEWS
from envs.workloads import RequestTable

COST = preset("v100-llama2-7b")


def engine(capacity: int = 1000, *, slots: int = 8, watermark: float = 0.0) -> EngineConfig:
    """One instance of the V100 preset: 16.7 ms a step, 1.5 ms a sequence, 0.32 ms a token."""
    return EngineConfig(
        cost=COST,
        kv_capacity_tokens=capacity,
        max_num_seqs=slots,
        max_batched_tokens=512,
        watermark=watermark,
    )


@dataclass(frozen=True)
class Instance:
    """What one instance holds: requests as (prompt, predicted[, generated])."""

    decoding: Sequence[tuple[int, int, int]] = ()
    prefilling: Sequence[tuple[int, int]] = ()
    waiting: Sequence[tuple[int, int]] = ()
    config: EngineConfig = field(default_factory=engine)


class Situation:
    """A decision over `queue`, requests as (prompt, predicted), with the given instances."""

    def __init__(self, queue: Sequence[tuple[int, int]], instances: Sequence[Instance]) -> None:
        prompts = [prompt for prompt, _ in queue]
        predicted = [tokens for _, tokens in queue]
        for instance in instances:
            for request in (*instance.decoding, *instance.prefilling, *instance.waiting):
                prompts.append(request[0])
                predicted.append(request[1])
        table = RequestTable.from_columns(
            arrival_s=np.zeros(len(prompts)),
            prompt_tokens=np.array(prompts),
            output_tokens=np.ones(len(prompts), np.int64),
            predicted_output_tokens=np.array(predicted),
        )
        fleet = [instance.config for instance in instances]
        arrays = Simulation(table, fleet, window=len(queue)).state.arrays
        arrays["candidates"][:] = range(len(queue))
        r = len(queue)
        for row, running, instance in zip(
            arrays["instances"], arrays["running"], instances, strict=True
        ):
            row["decoding"] = len(instance.decoding)
            row["prefilling"] = len(instance.prefilling)
            row["waiting"] = len(instance.waiting)
            row["context"] = sum(prompt + done for prompt, _, done in instance.decoding)
            row["prefill_reserved"] = sum(prompt for prompt, _ in instance.prefilling)
            row["waiting_tokens"] = sum(prompt for prompt, _ in instance.waiting)
            row["waiting_predicted"] = sum(tokens for _, tokens in instance.waiting)
            in_service = len(instance.decoding) + len(instance.prefilling)
            running[:in_service] = range(r, r + in_service)
            for j, request in enumerate(instance.decoding):
                arrays["requests"]["base"][r + j] = -request[2]
            r += in_service + len(instance.waiting)
        self.views = [arrays[name] for name in POLICY_VIEWS]
        self.size = len(instances)

    def decide(self, policy: RoutingPolicy, memory: np.ndarray | None = None) -> int:
        """Give the action of a rule, the same compiled and as plain Python."""
        memory = policy.memory(self.size, 0) if memory is None else memory
        parameters, twin = np.array(policy.parameters, np.float64), memory.copy()
        action = policy.compiled(0, *self.views, parameters, memory)
        assert policy.decide(0, *self.views, parameters, twin) == action
        np.testing.assert_array_equal(twin, memory)
        return int(action)
