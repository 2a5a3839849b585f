"""A simulation of a fleet without its requests: laid out once, and copied for each episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from envs.hardware import CostModel, StepTables
from envs.simulator.block import Block
from envs.simulator.config import ADMISSION, BATCHING, LANES, EngineConfig
from envs.simulator.layout import (
    ANY_TIER,
    ARRAYS,
    BATCH,
    ENGINE_DTYPE,
    HEAD_DTYPE,
    INSTANCE_DTYPE,
    INTERACTIVE,
    KEYED,
    LINE_DTYPE,
    LISTED,
    NEVER,
    POOL_DTYPE,
    PREFIX_DTYPE,
    SCHEDULER_DTYPE,
    TENANT_DTYPE,
    TIERS,
)
from envs.simulator.scheduler import SCHEDULERS, Scheduler
from envs.simulator.state import write_head

LONG_AGO = -(2**62)
ROW_ALONE = tuple(SCHEDULERS[name] for name in ("fcfs", "sjf", "srpt", "pf"))
"""Schedulers that look at nothing beyond the request's own row."""


@dataclass(frozen=True, eq=False)
class SameFleet:
    """A fleet that equals another if it holds the very same objects.

    To compare the values of all instances would take longer than to lay them out saves.
    """

    engines: tuple[EngineConfig, ...]

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.engines)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameFleet) and list(map(id, self.engines)) == list(
            map(id, other.engines)
        )


@dataclass(frozen=True)
class Blank:
    """What the simulations of a fleet have in common.

    Attributes:
        block: The head, without addresses, and the arrays that depend on the fleet alone; others
            as they are where their option is off.
        tables: Step times, shared by all simulations.
        slots: The largest number of requests that an instance may have in service.
        schedulers: The different ones of the fleet.
        traited: Whether requests have traits, whatever the options.
        counted: Whether tenants have counters.
        lined: Whether tenants have lines at the instances.
        caches: Whether an instance has a prefix cache.
        plain: Whether every waiting queue is a list or heap.
    """

    block: Block
    tables: np.ndarray
    slots: int
    schedulers: tuple[Scheduler, ...]
    traited: bool
    counted: bool
    lined: bool
    caches: bool
    plain: bool


@lru_cache(maxsize=16)
def blank_of(
    same: SameFleet, models: tuple[str, ...], regions: tuple[str, ...], window: int
) -> Blank:
    """Lay out a fleet.

    Args:
        same: The fleet.
        models: Names that the codes of models stand for.
        regions: The same of regions.
        window: Places of the router queue that a decision may pick from.
    """
    fleet = same.engines
    size = len(fleet)
    schedulers = tuple(dict.fromkeys(engine.scheduler for engine in fleet))
    counted = any(scheduler.charge is not None for scheduler in schedulers)
    ranked = any(scheduler not in ROW_ALONE for scheduler in schedulers)
    adapters = any(engine.adapter_tokens for engine in fleet)
    caches = any(engine.prefix_cache for engine in fleet)
    lined = ranked or adapters
    slots = max(engine.max_num_seqs for engine in fleet)
    leaves = 1 << max(1, (size - 1).bit_length())

    instances = np.zeros(size, INSTANCE_DTYPE)
    tables = _write_instances(instances, fleet, models, regions)
    arrays = {name: np.zeros(1, dtype) for name, dtype in ARRAYS.items()} | {
        "instances": instances,
        "engines": _engines(fleet, schedulers),
        "event_ps": np.full(leaves, NEVER, np.int64),
        "winner": _tournament(leaves),
        "pending": np.zeros(size, np.int64),
        "ended": np.zeros(size, np.int64),
        "candidates": np.full(window, -1, np.int64),
        "running": np.full((size, slots), -1, np.int32),
        "finish_iteration": np.zeros((size, slots), np.int64),
        "outlived": np.zeros((size, slots), np.int64),
        "scratch": np.zeros(slots + 1, np.int64),
        "tenants": tenants_of(1),
        "schedulers": np.zeros(len(schedulers), SCHEDULER_DTYPE),
        "lines": lines_of(1, 1),
        "active": np.zeros((1, 1), np.int32),
        "prefixes": np.zeros((1, 1), PREFIX_DTYPE),
        "entries": np.full((1, 1), LONG_AGO),
        "pools": pools_of(max(len(models), 1), max(len(regions), 1)),
        "rooms": rooms_of(instances, len(models)),
        "network_ps": np.zeros((max(len(regions), 1),) * 2, np.int64),
        "seen_running": np.full((1, 1), -1, np.int32),
        "seen_outlived": np.zeros((1, 1), np.int64),
    }
    for row, scheduler in zip(arrays["schedulers"], schedulers, strict=True):
        scheduler.write(row)
    head = np.zeros(1, HEAD_DTYPE)
    values = {
        "last_tick_ps": -1,
        "largest_request": max(engine.largest_request_tokens for engine in fleet),
        "models": int(any(engine.model or engine.lane != "any" for engine in fleet)),
        "counted": int(counted),
        "ingress": int(any(engine.intake_per_iteration for engine in fleet)),
        "last_tenant": -1,
        "stranded_root": -1,
        "size": size,
        "slots": slots,
        "leaves": leaves,
        "region_count": max(len(regions), 1),
        "pool_count": max(len(models), 1) * max(len(regions), 1),
    }
    write_head(head, values)
    return Blank(
        Block({"head": head} | arrays),
        tables,
        slots,
        schedulers,
        traited=ranked or adapters or caches,
        counted=counted,
        lined=lined,
        caches=caches,
        plain=all(scheduler.queue_kind <= KEYED for scheduler in schedulers),
    )


