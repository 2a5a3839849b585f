"""The admission policies by name."""

from __future__ import annotations

from dataclasses import replace

from baselines.admission.buckets import (
    note_use,
    settle_tokens,
    share_of_cap,
    take_tokens,
    take_turn,
    take_window,
)
from baselines.admission.overload import (
    give_up_late,
    hold_back,
    note_band,
    oit_as_coded,
    oit_as_published,
    queue_limit,
    seat_limit,
    soft_ceiling,
)
from envs.simulator import Gate
from envs.simulator.parameters import SWITCH, Range, ranges_of

FAIRSERVE_SOURCE = "FairServe, arXiv:2411.15997"
_BUCKET = (
    *("tokens_per_minute", "burst_s", "answer_tokens", "reconcile", "after", "spare_interactions"),
)
_WINDOWS = (
    *("tokens_per_minute", "answer_tokens", "token_window_s", "call_window_s"),
    *("calls_per_thousand", "spare_interactions"),
)
_BANDS = ("calls_of_second_band", "calls_of_third_band")

_ALL = (
    Gate(
        "rpm",
        arrive=take_turn,
        parameters=(10.0, 0.0),
        parameter_names=("requests_per_minute", "spare_interactions"),
        source="gateways: requests a tenant in each minute of the clock; clients can retry",
    ),
    Gate(
        "token_bucket",
        arrive=take_tokens,
        finish=settle_tokens,
        parameters=(20_000.0, 60.0, 0.0, 1.0, 0.0, 0.0),
        parameter_names=_BUCKET,
        uses_prediction=True,
        source="token bucket a tenant: estimate, reserve, reconcile",
    ),
    Gate(
        "token_bucket_reserved",
        arrive=take_window,
        parameters=(20_000.0, 256.0, 60.0, 10.0, 6.0, 0.0),
        parameter_names=_WINDOWS,
        source="Azure OpenAI: prompt and max_tokens in fixed minutes, 6 calls per 1,000 in 10 s",
    ),
    Gate(
        "token_bucket_after",
        arrive=take_tokens,
        finish=settle_tokens,
        parameters=(20_000.0, 60.0, 0.0, 1.0, 1.0, 0.0),
        parameter_names=_BUCKET,
        source="Envoy AI gateway: charged at the end, so the call that exceeds it succeeds",
    ),
    Gate(
        "dynamic_limits",
        arrive=share_of_cap,
        finish=note_use,
        parameters=(800_000.0, 0.8, 0.01, 0.0),
        parameter_names=("tokens_per_minute", "threshold", "share", "spare_interactions"),
        source="LiteLLM, dynamic_rate_limiter_v3: shares are enforced in saturation",
    ),
    Gate(
        "oit",
        look=oit_as_coded,
        parameters=(50.0, 2000.0),
        parameter_names=("tenant_limit", "application_limit"),
        source=f"{FAIRSERVE_SOURCE}, artifact: throttling in overload, of new interactions",
    ),
    Gate(
        "oit_published",
        arrive=oit_as_published,
        senses=True,
        parameters=(50.0, 2000.0, 0.9),
        parameter_names=("tenant_limit", "application_limit", "kv_share"),
        source=f"{FAIRSERVE_SOURCE}: new interactions are put off in overload",
    ),
    Gate(
        "late",
        look=give_up_late,
        kills_interactions=False,
        parameters=(6.0, 0.5),
        parameter_names=("ttft_s", "margin_s"),
        source="VTC, OSDI 2024, artifact: its abort queue gives up calls that are too late",
    ),
    Gate(
        "bands",
        arrive=note_band,
        parameters=(10.0, 30.0),
        parameter_names=_BANDS,
        source="llm-d router, flow control: its priority bands alone; nobody is held back",
    ),
    Gate(
        "soft_ceiling",
        arrive=note_band,
        look=soft_ceiling,
        senses=True,
        parameters=(10.0, 30.0),
        parameter_names=_BANDS,
        source="llm-d router, flow control: soft reflective ceiling",
    ),
    Gate(
        "hold_back",
        arrive=note_band,
        look=hold_back,
        senses=True,
        parameters=(10.0, 30.0, 1.0, 0.6),
        parameter_names=(*_BANDS, "highest", "lowest"),
        source="llm-d router, flow control: priority hold-back",
    ),
    Gate(
        "fair_queues",
        arrive=queue_limit,
        look=seat_limit,
        kills_interactions=False,
        senses=True,
        parameters=(50.0, 8.0, 0.5),
        parameter_names=("queue_length", "seats", "borrow_below"),
        source="Kubernetes API Priority and Fairness, one level with a queue a tenant",
    ),
)
_LIMIT, _SHARE = Range(0.0, 1e12, above=True), Range(0.0, 1.0)
_RANGES = {
    "requests_per_minute": _LIMIT,
    "spare_interactions": SWITCH,
    "tokens_per_minute": _LIMIT,
    "burst_s": Range(0.0, 1e6, above=True),
    "answer_tokens": Range(0.0, 1e6),
    "reconcile": SWITCH,
    "after": SWITCH,
    "token_window_s": Range(1e-9, 1e6),
    "call_window_s": Range(1e-9, 1e6),
    "calls_per_thousand": _LIMIT,
    "threshold": _SHARE,
    "share": Range(0.0, 1.0, above=True),
    "tenant_limit": Range(0.0, 1e12),
    "application_limit": Range(0.0, 1e12),
    "kv_share": _SHARE,
    "ttft_s": Range(0.0, 1e6, above=True),
    "margin_s": Range(0.0, 1e6),
    "calls_of_second_band": Range(0.0, 1e12),
    "calls_of_third_band": Range(0.0, 1e12),
    "highest": Range(0.0, 1e6),
    "lowest": Range(0.0, 1e6),
    "queue_length": Range(1.0, 1e9, whole=True),
    "seats": Range(1.0, 1e9, whole=True),
    "borrow_below": _SHARE,
}
_BY_NAME = {
    each.name: replace(each, ranges=ranges_of(each.parameter_names, _RANGES)) for each in _ALL
}


def gates() -> dict[str, Gate]:
    """All admission policies by name."""
    return dict(_BY_NAME)


def gate(name: str, **parameters: float) -> Gate:
    """An admission policy by name, with some of its parameters replaced.

    Raises:
        ValueError: The policy or a parameter is unknown; the message lists those that exist. Or a
            value is out of its range.
    """
    if name not in _BY_NAME:
        raise ValueError(f"admission policy {name!r} is unknown; choose of {sorted(_BY_NAME)}")
    return _BY_NAME[name].with_parameters(**parameters)
