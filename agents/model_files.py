"""Policies and optimiser states on disk: tensors as safetensors, the rest as JSON.

Nothing is pickled, so loading a model never executes code: the network is built anew from plain
values that are checked first, and takes its weights from a format that holds numbers only.

A policy is a folder with `policy.json` (`PolicyConfig`) and `policy.safetensors`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from agents.networks import Policy
from agents.policy_config import POLICY_CONFIGS, PolicyConfig, RoutingPolicyConfig
from agents.settings import RunConfig
from envs.run_folder import read_bytes, read_json, write_json
from envs.scenarios.strict import validated
from predictors.tensors import format_tensors, parse_tensors, put_weights

_CONFIG, _WEIGHTS = "policy.json", "policy.safetensors"
_LAST = ("features", "steps", "weights_sha256")


def save_policy(folder: Path, policy: Policy, config: RunConfig, env: Any, steps: int) -> None:
    """Write a policy into an existing folder.

    Args:
        folder: Where to.
        policy: The policy.
        config: The run that trained it.
        env: An environment of that run.
        steps: Environment steps of training.
    """
    weights = format_tensors(policy.state_dict())
    kind = POLICY_CONFIGS[config.env]
    about = kind(
        env=config.env,
        net_arch=config.hyperparameters.net_arch,
        activation=config.hyperparameters.activation,
        steps=steps,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        **kind.own(config, env),
    ).model_dump()
    (folder / _WEIGHTS).write_bytes(weights)
    write_json(folder / _CONFIG, about | {key: about.pop(key) for key in _LAST})


def read_policy_config(folder: Path) -> PolicyConfig:
    """The checked `policy.json` of a folder.

    Raises:
        ValueError: It can't be read, a key or value is refused, or the policy observes other
            features than this version of the environment has.
    """
    path = folder / _CONFIG
    data = read_json(path)
    env = data.get("env") if isinstance(data, dict) else None
    # What names no environment is refused as a policy of the first that there was.
    kind = POLICY_CONFIGS.get(env if isinstance(env, str) else "", RoutingPolicyConfig)
    config = validated(kind, data, str(path))
    if any(not 1 <= units <= 4096 for units in config.net_arch):
        raise ValueError(f"{path}: net_arch: a layer has 1 to 4096 units, not {config.net_arch}")
    if config.features != config.observed():
        raise ValueError(
            f"{path}: features: the policy was trained on other observations than this version "
            "of the environment gives: train it anew, or use the version in the run's "
            "metadata.yaml"
        )
    return config


def load_policy(
    folder: Path, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> Policy:
    """Rebuild a policy from its folder, without executing anything that is stored there.

    Args:
        folder: Folder of `policy.json` and `policy.safetensors`.
        observation_space: Space of an environment that fits `read_policy_config(folder)`.
        action_space: Likewise.

    Raises:
        ValueError: A file can't be read, was changed, or does not fit the others or the spaces.
    """
    config = read_policy_config(folder)
    weights = read_weights(folder)
    policy = config.build(observation_space, action_space)
    put_weights(policy, *weights)
    policy.set_training_mode(False)
    return policy


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """Tensors of a policy's folder, and their file.

    Raises:
        ValueError: The file can't be read, or is not the one that `policy.json` describes.
    """
    config, path = read_policy_config(folder), folder / _WEIGHTS
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != config.weights_sha256:
        raise ValueError(
            f"{path} is not the file that {folder / _CONFIG} describes (its SHA-256 differs): "
            "restore both from the same run"
        )
    return parse_tensors(data, path), path
