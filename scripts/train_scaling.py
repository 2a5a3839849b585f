"""Train a scaling policy by reinforcement learning (PPO)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from scripts.training import TrainArgs, changes, learn

if TYPE_CHECKING:
    from agents.settings import RunConfig

EXAMPLE = """servegym train scaling
  servegym train scaling --scenario scaling-quarter --epoch-s 300 --seed 1 -o runs/scaler
  servegym train scaling --resume runs/scaler --steps 500000
  tensorboard --logdir runs/scaler/tensorboard"""

FOLDER = Path("runs/train-scaling")
_QUICK = {
    "steps": 1_500,
    "n_envs": 4,
    "n_steps": 96,
    "batch_size": 128,
    "validate_every": 750,
    "validation_episodes": 1,
}


@dataclass(frozen=True, kw_only=True)
class Args(TrainArgs):
    """Options of `servegym train scaling`."""

    scenario: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files to train on, which copies of the environment take in turn;
    scaling-tenth unless given."""
    epoch_s: float | None = None
    """Seconds between decisions, 60 to 3,600; those of the hyper-parameters unless given."""


def main(args: Args) -> int:
    """Run the command."""
    return learn(args, "scaling", FOLDER, lambda: _config(args), "mean return (dollars)")


def _config(args: Args) -> RunConfig:
    from agents.settings import SCALING, ScalingConfig, load_hyperparameters
    from envs.scaling.build import scaling_of
    from envs.scenarios import load_scenario
    from envs.scenarios.strict import validated

    asked = changes(args, _QUICK) | {"epoch_s": args.epoch_s}
    values = load_hyperparameters(SCALING, args.hyperparameters, asked)
    names = args.scenario or ("scaling-tenth",)
    if values.n_envs < len(names):
        raise ValueError(
            f"--scenario: {len(names)} scenarios need as many copies of the environment: "
            f"--n-envs {len(names)}"
        )
    scenarios = [load_scenario(name) for name in names]
    for scenario in scenarios:
        scaling_of(scenario)
    fields: dict[str, Any] = {
        "seed": 0 if args.seed is None else args.seed,
        "scenarios": scenarios,
        "hyperparameters": values,
    }
    config = validated(ScalingConfig, fields, "command line")
    assert isinstance(config, ScalingConfig)
    return config


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
