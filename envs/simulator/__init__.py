"""The fleet simulator: exact, in integer picoseconds, compiled (docs/simulator.md)."""

from envs.simulator.config import EngineConfig
from envs.simulator.policy import HOLD, ROUTING_SIGNATURE, RoutingPolicy
from envs.simulator.result import Result
from envs.simulator.simulation import Router, Simulation, simulate

__all__ = [
    "HOLD",
    "ROUTING_SIGNATURE",
    "EngineConfig",
    "Result",
    "Router",
    "RoutingPolicy",
    "Simulation",
    "simulate",
]
