"""From a request table to the columns that the kernel reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.simulator.build import Columns
from envs.simulator.config import EngineConfig
from envs.simulator.layout import NEVER, PS_PER_S

if TYPE_CHECKING:
    from envs.workloads import RequestTable

_ANY_MODEL = ("", "default")
"""What the model column holds where a request names none."""


def seconds_to_ps(seconds: float) -> int:
    """Integer picoseconds of a time in seconds; beyond the clock's range is never.

    Raises:
        ValueError: The time is not a number.
    """
    if math.isnan(seconds):
        raise ValueError("a time in seconds is NaN")
    return NEVER if seconds * PS_PER_S >= NEVER else round(seconds * PS_PER_S)


def columns_of(
    table: RequestTable,
    fleet: Sequence[EngineConfig],
    think_s: float | np.ndarray = 0.0,
    weights: np.ndarray | None = None,
    tenant_weights: np.ndarray | None = None,
    typical: np.ndarray | None = None,
    interaction_costs: np.ndarray | None = None,
) -> tuple[Columns, tuple[str, ...], tuple[str, ...]]:
    """Columns of a table for a fleet, and the models and regions that their codes stand for.

    Only columns that the table was given are looked at; the others keep their defaults, and no
    memory.

    Raises:
        ValueError: A time is not a number, or a value does not fit its type.
    """
    given: Any = table.given
    models, codes = _models(table, fleet)
    regions, places = _regions(table, fleet)
    optional: dict[str, Any] = {}
    for name in ("tenant", "application"):
        if name in given:
            optional[name] = getattr(table, name).codes
    for name in ("call_index", "prefix_tokens"):
        if name in given:
            optional[name] = np.asarray(getattr(table, name))
    if "tier" in given:
        optional["tier"] = table.tier.codes
    if "priority" in given:
        optional["priority"] = np.clip(table.priority, -(2**31), 2**31 - 1)
    if "deadline_s" in given:
        deadline = np.asarray(table.deadline_s) * PS_PER_S
        near = np.rint(np.where(deadline < 2.0**62, deadline, 0.0)).astype(np.int64)
        optional["deadline_ps"] = np.where(deadline < 2.0**62, near, NEVER)
    if "interaction" in given:
        optional["interaction"] = np.unique(table.interaction, return_inverse=True)[1]
    else:
        optional["interaction"] = np.arange(len(table))
    if "prefix_id" in given:
        optional["prefix"] = _prefixes(np.asarray(table.prefix_id))
    if "system_tokens" in given:
        optional["system"] = np.asarray(table.system_tokens)
    if "calls_in_interaction" in given:
        optional["later"] = table.calls_in_interaction - table.call_index - 1
    if weights is not None:
        optional["weight"] = _positive(weights, len(table), "weights")
    if interaction_costs is not None:
        optional["interaction_cost"] = _positive(interaction_costs, len(table), "interaction_costs")
    if typical is not None:
        both = np.asarray(typical, np.float64)
        if both.shape != (len(table), 2):
            raise ValueError(f"typical must be ({len(table)}, 2): prompt and output tokens")
        optional["typical_prompt"] = _positive(both[:, 0], len(table), "typical")
        optional["typical_output"] = _positive(both[:, 1], len(table), "typical")
    columns = Columns(
        arrival_ps=table.arrival_ps,
        prompt=np.asarray(table.prompt_tokens),
        output=np.asarray(table.output_tokens),
        predicted=np.maximum(np.asarray(table.predicted_output_tokens), 1),
        model=codes,
        region=places,
        think_ps=_think_ps(think_s, len(table)),
        tenant_weights=tenant_weights,
        **optional,
    )
    return columns, models, regions


def _models(
    table: RequestTable, fleet: Sequence[EngineConfig]
) -> tuple[tuple[str, ...], np.ndarray | int]:
    """Model names of fleet and table, and each request's place among them, -1 for any."""
    if not any(engine.model for engine in fleet) or "model" not in table.given:
        return tuple(dict.fromkeys(engine.model for engine in fleet if engine.model)), -1
    labels = table.model
    asked = [name for name in labels.names if name not in _ANY_MODEL]
    names = tuple(dict.fromkeys([*(e.model for e in fleet if e.model), *asked]))
    if len(names) >= 2**7:
        raise ValueError(f"{len(names)} models are more than the simulator tells apart")
    place = np.array([names.index(n) if n in names else -1 for n in labels.names], np.int64)
    return names, place[labels.codes]


def _regions(
    table: RequestTable, fleet: Sequence[EngineConfig]
) -> tuple[tuple[str, ...], np.ndarray | int]:
    """Names of the fleet's regions, and each request's place among them."""
    names = tuple(dict.fromkeys(engine.region for engine in fleet))
    if len(names) >= 2**7:
        raise ValueError(f"{len(names)} regions are more than the simulator tells apart")
    if len(names) <= 1:
        return names, 0
    if "region" not in table.given:
        raise ValueError(
            f"the fleet stands in several regions ({', '.join(names)}), and the requests name "
            "none: add a column region"
        )
    unknown = [name for name in table.region.names if name not in names]
    if unknown:
        raise ValueError(
            f"requests come from regions without an instance: {', '.join(unknown)}; the fleet has "
            f"{', '.join(names)}"
        )
    place = np.array([names.index(name) for name in table.region.names], np.int64)
    return names, place[table.region.codes]


def _think_ps(think_s: float | np.ndarray, count: int) -> np.ndarray | int:
    if isinstance(think_s, float) and think_s == 0.0:
        return 0
    think = np.asarray(think_s, np.float64)
    if think.shape not in ((), (count,)):
        raise ValueError(f"think_s is one number or {count}, one a request")
    if np.isnan(think).any() or (think < 0).any() or (think > 9e6).any():
        raise ValueError("think_s must be from 0 to 9e6 seconds")
    return np.rint(think * PS_PER_S).astype(np.int64)


def _prefixes(ids: np.ndarray) -> np.ndarray:
    """Codes of prefix ids in ascending order; -1 stays."""
    values, codes = np.unique(ids, return_inverse=True)
    return np.where(ids < 0, -1, codes - int(np.sum(values < 0)))


def _positive(weights: np.ndarray, count: int, name: str) -> np.ndarray:
    values = np.asarray(weights, np.float64)
    if values.shape != (count,) or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(f"{name} must hold {count} positive numbers, one a request")
    return values
