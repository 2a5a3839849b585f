"""Serving request tables with a trained policy, and judging it on validation episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.model_files import load_policy, read_policy_config
from agents.networks import Policy
from agents.play import Played, play
from agents.problems import PROBLEMS, environment, problem_of
from agents.problems.base import Rows
from agents.runs import Run
from agents.settings import RunConfig
from envs.scenarios import Scenario
from envs.simulator import Result
from envs.workloads import RequestTable


def run_agent(
    run_folder: Path,
    table: RequestTable,
    scenario: Scenario,
    seed: int,
    deterministic: bool | None = None,
) -> Result:
    """Serve a request table with the policy of a training run.

    The requests, their predicted lengths, the fleet and the objectives are those given, so the
    result is paired with that of any baseline on the same table. What the scenario leaves open
    (order of the router queue, clock of decisions) is as it was in training.

    Args:
        run_folder: Folder of the run (its best policy), or of one policy inside it.
        table: Requests, with predicted output lengths.
        scenario: Fleet and service objectives.
        seed: Seed of sampled actions.
        deterministic: Take the most probable action instead of a sampled one; without it, as the
            problem has it.

    Raises:
        ValueError: The folder holds no policy, its files are faulty, or the fleet is larger than
            the policy was trained for.
    """
    env, _ = play_agent(run_folder, table, scenario, seed, deterministic)
    result: Result = env.result()
    return replace(result, router=f"agent:{Path(run_folder).resolve().name}")


def play_agent(
    run_folder: Path,
    table: RequestTable,
    scenario: Scenario,
    seed: int,
    deterministic: bool | None = None,
) -> tuple[Any, Played]:
    """As `run_agent`; gives the environment at the end of the episode, and what was played."""
    folder = find_policy(Path(run_folder))
    config = read_policy_config(folder)
    env = environment(config, scenario)
    policy = load_policy(folder, env.observation_space, env.action_space)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = [{"trace": table, "scenario": scenario, "workload_seed": seed}]
        greedy = greedily(config.env, deterministic)
        (played,) = play(policy, [env], options, np.random.default_rng(seed), greedy)
    finally:
        torch.set_num_threads(torch_threads)
    return env, played


def find_policy(folder: Path) -> Path:
    """Folder of a policy: the folder itself, or the best one of a run.

    Raises:
        ValueError: There is none.
    """
    return folder if (folder / "policy.json").is_file() else Run.open(folder).model()


def greedily(env: str, deterministic: bool | None) -> bool:
    """Whether a policy takes its most probable actions: as asked for, or as the problem has it."""
    return not PROBLEMS[env].acts_by_chance if deterministic is None else deterministic


def validate(policy: Policy, config: RunConfig, deterministic: bool | None = None) -> Rows:
    """Play the validation episodes of a run to their ends.

    Args:
        policy: The policy.
        config: The run, which says the scenarios and the number of episodes.
        deterministic: As of `run_agent`.

    Returns:
        The metrics of each episode, with its `seed`.
    """
    problem = problem_of(config)
    chosen = problem.validation()
    envs = [problem.make_env(scenario) for scenario, _ in chosen]
    options = [{"workload_seed": seed} for _, seed in chosen]
    rng = np.random.default_rng(config.seed)
    played = play(policy, envs, options, rng, greedily(config.env, deterministic))
    return [
        {"seed": float(seed)} | problem.row(p) for (_, seed), p in zip(chosen, played, strict=True)
    ]


def validate_baselines(config: RunConfig) -> dict[str, Rows]:
    """What rules reach on the validation episodes of a run, as in `validate`, by name."""
    return problem_of(config).baselines()
