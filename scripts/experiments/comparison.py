"""From the records of all tasks to estimates: the numbers behind every table and plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scripts.experiments.metrics import METRICS, Metric
from scripts.experiments.statistics import Estimate, paired_bootstrap
from scripts.experiments.store import Record

SORT_BY = "e2e_mean_s"


@dataclass(frozen=True)
class Row:
    """One policy on one scenario; the dictionaries are by metric.

    Attributes:
        router: Label of the policy.
        mean: The metric, over seeds.
        difference: Minus that of the reference, paired.
        ratio: Over that of the reference, minus 1, paired.
    """

    router: str
    mean: dict[str, Estimate]
    difference: dict[str, Estimate]
    ratio: dict[str, Estimate]


@dataclass(frozen=True)
class Comparison:
    """All policies on one scenario.

    Attributes:
        scenario: Its name.
        reference: Label of the policy that the others are compared with.
        seeds: How many episodes.
        rows: The policies by the main metric, best first.
        main: What they are ranked by.
    """

    scenario: str
    reference: str
    seeds: int
    rows: tuple[Row, ...]
    main: Metric = METRICS[SORT_BY]

    def row(self, router: str) -> Row:
        """The row of a policy."""
        return next(row for row in self.rows if row.router == router)

    def is_best(self, row: Row, metric: Metric) -> bool:
        """Whether no policy has a better mean, and some have a worse one."""
        values = [r.mean[metric.key].mean * metric.better for r in self.rows]
        known = [value for value in values if math.isfinite(value)]
        mine = row.mean[metric.key].mean * metric.better
        return bool(known) and max(known) > min(known) and mine == max(known)


def compare(
    records: Sequence[Record],
    reference: str,
    metrics: Iterable[str] = METRICS,
    seed: int = 0,
    main: Metric = METRICS[SORT_BY],
) -> list[Comparison]:
    """Estimate all metrics, scenario by scenario, in the order of the records.

    Args:
        records: One a task; every scenario has all its policies on all its seeds.
        reference: Label of the policy to compare with.
        metrics: Keys of the summary.
        seed: Seed of the resampling.
        main: What the policies are ranked by; one of the metrics.

    Raises:
        ValueError: The reference is not among the policies.
    """
    names = list(dict.fromkeys(r.scenario for r in records))
    return [
        _compare([r for r in records if r.scenario == name], reference, list(metrics), seed, main)
        for name in names
    ]


def _compare(
    records: Sequence[Record], reference: str, metrics: list[str], seed: int, main: Metric
) -> Comparison:
    routers = list(dict.fromkeys(r.router for r in records))
    if reference not in routers:
        raise ValueError(f"the reference {reference} is none of: {', '.join(routers)}")
    seeds = list(dict.fromkeys(r.seed for r in records))
    at = {(r.seed, r.router): r.summary for r in records}
    found = {}
    for key in metrics:
        values = [[at[s, router].get(key, math.nan) for router in routers] for s in seeds]
        found[key] = paired_bootstrap(np.array(values), routers.index(reference), seed=seed)
    rows = [
        Row(
            router,
            {key: found[key].mean[i] for key in metrics},
            {key: found[key].difference[i] for key in metrics},
            {key: found[key].ratio[i] for key in metrics},
        )
        for i, router in enumerate(routers)
    ]

    def order(row: Row) -> tuple[float, str]:
        mean = row.mean[main.key].mean
        return (-main.better * mean if math.isfinite(mean) else math.inf, row.router)

    ranked = tuple(sorted(rows, key=order))
    return Comparison(records[0].scenario, reference, len(seeds), ranked, main)


def summary_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row a task with all its metrics."""
    return pd.DataFrame(
        [{"scenario": r.scenario, "router": r.router, "seed": r.seed} | r.summary for r in records]
    )


def table_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row a scenario, policy and metric: mean, difference and ratio with their intervals."""
    return pd.DataFrame(
        [
            {"scenario": c.scenario, "router": row.router, "metric": key, "seeds": c.seeds}
            | _ends("", row.mean[key])
            | {"reference": c.reference}
            | _ends("difference_", row.difference[key])
            | _ends("ratio_", row.ratio[key])
            for c in comparisons
            for row in c.rows
            for key in row.mean
        ]
    )


def as_data(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The estimates as plain data for JSON; what is unknown is None."""

    def data(estimate: Estimate) -> dict[str, float | None]:
        values = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
        return {k: v if math.isfinite(v) else None for k, v in values.items()}

    return [
        {
            "scenario": c.scenario,
            "reference": c.reference,
            "seeds": c.seeds,
            "routers": [
                {
                    "router": row.router,
                    "metrics": {
                        key: data(row.mean[key])
                        | {
                            "ratio_to_reference": data(row.ratio[key]),
                            "difference_to_reference": data(row.difference[key]),
                        }
                        for key in row.mean
                    },
                }
                for row in c.rows
            ],
        }
        for c in comparisons
    ]


def _ends(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {
        f"{prefix}mean": estimate.mean,
        f"{prefix}low": estimate.low,
        f"{prefix}high": estimate.high,
    }
