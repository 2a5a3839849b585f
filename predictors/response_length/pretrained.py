"""A pretrained backbone as an encoder, from weights on disk: DistilBERT, as in the paper."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from envs.run_folder import read_json, write_json
from predictors.response_length.examples import Examples, hint_of, texts_of
from predictors.response_length.settings import Settings

_CONFIG, _TOKENIZER = "backbone.json", "tokenizer"
_MARKS = 2


@dataclass(frozen=True)
class Backbone:
    """A network of the `transformers` package and its tokenizer.

    Attributes:
        model: The network.
        tokenizer: Its tokenizer.
    """

    model: Any
    tokenizer: Any

    def save(self, folder: Path) -> None:
        """Write all but the weights into a folder, which a predictor's own file holds."""
        write_json(folder / _CONFIG, json.loads(self.model.config.to_json_string(use_diff=False)))
        self.tokenizer.save_pretrained(folder / _TOKENIZER)


def read_backbone(folder: Path) -> Backbone:
    """A backbone with the weights that lie in a folder, as `save_pretrained` writes them.

    Nothing is downloaded, no code from the folder is run, and weights that are pickled are not
    read.

    Raises:
        ValueError: There is no such folder, it holds no model, or `transformers` is absent.
    """
    if not folder.is_dir():
        raise ValueError(
            f"--pretrained {folder}: there is no such folder. Nothing is downloaded here: get the "
            "weights yourself (hf download distilbert-base-uncased --local-dir PATH) and name "
            "their folder"
        )
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"--pretrained {folder} holds no pretrained model: expected config.json and weights "
            "as .safetensors (a pickled pytorch_model.bin is not read)"
        )
    transformers = load_transformers()
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise ValueError(f"--pretrained {folder} cannot be used: {problem}") from None
    return Backbone(model.float(), tokenizer)


def rebuild_backbone(folder: Path) -> Backbone:
    """What `Backbone.save` wrote, with weights still to be filled in.

    Raises:
        ValueError: A file is missing or faulty, or `transformers` is absent.
    """
    transformers = load_transformers()
    values = read_json(folder / _CONFIG)
    try:
        config = transformers.AutoConfig.for_model(**values)
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / _TOKENIZER, local_files_only=True, trust_remote_code=False
        )
        return Backbone(transformers.AutoModel.from_config(config), tokenizer)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / _CONFIG} describes no backbone: {error}") from None


def load_transformers() -> Any:
    """Import `transformers`, told never to use the network.

    Raises:
        ValueError: It is absent.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise ValueError(
            "a pretrained encoder needs transformers: pip install 'servegym[transformers]'"
        ) from None


class PretrainedEncoder(nn.Module):
    """A backbone whose last hidden states are averaged over the tokens of a prompt.

    Of a prompt that is too long, `first_words` tokens from its start and `last_words` from its
    end are kept, so that task and question both remain.
    """

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        super().__init__()
        self._settings, self.description = settings, backbone
        self.backbone: nn.Module = backbone.model
        self.units = int(backbone.model.config.hidden_size)
        most = int(getattr(backbone.model.config, "max_position_embeddings", 2**31))
        wanted = settings.first_words + settings.last_words + _MARKS
        if wanted > most:
            raise ValueError(
                f"first_words {settings.first_words} + last_words {settings.last_words} and "
                f"{_MARKS} marks are more than the {most} tokens of the backbone"
            )

    def prepare(self, examples: Examples) -> list[Any]:
        """Tokens of each prompt, with the hint behind it."""
        texts = texts_of(examples)
        if self._settings.hint:
            hints = map(hint_of, examples.application)
            texts = [f"{text} {hint}".strip() for text, hint in zip(texts, hints, strict=True)]
        tokenizer = self.description.tokenizer
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        first, last = self._settings.first_words, self._settings.last_words
        start = [t for t in [tokenizer.cls_token_id] if t is not None]
        end = [t for t in [tokenizer.sep_token_id] if t is not None]
        kept = [t if len(t) <= first + last else t[:first] + t[-last:] for t in encoded]
        return [start + tokens + end for tokens in kept]

    def size(self, prepared: Any) -> int:
        """Number of tokens."""
        return len(prepared)

    def forward(self, batch: Sequence[Any]) -> torch.Tensor:
        """(n, units) vectors."""
        longest = max(1, *map(len, batch))
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)
        present = torch.zeros(len(batch), longest)
        for i, row in enumerate(batch):
            tokens[i, : len(row)] = torch.tensor(row, dtype=torch.long)
            present[i, : max(len(row), 1)] = 1.0
        hidden = self.backbone(input_ids=tokens, attention_mask=present.long()).last_hidden_state
        weights = present.unsqueeze(-1)
        mean: torch.Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return mean
