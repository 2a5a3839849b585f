"""Train a throttling policy by reinforcement learning (PPO)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from envs.throttling.layout import Interface
from scripts.training import TrainArgs, changes, learn

if TYPE_CHECKING:
    from agents.settings import RunConfig

EXAMPLE = """servegym train throttling
  servegym train throttling --interface gate --seed 1 -o runs/gate
  servegym train throttling --scenario throttling-train-z10-a3-x200 throttling-train-z16-a0-x200
  servegym train throttling --resume runs/gate --steps 2000000
  tensorboard --logdir runs/gate/tensorboard"""

FOLDER = Path("runs/train-throttling")
_QUICK = {
    "steps": 4_000,
    "n_steps": 32,
    "batch_size": 256,
    "validate_every": 2_000,
    "validation_episodes": 1,
}


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Options of `servegym train throttling`."""

    interface: Interface | None = None
    """What is learned, tuner unless given: tuner sets limits and scheduler every few seconds, gate
    admits, defers or rejects the first call of every interaction."""
    scenario: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files to train on, which copies of the environment take in turn;
    throttling-load-200 unless given."""


def main(args: Args) -> int:
    """Run the command."""
    return learn(args, "throttling", FOLDER, lambda: _config(args), "mean return (typical calls)")


def _config(args: Args) -> RunConfig:
    from agents.settings import THROTTLING, ThrottlingConfig, load_hyperparameters
    from envs.scenarios import load_scenario
    from envs.scenarios.strict import validated

    interface = args.interface or "tuner"
    asked = changes(args, _QUICK)
    values = load_hyperparameters(THROTTLING, args.hyperparameters, asked, interface)
    names = args.scenario or ("throttling-load-200",)
    if values.n_envs < len(names):
        raise ValueError(
            f"--scenario: {len(names)} scenarios need as many copies of the environment: "
            f"--n-envs {len(names)}"
        )
    fields: dict[str, Any] = {
        "seed": 0 if args.seed is None else args.seed,
        "interface": interface,
        "scenarios": [load_scenario(name) for name in names],
        "hyperparameters": values,
    }
    config = validated(ThrottlingConfig, fields, "command line")
    assert isinstance(config, ThrottlingConfig)
    return config


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
