"""The one error that reading or building a scenario can raise, and what its message holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

_MAPPING = "must be a mapping of keys to values"
_PLAIN = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "list_type": "must be a list",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "too_short": "must have at least one entry",
}
"""Faults of which pydantic speaks in terms of Python."""


class ScenarioError(ValueError):
    """A scenario or fleet cannot be used; the message names the file, the key and the mend."""

    def __init__(self, source: str, problem: str, key: Sequence[str | int] = ()) -> None:
        """Compose the message.

        Args:
            source: File or preset name.
            problem: What is wrong and what to do about it.
            key: Path of the key inside the file, outermost first.
        """
        self.source, self.problem, self.key = source, problem, tuple(key)
        place = ".".join(str(part) for part in key)
        super().__init__(": ".join(part for part in (source, place, problem) if part))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the parts when the error crosses a process boundary."""
        return ScenarioError, (self.source, self.problem, self.key)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Close matches of `name` as a sentence, or all of `known` where nothing is close."""
    names = sorted(map(str, known))
    text = name if isinstance(name, str) else shown(name)
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"


def shown(value: object) -> str:
    """A value as it stands in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4,300 digits
        return "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def from_validation(error: ValidationError, source: str, data: object) -> ScenarioError:
    """Turn pydantic's list of faults into one error that starts at the first fault.

    Args:
        error: What pydantic raised.
        source: File or preset name.
        data: What was validated; tells real keys from the union tags in pydantic's paths.
    """
    faults = error.errors(include_url=False)
    first = faults[0]
    keys = _keys(first["loc"], data)
    if keys[-1:] == ["[key]"]:
        # pydantic's way to say that the name itself, not its value, is wrong
        keys.pop()
        message = f"a name must be text: write it in quotes, '{shown(first['input'])}'"
    else:
        if first["type"] == "union_tag_invalid":
            keys.append("kind")
        message = _message(first, keys)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ScenarioError(source, message + more, keys)


def _message(fault: Any, keys: Sequence[str | int]) -> str:
    """A fault of pydantic's in plain words."""
    kind, given = fault["type"], fault["input"]
    if kind == "missing":
        return "this key is required"
    if kind == "union_tag_not_found":
        return "the key kind is required"
    if kind == "union_tag_invalid":
        known = [name.strip("'") for name in fault["ctx"]["expected_tags"].split(", ")]
        return (
            f"there is no kind {shown(fault['ctx']['tag'])}; {did_you_mean(given['kind'], known)}"
        )
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "value_error":
        return message
    message = _PLAIN.get(kind, message)
    if isinstance(given, str | int | float | bool | None):
        message += f", not {shown(given)}"
    if kind == "literal_error" and keys[-1] == "queue":
        message += "; schedulers with tenant counters are given with --queue"
    return message


def _keys(location: tuple[str | int, ...], data: object) -> list[str | int]:
    """Drop the tags of discriminated unions, which are no keys of the file."""
    keys: list[str | int] = []
    for part in location:
        if isinstance(data, dict) and part not in data and data.get("kind") == part:
            continue
        keys.append(part)
        data = data.get(part) if isinstance(data, dict) else None
    return keys
