"""Laying out a simulation that has not begun: requests, instances and options to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from envs.hardware import CostModel, StepTables
from envs.simulator.config import ADMISSION, BATCHING, EngineConfig, Outage, RateLimit
from envs.simulator.gate import Gate, Retry
from envs.simulator.layout import (
    ARRAYS,
    ENGINE_DTYPE,
    GATE_DTYPE,
    HEAD_DTYPE,
    INSTANCE_DTYPE,
    INTERACTION_DTYPE,
    KEYED,
    LINE_DTYPE,
    LISTED,
    NEVER,
    OUTAGE_DTYPE,
    PREFIX_DTYPE,
    REQUEST_DTYPE,
    SCHEDULER_DTYPE,
    TENANT_DTYPE,
    TRAITS_DTYPE,
    UNFINISHED,
)
from envs.simulator.scheduler import SCHEDULERS, Scheduler
from envs.simulator.state import State

_LONG_AGO = -(2**62)
ROW_ALONE = tuple(SCHEDULERS[name] for name in ("fcfs", "sjf", "srpt", "pf"))
"""Schedulers that look at nothing beyond the request's own row."""


@dataclass(frozen=True)
class Columns:
    """The requests, (R,) each: times in ps, sorted by arrival; codes count from 0, -1 is none."""

    arrival_ps: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    predicted: np.ndarray
    tier: np.ndarray | int = 0
    model: np.ndarray | int = -1
    deadline_ps: np.ndarray | int = NEVER
    priority: np.ndarray | int = 0
    tenant: np.ndarray | int = 0
    application: np.ndarray | int = 0
    interaction: np.ndarray | int = 0
    call_index: np.ndarray | int = 0
    prefix: np.ndarray | int = -1
    prefix_tokens: np.ndarray | int = 0
    weight: np.ndarray | float = 1.0
    typical_prompt: np.ndarray | float = 1.0
    typical_output: np.ndarray | float = 1.0
    interaction_cost: np.ndarray | float = 1.0
    system: np.ndarray | int = 0
    later: np.ndarray | int = 0
    think_ps: np.ndarray | int = 0
    tenant_weights: np.ndarray | None = None


@dataclass(frozen=True)
class Options:
    """Options of a simulation, times in ps; see `Simulation`."""

    router_sjf: bool = False
    interval_ps: int = 0
    window: int = 1
    slo_ps: tuple[int, int, int] = (NEVER, NEVER, NEVER)
    models: Sequence[str] = ()
    closed_loop: bool = False
    rate_limit: RateLimit | None = None
    gate: Gate | None = None
    retry: Retry = field(default_factory=Retry)
    outages: Sequence[Outage] = ()
    poll_ps: int = 0
    overrun_tokens: int = 1
    overrun_percent: int = 0
    more: bool = False


