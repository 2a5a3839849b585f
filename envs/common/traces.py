"""Traces as they are given to an environment."""

from __future__ import annotations

from pathlib import Path

from envs.workloads import RequestTable, read_trace


def read_given(trace: str | Path | RequestTable | None) -> RequestTable | None:
    """The requests of a trace that is given by its file, as a table, or not at all.

    Raises:
        TraceError: The file can't be read.
    """
    return read_trace(trace) if isinstance(trace, str | Path) else trace
