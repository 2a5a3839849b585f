"""From the words of a command line to the module of a command; nothing heavy is loaded before.

A command is one module with a dataclass `Args` (a docstring under each field is its help), a
function `main(args) -> int`, and a string `EXAMPLE`, plus one line in `COMMANDS`.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

COMMANDS: dict[str, tuple[str, str]] = {
    "simulate": ("scripts.simulate", "serve a trace or a scenario once with one router"),
    "replay": ("scripts.replay", "serve a stream of any length in bounded memory"),
    "benchmark routing": ("scripts.benchmark_routing", "compare routing policies"),
    "benchmark throttling": (
        "scripts.benchmark_throttling",
        "compare ways to share an overloaded service",
    ),
    "benchmark scaling": (
        "scripts.benchmark_scaling",
        "compare scaling strategies, or audit SageServe",
    ),
    "benchmark forecast": ("scripts.benchmark_forecast", "compare forecasters of demand"),
    "train routing": ("scripts.train", "train a routing policy by reinforcement learning"),
    "train throttling": (
        "scripts.train_throttling",
        "train a throttling policy by reinforcement learning",
    ),
    "train scaling": (
        "scripts.train_scaling",
        "train a scaling policy by reinforcement learning",
    ),
    "train-predictor": (
        "scripts.train_predictor",
        "train a predictor of the length of an answer",
    ),
    "evaluate-predictor": (
        "scripts.evaluate_predictor",
        "evaluate such predictors, each beside the majority",
    ),
    "benchmark speed": ("scripts.benchmark_speed", "measure the speed on this machine"),
    "benchmark ilp": (
        "scripts.benchmark_ilp",
        "measure how long the integer program of scaling takes",
    ),
    "validate": ("scripts.validate", "hold the simulator against measurements of real engines"),
    "fit-cost-model": ("scripts.fit_cost_model", "fit the GPU cost models to measurements"),
    "profile-gpu": ("scripts.profile_gpu", "time a model's steps on a GPU, for a cost model"),
    "catalogue": ("scripts.catalogue", "list what can be named: routers, GPUs, models, ..."),
    "scenarios": ("scripts.scenarios", "list the preset scenarios, or show one"),
    "trace": ("scripts.trace", "describe a trace, or convert it to a request table"),
}
"""Module and summary of every command; a space in a name makes a group."""

_OURS = {"envs", "agents", "predictors", "baselines", "scripts"}
_WRONG_USE, _INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The words after `servegym`; without it, those of this process.

    Returns:
        Exit status: 0 done, 2 wrong use or bad input, 130 interrupted, else the command's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = _command(words)
    if name is None:
        return _without_command(words)
    try:
        with _warnings_in_one_line():
            return _run(name, words[len(name.split()) :])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough; Python must not fail again as it closes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError) as error:
        if "--debug" in words or not _is_told_by_us(error):
            raise
        print(f"servegym {name}: {_one_line(error)}", file=sys.stderr)
        return _WRONG_USE


def _run(name: str, words: list[str]) -> int:
    import tyro

    module: Any = importlib.import_module(COMMANDS[name][0])
    try:
        args = tyro.cli(
            module.Args,
            prog=f"servegym {name}",
            description=module.__doc__,
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stop:
        if not stop.code:  # the help was asked for
            print(f"example:\n  {module.EXAMPLE}")
        return stop.code if isinstance(stop.code, int) else 0
    return int(module.main(args))


def _command(words: list[str]) -> str | None:
    """The longest command with which the line begins."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in COMMANDS:
            return name
    return None


def _without_command(words: list[str]) -> int:
    if words and words[0] == "--version":
        from envs.version import __version__

        print(__version__)
        return 0
    group = words[0] if words and any(c.startswith(f"{words[0]} ") for c in COMMANDS) else ""
    rest = words[1:] if group else words
    if not rest or rest[0] in {"-h", "--help"}:
        print(_overview(group))
        return 0 if rest else _WRONG_USE
    import difflib

    asked = " ".join(words[: 2 if group else 1])
    close = difflib.get_close_matches(asked, COMMANDS, n=2, cutoff=0.5)
    mend = f"did you mean {' or '.join(close)}?" if close else "servegym --help lists them"
    print(f"servegym: no command {asked!r}; {mend}", file=sys.stderr)
    return _WRONG_USE


def _overview(group: str) -> str:
    shown = {name: about for name, (_, about) in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, shown))
    lines = [
        f"usage: servegym {group + ' ' if group else ''}COMMAND [OPTIONS]",
        "",
        "Train, compare and prove control policies for LLM serving.",
        "",
        *(f"  {name:<{width}}  {about}" for name, about in shown.items()),
        "",
        "servegym COMMAND --help explains a command; servegym --version tells the version.",
        f"example:\n  servegym {next(iter(shown))} --help",
    ]
    return "\n".join(lines)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning of this project once, as a line; those of other packages as ever."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category.__module__.partition(".")[0] not in _OURS:
                usual(message, category, filename, lineno, file, line)
            elif (text := " ".join(str(message).split())) not in shown:
                shown.add(text)
                print(f"servegym: warning: {text}", file=sys.stderr)

        warnings.showwarning = show
        yield


def _is_told_by_us(error: BaseException) -> bool:
    """Whether the message was written for users: by this project, or about a file by the system.

    A ValueError from inside another package is a fault of ours, and keeps its traceback.
    """
    if isinstance(error, OSError):
        return error.filename is not None
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    return innermost.f_globals.get("__name__", "").partition(".")[0] in _OURS


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())