def build_state(columns: Columns, fleet: Sequence[EngineConfig], options: Options) -> State:
    """Lay out a simulation.

    Raises:
        ValueError: The fleet is empty, its instances do not go together, or an option is out of
            range.
    """
    count, size = len(columns.arrival_ps), len(fleet)
    _check(fleet, options)
    schedulers = list(dict.fromkeys(engine.scheduler for engine in fleet))
    counted = any(scheduler.charge is not None for scheduler in schedulers)
    ranked = any(scheduler not in ROW_ALONE for scheduler in schedulers)
    adapters = any(engine.adapter_tokens for engine in fleet)
    caches = any(engine.prefix_cache for engine in fleet)
    gate = options.gate
    traited = ranked or adapters or caches or options.closed_loop or gate is not None
    traited = traited or options.rate_limit is not None

    instances = np.zeros(size, INSTANCE_DTYPE)
    tables = _write_instances(instances, fleet, options.models)
    requests = _requests(columns, options)
    traits = np.zeros(1, TRAITS_DTYPE)
    if traited:
        traits = _traits(columns, options, requests, caches)
    slots = max(engine.max_num_seqs for engine in fleet)
    leaves = 1 << max(1, (size - 1).bit_length())
    tenants = _tenants(columns, int(np.max(columns.tenant, initial=0)) + 1)
    prefixes = int(traits["prefix"].max(initial=0)) + 1 if caches else 1
    lined = ranked or adapters or gate is not None
    lines = np.zeros((size, len(tenants)) if lined else (1, 1), LINE_DTYPE)
    lines["root"] = lines["tail"] = -1
    limit = _binding_limit(options.rate_limit, traits["tenant"])
    limit_kills = limit > 0 and getattr(options.rate_limit, "kill_interactions", False)
    kills = limit_kills or (gate is not None and gate.kills_interactions)
    looks = gate is not None and gate.look is not None
    interactions = int(traits["interaction"].max(initial=0)) + 1
    polled = options.poll_ps > 0

    arrays: dict[str, np.ndarray] = {
        "instances": instances,
        "engines": _engines(fleet, schedulers, options),
        "requests": requests,
        "output": np.array(columns.output, np.int32),
        "running": np.full((size, slots), -1, np.int32),
        "finish_iteration": np.zeros((size, slots), np.int64),
        "outlived": np.zeros((size, slots), np.int64),
        "event_ps": np.full(leaves, NEVER, np.int64),
        "winner": _tournament(leaves),
        "pending": np.zeros(size, np.int64),
        "ended": np.zeros(size, np.int64),
        "tables": tables,
        "candidates": np.full(options.window, -1, np.int64),
        "scratch": np.zeros(slots + 1, np.int64),
        "traits": traits,
        "schedulers": np.zeros(len(schedulers), SCHEDULER_DTYPE),
        "tenants": tenants,
        "lines": lines,
        "active": np.zeros(lines.shape, np.int32),
        "prefixes": np.zeros((size, prefixes) if caches else (1, 1), PREFIX_DTYPE),
        "entries": np.full((len(tenants), max(limit, 1)) if limit else (1, 1), _LONG_AGO),
        "killed": np.zeros(interactions, np.int8),
        "applications": _accounts(int(traits["application"].max(initial=0)) + 1 if gate else 1),
        "interactions": np.zeros(interactions if counted or gate else 1, INTERACTION_DTYPE),
        "gate": np.zeros(1, GATE_DTYPE),
        "outages": _outages(options.outages),
        "seen_instances": instances.copy() if polled else np.zeros(1, INSTANCE_DTYPE),
        "seen_requests": requests.copy() if polled else np.zeros(1, REQUEST_DTYPE),
        "seen_running": np.full((size, slots) if polled else (1, 1), -1, np.int32),
        "seen_outlived": np.zeros((size, slots) if polled else (1, 1), np.int64),
    }
    head = np.zeros(1, HEAD_DTYPE)
    values = {
        "interval_ps": options.interval_ps,
        "last_tick_ps": -1,
        "largest_request": max(engine.largest_request_tokens for engine in fleet),
        "slo_ttft_ps": options.slo_ps[0],
        "slo_tbt_ps": options.slo_ps[1],
        "slo_e2e_ps": options.slo_ps[2],
        "more": options.more,
        "models": int(any(engine.model for engine in fleet)),
        "plain": int(all(scheduler.queue_kind <= KEYED for scheduler in schedulers) and not kills),
        "traited": int(traited),
        "tracked": int(lined or counted),
        "counted": int(counted),
        "closed": int(options.closed_loop or gate is not None),
        "gated": int(gate is not None),
        "looks": int(looks),
        "pause_ps": NEVER,
        "ingress": int(any(engine.intake_per_iteration for engine in fleet)),
        "overrun_tokens": max(options.overrun_tokens, 1),
        "overrun_percent": options.overrun_percent,
        "limit": limit,
        "kills": int(kills),
        "limit_kills": int(limit_kills),
        "router_order": int(options.router_sjf),
        "last_tenant": -1,
        "outage_count": 2 * len(options.outages),
        "poll_ps": options.poll_ps,
        "size": size,
        "count": count,
        "slots": slots,
        "leaves": leaves,
        "window": options.window,
        "tenant_count": len(tenants),
        "prefix_count": prefixes,
    }
    for name, value in values.items():
        head[name] = value
    assert set(arrays) == set(ARRAYS)
    for row, scheduler in zip(arrays["schedulers"], schedulers, strict=True):
        scheduler.write(row)
    if gate is not None:
        gate.write(arrays["gate"][0])
        options.retry.write(arrays["gate"][0])
    return State.of(head, arrays, tuple(schedulers), gate)


def _binding_limit(rate_limit: RateLimit | None, tenant: np.ndarray) -> int:
    """Requests a minute; 0 where no tenant sends more than that in all."""
    if rate_limit is None:
        return 0
    most = int(np.bincount(tenant).max())
    return rate_limit.requests_per_minute if rate_limit.requests_per_minute < most else 0


def _check(fleet: Sequence[EngineConfig], options: Options) -> None:
    if not fleet:
        raise ValueError("the fleet has no instance")
    for name, least, most in (
        ("window", 1, 2**16),
        ("overrun_tokens", 0, 2**15 - 1),
        ("overrun_percent", 0, 2**15 - 1),
    ):
        value = getattr(options, name)
        if not isinstance(value, int | np.integer) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value}")
    if options.interval_ps < 0 or options.poll_ps < 0:
        raise ValueError("the decision interval and the poll interval must not be negative")
    schedulers = {engine.scheduler for engine in fleet}
    if len(schedulers) > 1 and any(scheduler.charge is not None for scheduler in schedulers):
        raise ValueError(
            "tenant counters are shared by the fleet: all instances must have one scheduler, not "
            + ", ".join(sorted(scheduler.name for scheduler in schedulers))
        )
    busy: dict[int, int] = {}
    for outage in sorted(options.outages, key=lambda other: (other.instance, other.start_ps)):
        if not 0 <= outage.instance < len(fleet):
            raise ValueError(f"an outage is of instance {outage.instance}: there is none")
        if outage.start_ps < busy.get(outage.instance, 0):
            raise ValueError(f"outages of instance {outage.instance} overlap")
        busy[outage.instance] = outage.end_ps


