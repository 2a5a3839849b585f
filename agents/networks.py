"""The networks of policies: with action masks, and without."""

from __future__ import annotations

from typing import Any

from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from torch import nn

MaskedPolicy = MaskableMultiInputActorCriticPolicy
UnmaskedPolicy = MultiInputActorCriticPolicy
Policy = MaskedPolicy | UnmaskedPolicy
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def network_arguments(net_arch: list[int], activation: str) -> dict[str, Any]:
    """Arguments of a policy's constructor for these hidden layers."""
    return {
        "net_arch": {"pi": list(net_arch), "vf": list(net_arch)},
        "activation_fn": ACTIVATIONS[activation],
    }
