"""What must be known to rebuild a policy and the environment that it acts in: `policy.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from agents.networks import MaskedPolicy, Policy, UnmaskedPolicy, network_arguments
from agents.settings import (
    ROUTING,
    SCALING,
    THROTTLING,
    RunConfig,
    ScalingConfig,
    ThrottlingConfig,
)
from envs.common.features import Feature
from envs.routing import layout as routing
from envs.routing.env import RoutingEnv
from envs.scaling import layout as scaling
from envs.scenarios.strict import Strict
from envs.throttling import layout as throttling
from envs.throttling.layout import Interface


class PolicyConfig(Strict):
    """What `policy.json` holds, for every environment."""

    format: Literal["servegym-policy"] = "servegym-policy"
    format_version: Literal[1] = 1
    env: str
    network: Literal["MultiInputPolicy"] = "MultiInputPolicy"
    net_arch: list[int] = Field(max_length=8)
    """Units of the hidden layers, 1 to 4096 each."""
    activation: Literal["tanh", "relu"]
    features: dict[str, list[str]]
    """Names of the observed columns, by key."""
    steps: int = Field(ge=0)
    """Environment steps of training."""
    weights_sha256: str
    """Digest of the file of weights."""

    @classmethod
    def own(cls, config: RunConfig, env: Any) -> dict[str, Any]:
        """The values that are this environment's own, of a run and an environment of it."""
        raise NotImplementedError

    def observed(self) -> dict[str, list[str]]:
        """Names of the columns that this version of the environment gives, by key."""
        raise NotImplementedError

    @property
    def masked(self) -> bool:
        """Whether actions have masks."""
        return True

    def build(self, observation_space: Any, action_space: Any) -> Policy:
        """A policy of this shape, untrained."""
        kind = MaskedPolicy if self.masked else UnmaskedPolicy
        arguments = network_arguments(self.net_arch, self.activation)
        return kind(observation_space, action_space, lambda _: 0.0, **arguments)


class RoutingPolicyConfig(PolicyConfig):
    """A policy of Routing-v0."""

    env: Literal["ServeGym/Routing-v0"] = "ServeGym/Routing-v0"
    window: int = Field(ge=1, le=4096)
    """Queue positions among which an action chooses."""
    max_instances: int = Field(ge=1, le=65536)
    """Rows of the observation."""
    queue_order: Literal["fcfs", "sjf"]
    """Order of the router queue in training."""
    decision_interval_s: float = Field(ge=0)
    """Clock of decisions in training; 0 is event-driven."""

    @classmethod
    def own(cls, config: RunConfig, env: Any) -> dict[str, Any]:
        """Window, rows, order and clock of the environment."""
        assert isinstance(env, RoutingEnv)
        return {
            "window": env.window,
            "max_instances": env.rows,
            "queue_order": env.queue_order,
            "decision_interval_s": env.decision_interval_s,
            "features": routing_features(),
        }

    def observed(self) -> dict[str, list[str]]:
        """Columns of requests, instances and fleet."""
        return routing_features()


class ThrottlingPolicyConfig(PolicyConfig):
    """A policy of Throttling-v0."""

    env: Literal["ServeGym/Throttling-v0"] = "ServeGym/Throttling-v0"
    interface: Interface
    tenants: int = Field(ge=1, le=4096)
    """Tenants with a row of their own in the observation."""
    interval_s: float = Field(ge=0.01, le=1e4)
    """Seconds between the tuner's decisions."""

    @classmethod
    def own(cls, config: RunConfig, env: Any) -> dict[str, Any]:
        """Interface, rows and clock of the run."""
        assert isinstance(config, ThrottlingConfig)
        values = config.hyperparameters
        return {
            "interface": config.interface,
            "tenants": values.tenants,
            "interval_s": values.interval_s,
            "features": _throttling_features(config.interface),
        }

    def observed(self) -> dict[str, list[str]]:
        """Columns of fleet and tenants, and settings or call."""
        return _throttling_features(self.interface)

    @property
    def masked(self) -> bool:
        """Whether it is a gate."""
        return self.interface == "gate"


class ScalingPolicyConfig(PolicyConfig):
    """A policy of Scaling-v0."""

    env: Literal["ServeGym/Scaling-v0"] = "ServeGym/Scaling-v0"
    epoch_s: float = Field(ge=60, le=3600)
    """Seconds between decisions."""
    most: int = Field(ge=1, le=100)
    """Most instances by which a number of an action changes a pool."""
    cooldown_s: float = Field(ge=0, le=1e6)
    """Seconds for which a pool stays as it is after a change."""
    roles: int = Field(ge=1, le=128)
    """Roles that there are rows for."""
    regions: int = Field(ge=1, le=16)
    """Regions that there are rows for."""

    @classmethod
    def own(cls, config: RunConfig, env: Any) -> dict[str, Any]:
        """Clock, limits and rows of the run."""
        assert isinstance(config, ScalingConfig)
        names = ("epoch_s", "most", "cooldown_s", "roles", "regions")
        values = {name: getattr(config.hyperparameters, name) for name in names}
        return values | {"features": _scaling_features()}

    def observed(self) -> dict[str, list[str]]:
        """Columns of pools, regions and clock."""
        return _scaling_features()


POLICY_CONFIGS: Mapping[str, type[PolicyConfig]] = {
    ROUTING: RoutingPolicyConfig,
    THROTTLING: ThrottlingPolicyConfig,
    SCALING: ScalingPolicyConfig,
}


def _names(row: Sequence[Feature]) -> list[str]:
    return [feature.name for feature in row]


def routing_features() -> dict[str, list[str]]:
    """Names of the columns that a policy of Routing-v0 observes, by key."""
    return {
        "requests": _names(routing.REQUEST_FEATURES),
        "instances": _names(routing.INSTANCE_FEATURES),
        "fleet": _names(routing.FLEET_FEATURES),
    }


def _scaling_features() -> dict[str, list[str]]:
    return {
        "pools": _names(scaling.POOL_FEATURES),
        "regions": _names(scaling.REGION_FEATURES),
        "clock": _names(scaling.CLOCK_FEATURES),
    }


def _throttling_features(interface: Interface) -> dict[str, list[str]]:
    tenant = _names(throttling.TENANT_FEATURES)
    found = {"fleet": _names(throttling.FLEET_FEATURES), "tenants": tenant}
    if interface == "tuner":
        return found | {"settings": [setting.name for setting in throttling.SETTINGS]}
    return found | {"call": [*_names(throttling.CALL_FEATURES), *tenant]}
