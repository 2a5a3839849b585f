"""Measurements of speed: replay, environment steps, and start, each as a median of rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.experiments.machine import peak_memory_bytes

_ROOT = Path(__file__).resolve().parents[2]
LOADS = {"light": 1.5, "saturated": 5.0}
"""Requests per second and instance; the fleet of the router paper completes about 2.9."""
_ROUTING = "envs:ServeGym/Routing-v0"
_FIRST_STEP = (
    f"import gymnasium; env = gymnasium.make({_ROUTING!r}); env.reset(seed=0); env.step(0)"
)


@dataclass(frozen=True)
class Replay:
    """Speed of the compiled simulator on one core.

    Attributes:
        instances: Size of the fleet.
        load: `light` or `saturated`.
        requests: Requests of one round.
        output_tokens: Output tokens of one round.
        events: Events that the kernel handled in one round.
        per_s: Requests per second of wall time in every round, kernel alone.
        per_cpu_s: The same per second of processor time, which other work disturbs less.
        peak_memory_bytes: Most resident memory of the process, Python and all packages included.
        own_memory_bytes: Of which it did not have before the measurement.
    """

    instances: int
    load: str
    requests: int
    output_tokens: int
    events: int
    per_s: tuple[float, ...]
    per_cpu_s: tuple[float, ...]
    peak_memory_bytes: int
    own_memory_bytes: int

    @property
    def median_per_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.per_s)

    @property
    def median_per_cpu_s(self) -> float:
        """Median of the rounds, per second of processor time."""
        return statistics.median(self.per_cpu_s)

    @property
    def ns_per_request(self) -> float:
        """Processor time of a request, nanoseconds, median of the rounds."""
        return 1e9 / self.median_per_cpu_s

    def data(self) -> dict[str, Any]:
        """All fields and medians, as plain data."""
        each_s = self.median_per_s / self.requests
        return asdict(self) | {
            "median_per_s": self.median_per_s,
            "median_per_cpu_s": self.median_per_cpu_s,
            "ns_per_request": self.ns_per_request,
            "output_tokens_per_s": self.output_tokens * each_s,
            "events_per_s": self.events * each_s,
        }


def replay_speed(
    instances: int,
    load: str,
    requests: int,
    rounds: int = 5,
    seed: int = 0,
    ready: Callable[[], object] = lambda: None,
) -> Replay:
    """Replay the router paper's request mix with join-the-shortest-queue.

    Args:
        instances: V100 instances of Llama-2-7B.
        load: A key of `LOADS`.
        requests: Requests of one round.
        rounds: Rounds; the first call also compiles, untimed.
        seed: Seed of the workload.
        ready: Called before each round; processes that are measured together wait here.
    """
    from envs.scenarios import load_fleet
    from envs.simulator import Simulation
    from envs.workloads import router_mix
    from scripts.experiments.contenders import find_router

    before = peak_memory_bytes()
    fleet = load_fleet("v100-llama2-7b-x4", {"groups": {"v100": {"count": instances}}}).engines()
    table = router_mix(requests, LOADS[load] * instances, seed).with_predictions(seed=seed)
    router = find_router("jsq", {})
    Simulation(table[: min(requests, 100)], fleet).run(router)
    wall, cpu, events = [], [], 0
    for _ in range(rounds):
        simulation = Simulation(table, fleet)
        ready()
        start, cpu_start = time.perf_counter(), time.thread_time()
        result = simulation.run(router)
        wall.append(requests / (time.perf_counter() - start))
        cpu.append(requests / (time.thread_time() - cpu_start))
        events = int(result.counters["events"])
        # Or two rounds would be held at once.
        del simulation, result
    peak = peak_memory_bytes()
    tokens = int(table.output_tokens.sum())
    return Replay(
        instances, load, requests, tokens, events, tuple(wall), tuple(cpu), peak, peak - before
    )


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Power of the size that costs grow with: least squares between the logarithms."""
    import numpy as np

    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def vector_speed(copies: int = 64, rounds: int = 5, steps: int = 1000, seed: int = 0) -> Vector:
    """Decisions per second of the vector environment, alone in compiled code and as a whole.

    Actions are drawn beforehand; they never hold, so that all copies end in the same step. The
    whole is `step` with its arrays, infos and the resets of ended episodes, in the step that ends
    them, an episode of each copy in a round; between resets is the same from fresh episodes of
    which none ends, and the compiled part the one call in it that steps all copies.

    Args:
        copies: Copies of the environment.
        rounds: Rounds of each.
        steps: Steps of all copies in a round, but for the whole.
        seed: Seed of episodes and actions.
    """
    import numpy as np

    from envs.routing import transition
    from envs.routing.layout import STEP_FLAGS, STEP_VALUES
    from envs.routing.vector import RoutingVectorEnv

    env = RoutingVectorEnv(copies, scenario="router-kv6k-rate9", autoreset_mode="SameStep")
    actions = np.random.default_rng(seed).integers(0, 4, (steps, copies))
    values, flags = np.empty((len(STEP_VALUES), copies)), np.empty((len(STEP_FLAGS), copies), bool)
    alone, between, whole = [], [], []
    env.reset(seed=seed)
    env.step(actions[0])  # compiles, untimed
    for number in range(rounds):
        env.reset(seed=seed + number * copies)
        over = np.zeros(copies, bool)
        start = time.perf_counter()
        for chosen in actions:
            # What `step` calls; there is no public name for a part of a step.
            transition.step_all(env._address, chosen, over, values, flags)
        alone.append(actions.size / (time.perf_counter() - start))
        env.reset(seed=seed + number * copies)
        start = time.perf_counter()
        for chosen in actions:
            env.step(chosen)
        between.append(actions.size / (time.perf_counter() - start))
    env.reset(seed=seed)
    episode = len(env._copies[0].simulation.table)  # a decision for each request
    for _ in range(rounds):
        # A whole episode, or one round would have more resets than another.
        start = time.perf_counter()
        for k in range(episode):
            env.step(actions[k % steps])
        whole.append(episode * copies / (time.perf_counter() - start))
    env.close()
    return Vector(copies, tuple(alone), tuple(between), tuple(whole))


