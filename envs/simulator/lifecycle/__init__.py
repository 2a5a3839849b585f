"""The life cycle of instances: VMs that are acquired, loaded, drained, donated, reclaimed and lost.

docs/simulator.md, "Life cycle". Compiled, so that a control step of an environment and a strategy
of a benchmark run the same code; `LifecycleFleet` is its face to Python.
"""

from envs.simulator.lifecycle.config import Delays, Eviction, LifecyclePlan, Region, Role
from envs.simulator.lifecycle.fleet import LifecycleFleet

__all__ = ["Delays", "Eviction", "LifecycleFleet", "LifecyclePlan", "Region", "Role"]
