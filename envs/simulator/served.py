"""What became of the requests of a run, simulated or measured, by tenant and interaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from envs.simulator.layout import PS_PER_S, SERVED, UNFINISHED

if TYPE_CHECKING:
    import pandas as pd

    from envs.simulator.result import Result

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
"""Cost of an input and of an output token (OSDI 2024)."""


@dataclass(frozen=True, eq=False)
class Served:
    """What became of the requests of a run; all arrays (n,), in any order.

    Attributes:
        tenant: Number of the tenant, 0 or more.
        arrival_s: Arrival in seconds.
        prompt: Prompt tokens.
        output: Output tokens.
        first_token_s: Time of the first token; NaN where there was none.
        finish_s: Time of the last token; NaN where it did not finish.
        rejected: Whether it was turned away.
        interaction: Number of the interaction; by default each call is one.
        calls: Calls that the interaction makes.
    """

    tenant: Ints
    arrival_s: Floats
    prompt: Ints
    output: Ints
    first_token_s: Floats
    finish_s: Floats
    rejected: Bools
    interaction: Ints
    calls: Ints

    @classmethod
    def of(cls, result: Result) -> Served:
        """The outcome of a simulation; calls that never arrived are left out."""
        rows, table = result.requests, result.table
        arrived = rows["arrival_ps"] >= 0
        times = {
            name: np.where(rows[f"{name}_ps"] >= 0, rows[f"{name}_ps"] / PS_PER_S, np.nan)[arrived]
            for name in ("first_token", "finish")
        }
        status = rows["status"][arrived]
        return cls(
            np.asarray(table.tenant.codes, np.int64)[arrived],
            rows["arrival_ps"][arrived] / PS_PER_S,
            table.prompt_tokens[arrived],
            table.output_tokens[arrived],
            times["first_token"],
            times["finish"],
            (status != SERVED) & (status != UNFINISHED),
            table.interaction[arrived],
            table.calls_in_interaction[arrived],
        )

    @classmethod
    def asked(cls, result: Result, *, fallen_only: bool = False) -> Served:
        """The outcome with the calls of closed-loop clients that were never sent.

        Those of an interaction that lost a call fell with it, and count as turned away; others
        wait for the one before. They arrive at their own times. With all of them, and every call
        at its own time, demand is the same whatever the policy.

        Args:
            result: Outcome of a simulation.
            fallen_only: Take of them only those that fell, and the others as they arrived.
        """
        sent, table = cls.of(result), result.table
        arrived = result.requests["arrival_ps"] >= 0
        fell = np.isin(table.interaction, sent.interaction[sent.rejected]) & ~arrived
        which = arrived | fell if fallen_only else np.ones(len(table), bool)
        own = np.asarray(table.arrival_s, np.float64)
        never = np.full(len(table), np.nan)
        first, last, gone = never.copy(), never.copy(), fell.copy()
        first[arrived], last[arrived] = sent.first_token_s, sent.finish_s
        gone[arrived] = sent.rejected
        arrival = own.copy()
        if fallen_only:
            arrival[arrived] = sent.arrival_s
        whole = cls(
            np.asarray(table.tenant.codes, np.int64),
            arrival,
            table.prompt_tokens,
            table.output_tokens,
            first,
            last,
            gone,
            table.interaction,
            table.calls_in_interaction,
        )
        return cls(*(getattr(whole, name)[which] for name in cls.__dataclass_fields__))

    @classmethod
    def measured(cls, frame: pd.DataFrame) -> Served:
        """The outcome of a measured run.

        Args:
            frame: Columns `client_id, arrival_s, prompt_tokens, output_tokens,
                first_token_latency_s, request_latency_s`, latencies in seconds, -1 for a
                request that was turned away.

        Raises:
            KeyError: A column is missing.
        """
        arrival = frame["arrival_s"].to_numpy(np.float64)
        latency = frame["request_latency_s"].to_numpy(np.float64)
        first = frame["first_token_latency_s"].to_numpy(np.float64)
        rejected = latency < 0
        n = len(frame)
        return cls(
            frame["client_id"].to_numpy(np.int64),
            arrival,
            frame["prompt_tokens"].to_numpy(np.int64),
            frame["output_tokens"].to_numpy(np.int64),
            np.where(rejected, np.nan, arrival + first),
            np.where(rejected, np.nan, arrival + latency),
            rejected,
            np.arange(n),
            np.ones(n, np.int64),
        )

    @property
    def tenants(self) -> int:
        """Number of tenants, with those that sent nothing."""
        return int(self.tenant.max()) + 1

    @property
    def finished(self) -> Bools:
        """(n,) whether each request had its last token."""
        return np.isfinite(self.finish_s)

    @property
    def cost(self) -> Floats:
        """(n,) input tokens + 2 x output tokens."""
        return INPUT_WEIGHT * self.prompt + OUTPUT_WEIGHT * self.output

    def done(self, cut_s: float | None = None) -> Bools:
        """(n,) whether each request had its last token by a time, by default at all."""
        return self.finished if cut_s is None else self.finished & (self.finish_s <= cut_s)

    def by_tenant(self, values: npt.NDArray[np.generic]) -> Floats:
        """(tenants,) sum of the values of each tenant's requests."""
        sums = np.bincount(self.tenant, np.asarray(values, np.float64), self.tenants)
        return sums.astype(np.float64)


