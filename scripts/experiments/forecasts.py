"""Forecasters on demand series: one run, its metrics, and what else may be measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from predictors.traffic import (
    FORECASTERS,
    LEVELS,
    Backtest,
    Forecaster,
    Traffic,
    backtest,
    forecaster,
    scores,
    traffic,
)
from scripts.experiments.metrics import Metric
from scripts.experiments.store import Record

DAY_S, HOUR_S = 86_400.0, 3_600.0

FORECAST: dict[str, Metric] = {
    metric.key: metric
    for metric in [
        Metric("pinball", "Pinball loss over mean traffic (%)", "pinball %", 100.0),
        Metric("wape", "Error of the median over traffic (%)", "error %", 100.0),
        Metric("bias", "Bias of the median over traffic (%)", "bias %", 100.0, 0, False),
        Metric("mae", "Mean absolute error (per second)", "MAE"),
        Metric("peak_wape", "Error of a path's highest value (%)", "peak %", 100.0),
        Metric("peak_missed", "Peaks above the highest 90 % quantile (%)", "missed %", 100.0, 0),
        Metric("coverage_50", "Inside the 50 % interval (%)", "in 50 %", 100.0, 0, False),
        Metric("coverage_80", "Inside the 80 % interval (%)", "in 80 %", 100.0, 0, False),
        Metric("coverage_90", "Inside the 90 % interval (%)", "in 90 %", 100.0, 0, False),
        Metric("width_80", "Width of the 80 % interval over traffic (%)", "width %", 100.0, 0),
        Metric("fit_s", "CPU seconds of a refit of all series", "refit s", 1.0, 0),
        Metric("fit_most_s", "CPU seconds of the slowest refit", "slowest s", 1.0, 0),
        Metric("forecast_s", "CPU milliseconds of a forecast of all series", "call ms", 1e3, 0),
    ]
}
"""What a table of forecasters tells, by key."""
MAIN = FORECAST["pinball"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How forecasters are evaluated.

    Attributes:
        bin_s: Width of a bin, seconds.
        history_s: What is known at the first origin, seconds.
        days_s: How long it goes on, seconds.
        step_s: Time from an origin to the next.
        horizon_s: How far ahead is forecast.
        refit_s: Time after which a forecaster is fitted anew.
        by: Columns that tell the series apart.
        unit: What is counted.
        tiers: Tiers that count.
    """

    bin_s: float = 900.0
    history_s: float = 21 * DAY_S
    days_s: float = 7 * DAY_S
    step_s: float = 4 * HOUR_S
    horizon_s: float = 4 * HOUR_S
    refit_s: float = DAY_S
    by: tuple[str, ...] = ("model", "region")
    unit: Literal["tokens", "prompt", "requests"] = "tokens"
    tiers: tuple[str, ...] = ("IW-F", "IW-N")

    @property
    def duration_s(self) -> float:
        """Seconds of demand that are needed."""
        return self.history_s + self.days_s + self.horizon_s

    def bins(self, seconds: float) -> int:
        """Whole bins of a time, at least 1."""
        return max(1, round(seconds / self.bin_s))


@dataclass(frozen=True)
class Source:
    """Where demand comes from: an O365-like week, or the workload of a scenario.

    Attributes:
        name: Name in tables.
        shape: Of `O365`, where there is no scenario.
        scale: Likewise.
        scenario: Preset or file.
    """

    name: str
    shape: Literal["recorded", "regular"] = "recorded"
    scale: float = 0.1
    scenario: str = ""

    def draw(self, seed: int, plan: Plan) -> Traffic:
        """The series of a seed.

        Raises:
            ValueError: The demand is shorter than the plan needs.
            ScenarioError: The scenario is refused.
        """
        from envs.workloads import O365

        options: dict[str, Any] = {"by": plan.by, "unit": plan.unit, "tiers": plan.tiers}
        if not self.scenario:
            week = O365(scale=self.scale, shape=self.shape, duration_s=plan.duration_s)
            parts = week.parts(seed, hours=24)
            return traffic(parts, plan.bin_s, duration_s=plan.duration_s, **options)
        from envs.scenarios import load_scenario

        workload = load_scenario(self.scenario).workload
        drawn = getattr(workload, "parts", None)
        found = traffic(
            workload.build(seed) if drawn is None else drawn(seed), plan.bin_s, **options
        )
        if found.end_s < plan.duration_s:
            raise ValueError(
                f"{self.name} ends after {found.end_s / DAY_S:.2f} days of demand; "
                f"{plan.duration_s / DAY_S:.2f} are needed: give it a longer duration_s, or take "
                "fewer --history-days and --days"
            )
        return found.until(plan.bins(plan.duration_s))


