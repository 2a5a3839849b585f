"""Training a predictor: epochs, early stopping, curves, checkpoints, and going on after a stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import Field

from envs.run_folder import RunFolder, read_json, replacing, write_json, write_text
from envs.scenarios.strict import Strict, validated
from envs.scenarios.yaml_file import read_yaml
from predictors.response_length.card import model_card
from predictors.response_length.examples import Examples
from predictors.response_length.metrics import scores
from predictors.response_length.neural import NeuralPredictor, untrained
from predictors.response_length.pretrained import Backbone
from predictors.response_length.settings import DataNote, Settings
from predictors.tensors import load_optimiser, save_optimiser

_WARM_UP = 0.05
_CLIP = 1.0
_JUDGED, _SETTLED = 4000, 8192
_CONFIG, _STATE = "config.yaml", "training.json"
_BLOCK = 32  # batches that are sorted by length together


class RunSettings(Strict):
    """Everything that a run depends on, as it stands in its `config.yaml`."""

    settings: Settings
    data: DataNote
    path: str | None = None
    """File of the examples."""
    scenario: str | None = None
    """Scenario that draws them."""
    pretrained: str | None = None
    """Folder of the backbone."""

    def write(self, folder: Path) -> None:
        """Write it into the folder of a run."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text(folder / _CONFIG, text)

    @classmethod
    def read(cls, folder: Path) -> RunSettings:
        """Read it back.

        Raises:
            ValueError: The folder is none of a run, or a value is refused.
        """
        path = folder / _CONFIG
        if not path.is_file():
            raise ValueError(f"{folder} is no training run: it holds no {_CONFIG}")
        return validated(cls, read_yaml(path), str(path))


class _State(Strict):
    epochs: int = Field(ge=0)
    best_loss: float
    best_epoch: int = Field(ge=0)
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Outcome:
    """How a run stands.

    Attributes:
        folder: Its folder.
        epochs: Epochs that are done.
        interrupted: Whether it was stopped before its end.
        best_epoch: Epoch with the least validation loss, 0 before the first.
        seconds: Time that the epochs took, validation included.
        validation: Metrics of the best epoch on the validation examples.
    """

    folder: Path
    epochs: int
    interrupted: bool
    best_epoch: int
    seconds: float
    validation: dict[str, float]


