"""Predictors of the length of an answer: a batch of requests in, a distribution out.

`load_predictor` gives one that is trained, `train` and `fit` make one; all have `predict` and
`save`. docs/predictors.md says what there is and how good it is.
"""

from __future__ import annotations

from pathlib import Path

from predictors.response_length.buckets import BUCKETS, bucket_of, edges_of
from predictors.response_length.classical import KINDS, ClassicalPredictor, Recipe, fit
from predictors.response_length.data import (
    draw_examples,
    note_of,
    read_examples,
    refuse_leaks,
    texts_of_requests,
)
from predictors.response_length.distribution import (
    LengthDistribution,
    from_quantiles,
    from_table,
)
from predictors.response_length.examples import Examples, tenant_history
from predictors.response_length.metrics import HEADINGS, latency_ms, scores
from predictors.response_length.neural import KIND, NeuralPredictor, untrained
from predictors.response_length.pretrained import read_backbone
from predictors.response_length.settings import DEFAULTS, DataNote, Settings
from predictors.response_length.storage import (
    Predictor,
    find_predictor,
    read_description,
    shipped,
)
from predictors.response_length.training import Outcome, RunSettings, batches_of, train

__all__ = [
    "BUCKETS",
    "DEFAULTS",
    "HEADINGS",
    "KINDS",
    "ClassicalPredictor",
    "DataNote",
    "Examples",
    "LengthDistribution",
    "NeuralPredictor",
    "Outcome",
    "Predictor",
    "Recipe",
    "RunSettings",
    "Settings",
    "batches_of",
    "bucket_of",
    "draw_examples",
    "edges_of",
    "find_predictor",
    "fit",
    "from_quantiles",
    "from_table",
    "latency_ms",
    "load_predictor",
    "note_of",
    "read_backbone",
    "read_examples",
    "refuse_leaks",
    "scores",
    "shipped",
    "tenant_history",
    "texts_of_requests",
    "train",
    "untrained",
]


def load_predictor(name_or_path: str | Path) -> NeuralPredictor | ClassicalPredictor:
    """A trained predictor.

    Args:
        name_or_path: One of `shipped()`, a predictor's folder, or that of a training run, of
            which it is the best.

    Raises:
        ValueError: There is none, or a file of it is faulty.
    """
    folder = find_predictor(name_or_path)
    if read_description(folder)["kind"] == KIND:
        return NeuralPredictor.load(folder)
    return ClassicalPredictor.load(folder)
