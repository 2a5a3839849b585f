"""What defines a training run: the environment's options and the learner's hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from envs.routing.layout import RewardMode
from envs.routing.reward import Reward
from envs.scaling.reward import Reward as ScalingReward
from envs.scenarios import Scenario
from envs.scenarios.errors import ScenarioError, did_you_mean
from envs.scenarios.strict import Strict, validated
from envs.scenarios.yaml_file import read_yaml
from envs.throttling.layout import Interface
from envs.throttling.reward import Reward as ThrottlingReward

ROUTING = "ServeGym/Routing-v0"
THROTTLING = "ServeGym/Throttling-v0"
SCALING = "ServeGym/Scaling-v0"
_DEFAULTS = Path(__file__).parent / "hyperparameters"
_FILES = {
    ROUTING: _DEFAULTS / "routing.yaml",
    THROTTLING: _DEFAULTS / "throttling.yaml",
    SCALING: _DEFAULTS / "scaling.yaml",
}
_WATCHED = ("checkpoint_every", "validate_every", "validation_episodes", "threads")


class Hyperparameters(Strict):
    """Values of one training run that are neither the task nor the seed, for every environment."""

    steps: int = Field(ge=1)
    """Environment steps (decisions) of all copies together, rounded up to whole updates."""
    n_envs: int = Field(ge=1, le=4096)
    """Copies of the environment that are stepped together."""
    n_steps: int = Field(ge=1)
    """Decisions of each copy between two updates."""
    batch_size: int = Field(ge=2)
    """Decisions of a minibatch."""
    n_epochs: int = Field(ge=1)
    """Passes over the collected decisions in an update."""
    learning_rate: float = Field(gt=0)
    """Step size of Adam."""
    tau_s: float | None = Field(gt=0)
    """Seconds after which a reward counts 1/e; null does not discount."""
    episode_share: float | None = Field(gt=0, le=1)
    """Share of the time span of the arrivals after which the longest training episodes are cut,
    with the value of what would have followed; null plays all to the end. An agent can't see the
    end coming, so the draining of the fleet would be noise to the critic."""
    gae_lambda: float = Field(ge=0, le=1)
    """Lambda of generalised advantage estimation, per decision."""
    clip_range: float = Field(gt=0)
    """Clipping of the probability ratio."""
    target_kl: float | None = Field(gt=0)
    """An update stops when the policy moved by 1.5 times this; null never stops."""
    ent_coef: float = Field(ge=0)
    """Weight of the entropy bonus."""
    vf_coef: float = Field(ge=0)
    """Weight of the value loss."""
    max_grad_norm: float = Field(gt=0)
    """Norm to which gradients are clipped."""
    net_arch: list[int] = Field(max_length=8)
    """Units of the hidden layers, of actor and critic alike."""
    activation: Literal["tanh", "relu"]
    """Non-linearity of the hidden layers."""
    checkpoint_every: int = Field(ge=1)
    """Steps between checkpoints, rounded up to whole updates."""
    validate_every: int = Field(ge=1)
    """Steps between evaluations on validation episodes, rounded up to whole updates."""
    validation_episodes: int = Field(ge=1, le=1000)
    """Validation episodes of an evaluation, of each scenario, the same ones each time."""
    threads: int = Field(ge=1)
    """Threads of torch; more than 1 is slower on small networks and collapses on a busy machine."""

    @model_validator(mode="after")
    def _sizes_are_sound(self) -> Hyperparameters:
        if self.batch_size > self.n_envs * self.n_steps:
            raise ValueError(
                f"batch_size {self.batch_size} exceeds the n_envs * n_steps = "
                f"{self.n_envs * self.n_steps} decisions of an update: lower it"
            )
        if any(not 1 <= units <= 4096 for units in self.net_arch):
            raise ValueError(f"net_arch {self.net_arch}: a layer has 1 to 4096 units")
        return self

    def discount_tau_s(self) -> float:
        """`tau_s` with infinity for no discount."""
        return float("inf") if self.tau_s is None else self.tau_s


class RoutingHyperparameters(Hyperparameters):
    """Those of routing."""

    reward_scales: dict[RewardMode, float]
    """Factor on the reward of each mode, so that returns are of the order of 1 to 10."""
    queue_order: Literal["fcfs", "sjf"] | None
    """Order of the router queue; null leaves it to the scenario."""


class ThrottlingHyperparameters(Hyperparameters):
    """Those of throttling."""

    episode_share: float | None = Field(gt=0, le=100)
    """As in routing, but more than 1, too: in overload, much is decided after the last arrival."""
    reward_scale: float = Field(gt=0)
    """Factor on the reward, so that returns are of the order of 1 to 10."""
    interval_s: float = Field(ge=0.01, le=1e4)
    """Seconds between the tuner's decisions; without effect on the gate."""
    tenants: int = Field(ge=1, le=4096)
    """Tenants with a row of their own in the observation."""
    log_std_init: float
    """Logarithm of the first standard deviation of the tuner's actions; likewise."""


class ScalingHyperparameters(Hyperparameters):
    """Those of scaling."""

    reward_scale: float = Field(gt=0)
    """Factor on the reward, so that returns are of the order of 1 to 10."""
    no_change_bias: float = Field(ge=0, le=20)
    """Logit by which no change is ahead at first, of each number of an action."""
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


