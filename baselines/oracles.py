"""Upper references: rules that are told what nobody can know."""

from __future__ import annotations

from dataclasses import replace

from envs.simulator.policy import RoutingPolicy


def oracle(policy: RoutingPolicy) -> RoutingPolicy:
    """Give the rule as `<name>[oracle]`, which `simulate` runs with true output lengths.

    The predictions become the truth for the router, its queue and the engines' waiting queues.
    """
    return replace(policy, name=f"{policy.name}[oracle]", oracle=True)