@dataclass(frozen=True)
class Run:
    """A finished backtest, for what is measured of it downstream.

    Attributes:
        source: Where the demand comes from.
        seed: Its seed.
        series: The demand.
        name: Name of the forecaster.
        forecaster: The forecaster, as it was after the last origin.
        found: What it forecast, and what came.
    """

    source: Source
    seed: int
    series: Traffic
    name: str
    forecaster: Forecaster
    found: Backtest


@dataclass(frozen=True)
class Downstream:
    """What forecasts lead to, such as the cost of an autoscaler that plans by them.

    Attributes:
        metrics: What `measure` gives.
        measure: Called with every finished run; a function of a module, as runs may be spread over
            processes.
    """

    metrics: tuple[Metric, ...]
    measure: Callable[[Run], Mapping[str, float]]


DOWNSTREAM: dict[str, Downstream] = {}
"""Measured beside the errors, by name: policies that plan by forecasts enter themselves here."""


def is_oracle(name: str) -> bool:
    """Whether a forecaster knows the future."""
    return FORECASTERS[name].oracle is not None


def metrics() -> dict[str, Metric]:
    """All metrics, those downstream with them."""
    further = [metric for each in DOWNSTREAM.values() for metric in each.metrics]
    return FORECAST | {metric.key: metric for metric in further}


def run(source: Source, seed: int, names: Sequence[str], plan: Plan) -> list[Record]:
    """Evaluate forecasters on the demand of one seed, all on the same series and origins.

    Args:
        source: Where the demand comes from.
        seed: Its seed, and that of what is trained.
        names: Keys of `FORECASTERS`.
        plan: How they are evaluated.

    Returns:
        A record each; `curves` has the error by step ahead (`error`), the share below each level
        (`below`), and the busiest series over time (`shown_...`).
    """
    series = source.draw(seed, plan)
    out = []
    for name in names:
        made = forecaster(
            name,
            seed=seed,
            bin_s=plan.bin_s,
            horizon=plan.bins(plan.horizon_s),
            future=series if is_oracle(name) else None,
        )
        found = backtest(
            made,
            series,
            first=plan.bins(plan.history_s),
            step=plan.bins(plan.step_s),
            horizon=plan.bins(plan.horizon_s),
            refit=plan.bins(plan.refit_s),
        )
        summary = scores(found)
        done = Run(source, seed, series, name, made, found)
        for each in DOWNSTREAM.values():
            summary |= each.measure(done)
        out.append(Record(source.name, seed, name, summary, _curves(found, plan)))
    return out


def _curves(found: Backtest, plan: Plan) -> dict[str, list[float]]:
    y = found.actual
    error = np.abs(found.at(0.5) - y).sum((0, 1)) / np.maximum(y.sum((0, 1)), 1e-300)
    below = (y[..., None] <= found.quantiles).mean((0, 1, 2))
    busiest = int(y.sum((0, 2)).argmax())
    # Up to the next origin, so that the paths do not overlap.
    ahead = min(plan.bins(plan.step_s), y.shape[2])
    times = (found.origins[:, None] + np.arange(ahead)) * plan.bin_s / DAY_S
    shown = {"time_days": times, "actual": y[:, busiest, :ahead]}
    for name, level in {"low": 0.1, "median": 0.5, "high": 0.9}.items():
        shown[name] = found.at(level)[:, busiest, :ahead]
    curves = {f"shown_{name}": np.ravel(values).tolist() for name, values in shown.items()}
    return curves | {"error": error.tolist(), "below": below.tolist(), "levels": list(LEVELS)}
