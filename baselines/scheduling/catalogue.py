"""The multi-tenant schedulers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from baselines.scheduling.counters import (
    PROFILED_COST,
    charge_ahead,
    charge_at_end,
    charge_normalised,
    charge_profile,
    charge_tokens,
    smallest_counter,
)
from envs.simulator import Scheduler

VTC_SOURCE = "VTC, OSDI 2024"
FAIRSERVE_SOURCE = "FairServe, arXiv:2411.15997"
_TOKENS = ("input_weight", "output_weight")
_AHEAD = (*_TOKENS, "memory", "per_tenant")
_PROFILE = ("per_input", "per_output", "per_product", "per_output_squared", "constant")

RPM_LIMITS = (5, 10, 15, 20, 30)
"""Requests a minute of VTC's rate limits: `RateLimit` of the simulation, with queue "fcfs".

FairServe's version sets `kill_interactions` as well.
"""


def _counting(
    name: str,
    charge: Callable[..., int],
    source: str,
    *,
    parameters: tuple[float, ...] = (1.0, 2.0),
    parameter_names: tuple[str, ...] = _TOKENS,
    lift: Literal["none", "queued", "last"] = "queued",
    **others: Any,
) -> Scheduler:
    """A scheduler that serves the tenant of the smallest counter."""
    return Scheduler(
        name,
        smallest_counter,
        kind="tenant",
        charge=charge,
        lift=lift,
        parameters=parameters,
        parameter_names=parameter_names,
        source=source,
        **others,
    )


_ALL = (
    _counting("vtc", charge_tokens, f"{VTC_SOURCE}, Alg. 2; counters lifted as in its artifact"),
    _counting("vtc_paper", charge_tokens, f"{VTC_SOURCE}, Alg. 2 with lines 8-10", lift="last"),
    _counting(
        "vtc_artifact",
        charge_tokens,
        f"{VTC_SOURCE}, artifact: with a token too many charged at each completion",
        overcharge=True,
    ),
    _counting(
        "lcf",
        charge_tokens,
        f"{VTC_SOURCE}: least counter first, VTC without the lift",
        lift="none",
    ),
    _counting(
        "vtc_predict",
        charge_ahead,
        f"{VTC_SOURCE}, artifact: the tenant's running mean is charged ahead",
        parameters=(1.0, 2.0, 4.0, 1.0),
        parameter_names=_AHEAD,
    ),
    _counting(
        "vtc_predicted",
        charge_ahead,
        f"{VTC_SOURCE}, 4.4: predicted outputs charged ahead; VTC-oracle with true ones",
        parameters=(1.0, 2.0, 4.0, 0.0),
        parameter_names=_AHEAD,
        uses_prediction=True,
    ),
    _counting(
        "vtc_profile",
        charge_profile,
        f"{VTC_SOURCE}, profiled cost of an A10G with a 7B model",
        parameters=PROFILED_COST,
        parameter_names=_PROFILE,
    ),
    _counting("wsc", charge_normalised, f"{FAIRSERVE_SOURCE}, Eq. 3, charged as tokens come"),
    _counting("wsc_at_end", charge_at_end, f"{FAIRSERVE_SOURCE}, artifact: charged at completion"),
)
_BY_NAME = {scheduler.name: scheduler for scheduler in _ALL}


def schedulers() -> dict[str, Scheduler]:
    """All multi-tenant schedulers by name."""
    return dict(_BY_NAME)


def scheduler(name: str, **parameters: float) -> Scheduler:
    """A scheduler by name, with some of its parameters replaced.

    Raises:
        ValueError: The scheduler or a parameter is unknown; the message lists those that exist.
    """
    if name not in _BY_NAME:
        raise ValueError(f"scheduler {name!r} is unknown; choose of {sorted(_BY_NAME)}")
    return _BY_NAME[name].with_parameters(**parameters)
