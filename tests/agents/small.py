"""A training run that takes a second: two instances, short episodes, small network."""

from pathlib import Path

from agents.runs import Run
from agents.settings import ROUTING, RoutingConfig, load_hyperparameters
from agents.training import Outcome, train
from envs.scenarios import load_scenario

SMALL = {
    "steps": 2048,
    "n_envs": 4,
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 2,
    "net_arch": [16],
    "checkpoint_every": 1024,
    "validate_every": 1024,
    "validation_episodes": 2,
}


def small_scenario(instances=2, requests=60):
    return load_scenario(
        "router-kv6k-rate9",
        {
            "fleet": {"groups": {"v100": {"count": instances}}},
            "workload": {"requests": requests, "rate": 5.0},
        },
    )


def small_config(seed=0, **changes) -> RoutingConfig:
    values = load_hyperparameters(ROUTING, changes=SMALL | changes)
    return RoutingConfig(seed=seed, scenario=small_scenario(), hyperparameters=values)


def train_small(folder: Path, seed=0, **changes) -> Outcome:
    config = small_config(seed, **changes)
    return train(config, Run.create(folder, config))
