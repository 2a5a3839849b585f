"""The metrics of the scaling benchmark, and how they are taken (docs/metrics.md, "Scaling")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.scaling.control import TIERS
from envs.scaling.metrics import (
    instance_hours,
    latency_marks,
    released_instance_hours,
    released_waste_hours,
    summary,
)
from envs.simulator.lifecycle import LifecycleFleet
from envs.simulator.lifecycle.layout import SOURCES
from scripts.experiments.metrics import Metric, share

BUCKET_S = 900.0
"""Width of the buckets of series over time."""
RECOVERED = 0.5
"""Share of KV in use below which a deployment has recovered from a burst."""
STATES = ("ready", "starting", "draining", "donated", "kv")


def _latency(key: str, title: str, heading: str) -> list[Metric]:
    return [
        Metric(f"{key}_p{mark}_s", f"{title}, p{mark} (s)", f"{heading} p{mark} s")
        for mark in (50, 90, 95, 99)
    ]


SCALING: dict[str, Metric] = {
    metric.key: metric
    for metric in [
        Metric("net_dollars", "Dollars paid less spot income", "net $"),
        Metric("dollars", "Dollars paid", "$"),
        Metric("spot_income", "Dollars that donated VMs earned", "spot $", better=1),
        share("worst_attainment", "Requests in time, of the worst tier", "worst tier", 1),
        share("attainment", "Requests in time, of all", "in time", 1),
        *(share(f"{tier}_attainment", f"{tier} in time", tier, 1) for tier in TIERS),
        Metric("instance_hours", "Instance-hours paid", "inst-h"),
        Metric("gpu_hours", "GPU-hours paid", "GPU-h"),
        Metric("released_instance_hours", "Instance-hours as the release counts", "rel. inst-h"),
        Metric("donated_hours", "Instance-hours donated", "donated h", better=1),
        Metric("waste_hours", "Instance-hours of instances that start", "waste h"),
        Metric("released_waste_hours", "The same as the release guesses", "rel. waste h"),
        Metric("starts", "Instances started", "starts", better=0),
        *(Metric(name, f"Of them {name}", name, better=0) for name in SOURCES),
        Metric("stops", "Instances stopped", "stops", better=0),
        *(
            metric
            for tier in TIERS
            for label, title in (("ttft", "time to first token"), ("e2e", "end-to-end latency"))
            for metric in _latency(f"{tier}_{label}", f"{tier}, {title}", f"{tier} {label}")
        ),
        *_latency("ttft", "Time to first token, all tiers", "ttft"),
        *_latency("e2e", "End-to-end latency, all tiers", "e2e"),
        Metric("NIW_missed", "NIW that missed its deadline", "NIW missed"),
        Metric("unfinished", "Requests unfinished", "unfinished"),
        Metric("rejected", "Requests rejected", "rejected"),
        Metric("preemptions", "Preemptions", "preempt"),
        share("kv_mean", "Share of KV in use, mean over pools", "KV", 0),
        share("forecast_wape", "Error of the forecast, next hour", "forecast err."),
        share("forecast_peak_wape", "Error of its highest bin", "peak err."),
    ]
}
"""The metrics of the scaling benchmark by key."""
MAIN = SCALING["net_dollars"]
COMPACT = (
    *("worst_attainment", "IW-F_attainment", "NIW_attainment", "instance_hours", "waste_hours"),
    *("starts", "ttft_p95_s", "unfinished"),
)
"""What a terminal shows beside net dollars."""


def chosen_by(keys: Sequence[str]) -> list[Metric]:
    """The metrics of these keys.

    Raises:
        ValueError: One is unknown.
    """
    from scripts.experiments.metrics import chosen

    return chosen(keys, SCALING)


def measured(fleet: LifecycleFleet) -> dict[str, float]:
    """Everything about a finished run, per model too: `MODEL/instance_hours` and so on."""
    found = summary(fleet)
    tiers = [found[f"{tier}_attainment"] for tier in TIERS]
    known = [share for share in tiers if math.isfinite(share)]
    found["worst_attainment"] = min(known) if known else math.nan
    found |= {source: float(fleet.deployments[source].sum()) for source in SOURCES}
    hours, counted = instance_hours(fleet), released_instance_hours(fleet)
    guess, real = released_waste_hours(fleet), fleet.deployments["starting_s"] / 3600.0
    roles = fleet.plan.roles
    for model in dict.fromkeys(role.model for role in roles):
        mine = np.array([role.model == model for role in roles])
        found[f"{model}/instance_hours"] = float(hours[mine].sum())
        found[f"{model}/released_instance_hours"] = float(counted[mine].sum())
        found[f"{model}/released_waste_hours"] = float(guess[mine].sum())
        found[f"{model}/waste_hours"] = float(real[mine].sum())
        found[f"{model}/recovery_min"] = recovery_minutes(fleet, model)
        marks = latency_marks(fleet, model)
        found |= {f"{model}/{key}": value for key, value in marks.items()}
    return found


def recovery_minutes(fleet: LifecycleFleet, model: str) -> float:
    """Minutes after a full hour until less than half of a model's KV is in use.

    Mean over the full hours but the first and over its deployments; an hour where it never is.
    """
    samples, each = fleet.samples, round(3_600.0 / fleet.plan.sample_s)
    hours = len(samples) // each
    mine = [k for k, role in enumerate(fleet.plan.roles) if role.model == model]
    if hours < 2:
        return math.nan
    used = samples["kv"][: hours * each, mine].reshape(hours, each, -1)[1:]
    below = used < RECOVERED
    first = np.where(below.any(axis=1), below.argmax(axis=1), each)
    return float(first.mean() * fleet.plan.sample_s / 60.0)


def curves(fleet: LifecycleFleet) -> dict[str, list[float]]:
    """Series by the quarter of an hour: `STATE/DEPLOYMENT/REGION`, dollars, requests in time."""
    samples, each = fleet.samples, max(1, round(BUCKET_S / fleet.plan.sample_s))
    count = len(samples) // each
    found = {"hours": [(k + 0.5) * BUCKET_S / 3600.0 for k in range(count)]}
    if not count:
        return found
    kept = samples[: count * each]
    for k, role in enumerate(fleet.plan.roles):
        for r, region in enumerate(fleet.plan.regions):
            for state in STATES:
                means = kept[state][:, k, r].reshape(count, each).mean(axis=1)
                found[f"{state}/{role.name}/{region.name}"] = _short(means)
    return found


def _short(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
