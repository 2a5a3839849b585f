"""Laying out a simulation that has not begun: requests, instances and options to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from envs.simulator.blank import LONG_AGO, SameFleet, blank_of, lines_of, tenants_of
from envs.simulator.config import Backlog, EngineConfig, Outage, RateLimit
from envs.simulator.gate import Gate, Retry
from envs.simulator.layout import (
    INTERACTION_DTYPE,
    KEYED,
    NEVER,
    OUTAGE_DTYPE,
    PREFIX_DTYPE,
    PS_PER_S,
    REQUEST_DTYPE,
    TRAITS_DTYPE,
    UNFINISHED,
)
from envs.simulator.state import State, write_head


@dataclass(frozen=True)
class Columns:
    """The requests, (R,) each: times in ps, sorted by arrival; codes count from 0, -1 is none."""

    arrival_ps: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    predicted: np.ndarray
    tier: np.ndarray | int = 0
    model: np.ndarray | int = -1
    region: np.ndarray | int = 0
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
    regions: Sequence[str] = ("",)
    closed_loop: bool = False
    rate_limit: RateLimit | None = None
    gate: Gate | None = None
    retry: Retry = field(default_factory=Retry)
    outages: Sequence[Outage] = ()
    backlog: Backlog | None = None
    tier_limits_ps: tuple[int, int, int] = (NEVER, NEVER, NEVER)
    network_ps: np.ndarray | None = None
    elastic: bool = False
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
    _check(fleet, options)
    codes = tuple(options.models), tuple(options.regions)
    blank = blank_of(SameFleet(tuple(fleet)), *codes, options.window)
    gate = options.gate
    traited = blank.traited or options.closed_loop or options.rate_limit is not None
    traited = traited or gate is not None
    own = {
        "requests": _requests(columns, options),
        "output": np.array(columns.output, np.int32),
        "tables": blank.tables,
    }
    tenants, limit, prefixes = int(np.max(columns.tenant, initial=0)) + 1, 0, 1
    if tenants > 1 or columns.tenant_weights is not None:
        own["tenants"] = _tenants(tenants, columns.tenant_weights)
    if traited:
        traits = _traits(columns, options, own["requests"], blank.caches)
        own["traits"] = traits
        interactions = int(traits["interaction"].max(initial=0)) + 1
        own["killed"] = np.zeros(interactions, np.int8)
        if blank.counted or gate is not None:
            own["interactions"] = np.zeros(interactions, INTERACTION_DTYPE)
        if gate is not None:
            own["applications"] = tenants_of(int(traits["application"].max(initial=0)) + 1)
        limit = _binding_limit(options.rate_limit, traits["tenant"])
        prefixes = int(traits["prefix"].max(initial=0)) + 1 if blank.caches else 1
    if limit:
        own["entries"] = np.full((tenants, limit), LONG_AGO)
    if blank.caches:
        own["prefixes"] = np.zeros((len(fleet), prefixes), PREFIX_DTYPE)
    if blank.lined or gate is not None:
        own["lines"] = lines_of(len(fleet), tenants)
        own["active"] = np.zeros((len(fleet), tenants), np.int32)
    if options.outages:
        own["outages"] = _outages(options.outages)
    limit_kills = limit > 0 and getattr(options.rate_limit, "kill_interactions", False)

    arrays, addresses = blank.block.copy()
    # What comes back, from a failed instance or to the gate, goes to its place, which a list has
    # no way to.
    comes_back = options.outages or options.elastic or options.network_ps is not None
    if options.router_sjf or comes_back or options.backlog is not None or gate is not None:
        arrays["engines"]["kind"][len(fleet)] = KEYED
    if options.poll_ps > 0:
        for name in ("running", "outlived", "instances"):
            own[f"seen_{name}"] = arrays[name].copy()
        own["seen_requests"] = own["requests"].copy()
    kills = limit_kills or (gate is not None and gate.kills_interactions)
    head = arrays.pop("head")
    values = {
        "interval_ps": options.interval_ps,
        "slo_ttft_ps": options.slo_ps[0],
        "slo_tbt_ps": options.slo_ps[1],
        "slo_e2e_ps": options.slo_ps[2],
        "more": int(options.more),
        "plain": int(blank.plain and not kills),
        "tracked": int(blank.lined or blank.counted or gate is not None),
        "gated": int(gate is not None),
        "looks": int(gate is not None and gate.look is not None),
        "pause_ps": NEVER,
        "elastic": int(options.elastic),
        "pooled": int(options.elastic or options.backlog is not None),
        "remote": int(options.network_ps is not None and bool(np.any(options.network_ps > 0))),
        "traited": int(traited),
        "closed": int(options.closed_loop or gate is not None),
        "overrun_tokens": max(options.overrun_tokens, 1),
        "overrun_percent": options.overrun_percent,
        "limit": limit,
        "kills": int(kills),
        "limit_kills": int(limit_kills),
        "router_order": int(options.router_sjf),
        "outage_count": 2 * len(options.outages),
        "poll_ps": options.poll_ps,
        "count": len(own["requests"]),
        "window": options.window,
        "tenant_count": tenants,
        "prefix_count": prefixes,
    }
    write_head(head, values)
    _write_backlog(arrays["backlog"][0], options)
    if options.network_ps is not None:
        arrays["network_ps"][:] = options.network_ps
    if gate is not None:
        gate.write(arrays["gate"][0])
        options.retry.write(arrays["gate"][0])
    patterns = None
    if options.elastic:
        size = len(fleet)
        patterns = {name: arrays[name][:size].copy() for name in ("instances", "engines")}
    state = State(head, arrays | own, blank.schedulers, gate, patterns)
    state.bind({name: at for name, at in addresses.items() if name not in own})
    return state


def _write_backlog(row: np.void, options: Options) -> None:
    rules = options.backlog or Backlog()
    row["on"] = int(options.backlog is not None)
    for name in ("low", "middle", "at_low", "at_middle"):
        row[name] = getattr(rules, name)
    row["promote_ps"] = NEVER if rules.promote_s > 9e6 else round(rules.promote_s * PS_PER_S)
    for tier, limit in enumerate(options.tier_limits_ps):
        row[f"limit_{tier}_ps"] = limit


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
    if options.elastic and options.outages:
        raise ValueError(
            "outages and elastic=True can't go together: let instances fail with ElasticFleet.fail"
        )
    if options.backlog is not None and options.gate is not None:
        raise ValueError("a backlog and an admission policy can't go together")
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


_WHOLE = np.dtype((np.void, REQUEST_DTYPE.itemsize))
"""A request as bytes: NumPy copies records field by field, which takes ten times as long."""


@lru_cache(maxsize=64)
def _new_request(alike: tuple[tuple[str, int], ...]) -> np.ndarray:
    """(1,) bytes of a request that has not arrived, with values that all have."""
    row = np.zeros(1, REQUEST_DTYPE)
    for name in ("dispatch_ps", "admit_ps", "first_token_ps", "finish_ps", "instance"):
        row[name] = -1
    row["left"] = row["right"] = -1
    row["status"] = UNFINISHED
    for name, value in alike:
        row[name] = value
    return row.view(_WHOLE)


def _requests(columns: Columns, options: Options) -> np.ndarray:
    alike = [(name, getattr(options, name)) for name in ("overrun_tokens", "overrun_percent")]
    given = {}
    for name in ("arrival_ps", "prompt", "predicted", "tier", "model", "region"):
        value = getattr(columns, name)
        if isinstance(value, int):
            alike.append((name, value))
        else:
            given[name] = value
    requests = np.empty(len(columns.arrival_ps), REQUEST_DTYPE)
    requests.view(_WHOLE)[:] = _new_request(tuple(alike))
    for name, values in given.items():
        requests[name] = values
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


def _tenants(count: int, weights: np.ndarray | None) -> np.ndarray:
    tenants = tenants_of(count)
    if weights is not None:
        given = np.asarray(weights, np.float64)
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
