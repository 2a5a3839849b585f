"""Speed of fleets that are scaled: the week of SageServe's size, and steps of Scaling-v0."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from scripts.experiments.machine import peak_memory_bytes

WEEK, DAY = "scaling-week", "scaling-tenth"
"""Scenarios that are measured."""


@dataclass(frozen=True)
class Week:
    """A week of requests with autoscaling, in one process.

    Attributes:
        scenario: Its name.
        strategy: What scales.
        requests: Requests of the week.
        instances: Places for instances.
        drawn_s: Seconds to draw the requests and lay out the simulation.
        run_s: Seconds to run it, decisions of the strategy included.
        decisions: Decisions of the strategy.
        instance_hours: Instance-hours paid, as a check on what was run.
        peak_memory_bytes: Most resident memory of the process, Python and all packages included.
    """

    scenario: str
    strategy: str
    requests: int
    instances: int
    drawn_s: float
    run_s: float
    decisions: int
    instance_hours: float
    peak_memory_bytes: int

    def data(self) -> dict[str, Any]:
        """All fields and rates, as plain data."""
        return asdict(self) | {
            "requests_per_s": self.requests / self.run_s,
            "whole_s": self.drawn_s + self.run_s,
        }


def week_speed(scale: float | None = None, seed: int = 0, strategy: str = "reactive") -> Week:
    """Run the week of 10 million requests in 3 regions with 4 models and 240 places.

    Args:
        scale: Factor on the rates, instead of the scenario's 1.
        seed: Seed of the requests.
        strategy: One of `baselines.scaling.strategies` that does not plan.
    """
    from baselines.scaling.strategies.catalogue import strategy as find
    from baselines.scaling.strategies.setting import setting_of
    from envs.scaling.build import episode
    from envs.scaling.control import control
    from envs.scenarios import load_scenario

    _compile(seed)
    changes = {} if scale is None else {"workload": {"scale": scale}}
    scenario = load_scenario(WEEK, changes)
    start = time.perf_counter()
    built = episode(scenario, seed)
    drawn = time.perf_counter() - start
    controller = find(strategy)
    setting = setting_of(scenario, built, built.demand.until(0.0), seed)
    ticks = 0

    def count(seconds: float) -> None:
        nonlocal ticks
        ticks += 1

    start = time.perf_counter()
    control(built.fleet, controller, setting, built.demand, count)
    run = time.perf_counter() - start
    return Week(
        scenario.name,
        strategy,
        len(built.table),
        len(built.fleet.places),
        drawn,
        run,
        ticks,
        built.fleet.totals()["instance_hours"],
        peak_memory_bytes(),
    )


def scaling_env_speed(
    copies: int = 8, rounds: int = 3, seed: int = 0, scenario: str = DAY
) -> dict[str, Any]:
    """Steps of Scaling-v0 a second, single and of many copies, resets included.

    Actions change nothing. The simulated requests behind them are told as well.

    Args:
        copies: Copies of the vector environment.
        rounds: Rounds; each is a day of the single environment, and of each copy.
        seed: Seed of the episodes.
        scenario: Scenario with episodes of a day.
    """
    import numpy as np

    from envs.scaling.env import ScalingEnv
    from envs.scaling.vector import ScalingVectorEnv

    env = ScalingEnv(scenario)
    single, requests, resets = [], [], []
    env.reset(seed=seed)
    env.step(env.no_change())  # compiles, untimed
    for number in range(rounds):
        start = time.perf_counter()
        env.reset(seed=seed + number)
        resets.append(time.perf_counter() - start)
        over, steps = False, 0
        while not over:
            _, _, terminated, truncated, info = env.step(env.no_change())
            over, steps = terminated or truncated, steps + 1
        seconds = time.perf_counter() - start
        single.append(steps / seconds)
        requests.append(info["episode_metrics"]["arrived"] / seconds)
    envs = ScalingVectorEnv(copies, scenario=scenario, autoreset_mode="SameStep", copy=False)
    envs.reset(seed=seed)
    actions = np.tile(envs.task.no_change(), (copies, 1))
    envs.step(actions)
    many = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            envs.step(actions)
        many.append(copies * steps / (time.perf_counter() - start))
    envs.close()
    return {
        "scenario": scenario,
        "epochs": steps,
        "copies": copies,
        "steps_per_s": statistics.median(single),
        "requests_per_s": statistics.median(requests),
        "reset_s": statistics.median(resets),
        "vector_steps_per_s": statistics.median(many),
    }


def _compile(seed: int) -> None:
    """Compile what the week runs, on a few minutes of it."""
    from envs.scaling.build import episode
    from envs.scenarios import load_scenario

    small = load_scenario(DAY, {"workload": {"duration_s": 900.0}})
    fleet = episode(small, seed, bin_s=300.0).fleet
    fleet.scale_out(0, 0, 0)
    fleet.scale_in(0, 0, 0)
    fleet.look()
    fleet.run_to(900.0)
