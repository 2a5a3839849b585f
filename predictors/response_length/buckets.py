"""Buckets of answer lengths: the published sets, and the shape of what lies inside a bucket."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_TOKENS = 4096
"""Longest answer that a table of probabilities has an edge for."""

BUCKETS: dict[str, tuple[int, ...]] = {
    "five": (8, 32, 128, 256),
    "paper_unequal": (250, 1000, 4000),
    "paper_equal": tuple(range(250, 4001, 250)),
    "paper_rl": (256, 2048),
}
"""Most tokens of each bucket but the last, which is open.

`five` is this project's. The others are the Intelligent Router paper's (arXiv:2408.13510): by
completion time at 500 tokens/s (5.1), equal ones of 250 tokens (A.6), and those of its agent's
state (A.9).
"""

S3_COUNT = 10
"""Equal buckets up to the longest answer, as in S3 (Jin et al., NeurIPS 2023)."""


def s3_edges(output_tokens: Ints) -> tuple[int, ...]:
    """Ten equal buckets from 0 to the longest of these answers; the last is open."""
    most = int(np.max(output_tokens))
    return tuple(int(np.ceil(most * i / S3_COUNT)) for i in range(1, S3_COUNT))


def edges_of(name: str, output_tokens: Ints) -> tuple[int, ...]:
    """The edges of a set of buckets.

    Args:
        name: A key of `BUCKETS`, or `s3`, whose width follows from the lengths.
        output_tokens: Lengths of the answers to train on.

    Raises:
        ValueError: There is no such set, or the lengths are too short for ten buckets.
    """
    if name == "s3":
        edges = s3_edges(output_tokens)
        if len(set(edges)) < len(edges):
            raise ValueError("ten equal buckets need answers of at least ten tokens")
        return edges
    if name not in BUCKETS:
        raise ValueError(f"no buckets {name!r}; there are: {', '.join(BUCKETS)}, s3")
    return BUCKETS[name]


def bucket_of(tokens: npt.ArrayLike, edges: Sequence[int] | Floats) -> Ints:
    """The bucket of each length: bucket b holds `edges[b - 1] < tokens <= edges[b]`."""
    return np.searchsorted(np.asarray(edges), np.asarray(tokens), side="left").astype(np.int64)


def fine_edges(most: int = MOST_TOKENS) -> Floats:
    """Edges of a fine table: six to the double, at whole tokens, up to at least `most`."""
    steps = int(np.ceil(6 * np.log2(most)))
    return np.unique(np.rint(2.0 ** (np.arange(steps + 1) / 6)))


def inner_shapes(output_tokens: Ints, edges: Sequence[int], at: Floats) -> Floats:
    """How answers spread inside their buckets, learned from lengths.

    Args:
        output_tokens: (n,) lengths.
        edges: Of the buckets.
        at: (k,) fine edges.

    Returns:
        (buckets, k) probability of at most `at` tokens, given the bucket. A bucket of which there
        is no example is spread evenly.
    """
    which = bucket_of(output_tokens, edges)
    bounds = np.array([0.0, *edges, max(float(at[-1]), 2.0 * edges[-1])])
    shapes = []
    for bucket in range(len(edges) + 1):
        inside = np.sort(output_tokens[which == bucket])
        if len(inside):
            shapes.append(np.searchsorted(inside, at, side="right") / len(inside))
        else:
            low, high = bounds[bucket], bounds[bucket + 1]
            shapes.append(np.clip((at - low) / (high - low), 0.0, 1.0))
    table = np.array(shapes)
    table[:, -1] = 1.0
    return table
