"""One simulation in memory: a head and the arrays that it points at. Saving it is copying them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from envs.simulator.gate import Gate
from envs.simulator.layout import ARRAYS, BY_TENANT, HEAD_DTYPE
from envs.simulator.scheduler import Scheduler

# Words of 8 bytes of the head; the last ones hold addresses, in the order of ARRAYS.
_WORD = {name: place for place, name in enumerate(HEAD_DTYPE.names or ())}
_ADDRESSES = slice(-len(ARRAYS), None)
assert HEAD_DTYPE.itemsize == 8 * len(_WORD)


PATTERN = {
    "instances": (
        *("kv_capacity", "watermark", "room", "max_num_seqs", "max_batched_tokens", "batching"),
        *("model", "lane", "context_ps", "mixed_context_ps", "attention_ps", "prefill_tail_ps"),
        *("decode_at", "prefill_at", "sequence_at"),
    ),
    "engines": (
        *("intake", "decode_steps", "admission", "block", "adapter_tokens", "caches", "skip"),
    ),
}
"""Fields of an instance that depend on the model that it serves."""

Patterns = dict[str, np.ndarray]
"""(N,) rows of `instances` and `engines` as the fleet was given."""


@dataclass(frozen=True)
class State:
    """One simulation: its head and the arrays that the head points at."""

    head: np.ndarray  # (1,)
    arrays: dict[str, np.ndarray]  # by the names of ARRAYS
    schedulers: tuple[Scheduler, ...]
    gate: Gate | None = None
    patterns: Patterns | None = None  # where instances can take over each other's

    @classmethod
    def of(
        cls,
        head: np.ndarray,
        arrays: dict[str, np.ndarray],
        schedulers: tuple[Scheduler, ...],
        gate: Gate | None = None,
        patterns: Patterns | None = None,
    ) -> State:
        """Point the head at the arrays, and the policies' rows at their machine code."""
        # Serialisation loses the flag that a structured dtype is aligned; the layout is the same.
        head = head.view(HEAD_DTYPE)
        arrays = {name: arrays[name].view(dtype) for name, dtype in ARRAYS.items()}
        state = cls(head, arrays, schedulers, gate, patterns)
        state.bind()
        return state

    def bind(self, known: Mapping[str, int] = MappingProxyType({})) -> None:
        """Write the addresses, which hold for this process and these arrays alone.

        Args:
            known: Addresses of some arrays, since to ask each array takes long.
        """
        places = [known.get(name) or self.arrays[name].ctypes.data for name in ARRAYS]
        self.head.view(np.int64)[_ADDRESSES] = places
        for row, scheduler in zip(self.arrays["schedulers"], self.schedulers, strict=True):
            scheduler.bind(row)
        if self.gate is not None:
            self.gate.bind(self.arrays["gate"][0])

    @property
    def seen(self) -> tuple[np.ndarray, ...]:
        """What a routing policy is shown: instances, requests, running and candidates."""
        prefix = "seen_" if self.head["poll_ps"][0] > 0 else ""
        views = tuple(self.arrays[prefix + name] for name in ("instances", "requests", "running"))
        return (*views, self.arrays["candidates"])

    def copy(self) -> State:
        """An independent copy."""
        arrays = {name: _copied(name, array) for name, array in self.arrays.items()}
        return State.of(self.head.copy(), arrays, self.schedulers, self.gate, self.patterns)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return State.of, (self.head, self.arrays, self.schedulers, self.gate, self.patterns)

    def save(self) -> dict[str, np.ndarray]:
        """A copy of the head and every array by name, and their digest."""
        saved = {name: _copied(name, array) for name, array in self.arrays.items()}
        saved["head"] = self.head.copy()
        return saved | {"digest": _digest(saved)}

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
        for name in _SHAPE:
            if saved["head"][name] != self.head[name]:
                raise ValueError(f"the saved state is of another simulation: {name} differs")
        if "digest" not in saved or not np.array_equal(_digest(saved), saved["digest"]):
            raise ValueError("the saved state is damaged: its digest is not that of its values")
        _check_configuration(saved, own, self.patterns)
        _check_indices(saved, own)
        if not np.array_equal(saved["tables"], self.arrays["tables"]):
            raise ValueError("the saved state is of another simulation: its step times differ")
        for name, array in own.items():
            if name not in _CONSTANT:
                np.copyto(array, saved[name].view(array.dtype))
        self.bind()


def write_head(head: np.ndarray, values: Mapping[str, int]) -> None:
    """Write whole numbers to fields of a head, all at once: one by one takes five times as long."""
    head.view(np.int64)[[_WORD[name] for name in values]] = list(values.values())


# Shared by all simulations of a fleet, and never written.
_CONSTANT = ("tables",)


def _copied(name: str, array: np.ndarray) -> np.ndarray:
    return array if name in _CONSTANT else array.copy()


