"""Training by PPO, masked where actions are: build, learn, keep; and go on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from agents.callbacks import EpisodeLog, Keeper, best_score
from agents.model_files import read_policy_config, read_weights
from agents.play import mean
from agents.problems import problem_of
from agents.runs import Run
from agents.settings import RunConfig
from agents.smdp import Durations, SMDPRolloutBuffer, UnmaskedSMDPRolloutBuffer
from agents.vector import StableBaselinesVecEnv
from envs.run_folder import read_json
from envs.scenarios.strict import Strict, validated
from predictors.tensors import load_optimiser, put_weights

Learner = MaskablePPO | PPO


@dataclass(frozen=True)
class Outcome:
    """How a training run stands.

    Attributes:
        folder: Its folder.
        steps: Environment steps that the policy has learned from.
        interrupted: Whether it was stopped before its end.
        judged: What policies are judged by: `e2e_mean_s`, or `return`.
        validation: Its mean over the validation episodes by policy: the baselines, and the agent
            at its `final` and its `best` evaluation, where there was one.
        best_steps: Steps that the best policy had learned from, None before the first.
    """

    folder: Path
    steps: int
    interrupted: bool
    judged: str
    validation: dict[str, float]
    best_steps: int | None = None


class _Progress(Strict):
    steps: int = Field(ge=0)
    updates: int = Field(ge=0)


def train(
    config: RunConfig,
    run: Run,
    *,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda steps: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train a policy until `config.hyperparameters.steps`, or until asked to stop.

    The same configuration gives the same weights, bit for bit, on the same machine and versions
    with one thread. A resumed run is as reproducible, but not equal to one that never stopped:
    the episodes that were under way begin anew, with workloads of their own seed.

    Args:
        config: What to train.
        run: Where files go.
        resume: Go on from the last checkpoint of the run; what was found later is removed.
        about: Plain values for `metadata.yaml`, such as the command.
        advance: Called with the number of steps done since its last call.
        should_stop: Asked after every step; True stops, with a checkpoint.

    Raises:
        ValueError: There is no checkpoint to resume, it is faulty, or it is past the end.
    """
    values, problem = config.hyperparameters, problem_of(config)
    torch.set_num_threads(values.threads)
    env = make_vec_env(config)
    single = problem.make_env()
    try:
        model = build_model(config, env)
        if resume:
            _restore(model, config, run)
            run.go_back_to(model.num_timesteps, lambda path: read_policy_config(path).steps)
        # Anew at every start, so that a resumed run does not replay the first episodes.
        model.set_random_seed(_seed_at(config.seed, model.num_timesteps))
        model.set_logger(configure(str(run.tensorboard), ["tensorboard"]))
        run.note_start(model.num_timesteps, about or {})
        judged = problem.judged
        baselines = {name: mean(rows, judged) for name, rows in problem.baselines().items()}
        keeper = Keeper(run, config, single, baselines, advance, should_stop)
        callbacks = [Durations(), EpisodeLog(problem.metrics, problem.step_log(single)), keeper]
        left = values.steps - model.num_timesteps
        model.learn(left, callback=callbacks, reset_num_timesteps=False)
        if keeper.interrupted:
            keeper.save_checkpoint()
        else:
            keeper.finish()
        model.logger.close()
    finally:
        env.close()
    agent = {"final": mean(keeper.last, judged)} if not keeper.interrupted else {}
    best = best_score(run, problem.scored)
    if best is not None:
        agent["best"] = best[2] if problem.lower_is_better else -best[2]
    return Outcome(
        run.folder,
        keeper.learned,
        keeper.interrupted,
        judged,
        baselines | agent,
        None if best is None else best[0],
    )


def make_vec_env(config: RunConfig) -> VecEnv:
    """The environment copies that training steps, with episode returns in `info["episode"]`."""
    return VecMonitor(StableBaselinesVecEnv(problem_of(config).make_batch()))


def build_model(config: RunConfig, env: VecEnv) -> Learner:
    """An untrained learner. Discounting is by time, in `agents.smdp`; `gamma` has no effect."""
    values, problem = config.hyperparameters, problem_of(config)
    learner, buffer = (
        (MaskablePPO, SMDPRolloutBuffer) if problem.masked else (PPO, UnmaskedSMDPRolloutBuffer)
    )
    model = learner(
        "MultiInputPolicy",
        env,
        learning_rate=values.learning_rate,
        n_steps=values.n_steps,
        batch_size=values.batch_size,
        n_epochs=values.n_epochs,
        gamma=1.0,
        gae_lambda=values.gae_lambda,
        clip_range=values.clip_range,
        ent_coef=values.ent_coef,
        vf_coef=values.vf_coef,
        max_grad_norm=values.max_grad_norm,
        target_kl=values.target_kl,
        rollout_buffer_class=buffer,
        rollout_buffer_kwargs={"tau_s": values.discount_tau_s()},
        policy_kwargs=problem.network(),
        seed=_seed_at(config.seed, 0),
        device="cpu",
    )
    problem.prepare(model.policy)
    return model


def _seed_at(seed: int, steps: int) -> int:
    """Seed of a start after so many steps; neighbouring seeds share no environment seeds."""
    return int(np.random.SeedSequence([seed, steps]).generate_state(1)[0] >> 1)


def _restore(model: Learner, config: RunConfig, run: Run) -> None:
    folder = run.last_checkpoint()
    put_weights(model.policy, *read_weights(folder))
    load_optimiser(folder, model.policy.optimizer)
    path = folder / "training.json"
    state = validated(_Progress, read_json(path), str(path))
    if state.steps >= config.hyperparameters.steps:
        raise ValueError(
            f"{run.folder} is trained to its end of {config.hyperparameters.steps} steps: "
            "ask for more with --steps"
        )
    model.num_timesteps, model._n_updates = state.steps, state.updates
