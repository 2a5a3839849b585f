"""Draws of NumPy's generators in a fraction of the time: every episode draws thousands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def lognormal(
    rng: np.random.Generator, mean: Floats | float, sigma: Floats | float, n: int
) -> Floats:
    """`rng.lognormal(mean, sigma, n)` from the same numbers of the generator.

    Values differ in the last bit here and there, since all exponentials are taken at once.

    Args:
        rng: Source of randomness.
        mean: Mean of the logarithm, one or (n,).
        sigma: Standard deviation of the logarithm, one or (n,).
        n: How many.
    """
    values = rng.standard_normal(n)
    values *= sigma
    values += mean
    return np.exp(values, out=values)


def choice(rng: np.random.Generator, shares: Floats, n: int) -> Bytes:
    """`rng.choice(len(shares), n, p=shares / shares.sum())`, for at most 256 shares."""
    edges = np.cumsum(shares / shares.sum())
    drawn = rng.random(n)
    which, beyond = np.zeros(n, np.uint8), np.empty(n, bool)
    # To compare all with each of a few edges is faster than to search for each one's place.
    for edge in (edges[:-1] / edges[-1]).tolist():
        np.greater_equal(drawn, edge, out=beyond)
        which += beyond.view(np.uint8)  # as numbers, or each would be converted on its own
    return which
