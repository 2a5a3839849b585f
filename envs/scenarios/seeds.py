"""The one place that says which random seeds serve which purpose.

The ranges never overlap, so that nothing is evaluated on an episode on which it was trained or
tuned. Every policy sees the same seeds of a purpose, which makes comparisons paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Purpose = Literal["train", "evaluation", "validation"]

SEEDS: Mapping[Purpose, range] = MappingProxyType(
    {
        "train": range(0, 1_000_000),
        "evaluation": range(1_000_000, 2_000_000),
        "validation": range(2_000_000, 3_000_000),
    }
)
"""Seeds of training, of evaluation (reported figures), and of validation (tuning, early stops)."""


def purpose_of(seed: int) -> Purpose:
    """What a seed is for.

    Raises:
        ValueError: It is for nothing.
    """
    for purpose, block in SEEDS.items():
        if seed in block:
            return purpose
    raise ValueError(f"the seed {seed} belongs to no purpose: they are below 3,000,000")


def seeds(purpose: Purpose, count: int, start: int = 0) -> range:
    """Seeds number `start` to `start + count - 1` of a purpose.

    Args:
        purpose: `train`, `evaluation` or `validation`.
        count: How many, at least 1.
        start: Number of the first.

    Raises:
        ValueError: The purpose is unknown, or it has not as many seeds.
    """
    if purpose not in SEEDS:
        raise ValueError(f"no seeds for {purpose!r}; known: {', '.join(SEEDS)}")
    block = SEEDS[purpose]
    if count < 1 or start < 0 or start + count > len(block):
        raise ValueError(
            f"{purpose} has the seeds 0 to {len(block) - 1}, "
            f"which do not hold {count} from {start} on"
        )
    return block[start : start + count]
