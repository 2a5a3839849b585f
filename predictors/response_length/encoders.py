"""Encoders: from a batch of requests to one vector a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from predictors.response_length.examples import Examples, hint_of, texts_of
from predictors.response_length.pretrained import PretrainedEncoder
from predictors.response_length.settings import Learned, Settings
from predictors.response_length.words import bags, shortened, words_of

HINT_WORDS = 10
"""Words of a hint, at most."""
_NUMBERS, _TEXT_NUMBERS = 4, 3


class EncoderModule(Protocol):
    """A module that encodes batches.

    `prepare` turns requests into plain inputs, once, so that training need not do it in every
    epoch; `size` is how long an input is, so that batches hold inputs of like length; and `forward`
    takes a list of inputs.
    """

    units: int

    def prepare(self, examples: Examples) -> list[Any]:
        """Inputs of `forward`, one a request."""

    def size(self, prepared: Any) -> int:
        """Length of an input."""

    def __call__(self, batch: Sequence[Any]) -> torch.Tensor:
        """(n, units) vectors."""


class MetadataEncoder(nn.Module):
    """A network over prompt tokens, the application and the tenant's history."""

    def __init__(self, settings: Settings, learned: Learned) -> None:
        super().__init__()
        self._place = {name: i + 1 for i, name in enumerate(learned.applications)}
        self.application = nn.Embedding(len(self._place) + 1, settings.width)
        layers: list[nn.Module] = []
        inputs = settings.width + _NUMBERS
        for _ in range(settings.layers):
            layers += [nn.Linear(inputs, settings.width), nn.GELU(), nn.Dropout(settings.dropout)]
            inputs = settings.width
        self.network = nn.Sequential(*layers)
        self.units = settings.width

    def prepare(self, examples: Examples) -> list[Any]:
        """Place of the application (0 unknown) and numbers of each request."""
        numbers = metadata_numbers(examples)
        places = [self._place.get(name, 0) for name in examples.application]
        return list(zip(places, numbers, strict=True))

    def size(self, prepared: Any) -> int:
        """All are of one length."""
        return 1

    def forward(self, batch: Sequence[Any]) -> torch.Tensor:
        """(n, units) vectors."""
        places = torch.tensor([place for place, _ in batch])
        numbers = torch.from_numpy(np.array([row for _, row in batch], np.float32))
        encoded: torch.Tensor = self.network(torch.cat([self.application(places), numbers], dim=1))
        return encoded


class HashedEncoder(nn.Module):
    """A small transformer over words, each the mean of the embeddings of its hashed n-grams.

    The hint's words stand before the prompt's; their mean also passes the transformer by, so that
    it counts for a prompt of a kind that training never met.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self._settings = settings
        longest = settings.first_words + settings.last_words + (HINT_WORDS if settings.hint else 0)
        self.parts = nn.EmbeddingBag(settings.hash_buckets, width, mode="mean")
        self.places = nn.Embedding(longest + 1, width)
        self.numbers = nn.Linear(_TEXT_NUMBERS, width)
        layer = nn.TransformerEncoderLayer(
            width,
            settings.attention_heads,
            2 * width,
            settings.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.transformer = nn.TransformerEncoder(
            layer, settings.layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.hint = nn.LayerNorm(width)
        self.units = 3 * width + _TEXT_NUMBERS
        for table in (self.parts, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def prepare(self, examples: Examples) -> list[Any]:
        """Words, the hint's first and how many those are, and numbers of each request."""
        settings, texts = self._settings, texts_of(examples)
        words = [
            shortened(words_of(text), settings.first_words, settings.last_words) for text in texts
        ]
        known = set(examples.application) if settings.hint else set()
        hints = {name: words_of(hint_of(name))[:HINT_WORDS] for name in known}
        told = [hints.get(name, []) for name in examples.application]
        words = [hint + own for hint, own in zip(told, words, strict=True)]
        sizes = [[len(text), len(text.split())] for text in texts]
        numbers = np.log1p(np.column_stack([sizes, examples.prompt_tokens])) / 8.0
        return list(zip(words, map(len, told), numbers.astype(np.float32), strict=True))

    def size(self, prepared: Any) -> int:
        """Number of words."""
        return len(prepared[0])

    def forward(self, batch: Sequence[Any]) -> torch.Tensor:
        """(n, units) vectors."""
        numbers = torch.from_numpy(np.stack([row for _, _, row in batch]))
        place: dict[str, int] = {}
        longest = max(len(words) for words, _, _ in batch)
        # Place 0 of each request stands for the whole; a word's number is its place in `place`.
        which = np.full((len(batch), longest), -1)
        for i, (words, _, _) in enumerate(batch):
            which[i, : len(words)] = [place.setdefault(word, len(place)) for word in words]
        in_hint = torch.arange(longest) < torch.tensor([count for _, count, _ in batch])[:, None]
        hidden_words = torch.from_numpy(which < 0)
        if self.training:
            share = self._settings.word_dropout * torch.rand(len(batch), 1)
            hidden_words |= (torch.rand(which.shape) < share) & ~in_hint
        absent = torch.cat([torch.zeros(len(batch), 1, dtype=torch.bool), hidden_words], dim=1)
        vectors = self._vectors(list(place))[torch.from_numpy(np.maximum(which, 0))]
        hint = (vectors * in_hint.unsqueeze(-1)).sum(dim=1)
        inputs = torch.cat([self.numbers(numbers)[:, None], vectors], dim=1)
        inputs = inputs + self.places.weight[: longest + 1]
        hidden = self.transformer(inputs, src_key_padding_mask=absent)
        present = (~absent).unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * present).sum(dim=1) / present.sum(dim=1)
        return torch.cat([hidden[:, 0], mean, self.hint(hint), numbers], dim=1)

    def _vectors(self, words: list[str]) -> torch.Tensor:
        rows, starts = bags(words or [""], self._settings.hash_buckets)
        vectors: torch.Tensor = self.parts(torch.from_numpy(rows), torch.from_numpy(starts))
        return vectors


def metadata_numbers(examples: Examples) -> np.ndarray:
    """(n, 4) float32: prompt tokens and the tenant's history, of the order of 1."""
    count, log_mean = examples.history()
    columns = [np.log(examples.prompt_tokens), np.log1p(count), log_mean, 8.0 * (count > 0)]
    return np.column_stack(columns).astype(np.float32) / 8.0


def build_encoder(settings: Settings, learned: Learned, backbone: Any = None) -> EncoderModule:
    """An untrained encoder.

    Args:
        settings: Which.
        learned: What it needs to know of the examples.
        backbone: Of a pretrained one, see `predictors.response_length.pretrained`.
    """
    if settings.encoder == "metadata":
        return MetadataEncoder(settings, learned)
    if settings.encoder == "hashed":
        return HashedEncoder(settings)
    return PretrainedEncoder(settings, backbone)
