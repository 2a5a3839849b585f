"""Which of several choices none beats in two respects at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(
    points: Sequence[tuple[float, float]], better: tuple[int, int] = (1, 1)
) -> list[int]:
    """Places of the points that no other is better than or equal to in both, by the first value.

    Args:
        points: Two values each; points that are not finite are never on the front.
        better: For each value, 1 where more is better and -1 where less is.

    Returns:
        The places; of equal points all.
    """
    signed = [(better[0] * x, better[1] * y) for x, y in points]
    known = [i for i, (x, y) in enumerate(signed) if math.isfinite(x) and math.isfinite(y)]

    def beaten(i: int) -> bool:
        return any(
            signed[j] != signed[i] and signed[j][0] >= signed[i][0] and signed[j][1] >= signed[i][1]
            for j in known
        )

    return sorted((i for i in known if not beaten(i)), key=lambda i: (points[i], i))
