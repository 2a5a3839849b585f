"""The metrics of a comparison: their keys in results, headings, units, and which way is better."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envs.simulator import Result

MINUS = "\u2212"


@dataclass(frozen=True)
class Metric:
    """One metric of a run.

    Attributes:
        key: Its key in `summary_of`.
        title: What it is, with unit.
        heading: Short form for narrow columns.
        scale: Factor from the unit of the key to that of the title.
        better: -1 where less is better, 1 where more is, 0 where it depends.
        relative: Whether it is compared by its ratio to that of the reference, not by the
            difference.
    """

    key: str
    title: str
    heading: str
    scale: float = 1.0
    better: int = -1
    relative: bool = True

    def text(self, value: float) -> str:
        """The value in the unit of the title, to about three digits."""
        return number(value * self.scale)


def share(key: str, title: str, heading: str, better: int = -1) -> Metric:
    """A metric that is a share of 1, in percent, compared by differences."""
    return Metric(key, f"{title} (%)", f"{heading} %", 100.0, better, relative=False)


def _latency(name: str, title: str, unit: str, scale: float, heading: str = "") -> list[Metric]:
    marks = {"mean": "mean", "p50": "median", "p95": "p95", "p99": "p99"}
    short = {"mean": "", "p50": " p50", "p95": " p95", "p99": " p99"}
    return [
        Metric(
            f"{name}_{key}_s",
            f"{title}, {word} ({unit})",
            f"{heading or name}{short[key]} {unit}",
            scale,
        )
        for key, word in marks.items()
    ]


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in [
        *_latency("e2e", "End-to-end latency", "s", 1.0),
        *_latency("ttft", "Time to first token", "s", 1.0),
        *_latency("tbt", "Time between tokens", "ms", 1e3),
        *_latency("queueing", "Wait for admission", "s", 1.0, "wait"),
        Metric("router_wait_mean_s", "Wait at the router, mean (s)", "held s"),
        Metric("makespan_s", "First arrival to last finish (s)", "span s"),
        Metric("output_tokens_per_s", "Output tokens per second", "tok/s", better=1),
        Metric("preemptions", "Preemptions", "preempt"),
        Metric("recomputed_tokens", "Tokens computed again", "recomputed"),
        Metric("served", "Requests served", "served", better=1),
        Metric("rejected", "Requests rejected", "rej."),
        Metric("limited", "Requests rejected by the rate limit", "limited"),
        Metric("failures", "Requests lost by failed instances, each time", "failed"),
        Metric("cached_tokens", "Tokens found in the prefix cache", "cached", better=1),
        Metric("unfinished", "Requests unfinished", "unfinished"),
        Metric("slo_attainment", "Requests inside every objective (share)", "in SLO", better=1),
        Metric("goodput_tokens_per_s", "Output tokens inside objectives per s", "good/s", better=1),
        Metric("gpu_hours", "GPU hours of the fleet", "GPU h"),
        Metric("dollars", "Cost of the fleet (dollars)", "dollars"),
    ]
}
"""All metrics that tables estimate, by key."""

COMPACT = (
    "e2e_p50_s",
    "e2e_p95_s",
    "e2e_p99_s",
    "ttft_mean_s",
    "tbt_mean_s",
    "queueing_mean_s",
    "makespan_s",
    "preemptions",
    "output_tokens_per_s",
    "rejected",
)
"""What a terminal shows beside mean end-to-end latency in 120 columns."""

WITH_OBJECTIVES = (
    *("e2e_p50_s", "e2e_p99_s", "slo_attainment", "goodput_tokens_per_s"),
    *(key for key in COMPACT if key not in ("e2e_p50_s", "e2e_p95_s", "e2e_p99_s")),
)
"""The same where there are service objectives."""

SOMETIMES = ("limited", "failures", "cached_tokens")
"""What is shown as well where it is not always 0."""

OBJECTIVES = ("slo_attainment", "goodput_tokens_per_s")
"""What is shown as well where there are service objectives."""

MAIN = (*COMPACT[:4], "ttft_p99_s", *COMPACT[4:])
"""What the report shows beside mean end-to-end latency."""


def summary_of(result: Result) -> dict[str, float]:
    """The summary of a run with the requests that failed instances gave back, each time."""
    lost = float(result.requests["failures"].sum())
    return {key: float(value) for key, value in result.summary().items()} | {"failures": lost}


def objective_facts(limits: Mapping[str, float], summary: Mapping[str, float]) -> list[list[str]]:
    """How many requests met the objectives, as two rows of text.

    Args:
        limits: Seconds by their keys in a scenario: `ttft_s`, `tbt_s`, `e2e_s`.
        summary: With `slo_attainment` and `goodput_tokens_per_s`.
    """
    within = ", ".join(f"{key[:-2]} {limit:g} s" for key, limit in limits.items())
    return [
        [f"requests within {within}", f"{100 * summary['slo_attainment']:.1f} %"],
        ["their output tokens per second", number(summary["goodput_tokens_per_s"])],
    ]


def not_always_zero(summaries: Iterable[Mapping[str, float]]) -> list[str]:
    """Those of `SOMETIMES` that some summary has a value of."""
    seen = list(summaries)
    return [key for key in SOMETIMES if any(summary.get(key) for summary in seen)]


def chosen(keys: Sequence[str], known: Mapping[str, Metric] = METRICS) -> list[Metric]:
    """The metrics of these keys, of those that are known.

    Raises:
        ValueError: A key is unknown; the message tells what is close.
    """
    for key in keys:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or sorted(known)
            raise ValueError(f"--metrics: no metric {key!r}; there are: {', '.join(close)}")
    return [known[key] for key in keys]


def number(value: float) -> str:
    """A number to three digits or, from 100 on, to the unit; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 99.95 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.0995 else f"{value:.3f}"


def percent(value: float) -> str:
    """A change as signed per cent, from the double on as a factor; a dash for NaN."""
    if not math.isfinite(value):
        return "-"
    if value >= 0.995:
        return f"\u00d7{value + 1:.{_factor_digits(value)}f}"
    text = f"{100 * value:+.1f}" if abs(value) < 0.0995 else f"{100 * value:+.0f}"
    return f"{'0' if float(text) == 0 else text.replace('-', MINUS)}%"


def _factor_digits(change: float) -> int:
    return 1 if change < 8.95 else 0


def signed(value: float) -> str:
    """A difference with its sign, to about three digits; a dash for NaN."""
    text = number(abs(value))
    if not math.isfinite(value) or float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def percent_range(mean: float, low: float, high: float) -> str:
    """The ends of an interval as `[-22, -8]` per cent, one decimal only where both are small.

    They are factors where the mean, as `percent` writes it, is one.
    """
    if mean >= 0.995:
        return f"[{low + 1:.{_factor_digits(low)}f}, {high + 1:.{_factor_digits(high)}f}]"
    digits = 1 if max(abs(low), abs(high)) < 0.0995 else 0
    ends = (f"{100 * end:+.{digits}f}".replace("-", MINUS) for end in (low, high))
    return f"[{', '.join(ends)}]"
