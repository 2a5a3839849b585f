"""The model card beside the weights: what a predictor is, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from predictors.response_length.metrics import HEADINGS

if TYPE_CHECKING:
    from predictors.response_length.neural import NeuralPredictor
    from predictors.response_length.settings import DataNote, Settings


def model_card(model: NeuralPredictor, found: Mapping[str, float], seconds: float) -> str:
    """The card in Markdown.

    Args:
        model: The predictor.
        found: Its metrics on the validation examples.
        seconds: What training took so far.
    """
    settings, data = model.settings, model.data
    count = sum(parameter.numel() for parameter in model.parameters())
    rows = [f"| {HEADINGS[key]} | {value:.4g} |" for key, value in found.items() if key in HEADINGS]
    return "\n".join(
        [
            "# Response-length predictor",
            "",
            f"{_what(settings)} {count:,} parameters, trained for {model.epochs} epochs in "
            f"{seconds:.0f} s on one CPU thread.",
            "",
            "**For**: order and reservations in LLM serving: it gives a distribution of the number "
            "of tokens of the answer to a request (median, any quantile, bucket probabilities, "
            "expected remaining length). Not for billing or limits, where a wrong figure harms "
            "somebody.",
            "",
            f"**Trained on** {_data(data)}",
            "",
            "**Limits**: it knows the models, tasks and tokenizer of its examples, and no others; "
            "evaluate it on your own requests (`servegym evaluate-predictor`) before you rely on "
            "it. On an unseen task it can be far off; the coverage of the upper quantiles tells.",
            "",
            f"**On {data.validation:,} validation examples** (defined in docs/predictors.md; the "
            "epoch was chosen on them, so take the figures of the test part for a report):",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
            "",
            "**Files**: `predictor.json` (settings, checked on loading) and "
            "`predictor.safetensors` (numbers only). Load it with "
            '`predictors.response_length.load_predictor("FOLDER")`.',
            "",
        ]
    )


def _what(settings: Settings) -> str:
    encoders = {
        "hashed": "A small transformer over words as hashed n-grams",
        "pretrained": "A pretrained backbone, fine-tuned",
        "metadata": "A network over prompt tokens, application and tenant history",
    }
    heads = {
        "ordinal": "a hazard for each of many fine bins of length",
        "quantile": "quantiles of log length",
        "classifier": f"a classifier of the buckets `{settings.buckets}`",
        "ranking": "a score that sorts requests by length",
    }
    hint = " It reads the task as a hint." if settings.reads_text and settings.hint else ""
    return f"{encoders[settings.encoder]}, with {heads[settings.head]}.{hint}"


def _data(data: DataNote) -> str:
    text = f"{data.train:,} examples of {data.name}"
    if data.sha256:
        text += f" (SHA-256 {data.sha256[:16]}...)"
    if data.grouping is not None:
        text += f", the training part of the split by `{data.grouping}` with seed {data.split_seed}"
    if data.most_per_task is not None:
        text += f", at most {data.most_per_task:,} rows of a task"
    if data.left_out is not None:
        text += f", without the task {data.left_out}"
    return text + "."
