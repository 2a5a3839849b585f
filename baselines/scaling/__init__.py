"""Scaling that is not learned: an integer program of instances by model, region and GPU.

`solve(ScalingProblem(...))` gives the cheapest `Plan` for a forecast demand. It is SageServe's
program (arXiv:2502.14617), as released, as published and corrected, with quotas, redeployment
between models, donated GPUs and a horizon of several periods.
"""

from baselines.scaling.capacity import SustainedLoad, sustainable_throughput, sustained_load
from baselines.scaling.formulation import (
    AS_PUBLISHED,
    AS_RELEASED,
    CORRECTED,
    FORMULATIONS,
    RELEASED_THROUGHPUT,
    Formulation,
    planning_demand,
)
from baselines.scaling.moves import Moves, Outcome, outcome
from baselines.scaling.plan import Plan
from baselines.scaling.problem import ScalingProblem
from baselines.scaling.realise import realise
from baselines.scaling.solver import plan_greedily, relaxed_bound, solve

__all__ = [
    "AS_PUBLISHED",
    "AS_RELEASED",
    "CORRECTED",
    "FORMULATIONS",
    "RELEASED_THROUGHPUT",
    "Formulation",
    "Moves",
    "Outcome",
    "Plan",
    "ScalingProblem",
    "SustainedLoad",
    "outcome",
    "plan_greedily",
    "planning_demand",
    "realise",
    "relaxed_bound",
    "solve",
    "sustainable_throughput",
    "sustained_load",
]
