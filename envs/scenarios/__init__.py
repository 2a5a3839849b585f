"""Scenarios: fleet, workload, predictions and objectives as checked YAML, and the seeds."""

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
from envs.scenarios.schema import Prediction, Router, Scenario, ServiceObjective
from envs.scenarios.seeds import SEEDS, seeds

__all__ = [
    "SEEDS",
    "Clients",
    "Down",
    "EngineGroup",
    "Failures",
    "Fleet",
    "Prediction",
    "RequestLimit",
    "Router",
    "Scenario",
    "ScenarioError",
    "ServiceObjective",
    "fleet_names",
    "load_fleet",
    "load_scenario",
    "parse_scenario",
    "scenario_names",
    "seeds",
]
