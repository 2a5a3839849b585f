"""Scenarios: fleet, workload, predictions and objectives as checked YAML, and the seeds."""

from envs.scenarios.adversary import (
    Adversary,
    IdleThenBurst,
    InflateCalls,
    MisdeclareApplication,
    PadPrompts,
    SplitIdentities,
)
from envs.scenarios.conditions import Clients, Down, Failures, RequestLimit
from envs.scenarios.errors import ScenarioError
from envs.scenarios.fleet import EngineGroup, Fleet
from envs.scenarios.loading import (
    fleet_names,
    load_fleet,
    load_scenario,
    parse_scenario,
    scenario_names,
)
from envs.scenarios.scaling import Scaling
from envs.scenarios.schema import Prediction, Router, Scenario, ServiceObjective
from envs.scenarios.seeds import SEEDS, seeds

__all__ = [
    "SEEDS",
    "Adversary",
    "Clients",
    "Down",
    "EngineGroup",
    "Failures",
    "Fleet",
    "IdleThenBurst",
    "InflateCalls",
    "MisdeclareApplication",
    "PadPrompts",
    "Prediction",
    "RequestLimit",
    "Router",
    "Scaling",
    "Scenario",
    "ScenarioError",
    "ServiceObjective",
    "SplitIdentities",
    "fleet_names",
    "load_fleet",
    "load_scenario",
    "parse_scenario",
    "scenario_names",
    "seeds",
]
