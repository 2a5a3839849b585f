"""What `servegym train` does whatever is trained: start or go on, stop well, tell the outcome."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from scripts.common import CommonArgs, show, table

if TYPE_CHECKING:
    from agents.runs import Run
    from agents.settings import RunConfig
    from agents.training import Outcome

_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class TrainArgs(CommonArgs):
    """Options of every `servegym train`."""

    steps: int | None = None
    """Decisions of all copies of the environment together, earlier ones of a resumed run
    included, rounded up to whole updates (n_envs * n_steps of the hyper-parameters)."""
    quick: bool = False
    """A short run, to see that everything works."""
    seed: int | None = None
    """Seed of initial weights, sampling and training episodes; 0 unless given."""
    n_envs: int | None = None
    """Copies of the environment."""
    hyperparameters: Path | None = None
    """YAML file of values that replace those of the file in agents/hyperparameters."""
    resume: Path | None = None
    """Run to go on with, from its last checkpoint; of the other options only --steps goes with
    it."""


def changes(args: TrainArgs, quick: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters that the options ask for.

    Args:
        args: The options.
        quick: Those of a short run.

    Raises:
        ValueError: A number is none that can be asked for.
    """
    found = dict(quick) if args.quick else {}
    for name in ("steps", "n_envs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if value is not None:
            found[name] = value
    return found


def learn(
    args: TrainArgs,
    name: str,
    folder: Path,
    configure: Callable[[], RunConfig],
    judged: str,
) -> int:
    """Train, and tell how it went.

    Args:
        args: The options.
        name: What is trained: the second word of the commands.
        folder: Where to, unless the options say.
        configure: Gives the configuration of a new run.
        judged: Heading of what policies are judged by.

    Returns:
        Exit status.
    """
    from agents.training import train
    from scripts.experiments.machine import command_line, machine
    from scripts.experiments.progress import progress, say

    config, run, done = _prepare(args, name, folder, configure)
    values = config.hyperparameters
    update = values.n_envs * values.n_steps
    total = done + -(-(values.steps - done) // update) * update
    say(f"{_trained_on(config)}: {done} of {total} steps done; files in {run.folder}")
    about = {"command": command_line(), "machine": machine()}
    with asked_to_stop() as stop, progress("training", total, done) as advance:
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
            f"servegym train {name} --resume {outcome.folder}"
        )
        return _INTERRUPTED
    data = {
        "folder": outcome.folder,
        "steps": outcome.steps,
        "best_steps": outcome.best_steps,
        f"validation_{outcome.judged}": outcome.validation,
    }
    show(args, data, _text(outcome, config, name, judged))
    return 0


def _trained_on(config: RunConfig) -> str:
    return ", ".join(scenario.name for scenario in config.trained_on)


def _prepare(
    args: TrainArgs, name: str, folder: Path, configure: Callable[[], RunConfig]
) -> tuple[RunConfig, Run, int]:
    """The configuration, its run, and the steps done before."""
    from agents.runs import Run

    if args.resume is None:
        config = configure()
        return config, Run.create(args.output or folder, config), 0
    free = {"steps", "resume", "json", "debug"}
    given = [f.name for f in fields(args) if f.name not in free and _is_given(args, f.name)]
    if given:
        names = ", ".join(f"--{one.replace('_', '-')}" for one in given)
        raise ValueError(f"--resume keeps the settings of the run: leave out {names}")
    run = Run.open(args.resume)
    config, done = run.config(), int(run.last_checkpoint().name)
    if not config.env.lower().startswith(f"servegym/{name}-"):
        raise ValueError(f"--resume {args.resume} is a run on {config.env}, not one of {name}")
    if args.steps is not None:
        if args.steps <= done:
            raise ValueError(f"--steps {args.steps}: the run has done {done}, ask for more")
        longer = config.hyperparameters.model_copy(update={"steps": args.steps})
        config = config.model_copy(update={"hyperparameters": longer})
        run.write_config(config)
    return config, run, done


def _is_given(args: TrainArgs, name: str) -> bool:
    return getattr(args, name) not in (None, False, ())


def _text(outcome: Outcome, config: RunConfig, name: str, judged: str) -> str:
    from scripts.experiments.metrics import number

    scenarios = config.trained_on
    episodes = config.hyperparameters.validation_episodes * len(scenarios)
    rows = [["policy", judged]]
    for policy, value in outcome.validation.items():
        steps = {"final": outcome.steps, "best": outcome.best_steps}.get(policy)
        rows.append([policy if steps is None else f"{policy}, {steps} steps", number(value)])
    return (
        f"{outcome.steps} steps; on {episodes} validation episodes of {_trained_on(config)}:\n\n"
        f"{table(rows)}\n\n"
        f"curves: tensorboard --logdir {outcome.folder}/tensorboard\n"
        f"compare on episodes of its own: servegym benchmark {name} "
        f"--scenarios {' '.join(s.name for s in scenarios)} --agent {outcome.folder}"
    )


@contextmanager
def asked_to_stop() -> Iterator[Event]:
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
