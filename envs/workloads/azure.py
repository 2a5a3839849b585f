"""Synthetic requests after the Azure LLM inference traces of 2023, from shipped quantiles.

Source: AzurePublicDataset (CC-BY-4.0), Patel et al., Splitwise, ISCA 2024; reduced to quantiles by
`write_summary`. The traces themselves are read with `read_trace`.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from .arrivals import arrivals as arrival_times
from .quantiles import sample_quantiles
from .table import RequestTable

Floats = npt.NDArray[np.float64]

GROUPS = 10
"""Prompts are cut into this many equal groups, each with its own quantiles of the output."""

_LEVELS = (
    0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7,
    0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.985, 0.99, 0.9925, 0.995, 0.9965, 0.998,
    0.999, 0.9995, 0.9998, 0.9999, 1,
)  # fmt: skip
_NAMES = ("level", "gap_s", "prompt_tokens", *(f"output_tokens_{i}" for i in range(GROUPS)))


def azure(
    trace: Literal["conversation", "code"] = "conversation",
    n: int = 2000,
    rate: float | None = None,
    seed: int = 0,
    *,
    arrivals: str = "recorded",
    **process: float,
) -> RequestTable:
    """Requests with the lengths and burstiness of an Azure trace of November 2023.

    Prompt tokens follow the trace's quantiles; output tokens those of the tenth of the prompts
    that a prompt falls in, so their (in conversation not monotone) dependence is kept roughly.
    Requests are independent of each other: of the order of gaps nothing is kept.

    Args:
        trace: "conversation" (5.5 requests/s, CV of the gaps 1.1, mean tokens 1,155 and 211) or
            "code" (2.6 requests/s, CV 13, mean tokens 2,048 and 28).
        n: Number of requests.
        rate: Mean requests per second; default the trace's own.
        seed: Seed of everything that is drawn.
        arrivals: "recorded" draws gaps from the trace's quantiles, stretched to the rate; or a
            name of `arrivals.PROCESSES`.
        **process: Parameters of that process.

    Raises:
        ValueError: The trace or process is unknown, or a parameter is out of range.
    """
    if trace not in ("conversation", "code"):
        raise ValueError(f"trace {trace!r} is unknown; choose 'conversation' or 'code'")
    levels, columns = _load(trace)
    mean_gap = float(np.diff(levels) @ (columns[0, 1:] + columns[0, :-1])) / 2
    rate = 1.0 / mean_gap if rate is None else rate
    rng = np.random.default_rng(seed)
    if arrivals == "recorded":
        if process or not (np.isfinite(rate) and rate > 0) or n < 1:
            raise ValueError("'recorded' arrivals take a positive rate and n, and nothing more")
        gaps = np.interp(rng.random(n), levels, columns[0])
        arrival = np.cumsum(gaps) / (mean_gap * rate)
    else:
        arrival = arrival_times(arrivals, rate, n, rng, **process)
    u, v = rng.random(n), rng.random(n)
    group = (u * GROUPS).astype(np.int64)
    return RequestTable.from_columns(
        arrival_s=arrival,
        prompt_tokens=sample_quantiles(levels, columns[1:2], np.zeros(n, np.int64), u),
        output_tokens=sample_quantiles(levels, columns[2:], group, v),
        application=trace,
        source=f"Azure 2023 {trace} quantiles, {n} requests, {arrivals} {rate:.3g}/s, seed {seed}",
    )


def summarise(table: RequestTable) -> tuple[Floats, Floats]:
    """The quantiles that `azure` draws from, of any trace.

    Returns:
        Levels (q,) and columns (2 + GROUPS, q): gaps in seconds, prompt tokens, and output tokens
        of each tenth of the requests by prompt tokens (ties cut in the order of arrival).
    """
    levels = np.array(_LEVELS, np.float64)
    order = np.argsort(table.prompt_tokens, kind="stable")
    series = [np.diff(table.arrival_s), table.prompt_tokens.astype(np.float64)]
    series += [
        part.astype(np.float64) for part in np.array_split(table.output_tokens[order], GROUPS)
    ]
    return levels, np.array([np.quantile(values, levels) for values in series])


def write_summary(table: RequestTable, path: Path, source: str) -> None:
    """Write `summarise(table)` as CSV, the source in comment lines above the header."""
    levels, columns = summarise(table)
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {line}\n" for line in source.splitlines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_NAMES)
        writer.writerows(
            [[f"{value:.6g}" for value in row] for row in np.vstack([levels, columns]).T]
        )


@lru_cache(maxsize=2)
def _load(trace: str) -> tuple[Floats, Floats]:
    text = (resources.files("envs.workloads") / "data" / f"azure_2023_{trace}.csv").read_text(
        "utf-8"
    )
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    values = np.array(rows[1:], np.float64).T
    return values[0], values[1:]
