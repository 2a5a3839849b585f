"""The fleet simulator: exact, in integer picoseconds, compiled (docs/simulator.md)."""

from envs.simulator.config import Backlog, EngineConfig, Outage, RateLimit
from envs.simulator.elastic import ElasticFleet
from envs.simulator.gate import Gate, Retry
from envs.simulator.policy import HOLD, ROUTING_SIGNATURE, RoutingPolicy
from envs.simulator.result import Result
from envs.simulator.scheduler import SCHEDULERS, Scheduler
from envs.simulator.simulation import Router, Simulation, simulate

__all__ = [
    "HOLD",
    "ROUTING_SIGNATURE",
    "SCHEDULERS",
    "Backlog",
    "ElasticFleet",
    "EngineConfig",
    "Gate",
    "Outage",
    "RateLimit",
    "Result",
    "Retry",
    "Router",
    "RoutingPolicy",
    "Scheduler",
    "Simulation",
    "simulate",
]
