"""Measurements of speed: replay, environment steps, and start, each as a median of rounds."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        per_s: Requests per second of wall time in every round, kernel alone.
        per_cpu_s: The same per second of processor time, which other work disturbs less.
    """

    instances: int
    load: str
    requests: int
    per_s: tuple[float, ...]
    per_cpu_s: tuple[float, ...]

    @property
    def median_per_s(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.per_s)

    @property
    def median_per_cpu_s(self) -> float:
        """Median of the rounds, per second of processor time."""
        return statistics.median(self.per_cpu_s)


def replay_speed(
    instances: int, load: str, requests: int, rounds: int = 5, seed: int = 0
) -> Replay:
    """Replay the router paper's request mix with join-the-shortest-queue.

    Args:
        instances: V100 instances of Llama-2-7B.
        load: A key of `LOADS`.
        requests: Requests of one round.
        rounds: Rounds; the first call also compiles, untimed.
        seed: Seed of the workload.
    """
    from envs.scenarios import load_fleet
    from envs.simulator import Simulation
    from envs.workloads import router_mix
    from scripts.experiments.contenders import find_router

    fleet = load_fleet("v100-llama2-7b-x4", {"groups": {"v100": {"count": instances}}}).engines()
    table = router_mix(requests, LOADS[load] * instances, seed).with_predictions(seed=seed)
    router = find_router("jsq", {})
    Simulation(table[: min(requests, 100)], fleet).run(router)
    wall, cpu = [], []
    for _ in range(rounds):
        simulation = Simulation(table, fleet)
        start, cpu_start = time.perf_counter(), time.thread_time()
        simulation.run(router)
        wall.append(requests / (time.perf_counter() - start))
        cpu.append(requests / (time.thread_time() - cpu_start))
    return Replay(instances, load, requests, tuple(wall), tuple(cpu))


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
