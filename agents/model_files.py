"""Policies and optimiser states on disk: tensors as safetensors, the rest as JSON.

Nothing is pickled, so loading a model never executes code: the network is built anew from plain
values that are checked first, and takes its weights from a format that holds numbers only.

A policy is a folder with `policy.json` (`PolicyConfig`) and `policy.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors
from torch import nn

from agents.networks import Policy
from agents.policy_config import POLICY_CONFIGS, PolicyConfig, RoutingPolicyConfig
from agents.runs import write_json
from agents.settings import RunConfig, validated

_CONFIG, _WEIGHTS, _OPTIMISER = "policy.json", "policy.safetensors", "optimiser.safetensors"
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
    weights = format_tensors({k: v.contiguous() for k, v in policy.state_dict().items()})
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
    config = cast(PolicyConfig, validated(kind, data, str(path)))
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


def put_weights(policy: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a network that has the same names and shapes.

    Raises:
        ValueError: It has not.
    """
    own = policy.state_dict()
    _same_tensors(own, weights, path)
    policy.load_state_dict(dict(weights))


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """Tensors of a policy's folder, and their file.

    Raises:
        ValueError: The file can't be read, or is not the one that `policy.json` describes.
    """
    config, path = read_policy_config(folder), folder / _WEIGHTS
    data = _read_bytes(path)
    if hashlib.sha256(data).hexdigest() != config.weights_sha256:
        raise ValueError(
            f"{path} is not the file that {folder / _CONFIG} describes (its SHA-256 differs): "
            "restore both from the same run"
        )
    return _tensors(data, path), path


def save_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Write the state of an optimiser: its moments and counters, one tensor each."""
    state = optimiser.state_dict()["state"]
    tensors = {f"{i}.{k}": v.contiguous() for i, row in state.items() for k, v in row.items()}
    (folder / _OPTIMISER).write_bytes(format_tensors(tensors))


def load_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Read what `save_optimiser` wrote into an optimiser of the same parameters.

    Raises:
        ValueError: The file can't be read, or belongs to other parameters.
    """
    path = folder / _OPTIMISER
    tensors = _tensors(_read_bytes(path), path)
    whole = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    expected: dict[str, torch.Tensor] = {}
    for i, parameter in enumerate(parameters if tensors else []):
        expected |= {f"{i}.step": torch.zeros(())}
        expected |= {f"{i}.{name}": parameter for name in ("exp_avg", "exp_avg_sq")}
    _same_tensors(expected, tensors, path)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, kind = name.partition(".")
        state.setdefault(int(index), {})[kind] = tensor
    optimiser.load_state_dict(whole | {"state": state})


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: It can't be read or is no JSON.
    """
    try:
        return json.loads(_read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None


def _tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        return parse_tensors(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    except KeyError as error:  # a type of numbers that torch does not have
        raise ValueError(f"{path} holds numbers of an unknown type: {error}") from None


def _same_tensors(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path
) -> None:
    odd = sorted(set(expected) ^ set(found))
    if odd:
        raise ValueError(f"{path} holds other tensors than the network has: {', '.join(odd[:4])}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: {name} has the shape {list(found[name].shape)}, but the network needs "
                f"{list(tensor.shape)}: it was trained for another fleet size or network"
            )
