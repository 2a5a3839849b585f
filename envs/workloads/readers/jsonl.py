"""JSON lines: one JSON object a line, a request each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import TraceError
from ..files import read_text

_START = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\[\s*[\[{\]])")


def is_json(data: bytes) -> bool:
    """Whether the content starts as JSON lines or a JSON array of rows do."""
    return _START.match(data) is not None


def records(path: Path, data: bytes | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank.

    Raises:
        TraceError: As `files.read_text`; or a line is not a JSON object.
    """
    mend = "Mend or drop the line (a cut file ends like this)"
    text = read_text(path, data)
    if text.lstrip().startswith("["):
        problem = "is a JSON array, not JSON lines"
        raise TraceError(problem, mend="Write one JSON object a line", path=path)
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            record = json.loads(row)
        except (ValueError, RecursionError) as error:
            problem = f"is not JSON ({str(error)[:100]})"
            raise TraceError(problem, mend=mend, path=path, line=line) from None
        if not isinstance(record, dict):
            raise TraceError("is not a JSON object", mend=mend, path=path, line=line)
        yield line, record


def first_keys(path: Path, data: bytes) -> tuple[str, ...]:
    """Keys of the first object.

    Raises:
        TraceError: As `records`.
    """
    return tuple(next((record for _, record in records(path, data)), {}))


def read_keys(
    path: Path, data: bytes, kinds: Mapping[str, str]
) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """Values of some keys of all objects, and their lines.

    Args:
        path: The file.
        data: Its content.
        kinds: Kind by key: "time" as float64, "count" as int64, "label" as Categorical (numbers
            become text), "text" as they are (text or numbers).

    Raises:
        TraceError: As `records`; or a key is missing or holds another kind of value.
    """
    found: dict[str, list[Any]] = {key: [] for key in kinds}
    lines: list[int] = []
    for line, record in records(path, data):
        for key, kind in kinds.items():
            if key not in record:
                problem = f"the key is missing; the line has: {', '.join(record)}"
                mend = "Check the names given by columns= (--columns)"
                raise TraceError(problem[:2000], mend=mend, path=path, line=line, column=key)
            found[key].append(_value(path, line, key, kind, record[key]))
        lines.append(line)
    types = {"time": np.float64, "count": np.int64, "text": object}
    columns = {
        key: np.array(values, types[kinds[key]]) if kinds[key] in types else pd.Categorical(values)
        for key, values in found.items()
    }
    return columns, np.array(lines, np.int64)


def _value(path: Path, line: int, key: str, kind: str, value: Any) -> Any:
    number = type(value) in (int, float) and abs(value) < 1e300
    if kind == "label" and (number or isinstance(value, str)):
        return str(value)
    if kind == "text" and (number or isinstance(value, str)):
        return value
    if kind == "time" and number:
        return float(value)
    if kind == "count" and number and value == int(value):
        if -(2**63) <= value < 2**63:
            return int(value)
        problem = f"the value {str(value)[:40]} is too large"
    else:
        what = {"time": "a number", "count": "a whole number"}.get(kind, "text or a number")
        problem = f"the value {json.dumps(value)[:40]} is not {what}"
    mend = "Correct or drop the line"
    raise TraceError(problem, mend=mend, path=path, line=line, column=key)
