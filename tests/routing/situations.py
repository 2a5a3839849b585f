"""Small scenarios and whole episodes for the tests of the routing environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from envs.routing.env import RoutingEnv
from envs.scenarios import Scenario, parse_scenario


def scenario(
    instances: int = 2, requests: int = 50, rate: float = 8.0, kv: int = 2_500, **engine: Any
) -> Scenario:
    """A small fleet with little KV memory, so that requests wait and are preempted."""
    return parse_scenario(
        {
            "name": f"small-{instances}-{requests}-{rate:g}-{kv}-{sorted(engine.items())}",
            "fleet": {
                "groups": {
                    "v100": {
                        "count": instances,
                        "preset": "v100-llama2-7b",
                        "kv_capacity_tokens": kv,
                        "max_num_seqs": 16,
                        "max_batched_tokens": 2_048,
                        **engine,
                    }
                }
            },
            "workload": {
                "kind": "router_mix",
                "rate": rate,
                "requests": requests,
                "max_output_tokens": 400,
            },
        }
    )


@dataclass
class Episode:
    """Everything that an episode gave."""

    observations: list[dict[str, np.ndarray]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    infos: list[dict[str, Any]] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False


Actor = Callable[[RoutingEnv], int]


def random_actions(seed: int) -> Actor:
    """Uniform over the allowed actions."""
    rng = np.random.default_rng(seed)
    return lambda env: int(rng.choice(np.flatnonzero(env.action_masks())))


def play(
    env: RoutingEnv, actor: Actor, seed: int = 0, options: dict[str, Any] | None = None
) -> Episode:
    """Play one episode; the first observation is that of the reset."""
    episode = Episode()
    observation, _ = env.reset(seed=seed, options=options)
    episode.observations.append(observation)
    while not (episode.terminated or episode.truncated):
        action = actor(env)
        observation, reward, episode.terminated, episode.truncated, info = env.step(action)
        episode.actions.append(action)
        episode.observations.append(observation)
        episode.rewards.append(reward)
        episode.infos.append(info)
    return episode
