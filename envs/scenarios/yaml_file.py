"""Reading of one YAML file, in which a key may stand only once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from envs.scenarios.errors import ScenarioError, shown

MOST_VALUES = 100_000
"""Keys and values of a file at most, those behind an alias counted each time."""


class _Loader(yaml.SafeLoader):
    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _expanded(node, {})
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        # PyYAML itself lets the last of equal keys win, without a word. Here, since merge keys
        # (<<) add to the pairs later, which may repeat a key.
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {shown(key.value)} stands twice"
                    raise ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # fails for a number too long to write, which hex digits can make
            return value
        except (ValueError, LookupError, AttributeError, TypeError):
            # PyYAML lets these out where a date or number has the form but not the range, and
            # where a tag does not fit, such as `!!int ""`.
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} cannot be read as {kind}"
            raise ConstructorError(None, None, problem, node.start_mark) from None


def _expanded(node: Any, known: dict[int, int | None]) -> int:
    """Values of a node with all that its aliases stand for; a few lines can mean billions."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise ConstructorError(None, None, "a value contains itself", node.start_mark)
        return count
    known[id(node)] = None
    count = 1
    if not isinstance(node, yaml.ScalarNode):
        for part in node.value:
            parts = part if isinstance(part, tuple) else (part,)
            count += sum(_expanded(inner, known) for inner in parts)
    if count > MOST_VALUES:
        problem = f"holds more than {MOST_VALUES} values, those behind aliases counted each time"
        raise ConstructorError(None, None, problem, node.start_mark)
    known[id(node)] = count
    return count


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ScenarioError: The file cannot be read, is no YAML, repeats a key, or holds no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"cannot be read: {error}") from None
    except RecursionError:
        raise ScenarioError(str(path), "is nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two are PyYAML's where an escape such as "\\UFFFFFFFF" is no character.
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ScenarioError(str(path), f"{place}not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        problem = "the file is empty" if data is None else "must be a mapping of keys to values"
        raise ScenarioError(str(path), problem)
    return data
