"""What a scaled fleet has cost, and how its tiers were served (docs/metrics.md, "Scaling")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from envs.scaling.control import TIERS
from envs.simulator.layout import PS_PER_S, SERVED, UNFINISHED
from envs.simulator.lifecycle import LifecycleFleet

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_MARKS = (50, 90, 95, 99)
RELEASED_SPOT_MIN, RELEASED_OTHER_MIN, RELEASED_SPOT_LEVEL = 2.5, 10.0, 10


def requests_by_tier(fleet: LifecycleFleet) -> dict[str, float]:
    """Requests, attainment and latencies of each tier, up to now.

    A request counts for attainment once its outcome is known: served, rejected, or past its limit.
    TTFT is judged for IW-F and IW-N, E2E for NIW, both from arrival. Percentiles are of requests
    that have a first token (TTFT) or have finished (E2E).

    Returns:
        By tier, such as `IW-F_`: `requests`, `decided`, `attainment`, `missed`, `rejected`,
        `ttft_p50_s` ... and `e2e_p50_s` ...; over all tiers `unfinished`, `attainment`, the share
        of decided requests, and `ttft_p95_s`.
    """
    simulation = fleet.simulation
    rows = simulation.state.arrays["requests"]
    now = simulation.state.head["now_ps"][0]
    arrival = rows["arrival_ps"]
    came = (arrival >= 0) & (arrival <= now)
    tiers = _tier_codes(fleet)
    limits = simulation.state.arrays["backlog"][0]
    found: dict[str, float] = {}
    decided_in_all = met_in_all = 0
    for tier, name in enumerate(TIERS):
        mine = came & (tiers == tier)
        limit = int(limits[f"limit_{tier}_ps"])
        end = rows["finish_ps" if tier == 2 else "first_token_ps"]
        done = mine & (end >= 0)
        met = done & (end - arrival <= limit)
        status = rows["status"]
        rejected = mine & (status != SERVED) & (status != UNFINISHED)
        overdue = mine & ~done & ~rejected & (now - arrival > limit)
        decided = int((done | rejected | overdue).sum())
        found[f"{name}_requests"] = float(mine.sum())
        found[f"{name}_decided"] = float(decided)
        found[f"{name}_missed"] = float(decided - met.sum())
        found[f"{name}_rejected"] = float(rejected.sum())
        found[f"{name}_attainment"] = float(met.sum()) / decided if decided else float("nan")
        for label, times in (("ttft", rows["first_token_ps"]), ("e2e", rows["finish_ps"])):
            seen = mine & (times >= 0)
            found |= _marks(f"{name}_{label}", (times - arrival)[seen])
        decided_in_all += decided
        met_in_all += int(met.sum())
    found["attainment"] = met_in_all / decided_in_all if decided_in_all else float("nan")
    served = came & (rows["finish_ps"] >= 0)
    found["unfinished"] = float((came & (rows["status"] == UNFINISHED)).sum())
    found |= _marks(
        "ttft", (rows["first_token_ps"] - arrival)[came & (rows["first_token_ps"] >= 0)]
    )
    found |= _marks("e2e", (rows["finish_ps"] - arrival)[served])
    return found


def _tier_codes(fleet: LifecycleFleet) -> npt.NDArray[np.int64]:
    """Tier of each request as it arrived; one that is promoted keeps it here."""
    table = fleet.simulation.table
    if "tier" not in table.given:
        return np.zeros(len(table), np.int64)
    place = np.array([TIERS.index(name) for name in table.tier.names], np.int64)
    return np.asarray(place[table.tier.codes])


def _marks(name: str, duration_ps: npt.NDArray[np.int64]) -> dict[str, float]:
    if not len(duration_ps):
        return {f"{name}_p{mark}_s": float("nan") for mark in _MARKS}
    values = np.percentile(duration_ps, _MARKS) / PS_PER_S
    return {f"{name}_p{mark}_s": float(v) for mark, v in zip(_MARKS, values, strict=True)}


def latency_marks(
    fleet: LifecycleFleet, model: str, tiers: tuple[str, ...] = ("IW-F", "IW-N")
) -> dict[str, float]:
    """Percentiles of TTFT and E2E in seconds of some tiers' requests of a model."""
    simulation = fleet.simulation
    table, rows = simulation.table, simulation.state.arrays["requests"]
    mine = np.isin(_tier_codes(fleet), [TIERS.index(tier) for tier in tiers])
    if model:
        names = list(table.model.names)
        mine &= table.model.codes == (names.index(model) if model in names else -1)
    found: dict[str, float] = {}
    for label, times in (("ttft", rows["first_token_ps"]), ("e2e", rows["finish_ps"])):
        seen = mine & (times >= 0)
        found |= _marks(label, (times - rows["arrival_ps"])[seen])
    return found