def group_ttft(rows: Served, sizes: Sequence[int] = (4, 9)) -> tuple[float, ...]:
    """Mean time to first token of heavy, middle and light tenants, in seconds.

    Args:
        rows: Outcome of the run.
        sizes: Tenants in the first groups, by number of requests, the heaviest first; the others
            are the last group. The 27 clients of VTC's real trace go 4, 9, 14.

    Returns:
        Mean over the requests of each group; NaN where none has a token.
    """
    counts = np.bincount(rows.tenant, minlength=rows.tenants)
    rank = np.empty(rows.tenants, np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(rows.tenants)
    group = np.searchsorted(np.cumsum(sizes), rank[rows.tenant], side="right")
    wait = rows.first_token_s - rows.arrival_s
    means = []
    for number in range(len(sizes) + 1):
        mine = wait[(group == number) & np.isfinite(wait)]
        means.append(float(mine.mean()) if len(mine) else float("nan"))
    return tuple(means)


def wasted_tokens(rows: Served) -> int:
    """Tokens of finished calls whose interaction lost a call to a rejection.

    FairServe counts the prompt alone; here it is prompt and output.
    """
    lost = np.isin(rows.interaction, rows.interaction[rows.rejected])
    return int((rows.prompt + rows.output)[lost & rows.finished].sum())


def benign_throttles(rows: Served, limit: int, window_s: float = 60.0) -> float:
    """Share of all calls that are rejected calls of tenants that kept to the limit.

    Args:
        rows: Outcome of the run.
        limit: A tenant keeps to it that never sends more calls than this within a window.
        window_s: Length of the window in seconds.
    """
    benign = np.zeros(len(rows.tenant), bool)
    for tenant in np.unique(rows.tenant[rows.rejected]):
        mine = rows.tenant == tenant
        times = np.sort(rows.arrival_s[mine])
        within = np.arange(1, len(times) + 1) - np.searchsorted(times, times - window_s, "right")
        if within.max() <= limit:
            benign |= mine
    return float((benign & rows.rejected).mean())


def by_cut(rows: Served, cut_s: float | None = None) -> dict[str, float]:
    """What was finished by a time (FairServe compares at 100 s), and what was lost in the run.

    Args:
        rows: Outcome of the run.
        cut_s: The time in seconds; by default the end.

    Returns:
        By the cut: `calls`, `users` (with a finished call), `interactions` (with all calls
        finished), of these `multi_call_interactions` and `single_call_interactions`. Of the whole
        run: `rejected_calls`, `rejected_users`, `rejected_interactions` (that lost a
        call), `broken_interactions` (of which a call ran as well), `wasted_tokens`.
    """
    done = rows.done(cut_s)
    interaction, finished = np.unique(rows.interaction[done], return_counts=True)
    first = np.unique(rows.interaction, return_index=True)
    needed = rows.calls[first[1]][np.searchsorted(first[0], interaction)]
    whole = finished >= needed
    lost = np.unique(rows.interaction[rows.rejected])
    ran = np.unique(rows.interaction[rows.finished])
    return {
        "calls": float(done.sum()),
        "users": float(len(np.unique(rows.tenant[done]))),
        "interactions": float(whole.sum()),
        "multi_call_interactions": float((whole & (needed > 1)).sum()),
        "single_call_interactions": float((whole & (needed == 1)).sum()),
        "rejected_calls": float(rows.rejected.sum()),
        "rejected_users": float(len(np.unique(rows.tenant[rows.rejected]))),
        "rejected_interactions": float(len(lost)),
        "broken_interactions": float(np.isin(lost, ran).sum()),
        "wasted_tokens": float(wasted_tokens(rows)),
    }


def whole_run(rows: Served) -> dict[str, float]:
    """Figures of a whole run as the papers print them; the run lasts from 0 to the last finish.

    Returns:
        `total_s`, `tokens_per_s` (prompt and output of finished calls), `prompt_tokens_per_s`,
        `output_tokens_per_s`, `finished`, `rejected`, mean and percentiles of the time to first
        token of finished calls, `ttft_mean_s`, `ttft_p50_s`, `ttft_p90_s`, `ttft_p99_s`, and the
        mean time between their tokens, `tbt_mean_s` (calls of one token left out).
    """
    done = rows.finished
    end = float(np.max(rows.finish_s[done], initial=0.0))
    prompt, output = int(rows.prompt[done].sum()), int(rows.output[done].sum())
    wait = (rows.first_token_s - rows.arrival_s)[done]
    several = done & (rows.output > 1)
    between = (rows.finish_s - rows.first_token_s)[several] / (rows.output[several] - 1)
    marks = np.percentile(wait, [50, 90, 99]) if len(wait) else np.full(3, np.nan)
    per_s = 1.0 / end if end > 0 else float("nan")
    return {
        "total_s": end,
        "tokens_per_s": (prompt + output) * per_s,
        "prompt_tokens_per_s": prompt * per_s,
        "output_tokens_per_s": output * per_s,
        "finished": float(done.sum()),
        "rejected": float(rows.rejected.sum()),
        "ttft_mean_s": float(wait.mean()) if len(wait) else float("nan"),
        **{f"ttft_p{q}_s": float(mark) for q, mark in zip((50, 90, 99), marks, strict=True)},
        "tbt_mean_s": float(between.mean()) if len(between) else float("nan"),
    }


def service_buckets(
    rows: Served, weight: Floats, cut_s: float, output_weight: float = OUTPUT_WEIGHT
) -> dict[str, int]:
    """Users by normalised service at a cut: none, up to one typical call, more (FairServe).

    Args:
        rows: Outcome of the run.
        weight: (n,) cost of a typical call of each call's application.
        cut_s: Calls that finished by then count.
        output_weight: Cost of an output token; an input token costs 1.
    """
    cost = (rows.prompt + output_weight * rows.output) / weight
    got = rows.by_tenant(cost * rows.done(cut_s))[np.unique(rows.tenant)]
    return {
        "none": int((got == 0).sum()),
        "up_to_one": int(((got > 0) & (got <= 1)).sum()),
        "more": int((got > 1).sum()),
    }