class RunConfig(Strict):
    """Everything that the outcome of a training run depends on, besides the code."""

    env: str
    seed: int = Field(ge=0)
    """Seed of initial weights, sampling, and training episodes."""
    hyperparameters: Hyperparameters

    @property
    def trained_on(self) -> Sequence[Scenario]:
        """The scenarios, which copies of the environment take in turn."""
        raise NotImplementedError

    def to_yaml(self) -> str:
        """The configuration as YAML that `parse_config` reads back to an equal one."""
        plain = self.model_dump(mode="json", exclude={"scenario", "scenarios"})
        values = plain.pop("hyperparameters")
        plain["hyperparameters"] = values | {key: values.pop(key) for key in _WATCHED}
        whole = [yaml.safe_load(scenario.to_yaml()) for scenario in self.trained_on]
        if "scenario" in type(self).model_fields:
            plain["scenario"] = whole[0]
        else:
            plain["scenarios"] = whole
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


class RoutingConfig(RunConfig):
    """A run on Routing-v0."""

    env: Literal["ServeGym/Routing-v0"] = "ServeGym/Routing-v0"
    reward: RewardMode = "latency"
    scenario: Scenario
    hyperparameters: RoutingHyperparameters

    @property
    def trained_on(self) -> Sequence[Scenario]:
        """The scenario."""
        return (self.scenario,)

    def reward_function(self) -> Reward:
        """The reward with its fixed scale.

        Raises:
            ValueError: The hyper-parameters hold no scale for the mode.
        """
        scales = self.hyperparameters.reward_scales
        if self.reward not in scales:
            raise ValueError(f"reward_scales has no value for {self.reward!r}: add one")
        tau_s = self.hyperparameters.discount_tau_s()
        return Reward(self.reward, scale=scales[self.reward], tau_s=tau_s)


class ThrottlingConfig(RunConfig):
    """A run on Throttling-v0."""

    env: Literal["ServeGym/Throttling-v0"] = "ServeGym/Throttling-v0"
    interface: Interface = "tuner"
    scenarios: list[Scenario] = Field(min_length=1)
    hyperparameters: ThrottlingHyperparameters

    @property
    def trained_on(self) -> Sequence[Scenario]:
        """The scenarios."""
        return self.scenarios

    def reward_function(self) -> ThrottlingReward:
        """The default reward, scaled."""
        return ThrottlingReward(scale=self.hyperparameters.reward_scale)


class ScalingConfig(RunConfig):
    """A run on Scaling-v0."""

    env: Literal["ServeGym/Scaling-v0"] = "ServeGym/Scaling-v0"
    scenarios: list[Scenario] = Field(min_length=1)
    hyperparameters: ScalingHyperparameters

    @property
    def trained_on(self) -> Sequence[Scenario]:
        """The scenarios."""
        return self.scenarios

    def reward_function(self) -> ScalingReward:
        """The default reward, scaled."""
        return ScalingReward(scale=self.hyperparameters.reward_scale)


_CONFIGS: dict[str, type[RunConfig]] = {
    ROUTING: RoutingConfig,
    THROTTLING: ThrottlingConfig,
    SCALING: ScalingConfig,
}
_VALUES: dict[str, type[Hyperparameters]] = {
    ROUTING: RoutingHyperparameters,
    THROTTLING: ThrottlingHyperparameters,
    SCALING: ScalingHyperparameters,
}


def parse_config(path: Path) -> RunConfig:
    """Read the `config.yaml` of a run.

    Raises:
        ScenarioError: The file cannot be read, or a key or value is refused.
    """
    data = read_yaml(path)
    env = data.get("env", ROUTING)
    kind = _CONFIGS.get(env, RoutingConfig) if isinstance(env, str) else RoutingConfig
    return validated(kind, data, str(path))


def load_hyperparameters(
    env: str,
    file: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    section: str | None = None,
) -> Hyperparameters:
    """The defaults of an environment, with a file's values and then `changes` over them.

    Args:
        env: Environment id, the key under which the values stand in a file.
        file: YAML file of the form of those in `agents/hyperparameters`; may be partial.
        changes: Values by name; None leaves one as it is.
        section: Key inside that of the environment, where it has several: the interface.

    Raises:
        ScenarioError: There is no such file or environment, or a key or value is refused.
    """
    if env not in _FILES:
        raise ScenarioError(env, f"no hyper-parameters; {did_you_mean(env, _FILES)}")
    values, source = _section(_FILES[env], env, section), str(_FILES[env])
    if file is not None:
        values, source = _merged(values, _section(file, env, section)), str(file)
    values = _merged(values, {k: v for k, v in (changes or {}).items() if v is not None})
    return validated(_VALUES[env], values, source)


def _section(file: Path, env: str, section: str | None) -> dict[str, Any]:
    data = read_yaml(file)
    for key in (env,) if section is None else (env, section):
        if key not in data or not isinstance(data[key], dict):
            inside = "" if key == env else f" inside {env!r}"
            raise ScenarioError(str(file), f"put the values under the key {key!r}{inside}")
        data = data[key]
    return dict(data)


def _merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