def instance_hours(fleet: LifecycleFleet) -> Floats:
    """(roles, regions) instance-hours paid so far: ready, starting and, where billed, draining."""
    fleet.look()
    rows = fleet.deployments
    seconds = rows["ready_s"] + rows["starting_s"]
    if fleet.plan.drain_billed:
        seconds = seconds + rows["draining_s"]
    return np.asarray(seconds / 3600.0)


def released_instance_hours(fleet: LifecycleFleet, bucket_s: float = 900.0) -> Floats:
    """(roles, regions) instance-hours as SageServe's plots count them.

    The largest number of live instances in each quarter of an hour, from the samples (its
    notebooks, `Figures9-10.py`; they sample every 2 s).
    """
    live = _live(fleet)
    if not len(live):
        return np.zeros(fleet.shape)
    each = max(1, round(bucket_s / fleet.plan.sample_s))
    buckets = [live[at : at + each].max(axis=0) for at in range(0, len(live), each)]
    return np.asarray(np.sum(buckets, axis=0) * bucket_s / 3600.0)


def released_waste_hours(fleet: LifecycleFleet) -> Floats:
    """(roles, regions) scaling waste as SageServe's plots guess it.

    Each instance more than in the sample before counts 2.5 minutes where there are fewer than 10,
    else 10 minutes, wherever it really came from (its notebooks, `Figures11_12_13_15.py`).
    """
    live = _live(fleet)
    if len(live) < 2:
        return np.zeros(fleet.shape)
    before, after = live[:-1], live[1:]
    more = np.maximum(after - before, 0.0)
    below = np.clip(np.minimum(after, RELEASED_SPOT_LEVEL) - before, 0.0, None)
    minutes = below * RELEASED_SPOT_MIN + (more - below) * RELEASED_OTHER_MIN
    return np.asarray(minutes.sum(axis=0) / 60.0)


def _live(fleet: LifecycleFleet) -> Floats:
    samples = fleet.samples
    return (samples["ready"] + samples["starting"]).astype(np.float64)


def utilisation(fleet: LifecycleFleet) -> Floats:
    """(roles, regions) mean share of KV in use over the samples in which any instance was ready."""
    samples = fleet.samples
    there = samples["ready"] > 0
    return np.asarray(
        np.where(there, samples["kv"], 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    )


def summary(fleet: LifecycleFleet) -> dict[str, float]:
    """Everything about the fleet and its tiers in one mapping."""
    counters = fleet.simulation.state.head[0]
    return (
        fleet.totals()
        | requests_by_tier(fleet)
        | {
            "released_instance_hours": float(released_instance_hours(fleet).sum()),
            "released_waste_hours": float(released_waste_hours(fleet).sum()),
            "kv_mean": float(utilisation(fleet).mean()),
            "preemptions": float(counters["preemptions"]),
            "served": float(counters["served"]),
            "rejected": float(counters["rejected"]),
            "arrived": float(counters["arrived"]),
        }
    )
