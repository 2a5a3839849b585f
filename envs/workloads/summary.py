"""What a workload looks like, in a few numbers; and conversion between formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .readers import read_trace
from .table import RequestTable

QUANTILES = (0.5, 0.9, 0.95, 0.99)


def describe(table: RequestTable) -> dict[str, float | int | str]:
    """A flat summary.

    Returns:
        `source`; `requests`; `duration_s` (first to last arrival); `rate` (requests/s, gaps over
        duration) and `gap_cv` (standard deviation over mean of the gaps), NaN where all arrive at
        once; `prompt_tokens_*` and `output_tokens_*` with mean, p50, p90, p95, p99 and max;
        `tokens_per_s` (prompt and output); numbers of `tenants`, `models`, `regions` and
        `interactions`; `shared_prefix_share` (of all prompt tokens).
    """
    n = len(table)
    gaps = np.diff(table.arrival_s)
    duration = float(table.arrival_s[-1] - table.arrival_s[0])
    prompt_sum, output_sum = int(table.prompt_tokens.sum()), int(table.output_tokens.sum())
    out: dict[str, float | int | str] = {
        "source": table.source,
        "requests": n,
        "duration_s": duration,
        "rate": (n - 1) / duration if duration else float("nan"),
        "gap_cv": float(gaps.std() / gaps.mean()) if duration else float("nan"),
    }
    for name in ("prompt_tokens", "output_tokens"):
        values = getattr(table, name)
        out[f"{name}_mean"] = float(values.mean())
        for level, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True):
            out[f"{name}_p{100 * level:g}"] = float(value)
        out[f"{name}_max"] = int(values.max())
    out["tokens_per_s"] = (prompt_sum + output_sum) / duration if duration else float("nan")
    for name in ("tenant", "model", "region"):
        given = name in table.given
        out[f"{name}s"] = len(np.unique(getattr(table, name).codes)) if given else 1
    out["interactions"] = len(np.unique(table.interaction)) if "interaction" in table.given else n
    shared = int(table.prefix_tokens.sum()) if "prefix_tokens" in table.given else 0
    out["shared_prefix_share"] = shared / prompt_sum
    return out


def convert(
    path: str | Path,
    out: str | Path,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    **options: Any,
) -> RequestTable:
    """Read a trace of any known format and write it as a request table.

    Args:
        path: The trace.
        out: Where to write: `.parquet`, `.csv` or `.csv.gz`.
        format: As `read_trace`.
        columns: As `read_trace`.
        **options: As `read_trace`.

    Returns:
        The table that was written.

    Raises:
        TraceError: The trace cannot be read, or `out` cannot be written.
    """
    table = read_trace(path, format, columns, **options)
    table.write(out)
    return table
