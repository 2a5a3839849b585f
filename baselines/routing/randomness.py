"""Random draws of routing rules: counter-based, so that a saved memory resumes the sequence."""

from __future__ import annotations

import numpy as np

from envs.simulator.jit import compiled


@compiled
def random_below(memory: np.ndarray, bound: int) -> int:
    """Draw an integer in [0, bound); `memory[0]` is the seed, `memory[1]` counts the draws.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014):
    draw k is the mixed value of seed + k * 0x9E3779B97F4A7C15. The bias of the final remainder
    is below bound / 2^63.
    """
    memory[1] += 1
    z = np.uint64(memory[0]) + np.uint64(memory[1]) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(np.int64(z >> np.uint64(1)) % bound)
