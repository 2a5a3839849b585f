"""Bootstrap intervals over seeds, paired between policies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

FEWEST_SEEDS = 5
"""Below this number of seeds no interval is given: it would only look like knowledge."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Attributes:
        mean: Mean over the seeds.
        low: Lower end of the interval, NaN below `FEWEST_SEEDS` seeds.
        high: Upper end of the interval, NaN below `FEWEST_SEEDS` seeds.
        seeds: Seeds behind it.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def has_interval(self) -> bool:
        """Whether there were seeds enough for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Paired:
    """What a bootstrap over seeds says of one metric; all lists in the order of the policies.

    Attributes:
        mean: The metric.
        difference: Policy minus reference, in the unit of the metric.
        ratio: Policy over reference, minus 1; NaN where the reference is 0.
    """

    mean: list[Estimate]
    difference: list[Estimate]
    ratio: list[Estimate]


def paired_bootstrap(
    values: npt.ArrayLike,
    reference: int,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Paired:
    """Intervals of the mean of a metric, and of its difference to a reference.

    Seeds are drawn with replacement, the same ones for every policy, so that what an episode does
    to all policies alike cancels out of differences and ratios (ratios are of the two means).

    The interval is the expanded percentile interval of Hesterberg, "What Teachers Should Know
    About the Bootstrap" (The American Statistician 69:371, 2015): the plain one is too short for
    few samples, so its level is widened to that of Student's t with n - 1 degrees of freedom. It
    never leaves the range of the seeds' own values, which bounds its coverage at 5 seeds to 93.75
    per cent of the median.

    Args:
        values: (seeds, policies) the metric; a row is one seed, on which all policies ran.
        reference: Column of the reference policy.
        seed: Seed of the resampling; the same seed gives the same intervals.
        resamples: Bootstrap samples.
        confidence: Level of the interval, in (0, 1).

    Raises:
        ValueError: The array is not two-dimensional or empty, or the reference is no column.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"values must be (seeds, policies) and not empty, not of shape {x.shape}")
    if not 0 <= reference < x.shape[1]:
        raise ValueError(f"reference {reference} is no column of {x.shape[1]}")
    seeds = len(x)
    weights = _weights(seeds, seed, resamples)
    draws = _weighted(weights, x)
    mean = _weighted(np.full((1, seeds), 1.0 / seeds), x)[0]
    level = _expanded_tail(seeds, confidence)

    def estimates(center: Floats, sample: Floats) -> list[Estimate]:
        low = high = np.full(len(center), math.nan)
        if seeds >= FEWEST_SEEDS:
            # NaN columns (a policy that served nothing) give NaN ends, without a warning.
            low, high = np.quantile(sample.T.copy(), [level, 1.0 - level], axis=1)
        ends = zip(center.tolist(), low.tolist(), high.tolist(), strict=True)
        return [Estimate(c, lo, hi, seeds) for c, lo, hi in ends]

    base, base_draws = mean[reference], draws[:, reference : reference + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(base != 0, mean / base - 1.0, math.nan)
        ratio_draws = np.where(base_draws != 0, draws / base_draws - 1.0, math.nan)
    return Paired(
        estimates(mean, draws),
        estimates(mean - base, draws - base_draws),
        estimates(ratio, ratio_draws),
    )


def _weighted(weights: Floats, x: Floats) -> Floats:
    """(B, n) weights times (n, P) values; equal values give exactly their value, as in a mean."""
    # Deviations from the first seed are 0 where all seeds agree, so no rounding makes a width.
    return x[0] + np.asarray(weights @ (x - x[0]))


@lru_cache(maxsize=8)
def _weights(seeds: int, seed: int, resamples: int) -> Floats:
    """(resamples, seeds) share of each seed in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), resamples) / seeds


def _expanded_tail(seeds: int, confidence: float) -> float:
    """Probability below each end: Phi(-sqrt(n / (n - 1)) * t), t of n - 1 degrees of freedom."""
    if seeds < 2:
        return 0.0
    t = special.stdtrit(seeds - 1, 0.5 + confidence / 2.0)
    return float(special.ndtr(-math.sqrt(seeds / (seeds - 1)) * t))
