"""Parameters of strategies: their defaults and the values that make sense, as class attributes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from envs.scenarios.errors import did_you_mean, shown
from envs.simulator.parameters import Range


@dataclass(frozen=True)
class Parameter:
    """A default, and which other values are taken.

    Attributes:
        default: Its value where none is given.
        accepts: Whether a value makes sense.
        values: The values that do, in words.
    """

    default: Any
    accepts: Callable[[Any], bool]
    values: str


def number(
    default: float | None, least: float = 0.0, most: float = math.inf, *, whole: bool = False
) -> Any:
    """A number in a range; None is taken where it is the default."""
    allowed = Range(least, most, whole=whole)

    def accepts(value: Any) -> bool:
        if value is None:
            return default is None
        return isinstance(value, int | float) and not isinstance(value, bool) and value in allowed

    return Parameter(default, accepts, str(allowed))


def switch(default: bool) -> Any:
    """Yes or no."""
    return Parameter(default, lambda value: isinstance(value, bool), "True or False")


def choice(default: str, *names: str) -> Any:
    """One of some names."""
    return Parameter(default, lambda value: value in names, f"one of {', '.join(names)}")


def parameters_of(kind: type) -> dict[str, Parameter]:
    """The parameters of a class by name, those of its bases first."""
    found: dict[str, Parameter] = {}
    for base in reversed(kind.__mro__):
        found |= {name: value for name, value in vars(base).items() if isinstance(value, Parameter)}
    return found


def settled(
    owner: str, known: Mapping[str, Parameter], given: Mapping[str, Any], preset: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of each parameter: given, else that of a preset, else the default.

    Raises:
        ValueError: A parameter is unknown, or its value makes no sense.
    """
    for name in given:
        if name not in known:
            raise ValueError(
                f"{owner} has no parameter {name!r}: {did_you_mean(name, known)} "
                f"(it has {', '.join(known)})"
            )
    values = {name: one.default for name, one in known.items()} | dict(preset) | dict(given)
    for name, value in given.items():
        if not known[name].accepts(value):
            raise ValueError(f"{name} of {owner} is {shown(value)}: give {known[name].values}")
    return values
