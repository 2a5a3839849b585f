"""What the throttling benchmark takes of a run: work, waste, throttles, fairness, waits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.scheduling import application_weights
from envs.simulator.fairness import accumulated_difference, jain, service, service_difference
from envs.simulator.overload import (
    GROUPS,
    benign_throttle_rate,
    chosen,
    largest_gap,
    late_tenants,
    seen_by,
    tenant_groups,
    timely,
    waits,
)
from envs.simulator.served import (
    OUTPUT_WEIGHT,
    Served,
    benign_throttles,
    by_cut,
    service_buckets,
    whole_run,
)
from scripts.experiments.tenancy_metrics import SCORE

if TYPE_CHECKING:
    from envs.simulator import EngineConfig, Result
    from envs.workloads import RequestTable

TIMELINE_POINTS = 41
TIMELINE_TENANTS = 5
_SHORTEST_DIFFERENCE_S = 31.0
_TO_THE_END = ("tokens_per_s", "prompt_tokens_per_s", "output_tokens_per_s", "ttft_mean_s")


@dataclass(frozen=True)
class Limits:
    """What a run is judged by.

    Attributes:
        cut_s: When it is looked at, seconds.
        ttft_s: Seconds within which a first token is in time.
        deadline_s: Seconds within which an interaction is in time.
        benign_rpm: Calls in 60 s up to which a user is benign.
    """

    cut_s: float
    ttft_s: float = 10.0
    deadline_s: float = 60.0
    benign_rpm: int = 10


def tenancy_of(result: Result, limits: Limits) -> dict[str, float]:
    """All metrics of `tenancy_metrics.TENANCY` but the isolation ratio, which needs a second run.

    Raises:
        ValueError: Nothing arrives by the cut.
    """
    whole = Served.asked(result, fallen_only=True)
    rows = seen_by(whole, limits.cut_s)
    demand = Served.asked(result)
    if not len(rows.tenant):
        raise ValueError(f"nothing arrives by the cut at {limits.cut_s:g} s: give a later one")
    found = _work(rows, seen_by(demand, limits.cut_s), limits) | _waste(rows, limits)
    found |= _fairness(whole, demand, limits.cut_s, result.fleet) | _buckets(result, limits)
    found |= _latency(rows, _group(result.table), limits)
    end = whole_run(whole)
    found |= {f"run_{key}": end[key] for key in _TO_THE_END} | {"run_s": end["total_s"]}
    found["agent_calls"] = _agent_calls(result, limits.cut_s)
    return {"score": score(found)} | found


def score(found: Mapping[str, float]) -> float:
    """The score (`SCORE`) of other metrics; what is unknown counts nothing."""
    terms = (weight * found[key] for key, weight in SCORE.items())
    return math.fsum(term for term in terms if math.isfinite(term))


def isolation_ratio(
    table: RequestTable,
    result: Result,
    serve: Callable[[RequestTable], Result],
    limits: Limits,
) -> float:
    """Mean wait of light tenants over that on the same arrivals without heavy tenants.

    Args:
        table: The requests.
        result: What became of them.
        serve: Serves the requests of the light and middle tenants.
        limits: The cut and the limit of the wait.

    Returns:
        1 or about it where heavy tenants do no harm; NaN where no light tenant calls.
    """
    light = {
        name for name, group in zip(table.tenant.names, _group(table), strict=True) if not group
    }
    twin = serve(without_heavy(table))
    alone = _mean_wait(twin, light, limits)
    return _mean_wait(result, light, limits) / alone if alone > 0 else math.nan


def without_heavy(table: RequestTable) -> RequestTable:
    """The requests of all but the heavy tenants."""
    keep = _group(table)[np.asarray(table.tenant.codes)] < 2
    frame = table.to_frame(all_columns=False)[keep].reset_index(drop=True)
    return table.from_frame(frame, source=table.source)


def timelines(result: Result, cut_s: float) -> dict[str, list[float]]:
    """Cumulative service of the tenants that ask for most, and of all others together.

    Returns:
        `time_s`, `tenant NAME` of each, in the order of their demand, and `others`.
    """
    rows = Served.asked(result)
    times = np.linspace(0.0, cut_s, TIMELINE_POINTS)
    work = np.array([service(rows, time) for time in times])
    top = np.argsort(-rows.by_tenant(rows.cost), kind="stable")[:TIMELINE_TENANTS]
    names = result.table.tenant.names
    found = {"time_s": times} | {f"tenant {names[t]}": work[:, t] for t in top}
    found["others"] = work.sum(axis=1) - work[:, top].sum(axis=1)
    return {key: [float(f"{x:.6g}") for x in values] for key, values in found.items()}


def _work(rows: Served, demand: Served, limits: Limits) -> dict[str, float]:
    tokens = rows.prompt + rows.output
    done, good = by_cut(rows), timely(rows, limits.deadline_s)
    begun = len(np.unique(rows.interaction))
    per_s = 1.0 / limits.cut_s
    return {
        **{k: done[k] for k in ("interactions", "multi_call_interactions", "calls", "users")},
        "finished_share": done["interactions"] / begun,
        "goodput_tokens_per_s": float(tokens[good].sum()) * per_s,
        "goodput_share": float(tokens[good].sum() / (demand.prompt + demand.output).sum()),
        "tokens_per_s": float(tokens[rows.finished].sum()) * per_s,
        "prompt_tokens_per_s": float(rows.prompt[rows.finished].sum()) * per_s,
        "output_tokens_per_s": float(rows.output[rows.finished].sum()) * per_s,
    }


def _waste(rows: Served, limits: Limits) -> dict[str, float]:
    lost = by_cut(rows)
    killed = np.isin(rows.interaction, rows.interaction[rows.rejected]) & rows.finished
    used = float((rows.prompt + rows.output)[rows.finished].sum())
    return {
        "wasted_tokens": lost["wasted_tokens"],
        "wasted_prompt_tokens": float(rows.prompt[killed].sum()),
        "waste_share": lost["wasted_tokens"] / used if used else 0.0,
        "throttled_calls": lost["rejected_calls"],
        "throttled_interactions": lost["rejected_interactions"],
        "throttled_users": lost["rejected_users"],
        "broken_interactions": lost["broken_interactions"],
        "interrupted_users": float(len(np.unique(rows.tenant[killed]))),
        "benign_throttle_rate": benign_throttle_rate(rows, limits.benign_rpm),
        "benign_throttle_share": benign_throttles(rows, limits.benign_rpm),
    }


def _fairness(
    whole: Served, demand: Served, cut_s: float, fleet: tuple[EngineConfig, ...]
) -> dict[str, float]:
    rows = seen_by(demand, cut_s)
    found = {"jain": jain(rows), "jain_unmet": jain(rows, unmet_only=True)}
    for name, keep in (("difference", True), ("difference_published", False)):
        if cut_s >= _SHORTEST_DIFFERENCE_S:
            points = service_difference(
                demand if keep else whole, keep_rejected=keep, duration_s=cut_s
            )
            found |= {f"{name}_mean": points.mean, f"{name}_max": points.max}
        else:
            found |= {f"{name}_mean": math.nan, f"{name}_max": math.nan}
    arrived = chosen(whole, whole.arrival_s <= cut_s)
    room = sum(engine.kv_capacity_tokens for engine in fleet)
    unit = max(float(rows.prompt.max()), OUTPUT_WEIGHT * room)
    return found | {
        "accumulated_difference": accumulated_difference(arrived),
        "backlogged_gap": largest_gap(arrived, cut_s) / (2.0 * unit),
    }


def _agent_calls(result: Result, cut_s: float) -> float:
    """Finished calls of applications of which some interaction has several calls.

    FairServe prints them as completed interactions.
    """
    table = result.table
    codes = np.asarray(table.application.codes)
    several = np.isin(codes, codes[table.calls_in_interaction > 1])
    arrived = result.requests["arrival_ps"] >= 0
    return float((Served.of(result).done(cut_s) & several[arrived]).sum())


def _buckets(result: Result, limits: Limits) -> dict[str, float]:
    weight = application_weights(result.table)
    found = service_buckets(Served.asked(result), weight, limits.cut_s)
    users = max(sum(found.values()), 1)
    return {
        "unserved_users": found["none"] / users,
        "users_up_to_one": found["up_to_one"] / users,
        "users_above_one": found["more"] / users,
    }


def _latency(rows: Served, group: np.ndarray, limits: Limits) -> dict[str, float]:
    wait, counts = waits(rows, limits.cut_s, limits.ttft_s)
    mine = group[rows.tenant]
    members = {name: counts & (mine == place) for place, name in enumerate(GROUPS)}
    members["all"] = counts
    found: dict[str, float] = {}
    for name, which in members.items():
        marks = np.percentile(wait[which], [50, 99]) if which.any() else (math.nan, math.nan)
        found |= {f"{name}_ttft_p{q}_s": float(m) for q, m in zip((50, 99), marks, strict=True)}
    for key, name in (("light_on_time", "light"), ("on_time", "all")):
        which = members[name]
        found[key] = float((wait[which] <= limits.ttft_s).mean()) if which.any() else math.nan
    served = whole_run(rows)
    return found | {
        "delayed_users": late_tenants(rows, limits.cut_s, limits.ttft_s),
        "served_ttft_mean_s": served["ttft_mean_s"],
        "served_ttft_p50_s": served["ttft_p50_s"],
        "served_ttft_p99_s": served["ttft_p99_s"],
        "tpot_mean_s": served["tbt_mean_s"],
    }


def _group(table: RequestTable) -> np.ndarray:
    """(tenants,) group of each tenant by all that it asks for in the table."""
    cost = table.prompt_tokens + OUTPUT_WEIGHT * table.output_tokens
    codes = np.asarray(table.tenant.codes)
    demand = np.bincount(codes, cost, len(table.tenant.names))
    return tenant_groups(demand.astype(np.float64))


def _mean_wait(result: Result, tenants: set[str], limits: Limits) -> float:
    rows = seen_by(Served.asked(result, fallen_only=True), limits.cut_s)
    wait, counts = waits(rows, limits.cut_s, limits.ttft_s)
    asked = np.array([name in tenants for name in result.table.tenant.names])
    counts &= asked[rows.tenant]
    return float(wait[counts].mean()) if counts.any() else math.nan
