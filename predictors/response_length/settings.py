"""What defines a predictor: its encoder, its head, and how they are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from envs.scenarios.strict import Strict
from envs.workloads.prompts import Grouping

Encoder = Literal["hashed", "pretrained", "metadata"]
Head = Literal["ordinal", "quantile", "classifier", "ranking"]
Buckets = Literal["five", "paper_unequal", "paper_equal", "paper_rl", "s3"]


class Settings(Strict):
    """Values of one predictor."""

    encoder: Encoder = "hashed"
    """`hashed`: a transformer over words, each the mean of its hashed n-grams; `pretrained`: a
    backbone from disk; `metadata`: numbers and names, no text."""
    head: Head = "ordinal"
    """`ordinal`: a hazard per fine bin of length; `quantile`: quantiles of log length;
    `classifier`: probabilities of buckets; `ranking`: a score that sorts a list by length."""
    buckets: Buckets = "five"
    """Buckets of a classifier."""
    hint: bool = True
    """Whether a text predictor reads "This is a <task> task" (arXiv:2408.13510 A.4.2)."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, order of examples and dropout."""

    width: int = Field(default=64, ge=4, le=1024)
    """Units of a layer."""
    layers: int = Field(default=1, ge=1, le=24)
    """Layers of the transformer, or of the network over metadata."""
    attention_heads: int = Field(default=4, ge=1, le=64)
    """Attention heads of a layer; they divide the width."""
    hash_buckets: int = Field(default=16_384, ge=64, le=2**22)
    """Rows of the table of n-gram embeddings."""
    first_words: int = Field(default=24, ge=1, le=512)
    """Words kept from the start of a prompt that is too long."""
    last_words: int = Field(default=40, ge=1, le=2048)
    """Words kept from its end."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of units dropped in training."""

    word_dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of a prompt's words hidden in training, at most; drawn for each prompt from 0 on, so
    that length and hint are learned, too, and not only the words of the prompts at hand."""

    epochs: int = Field(default=4, ge=1, le=10_000)
    """Passes over the examples, at most."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a better validation loss after which training stops."""
    batch_size: int = Field(default=128, ge=2)
    """Examples of an update."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Largest step size of Adam; it rises over the first twentieth and falls to 0 as a cosine."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of weights, per unit of step size."""

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        if self.encoder == "hashed" and self.width % self.attention_heads:
            raise ValueError(
                f"width {self.width} must be a multiple of attention_heads {self.attention_heads}"
            )
        return self

    @property
    def reads_text(self) -> bool:
        """Whether it needs prompts."""
        return self.encoder != "metadata"


DEFAULTS: dict[Encoder, dict[str, float | int | bool]] = {
    "hashed": {},
    "metadata": {
        "hint": False,
        "layers": 2,
        "epochs": 30,
        "batch_size": 256,
        "dropout": 0.0,
        "patience": 5,
    },
    "pretrained": {
        "epochs": 6,  # as in the paper
        "batch_size": 32,
        "learning_rate": 5e-5,
        "last_words": 456,
    },
}
"""Values of each encoder that differ from the fields' own."""


class DataNote(Strict):
    """What a predictor was trained on."""

    name: str
    """File or scenario."""
    sha256: str = ""
    """Of the file."""
    grouping: Grouping | None = None
    """What the split kept together; None where examples were drawn anew for each part."""
    split_seed: int = 0
    """Seed of the split."""
    most_per_task: int | None = None
    """Rows of a task, at most."""
    left_out: str | None = None
    """Task that was kept out of training."""
    train: int = 0
    """Examples."""
    validation: int = 0
    """Examples."""


class Learned(Strict):
    """What was taken from the examples before training."""

    applications: list[str] = Field(default_factory=list)
    """Applications that have an embedding (metadata)."""
    edges: list[int] = Field(default_factory=list)
    """Edges of a classifier's buckets."""
