"""From a file or a scenario to examples to train on, to choose by, and to test with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from envs.scenarios import Scenario, seeds
from envs.scenarios.seeds import Purpose
from envs.workloads import RequestTable, TraceError, read_trace
from envs.workloads.prompts import (
    PARTS,
    SHARES,
    Grouping,
    Part,
    has_prompts,
    read_prompts,
    split,
)
from predictors.response_length.examples import Examples, Texts
from predictors.response_length.settings import DataNote

EPISODES: dict[Part, int] = {"train": 10, "validation": 2, "test": 4}
"""Episodes of a scenario that are drawn for each part, with the seeds of that purpose."""

Parts = dict[Part, Examples]


def read_examples(
    path: Path,
    *,
    grouping: Grouping = "related",
    split_seed: int = 0,
    most_per_task: int | None = None,
    left_out: str | None = None,
) -> tuple[Parts, DataNote]:
    """Examples of a file.

    Prompts are split by what belongs together (`envs.workloads.prompts.split`). A trace has no
    prompts, and is split by time: what is tested comes last.

    Args:
        path: File of prompts (`read_prompts`) or a trace of any format that `read_trace` tells.
        grouping: Which prompts belong together.
        split_seed: Seed of the split.
        most_per_task: Take at most so many rows of a task.
        left_out: Task that is kept out of training and validation; the test part is it alone.

    Raises:
        TraceError: The file cannot be read.
        ValueError: The options do not fit the file.
    """
    digest = _sha256(path)
    note = DataNote(name=path.name, sha256=digest, most_per_task=most_per_task, left_out=left_out)
    if not has_prompts(path):
        if most_per_task is not None or left_out is not None:
            raise ValueError(f"{path} is a trace: it has no tasks to thin or to leave out")
        return _counted(_by_time(read_trace(path)), note)
    prompts = read_prompts(path)
    places = split(prompts, grouping, split_seed, most_per_task)
    parts = {part: Examples.from_prompts(prompts.take(rows)) for part, rows in places.items()}
    if left_out is not None:
        parts = _without(parts, left_out)
    note = note.model_copy(update={"grouping": grouping, "split_seed": split_seed})
    return _counted(parts, note)


def draw_examples(scenario: Scenario) -> tuple[Parts, DataNote]:
    """Examples of a scenario, drawn anew for each part with seeds of its own purpose.

    Raises:
        ScenarioError: The scenario cannot be built.
        ValueError: It serves a recorded trace, which is the same for all parts.
    """
    if scenario.workload.kind == "trace":
        raise ValueError(f"{scenario.name} serves a trace: give its file with --data")
    parts: Parts = {}
    for part, purpose in _PURPOSES.items():
        tables = [scenario.requests(seed) for seed in seeds(purpose, EPISODES[part])]
        drawn = [Examples.from_table(table, texts_of_requests(scenario, table)) for table in tables]
        parts[part] = Examples.joined(drawn)
    return _counted(parts, note_of(scenario))


def refuse_leaks(name: str, own: DataNote, note: DataNote) -> None:
    """See that what is tested was not trained on.

    Args:
        name: Of the predictor.
        own: What it was trained on.
        note: What it is tested on.

    Raises:
        ValueError: It is the same file, split in another way.
    """
    if not note.sha256 or own.sha256 != note.sha256:
        return
    for key, flag in {"grouping": "split", "split_seed": "split-seed"}.items():
        mine, asked = getattr(own, key), getattr(note, key)
        if mine != asked:
            raise ValueError(
                f"{name} was trained on {note.name} with --{flag} {mine}, and some rows tested "
                f"here with {asked} may be among those: split as it was"
            )


def note_of(scenario: Scenario) -> DataNote:
    """What a scenario with prompts draws from; of another, only its name."""
    workload = scenario.workload
    if workload.kind != "prompts":
        return DataNote(name=scenario.name)
    return DataNote(
        name=Path(workload.path).name,
        sha256=_sha256(Path(workload.path)),
        grouping=workload.split,
        split_seed=workload.split_seed,
        most_per_task=workload.max_per_task,
    )


def texts_of_requests(scenario: Scenario, table: RequestTable) -> Texts | None:
    """(n,) prompts of requests that a scenario drew, None where it has none."""
    workload = scenario.workload
    return workload.texts(table) if workload.kind == "prompts" else None


_PURPOSES: dict[Part, Purpose] = {
    "train": "train",
    "validation": "validation",
    "test": "evaluation",
}


def _by_time(table: RequestTable) -> Parts:
    whole, start = Examples.from_table(table), 0
    parts: Parts = {}
    for part in PARTS:
        stop = len(whole) if part == PARTS[-1] else start + round(SHARES[part] * len(whole))
        if stop <= start:
            raise ValueError(f"{len(whole)} requests are too few to learn from")
        parts[part] = whole.take(slice(start, stop))
        start = stop
    return parts


def _without(parts: Parts, task: str) -> Parts:
    known = {name for examples in parts.values() for name in examples.application}
    if task not in known:
        raise ValueError(f"no task {task!r}; there are: {', '.join(sorted(known))}")
    found = {
        part: examples.take(np.flatnonzero(examples.application != task))
        for part, examples in parts.items()
    }
    of_task = [part.take(np.flatnonzero(part.application == task)) for part in parts.values()]
    return found | {"test": Examples.joined(of_task)}


def _counted(parts: Parts, note: DataNote) -> tuple[Parts, DataNote]:
    for part in PARTS:
        if not len(parts[part]):
            raise ValueError(f"{note.name}: no examples are left for {part}: give more")
    counts = {"train": len(parts["train"]), "validation": len(parts["validation"])}
    return parts, note.model_copy(update=counts)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise TraceError(problem, mend="Give an existing file", path=path) from None
