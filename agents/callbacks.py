"""What happens beside learning: scalars, validation, checkpoints, progress, a clean stop."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.evaluation import mean, score, validate
from agents.model_files import Policy, read_json, save_optimiser, save_policy
from agents.runs import Run, replacing, write_json
from agents.settings import RunConfig
from envs.routing.env import RoutingEnv

EPISODE_METRICS = (
    "e2e_mean_s",
    "e2e_p99_s",
    "ttft_mean_s",
    "makespan_s",
    "preemptions",
    "rejected",
    "unfinished",
)
"""Keys of a result's summary that are logged for training and validation episodes."""
_COLUMNS = ("steps", "seed", *EPISODE_METRICS, "hold_share")


class EpisodeLog(BaseCallback):
    """Means over the episodes that ended, and shares of the actions taken, since the last log."""

    def __init__(self, rows: int) -> None:
        """Start with nothing.

        Args:
            rows: Instances among which an action chooses; any action beyond their multiples is
                the hold.
        """
        super().__init__()
        self.rows = rows
        self._clear()

    def _clear(self) -> None:
        self.ended: dict[str, list[float]] = defaultdict(list)
        self.actions: np.ndarray | int = 0
        self.obeyed = 0

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        size = self.training_env.action_space.n  # type: ignore[attr-defined]
        self.actions = self.actions + np.bincount(self.locals["actions"], minlength=size)
        self.obeyed += sum(info["action_obeyed"] for info in infos)
        for i in np.flatnonzero(self.locals["dones"]):
            for name in EPISODE_METRICS:
                self.ended[name].append(infos[i]["episode_metrics"][name])
        return True

    def _on_rollout_end(self) -> None:
        for name, values in self.ended.items():
            self.logger.record(f"episode/{name}", float(np.mean(values)))
        counts = np.asarray(self.actions)
        dispatched, total = counts[:-1].reshape(-1, self.rows).sum(axis=0), counts.sum()
        for i, count in enumerate(dispatched):
            self.logger.record(f"action/instance_{i}", float(count / total))
        self.logger.record("action/hold", float(counts[-1] / total))
        self.logger.record("action/obeyed", self.obeyed / float(total))
        self._clear()


class Keeper(BaseCallback):
    """Between updates: validates, keeps the best policy, writes checkpoints, and stops if asked.

    All of it happens before the first decision after an update, so that a checkpoint after N
    steps has learned from all N. What was collected since is dropped when training stops early.
    """

    def __init__(
        self,
        run: Run,
        config: RunConfig,
        env: RoutingEnv,
        baselines: Mapping[str, float],
        advance: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Keep what is needed.

        Args:
            run: Where files go.
            config: What is trained.
            env: An environment of the run.
            baselines: Mean E2E of each baseline on the validation episodes, seconds.
            advance: Called with the steps done since the last call.
            should_stop: Asked at every step.
        """
        super().__init__()
        self.run, self.config, self.env = run, config, env
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
        sampled = validate(self._policy(), self.config, deterministic=False)
        for name in (*EPISODE_METRICS, "hold_share"):
            self.logger.record(f"validation/{name}", mean(self.last, name))
        self.logger.record("validation/sampled_e2e_mean_s", mean(sampled, "e2e_mean_s"))
        for name, e2e_s in self.baselines.items():
            ratio = mean(self.last, "e2e_mean_s") / e2e_s
            self.logger.record(f"validation/e2e_ratio_{name}", ratio)
        self._add_rows()
        found, best = score(self.last), best_score(self.run)
        # A policy that has not learned is no result, whatever the others are like.
        if self.learned and (best is None or found < best[1:]):
            with replacing(self.run.folder / "best") as folder:
                self._save_policy(folder)
                about = {"steps": self.learned, "lost": found[0], "e2e_mean_s": found[1]}
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
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            for row in self.last:
                writer.writerow(row | {"steps": self.learned, "seed": int(row["seed"])})

    def _policy(self) -> Policy:
        policy = self.model.policy
        assert isinstance(policy, Policy)
        policy.set_training_mode(False)
        return policy

    def _save_policy(self, folder: Any) -> None:
        save_policy(folder, self._policy(), self.config, self.env, self.learned)


def best_score(run: Run) -> tuple[int, float, float] | None:
    """Steps, lost requests and mean E2E of the best policy so far, None before the first.

    Raises:
        ValueError: The file of the score is damaged.
    """
    path = run.folder / "best" / "score.json"
    if not path.is_file():
        return None
    found = read_json(path)
    try:
        return int(found["steps"]), float(found["lost"]), float(found["e2e_mean_s"])
    except (KeyError, TypeError, ValueError, OverflowError):
        problem = "must hold numbers named steps, lost and e2e_mean_s"
        raise ValueError(f"{path} {problem}: remove {path.parent}") from None