def tenants_of(count: int) -> np.ndarray:
    """Tenants of weight 1 that have sent nothing yet."""
    tenants = np.zeros(count, TENANT_DTYPE)
    tenants["weight"] = 1.0
    tenants["oldest"] = tenants["latest"] = -1
    return tenants


def pools_of(models: int, regions: int) -> np.ndarray:
    """Pools that have done nothing yet."""
    pools = np.zeros((models, regions), POOL_DTYPE)
    pools["root"] = pools["tail"] = -1
    return pools


def rooms_of(instances: np.ndarray, models: int) -> np.ndarray:
    """Tokens of the largest request by model (0: one that names none) and tier."""
    rooms = np.zeros((models + 1, TIERS), np.int64)
    for row in instances:
        served = slice(None) if row["model"] < 0 else [0, row["model"] + 1]
        tiers = {ANY_TIER: [0, 1, 2], INTERACTIVE: [0, 1], BATCH: [2]}[int(row["lane"])]
        for tier in tiers:
            rooms[served, tier] = np.maximum(rooms[served, tier], row["room"])
    return rooms


def lines_of(size: int, tenants: int) -> np.ndarray:
    """Empty lines of tenants at instances."""
    lines = np.zeros((size, tenants), LINE_DTYPE)
    lines["root"] = lines["tail"] = -1
    return lines


def _write_instances(
    instances: np.ndarray,
    fleet: Sequence[EngineConfig],
    models: Sequence[str],
    regions: Sequence[str],
) -> np.ndarray:
    """Write each instance's limits and costs, and give the step times that they point at."""
    kinds = tuple(dict.fromkeys((e.cost, e.max_num_seqs, e.max_batched_tokens) for e in fleet))
    packed, each = _step_times(kinds)
    for row, engine in zip(instances, fleet, strict=True):
        kind = (engine.cost, engine.max_num_seqs, engine.max_batched_tokens)
        tables, at = each[kinds.index(kind)]
        row["decode_at"], row["prefill_at"], row["sequence_at"] = at
        for name in ("context_ps", "mixed_context_ps", "attention_ps", "prefill_tail_ps"):
            row[name] = getattr(tables, name)
        row["kv_capacity"] = engine.kv_capacity_tokens
        row["watermark"] = engine.watermark_tokens
        row["room"] = engine.largest_request_tokens
        for name in ("max_num_seqs", "max_batched_tokens"):
            row[name] = getattr(engine, name)
        row["batching"] = BATCHING.index(engine.batching)
        row["model"] = list(models).index(engine.model) if engine.model else -1
        row["region"] = regions.index(engine.region)
        row["lane"] = LANES.index(engine.lane)
    return packed


@lru_cache(maxsize=64)
def _step_times(
    kinds: tuple[tuple[CostModel, int, int], ...],
) -> tuple[np.ndarray, list[tuple[StepTables, tuple[int, int, int]]]]:
    """Step times of each kind of engine one after another, and where each kind's begin.

    Simulations of one fleet share them: many at once then find them in the processor's cache.
    """
    parts, each, end = [], [], 0
    for cost, seqs, tokens in kinds:
        tables = cost.tables(seqs, tokens)
        places = []
        for values in (tables.decode_ps, tables.prefill_ps, tables.sequence_ps):
            places.append(end)
            parts.append(np.asarray(values, np.int64))
            end += len(values)
        each.append((tables, (places[0], places[1], places[2])))
    packed = np.concatenate(parts)
    packed.flags.writeable = False
    return packed, each


def _engines(fleet: Sequence[EngineConfig], schedulers: Sequence[Scheduler]) -> np.ndarray:
    size = len(fleet)
    engines = np.zeros(size + 4, ENGINE_DTYPE)
    for name in ("root", "tail", "front", "line_root", "line_tail", "aside", "latest", "tested"):
        engines[name] = -1
    for row, engine in zip(engines, fleet, strict=False):
        row["kind"] = engine.scheduler.queue_kind
        row["scheduler"] = schedulers.index(engine.scheduler)
        row["intake"] = engine.intake_per_iteration
        row["decode_steps"] = engine.decode_steps
        row["admission"] = ADMISSION.index(engine.admission)
        row["block"] = engine.kv_block_tokens
        row["adapter_tokens"] = engine.adapter_tokens
        row["caches"] = int(engine.prefix_cache)
        row["skip"] = engine.skip_ahead
        row["freed"] = engine.kv_capacity_tokens
        if engine.scheduler.kind == "tenant" and engine.scheduler.rank is not None:
            row["root"] = 0  # active tenants
    engines["kind"][size] = engines["kind"][size + 2] = LISTED
    engines["kind"][size + 1] = engines["kind"][size + 3] = KEYED
    return engines


def _tournament(leaves: int) -> np.ndarray:
    winner = np.zeros(leaves, np.int64)
    for node in range(leaves - 1, 0, -1):
        winner[node] = winner[2 * node] if 2 * node < leaves else 2 * node - leaves
    return winner
