"""How good predicted lengths are: for buckets, for order, in tokens, and in the upper tail."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from predictors.response_length.buckets import BUCKETS, bucket_of
from predictors.response_length.distribution import LengthDistribution
from predictors.response_length.examples import Examples
from predictors.response_length.storage import Predictor

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UPPER_LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels whose coverage is told."""
PINBALL_LEVELS = tuple(i / 20 for i in range(1, 20))
"""Levels over which the pinball loss is averaged."""
LATENCY_BATCH = 64
"""Requests of the batch that is timed, as in the router paper (A.6)."""

HEADINGS: Mapping[str, str] = {
    "bucket_accuracy": "accuracy",
    "majority_rate": "majority",
    "tau": "tau",
    "tau_within": "tau within task",
    "mae_tokens": "MAE tokens",
    "median_relative_error": "median rel. error",
    "pinball_tokens": "pinball tokens",
    "coverage_50": "below q50",
    "coverage_80": "below q80",
    "coverage_90": "below q90",
    "coverage_95": "below q95",
    "latency_ms": "ms per 64",
}
"""Metrics and their headings; docs/predictors.md defines them."""


def scores(
    predicted: LengthDistribution, examples: Examples, edges: Sequence[int] = BUCKETS["five"]
) -> dict[str, float]:
    """All metrics of predictions but the latency, by the keys of `HEADINGS`.

    Args:
        predicted: Of n requests.
        examples: The requests with their true lengths.
        edges: Buckets whose accuracy is told. The bucket predicted is the most probable.
    """
    truth = examples.truth()
    # Finer than whole tokens where only the order counts.
    point, which = predicted.points(), bucket_of(truth, edges)
    guessed = predicted.bucket_probabilities(edges).argmax(axis=1)
    counts = np.bincount(which, minlength=len(edges) + 1)
    miss = np.abs(predicted.predicted_tokens() - truth)
    return {
        "bucket_accuracy": float(np.mean(guessed == which)),
        "majority_rate": float(counts.max() / len(truth)),
        "tau": tau(point, truth),
        "tau_within": tau_within(point, truth, examples.application),
        "mae_tokens": float(miss.mean()),
        "median_relative_error": float(np.median(miss / truth)),
        "pinball_tokens": pinball(predicted, truth),
        **{
            f"coverage_{100 * level:.0f}": coverage(predicted, truth, level)
            for level in UPPER_LEVELS
        },
    }


def tau(point: Floats, truth: Ints) -> float:
    """Kendall's tau-b between predictions and truth; 0 where either is constant."""
    # Equal predictions are ties whatever the last digit.
    found = kendalltau(np.round(point, 6), truth).statistic
    return float(found) if np.isfinite(found) else 0.0


def tau_within(point: Floats, truth: Ints, task: Sequence[str] | npt.NDArray[np.object_]) -> float:
    """Kendall's tau-b inside each task, mean weighted by its examples."""
    names = np.asarray(task, object)
    total = 0.0
    for name in set(names):
        rows = names == name
        total += rows.sum() * tau(point[rows], truth[rows])
    return float(total / len(truth))


def pinball(predicted: LengthDistribution, truth: Ints) -> float:
    """Mean pinball loss in tokens over `PINBALL_LEVELS`, each doubled.

    Doubled, it is the absolute error at the median, and its mean over all levels is the
    continuous ranked probability score.
    """
    losses = []
    for level in PINBALL_LEVELS:
        miss = truth - predicted.predicted_tokens(level)
        losses.append(2.0 * np.maximum(level * miss, (level - 1.0) * miss).mean())
    return float(np.mean(losses))


def coverage(predicted: LengthDistribution, truth: Ints, level: float) -> float:
    """Share of answers that are not longer than their quantile, rounded up to whole tokens.

    A calibrated quantile of level q has the coverage q or, as lengths are whole, a bit more.
    """
    return float(np.mean(truth <= predicted.predicted_tokens(level)))


def latency_ms(predictor: Predictor, examples: Examples, repeats: int = 20) -> float:
    """Milliseconds to predict a batch of `LATENCY_BATCH` requests, from text to distribution.

    The median over batches, after one that does not count.
    """
    size = min(LATENCY_BATCH, len(examples))
    spent = []
    for i in range(repeats + 1):
        start = i * size % max(len(examples) - size, 1)
        batch = examples.take(slice(start, start + size))
        before = time.perf_counter()
        predictor.predict(batch)
        spent.append(time.perf_counter() - before)
    return 1e3 * float(np.median(spent[1:]))