def _write_instances(
    instances: np.ndarray, fleet: Sequence[EngineConfig], models: Sequence[str]
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


def _engines(
    fleet: Sequence[EngineConfig], schedulers: Sequence[Scheduler], options: Options
) -> np.ndarray:
    size = len(fleet)
    engines = np.zeros(size + 3, ENGINE_DTYPE)
    for name in ("root", "tail", "front", "line_root", "line_tail", "aside"):
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
    # What comes back, from a failed instance or to the gate, goes to its place, which a list has
    # no way to.
    back = options.outages or options.gate is not None
    engines["kind"][size] = KEYED if options.router_sjf or back else LISTED
    engines["kind"][size + 1] = KEYED
    return engines


def _requests(columns: Columns, options: Options) -> np.ndarray:
    requests = np.zeros(len(columns.arrival_ps), REQUEST_DTYPE)
    requests["arrival_ps"] = columns.arrival_ps
    for name in ("prompt", "predicted", "tier", "model"):
        requests[name] = getattr(columns, name)
    requests["overrun_tokens"] = options.overrun_tokens
    requests["overrun_percent"] = options.overrun_percent
    for name in ("dispatch_ps", "admit_ps", "first_token_ps", "finish_ps", "instance"):
        requests[name] = -1
    requests["left"] = requests["right"] = -1
    requests["status"] = UNFINISHED
    return requests


def _traits(columns: Columns, options: Options, requests: np.ndarray, caches: bool) -> np.ndarray:
    traits = np.zeros(len(requests), TRAITS_DTYPE)
    for name in (
        *("deadline_ps", "priority", "tenant", "application", "interaction", "weight", "system"),
        *("typical_prompt", "typical_output", "interaction_cost", "call_index", "later"),
    ):
        traits[name] = getattr(columns, name)
    for name in ("logged_ps", "next_of_tenant", "next_of_application"):
        traits[name] = -1
    traits["prefix_tokens"] = np.minimum(columns.prefix_tokens, columns.prompt)
    cached = caches & (traits["prefix_tokens"] > 0)
    traits["prefix"] = np.where(cached, columns.prefix, -1)
    traits["next_call"] = -1
    if options.closed_loop:
        _chain(columns, traits)
        traits["due_ps"] = requests["arrival_ps"]
        requests["arrival_ps"] = np.where(traits["follows"] == 1, -1, requests["arrival_ps"])
    return traits


def _chain(columns: Columns, traits: np.ndarray) -> None:
    """Link each call to the one before it of its interaction."""
    order = np.argsort(traits["interaction"], kind="stable")
    same = traits["interaction"][order][1:] == traits["interaction"][order][:-1]
    before, after = order[:-1][same], order[1:][same]
    later = np.broadcast_to(columns.call_index, len(traits))[after] > 0
    before, after = before[later], after[later]
    traits["next_call"][before] = after
    traits["follows"][after] = 1
    traits["think_ps"] = columns.think_ps


def _accounts(count: int) -> np.ndarray:
    accounts = np.zeros(count, TENANT_DTYPE)
    accounts["weight"] = 1.0
    accounts["oldest"] = accounts["latest"] = -1
    return accounts


def _tenants(columns: Columns, count: int) -> np.ndarray:
    tenants = _accounts(count)
    if columns.tenant_weights is not None:
        given = np.asarray(columns.tenant_weights, np.float64)
        if given.ndim != 1 or len(given) < count:
            raise ValueError(f"tenant_weights must hold {count} weights, one a tenant")
        if not np.all((given > 0) & np.isfinite(given)):
            raise ValueError("tenant_weights must be positive numbers")
        tenants["weight"] = given[:count]
    return tenants


def _outages(outages: Sequence[Outage]) -> np.ndarray:
    """Recoveries before failures at one instant, then by instance."""
    changes = []
    for outage in outages:
        changes.append((outage.start_ps, 1, outage.instance))
        changes.append((outage.end_ps, 0, outage.instance))
    rows = np.zeros(max(len(changes), 1), OUTAGE_DTYPE)
    for row, (time_ps, down, instance) in zip(rows, sorted(changes), strict=False):
        row["time_ps"], row["down"], row["instance"] = time_ps, down, instance
    return rows


def _tournament(leaves: int) -> np.ndarray:
    winner = np.zeros(leaves, np.int64)
    for node in range(leaves - 1, 0, -1):
        winner[node] = winner[2 * node] if 2 * node < leaves else 2 * node - leaves
    return winner
