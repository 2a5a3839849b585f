"""Memory of the life cycle: places for instances, deployments, regions, and a head over them.

A *place* is where an instance can be: one row of the simulation's fleet. A *role* is a model with
the tiers that it serves; a *deployment* is a role in a region, what a controller scales.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, types

from envs.simulator.jit import compiled
from envs.simulator.layout import ENGINE_DTYPE, INSTANCE_DTYPE, POOL_DTYPE
from envs.simulator.memory import array_at
from envs.simulator.records import record_at

# States of a place.
OFF, PROVISIONING, LOADING, READY, DRAINING, DONATED, RECLAIMING, FAILED = range(8)
STATES = (
    *("off", "provisioning", "loading", "ready", "draining", "donated", "reclaiming", "failed"),
)
# Where an instance that starts comes from.
ACQUIRED, RECLAIMED, CONVERTED, REDEPLOYED = range(4)
SOURCES = ("acquired", "reclaimed", "converted", "redeployed")
# Delays that are drawn.
PROVISION, LOAD_LOCAL, LOAD_REMOTE, RECLAIM, REPAIR = range(5)
DELAYS = ("provision", "load_local", "load_remote", "reclaim", "repair")
DRAWS = 64
"""Numbers drawn in advance for the delays of a place; then they are used again."""

PLACE_DTYPE = np.dtype(
    [
        ("state", "i8"),
        ("role", "i8"),  # what it serves, or whose weights it holds; -1 = none
        ("kind", "i8"),  # of GPU
        ("region", "i8"),
        ("gpus", "i8"),
        ("source", "i8"),  # where it came from when it last started
        ("goal", "i8"),  # state after it has drained
        ("goal_role", "i8"),  # and what it is to serve then
        ("next_ps", "i8"),  # when its state ends by itself
        ("since_ps", "i8"),  # its time is accounted up to here
        ("draws", "i8"),
    ],
    align=True,
)

DEPLOYMENT_DTYPE = np.dtype(
    [
        # Instances now. One that drains to be redeployed counts as draining here, and as
        # starting where it goes.
        ("ready", "i8"),
        ("starting", "i8"),  # provisioning, loading or being reclaimed
        ("draining", "i8"),
        ("donated", "i8"),  # with its weights
        ("floor", "i8"),  # fewest ready and starting
        ("ceiling", "i8"),
        ("changed_ps", "i8"),  # when it was last scaled
        # Sums so far.
        ("ready_s", "f8"),  # instance-seconds
        ("starting_s", "f8"),
        ("draining_s", "f8"),
        ("donated_s", "f8"),
        ("gpu_s", "f8"),  # of all but donated ones
        ("dollars", "f8"),  # for them
        ("donated_dollars", "f8"),  # what donated ones cost
        ("income", "f8"),  # what they earned
        *[(f"{name}_s", "f8") for name in SOURCES],  # starting_s by source
        *[(name, "i8") for name in SOURCES],  # instances that began to start
        ("stopped", "i8"),  # that were told to drain or were cancelled
        ("lost", "i8"),  # whose VMs were taken away
    ],
    align=True,
)

REGION_DTYPE = np.dtype(
    [
        ("held", "i8"),  # GPUs in any state but off and failed
        ("quota", "i8"),
        ("free", "i8"),  # places that are off
        ("bare", "i8"),  # donated ones without weights
    ],
    align=True,
)

# Of a deployment at a moment.
SAMPLE_DTYPE = np.dtype(
    [
        *[(name, "f4") for name in ("ready", "starting", "draining", "donated")],
        ("waiting", "f4"),  # requests at its instances
        ("running", "f4"),
        ("kv", "f4"),  # share of KV in use of ready instances, 0 where there is none
        ("backlog", "f4"),  # NIW of its model and region that wait
        ("dollars", "f8"),  # so far, less income
    ],
    align=True,
)

EVICTION_DTYPE = np.dtype(
    [("time_ps", "i8"), ("place", "i8"), ("notice_ps", "i8")],
    align=True,
)

_ARRAYS = (
    *("places", "deployments", "regions", "patterns", "weights_near", "role_model"),
    *("price", "spot_price", "donated_price", "medians", "sigmas", "normals", "evictions"),
    *("given_instances", "given_engines", "samples", "accounts"),
)

FLEET_DTYPE = np.dtype(
    [
        ("until_ps", "i8"),
        ("next_ps", "i8"),  # when the next place changes by itself
        ("sample_ps", "i8"),  # interval of samples, 0 = none
        ("next_sample_ps", "i8"),
        ("sampled", "i8"),
        ("most_samples", "i8"),
        ("pull_ps", "i8"),  # interval of the clock's signals to backlogs, 0 = none
        ("next_pull_ps", "i8"),
        ("drain_limit_ps", "i8"),  # after which what drains is lost
        ("drain_billed", "i8"),
        ("next_eviction", "i8"),
        ("eviction_count", "i8"),
        ("changes", "i8"),  # of the fleet so far
        ("size", "i8"),
        ("roles", "i8"),
        ("region_count", "i8"),
        ("kinds", "i8"),
        ("models", "i8"),
        ("pool_count", "i8"),
        *[(f"{name}_at", "i8") for name in _ARRAYS],
    ],
    align=True,
)
ARRAYS = _ARRAYS

FLEETS = types.Array(from_dtype(FLEET_DTYPE), 1, "C")

_place_at = record_at(PLACE_DTYPE)
_deployment_at = record_at(DEPLOYMENT_DTYPE)
_region_at = record_at(REGION_DTYPE)
_eviction_at = record_at(EVICTION_DTYPE)
_instance_at = record_at(INSTANCE_DTYPE)
_engine_at = record_at(ENGINE_DTYPE)
_sample_at = record_at(SAMPLE_DTYPE)
_pool_at = record_at(POOL_DTYPE)
_int64_at = array_at(types.Array(types.int64, 1, "C"))
_float64_at = array_at(types.Array(types.float64, 1, "C"))


@compiled
def place(f: Any, i: int) -> Any:
    """Row of place i."""
    return _place_at(f.places_at, i)


@compiled
def deployment(f: Any, d: int) -> Any:
    """Row of deployment d = role * regions + region."""
    return _deployment_at(f.deployments_at, d)


@compiled
def region(f: Any, r: int) -> Any:
    """Row of region r."""
    return _region_at(f.regions_at, r)


@compiled
def eviction(f: Any, k: int) -> Any:
    """Row of eviction k, in order of time."""
    return _eviction_at(f.evictions_at, k)


@compiled
def pattern(f: Any, role: int, kind: int) -> int:
    """An instance as given that has a role on a kind of GPU, -1 where none has."""
    return _int64_at(f.patterns_at, f.roles * f.kinds)[role * f.kinds + kind]


@compiled
def model_of(f: Any, role: int) -> int:
    """Code of the model of a role, -1 where models are not told apart."""
    return _int64_at(f.role_model_at, f.roles)[role]


@compiled
def weights_near(f: Any, r: int) -> Any:
    """(models + 1,) whether weights of a model (0: of none) lie in region r."""
    width = f.models + 1
    return _int64_at(f.weights_near_at + 8 * r * width, width)


@compiled
def price(f: Any, at: int, r: int, kind: int) -> float:
    """A price of a GPU second by region and kind, from the table at an address."""
    return _float64_at(at, f.region_count * f.kinds)[r * f.kinds + kind]


@compiled
def median_ps(f: Any, which: int) -> int:
    """Median of a delay."""
    return _int64_at(f.medians_at, 5)[which]


@compiled
def sigma(f: Any, which: int) -> float:
    """Log-standard deviation of a delay."""
    return _float64_at(f.sigmas_at, 5)[which]


@compiled
def normals(f: Any, i: int) -> Any:
    """(DRAWS,) standard normals of place i."""
    return _float64_at(f.normals_at + 8 * DRAWS * i, DRAWS)


@compiled
def given_instance(f: Any, j: int) -> Any:
    """Row of instance j as the fleet was given."""
    return _instance_at(f.given_instances_at, j)


@compiled
def given_engine(f: Any, j: int) -> Any:
    """Engine row of the same."""
    return _engine_at(f.given_engines_at, j)


@compiled
def sample(f: Any, k: int, d: int) -> Any:
    """Row of sample k of deployment d."""
    return _sample_at(f.samples_at, k * f.roles * f.region_count + d)


@compiled
def sampled_account(f: Any, k: int, number: int) -> Any:
    """Row of sample k of the account of a pool."""
    return _pool_at(f.accounts_at, k * f.pool_count + number)
