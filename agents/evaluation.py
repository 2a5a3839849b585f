"""Serving request tables with a trained policy, and judging it on validation episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from agents.model_files import Policy, PolicyConfig, load_policy, read_policy_config
from agents.runs import Run
from agents.settings import RunConfig
from baselines.routing import router
from envs.routing.env import RoutingEnv
from envs.routing.episode import Observation
from envs.scenarios import Scenario, seeds
from envs.simulator import Result, simulate
from envs.workloads import RequestTable

BASELINES = ("round_robin", "jsq", "pull_sjf")
"""Rules that serve the same validation episodes."""


def run_agent(
    run_folder: Path,
    table: RequestTable,
    scenario: Scenario,
    seed: int,
    deterministic: bool = True,
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
        deterministic: Take the most probable action instead of a sampled one.

    Raises:
        ValueError: The folder holds no policy, its files are faulty, or the fleet is larger than
            the policy was trained for.
    """
    folder = find_policy(Path(run_folder))
    config = read_policy_config(folder)
    env = _environment(config, scenario)
    policy = load_policy(folder, *_spaces(env))
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = [{"trace": table, "scenario": scenario, "workload_seed": seed}]
        (played,) = play(policy, [env], options, np.random.default_rng(seed), deterministic)
    finally:
        torch.set_num_threads(torch_threads)
    return replace(played.result, router=f"agent:{Path(run_folder).resolve().name}")


def find_policy(folder: Path) -> Path:
    """Folder of a policy: the folder itself, or the best one of a run.

    Raises:
        ValueError: There is none.
    """
    return folder if (folder / "policy.json").is_file() else Run.open(folder).model()


@dataclass(frozen=True)
class Played:
    """One episode.

    Attributes:
        result: What happened to each request.
        actions: (window * max_instances + 1,) how often each action was taken.
        obeyed: Steps in which the environment did what the action said.
    """

    result: Result
    actions: np.ndarray
    obeyed: int

    @property
    def hold_share(self) -> float:
        """Share of decisions that held."""
        return float(self.actions[-1] / max(self.actions.sum(), 1))


def play(
    policy: Policy,
    envs: Sequence[RoutingEnv],
    options: Sequence[dict[str, Any]],
    rng: np.random.Generator,
    deterministic: bool = True,
) -> list[Played]:
    """One episode in each environment, the policy deciding for all of them at once.

    Args:
        policy: The policy.
        envs: Environments of equal spaces.
        options: Options of each one's reset.
        rng: Draws the sampled actions.
        deterministic: Take the most probable action instead of a sampled one.

    Returns:
        The episodes, in the order of the environments.
    """
    observations = [env.reset(options=o)[0] for env, o in zip(envs, options, strict=True)]
    counts = np.zeros((len(envs), policy.action_space.n), np.int64)  # type: ignore[attr-defined]
    obeyed = [0] * len(envs)
    active = list(range(len(envs)))
    while active:
        masks = np.stack([envs[i].action_masks() for i in active])
        actions = _act(policy, [observations[i] for i in active], masks, rng, deterministic)
        left = []
        for i, action in zip(active, actions, strict=True):
            observations[i], _, terminated, truncated, info = envs[i].step(action)
            counts[i, action] += 1
            obeyed[i] += int(info["action_obeyed"])
            if not (terminated or truncated):
                left.append(i)
        active = left
    return [Played(env.result(), counts[i], obeyed[i]) for i, env in enumerate(envs)]


def validate(
    policy: Policy, config: RunConfig, deterministic: bool = True
) -> list[dict[str, float]]:
    """Play the validation episodes of a run to their ends.

    Args:
        policy: The policy.
        config: The run, which says the scenario and the number of episodes.
        deterministic: Take the most probable action instead of a sampled one.

    Returns:
        The summary of each episode, with its `seed` and the `hold_share`.
    """
    chosen = validation_seeds(config)
    envs = [make_env(config) for _ in chosen]
    options = [{"workload_seed": seed} for seed in chosen]
    played = play(policy, envs, options, np.random.default_rng(config.seed), deterministic)
    return [
        {"seed": float(seed), "hold_share": p.hold_share} | p.result.summary()
        for seed, p in zip(chosen, played, strict=True)
    ]


def validate_baselines(config: RunConfig) -> dict[str, list[dict[str, float]]]:
    """What each of `BASELINES` reaches on the validation episodes of a run, as in `validate`.

    What the scenario says of the router (order of its queue, clock, window), of its clients and of
    failures holds for them too.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in BASELINES}
    for seed in validation_seeds(config):
        table, fleet = config.scenario.build(seed)
        given = config.scenario.options(table, seed)
        for name, rows in found.items():
            result = simulate(table, fleet, router(name), seed=seed, **given)
            rows.append({"seed": float(seed)} | result.summary())
    return found


def score(rows: Sequence[dict[str, float]]) -> tuple[float, float]:
    """What makes one policy better than another, smaller first: lost requests, then mean E2E.

    Without the first, a policy could look fast by having its slow requests rejected.
    """
    lost = sum(row["rejected"] + row["unfinished"] for row in rows)
    return lost, mean(rows, "e2e_mean_s")


def mean(rows: Sequence[dict[str, float]], key: str) -> float:
    """Mean of a metric over episodes."""
    return float(np.mean([row[key] for row in rows]))


def validation_seeds(config: RunConfig) -> range:
    """Seeds of the validation episodes of a run."""
    return seeds("validation", config.hyperparameters.validation_episodes)


def env_options(config: RunConfig) -> dict[str, Any]:
    """Arguments of the environments of a run, but for when their episodes are cut."""
    return {
        "scenario": config.scenario,
        "reward": config.reward_function(),
        "queue_order": config.hyperparameters.queue_order,
    }


def make_env(config: RunConfig) -> RoutingEnv:
    """One environment of a run, whose episodes are played to their ends."""
    made = gymnasium.make(f"envs:{config.env}", disable_env_checker=True, **env_options(config))
    # The wrappers only guard against misuse, which costs a quarter of a step.
    env = made.unwrapped
    assert isinstance(env, RoutingEnv)
    return env


def _environment(config: PolicyConfig, scenario: Scenario) -> RoutingEnv:
    options = scenario.router
    given = options.model_fields_set
    order, interval = options.queue_order, options.decision_interval_s
    env = gymnasium.make(
        f"envs:{config.env}",
        disable_env_checker=True,
        scenario=scenario,
        max_instances=config.max_instances,
        window=config.window,
        queue_order=order or config.queue_order,
        decision_interval_s=(
            interval if "decision_interval_s" in given else config.decision_interval_s
        ),
    ).unwrapped
    assert isinstance(env, RoutingEnv)
    return env


def _spaces(env: RoutingEnv) -> tuple[Any, Any]:
    return env.observation_space, env.action_space


def _act(
    policy: Policy,
    observations: Sequence[Observation],
    masks: np.ndarray,
    rng: np.random.Generator,
    deterministic: bool,
) -> list[int]:
    keys = observations[0]
    batch = {key: torch.from_numpy(np.stack([o[key] for o in observations])) for key in keys}
    with torch.no_grad():
        distribution: Any = policy.get_distribution(batch, action_masks=masks)
        chances = distribution.distribution.probs.numpy()
    if not deterministic:
        # Exponential race: the smallest time is action a's with probability chances[a].
        with np.errstate(divide="ignore"):
            chances = chances / rng.standard_exponential(chances.shape)
    # A mask leaves a probability of about 0, but not always 0 itself.
    return [int(a) for a in np.where(masks, chances, -1.0).argmax(axis=1)]
