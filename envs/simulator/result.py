"""What a simulation leaves behind: the per-request table and the totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from envs.simulator.config import EngineConfig
from envs.simulator.layout import PS_PER_S, SERVED, STATUS_TEXT
from envs.simulator.measures import measure
from envs.simulator.state import State

if TYPE_CHECKING:
    from envs.workloads import RequestTable

_PERCENTILES = (50, 90, 95, 99)


def percentiles(values: np.ndarray, percents: Sequence[float]) -> list[float]:
    """`numpy.percentile(values, percents)` to the last bit, in a fraction of the time.

    Args:
        values: (n,) float64, one or more, none of them NaN.
        percents: From 0 to 100.
    """
    ordered, last = np.sort(values), len(values) - 1
    marks = []
    for percent in percents:
        place = last * (percent / 100.0)
        below = int(place)
        share = place - below
        low, high = ordered.item(below), ordered.item(min(below + 1, last))
        # From the nearer end, as NumPy does.
        gap = high - low
        marks.append(low + gap * share if share < 0.5 else high - gap * (1.0 - share))
    return marks


@dataclass(frozen=True)
class Result:
    """Outcome of one run.

    Attributes:
        requests: (R,) structured array in table order: `arrival_ps, dispatch_ps, admit_ps,
            first_token_ps, finish_ps` (-1 = never), `instance` (-1 = none), `preemptions`,
            `failures`, `status`.
        table: The requests that were served.
        fleet: The instances that served them.
        router: Name of the policy.
        counters: Totals of the run (see `summary`).
        tenant_counters: (T,) final counters of the tenants, in the scheduler's unit.
    """

    requests: np.ndarray
    table: RequestTable
    fleet: tuple[EngineConfig, ...]
    router: str
    counters: dict[str, float]
    tenant_counters: np.ndarray

    @classmethod
    def of(
        cls, state: State, table: RequestTable, fleet: Sequence[EngineConfig], router: str
    ) -> Result:
        """Read a result off the kernel's state."""
        fields = ("arrival_ps", "dispatch_ps", "admit_ps", "first_token_ps", "finish_ps")
        names = [*fields, "instance", "preemptions", "failures", "status"]
        kinds = ["i8"] * 5 + ["i4", "i4", "i4", "i1"]
        requests = np.empty(len(state.arrays["requests"]), list(zip(names, kinds, strict=True)))
        for name in names:
            requests[name] = state.arrays["requests"][name]
        tenants = state.arrays["tenants"]["counter"].copy()
        return cls(requests, table, tuple(fleet), router, counters_of(state), tenants)

    def latencies(self) -> dict[str, np.ndarray]:
        """Latencies in seconds of the served requests, in table order.

        `e2e_s` arrival to last token, `ttft_s` arrival to first token, `tbt_s` mean time between
        tokens (NaN for one-token answers), `queueing_s` arrival to first admission (router queue
        plus waiting queue), `router_wait_s` arrival to dispatch.
        """
        return latencies_of(self.requests, self.table)

    def summary(self) -> dict[str, float]:
        """Metrics of the run; latencies in seconds, rates per second of makespan.

        Means and percentiles are over served requests (NaN when there are none); `served`,
        `rejected` and `unfinished` count those that arrived. `makespan_s` is the time from the
        first arrival to the last finish, `goodput_tokens_per_s` counts the output tokens of
        requests inside every SLO, `slo_attainment` their share of all arrived requests,
        `gpu_hours` and `dollars` are those of the whole fleet over the makespan.
        """
        return summary_of(self.requests, self.table, self.fleet, self.counters)

    def to_frame(self) -> pd.DataFrame:
        """The request table with its outcome: times in seconds (NaN = never) and status text.

        Where clients wait for their answers, `arrival_s` is when a call came and `due_s` is its
        own time in the table.
        """
        frame = self.table.to_frame().reset_index(drop=True)
        if not np.array_equal(self.requests["arrival_ps"], self.table.arrival_ps):
            frame = frame.rename(columns={"arrival_s": "due_s"})
        names = ("arrival", "dispatch", "admit", "first_token", "finish")
        for name in names[int("arrival_s" in frame) :]:
            times = self.requests[f"{name}_ps"]
            frame[f"{name}_s"] = np.where(times < 0, np.nan, times / PS_PER_S)
        frame["instance"] = self.requests["instance"]
        frame["preemptions"] = self.requests["preemptions"]
        frame["failures"] = self.requests["failures"]
        frame["status"] = pd.Categorical.from_codes(
            self.requests["status"].tolist(), categories=pd.Index(list(STATUS_TEXT.values()))
        )
        return frame


