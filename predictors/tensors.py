"""Tensors on disk as safetensors: weights and optimiser states, without pickles.

Loading never executes code: the format holds numbers only, and a network is built anew from plain
values before it takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from envs.run_folder import read_bytes

_OPTIMISER = "optimiser.safetensors"


def format_tensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors by name as the content of a safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


def parse_tensors(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """What `format_tensors` wrote.

    Args:
        data: Content of the file.
        path: Its name, for messages.

    Raises:
        ValueError: It is no safetensors file.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    except KeyError as error:  # a type of numbers that torch does not have
        raise ValueError(f"{path} holds numbers of an unknown type: {error}") from None


def put_weights(policy: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a network that has the same names and shapes.

    Raises:
        ValueError: It has not.
    """
    own = policy.state_dict()
    same_tensors(own, weights, path)
    policy.load_state_dict(dict(weights))


def save_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Write the state of an optimiser: its moments and counters, one tensor each."""
    state = optimiser.state_dict()["state"]
    tensors = {f"{i}.{k}": v for i, row in state.items() for k, v in row.items()}
    (folder / _OPTIMISER).write_bytes(format_tensors(tensors))


def load_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Read what `save_optimiser` wrote into an optimiser of the same parameters.

    Raises:
        ValueError: The file can't be read, or belongs to other parameters.
    """
    path = folder / _OPTIMISER
    tensors = parse_tensors(read_bytes(path), path)
    whole = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    expected: dict[str, torch.Tensor] = {}
    for i, parameter in enumerate(parameters if tensors else []):
        expected |= {f"{i}.step": torch.zeros(())}
        expected |= {f"{i}.{name}": parameter for name in ("exp_avg", "exp_avg_sq")}
    same_tensors(expected, tensors, path)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, kind = name.partition(".")
        state.setdefault(int(index), {})[kind] = tensor
    optimiser.load_state_dict(whole | {"state": state})


def same_tensors(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], path: Path
) -> None:
    """See that tensors have the expected names and shapes.

    Raises:
        ValueError: They have not; the message names the file.
    """
    odd = sorted(set(expected) ^ set(found))
    if odd:
        raise ValueError(f"{path} holds other tensors than the network has: {', '.join(odd[:4])}")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: {name} has the shape {list(found[name].shape)}, but the network needs "
                f"{list(tensor.shape)}: it was trained for another fleet size or network"
            )
