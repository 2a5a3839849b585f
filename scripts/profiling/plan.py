"""How many layers fit the memory, and which steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envs.hardware.catalogue import ModelShape
from scripts.profiling.grid import Point
from scripts.profiling.shapes import end_params, layer_params

USED = 0.9
"""Share of the free memory that may be taken: the rest is for libraries and fragments."""

WEIGHTS = 0.6
"""Share of it for weights where the whole model leaves less to the cache."""


@dataclass(frozen=True)
class Plan:
    """What is made on the device, and timed."""

    layers: int
    """Layers on the device."""
    cache_tokens: int
    """Tokens that the cache holds."""
    positions: int
    """Longest sequence [tokens]."""
    points: list[Point]
    """Steps that fit, in the order in which they are timed."""
    skipped: dict[Point, str]
    """Steps that do not fit, with the reason."""


def make_plan(
    shape: ModelShape, points: Sequence[Point], layers: int, free_bytes: int, element_bytes: int
) -> Plan:
    """Choose the layers and the steps.

    Args:
        shape: Sizes of the model.
        points: Steps wanted.
        layers: Layers to make; 0 = all of them if they take up to `WEIGHTS` of the memory, else as
            many as do.
        free_bytes: Free memory of the device.
        element_bytes: Bytes of a number: 2 for bf16, 4 for float32.

    Raises:
        ValueError: More layers are asked for than the model has, or the weights do not fit.
    """
    if not 0 <= layers <= shape.layers:
        raise ValueError(f"--layers {layers}: {shape.name} has {shape.layers}; 0 = as many as fit")
    usable = USED * free_bytes
    layer_bytes = layer_params(shape) * element_bytes
    end_bytes = end_params(shape) * element_bytes
    chosen = layers or min(shape.layers, int((WEIGHTS * usable - end_bytes) // layer_bytes))
    token_bytes = 2 * shape.kv_heads * shape.head_dim * element_bytes
    room = usable - end_bytes - max(chosen, 1) * layer_bytes
    room -= max(map(lambda point: _work_bytes(shape, point, element_bytes), points))
    if chosen < 1 or room < token_bytes:
        raise ValueError(
            f"{max(chosen, 1)} layers of {shape.name} need {(usable - room) / 1e9:.1f} GB with "
            f"their largest step, and {usable / 1e9:.1f} GB can be used: take fewer --layers, or "
            "smaller steps"
        )
    capacity = int(room // (token_bytes * chosen))
    fitting = [point for point in points if point.cached_tokens <= capacity]
    skipped = {
        point: f"{point.cached_tokens} tokens of cache, and {capacity} fit"
        for point in points
        if point.cached_tokens > capacity
    }
    if not fitting:
        raise ValueError(f"no step fits the memory: {capacity} tokens of cache do")
    return Plan(
        layers=chosen,
        cache_tokens=max(point.cached_tokens for point in fitting),
        positions=max(point.longest for point in fitting),
        points=fitting,
        skipped=skipped,
    )


def _work_bytes(shape: ModelShape, point: Point, element_bytes: int) -> int:
    """Estimate the activations of a step from above: what lives at once in a layer, and logits."""
    heads = 2 * shape.heads + 2 * shape.kv_heads
    wide = 4 * shape.hidden + 3 * heads * shape.head_dim + 3 * shape.ffn
    return (point.tokens * wide + 2 * point.sampled * shape.vocab) * element_bytes
