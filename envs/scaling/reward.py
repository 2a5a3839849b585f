"""The reward of scaling: named terms times weights of the same names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from envs.scaling.layout import TERMS

DEFAULT_WEIGHTS = {
    "dollars": 1.0,
    "spot_income": 1.0,
    "waste": 0.0,
    "iw_f": 0.5,
    "iw_n": 0.5,
    "niw": 0.2,
    "leftover": 1.5,
}


@dataclass(frozen=True)
class Reward:
    """A scaling reward: `scale * sum(weight * term)` over the terms of one step.

    Dollars are the unit: a weight of a tier is what a request that misses its limit costs. The
    defaults are a choice: several times what a request costs to serve, which at the presets' prices
    is from less than a cent (3B) to ten cents (176B).

    * `dollars`: minus what instances cost in the step: those that serve, start and (where they are
      billed) drain, and what donated VMs cost.
    * `spot_income`: what donated VMs earned.
    * `waste`: minus the instance-hours of instances that started and did not serve yet, which
      `dollars` has already: a weight makes them dearer.
    * `iw_f`, `iw_n`: minus the requests of the tier whose limit of the time to first token passed
      in the step without a first token in time, rejected ones included.
    * `niw`: the same with the limit of the end-to-end time.
    * `leftover`: at the end of the episode, minus the dollars for which instances would prefill the
      prompts that have no first token yet, so that it does not pay to leave work undone.

    Attributes:
        weights: Weights that replace the default ones.
        scale: Factor on the whole reward.

    Raises:
        ValueError: Unknown term, or a weight that is not a number.
    """

    weights: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(TERMS)
        if unknown:
            raise ValueError(f"unknown reward terms {sorted(unknown)}; there are {TERMS}")
        if not all(math.isfinite(value) for value in (*self.weights.values(), self.scale)):
            raise ValueError("weights and scale of a reward must be finite numbers")

    @property
    def all_weights(self) -> dict[str, float]:
        """The weight of each term, scaled."""
        merged = DEFAULT_WEIGHTS | self.weights
        return {term: self.scale * merged[term] for term in TERMS}
