"""Reading of one YAML file, in which a key may stand only once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from envs.scenarios.errors import ScenarioError


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        # PyYAML itself lets the last of equal keys win, without a word.
        seen = set()
        for key, _ in getattr(node, "value", ()):
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ScenarioError: The file cannot be read, is no YAML, repeats a key, or holds no mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"cannot be read: {error}") from None
    except RecursionError:
        raise ScenarioError(str(path), "is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError comes from a date or number that has the form but not the range.
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ScenarioError(str(path), f"{place}not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        problem = "the file is empty" if data is None else "must be a mapping of keys to values"
        raise ScenarioError(str(path), problem)
    return data
