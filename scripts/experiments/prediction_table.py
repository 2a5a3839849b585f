"""What predictions are worth: each policy in a row, each source of predictions in a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scripts.common import table
from scripts.experiments.comparison import Comparison
from scripts.experiments.metrics import METRICS

SHOWN = ("e2e_mean_s", "e2e_p99_s", "preemptions")
"""What is told of each pair."""


def worth(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One row a scenario, policy and source, with the means of `SHOWN`."""
    return [
        {"scenario": comparison.scenario, "router": policy, "predictor": source}
        | {key: row.mean[key].mean for key in SHOWN}
        for comparison in comparisons
        for row in comparison.rows
        for policy, at, source in [row.router.rpartition("@")]
        if at
    ]


def worth_text(comparisons: Sequence[Comparison], sources: Sequence[str]) -> str:
    """The same as a table for each scenario and metric; policies in order of their best mean."""
    return "\n\n".join(_tables(worth(comparisons), sources))


def _tables(rows: Sequence[dict[str, Any]], sources: Sequence[str]) -> Iterator[str]:
    for scenario in dict.fromkeys(row["scenario"] for row in rows):
        mine = [row for row in rows if row["scenario"] == scenario]
        policies = list(dict.fromkeys(row["router"] for row in mine))
        at = {(row["router"], row["predictor"]): row for row in mine}
        for key in SHOWN:
            metric = METRICS[key]
            lines = [["", *sources]]
            for policy in policies:
                cells = [metric.text(at[policy, source][key]) for source in sources]
                lines.append([policy, *cells])
            yield f"{scenario}: {metric.title}\n{table(lines)}"
