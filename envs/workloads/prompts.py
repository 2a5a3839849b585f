"""Prompts with the lengths of their answers: reading them, and splits through which nothing leaks.

Rows belong together where one could give away the answer of the other: equal prompts; the same
sentence, translated into several languages; and prompts that begin with the same examples. Such
groups are never divided between training, validation and test.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from .errors import TraceError

Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]
Part = Literal["train", "validation", "test"]
Grouping = Literal["related", "prompt"]

PARTS: tuple[Part, ...] = get_args(Part)
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
SHARES: dict[Part, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Shares of the rows of each task, as near as whole groups allow."""

COMMON_START = 160
"""Prompts with so many first characters in common begin with the same examples."""
_SENTENCE = re.compile(r"Source:\s*(.*?)\s*Target:\s*$", re.S)
_EXAMPLES = "\n\nQ:"
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts and their answers' lengths; all arrays have n rows and share their order.

    Attributes:
        text: (n,) the prompts.
        answer: (n,) the answers; "" where the file has only their lengths.
        task: (n,) what each is for; "" where unknown.
        source: (n,) the data set or language pair that it comes from; "" where unknown.
        prompt_tokens: (n,) int64, 1 or more.
        output_tokens: (n,) int64, tokens of the answer, 1 or more.
        row: (n,) int64, its row in the file.
    """

    text: Texts
    answer: Texts
    task: Texts
    source: Texts
    prompt_tokens: Ints
    output_tokens: Ints
    row: Ints

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.text)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Prompts:
        """Some of them, by their places here or by a mask."""
        return Prompts(**{name: values[rows] for name, values in self.__dict__.items()})


def count_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer, at least 1.

    A word of ASCII letters and digits counts one per 6 of them, rounded up; another word one per
    2 characters, rounded down but at least 1; a punctuation mark 1.
    """
    total = 0
    for word in _WORD.findall(text):
        total += -(-len(word) // 6) if word.isascii() else max(len(word) // 2, 1)
    return max(total, 1)


def read_prompts(path: str | Path) -> Prompts:
    """Read prompts: Parquet, CSV or JSON lines with the columns `prompt` and `response`.

    `task` and `source` are optional, and so are `prompt_tokens` and `response_tokens`, which
    otherwise are `count_tokens` of the texts. With `response_tokens`, no `response` is needed. An
    answer of no tokens counts one, as its end is a token, too.

    Raises:
        TraceError: The file cannot be read, lacks a column, or holds a bad value.
    """
    path = Path(path)
    frame = _frame(path)
    if not len(frame):
        raise TraceError("there are no prompts", mend="Give at least one", path=path)
    if "prompt" not in frame:
        raise TraceError(
            "the column is missing", mend="Name the texts prompt", path=path, column="prompt"
        )
    if "response" not in frame and "response_tokens" not in frame:
        mend = "Give the answers, or response_tokens"
        raise TraceError("the column is missing", mend=mend, path=path, column="response")
    columns = {name: _texts(frame, name, path) for name in ("prompt", "response", "task", "source")}
    return Prompts(
        columns["prompt"],
        columns["response"],
        columns["task"],
        columns["source"],
        _counts(frame, "prompt_tokens", "prompt", path),
        np.maximum(_counts(frame, "response_tokens", "response", path), 1),
        np.arange(len(frame), dtype=np.int64),
    )


def has_prompts(path: str | Path) -> bool:
    """Whether a file has the column `prompt`.

    Raises:
        TraceError: It cannot be read.
    """
    path = Path(path)
    if _starts_with(path, b"PAR1"):
        return "prompt" in pq.read_schema(path).names
    if path.suffix in {".jsonl", ".json"}:
        return "prompt" in _read(path, lambda: pd.read_json(path, lines=True, nrows=1)).columns
    return "prompt" in _read(path, lambda: pd.read_csv(path, nrows=0)).columns


def related(prompts: Prompts, grouping: Grouping = "related") -> Ints:
    """The group of each prompt, (n,) from 0.

    Args:
        prompts: The prompts.
        grouping: `related` joins equal prompts, translations of the same sentence (also where the
            answer to one is the sentence of another), the same question with and without
            examples, and prompts with the same examples or `COMMON_START` first characters.
            `prompt` joins equal prompts only.
    """
    joined = _Joined(len(prompts))
    plain = [_plain(text) for text in prompts.text]
    joined.same(plain)
    if grouping == "prompt":
        return joined.groups()
    sentences = [_sentence(text) for text in prompts.text]
    joined.same(sentences)
    joined.match(sentences, map(_letters, prompts.answer))
    joined.same(_examples(text) for text in prompts.text)
    joined.same(_question(text) for text in prompts.text)
    order = sorted(range(len(plain)), key=plain.__getitem__)
    for one, other in pairwise(order):
        start = plain[one][:COMMON_START]
        if len(start) == COMMON_START and plain[other].startswith(start):
            joined.join(one, other)
    return joined.groups()


def split(
    prompts: Prompts,
    grouping: Grouping = "related",
    seed: int = 0,
    most_per_task: int | None = None,
) -> dict[Part, Ints]:
    """Places of the rows of each part; no group of `related` is in two parts.

    Whole groups are dealt out, task by task and in an order drawn with the seed from their
    content, until a part has its share; so the split does not depend on the order of the rows.
    Groups that alone are a quarter of the test part are trained on, where there are enough
    others, so that the test part is of many kinds.

    Args:
        prompts: The prompts.
        grouping: What belongs together, see `related`.
        seed: Seed of the order.
        most_per_task: Keep at most so many rows of a task, each part its share of them, drawn;
            what is in which part does not depend on it.

    Raises:
        ValueError: There are fewer groups than parts.
    """
    group = related(prompts, grouping)
    names = _names(prompts, group, seed)
    if len(names) < len(PARTS):
        raise ValueError(
            f"the prompts form {len(names)} groups that belong together, and a split needs "
            f"{len(PARTS)}: give more of them, or split by prompt alone"
        )
    size = np.bincount(group)
    kinds = _kinds(prompts, group)
    part_of = np.zeros(len(size), np.int64)
    for kind in sorted(set(kinds)):
        mine = sorted((g for g in range(len(size)) if kinds[g] == kind), key=names.__getitem__)
        total, dealt = size[mine].sum(), 0
        for g in _small(mine, size):
            if dealt + size[g] / 2 < SHARES["test"] * total:
                part_of[g] = PARTS.index("test")
            elif dealt + size[g] / 2 < (SHARES["test"] + SHARES["validation"]) * total:
                part_of[g] = PARTS.index("validation")
            dealt += size[g]
    parts = {part: np.flatnonzero(part_of[group] == i) for i, part in enumerate(PARTS)}
    if most_per_task is None:
        return parts
    return {
        part: _thinned(prompts, rows, math.ceil(SHARES[part] * most_per_task), seed)
        for part, rows in parts.items()
    }


def _thinned(prompts: Prompts, rows: Ints, most: int, seed: int) -> Ints:
    """At most so many of the rows of each task."""
    rng = np.random.default_rng(seed)
    tasks = prompts.task[rows]
    kept = [rng.permutation(rows[tasks == task])[:most] for task in sorted(set(tasks))]
    return np.sort(np.concatenate(kept))


def _small(groups: list[int], size: Ints) -> list[int]:
    """The groups that may be held out."""
    total = size[groups].sum()
    small = [g for g in groups if size[g] <= SHARES["test"] * total / 4]
    held_out = SHARES["test"] + SHARES["validation"]
    return small if size[small].sum() >= held_out * total else groups


def _names(prompts: Prompts, group: Ints, seed: int) -> list[str]:
    """A name of each group by its content: the least hash of its prompts."""
    names = [""] * (int(group.max()) + 1)
    for g, text in zip(group, prompts.text, strict=True):
        name = hashlib.blake2b(f"{seed}\0{_plain(text)}".encode(), digest_size=12).hexdigest()
        if not names[g] or name < names[g]:
            names[g] = name
    return names


def _kinds(prompts: Prompts, group: Ints) -> list[str]:
    """The tasks of each group, as one text."""
    tasks: dict[int, set[str]] = defaultdict(set)
    for g, task in zip(group, prompts.task, strict=True):
        tasks[int(g)].add(task)
    return ["\0".join(sorted(tasks[g])) for g in range(len(tasks))]


class _Joined:
    """Sets of rows that are joined step by step."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def join(self, one: int, other: int) -> None:
        self._parent[self._root(other)] = self._root(one)

    def same(self, keys: Iterable[Hashable]) -> None:
        """Join rows of the same key; None has no equal."""
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, row), row)

    def match(self, keys: Iterable[Hashable], others: Iterable[Hashable]) -> None:
        """Join each row with those whose key is its other key."""
        known = {key: row for row, key in enumerate(keys) if key is not None}
        for row, other in enumerate(others):
            if other in known:
                self.join(known[other], row)

    def groups(self) -> Ints:
        roots = np.array([self._root(row) for row in range(len(self._parent))])
        _, group = np.unique(roots, return_inverse=True)
        return group.astype(np.int64)

    def _root(self, row: int) -> int:
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _sentence(text: str) -> str | None:
    """The sentence to translate, letters and digits only."""
    found = _SENTENCE.search(text)
    return None if found is None else _letters(found[1]) or None


def _letters(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


def _examples(text: str) -> str | None:
    """What stands before the last question of a prompt with examples."""
    start, mark, _ = text.rpartition(_EXAMPLES)
    return start if mark and _EXAMPLES in start else None


def _question(text: str) -> str | None:
    """The last question of a prompt with examples."""
    _, mark, question = text.rpartition(_EXAMPLES)
    return _plain(question.partition("\nA:")[0]) if mark else None


def _frame(path: Path) -> pd.DataFrame:
    if _starts_with(path, b"PAR1"):
        return _read(path, lambda: pd.read_parquet(path))
    if path.suffix in {".jsonl", ".json"}:
        return _read(path, lambda: pd.read_json(path, lines=True))
    return _read(path, lambda: pd.read_csv(path))


def _starts_with(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise TraceError(problem, mend="Give an existing file", path=path) from None


def _read(path: Path, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    try:
        return read()
    except (OSError, ValueError) as error:
        mend = "Give Parquet, CSV or JSON lines"
        raise TraceError(f"cannot be read ({error})", mend=mend, path=path) from None


def _texts(frame: pd.DataFrame, name: str, path: Path) -> Texts:
    if name not in frame:
        return np.full(len(frame), "", object)
    values = frame[name].to_numpy(object)
    for row, value in enumerate(values):
        if not isinstance(value, str):
            problem = f"row {row} (counted from 0): the value {value!r} is not text"
            raise TraceError(problem, mend="Give a text", path=path, column=name)
    return values


def _counts(frame: pd.DataFrame, name: str, text: str, path: Path) -> Ints:
    if name not in frame:
        return np.array([count_tokens(value) for value in _texts(frame, text, path)], np.int64)
    values: Sequence[object] = list(frame[name])
    for row, value in enumerate(values):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            problem = f"row {row} (counted from 0): the value {value!r} is no count of tokens"
            raise TraceError(problem, mend="Give 0 or more", path=path, column=name)
    return np.array(values, np.int64)
