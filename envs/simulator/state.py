"""Memory layout of the kernel: a handful of NumPy arrays, in integer picoseconds and tokens.

Saving a simulation is copying these arrays. `instances`, `requests`, `running` and `candidates`
are what policies read; true output lengths and planned iteration counts live apart from them, in
`output` and `engines`. How compiled code reaches the arrays is in `memory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.hardware import StepTables
from envs.simulator.config import EngineConfig

PS_PER_S = 10**12
NEVER = np.iinfo(np.int64).max

# Request status.
SERVED, REJECTED_FLEET, REJECTED_INSTANCE, UNFINISHED = 0, 1, 2, 3
STATUS_TEXT = {
    SERVED: "served",
    REJECTED_FLEET: "rejected: exceeds the KV cache of every instance",
    REJECTED_INSTANCE: "rejected: exceeds the KV cache of the chosen instance",
    UNFINISHED: "unfinished",
}
# What an instance is doing.
IDLE, PREFILL, DECODE, MIXED = 0, 1, 2, 3
# Where `advance` goes on.
PHASE_NEXT, PHASE_DECIDE, PHASE_START = 0, 1, 2
# What `advance` returns.
END, ROUTE = 0, 1
PREFILL_FIRST, CHUNKED = 0, 1
FCFS, SJF = 0, 1


def _aligned(fields: Sequence[tuple[str, str]]) -> np.dtype:
    return np.dtype(list(fields), align=True)


# Arrays of a simulation of N instances and R requests, besides its head.
ARRAYS = (
    "instances",  # (N,)
    "engines",  # (N + 1,); the last row is the router queue
    "requests",  # (R,)
    "output",  # (R,) true output tokens
    "running",  # (N, S) requests in decode (a heap by finish), then in prefill
    "finish_iteration",  # (N, S) of the requests in decode
    "event_ps",  # (P,) end of the stretch of each instance, NEVER when idle
    "winner",  # (P,) tournament over event_ps
    "pending",  # (N,) instances that plan at this instant
    "tables",  # (T,) step times
    "candidates",  # (window,) head of the router queue, -1 where it is shorter
)

INSTANCE_DTYPE = _aligned(
    [
        # Changes only at events, so it is current at every decision.
        ("waiting", "i8"),  # requests in the waiting queue
        ("decoding", "i8"),  # requests in decode
        ("prefilling", "i8"),  # requests in prefill
        ("waiting_tokens", "i8"),  # sum of prompt + generated of the waiting requests
        ("waiting_predicted", "i8"),  # sum of predicted remaining output tokens of the waiting
        ("prefill_reserved", "i8"),  # KV tokens of the requests in prefill
        # At the start of the current stretch; `view` brings it to any later moment.
        ("context", "i8"),  # KV tokens of the requests in decode
        ("iteration", "i8"),  # decode iterations completed since the beginning
        ("stretch_start_ps", "i8"),
        ("step_ps", "i8"),  # duration of the stretch's first iteration
        ("step_growth_ps", "i8"),  # each iteration is longer than the one before by this
        ("stretch_batch", "i8"),  # decodes that get a token in each iteration of the stretch
        # Configuration.
        ("kv_capacity", "i8"),
        ("watermark", "i8"),
        ("max_num_seqs", "i8"),
        ("max_batched_tokens", "i8"),
        ("batching", "i8"),
        ("context_ps", "i8"),
        ("mixed_context_ps", "i8"),
        ("attention_ps", "i8"),
        ("prefill_tail_ps", "i8"),
        ("decode_at", "i8"),  # offsets of the step-time tables
        ("prefill_at", "i8"),
        ("sequence_at", "i8"),
    ]
)

ENGINE_DTYPE = _aligned(
    [
        ("root", "i8"),  # head of the waiting queue, -1 when empty
        ("tail", "i8"),
        ("order", "i8"),
        ("activity", "i8"),
        ("planned", "i8"),  # iterations of the current stretch
        ("pending", "i8"),  # 1 while the instance waits to plan at the present instant
        ("preempted", "i8"),  # preemptions so far; orders them at the head of the queue
        ("admitted", "i8"),  # admissions so far; orders the requests in service
        ("partial_done", "i8"),  # tokens prefilled of the last request in prefill
        ("partial_after", "i8"),  # the same at the end of the stretch; 0 when it completes
        ("most_decoding", "i8"),  # largest batch and prefill so far, for the cost model's range
        ("most_prefill", "i8"),
    ]
)

REQUEST_DTYPE = _aligned(
    [
        ("arrival_ps", "i8"),
        ("dispatch_ps", "i8"),
        ("admit_ps", "i8"),
        ("first_token_ps", "i8"),
        ("finish_ps", "i8"),
        ("key", "i8"),  # position in a queue; number of the admission while in service
        ("base", "i8"),  # in decode: instance iteration minus tokens generated
        ("prompt", "i4"),
        ("predicted", "i4"),  # predicted output tokens
        ("generated", "i4"),  # while not in decode
        ("preemptions", "i4"),
        ("left", "i4"),  # links of the queue that holds the request
        ("right", "i4"),
        ("instance", "i4"),
        ("status", "i4"),
        ("tier", "i4"),  # service tier: 0 IW-F, 1 IW-N, 2 NIW
    ]
)

# The head of a simulation: its clock and totals, and where its arrays lie. Passing one record
# keeps calls between compiled functions cheap, and an array of heads is a batch of simulations.
HEAD_DTYPE = _aligned(
    [
        ("now_ps", "i8"),
        ("phase", "i8"),
        ("due", "i8"),  # a decision is due
        ("overflow", "i8"),  # an event lies beyond the range of the clock
        ("next_arrival", "i8"),
        ("held", "i8"),
        ("trigger", "i8"),  # something happened at this instant that lifts a hold
        ("queued", "i8"),  # requests in the router queue
        ("queued_tokens", "i8"),  # their prompt tokens
        ("queued_predicted", "i8"),  # their predicted output tokens
        ("at_instances", "i8"),  # requests waiting or in service at instances
        ("served", "i8"),
        ("rejected", "i8"),
        ("misrouted", "i8"),  # of these, dispatched to an instance that can't serve them
        ("interval_ps", "i8"),  # of clocked decisions; 0 = event-driven
        ("tick_due", "i8"),
        ("last_tick_ps", "i8"),
        ("largest_request", "i8"),  # tokens that the roomiest instance can hold
        ("pending_count", "i8"),  # instances that plan at this instant
        ("decisions", "i8"),
        ("forced", "i8"),  # holds turned into a dispatch because nothing was in service
        ("preemptions", "i8"),
        ("recomputed_tokens", "i8"),
        ("generated_tokens", "i8"),  # output tokens of served requests
        ("events", "i8"),
        ("area_ps", "i8"),  # integral of requests in the system, not yet in area_s
        ("slo_ttft_ps", "i8"),
        ("slo_tbt_ps", "i8"),
        ("slo_e2e_ps", "i8"),
        ("good", "i8"),  # served requests inside every SLO
        ("good_tokens", "i8"),  # their output tokens
        ("area_s", "f8"),  # integral of requests in the system, request-seconds
        # Sizes.
        ("size", "i8"),  # instances N
        ("count", "i8"),  # requests R
        ("slots", "i8"),  # S, the largest max_num_seqs
        ("leaves", "i8"),  # P, a power of two
        ("window", "i8"),
        # Addresses of the arrays of State, in its order.
        *[(f"{name}_at", "i8") for name in ARRAYS],
    ]
)


@dataclass(frozen=True)
class State:
    """One simulation: its head and the arrays that the head points at."""

    head: np.ndarray  # (1,)
    arrays: dict[str, np.ndarray]  # by the names of ARRAYS

    @classmethod
    def of(cls, head: np.ndarray, arrays: dict[str, np.ndarray]) -> State:
        """Point the head at the arrays."""
        # Serialisation loses the flag that a structured dtype is aligned; the layout is the same.
        head = head.view(HEAD_DTYPE)
        arrays = {k: v.view(_DTYPES[k]) if k in _DTYPES else v for k, v in arrays.items()}
        for name in ARRAYS:
            head[f"{name}_at"] = arrays[name].ctypes.data
        return cls(head, arrays)

    def copy(self) -> State:
        """An independent copy."""
        return State.of(self.head.copy(), {k: v.copy() for k, v in self.arrays.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return State.of, (self.head, self.arrays)

    def load(self, saved: Mapping[str, np.ndarray]) -> None:
        """Take over the values of a saved state of the same simulation, in place.

        Raises:
            ValueError: The saved arrays are not of this simulation, or hold an impossible index.
        """
        own = self.arrays | {"head": self.head}
        for name, array in own.items():
            if name not in saved:
                raise ValueError(f"the saved state has no array {name!r}")
            other = saved[name]
            if other.shape != array.shape or other.dtype.descr != array.dtype.descr:
                raise ValueError(f"the array {name!r} of the saved state is of another simulation")
        for name in ("size", "count", "slots", "leaves", "window"):
            if saved["head"][name] != self.head[name]:
                raise ValueError(f"the saved state is of another simulation: {name} differs")
        _check_indices(saved)
        for name, array in own.items():
            np.copyto(array, saved[name].view(array.dtype))
        for name in ARRAYS:
            self.head[f"{name}_at"] = self.arrays[name].ctypes.data


_DTYPES = {"instances": INSTANCE_DTYPE, "engines": ENGINE_DTYPE, "requests": REQUEST_DTYPE}


def _check_indices(saved: Mapping[str, np.ndarray]) -> None:
    """Refuse indices that would make compiled code reach outside its arrays."""
    head, instances = saved["head"], saved["instances"]
    size, count, leaves = (int(head[name][0]) for name in ("size", "count", "leaves"))
    in_service = instances["decoding"] + instances["prefilling"]
    ranges = [
        (saved["engines"]["root"], -1, count),
        (saved["engines"]["tail"], -1, count),
        (saved["requests"]["left"], -1, count),
        (saved["requests"]["right"], -1, count),
        (saved["running"], -1, count),
        (saved["candidates"], -1, count),
        (saved["winner"], 0, leaves),
        (saved["pending"], 0, size),
        (head["next_arrival"], 0, count + 1),
        (head["pending_count"], 0, size + 1),
        (instances["decoding"], 0, int(head["slots"][0]) + 1),
        (in_service, 0, int(head["slots"][0]) + 1),
        (instances["max_num_seqs"], 1, int(head["slots"][0]) + 1),
    ]
    if any(values.min() < low or values.max() >= end for values, low, end in ranges):
        raise ValueError("the saved state is damaged: an index in it is out of range")


def build_state(
    arrival_ps: np.ndarray,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
    predicted_tokens: np.ndarray,
    fleet: Sequence[EngineConfig],
    *,
    tier: np.ndarray | int = 0,
    router_order: int = FCFS,
    interval_ps: int = 0,
    window: int = 1,
    slo_ps: tuple[int, int, int] = (NEVER, NEVER, NEVER),
) -> State:
    """Lay out a simulation that has not begun.

    Args:
        arrival_ps: (R,) ascending arrival times.
        prompt_tokens: (R,) tokens, at least 1.
        output_tokens: (R,) true output tokens, at least 1.
        predicted_tokens: (R,) predicted output tokens.
        fleet: One configuration an instance.
        tier: (R,) service tiers by number, or one for all.
        router_order: FCFS or SJF.
        interval_ps: Clock of the router, 0 for event-driven decisions.
        window: Requests at the head of the router queue that a decision may pick from.
        slo_ps: Limits of TTFT, mean TBT and E2E that count a request as good.
    """
    count, size = len(arrival_ps), len(fleet)
    if size == 0:
        raise ValueError("the fleet has no instance")
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if interval_ps < 0:
        raise ValueError("the decision interval must not be negative")

    instances = np.zeros(size, INSTANCE_DTYPE)
    tables = _pack_tables(fleet, instances)
    engines = np.zeros(size + 1, ENGINE_DTYPE)
    engines["root"] = engines["tail"] = -1
    engines["order"][:size] = [SJF if engine.queue == "sjf" else FCFS for engine in fleet]
    engines["order"][size] = router_order

    requests = np.zeros(count, REQUEST_DTYPE)
    requests["arrival_ps"] = arrival_ps
    requests["prompt"] = prompt_tokens
    requests["predicted"] = predicted_tokens
    requests["tier"] = tier
    for field in ("dispatch_ps", "admit_ps", "first_token_ps", "finish_ps", "instance"):
        requests[field] = -1
    requests["left"] = requests["right"] = -1
    requests["status"] = UNFINISHED

    leaves = 1 << max(1, (size - 1).bit_length())
    slots = max(engine.max_num_seqs for engine in fleet)
    winner = np.zeros(leaves, np.int64)
    for node in range(leaves - 1, 0, -1):
        winner[node] = winner[2 * node] if 2 * node < leaves else 2 * node - leaves

    head = np.zeros(1, HEAD_DTYPE)
    head["interval_ps"] = interval_ps
    head["last_tick_ps"] = -1
    head["largest_request"] = max(engine.largest_request_tokens for engine in fleet)
    head["slo_ttft_ps"], head["slo_tbt_ps"], head["slo_e2e_ps"] = slo_ps
    head["size"], head["count"], head["slots"] = size, count, slots
    head["leaves"], head["window"] = leaves, window
    return State.of(
        head,
        {
            "instances": instances,
            "engines": engines,
            "requests": requests,
            "output": np.array(output_tokens, np.int32),
            "running": np.full((size, slots), -1, np.int32),
            "finish_iteration": np.zeros((size, slots), np.int64),
            "event_ps": np.full(leaves, NEVER, np.int64),
            "winner": winner,
            "pending": np.zeros(size, np.int64),
            "tables": tables,
            "candidates": np.full(window, -1, np.int64),
        },
    )


def _pack_tables(fleet: Sequence[EngineConfig], instances: np.ndarray) -> np.ndarray:
    """Write each instance's limits and costs; equal engines share one copy of the tables."""
    parts: list[np.ndarray] = []
    built: dict[tuple[int, int, int], StepTables] = {}
    offsets: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    end = 0
    for row, engine in zip(instances, fleet, strict=True):
        key = (id(engine.cost), engine.max_num_seqs, engine.max_batched_tokens)
        if key not in built:
            built[key] = engine.cost.tables(engine.max_num_seqs, engine.max_batched_tokens)
        tables = built[key]
        if key not in offsets:
            places = []
            for values in (tables.decode_ps, tables.prefill_ps, tables.sequence_ps):
                places.append(end)
                parts.append(np.asarray(values, np.int64))
                end += len(values)
            offsets[key] = (places[0], places[1], places[2])
        row["decode_at"], row["prefill_at"], row["sequence_at"] = offsets[key]
        row["context_ps"] = tables.context_ps
        row["mixed_context_ps"] = tables.mixed_context_ps
        row["attention_ps"] = tables.attention_ps
        row["prefill_tail_ps"] = tables.prefill_tail_ps
        row["kv_capacity"] = engine.kv_capacity_tokens
        row["watermark"] = engine.watermark_tokens
        row["max_num_seqs"] = engine.max_num_seqs
        row["max_batched_tokens"] = engine.max_batched_tokens
        row["batching"] = CHUNKED if engine.batching == "chunked" else PREFILL_FIRST
    return np.concatenate(parts)