# What the arrays of a simulation were made for: another value would reach outside them.
_SHAPE = (
    *("size", "count", "slots", "leaves", "window", "tenant_count", "prefix_count"),
    *(
        "models",
        "tracked",
        "counted",
        "closed",
        "ingress",
        "limit",
        "kills",
        "traited",
        "gated",
        "looks",
        "elastic",
        "pooled",
        "remote",
    ),
    *("outage_count", "poll_ps", "router_order", "region_count", "pool_count"),
)
# Configuration of an instance that stands in its rows.
_FIXED = {
    "engines": ("kind", "scheduler", "intake", "admission", "block", "adapter_tokens", "caches"),
    "requests": ("prompt", "model", "region"),
    "instances": (
        *("max_num_seqs", "max_batched_tokens", "batching", "model"),
        *("decode_at", "prefill_at", "sequence_at", "region", "lane"),
    ),
}


def _digest(saved: Mapping[str, np.ndarray]) -> np.ndarray:
    """(16,) uint8: compiled code trusts what it loads, so damage must be seen before."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("head", *ARRAYS):
        # Field by field: what lies in the padding between fields is not kept by a copy.
        for field in saved[name].dtype.names or (...,):
            digest.update(np.ascontiguousarray(saved[name][field]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _check_configuration(
    saved: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], patterns: Patterns | None
) -> None:
    """Refuse another configuration than that of the fleet, or than any instance of it can have."""
    for name, fields in _FIXED.items():
        free = PATTERN.get(name, ()) if patterns is not None else ()
        fixed = [field for field in fields if field not in free]
        if any(not np.array_equal(saved[name][f], own[name][f]) for f in fixed):
            raise ValueError(f"the saved state is damaged: {name} differ in configuration")
    if patterns is None:
        return
    known = set(zip(*_pattern_columns(patterns), strict=True))
    if not known.issuperset(zip(*_pattern_columns(saved, len(patterns["instances"])), strict=True)):
        raise ValueError("the saved state is damaged: an instance is like none of the fleet")


def _pattern_columns(arrays: Mapping[str, np.ndarray], size: int | None = None) -> list[list[int]]:
    return [arrays[name][f][:size].tolist() for name, fields in PATTERN.items() for f in fields]


def _check_indices(saved: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> None:
    """Refuse indices out of range, also where the digest was made to fit them."""
    head, instances, engines = saved["head"], saved["instances"], saved["engines"]
    count = len(own["requests"])
    size, slots = own["running"].shape
    leaves, tenants = len(own["winner"]), len(own["tenants"])
    by_tenant = engines["kind"] == BY_TENANT
    gated = int(head["gated"][0])
    in_service = instances["decoding"] + instances["prefilling"]
    requests = (
        *(
            engines[name]
            for name in ("tail", "front", "line_root", "line_tail", "latest", "tested")
        ),
        engines["root"][~by_tenant],
        *(saved["requests"][name] for name in ("left", "right")),
        *(saved["lines"][name] for name in ("root", "tail")),
        *(saved[name] for name in ("running", "seen_running", "candidates")),
        *(saved["traits"][name] for name in ("next_call", "next_of_tenant", "next_of_application")),
        *(
            saved[name][field]
            for name in ("tenants", "applications")
            for field in ("oldest", "latest")
        ),
        engines["aside"],
        saved["pools"]["root"],
        saved["pools"]["tail"],
        head["stranded_root"],
    )
    ranges = [
        *((values, -1, count) for values in requests),
        (engines["root"][by_tenant], 0, tenants + 1),
        (saved["lines"]["place"], 0, tenants),
        (saved["active"], 0, tenants),
        (saved["traits"]["tenant"], 0, tenants),
        (saved["traits"]["interaction"], 0, len(own["killed"])),
        (saved["traits"]["application"][: count * gated], 0, len(own["applications"])),
        (saved["traits"]["prefix"], -1, own["prefixes"].shape[1]),
        (head["last_tenant"], -1, tenants),
        (saved["outages"]["instance"], 0, size),
        (head["next_outage"], 0, int(head["outage_count"][0]) + 1),
        (saved["winner"], 0, leaves),
        (saved["pending"], 0, size),
        (saved["ended"], 0, size),
        (head["next_arrival"], 0, count + 1),
        (head["pending_count"], 0, size + 1),
        (head["ended_count"], 0, size + 1),
        (instances["decoding"], 0, slots + 1),
        (instances["prefilling"], 0, slots + 1),
        (instances["max_num_seqs"] - in_service, 0, slots + 1),
        (saved["requests"]["generated"], 0, 2**31),
        (saved["seen_instances"]["decoding"], 0, slots + 1),
        (saved["seen_instances"]["prefilling"], 0, slots + 1),
    ]
    if any(v.size and (v.min() < low or v.max() >= end) for v, low, end in ranges):
        raise ValueError("the saved state is damaged: an index in it is out of range")
