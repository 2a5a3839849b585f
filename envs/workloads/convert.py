"""User data turned into columns: read-only float64, int64 or Labels of one length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .columns import COLUMNS, TIERS, Fault
from .labels import Labels


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, made read-only, because tables share their columns."""
    array.flags.writeable = False
    return array


def shape(values: Any) -> tuple[int, ...]:
    """Dimensions of an array, a sequence or a single value; two where lists have other lengths."""
    # NumPy would count the dimensions of Labels by looking at every row.
    if isinstance(values, Labels):
        return (len(values),)
    try:
        return np.shape(values)
    except ValueError:
        return (len(values), 1)


def to_column(name: str, values: Any, n: int, fault: Fault) -> Any:
    """A column of length n from an array, a sequence or a single value for all rows.

    Raises:
        TraceError: The length or a value does not fit the column.
    """
    rule = COLUMNS[name]
    if rule.kind == "label" and isinstance(values, str):
        values = Labels.constant(values, n, TIERS if name == "tier" else ())
    found = shape(values)
    if len(found) > 1 or (found and found[0] != n):
        problem = f"has {math.prod(found)} values in {len(found)} dimension(s) for {n} requests"
        raise fault(None, name, problem, "Give one value a request")
    if rule.kind == "label":
        if not found:
            raise fault(None, name, "holds values that are not text", "Give printable text")
        return _to_labels(name, values, fault)
    numbers = _to_numbers(name, values, rule.kind, fault)
    if numbers.ndim == 0:
        numbers = np.full(n, numbers)
    elif numbers is values or np.shares_memory(numbers, values):
        # Read-only input is ours already; anything else may change under the caller's hands.
        numbers = numbers if not numbers.flags.writeable else numbers.copy()
    return frozen(np.ascontiguousarray(numbers))


def _to_labels(name: str, values: Any, fault: Fault) -> Labels:
    known = TIERS if name == "tier" else ()
    if isinstance(values, Labels):
        for text in values.names:
            if not text.isprintable():
                problem = f"the value {text!r} holds a control character"
                raise fault(None, name, problem, "Give printable text")
    try:
        labels = values if isinstance(values, Labels) else Labels.encode(values, known)
    except (ValueError, TypeError) as error:
        problem, row = (
            error.args if len(error.args) == 2 else ("holds values that are not text", None)
        )
        raise fault(row, name, problem, "Give printable text") from None
    if name == "tier" and labels.names != TIERS:
        for row, code in enumerate(labels.codes):
            if labels.names[code] not in TIERS:
                text = f"the value {labels.names[code]!r} is not a tier"
                raise fault(row, name, text, f"Tiers are: {', '.join(TIERS)}")
        labels = Labels.encode(labels.values(), TIERS)
    return labels


def _to_numbers(name: str, values: Any, kind: str, fault: Fault) -> npt.NDArray[Any]:
    array: Any = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype == (np.float64 if kind == "time" else np.int64):
        return array
    number = "seconds" if kind == "time" else "whole number"
    if array.dtype.kind not in "iuf":
        try:
            array = array.astype(np.float64) if array.dtype.kind == "O" else None
        except (TypeError, ValueError, OverflowError):
            array = None
        if array is None:
            raise fault(None, name, "holds values that are not numbers", f"Give {number}s")
    if kind == "time":
        return array.astype(np.float64, copy=False)
    if array.dtype == np.float16:
        array = array.astype(np.float64)  # the limits below are beyond its range
    flat = np.atleast_1d(array)
    if array.dtype.kind == "f":
        good = np.isfinite(flat) & (np.floor(flat) == flat) & (np.abs(flat) < 2.0**63)
    else:
        good = flat <= np.iinfo(np.int64).max if array.dtype.kind == "u" else np.ones(1, bool)
    if not good.all():
        row = int(np.argmin(good))
        raise fault(row, name, f"the value {flat[row]} is not a whole number", "Round it")
    return array.astype(np.int64, copy=False)
