"""Rewards of routing: named terms times weights of the same names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

from envs.routing.layout import TERMS, RewardMode
from envs.simulator.mixing import ALPHA, EPSILON

GUIDANCE_DECAY = 0.5
"""beta_d of the paper's guidance."""

_WEIGHTS: dict[str, dict[str, float]] = {
    "latency": {"latency": 1.0},
    "latency_shaped": {"latency": 1.0, "potential": 1.0},
    "slo_goodput": {"slo_goodput": 1.0},
    "paper_baseline": {"outstanding": 1.0, "completions": 60.0},
    "workload_aware": {"outstanding": 1.0, "completions": 60.0, "mixing": 1.0},
    "workload_guided": {"outstanding": 1.0, "completions": 60.0, "mixing": 1.0},
}


@dataclass(frozen=True)
class Reward:
    """A routing reward: `scale * sum(weight * term)` over the terms of one step.

    Terms, for a step of dt seconds:

    * `latency`: minus the time integral of the requests in the system, in request-seconds. Its
      sum over an episode is minus the total end-to-end latency (Little's law).
    * `outstanding`: minus the sum over requests in the system of `1 - min(1, generated /
      predicted)` at the decision, times dt / 20 ms (Intelligent Router, Eq. 3, reconstructed).
    * `completions`: requests completed.
    * `mixing`: mixing score of the chosen instance minus the best one's, 0 for a hold (paper,
      section 5.2, reconstructed in `envs.simulator.mixing`).
    * `potential`: `exp(-dt / tau) Phi(s') - Phi(s)` with Phi minus the predicted remaining
      latency of all requests, which leaves the optimal policy as it is (Ng et al., 1999).
    * `slo_goodput`: output tokens of requests that finished inside every SLO.
    * `rejections`: minus the requests sent to an instance that can't serve them.

    Modes: `latency` (default), `latency_shaped`, `slo_goodput`, and the paper's `paper_baseline`,
    `workload_aware` and `workload_guided`. In the guided one the weight of `mixing` in episode k
    (from 0) is `exp(-0.5 k) * discount`, and the learner should discount by
    `(1 - exp(-0.5 k)) * discount` (HuRL; the paper inverts its notation in two places, this is
    the consistent reading); the environment reports that as `info["guided_discount"]`.

    Attributes:
        mode: Which weights to start from.
        scale: Factor on the whole reward.
        weights: Weights that replace or extend the mode's.
        rejection_penalty: Weight of `rejections`; in request-seconds for the latency modes.
        tau_s: Time constant of the shaping discount, infinite for undiscounted episodes.
        alpha: Weight of the prompt part of the mixing score.
        epsilon: Threshold of the prompt part, seconds.
        discount: Discount that the guidance schedule refers to.

    Raises:
        ValueError: Unknown mode or term.
    """

    mode: RewardMode = "latency"
    scale: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)
    rejection_penalty: float = 600.0
    tau_s: float = math.inf
    alpha: float = ALPHA
    epsilon: float = EPSILON
    discount: float = 0.99

    def __post_init__(self) -> None:
        if self.mode not in get_args(RewardMode):
            raise ValueError(f"unknown reward {self.mode!r}; one of {get_args(RewardMode)}")
        unknown = set(self.weights) - set(TERMS)
        if unknown:
            raise ValueError(f"unknown reward terms {sorted(unknown)}; terms are {TERMS}")

    def weights_in(self, episode: int) -> dict[str, float]:
        """Weight of every term that counts in an episode (numbered from 0), scale included."""
        weights = {"rejections": self.rejection_penalty} | _WEIGHTS[self.mode] | self.weights
        if self.mode == "workload_guided":
            weights["mixing"] *= math.exp(-GUIDANCE_DECAY * episode) * self.discount
        return {term: self.scale * weights[term] for term in TERMS if weights.get(term)}

    def guided_discount(self, episode: int) -> float:
        """Discount for the learner in an episode of the guided mode."""
        return (1.0 - math.exp(-GUIDANCE_DECAY * episode)) * self.discount
