"""What every benchmark does around its runs: checks scenarios, claims a folder, stops well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.experiments.cases import Case
from scripts.experiments.contenders import Contender
from scripts.experiments.machine import code_identity, command_line, machine, now, versions
from scripts.experiments.progress import say
from scripts.experiments.store import Store


def refuse_same_scenarios(given: Sequence[str], cases: Sequence[Case]) -> None:
    """Refuse scenarios of one name.

    Args:
        given: What each was called on the command line.
        cases: The scenarios.

    Raises:
        ValueError: Two have the same name.
    """
    seen: dict[str, str] = {}
    for text, case in zip(given, cases, strict=True):
        if seen.get(case.name) == text:
            raise ValueError(f"--scenarios: {text} is given twice")
        if case.name in seen:
            raise ValueError(
                f"--scenarios: {seen[case.name]} and {text} both hold `name: {case.name}`: "
                "change the key name inside one of the files"
            )
        seen[case.name] = text


def claim(
    store: Store,
    options: Mapping[str, Any],
    seeds: Sequence[int],
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    *,
    code: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write into the folder what its results are made with, or refuse it (`Store.claim`).

    Args:
        store: The folder.
        options: The options of the command; `overwrite` empties the folder first.
        seeds: Seeds of the episodes.
        cases: The scenarios.
        contenders: The policies.
        code: Fingerprint of the code; by default of what an episode depends on.
        more: What else can change a result.

    Raises:
        ValueError: The folder holds results of other settings.
    """
    from scripts.experiments.fleets import fleet_data

    about = {
        "command": command_line(),
        "date": now(),
        "machine": machine(),
        "versions": versions(),
        "options": {key: _plain(value) for key, value in options.items()},
        "seeds": list(seeds),
        "fleets": {case.name: fleet_data(case.engines()) for case in cases},
    }
    identity = {
        **(code_identity() if code is None else code),
        "requests_kept": store.keep_requests,
        **(more or {}),
        "scenarios": {case.name: case.identity() for case in cases},
        "routers": {contender.label: contender.identity() for contender in contenders},
    }
    if options.get("overwrite"):
        store.clear()
    store.claim(identity, about)


@contextmanager
def giving_up(needed: int, store: Store, *more: Store) -> Iterator[None]:
    """Leave no folder without results behind, and tell what is kept of an interrupted run.

    Args:
        needed: Number of results of the whole run, at most.
        store: The folder.
        more: Folders inside it.
    """
    stores = (*more, store)
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            kept = sum(len(list((s.folder / "requests").glob("*.parquet"))) for s in stores)
            say(
                f"interrupted: {kept} results are kept in {store.folder} (this run needs "
                f"{needed}); the same command, without --overwrite, continues"
            )
        for each in stores:
            each.give_up()
        raise


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
