"""What training and evaluation need to know of each environment, and nothing else does."""

from __future__ import annotations

from typing import Any

from agents.policy_config import PolicyConfig
from agents.problems.base import Problem
from agents.problems.routing import RoutingProblem
from agents.problems.scaling import ScalingProblem
from agents.problems.throttling import ThrottlingProblem
from agents.settings import ROUTING, SCALING, THROTTLING, RunConfig
from envs.scenarios import Scenario

__all__ = ["PROBLEMS", "Problem", "environment", "problem_of"]

PROBLEMS: dict[str, type[Problem]] = {
    ROUTING: RoutingProblem,
    THROTTLING: ThrottlingProblem,
    SCALING: ScalingProblem,
}


def problem_of(config: RunConfig) -> Problem:
    """The problem of a training run."""
    return PROBLEMS[config.env](config)


def environment(config: PolicyConfig, scenario: Scenario) -> Any:
    """One environment in which a policy can serve a scenario.

    Raises:
        ValueError: The policy can't serve it.
    """
    return PROBLEMS[config.env].environment(config, scenario)
