"""The columns of a request table: their meaning, defaults and allowed values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import TraceError

Array = npt.NDArray[Any]

TIERS = ("IW-F", "IW-N", "NIW")
"""Service tiers (SageServe): interactive fast, interactive normal, non-interactive."""

MAX_TIME_S = 9.0e6
"""Latest arrival in seconds (104 days), so that picoseconds fit 64 bits with room to finish."""

MAX_TOKENS = 2**31 - 1
"""Most tokens of one request."""


@dataclass(frozen=True)
class Column:
    """One column: `kind` is "time" (float64 seconds), "count" (int64) or "label" (text).

    `default` None means computed (or required); `low` and `high` bound counts, inclusive.
    """

    name: str
    kind: str
    meaning: str
    default: float | int | str | None = None
    low: int = 0
    high: int = 2**63 - 1


def _tokens(name: str, meaning: str, default: int | None = None, low: int = 0) -> Column:
    return Column(name, "count", meaning, default, low, MAX_TOKENS)


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column("request_id", "count", "unique number; default 0 .. n-1"),
        Column("arrival_s", "time", "arrival, seconds from the start of the trace, sorted"),
        Column("region", "label", "where the request arrives", "default"),
        Column("model", "label", "the model it asks for", "default"),
        Column("tier", "label", "IW-F, IW-N or NIW", TIERS[0]),
        Column("tenant", "label", "who sends it", "default"),
        Column("application", "label", "what for (the task, in synthetic mixes)", "default"),
        Column("interaction", "count", "number of the interaction; default request_id"),
        Column("call_index", "count", "0-based place of this call in its interaction", 0),
        Column("calls_in_interaction", "count", "calls that the interaction makes", 1, low=1),
        _tokens("prompt_tokens", "all input tokens, system prompt too", low=1),
        _tokens("system_tokens", "leading tokens of the system prompt", 0),
        _tokens("output_tokens", "tokens generated; hidden from policies", low=1),
        Column("deadline_s", "time", "finish by, on the clock of arrival_s; inf = none", np.inf),
        Column("priority", "count", "larger is more urgent", 0, low=-(2**63)),
        _tokens("predicted_output_tokens", "length as a policy sees it; -1 = none", -1, low=-1),
        Column("prefix_id", "count", "name of the shared prefix; -1 = none", -1, low=-1),
        _tokens("prefix_tokens", "leading tokens that are shared", 0),
    )
}
REQUIRED = ("arrival_s", "prompt_tokens", "output_tokens")

Fault = Callable[[int | None, str, str, str], TraceError]
"""`fault(row, column, problem, mend)` turns a 0-based row into an error that names its place."""


Demand = Callable[[Array, str, str, str], None]
"""`demand(good, column, problem, mend)` raises a fault for the first row that is not good."""


def check(columns: dict[str, Any], fault: Fault) -> None:
    """Raise `fault` for the first row of the first column that breaks a rule.

    Args:
        columns: Present columns, numeric ones already as float64 or int64 arrays of equal length.
        fault: Builds the error.
    """

    def demand(good: Array, column: str, problem: str, mend: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            shown = columns[column][row]
            raise fault(row, column, f"the value {shown} {problem}", mend)

    if not _arrivals_hold(columns["arrival_s"]):
        _check_arrivals(columns["arrival_s"], demand)
    for name, values in columns.items():
        rule = COLUMNS[name]
        if rule.kind == "count" and not rule.low <= values.min() <= values.max() <= rule.high:
            most = f" .. {rule.high}" if rule.high <= MAX_TOKENS else " or more"
            text = f"{name} must be {rule.low}{most}"
            good = (values >= rule.low) & (values <= rule.high)
            demand(good, name, f"is out of range: {text}", "Correct or drop the row")
    _check_relations(columns, demand)


def _arrivals_hold(arrival: Array) -> bool:
    """Whether arrival times keep all rules: one look at each row where nothing is wrong."""
    within = 0 <= arrival[0] and arrival[-1] <= MAX_TIME_S
    return bool(within and (arrival[1:] >= arrival[:-1]).all())


def _check_arrivals(arrival: Array, demand: Demand) -> None:
    mend = "Give the seconds since the start of the trace, 0 or more"
    demand(np.isfinite(arrival), "arrival_s", "is not a finite time", mend)
    ordered = np.ones(len(arrival), bool)
    ordered[1:] = arrival[1:] >= arrival[:-1]
    demand(ordered, "arrival_s", "is earlier than the row before it", "Sort the trace by arrival")
    demand(arrival >= 0, "arrival_s", "is negative", mend)
    limit = f"is beyond {MAX_TIME_S:.0f} s (104 days)"
    unit = f"{mend}; are they in another unit: time_unit='ms' (--time-unit ms)?"
    demand(arrival <= MAX_TIME_S, "arrival_s", limit, unit)


def _check_relations(columns: dict[str, Any], demand: Demand) -> None:
    mend = "Correct the row"
    if (deadline := columns.get("deadline_s")) is not None:
        good = deadline >= columns["arrival_s"]
        demand(good, "deadline_s", "is not a time at or after arrival_s", f"{mend}; inf = none")
    if (predicted := columns.get("predicted_output_tokens")) is not None:
        demand(predicted != 0, "predicted_output_tokens", "is zero", "Give -1 or 1 and more")
    for name in ("system_tokens", "prefix_tokens"):
        if (part := columns.get(name)) is not None:
            good = part <= columns["prompt_tokens"]
            demand(good, name, "exceeds prompt_tokens, of which it is a part", mend)
    if (shared := columns.get("prefix_tokens")) is not None:
        named = columns.get("prefix_id", np.int64(-1)) >= 0
        demand((shared == 0) | named, "prefix_tokens", "has no prefix_id", mend)
    if (index := columns.get("call_index")) is not None:
        good = index < columns.get("calls_in_interaction", np.int64(1))
        demand(good, "call_index", "is not below calls_in_interaction (it starts at 0)", mend)
    if (ids := columns.get("request_id")) is not None and len(ids) > 1:
        if not (ids[1:] > ids[:-1]).all():
            first = np.unique(ids, return_index=True)[1]
            good = np.zeros(len(ids), bool)
            good[first] = True
            demand(good, "request_id", "occurs twice", "Number the requests, or drop the column")
