"""A predictor that is learned by gradient descent: an encoder and a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from envs.scenarios.strict import Strict, validated
from predictors.response_length.buckets import edges_of
from predictors.response_length.distribution import LengthDistribution
from predictors.response_length.encoders import build_encoder
from predictors.response_length.examples import Examples
from predictors.response_length.heads import build_head
from predictors.response_length.pretrained import Backbone, PretrainedEncoder, rebuild_backbone
from predictors.response_length.settings import DataNote, Learned, Settings
from predictors.response_length.storage import (
    DESCRIPTION,
    WEIGHTS,
    read_description,
    read_tensors,
    write_predictor,
)
from predictors.tensors import put_weights

KIND = "neural"
_BATCH = 256


class Description(Strict):
    """What `predictor.json` holds of such a predictor."""

    kind: str
    settings: Settings
    learned: Learned
    data: DataNote
    epochs: int
    """Epochs that it was trained for."""
    weights_sha256: str


class NeuralPredictor(nn.Module):
    """An encoder and a head.

    Attributes:
        settings: What it is.
        learned: What it took from the training examples before training.
        data: What it was trained on.
        epochs: Epochs that it was trained for.
    """

    def __init__(
        self,
        settings: Settings,
        learned: Learned,
        data: DataNote,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.learned, self.data, self.epochs = settings, learned, data, 0
        encoder: Any = build_encoder(settings, learned, backbone)
        self.encoder = encoder
        self.head = build_head(settings, learned, encoder.units)

    @property
    def hint(self) -> bool:
        """Whether it is told the task: as a hint, or as a name among metadata."""
        return self.settings.hint or not self.reads_text

    @property
    def reads_text(self) -> bool:
        """Whether it needs prompts."""
        return self.settings.reads_text

    def forward(self, batch: Sequence[Any]) -> torch.Tensor:
        """Outputs of the head for a batch of prepared inputs."""
        outputs: torch.Tensor = self.head(self.encoder(batch))
        return outputs

    def predict(self, examples: Examples) -> LengthDistribution:
        """The distributions of the answers' lengths, one a request.

        Raises:
            ValueError: A text predictor is given no prompts, or there are no requests.
        """
        if not len(examples):
            raise ValueError("there are no requests to predict")
        return self.head.distribution(self.outputs(self.encoder.prepare(examples)))

    def outputs(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Outputs of the head for any number of prepared inputs, without dropout or gradients."""
        was_training = self.training
        self.eval()
        # Inputs of like length together, as short ones are padded to the longest of their batch.
        order = np.argsort([self.encoder.size(one) for one in prepared], kind="stable")
        found = []
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                found.append(self([prepared[i] for i in order[start : start + _BATCH]]))
        self.train(was_training)
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return torch.cat(found)[back].clone()

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        about = Description(
            kind=KIND,
            settings=self.settings,
            learned=self.learned,
            data=self.data,
            epochs=self.epochs,
            weights_sha256="",
        ).model_dump(exclude={"kind", "weights_sha256"})
        write_predictor(folder, KIND, about, self.state_dict())
        if isinstance(self.encoder, PretrainedEncoder):
            self.encoder.description.save(folder)

    @classmethod
    def load(cls, folder: Path) -> NeuralPredictor:
        """Rebuild a predictor from its folder, without executing anything that is stored there.

        Raises:
            ValueError: A file cannot be read, was changed, or does not fit the others.
        """
        about = read_description(folder)
        known = validated(Description, about, str(folder / DESCRIPTION))
        backbone = rebuild_backbone(folder) if known.settings.encoder == "pretrained" else None
        found = cls(known.settings, known.learned, known.data, backbone)
        put_weights(found, read_tensors(folder, about), folder / WEIGHTS)
        found.epochs = known.epochs
        found.eval()
        return found


def untrained(
    settings: Settings, examples: Examples, data: DataNote, backbone: Backbone | None = None
) -> NeuralPredictor:
    """A predictor that has taken what it needs from the examples, with random weights.

    Args:
        settings: What it is.
        examples: Those that it will be trained on.
        data: Where they come from.
        backbone: Of a pretrained encoder.

    Raises:
        ValueError: The settings do not fit the examples or the backbone.
    """
    truth = examples.truth()
    learned = Learned(
        applications=sorted(set(examples.application)) if not settings.reads_text else [],
        edges=list(edges_of(settings.buckets, truth)) if settings.head == "classifier" else [],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        found = NeuralPredictor(settings, learned, data, backbone)
    found.head.start(truth)
    return found