def counters_of(state: State) -> dict[str, float]:
    """Totals of a run by the names of `Result.summary`."""
    instances = state.arrays["instances"]
    clock = dict(zip(state.head.dtype.names or (), state.head.item(), strict=True))
    return {
        "arrived": float(clock["arrived"]),
        "served": float(clock["served"]),
        "rejected": float(clock["rejected"]),
        "queued": float(clock["queued"] + clock["stranded"]),
        "waiting": float(instances["waiting"].sum()),
        "running": float((instances["decoding"] + instances["prefilling"]).sum()),
        "preemptions": float(clock["preemptions"]),
        "recomputed_tokens": float(clock["recomputed_tokens"]),
        "cached_tokens": float(clock["cached_tokens"]),
        "limited": float(clock["limited"]),
        "decisions": float(clock["decisions"]),
        "forced_dispatches": float(clock["forced"]),
        "events": float(clock["events"]),
        "iterations": float(clock["iterations"]),
        "good_requests": float(clock["good"]),
        "good_tokens": float(clock["good_tokens"]),
        "request_seconds": float(clock["area_s"]) + float(clock["area_ps"]) / PS_PER_S,
        "now_s": float(clock["now_ps"]) / PS_PER_S,
    }


def latencies_of(requests: np.ndarray, table: RequestTable) -> dict[str, np.ndarray]:
    """What `Result.latencies` gives, from rows with the fields of `Result.requests`."""
    served = _served(requests)
    outputs = np.asarray(table.output_tokens)[served]
    gaps = np.where(outputs > 1, outputs - 1, np.nan)
    times = ("arrival_ps", "dispatch_ps", "admit_ps", "first_token_ps", "finish_ps")
    arrival, dispatch, admit, first, finish = (requests[name][served] for name in times)
    return {
        "e2e_s": _seconds(finish - arrival),
        "ttft_s": _seconds(first - arrival),
        "tbt_s": _seconds(finish - first) / gaps,
        "queueing_s": _seconds(admit - arrival),
        "router_wait_s": _seconds(dispatch - arrival),
    }


def summary_of(
    requests: np.ndarray,
    table: RequestTable,
    fleet: Sequence[EngineConfig],
    counters: dict[str, float],
) -> dict[str, float]:
    """What `Result.summary` gives, from rows with the fields of `Result.requests`."""
    times = latencies_of(requests, table)
    times["tbt_s"] = times["tbt_s"][~np.isnan(times["tbt_s"])]
    served = _served(requests)
    output = int(np.asarray(table.output_tokens)[served].sum())
    prompt = int(np.asarray(table.prompt_tokens)[served].sum())
    return _summary(counters, times, _makespan_s(requests), prompt, output, fleet)


def summary_of_state(state: State, fleet: Sequence[EngineConfig]) -> tuple[dict[str, float], int]:
    """What `Result.summary` gives, and the most tokens of a request that was admitted.

    It is taken from the rows of the kernel in one look, without a copy of them.
    """
    times, totals = measure(state.arrays["requests"], state.arrays["output"])
    makespan = float(max(totals["last_ps"], totals["first_ps"]) - totals["first_ps"]) / PS_PER_S
    prompt, output = totals["prompt"], totals["output"]
    summary = _summary(counters_of(state), times, makespan, prompt, output, fleet)
    return summary, totals["longest"]


def _summary(
    counters: dict[str, float],
    times: dict[str, np.ndarray],
    makespan_s: float,
    prompt: int,
    output: int,
    fleet: Sequence[EngineConfig],
) -> dict[str, float]:
    """Put a summary together; latencies are without NaN, tokens those of the served requests."""
    out = dict(counters)
    out["unfinished"] = counters["arrived"] - counters["served"] - counters["rejected"]
    out["makespan_s"] = makespan_s
    for name, values in times.items():
        count = len(values)
        out[f"{name[:-2]}_mean_s"] = float(values.sum()) / count if count else float("nan")
        marks = percentiles(values, _PERCENTILES) if count else [float("nan")] * 4
        for mark, value in zip(_PERCENTILES, marks, strict=True):
            out[f"{name[:-2]}_p{mark}_s"] = value
    rate = 1.0 / makespan_s if makespan_s > 0 else float("nan")
    out["output_tokens_per_s"] = float(output) * rate
    out["prompt_tokens_per_s"] = float(prompt) * rate
    out["goodput_tokens_per_s"] = counters["good_tokens"] * rate
    out["slo_attainment"] = counters["good_requests"] / max(counters["arrived"], 1.0)
    hours = makespan_s / 3600.0
    out["gpu_hours"] = hours * sum(engine.gpus for engine in fleet)
    out["dollars"] = hours * sum(engine.price_per_hour for engine in fleet)
    return out


def _served(requests: np.ndarray) -> np.ndarray | slice:
    """Index of the served requests; to take all of them without a copy is the usual case."""
    served = requests["status"] == SERVED
    return slice(None) if served.all() else served


def _seconds(duration_ps: np.ndarray) -> np.ndarray:
    return duration_ps.astype(np.float64) / PS_PER_S


def _makespan_s(requests: np.ndarray) -> float:
    """Seconds from the first arrival to the last finish."""
    arrival = requests["arrival_ps"]
    came = arrival if arrival.min(initial=0) >= 0 else arrival[arrival >= 0]
    start = came.min() if len(came) else 0
    return float(max(requests["finish_ps"].max(initial=0), start) - start) / PS_PER_S
