"""Train a routing policy by reinforcement learning (PPO with action masks)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from envs.routing.layout import RewardMode
from scripts.training import TrainArgs, changes, learn

if TYPE_CHECKING:
    from agents.settings import RunConfig

EXAMPLE = """servegym train routing
  servegym train routing --scenario router-kv4k-rate8 --steps 1000000 --seed 1 -o runs/kv4k
  servegym train routing --resume runs/kv4k --steps 2000000
  tensorboard --logdir runs/kv4k/tensorboard"""

FOLDER = Path("runs/train-routing")
_QUICK = {
    "steps": 20_000,
    "n_steps": 128,
    "batch_size": 1_024,
    "validate_every": 10_000,
    "validation_episodes": 2,
}


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Options of `servegym train routing`."""

    scenario: str | None = None
    """Preset or YAML file to train on; router-kv6k-rate9 unless given."""
    reward: RewardMode | None = None
    """What to maximise, latency unless given; docs/metrics.md defines them. workload_guided is the
    paper's guided reward, not its whole algorithm: the learner discounts by time, as always, and
    does not follow the guided discount; and the guidance decays with the episodes of each
    environment copy on its own."""
    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the hyper-parameters' own."""


def main(args: Args) -> int:
    """Run the command."""
    return learn(args, "routing", FOLDER, lambda: _config(args), "mean end to end (s)")


def _config(args: Args) -> RunConfig:
    from agents.settings import ROUTING, RoutingConfig, load_hyperparameters
    from envs.scenarios import load_scenario
    from envs.scenarios.strict import validated

    asked = changes(args, _QUICK)
    if args.queue_order is not None:
        asked["queue_order"] = args.queue_order
    values = load_hyperparameters(ROUTING, args.hyperparameters, asked)
    fields: dict[str, Any] = {
        "seed": 0 if args.seed is None else args.seed,
        "reward": args.reward or "latency",
        "scenario": load_scenario(args.scenario or "router-kv6k-rate9"),
        "hyperparameters": values,
    }
    config = validated(RoutingConfig, fields, "command line")
    assert isinstance(config, RoutingConfig)
    return config


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
