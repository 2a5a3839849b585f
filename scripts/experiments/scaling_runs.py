"""Runs of the scaling benchmark: a strategy with its parameters serves an episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.catalogue import strategies, strategy
from baselines.scaling.strategies.parameters import parameters_of
from baselines.scaling.strategies.setting import setting_of
from envs.scaling.build import ScalingEpisode, history_of
from envs.scaling.build import episode as build
from envs.scaling.control import control
from envs.scaling.demand import Demand
from envs.scenarios import Scenario
from envs.simulator import Result
from scripts.experiments.cases import Episode
from scripts.experiments.contenders import Contender
from scripts.experiments.runner import Job
from scripts.experiments.scaling_flaws import FIXED, Flaws
from scripts.experiments.scaling_forecast import TrafficForecast, is_oracle
from scripts.experiments.scaling_metrics import curves, measured
from scripts.experiments.store import Record

FORECASTER = "naive_168h"
"""What strategies plan by unless told otherwise (docs/scaling.md, "The benchmark")."""
REFERENCE = "reactive"
Queue = Literal["fcfs", "edf", "pf", "dpa"]
UNTUNED = ("tick_s", "plan_s", "gap", "time_limit_s", "batch_window_s", "request_tokens")
"""Parameters that are no matter of taste: clocks, tolerances, units."""
SPREAD = 0.35
"""Log-standard deviation of the settings that tuning tries about the defaults."""
QUEUES: tuple[Queue, ...] = ("fcfs", "edf", "pf", "dpa")


@dataclass(frozen=True)
class ScaledResult(Result):
    """A finished run, with the fleet as it was at its end.

    Attributes:
        episode: The episode, at its end.
        errors: What was wrong with the forecast, where one was asked for.
        forecast: What it said beside what came.
    """

    episode: ScalingEpisode
    errors: dict[str, float] = field(default_factory=dict)
    forecast: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scaler:
    """A strategy that takes part (a `contenders.Contender`).

    Attributes:
        name: Its name in the catalogue.
        parameters: Values that replace its defaults.
        forecaster: Key of `predictors.traffic.FORECASTERS`, for those that plan.
        queue: Order of the queues of instances, instead of the scenario's.
        flaws: What is wrong; None leaves the scenario and the defaults as they are.
        variant: Name of the flaws in tables.
    """

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()
    forecaster: str = FORECASTER
    queue: Queue | None = None
    flaws: Flaws | None = None
    variant: str = ""

    @classmethod
    def parse(cls, text: str, forecaster: str = FORECASTER, queue: Queue | None = None) -> Scaler:
        """Read `name` or `name:parameter=value,parameter=value`.

        Raises:
            ValueError: There is no such strategy, parameter or forecaster, or a value makes no
                sense.
        """
        name, _, rest = text.strip().partition(":")
        pairs = [part.partition("=") for part in rest.split(",") if part]
        if any(not equals for _, equals, _ in pairs):
            raise ValueError(f"strategy {text!r}: write name:parameter=value,parameter=value")
        values = tuple((key.strip(), _value(value.strip())) for key, _, value in pairs)
        is_oracle(forecaster)
        found = cls(name, values, forecaster, queue)
        found.strategy()
        return found

    @property
    def label(self) -> str:
        """Name in tables and files."""
        own = self.name
        if self.parameters:
            given = ",".join(f"{key}={_text(value)}" for key, value in self.parameters)
            own = f"{self.name}:{given}"
        if self.queue is not None:
            own += f"+{self.queue}"
        return f"{self.variant}|{own}" if self.variant else own

    @property
    def plans(self) -> bool:
        """Whether it needs a forecast."""
        return strategies()[self.name].plans

    @property
    def oracle(self) -> bool:
        """Whether it knows the future."""
        return bool(self.strategy().oracle)

    def strategy(self, forecast: TrafficForecast | None = None) -> Strategy:
        """The strategy itself.

        Raises:
            ValueError: As `parse`.
        """
        if self.name in strategies() and self.plans and forecast is None:
            forecast = TrafficForecast(self._forecaster)
        given = self._flaws.parameters(self.name) if self.flaws is not None else {}
        # What is an oracle by itself brings its own forecast.
        own = None if self.name.endswith("_perfect") else forecast
        return strategy(self.name, own, **(given | dict(self.parameters)))

    @property
    def _flaws(self) -> Flaws:
        return FIXED if self.flaws is None else self.flaws

    @property
    def _forecaster(self) -> str:
        return self._flaws.forecaster(self.forecaster)

    def run(self, given: Episode) -> ScaledResult:
        """Serve all requests of an episode that arrive while it lasts."""
        scenario, seed, flaws = given.scenario, given.seed, self._flaws
        if self.flaws is not None:
            scenario = flaws.scenario(scenario, self.name)
        if self.queue is not None:
            scenario = _queued(scenario, self.queue)
        scenario = flaws.divided(scenario, self.name)
        drawn = flaws.table(given.table)
        made = build(scenario, seed, table=drawn, bin_s=flaws.bin_s)
        past = _history(Workload(given.scenario), seed, made.models, flaws.bin_s)
        forecast = _forecast(self._forecaster, seed) if self.plans else None
        chosen = self.strategy(forecast)
        future = made.demand if chosen.oracle else None
        setting = setting_of(scenario, made, past, seed, future=future)
        control(made.fleet, flaws.controller(chosen), setting, made.demand)
        plain = made.fleet.simulation.result(self.name)
        if forecast is None or chosen.forecast is not forecast:
            return ScaledResult(**vars(plain), episode=made)
        errors, shown = forecast.error(past, made.demand), forecast.shown(past, made.demand)
        return ScaledResult(**vars(plain), episode=made, errors=errors, forecast=shown)

    def candidates(self, tries: int, seed: int = 0) -> list[Scaler]:
        """So many settings to choose from, as given first; itself alone where it has no numbers."""
        known = parameters_of(strategies()[self.name])
        given = dict(self.parameters)
        free = {
            key: float(one.default)
            for key, one in known.items()
            if key not in UNTUNED and key not in given and type(one.default) is float
        }
        found, rng = [self], np.random.default_rng([seed, 7])
        while free and len(found) < tries:
            drawn = {
                key: float(f"{v * np.exp(SPREAD * rng.standard_normal()):.3g}")
                for key, v in free.items()
            }
            if all(known[key].accepts(value) for key, value in drawn.items()):
                values = tuple((given | drawn).items())
                try:
                    one = replace(self, parameters=values)
                    one.strategy()
                except ValueError:
                    continue
                found.append(one)
        return found

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        values = {name: one.default for name, one in parameters_of(strategies()[self.name]).items()}
        known = values | self._flaws.parameters(self.name) | dict(self.parameters)
        return {
            "name": self.name,
            "parameters": {key: str(value) for key, value in known.items()},
            "forecaster": self._forecaster if self.plans else None,
            "queue": self.queue,
            "flaws": None if self.flaws is None else list(self.flaws.names),
        }


def measure(contender: Contender, episode: Episode, result: Result, wall_s: float) -> Record:
    """The record of a finished run (a `runner.Measure`)."""
    assert isinstance(result, ScaledResult)
    fleet = result.episode.fleet
    found = measured(fleet) | result.errors | {"wall_s": wall_s}
    variant = getattr(contender, "variant", "")
    kept = {} if variant else curves(fleet) | result.forecast
    return Record(episode.scenario.name, episode.seed, contender.label, found, kept)


def prepare(jobs: Sequence[Job]) -> None:
    """Compile here what the processes need: an hour of the first job, with one strategy a queue."""
    job = jobs[0]
    drawn = job.case.episode(job.seed)
    few = replace(drawn, table=drawn.table[:20])
    queues = {getattr(c, "queue", None): c for each in jobs for c in each.contenders}
    for queue in queues:
        Scaler("static_peak", queue=queue).run(few)


class Workload:
    """The workload of a scenario, as a key: scenarios that differ in all else share their past."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.key = (scenario.workload.model_dump_json(), tuple(scenario.scaling.regions))  # type: ignore[union-attr]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and other.key == self.key


@lru_cache(maxsize=4)
def _history(workload: Workload, seed: int, models: tuple[str, ...], bin_s: float) -> Demand:
    return history_of(workload.scenario, seed, models, bin_s=bin_s)


@lru_cache(maxsize=4)
def _forecast(name: str, seed: int) -> TrafficForecast:
    """One for all strategies of an episode, which share what was fitted."""
    return TrafficForecast(name, seed)


def _queued(scenario: Scenario, queue: Queue) -> Scenario:
    groups = {
        key: group.model_copy(update={"queue": queue})
        for key, group in scenario.fleet.groups.items()
    }
    fleet = scenario.fleet.model_copy(update={"groups": groups})
    return scenario.model_copy(update={"fleet": fleet})


def _value(text: str) -> Any:
    """A number, yes or no, or a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return (
        int(number) if number.is_integer() and "." not in text and math.isfinite(number) else number
    )


def _text(value: Any) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float | int) and not isinstance(value, bool)
        else str(value)
    )
