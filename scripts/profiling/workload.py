"""Poisson arrivals with lognormal lengths, to load a real engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGMA = 0.7
"""Standard deviation of the logarithm of a length: conversations lie between 0.6 and 1."""


@dataclass(frozen=True)
class Load:
    """What arrives."""

    rate: float
    """Requests per second."""
    requests: int
    prompt_tokens: float
    """Mean prompt [tokens]."""
    output_tokens: float
    """Mean answer [tokens]."""
    max_tokens: int
    """Longest prompt plus answer [tokens]; longer ones are cut, three quarters for the prompt."""


@dataclass(frozen=True)
class Requests:
    """Requests in order of arrival; arrays of length n."""

    arrival_s: NDArray[np.float64]  # (n,) [s] from the start
    prompt_tokens: NDArray[np.int64]  # (n,) tokens
    output_tokens: NDArray[np.int64]  # (n,) tokens


def poisson(load: Load, seed: int) -> Requests:
    """Draw the requests.

    Raises:
        ValueError: A figure of the load is out of range.
    """
    for name in ("rate", "requests", "prompt_tokens", "output_tokens"):
        if getattr(load, name) <= 0:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be more than 0, not {getattr(load, name)}")
    if load.max_tokens < 8:
        raise ValueError(f"--max-tokens must be at least 8, not {load.max_tokens}")
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / load.rate, load.requests)
    gaps[0] = 0.0
    prompt_limit = 3 * load.max_tokens // 4
    lengths = []
    limits = (prompt_limit, load.max_tokens - prompt_limit)
    for mean, limit in zip((load.prompt_tokens, load.output_tokens), limits, strict=True):
        drawn = rng.lognormal(np.log(mean) - SIGMA**2 / 2, SIGMA, load.requests)
        lengths.append(np.clip(np.rint(drawn), 1, limit).astype(np.int64))
    return Requests(np.cumsum(gaps), *lengths)
