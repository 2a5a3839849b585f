"""What is left of a predicted output length."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import inlined


@inlined
def predicted_remaining(row: Any, generated: int) -> int:
    """Output tokens that a request is predicted to have still to come (docs/simulator.md)."""
    left = row.predicted - generated
    if left > 0:
        return left
    return max(1, row.overrun_tokens, generated * row.overrun_percent // 100)