def train(
    config: RunSettings,
    train_examples: Examples,
    validation_examples: Examples,
    run: RunFolder,
    *,
    resume: bool = False,
    backbone: Backbone | None = None,
    about: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda batches: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train a predictor until its epochs are done, it no longer improves, or it is asked to stop.

    The best predictor by validation loss is kept in `best/`. A run that is stopped and resumed
    gives the same weights, bit for bit, as one that never stopped: the epoch under way begins
    anew, and the random numbers of an epoch depend on the seed and its number alone.

    Args:
        config: What to train.
        train_examples: Examples to learn from.
        validation_examples: Examples by which it is judged; of more than 4,000, so many are drawn.
        run: Where files go.
        resume: Go on from the last checkpoint of the run.
        backbone: Of a pretrained encoder.
        about: Plain values for `metadata.yaml`, such as the command.
        advance: Called with the number of batches done since its last call.
        should_stop: Asked after every batch; True stops.

    Raises:
        ValueError: The settings do not fit the examples, or the checkpoint is faulty.
    """
    from torch.utils.tensorboard import SummaryWriter

    settings = config.settings
    torch.set_num_threads(1)
    model = untrained(settings, train_examples, config.data, backbone)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    state = _State(epochs=0, best_loss=1e300, best_epoch=0, seconds=0.0)
    if resume and any(run.checkpoints.glob("*")):
        model, state = _restore(run.last_checkpoint(), model, optimiser)
    run.note_start(state.epochs, about or {})
    work = _Work(model, optimiser, settings, train_examples, _few(validation_examples, _JUDGED))
    writer = SummaryWriter(str(run.tensorboard), purge_step=state.epochs + 1)
    interrupted = False
    while not _is_done(state, settings):
        start = time.perf_counter()
        losses = []
        for loss in work.epoch(state.epochs):
            losses.append(loss)
            advance(1)
            if interrupted := should_stop():
                break
        if interrupted:
            break
        found = work.judge() | {"train_loss": float(np.mean(losses))}
        seconds = state.seconds + time.perf_counter() - start
        model.epochs = epochs = state.epochs + 1
        for name, value in found.items():
            writer.add_scalar(_tag(name), value, epochs)
        better = found["validation_loss"] < state.best_loss
        state = _State(
            epochs=epochs,
            best_loss=found["validation_loss"] if better else state.best_loss,
            best_epoch=epochs if better else state.best_epoch,
            seconds=seconds,
        )
        if better:
            with replacing(run.folder / "best") as folder:
                model.save(folder)
                write_json(folder / "scores.json", found)
                write_text(folder / "README.md", model_card(model, found, seconds))
        with replacing(run.checkpoint(epochs)) as folder:
            model.save(folder)
            save_optimiser(folder, optimiser)
            write_json(folder / _STATE, state.model_dump())
    writer.close()
    best = run.folder / "best" / "scores.json"
    return Outcome(
        run.folder,
        state.epochs,
        interrupted,
        state.best_epoch,
        state.seconds,
        dict(read_json(best)) if best.is_file() else {},
    )


def batches_of(settings: Settings, examples: int) -> int:
    """Batches of an epoch."""
    return max(1, examples // settings.batch_size)


def _is_done(state: _State, settings: Settings) -> bool:
    stale = state.epochs - state.best_epoch >= settings.patience
    return state.epochs >= settings.epochs or (state.epochs > 0 and stale)


class _Work:
    """What an epoch needs: the model, its inputs in plain form, and the optimiser."""

    def __init__(
        self,
        model: NeuralPredictor,
        optimiser: torch.optim.Optimizer,
        settings: Settings,
        examples: Examples,
        judged: Examples,
    ) -> None:
        self._model, self._optimiser, self._settings = model, optimiser, settings
        self._inputs = model.encoder.prepare(examples)
        self._sizes = np.array([model.encoder.size(one) for one in self._inputs])
        self._truth = torch.from_numpy(np.array(examples.truth()))
        self._judged, self._judged_inputs = judged, model.encoder.prepare(judged)

    def epoch(self, number: int) -> Iterator[float]:
        """Learn from all examples once; yields the loss of each batch."""
        settings, model = self._settings, self._model
        per_epoch = batches_of(settings, len(self._inputs))
        seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
        model.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for i, rows in enumerate(self._batches(np.random.default_rng(seed), per_epoch)):
                rate = _rate(number * per_epoch + i, settings.epochs * per_epoch)
                for group in self._optimiser.param_groups:
                    group["lr"] = settings.learning_rate * rate
                outputs = model([self._inputs[row] for row in rows])
                loss = model.head.loss(outputs, self._truth[torch.from_numpy(rows)])
                self._optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
                self._optimiser.step()
                yield float(loss.detach())
        if model.head.settles:
            rows = np.random.default_rng(seed).permutation(len(self._inputs))[:_SETTLED]
            outputs = model.outputs([self._inputs[row] for row in rows])
            model.head.settle(outputs, self._truth[torch.from_numpy(rows)].numpy())

    def judge(self) -> dict[str, float]:
        """Loss and metrics on the validation examples."""
        outputs = self._model.outputs(self._judged_inputs)
        truth = torch.from_numpy(np.array(self._judged.truth()))
        found = scores(self._model.head.distribution(outputs), self._judged)
        return {"validation_loss": float(self._model.head.loss(outputs, truth))} | found

    def _batches(self, rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
        """Rows of each batch: drawn at random, but of like length, as short ones are padded."""
        size = self._settings.batch_size
        order = rng.permutation(len(self._inputs))
        if self._settings.head != "ranking":  # a list to rank should hold all kinds
            blocks = np.array_split(order, max(1, round(count / _BLOCK)))
            order = np.concatenate(
                [block[np.argsort(self._sizes[block], kind="stable")] for block in blocks]
            )
        for i in rng.permutation(count):
            yield order[i * size : (i + 1) * size]


def _rate(step: int, total: int) -> float:
    """Share of the largest step size: a rise, then half of a cosine."""
    warm = max(1.0, _WARM_UP * total)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1.0 + float(np.cos(np.pi * (step - warm) / max(total - warm, 1.0))))


def _few(examples: Examples, most: int) -> Examples:
    if len(examples) <= most:
        return examples
    return examples.take(np.sort(np.random.default_rng(0).permutation(len(examples))[:most]))


def _tag(name: str) -> str:
    if name in {"train_loss", "validation_loss"}:
        return f"{name.partition('_')[0]}/loss"
    group = "calibration" if name.startswith("coverage") else "validation"
    return f"{group}/{name}"


def _restore(
    folder: Path, model: NeuralPredictor, optimiser: torch.optim.Optimizer
) -> tuple[NeuralPredictor, _State]:
    saved = NeuralPredictor.load(folder)
    if (saved.settings, saved.learned, saved.data) != (model.settings, model.learned, model.data):
        raise ValueError(f"{folder} was trained on other examples or with other settings")
    model.load_state_dict(saved.state_dict())
    model.epochs = saved.epochs
    load_optimiser(folder, optimiser)
    path = folder / _STATE
    return model, validated(_State, read_json(path), str(path))
