"""Schedulers that are not learned: the order in which an instance admits what waits.

`schedulers()` lists the multi-tenant ones, `scheduler("vtc", output_weight=1.0)` gives one: VTC
(OSDI 2024) and its variants, least counter first, and FairServe's weighted service counter
(arXiv:2411.15997). Those that need no counters are `envs.simulator.SCHEDULERS`.
"""

from baselines.scheduling.catalogue import scheduler, schedulers
from baselines.scheduling.weights import (
    application_weights,
    interaction_costs,
    reads_history,
    traits_for,
    typical_tokens,
    weights_for,
)

__all__ = [
    "application_weights",
    "interaction_costs",
    "reads_history",
    "scheduler",
    "schedulers",
    "traits_for",
    "typical_tokens",
    "weights_for",
]
