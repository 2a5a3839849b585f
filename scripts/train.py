"""Train a routing policy by reinforcement learning (PPO with action masks)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import tyro

from envs.routing.layout import RewardMode
from scripts.common import CommonArgs, show, table

if TYPE_CHECKING:
    from agents.runs import Run
    from agents.settings import RunConfig
    from agents.training import Outcome

EXAMPLE = """servegym train routing
  servegym train routing --scenario router-kv4k-rate8 --steps 1000000 --seed 1 -o runs/kv4k
  servegym train routing --resume runs/kv4k --steps 2000000
  tensorboard --logdir runs/kv4k/tensorboard"""

FOLDER = Path("runs/train-routing")
_QUICK = {
    "steps": 20_000,
    "n_steps": 128,
    "batch_size": 1_024,
    "validate_every": 10_000,
    "validation_episodes": 2,
}
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(CommonArgs):
    """Options of `servegym train routing`."""

    scenario: str | None = None
    """Preset or YAML file to train on; router-kv6k-rate9 unless given."""
    steps: int | None = None
    """Decisions of all copies of the environment together, earlier ones of a resumed run
    included, rounded up to whole updates (32 copies of 1,024 decisions unless changed)."""
    quick: bool = False
    """A short run (20,000 steps), to see that everything works."""
    seed: int | None = None
    """Seed of initial weights, sampling and training episodes; 0 unless given."""
    reward: RewardMode | None = None
    """What to maximise, latency unless given; docs/metrics.md defines them. workload_guided is the
    paper's guided reward, not its whole algorithm: the learner discounts by time, as always, and
    does not follow the guided discount; and the guidance decays with the episodes of each
    environment copy on its own."""
    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the hyper-parameters' own."""
    n_envs: int | None = None
    """Copies of the environment."""
    hyperparameters: Path | None = None
    """YAML file of values that replace those of agents/hyperparameters/routing.yaml."""
    resume: Path | None = None
    """Run to go on with, from its last checkpoint; of the other options only --steps goes with
    it."""


def main(args: Args) -> int:
    """Run the command."""
    from agents.training import train
    from scripts.experiments.machine import command_line, machine
    from scripts.experiments.progress import progress, say

    config, run, done = _prepare(args)
    values = config.hyperparameters
    update = values.n_envs * values.n_steps
    total = done + -(-(values.steps - done) // update) * update
    say(f"{config.scenario.name}: {done} of {total} steps done; files in {run.folder}")
    about = {"command": command_line(), "machine": machine()}
    with _asked_to_stop() as stop, progress("training", total, done) as advance:
        outcome = train(
            config,
            run,
            resume=args.resume is not None,
            about=about,
            advance=advance,
            should_stop=stop.is_set,
        )
    if outcome.interrupted:
        say(
            f"stopped: what was learned from {outcome.steps} steps is kept; go on with: "
            f"servegym train routing --resume {outcome.folder}"
        )
        return _INTERRUPTED
    data = {
        "folder": outcome.folder,
        "steps": outcome.steps,
        "best_steps": outcome.best_steps,
        "validation_e2e_mean_s": outcome.validation_s,
    }
    show(args, data, _text(outcome, config))
    return 0


def _prepare(args: Args) -> tuple[RunConfig, Run, int]:
    """The configuration, its run, and the steps done before."""
    from agents.runs import Run

    if args.resume is None:
        config = _config(args)
        return config, Run.create(args.output or FOLDER, config), 0
    fixed = ("scenario", "seed", "reward", "queue_order", "n_envs", "hyperparameters", "output")
    given = [name for name in fixed if getattr(args, name) is not None]
    if given or args.quick:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given or ["quick"])
        raise ValueError(f"--resume keeps the settings of the run: leave out {names}")
    run = Run.open(args.resume)
    config, done = run.config(), int(run.last_checkpoint().name)
    if args.steps is not None:
        if args.steps <= done:
            raise ValueError(f"--steps {args.steps}: the run has done {done}, ask for more")
        longer = config.hyperparameters.model_copy(update={"steps": args.steps})
        config = config.model_copy(update={"hyperparameters": longer})
        run.write_config(config)
    return config, run, done


def _config(args: Args) -> RunConfig:
    for name in ("steps", "n_envs"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    from agents.settings import ROUTING, RunConfig, load_hyperparameters, validated
    from envs.scenarios import load_scenario

    names = ("steps", "n_envs", "queue_order")
    changes: dict[str, Any] = _QUICK if args.quick else {}
    changes = changes | {k: v for k in names if (v := getattr(args, k)) is not None}
    values = load_hyperparameters(ROUTING, args.hyperparameters, changes)
    fields = {
        "seed": 0 if args.seed is None else args.seed,
        "reward": args.reward or "latency",
        "scenario": load_scenario(args.scenario or "router-kv6k-rate9"),
        "hyperparameters": values,
    }
    config = validated(RunConfig, fields, "command line")
    assert isinstance(config, RunConfig)
    return config


def _text(outcome: Outcome, config: RunConfig) -> str:
    from scripts.experiments.metrics import number

    episodes = config.hyperparameters.validation_episodes
    rows = [["policy", "mean end to end (s)"]]
    for name, value in outcome.validation_s.items():
        steps = {"final": outcome.steps, "best": outcome.best_steps}.get(name)
        rows.append([name if steps is None else f"{name}, {steps} steps", number(value)])
    return (
        f"{outcome.steps} steps; on {episodes} validation episodes of {config.scenario.name}:\n\n"
        f"{table(rows)}\n\n"
        f"curves: tensorboard --logdir {outcome.folder}/tensorboard\n"
        f"compare on episodes of its own: servegym benchmark routing "
        f"--scenarios {config.scenario.name} --agent {outcome.folder}"
    )


@contextmanager
def _asked_to_stop() -> Iterator[Event]:
    """An event that Ctrl-C or a termination sets; a second one interrupts as usual."""
    stop = Event()
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: object) -> None:
        stop.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, ask)
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
