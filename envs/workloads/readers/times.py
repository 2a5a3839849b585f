"""Times of recorded traces as seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..columns import Fault

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""How many of a unit make a second."""


def seconds(values: Any, unit: str, fault: Fault) -> npt.NDArray[np.float64]:
    """Convert times to float64 seconds.

    Args:
        values: (n,) numbers in `unit`, or date and time texts (ISO 8601, with or without a zone;
            without one they are taken as UTC), or datetime64.
        unit: A key of `UNITS`, or "timestamp": seconds then count from the first row, exact to a
            nanosecond.
        fault: Builds the error for a row that is no date and time, naming "arrival_s".

    Raises:
        TraceError: A text is no date and time, or lies outside the years 1678 to 2261.
        ValueError: The unit is unknown.
    """
    if unit in UNITS:
        return np.asarray(values, np.float64) / UNITS[unit]
    if unit != "timestamp":
        raise ValueError(f"time_unit is {unit!r}; choose of {[*UNITS, 'timestamp']}")
    if getattr(values, "dtype", None) is not None and values.dtype.kind == "M":
        stamps = values.astype("datetime64[ns]").astype(np.int64)
    else:
        stamps = _parse(pd.Series(values, dtype=object), fault)
    return (stamps - stamps[:1]).astype(np.float64) / 1e9


def _parse(texts: pd.Series[Any], fault: Fault) -> npt.NDArray[np.int64]:
    options: dict[str, Any] = {"format": "ISO8601", "utc": True, "errors": "coerce"}
    parsed = pd.to_datetime(texts, **options)
    low, high = pd.Timestamp("1678-01-01", tz="UTC"), pd.Timestamp("2261-12-31", tz="UTC")
    good = parsed.notna() & (parsed > low) & (parsed < high)
    # A bare number such as 20240510 is a date to ISO 8601, and a mistake in a trace.
    short = texts.str.len() < len("2024-05-10")
    good &= ~short
    if not good.all():
        row = int(np.argmin(good.to_numpy()))
        mend = "Write date and time as 2024-05-10 00:00:01.5, or give the time_unit"
        raise fault(row, "arrival_s", f"{texts[row][:40]!r} is not a date and time", mend)
    return parsed.dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)
