"""What defines a training run: the environment's options and the learner's hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, ValidationError, model_validator

from envs.routing.layout import RewardMode
from envs.routing.reward import Reward
from envs.scenarios import Scenario
from envs.scenarios.errors import ScenarioError, did_you_mean, from_validation
from envs.scenarios.strict import Strict
from envs.scenarios.yaml_file import read_yaml

ROUTING = "ServeGym/Routing-v0"
_DEFAULTS = Path(__file__).parent / "hyperparameters"
_FILES = {ROUTING: _DEFAULTS / "routing.yaml"}


class Hyperparameters(Strict):
    """Values of one training run that are neither the task nor the seed."""

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
    reward_scales: dict[RewardMode, float]
    """Factor on the reward of each mode, so that returns are of the order of 1 to 10."""
    queue_order: Literal["fcfs", "sjf"] | None
    """Order of the router queue; null leaves it to the scenario."""
    checkpoint_every: int = Field(ge=1)
    """Steps between checkpoints, rounded up to whole updates."""
    validate_every: int = Field(ge=1)
    """Steps between evaluations on validation episodes, rounded up to whole updates."""
    validation_episodes: int = Field(ge=1, le=1000)
    """Validation episodes of an evaluation, the same ones each time."""
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


class RunConfig(Strict):
    """Everything that the outcome of a training run depends on, besides the code."""

    env: Literal["ServeGym/Routing-v0"] = "ServeGym/Routing-v0"
    seed: int = Field(ge=0)
    """Seed of initial weights, sampling, and training episodes."""
    reward: RewardMode = "latency"
    scenario: Scenario
    hyperparameters: Hyperparameters

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

    def to_yaml(self) -> str:
        """The configuration as YAML that `parse_config` reads back to an equal one."""
        plain = self.model_dump(mode="json", exclude={"scenario"})
        plain["scenario"] = yaml.safe_load(self.scenario.to_yaml())
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def parse_config(path: Path) -> RunConfig:
    """Read the `config.yaml` of a run.

    Raises:
        ScenarioError: The file cannot be read, or a key or value is refused.
    """
    return cast(RunConfig, validated(RunConfig, read_yaml(path), str(path)))


def load_hyperparameters(
    env: str, file: Path | None = None, changes: Mapping[str, Any] | None = None
) -> Hyperparameters:
    """The defaults of an environment, with a file's values and then `changes` over them.

    Args:
        env: Environment id, the key under which the values stand in a file.
        file: YAML file of the form of `agents/hyperparameters/routing.yaml`; may be partial.
        changes: Values by name; None leaves one as it is.

    Raises:
        ScenarioError: There is no such file or environment, or a key or value is refused.
    """
    if env not in _FILES:
        raise ScenarioError(env, f"no hyper-parameters; {did_you_mean(env, _FILES)}")
    values, source = _section(_FILES[env], env), str(_FILES[env])
    if file is not None:
        values, source = _merged(values, _section(file, env)), str(file)
    values = _merged(values, {k: v for k, v in (changes or {}).items() if v is not None})
    return cast(Hyperparameters, validated(Hyperparameters, values, source))


def validated(kind: type[Strict], data: object, source: str) -> Strict:
    """`data` as a checked object.

    Raises:
        ScenarioError: A key or value is refused; the message names the source and the key.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise from_validation(error, source, data) from None


def _section(file: Path, env: str) -> dict[str, Any]:
    data = read_yaml(file)
    if env not in data or not isinstance(data[env], dict):
        raise ScenarioError(str(file), f"put the values under the key {env!r}")
    return dict(data[env])


def _merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
