"""Closed forms of a stretch: k iterations of one unchanging batch.

With a first iteration of `step` and each next one longer by `growth`, k iterations take
`k * step + growth * k (k - 1) / 2` picoseconds, an exact integer.
"""

from __future__ import annotations

import math

from envs.simulator.jit import compiled, inlined


@compiled
def duration(step_ps: int, growth_ps: int, iterations: int) -> int:
    """Picoseconds that the first `iterations` of a stretch take."""
    return iterations * step_ps + growth_ps * (iterations * (iterations - 1) // 2)


@inlined
def iterations_within(step_ps: int, growth_ps: int, elapsed_ps: int) -> int:
    """Most iterations that end within `elapsed_ps` of the stretch's start.

    The float root of the quadratic is a guess that the exact forward formula then corrects.
    """
    if growth_ps == 0:
        return elapsed_ps // step_ps
    half = step_ps - 0.5 * growth_ps
    root = math.sqrt(half * half + 2.0 * growth_ps * elapsed_ps)
    count = int(2.0 * elapsed_ps / (half + root))
    while duration(step_ps, growth_ps, count) > elapsed_ps:
        count -= 1
    while duration(step_ps, growth_ps, count + 1) <= elapsed_ps:
        count += 1
    return count
