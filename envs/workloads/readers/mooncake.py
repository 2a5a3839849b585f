"""Reader of Mooncake traces: JSON lines with the block hashes of each prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TraceError
from .jsonl import records

NAMES = {
    "arrival_s": "timestamp",
    "prompt_tokens": "input_length",
    "output_tokens": "output_length",
    "prefix_id": "hash_ids",
    "prefix_tokens": "hash_ids",
}
KEYS = tuple(dict.fromkeys(NAMES.values()))
BLOCK_TOKENS = 512


def parse(path: Path, data: bytes | None = None) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """Read the columns of a Mooncake trace.

    `hash_ids` names the 512-token blocks of the prompt; an id stands for the block and all before
    it, so equal ids mean equal prefixes. From them:

    * `prefix_tokens` = 512 x the number of leading blocks that an earlier request of the trace
      already had, at most the prompt: what a cache that forgets nothing would save.
    * `prefix_id` = the id of the first block, which is the same for all requests that share any
      prefix; -1 where no other request has it. A cache that keeps entries by `prefix_id` and
      credits `prefix_tokens` on a hit equals that ideal on one instance; on several it credits
      too much where relatives of a request, but not its closest one, ran on the instance.

    Returns:
        Columns of the request table, and the line (from 1) of each request.

    Raises:
        TraceError: A line is not such a JSON object.
    """
    numbers: dict[str, list[Any]] = {name: [] for name in NAMES}
    lines: list[int] = []
    seen: set[int] = set()
    families: dict[int, int] = {}
    for line, record in records(path, data):
        _require(path, line, record)
        blocks = _blocks(path, line, record)
        prompt = _whole(path, line, "input_length", record["input_length"])
        known = next((i for i, block in enumerate(blocks) if block not in seen), len(blocks))
        seen.update(blocks)
        first = blocks[0] if blocks else -1
        families[first] = families.get(first, 0) + 1
        numbers["arrival_s"].append(_time(path, line, record["timestamp"]))
        numbers["prompt_tokens"].append(prompt)
        output = _whole(path, line, "output_length", record["output_length"])
        numbers["output_tokens"].append(output)
        numbers["prefix_id"].append(first)
        numbers["prefix_tokens"].append(max(0, min(known * BLOCK_TOKENS, prompt)))
        lines.append(line)
    numbers["prefix_id"] = [
        first if families[first] > 1 and first >= 0 else -1 for first in numbers["prefix_id"]
    ]
    numbers["prefix_tokens"] = [
        tokens if first >= 0 else 0
        for first, tokens in zip(numbers["prefix_id"], numbers["prefix_tokens"], strict=True)
    ]
    columns: dict[str, Any] = {
        name: np.array(values, np.float64 if name == "arrival_s" else np.int64)
        for name, values in numbers.items()
    }
    columns["arrival_s"] /= 1e3
    return columns, np.array(lines, np.int64)


def _require(path: Path, line: int, record: dict[str, Any]) -> None:
    for name in KEYS:
        if name not in record:
            mend = "Mooncake lines have timestamp, input_length, output_length and hash_ids"
            raise TraceError("the key is missing", mend=mend, path=path, line=line, column=name)


def _blocks(path: Path, line: int, record: dict[str, Any]) -> list[int]:
    blocks = record["hash_ids"]
    if not isinstance(blocks, list) or not all(
        type(block) is int and 0 <= block < 2**63 for block in blocks
    ):
        problem, mend = "is not a list of whole numbers, 0 or more", "Correct the line"
        raise TraceError(problem, mend=mend, path=path, line=line, column="hash_ids")
    return blocks


def _whole(path: Path, line: int, name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        problem = f"the value {str(value)[:40]} is not a whole number in 0 .. 2147483647"
        raise TraceError(problem, mend="Correct the line", path=path, line=line, column=name)
    return value


def _time(path: Path, line: int, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e18:
        problem = f"the value {str(value)[:40]} is not a time in milliseconds"
        mend = "Correct the line"
        raise TraceError(problem, mend=mend, path=path, line=line, column="timestamp")
    return float(value)
