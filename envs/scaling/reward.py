"""The reward of scaling: named terms times weights of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from envs.common.reward import WeightedTerms
from envs.scaling.layout import TERMS


@dataclass(frozen=True)
class Reward(WeightedTerms):
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

    defaults: ClassVar[Mapping[str, float]] = MappingProxyType(
        {
            "dollars": 1.0,
            "spot_income": 1.0,
            "waste": 0.0,
            "iw_f": 0.5,
            "iw_n": 0.5,
            "niw": 0.2,
            "leftover": 1.5,
        }
    )


assert tuple(Reward.defaults) == TERMS
