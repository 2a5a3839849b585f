"""What the fuzz tests share: how hard they try, damaged bytes, and values that no one expects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Effort = Callable[[int], Any]


def _settings(examples: int, **more: Any) -> Any:
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), **more
    )


def quick(examples: int) -> Any:
    """Settings of a default run: always the same examples."""
    return _settings(examples, derandomize=True)


def thorough(examples: int) -> Any:
    """Settings of a slow run: more examples, others in every run."""
    return _settings(5 * examples, derandomize=False, database=None)


efforts = pytest.mark.parametrize("effort", [quick, pytest.param(thorough, marks=pytest.mark.slow)])
"""Gives a test `effort`, which turns a number of examples into settings of hypothesis."""


HUGE = 10**400
NUMBERS: Sequence[Any] = (
    0, -1, 1, 0.5, 1.0, -0.0, 1e-320, 1e300, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, HUGE,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS: Sequence[str] = (
    "", " ", "0", "-1", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "1e3", "0x10", "1_000",
    "1" * 400, "9223372036854775808", "18446744073709551616", "\u0661\u0662", "true", "null",
    "None", "=1+1", "#", "..", "~", "é", "\U0001f600", "a\u0301", "2024-05-10", "20240510",
    "0001-01-01", "2261-12-31 23:59:59", "2024-05-10T00:00:00+14:00", "x" * 5000, "\u200b",
)  # fmt: skip
"""Texts that break neither a line nor a field of CSV."""
CONTROLS: Sequence[str] = ("\x00", "\n", "\r", "\t", "\x1b[31m", "\u2028", "\ufeff", "\x85", '"')

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([*NUMBERS, *TEXTS, *CONTROLS])
)
"""Every plain value that JSON or YAML can hold."""


def nested(keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Scalars, lists and mappings with such keys."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


@st.composite
def damaged(draw: st.DrawFn, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """`data` with one to four faults: flipped, lost, repeated, inserted or cut bytes."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        span = draw(st.integers(1, 40))
        match draw(st.sampled_from("flip lose repeat insert token cut".split())):
            case "flip" if data:
                data = data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
            case "lose":
                data = data[:at] + data[at + span :]
            case "repeat":
                data = data[: at + span] + data[at:]
            case "insert":
                data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
            case "token" if tokens:
                data = data[:at] + draw(st.sampled_from(tokens)) + data[at:]
            case "cut":
                data = data[:at]
    return data
