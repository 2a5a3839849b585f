"""The reward of throttling: named terms times weights of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from envs.common.reward import WeightedTerms
from envs.throttling.layout import TERMS


@dataclass(frozen=True)
class Reward(WeightedTerms):
    """A throttling reward: `scale * sum(weight * term)` over the terms of one step.

    All terms are in typical calls (input + 2 x output tokens of the average call), so that
    weights carry over from one fleet and population to another:

    * `value`: calls of the interactions that finished in time, each call's cost over the typical
      cost of its application.
    * `waste`: minus the tokens served to interactions that lost a call, over those of a typical
      call.
    * `fairness`: minus the unmet fair share, integrated over time in minutes: what each waiting
      tenant lacks of the mean service of the tenants in the system. Service is counted in typical
      calls of each application, whatever the settings; who comes back is lifted to the least of
      those that wait, as in VTC.
    * `benign`: minus the calls turned away of light tenants, who send few a minute.
    * `late`: minus the calls of light tenants whose first token came late, was still to come at
      the end though its time was over, or that were turned away before it.

    Attributes:
        weights: Weights that replace the default ones.
        scale: Factor on the whole reward.

    Raises:
        ValueError: Unknown term, or a weight that is not a number.
    """

    defaults: ClassVar[Mapping[str, float]] = MappingProxyType(
        {"value": 1.0, "waste": 1.0, "fairness": 0.3, "benign": 1.0, "late": 1.0}
    )


assert tuple(Reward.defaults) == TERMS
