"""Tunable numbers of a policy by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


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
