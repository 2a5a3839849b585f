"""The last steps that every reader shares: zero tokens, order, origin of time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..columns import Fault
from ..errors import TraceError
from ..table import RequestTable
from .times import EPOCH_S, unix_unit


class TraceWarning(UserWarning):
    """Requests of a trace were left out or changed, as the reader was told to."""


@dataclass(frozen=True)
class Common:
    """Options of every reader of recorded traces.

    Attributes:
        sort: Sort by arrival, keeping the order of ties; otherwise unsorted rows are an error.
        rebase: Count time from the first arrival instead of the trace's own origin.
        on_zero: What to do where a prompt or an answer has 0 tokens (a failed request): "error",
            "drop" it, or count "one" token. The last two warn with the number of rows.
    """

    sort: bool = False
    rebase: bool = False
    on_zero: Literal["error", "drop", "one"] = "error"

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.on_zero not in ("error", "drop", "one"):
            text = f"on_zero (--on-zero) is {self.on_zero!r}"
            raise ValueError(f"{text}; choose 'error', 'drop' or 'one'")


def build(columns: dict[str, Any], options: Common, fault: Fault, source: str) -> RequestTable:
    """Make the table of the columns that a reader found.

    Times that start as Unix times do (`times.EPOCH_S`) count from the first request, and the
    source says so.

    Args:
        columns: Values by column of the request table, all of one length, in the file's order.
        options: What to do about zeros, order and origin.
        fault: Builds errors from 0-based rows of the file and columns of the request table.
        source: What the table says it came from.

    Raises:
        TraceError: A value breaks a rule of the request table.
    """
    columns, rows, note = _without_zeros(columns, options, fault)
    arrival = np.asarray(columns["arrival_s"], np.float64)
    for row in np.flatnonzero(~np.isfinite(arrival))[:1]:
        text = f"the value {arrival[row]} is not a finite time"
        raise fault(int(rows[row]), "arrival_s", text, "Correct or drop the line")
    back = np.flatnonzero(arrival[1:] < arrival[:-1])
    if len(back) and not options.sort:
        problem = "the request arrives earlier than the one before it"
        mend = "Sort the file by arrival, or read it with sort=True (--sort)"
        raise fault(int(rows[back[0] + 1]), "arrival_s", problem, mend)
    if len(back):
        order = np.argsort(arrival, kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
        rows, arrival = rows[order], arrival[order]
    if len(arrival):
        origin, unix = _origin(arrival, options, int(rows[0]), fault)
        note += unix
        if origin:
            # Deadlines are on the clock of the arrivals.
            columns = dict(columns)
            for name in {"arrival_s", "deadline_s"} & set(columns):
                columns[name] = np.asarray(columns[name], np.float64) - origin

    def moved(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        return fault(row if row is None else int(rows[row]), column, problem, mend)

    return RequestTable.from_mapping(columns, source + note, moved)


def _origin(
    arrival: npt.NDArray[np.float64], options: Common, row: int, fault: Fault
) -> tuple[float, str]:
    """The time that becomes 0, and what there is to say of it."""
    first = float(arrival[0])
    if EPOCH_S[0] <= first <= EPOCH_S[1]:
        return first, ", Unix times counted from the first request"
    if first > EPOCH_S[1] and not options.rebase:
        unit = unix_unit(arrival[:1])
        if unit is not None:
            problem = f"the value {first:.0f} looks like a Unix time in {unit}, not seconds"
            mend = f"Give time_unit={unit!r} (--time-unit {unit})"
            raise fault(row, "arrival_s", problem, mend)
    return (first if options.rebase else 0.0), ""


def _without_zeros(
    columns: dict[str, Any], options: Common, fault: Fault
) -> tuple[dict[str, Any], npt.NDArray[np.int64], str]:
    rows = np.arange(len(columns["arrival_s"]))
    names = ("prompt_tokens", "output_tokens")
    zero = {name: np.asarray(columns[name]) == 0 for name in names}
    either = zero["prompt_tokens"] | zero["output_tokens"]
    count = int(either.sum())
    if not count:
        return columns, rows, ""
    if options.on_zero == "error":
        row = int(np.argmax(either))
        name = names[0] if zero[names[0]][row] else names[1]
        mend = (
            f'{count} of {len(rows)} rows: read with on_zero="drop" or on_zero="one" '
            "(--on-zero drop, --on-zero one)"
        )
        raise fault(row, name, "the request has 0 tokens, so it failed", mend)
    shown = f"{count} row{'s' * (count != 1)}"
    if options.on_zero == "one":
        changed = {name: np.where(zero[name], 1, columns[name]) for name in names}
        columns, note = {**columns, **changed}, f", {shown} with 0 tokens given 1"
    else:
        if count == len(rows):
            mend = "Check that the columns are the right ones"
            raise fault(None, "output_tokens", "every request has 0 tokens", mend)
        columns = {name: values[~either] for name, values in columns.items()}
        rows, note = rows[~either], f", {shown} with 0 tokens dropped"
    warnings.warn(f"{len(either)} requests read{note}", TraceWarning, stacklevel=4)
    return columns, rows, note
