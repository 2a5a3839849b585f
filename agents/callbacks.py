"""What happens beside learning: scalars, validation, checkpoints, progress, a clean stop."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.evaluation import validate
from agents.model_files import save_policy
from agents.networks import MaskedPolicy, Policy, UnmaskedPolicy
from agents.play import mean
from agents.problems import problem_of
from agents.problems.base import StepLog
from agents.runs import Run
from agents.settings import RunConfig
from envs.run_folder import read_json, replacing, write_json
from predictors.tensors import save_optimiser


class EpisodeLog(BaseCallback):
    """Means over the episodes that ended, and of what was done, since the last log."""

    def __init__(self, metrics: Sequence[str], steps: StepLog) -> None:
        """Start with nothing.

        Args:
            metrics: Keys of an episode's summary.
            steps: What is counted of every step.
        """
        super().__init__()
        self.metrics, self.steps = metrics, steps
        self.ended: dict[str, list[float]] = defaultdict(list)

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.steps.add(self.locals["actions"], infos)
        for i in np.flatnonzero(self.locals["dones"]):
            for name in self.metrics:
                self.ended[name].append(infos[i]["episode_metrics"][name])
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self.ended.items():
            self.logger.record(f"episode/{name}", float(np.mean(values)))
        for tag, value in self.steps.scalars().items():
            self.logger.record(tag, value)
        self.ended.clear()


class Keeper(BaseCallback):
    """Between updates: validates, keeps the best policy, writes checkpoints, and stops if asked.

    All of it happens before the first decision after an update, so that a checkpoint after N
    steps has learned from all N. What was collected since is dropped when training stops early.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        env: Any,
        baselines: Mapping[str, float],
        advance: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Keep what is needed.

        Args:
            run: Where files go.
            config: What is trained.
            env: An environment of the run.
            baselines: What each baseline is judged by, mean over the validation episodes.
            advance: Called with the steps done since the last call.
            should_stop: Asked at every step.
        """
        super().__init__()
        self.run, self.config, self.env = run, config, env
        self.problem = problem_of(config)
        self.baselines, self.advance, self.should_stop = baselines, advance, should_stop
        self.learned = 0
        """Steps that the policy has learned from."""
        self.last: list[dict[str, float]] = []
        """The latest validation episodes."""
        self.interrupted = False
        self._validated, self._saved = -1, 0

    def _on_training_start(self) -> None:
        self.learned = self.model.num_timesteps
        if self.learned:  # resumed: this step was kept by the process before
            self._validated = self._saved = self.learned

    def _on_rollout_start(self) -> None:
        done = self.model.num_timesteps
        self.learned = done
        every = self.config.hyperparameters
        if self._is_due(self._validated, every.validate_every):
            self.validate_now()
        if done and self._is_due(self._saved, every.checkpoint_every):
            self.save_checkpoint()
        self.logger.dump(done)

    def _is_due(self, last: int, every: int) -> bool:
        return last < 0 or self.learned // every > last // every

    def _on_step(self) -> bool:
        self.advance(len(self.locals["infos"]))
        self.interrupted = self.interrupted or self.should_stop()
        return not self.interrupted

    def finish(self) -> None:
        """Validate and keep what the last update made, and write the final policy."""
        self.learned = self.model.num_timesteps
        if self._validated != self.learned or not self.last:
            self.validate_now()
        self.logger.dump(self.learned)
        self.save_checkpoint()
        with replacing(self.run.folder / "final") as folder:
            self._save_policy(folder)

    def validate_now(self) -> None:
        """Play the validation episodes, log and table them, and keep the policy if it is best."""
        self.last = validate(self._policy(), self.config)
        self._validated = self.learned
        problem = self.problem
        other = validate(self._policy(), self.config, deterministic=problem.acts_by_chance)
        for name in (*problem.metrics, *problem.acted):
            self.logger.record(f"validation/{name}", mean(self.last, name))
        found = mean(self.last, problem.judged)
        way = "greedy" if problem.acts_by_chance else "sampled"
        self.logger.record(f"validation/{way}_{problem.judged}", mean(other, problem.judged))
        for name, value in self.baselines.items():
            tag, compared = problem.against(name, found, value)
            self.logger.record(f"validation/{tag}", compared)
        self._add_rows()
        score, best = problem.score(self.last), best_score(self.run, problem.scored)
        # A policy that has not learned is no result, whatever the others are like.
        if self.learned and (best is None or score < best[1:]):
            with replacing(self.run.folder / "best") as folder:
                self._save_policy(folder)
                about = {"steps": self.learned, "lost": score[0], problem.scored: score[1]}
                write_json(folder / "score.json", about)

    def save_checkpoint(self) -> None:
        """Write all that `--resume` needs, as of the last update."""
        if self._saved == self.learned and self.run.checkpoint(self.learned).is_dir():
            return
        model: Any = self.model
        with replacing(self.run.checkpoint(self.learned)) as folder:
            self._save_policy(folder)
            save_optimiser(folder, model.policy.optimizer)
            state = {"steps": self.learned, "updates": model._n_updates}
            write_json(folder / "training.json", state)
        self._saved = self.learned

    def _add_rows(self) -> None:
        path = self.run.validation
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            columns = ("steps", "seed", *self.problem.metrics, *self.problem.acted)
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            for row in self.last:
                writer.writerow(row | {"steps": self.learned, "seed": int(row["seed"])})

    def _policy(self) -> Policy:
        policy = self.model.policy
        assert isinstance(policy, MaskedPolicy | UnmaskedPolicy)
        policy.set_training_mode(False)
        return policy

    def _save_policy(self, folder: Any) -> None:
        save_policy(folder, self._policy(), self.config, self.env, self.learned)


def best_score(run: Run, key: str = "e2e_mean_s") -> tuple[int, float, float] | None:
    """Steps, lost requests and score of the best policy so far, None before the first.

    Args:
        run: The run.
        key: Name of the score in its file, `Problem.scored`.

    Raises:
        ValueError: The file of the score is damaged.
    """
    path = run.folder / "best" / "score.json"
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        return int(found["steps"]), float(found["lost"]), float(found[key])
    except (KeyError, TypeError, ValueError, OverflowError):
        problem = f"must hold numbers named steps, lost and {key}"
        raise ValueError(f"{path} {problem}: remove {path.parent}") from None
