"""Schedulers by name and parameters, as the command line gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from baselines.scheduling import reads_history, schedulers
from envs.simulator import SCHEDULERS, Scheduler


@dataclass(frozen=True)
class Discipline:
    """A scheduler of the simulator or of `baselines.scheduling`.

    Attributes:
        name: Its name there.
        parameters: Values that replace its defaults.
    """

    name: str
    parameters: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Discipline:
        """Read `name` or `name:parameter=value,parameter=value`.

        Raises:
            ValueError: The text has another form, or there is no such scheduler or parameter.
        """
        name, values = named_values(text, "scheduler")
        found = cls(name, values)
        found.scheduler()
        return found

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return label(self.name, self.parameters)

    def scheduler(self) -> Scheduler:
        """The scheduler itself.

        Raises:
            ValueError: There is no such scheduler or parameter; the message lists those that
                exist.
        """
        known = all_schedulers()
        if self.name not in known:
            names = ", ".join(known)
            raise ValueError(f"scheduler {self.name!r} is unknown; there are: {names}")
        return known[self.name].with_parameters(**dict(self.parameters))

    @property
    def knows_table(self) -> bool:
        """Whether its weights are of the true outputs of the table that is served."""
        return reads_history(self.scheduler())

    def identity(self) -> dict[str, Any]:
        """Name and all parameters with their values; the code is in the hash of the code."""
        found = self.scheduler()
        values = zip(found.parameter_names, found.parameters, strict=True)
        return {"name": self.name, "parameters": {key: float(value) for key, value in values}}


def all_schedulers() -> dict[str, Scheduler]:
    """Every scheduler by name: the simulator's, then the multi-tenant ones."""
    return SCHEDULERS | schedulers()


def named_values(text: str, what: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Name and values of `name:parameter=value,parameter=value`.

    Args:
        text: What was given.
        what: The noun for what is named, for messages.

    Raises:
        ValueError: The text has another form, or a value is not finite.
    """
    name, colon, rest = text.strip().partition(":")
    values = []
    for part in rest.split(",") if colon else []:
        key, equals, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (key.strip() and equals and math.isfinite(number)):
            raise ValueError(
                f"{what} {text!r}: {part!r} is not parameter=number; "
                "write name:parameter=number,parameter=number"
            )
        values.append((key.strip(), number))
    return name, tuple(values)


def label(name: str, values: tuple[tuple[str, float], ...]) -> str:
    """The text that `named_values` reads, with all digits, so that no two share it."""
    written = ",".join(f"{key}={value!r}".removesuffix(".0") for key, value in values)
    return f"{name}:{written}" if written else name
