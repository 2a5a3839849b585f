"""Measure the speed of replay, environment steps and start on this machine.

Each replay runs in a process of its own, whose peak memory is told. Costs are told per request as
fleets and workloads grow, and for two processes at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show

EXAMPLE = """servegym benchmark speed
  servegym benchmark speed --quick
  servegym benchmark speed --parts replay --requests 1000000 -o speed.json"""

FILE = Path("runs/benchmark-speed.json")
QUICK_FILE = Path("runs/benchmark-speed-quick.json")
"""Another one, so that a look never replaces a measurement."""
Part = Literal["replay", "growth", "together", "vector", "env", "scaling", "week", "start"]
INSTANCES = (1, 4, 20, 64, 240)
_QUICK_INSTANCES = (1, 4, 64)
_GROWN = (4, 64)
"""Fleets on which longer and longer workloads are measured."""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark speed`."""

    parts: Annotated[tuple[Part, ...], tyro.conf.arg(metavar="PART ...")] = (
        "replay",
        "growth",
        "together",
        "vector",
        "env",
    )
    """What to measure: `replay` by fleet and load, one core; its `growth` with the number of
    requests; two processes `together`; the `vector` environment; the routing `env` beside
    CartPole-v1; the `scaling` environment on a day at a tenth of the load; a `week` of 10 million
    requests with autoscaling (half a minute, 2 GiB); `start` of a fresh Python up to the first
    step, without and with compiled code (some minutes). The last three only when named."""
    requests: int = 200_000
    """Requests of a replay."""
    rounds: int = 3
    """Rounds of each measurement; the median counts."""
    seconds: float = 1.0
    """Length of one round of environment steps."""
    quick: bool = False
    """Smaller fleets, a tenth of the requests, one round: a look, not a measurement."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import command_line, machine, now, versions
    from scripts.experiments.progress import progress
    from scripts.experiments.speed_text import speed_text

    for name in ("requests", "rounds", "seconds"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name} must be more than 0, not {getattr(args, name)}")
    if args.quick:
        requests, seconds = max(1, args.requests // 10), args.seconds / 5
        args = replace(args, requests=requests, rounds=1, seconds=seconds)
    about = {"command": command_line(), "date": now(), "versions": versions()}
    data: dict[str, Any] = about | {"machine": machine(), "quick": args.quick}
    jobs = _jobs(args, data)
    with progress("measured", len(jobs)) as advance:
        for job in jobs:
            job()
            advance(1)
    data["load_average_at_end"] = machine()["load_average_1min"]
    usual = QUICK_FILE if args.quick else FILE
    file = args.output or usual
    if not file.suffix:
        file = file / usual.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2), encoding="utf-8")
    show(args, data | {"written": file}, f"{speed_text(data)}\nwritten: {file}")
    return 0


def _jobs(args: Args, data: dict[str, Any]) -> list[Callable[[], None]]:
    """The measurements, each of which leaves its figures in `data`."""
    from scripts.experiments.children import at_once, in_child
    from scripts.experiments.scaling_speed import scaling_env_speed, week_speed
    from scripts.experiments.speed import (
        LOADS,
        env_speed,
        replay_speed,
        start_times,
        vector_speed,
    )

    jobs: list[Callable[[], None]] = []

    def replayed(part: str, instances: int, load: str, requests: int) -> Callable[[], None]:
        def run() -> None:
            options = instances, load, requests, args.rounds, args.seed
            data[part].append(in_child(replay_speed, *options).data())

        return run

    if "replay" in args.parts:
        data["replay"] = []
        for instances in _QUICK_INSTANCES if args.quick else INSTANCES:
            for load in LOADS:
                jobs.append(replayed("replay", instances, load, args.requests))
    if "growth" in args.parts:
        data["growth"] = []
        for instances in _GROWN:
            for requests in (max(1, args.requests // 4), args.requests, 4 * args.requests):
                jobs.append(replayed("growth", instances, "light", requests))
    if "together" in args.parts:

        def together() -> None:
            options = 4, "light", args.requests, args.rounds, args.seed
            data["together"] = [found.data() for found in at_once(2, replay_speed, *options)]

        jobs.append(together)
    if "vector" in args.parts:

        def vector() -> None:
            steps = max(1, round(1000 * min(args.seconds, 1.0)))
            found = in_child(vector_speed, 64, args.rounds, steps, args.seed)
            data["vector"] = found.data()

        jobs.append(vector)
    if "env" in args.parts:
        jobs.append(
            lambda: data.update(env=in_child(env_speed, args.seconds, args.rounds, args.seed))
        )
    if "scaling" in args.parts:
        jobs.append(lambda: data.update(scaling=in_child(scaling_env_speed, 8, args.rounds)))
    if "week" in args.parts:
        scale = 0.05 if args.quick else None
        jobs.append(lambda: data.update(week=in_child(week_speed, scale, args.seed).data()))
    if "start" in args.parts:
        jobs.append(lambda: data.update(start=start_times()))
    return jobs


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
