"""What must hold of every table that is read, and of every refusal to read one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from envs.workloads import (
    COLUMNS,
    MAX_TIME_S,
    TIERS,
    Labels,
    RequestTable,
    TraceError,
    TraceWarning,
    read_trace,
)


def check_table(table: RequestTable, path: Path, ends: tuple[str, ...] = (".csv",)) -> None:
    """The table keeps the rules of its columns, and comes back from a file as it was."""
    n = len(table)
    assert n >= 1
    assert (np.diff(table.arrival_s) >= 0).all()
    assert table.arrival_s[0] >= 0 and table.arrival_s[-1] <= MAX_TIME_S
    for name, rule in COLUMNS.items():
        values = getattr(table, name)
        assert len(values) == n, name
        if rule.kind == "count":
            assert values.dtype == np.int64
            assert (values >= rule.low).all() and (values <= rule.high).all(), name
        elif rule.kind == "label":
            assert isinstance(values, Labels)
            assert set(values.values()) <= set(TIERS if name == "tier" else values.names)
            assert all(isinstance(text, str) and text.isprintable() for text in values.values())
    assert len(np.unique(table.request_id)) == n
    assert (table.deadline_s >= table.arrival_s).all()
    assert (table.prefix_tokens <= table.prompt_tokens).all()
    assert (table.system_tokens <= table.prompt_tokens).all()
    assert (table.call_index < table.calls_in_interaction).all()
    for end in ends:
        assert RequestTable.read(table.write(path.with_name(f"again{end}"))) == table


def check_read(
    path: Path,
    read: Callable[[Path], RequestTable] = read_trace,
    ends: tuple[str, ...] = (".csv",),
) -> TraceError | None:
    """Read a file: what comes out is a good table or the TraceError returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", TraceWarning)
        try:
            table = read(path)
        except TraceError as error:
            assert path.name.partition("_")[0] in str(error)
            return error
        check_table(table, path, ends)
    return None
