"""What a fleet is, in one line a group, with how far its step times can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from envs.hardware import CostModel
from envs.simulator import EngineConfig

_USUAL = {
    "queue": "fcfs",
    "admission": "growth",
    "kv_block_tokens": 1,
    "adapter_tokens": 0,
    "decode_steps": 10,
    "prefix_cache": False,
    "intake_per_iteration": 0,
}
"""Options of an instance that are told where they differ."""


def trust(cost: CostModel) -> str:
    """How far step times can be trusted: the tier of the cost model and its relative error."""
    known = math.isfinite(cost.error)
    if cost.tier == "roofline":
        error = f", error about {100 * cost.error:.0f} %" if known else ""
        return f"roofline{error}: read as an order of magnitude"
    if cost.tier == "calibrated" and known:
        return f"calibrated, held-out error {100 * cost.error:.0f} %"
    return cost.tier


def fleet_data(engines: Sequence[EngineConfig]) -> list[dict[str, Any]]:
    """One mapping a group of equal instances, in the order of the fleet.

    Args:
        engines: The instances, named `group-0`, `group-1`, ... (`Fleet.engines`).
    """
    groups: dict[str, list[EngineConfig]] = {}
    for engine in engines:
        groups.setdefault(engine.name.rpartition("-")[0], []).append(engine)
    return [_group(name, members) for name, members in groups.items()]


def fleet_line(group: Mapping[str, Any]) -> str:
    """A group of `fleet_data` as a line of text."""
    return (
        f"{group['count']} x {group['model']} on {group['gpu']} TP{group['tensor_parallel']}, "
        f"{group['kv_capacity_tokens']:,} KV tokens, {group['batching']} "
        f"({group['max_num_seqs']:,} seqs, {group['max_batched_tokens']:,} tokens)"
        f"{_options(group)}; step times: {group['trust']}"
    )


def _options(group: Mapping[str, Any]) -> str:
    """What is not as usual, each after a comma."""
    texts = [f"serves {group['serves']}"] if group["serves"] else []
    texts += [f"{key} {group[key]}" for key, usual in _USUAL.items() if group[key] != usual]
    return "".join(f", {text}" for text in texts)


def fleet_lines(engines: Sequence[EngineConfig]) -> list[str]:
    """One line a group of equal instances."""
    return [fleet_line(group) for group in fleet_data(engines)]


def fleets_text(fleets: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The fleets of several scenarios, equal ones once.

    Args:
        fleets: `fleet_data` by the name of the scenario.
    """
    names: dict[tuple[str, ...], list[str]] = {}
    for scenario, groups in fleets.items():
        names.setdefault(tuple(map(fleet_line, groups)), []).append(scenario)
    return "\n".join(
        f"fleet of {', '.join(scenarios)}: {line}" if len(names) > 1 else f"fleet: {line}"
        for lines, scenarios in names.items()
        for line in lines
    )


def _group(name: str, members: Sequence[EngineConfig]) -> dict[str, Any]:
    engine, cost = members[0], members[0].cost
    return {
        "group": name,
        "count": len(members),
        "model": cost.model,
        "gpu": cost.gpu,
        "tensor_parallel": cost.tensor_parallel,
        "cost_tier": cost.tier,
        "cost_error": cost.error if math.isfinite(cost.error) else None,
        "cost_source": cost.source,
        "trust": trust(cost),
        "kv_capacity_tokens": int(engine.kv_capacity_tokens),
        "batching": engine.batching,
        "queue": engine.scheduler.name,
        "serves": engine.model,
        **{name: getattr(engine, name) for name in _USUAL if name != "queue"},
        "max_num_seqs": engine.max_num_seqs,
        "max_batched_tokens": engine.max_batched_tokens,
    }
