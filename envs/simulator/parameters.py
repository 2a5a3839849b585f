"""Tunable numbers of a policy by name, and what values make sense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Range:
    """Finite values that a parameter can take.

    Attributes:
        least: The smallest.
        most: The largest.
        above: Whether the smallest itself is left out.
        whole: Whether they are whole numbers.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a value is one of them; NaN and the infinite never are."""
        if not math.isfinite(value) or (self.whole and value != int(value)):
            return False
        over = value > self.least if self.above else value >= self.least
        return over and value <= self.most

    def __str__(self) -> str:
        """The range in words, as in `a finite number, more than 0`."""
        if self == SWITCH:
            return "0 or 1"
        words = "a whole number" if self.whole else "a finite number"
        if self.least > -math.inf:
            words += f", {f'more than {self.least:g}' if self.above else f'{self.least:g} or more'}"
        return words if self.most == math.inf else f"{words} and at most {self.most:g}"


ANY = Range()
"""Any finite number."""
SWITCH = Range(0.0, 1.0, whole=True)
"""No or yes."""


class Tunable(Protocol):
    """What has numbers to tune."""

    @property
    def name(self) -> str:
        """Its own name, for messages."""

    @property
    def parameters(self) -> tuple[float, ...]:
        """Their values."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Their names, in the same order."""


class Bounded(Tunable, Protocol):
    """What refuses numbers that make no sense."""

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What they can be, in the same order; those without can be any finite number."""


def check(owner: Bounded, most: int) -> None:
    """Refuse parameters that make no sense.

    Args:
        owner: A scheduler or an admission policy.
        most: How many parameters it can have.

    Raises:
        ValueError: There are more, or one is out of its range; the message names policy,
            parameter, value and range.
    """
    if len(owner.parameters) > most:
        raise ValueError(
            f"{owner.name}: there can be at most {most} parameters, not {len(owner.parameters)}"
        )
    for place, value in enumerate(owner.parameters):
        allowed = owner.ranges[place] if place < len(owner.ranges) else ANY
        if value not in allowed:
            names = owner.parameter_names
            name = names[place] if place < len(names) else f"p{place}"
            raise ValueError(f"{owner.name}: {name} is {value:g}; give {allowed}")


def replaced(owner: Tunable, values: Mapping[str, float]) -> tuple[float, ...]:
    """The owner's parameters with some replaced.

    Raises:
        ValueError: A name is unknown; the message lists those that exist.
    """
    unknown = set(values) - set(owner.parameter_names)
    if unknown:
        known = ", ".join(owner.parameter_names) or "none"
        raise ValueError(f"{owner.name} has no parameter {sorted(unknown)}; it has: {known}")
    current = dict(zip(owner.parameter_names, owner.parameters, strict=True)) | dict(values)
    return tuple(current.values())


def ranges_of(names: Sequence[str], known: Mapping[str, Range]) -> tuple[Range, ...]:
    """The ranges of parameters, in their order.

    Raises:
        KeyError: A parameter has none.
    """
    return tuple(known[name] for name in names)
