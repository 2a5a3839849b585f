"""The one error that reading or building a scenario can raise, and what its message holds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from pydantic import ValidationError


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
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if first["type"] == "missing":
        message = "this key is required"
    elif first["type"] == "union_tag_not_found":
        message = "the key kind is required"
    elif first["type"] != "value_error" and isinstance(
        first["input"], str | int | float | bool | None
    ):
        message += f", not {shown(first['input'])}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return ScenarioError(source, message + more, _keys(first["loc"], data))


def _keys(location: tuple[str | int, ...], data: object) -> list[str | int]:
    """Drop the tags of discriminated unions, which are no keys of the file."""
    keys: list[str | int] = []
    for part in location:
        if isinstance(data, dict) and part not in data and data.get("kind") == part:
            continue
        keys.append(part)
        data = data.get(part) if isinstance(data, dict) else None
    return keys
