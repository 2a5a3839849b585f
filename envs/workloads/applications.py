"""The 23 applications of FairServe's published trace, as figures: shares, users, lengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lengths:
    """Token counts of one application: two half-lognormals that meet at the median.

    A draw is `median * exp(z * upper)` for a standard normal z > 0, `exp(z * lower)` below. One
    lognormal cannot have the published median, mean and 99th percentile at once, and some means
    lie below their medians.
    """

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Application:
    """One application of the trace (10,000 calls in 72 s).

    Attributes:
        name: Its number in the trace.
        calls: Its calls of 10,000.
        users: Different users among them.
        interactions: Interactions among them; equal to `calls` where each call stands alone.
        prompt: Prompt tokens.
        output: Output tokens.
    """

    name: str
    calls: int
    users: int
    interactions: int
    prompt: Lengths
    output: Lengths


def _row(line: str) -> Application:
    name, calls, users, interactions, *lengths = line.split()
    values = [float(value) for value in lengths]
    prompt, output = Lengths(*values[:3]), Lengths(*values[3:])
    return Application(name, int(calls), int(users), int(interactions), prompt, output)


# Calls, users, interactions, medians: FairServe (arXiv:2411.15997), aggregates of the trace of
# its review artifact, whose rows have no licence and are not used. `upper` is fitted to the 99th
# percentile where that is published (17, 7, 21, 8, 2, 10), `lower` to the mean. Assumed: users
# and interactions from 19 on (their sums are what the totals leave), lengths of 11, 19 and from 6
# on (the totals leave means of about 6,250 and 75; one expected prompt is 330, one answer 616).
# Columns: name, calls, users, interactions; median, lower, upper of prompt, then of output.
_TABLE = """
17 4680 676 1323   3848 0.32 0.82    15 0.35 1.60
7   971 709  971   3445 0.92 0.54    48 0.47 0.56
21  652   1  652  13992 0.92 0.63   330 0.25 0.87
8   546   1  546   1083 0.10 0.25     4 0.40 0.40
2   448   1  448   1226 5.70 0.45    57 4.50 0.65
5   409  86  197   3920 0.57 0.57    30 0.97 0.97
9   348  41  112   5219 0.66 0.66    14 1.77 1.77
14  309 112  133   3310 1.14 1.14    23 1.73 1.73
10  250   1  250  14121 1.70 0.60    74 0.47 0.32
3   226 177  226   1546 0.70 0.70   114 0.48 0.48
18  193  20   20   1340 0.72 0.72   504 0.37 0.37
23  149  21   24   2518 1.40 0.50   488 0.21 0.21
22  130   4    4   4358 3.50 0.30    42 1.53 1.53
11  119   1  119   4200 0.90 0.90    31 1.30 1.30
19  185  51   74   4200 0.90 0.90    31 1.30 1.30
6    83  33   33   4200 0.90 0.90    31 1.30 1.30
16   71  28   28   4200 0.90 0.90    31 1.30 1.30
0    63  25   25   4200 0.90 0.90    31 1.30 1.30
1    58  23   23   4200 0.90 0.90    31 1.30 1.30
15   49  19   19   4200 0.90 0.90    31 1.30 1.30
13   31  12   12   4000 0.80 0.80   500 0.65 0.65
20   26  10   10    250 0.75 0.75    31 1.30 1.30
12    4   2    2   4200 0.90 0.90    31 1.30 1.30
"""

APPLICATIONS = tuple(_row(line) for line in _TABLE.strip().splitlines())
"""The applications, those with a published row first."""

INTERACTION_SIZES: dict[int, float] = {
    1: 404,  # 3,616 less the calls of the applications without interactions
    **{2: 357, 3: 438, 4: 653, 5: 89, 6: 37},
    # 60 of 7 and more are published without their sizes, but for 27, 29, 30, 53 (and one of 288,
    # a user of its own); these have the mean that the total of 10,000 calls leaves. Of 53 there
    # are fewer than one here, because the applications of long interactions draw it often.
    **{7: 12, 8: 9, 9: 7, 10: 6, 12: 6, 15: 5, 18: 4, 20: 4, 24: 3, 27: 1, 29: 1, 30: 1, 53: 0.3},
}
"""Interactions by number of calls, of the applications that have interactions."""


def draw_lengths(rows: list[Lengths], which: npt.NDArray[np.int64], z: Floats) -> Floats:
    """Token counts, not yet whole, at least 1.

    Args:
        rows: Length distributions.
        which: (n,) the distribution of each draw.
        z: (n,) standard normal draws.

    Returns:
        (n,) tokens.
    """
    table = np.array([(row.median, row.lower, row.upper) for row in rows])[which]
    spread = np.where(z > 0, table[:, 2], table[:, 1])
    return np.maximum(table[:, 0] * np.exp(z * spread), 1.0)


def sizes_with_mean(mean: float) -> tuple[npt.NDArray[np.int64], Floats]:
    """Interaction sizes and their probabilities: the trace's, tilted to a mean.

    The probabilities are `count(k) * exp(a k)` normalised, with a so chosen that the mean is as
    asked: of all distributions with that mean, the nearest to the trace's.

    Raises:
        ValueError: The mean is not within the sizes.
    """
    sizes = np.array(list(INTERACTION_SIZES), np.int64)
    counts = np.array(list(INTERACTION_SIZES.values()), np.float64)
    if not sizes[0] <= mean < sizes[-1]:
        raise ValueError(f"{mean:g} calls in an interaction; give 1 to {sizes[-1] - 1}")
    low, high = -40.0, 2.0
    for _ in range(60):
        tilt = (low + high) / 2
        shares = counts * np.exp(tilt * (sizes - (sizes[-1] if tilt > 0 else 1)))
        shares /= shares.sum()
        low, high = (tilt, high) if shares @ sizes < mean else (low, tilt)
    return sizes, shares
