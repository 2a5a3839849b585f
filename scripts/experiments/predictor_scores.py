"""Scores of predictors: trained ones, ones that are fitted here, and with a task left out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from envs.run_folder import RunFolder
from envs.scenarios.strict import validated
from envs.workloads.prompts import read_prompts
from predictors.response_length import (
    DEFAULTS,
    HEADINGS,
    KINDS,
    DataNote,
    Examples,
    Predictor,
    Recipe,
    RunSettings,
    Settings,
    edges_of,
    fit,
    latency_ms,
    load_predictor,
    scores,
    train,
)
from predictors.response_length.data import Parts, read_examples, refuse_leaks
from scripts.common import table
from scripts.experiments.metrics import number
from scripts.experiments.progress import say
from scripts.train_predictor import load

_TEXT_KINDS = ("tfidf", "boosting_text", "s3")
_HINTLESS = ("majority", "s3")
_ALWAYS_HINTED = ("task_mean",)
_FITTED = (*KINDS, "s3")


def evaluate(args: Any) -> list[dict[str, Any]]:
    """A row of scores for each predictor on the test part.

    Args:
        args: Options of `servegym evaluate-predictor`.

    Raises:
        ValueError: A predictor does not exist, needs prompts where there are none, or was trained
            on a part of this file that is tested here.
    """
    parts, note = load(args)
    test = parts["test"]
    names = args.predictors or [n for n in _FITTED if test.text is not None or not _reads(n)]
    edges = edges_of(args.buckets, parts["train"].truth())
    found = []
    for name, hint, make in _made(names, args, parts, note):
        start = time.perf_counter()
        predictor = make()
        seconds = time.perf_counter() - start
        say(f"{name}{'' if hint else ', no hint'}: {seconds:.0f} s")
        values = scores(predictor.predict(test), test, edges)
        values["latency_ms"] = latency_ms(predictor, test)
        found.append({"predictor": name, "hint": hint, "seconds": round(seconds, 1)} | values)
    return found


def transfer(args: Any) -> list[dict[str, Any]]:
    """A row of scores for each model and each task that it never saw.

    Args:
        args: Options of `servegym evaluate-predictor`.

    Raises:
        ValueError: A predictor is a trained one, whose tasks are what they are.
    """
    names = args.predictors or ("task_mean", "boosting", "tfidf")
    for name in names:
        if name not in (*_FITTED, "hashed"):
            raise ValueError(f"--transfer trains anew: {name} is none of {', '.join(_FITTED)}")
    rows = []
    for task in sorted(set(read_prompts(args.data).task)):
        parts, note = read_examples(
            args.data,
            grouping=args.split,
            split_seed=args.split_seed,
            most_per_task=args.max_per_task,
            left_out=task,
        )
        test = parts["test"]
        for name in names:
            start = time.perf_counter()
            hint = args.hint == "yes" and name not in _HINTLESS
            predictor = (
                _trained_here(parts, note, args)
                if name == "hashed"
                else _fit(name, hint, args, parts)
            )
            say(f"without {task}: {name}, {time.perf_counter() - start:.0f} s")
            values = scores(predictor.predict(test), test)
            rows.append({"predictor": name, "hint": hint, "task": task} | values)
    return rows


def scores_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with a column for each metric."""
    return pd.DataFrame(list(rows))


def scores_text(rows: Sequence[dict[str, Any]], by_task: bool, key: str) -> str:
    """The rows as text, best first (or, by task, task after task)."""
    order = sorted(rows, key=lambda row: row[key])
    if by_task:
        order = sorted(rows, key=lambda row: (row["task"], -row[key]))
    shown = [k for k in HEADINGS if any(k in row for row in rows)]
    head = ["task"] if by_task else []
    lines = [[*head, "predictor", "hint", *(HEADINGS[k] for k in shown)]]
    if not by_task:
        lines[0].append("s to train")
    for row in order:
        cells = [row["task"]] if by_task else []
        cells += [row["predictor"], "yes" if row["hint"] else "no"]
        cells += [_text(k, row[k]) for k in shown]
        if not by_task:
            cells.append(number(row["seconds"]))
        lines.append(cells)
    return table(lines)


_SHARES = ("bucket_accuracy", "majority_rate", "median_relative_error")


def _text(key: str, value: float) -> str:
    if key in _SHARES or key.startswith("coverage"):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if key.startswith("tau") else number(value)


def _made(
    names: Sequence[str], args: Any, parts: Parts, note: DataNote
) -> Iterator[tuple[str, bool, Any]]:
    """Each predictor by name, with and without the hint, and how it is had."""
    for name in names:
        if name in _FITTED:
            hints = {"yes": [True], "no": [False], "both": [True, False]}[args.hint]
            if name in _HINTLESS:
                hints = [False]
            elif name in _ALWAYS_HINTED:
                hints = [True]
            for hint in hints:
                yield name, hint, lambda n=name, h=hint: _fit(n, h, args, parts)
        else:
            known = load_predictor(name)
            refuse_leaks(name, known.data, note)
            yield name, known.hint, lambda k=known: k


def _reads(name: str) -> bool:
    return name in _TEXT_KINDS


def _fit(name: str, hint: bool, args: Any, parts: Parts) -> Predictor:
    if parts["train"].text is None and _reads(name):
        raise ValueError(f"{name} needs prompts, and there are none here")
    values = {"kind": "tfidf", "buckets": "s3"} if name == "s3" else {"kind": name}
    values = {"hint": hint, "seed": args.seed, "buckets": args.buckets} | values
    recipe = validated(Recipe, values, "command line")
    return fit(recipe, parts["train"], parts["validation"])


def _trained_here(parts: dict[Any, Examples], note: DataNote, args: Any) -> Predictor:
    """A small transformer, for a few epochs, in a folder that goes away."""
    values: dict[str, Any] = {**DEFAULTS["hashed"], "epochs": args.epochs, "seed": args.seed}
    config = RunSettings(settings=Settings(**values, hint=args.hint == "yes"), data=note)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.make()
        train(config, parts["train"], parts["validation"], run)
        return load_predictor(run.model())
