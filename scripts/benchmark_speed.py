"""Measure the speed of replay, environment steps and start on this machine."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show, table

if TYPE_CHECKING:
    from scripts.experiments.speed import Replay

EXAMPLE = """servegym benchmark speed
  servegym benchmark speed --parts replay --requests 1000000 -o speed.json"""

FILE = Path("runs/benchmark-speed.json")
Part = Literal["replay", "env", "start"]
_INSTANCES = (4, 20, 64)
_FLOORS = {4: 1_500_000, 64: 400_000}
"""Requests per second that the project promises, by instances (light load)."""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark speed`."""

    parts: Annotated[tuple[Part, ...], tyro.conf.arg(metavar="PART ...")] = (
        "replay",
        "env",
        "start",
    )
    """What to measure: `replay` of requests on one core, steps of the routing `env` beside
    CartPole-v1, `start` of a fresh Python up to the first step (the slowest part)."""
    requests: int = 200_000
    """Requests of a replay."""
    rounds: int = 5
    """Rounds of each measurement; the median counts."""
    seconds: float = 1.0
    """Length of one round of environment steps."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import command_line, machine, now, versions
    from scripts.experiments.progress import say
    from scripts.experiments.speed import LOADS, env_speed, replay_speed, start_times

    for name in ("requests", "rounds", "seconds"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name} must be more than 0, not {getattr(args, name)}")
    about = {"command": command_line(), "date": now(), "versions": versions()}
    data: dict[str, Any] = about | {"machine": machine()}
    if "replay" in args.parts:
        data["replay"] = []
        for instances in _INSTANCES:
            for load in LOADS:
                say(f"replay of {args.requests} requests, {instances} instances, {load} load ...")
                found = replay_speed(instances, load, args.requests, args.rounds, args.seed)
                data["replay"].append(asdict(found) | _medians(found))
    if "env" in args.parts:
        say("steps of the routing environment and of CartPole-v1 ...")
        data["env"] = env_speed(args.seconds, args.rounds, args.seed)
    if "start" in args.parts:
        say("start without compiled code (up to some minutes) ...")
        data["start"] = start_times()
    data["load_average_at_end"] = machine()["load_average_1min"]
    file = args.output or FILE
    if not file.suffix:
        file = file / FILE.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2), encoding="utf-8")
    show(args, data | {"written": file}, f"{_text(data)}\nwritten: {file}")
    return 0


def _medians(found: Replay) -> dict[str, float]:
    return {
        "median_per_s": found.median_per_s,
        "median_per_cpu_s": found.median_per_cpu_s,
    }


def _text(data: dict[str, Any]) -> str:
    host = data["machine"]
    load, after = host["load_average_1min"], data["load_average_at_end"]
    lines = [
        f"{host['processor']}, {host['cpus']} CPUs; load average {load} before, {after} after: "
        "other work on the machine lowers every figure"
    ]
    rows = [["measured", "median", "rounds", "per CPU s", "floor"]]
    for r in data.get("replay", []):
        floor = _FLOORS.get(r["instances"]) if r["load"] == "light" else None
        rows.append(
            [
                f"replay, {r['instances']} instances, {r['load']} load",
                f"{r['median_per_s'] / 1e6:.2f} M requests/s",
                f"{min(r['per_s']) / 1e6:.2f} to {max(r['per_s']) / 1e6:.2f}",
                f"{r['median_per_cpu_s'] / 1e6:.2f}",
                f"{floor / 1e6:.1f}" if floor else "",
            ]
        )
    if env := data.get("env"):
        rows.append(["Routing-v0", f"{env['routing_steps_per_s']:,.0f} steps/s", "", "", ""])
        rows.append(["CartPole-v1", f"{env['cartpole_steps_per_s']:,.0f} steps/s", "", "", ""])
        rows.append(["Routing-v0 / CartPole-v1", f"{env['ratio']:.2f}", "", "", "0.50"])
    if start := data.get("start"):
        rows.append(["first step, nothing compiled", f"{start['cold_s']:.1f} s", "", "", "60 s"])
        rows.append(["first step, compiled before", f"{start['warm_s']:.1f} s", "", "", "5 s"])
    return "\n".join([*lines, table(rows)])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
