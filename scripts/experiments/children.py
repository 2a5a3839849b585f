"""Measurements in processes of their own, alone or several at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_ROOT = Path(__file__).resolve().parents[2]
# Imported once, by the process that the children are forked from.
_PRELOADED = ["baselines.routing", "envs.scenarios", "scripts.experiments.contenders"]
_PATIENCE_S = 600.0


def in_child(function: Callable[..., T], *args: Any) -> T:
    """Result of a function of a module, called in a fresh process.

    Raises:
        RuntimeError: It failed there.
    """
    return _finish(*_start(function, args))


def at_once(count: int, function: Callable[..., T], *args: Any) -> list[T]:
    """Results of the function in several processes, which get `ready=` to wait for one another.

    Raises:
        RuntimeError: It failed there.
    """
    barrier = _context().Barrier(count)
    ready = {"ready": _Ready(barrier)}
    return [_finish(*child) for child in [_start(function, args, ready) for _ in range(count)]]


class _Ready:
    """Waits for all at the barrier."""

    def __init__(self, barrier: Any) -> None:
        self.barrier = barrier

    def __call__(self) -> None:
        self.barrier.wait(_PATIENCE_S)


def _context() -> Any:
    # Not plain fork: a child would begin with all that its parent has had in memory.
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    # The server imports from the folder in which it begins, where others' names may lie.
    here = os.getcwd()
    os.chdir(_ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(here)
    return context


def _start(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any] | None = None
) -> tuple[Any, Connection]:
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(theirs, function, args, options or {}), daemon=True)
    child.start()
    theirs.close()
    return child, ours


def _run(
    pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    try:
        found: tuple[bool, Any] = True, function(*args, **options)
    except Exception as error:
        found = False, f"{type(error).__name__}: {error}"
    pipe.send(found)


def _finish(child: Any, pipe: Connection) -> Any:
    try:
        good, found = pipe.recv()
    except EOFError:
        good, found = False, "it ended without a result"
    child.join()
    if not good:
        raise RuntimeError(f"a measurement in a process of its own failed: {found}")
    return found