@dataclass(frozen=True)
class Vector:
    """Decisions per second in every round.

    Attributes:
        copies: Copies of the environment.
        compiled_per_s: Of the compiled call alone.
        between_per_s: Of `step` between resets.
        step_per_s: Of `step` with resets.
    """

    copies: int
    compiled_per_s: tuple[float, ...]
    between_per_s: tuple[float, ...]
    step_per_s: tuple[float, ...]

    def data(self) -> dict[str, Any]:
        """All fields and medians, as plain data."""
        return asdict(self) | {
            "median_compiled_per_s": statistics.median(self.compiled_per_s),
            "median_between_per_s": statistics.median(self.between_per_s),
            "median_step_per_s": statistics.median(self.step_per_s),
        }


def env_speed(seconds: float = 1.0, rounds: int = 5, seed: int = 0) -> dict[str, Any]:
    """Steps per second of the routing environment beside CartPole-v1, in turns.

    Both take fixed actions and are reset at every end, inside the timing. The turns alternate, so
    that a change of the machine's load meets both.
    """
    import gymnasium

    pairs = [(_ROUTING, 4), ("CartPole-v1", 2)]
    envs = [(gymnasium.make(name), actions) for name, actions in pairs]
    speeds: list[list[float]] = [[], []]
    for env, actions in envs:
        _steps_per_s(env, actions, 0.1, seed)
    for _ in range(rounds):
        for (env, actions), found in zip(envs, speeds, strict=True):
            found.append(_steps_per_s(env, actions, seconds, seed))
    for env, _ in envs:
        env.close()
    ours, theirs = (statistics.median(found) for found in speeds)
    ratio = statistics.median(a / b for a, b in zip(*speeds, strict=True))
    return {"routing_steps_per_s": ours, "cartpole_steps_per_s": theirs, "ratio": ratio}


def _steps_per_s(env: Any, actions: int, seconds: float, seed: int) -> float:
    env.reset(seed=seed)
    steps, start = 0, time.perf_counter()
    while True:
        for _ in range(200):
            _, _, terminated, truncated, _ = env.step(steps % actions)
            steps += 1
            if terminated or truncated:
                env.reset()
        passed = time.perf_counter() - start
        if passed >= seconds:
            return steps / passed


def start_times() -> dict[str, float]:
    """Seconds from the start of Python to the first step: without, then with compiled code."""
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
        return {"cold_s": _first_step_s(env), "warm_s": _first_step_s(env)}


def _first_step_s(env: dict[str, str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _FIRST_STEP], cwd=_ROOT, env=env, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"a fresh Python could not step the routing environment: {last[0]}")
    return seconds
