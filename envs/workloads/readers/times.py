"""Times of recorded traces as seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..columns import Fault

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How many of a unit make a second."""

EPOCH_S = (1e8, 4.1e9)
"""Times within (1973 .. 2099) are taken as Unix times, which count seconds from 1970."""

# Beyond them, 64 bits are too few for nanoseconds.
_FIRST, _LAST = pd.Timestamp("1678-01-01", tz="UTC"), pd.Timestamp("2261-12-31", tz="UTC")


def seconds(values: Any, unit: str | None, fault: Fault) -> npt.NDArray[np.float64]:
    """Convert times to float64 seconds.

    Args:
        values: (n,) numbers in `unit`, or date and time texts (ISO 8601, with or without a zone;
            without one they are taken as UTC), or datetime64.
        unit: A key of `UNITS`, or "timestamp": seconds then count from the first row, exact to a
            nanosecond; numbers are then Unix times, whose size tells their unit. None takes
            numbers as seconds and anything else as "timestamp".
        fault: Builds the error for a row that is no time, naming "arrival_s".

    Raises:
        TraceError: A text is no date and time, or lies outside the years 1678 to 2261.
        ValueError: The unit is unknown.
    """
    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if unit is None:
        unit = "s" if kind in "iuf" else "timestamp"
    if unit in UNITS:
        if kind not in "iuf":
            mend = "Give a number, or for dates time_unit='timestamp' (--time-unit timestamp)"
            raise fault(0, "arrival_s", "is not a number", mend)
        times = np.asarray(values, np.float64)
        return times if unit == "s" else times / UNITS[unit]
    if unit != "timestamp":
        raise ValueError(f"time_unit (--time-unit) is {unit!r}; choose of {[*UNITS, 'timestamp']}")
    if kind == "M":
        stamps = values.astype("datetime64[ns]").astype(np.int64)
        good = (stamps > _FIRST.as_unit("ns").value) & (stamps < _LAST.as_unit("ns").value)
        if not good.all():
            row = int(np.argmin(good))
            problem = f"{values[row]} lies outside the years 1678 to 2261"
            raise fault(row, "arrival_s", problem, "Correct or drop the row")
    else:
        numbers = pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy()
        if (told := unix_unit(numbers)) is not None:
            return np.asarray(numbers, np.float64) / UNITS[told]
        stamps = _parse(pd.Series(values, dtype=object).astype(str), fault)
    return (stamps - stamps[:1]).astype(np.float64) / 1e9


def unix_unit(times: npt.NDArray[Any]) -> str | None:
    """The unit in which all the times lie in the years of `EPOCH_S`, None if there is none."""
    low, high = EPOCH_S
    for unit, size in UNITS.items():
        if len(times) and bool(((times >= low * size) & (times <= high * size)).all()):
            return unit
    return None


def _parse(texts: pd.Series[Any], fault: Fault) -> npt.NDArray[np.int64]:
    options: dict[str, Any] = {"format": "ISO8601", "utc": True, "errors": "coerce"}
    parsed = pd.to_datetime(texts, **options)
    good = parsed.notna() & (parsed > _FIRST) & (parsed < _LAST)
    # A bare number such as 20240510 is a date to ISO 8601, and a mistake in a trace.
    short = texts.str.len() < len("2024-05-10")
    good &= ~short
    if not good.all():
        row = int(np.argmin(good.to_numpy()))
        mend = (
            "Write date and time as 2024-05-10 00:00:01.5, or give the unit of the numbers, "
            "such as time_unit='ms' (--time-unit ms)"
        )
        raise fault(row, "arrival_s", f"{texts[row][:40]!r} is not a date and time", mend)
    return parsed.dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)
