"""Telling how far a long command is: a bar on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 5.0


def say(text: str) -> None:
    """Print a line for people; results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` things are done; yields the function that counts more of them."""
    if sys.stderr.isatty():
        with _bar(title, total, done) as shown:
            yield shown
        return
    start = last = time.monotonic()
    count = done

    def advance(more: int) -> None:
        nonlocal count, last
        count += more
        now = time.monotonic()
        if now - last >= _EVERY_S or count == total:
            last = now
            left = (now - start) / max(count - done, 1) * (total - count)
            say(f"{title}: {count} of {total}, {left:.0f} s left")

    yield advance


@contextmanager
def pace(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """As `progress` for many small things: with how many are done a second; `total` may be open."""
    if sys.stderr.isatty():
        with _fast_bar(title, total) as shown:
            yield shown
        return
    start = last = time.monotonic()
    count = 0

    def advance(more: int) -> None:
        nonlocal count, last
        count += more
        now = time.monotonic()
        if now - last >= _EVERY_S:
            last = now
            whole = f" of {total:,}" if total is not None else ""
            say(f"{title}: {count:,}{whole}, {count / (now - start):,.0f} a second")

    yield advance


@contextmanager
def _fast_bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    start, count = time.monotonic(), 0
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=total, speed="")

        def advance(more: int) -> None:
            nonlocal count
            count += more
            speed = count / max(time.monotonic() - start, 1e-9)
            shown.update(task, advance=more, speed=f"{speed:,.0f} a second")

        yield advance


@contextmanager
def _bar(title: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(title, total=total, completed=done)
        yield lambda more: shown.advance(task, more)
