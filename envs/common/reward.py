"""Rewards that are named terms times weights of the same names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True)
class WeightedTerms:
    """`scale * sum(weight * term)` over the terms of one step; a subclass says which there are.

    Attributes:
        defaults: The weight of each term, unless another is given.
        weights: Weights that replace the default ones.
        scale: Factor on the whole reward.

    Raises:
        ValueError: Unknown term, or a weight that is not a number.
    """

    defaults: ClassVar[Mapping[str, float]] = MappingProxyType({})
    weights: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(self.defaults)
        if unknown:
            raise ValueError(
                f"unknown reward terms {sorted(unknown)}; there are {', '.join(self.defaults)}"
            )
        if not all(math.isfinite(value) for value in (*self.weights.values(), self.scale)):
            raise ValueError("weights and scale of a reward must be finite numbers")

    @property
    def all_weights(self) -> dict[str, float]:
        """The weight of each term, scaled."""
        merged = {**self.defaults, **self.weights}
        return {term: self.scale * merged[term] for term in self.defaults}
