"""The multi-tenant schedulers by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from baselines.scheduling.attained import charge_attained, least_attained, survey_attained
from baselines.scheduling.counters import (
    PROFILED_COST,
    charge_ahead,
    charge_profile,
    charge_tokens,
    smallest_counter,
    smallest_counter_with_seats,
)
from baselines.scheduling.deadlines import (
    charge_rates,
    latest_in_overload,
    next_token_deadline,
)
from baselines.scheduling.interactions import (
    charge_virtual_time,
    finish_tag,
    smallest_interaction,
)
from baselines.scheduling.normalised import (
    charge_at_end,
    charge_normalised,
    charge_ratios,
    charge_ratios_at_end,
    open_interactions_first,
)
from baselines.scheduling.rounds import charge_rounds, round_of_cost, round_of_debt
from envs.simulator import Scheduler
from envs.simulator.parameters import SWITCH, Range, ranges_of

VTC_SOURCE = "VTC, OSDI 2024"
FAIRSERVE_SOURCE = "FairServe, arXiv:2411.15997"
_TOKENS = ("input_weight", "output_weight")
_AHEAD = (*_TOKENS, "memory", "per_tenant")
_NORMAL = (*_TOKENS, "exponent", "system_weight")
_ATTAINED = (*_TOKENS, "half_life_s", "attained_share", "bands")
_PROFILE = ("per_input", "per_output", "per_product", "per_output_squared", "constant")

EVER = 1e9
"""Cost units beyond all counters: a bonus of so many always comes first."""


def _counting(
    name: str,
    charge: Callable[..., int],
    source: str,
    *,
    parameters: tuple[float, ...] = (1.0, 2.0),
    parameter_names: tuple[str, ...] = _TOKENS,
    lift: Literal["none", "queued", "last"] = "queued",
    rank: Callable[..., int] = smallest_counter,
    **others: Any,
) -> Scheduler:
    """A scheduler of tenants, that of the smallest counter first unless said otherwise."""
    return Scheduler(
        name,
        rank,
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
        "vtc_predict_seats",
        charge_ahead,
        "vtc_predict with seats of a tenant; goes with the gate `fair_queues`",
        parameters=(1.0, 2.0, 4.0, 1.0),
        parameter_names=_AHEAD,
        rank=smallest_counter_with_seats,
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
    _counting(
        "max_min",
        charge_ahead,
        "max-min water filling: true costs are charged ahead, and never lifted",
        lift="none",
        parameters=(1.0, 2.0, 4.0, 0.0),
        parameter_names=_AHEAD,
        uses_prediction=True,
    ),
    *(
        _counting(
            f"{name}{ending}",
            charge,
            f"{FAIRSERVE_SOURCE}, {what}{also}",
            parameters=(1.0, 2.0, 1.0, 1.0, EVER) if ending else (1.0, 2.0, 1.0, 1.0),
            parameter_names=(*_NORMAL, "bonus") if ending else _NORMAL,
            rank=rank,
        )
        for name, charge, what in (
            ("wsc", charge_normalised, "Eq. 3, charged as tokens come"),
            ("wsc_at_end", charge_at_end, "artifact: charged at completion"),
            ("wsc_ratios", charge_ratios, "a sum of ratios, charged as tokens come"),
            ("wsc_ratios_at_end", charge_ratios_at_end, "a sum of ratios, charged at completion"),
        )
        for ending, rank, also in (
            ("", smallest_counter, ""),
            ("_open", open_interactions_first, "; open interactions first"),
        )
    ),
    _counting(
        "mdrr",
        charge_rounds,
        f"{VTC_SOURCE}, artifact: deficit round robin with debts; a twentieth of its KV a round",
        rank=round_of_debt,
        lift="none",
        parameters=(1.0, 2.0, 500.0),
        parameter_names=(*_TOKENS, "quantum"),
    ),
    _counting(
        "drr",
        charge_rounds,
        "deficit round robin over prompt tokens, as in NVIDIA Dynamo's router",
        rank=round_of_cost,
        lift="none",
        parameters=(1.0, 0.0, 1000.0),
        parameter_names=(*_TOKENS, "quantum"),
    ),
    _counting(
        "las",
        charge_attained,
        "least attained service with decay, as in the llm-d router",
        rank=least_attained,
        survey=survey_attained,
        lift="none",
        parameters=(1.0, 2.0, 60.0, 0.8, 0.0),
        parameter_names=_ATTAINED,
    ),
    _counting(
        "las_bands",
        charge_attained,
        "las by bands of tenants, as in the llm-d router; goes with its gates",
        rank=least_attained,
        survey=survey_attained,
        lift="none",
        parameters=(1.0, 2.0, 60.0, 0.8, 1.0),
        parameter_names=_ATTAINED,
    ),
    Scheduler(
        "justitia",
        finish_tag,
        kind="static",
        charge=charge_virtual_time,
        parameters=(50_000.0,),
        parameter_names=("kv_tokens",),
        uses_prediction=True,
        source="Justitia, arXiv:2510.17015: virtual finish times of whole interactions",
    ),
    Scheduler(
        "shortest_interaction",
        smallest_interaction,
        kind="static",
        uses_prediction=True,
        source="shortest interaction first; with true lengths the bound on finished interactions",
    ),
    Scheduler(
        "abort",
        latest_in_overload,
        kind="dynamic",
        charge=charge_rates,
        parameters=(0.7,),
        parameter_names=("newest_share",),
        source=f"{VTC_SOURCE}, artifact: its abort queue; goes with the gate `late`",
    ),
    Scheduler(
        "token_deadline",
        next_token_deadline,
        kind="static",
        parameters=(6.0, 0.1),
        parameter_names=("ttft_s", "tbt_s"),
        source="the order of FairBatching, arXiv:2510.14392",
    ),
)
# Larger ones leave the range of the counters, which are integers.
_COST, _SHARE = Range(0.0, 1e4), Range(0.0, 1.0)
_RANGES = {
    **dict.fromkeys((*_TOKENS, *_PROFILE, "system_weight"), _COST),
    "memory": Range(0.0, 1e6),
    "per_tenant": SWITCH,
    "exponent": Range(0.0, 4.0),
    "bonus": Range(0.0, EVER),
    "quantum": Range(0.0, 1e12, above=True),
    "half_life_s": Range(0.0, 1e9, above=True),
    "attained_share": _SHARE,
    "bands": SWITCH,
    "kv_tokens": Range(0.0, 1e12, above=True),
    "newest_share": Range(0.0, 1.0, above=True),
    "ttft_s": Range(0.0, 1e6),
    "tbt_s": Range(0.0, 1e3),
}
_BY_NAME = {
    each.name: replace(each, ranges=ranges_of(each.parameter_names, _RANGES)) for each in _ALL
}


def schedulers() -> dict[str, Scheduler]:
    """All multi-tenant schedulers by name."""
    return dict(_BY_NAME)


def scheduler(name: str, **parameters: float) -> Scheduler:
    """A scheduler by name, with some of its parameters replaced.

    Raises:
        ValueError: The scheduler or a parameter is unknown; the message lists those that exist.
            Or a value is out of its range.
    """
    if name not in _BY_NAME:
        raise ValueError(f"scheduler {name!r} is unknown; choose of {sorted(_BY_NAME)}")
    return _BY_NAME[name].with_parameters(**parameters)
