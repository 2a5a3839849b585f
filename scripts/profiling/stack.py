"""A decoder's layers with random weights: what a serving engine computes in one step.

Llama's block: RMS norm, projections with grouped-query heads, rotary positions, attention over a
preallocated cache, gated feed-forward; then the last norm, the output layer and the likeliest
token. Weights are random, as times do not depend on their values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from envs.hardware.catalogue import ModelShape
from scripts.profiling.attention import choose
from scripts.profiling.grid import Point

_EPSILON = 1e-5
ROTARY_BASE = 500_000.0
"""Base of the rotary frequencies, Llama 3's; times do not depend on it."""


@dataclass(frozen=True)
class Layer:
    """Weights of one layer, output by input as in `torch.nn.Linear`, and its part of the cache."""

    norm: Tensor  # (hidden,)
    project: Tensor  # ((heads + 2 kv_heads) * head_dim, hidden)
    out: Tensor  # (hidden, heads * head_dim)
    feed_norm: Tensor  # (hidden,)
    up: Tensor  # (2 ffn, hidden) when gated (gate first), else (ffn, hidden)
    down: Tensor  # (hidden, ffn)
    keys: Tensor  # (cache tokens, kv_heads, head_dim)
    values: Tensor  # (cache tokens, kv_heads, head_dim)


@dataclass(frozen=True)
class Inputs:
    """Buffers of a step: the decodes' tokens first, then the chunk's."""

    point: Point
    tokens: Tensor  # (tokens,) int64
    positions: Tensor  # (tokens,) int64
    sampled: Tensor  # (sampled,) int64, rows for which a token is chosen


class Stack:
    """Some layers of a model and its ends, on one device.

    In the cache, the sequences that decode lie one after the other from token 0 on, `context`
    tokens each; the prompt of the chunk follows.

    Args:
        shape: Sizes of the model.
        layers: Layers to make, at most those of the model.
        cache_tokens: Tokens that the cache holds.
        positions: Longest sequence [tokens].
        device: Where it lives.
        dtype: Number format of weights, cache and activations.
        seed: Seeds weights and cache.
    """

    def __init__(
        self,
        shape: ModelShape,
        layers: int,
        cache_tokens: int,
        positions: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int = 0,
    ) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        self._generator = torch.Generator(device).manual_seed(seed)
        self.chunk_attention = choose(shape.heads, shape.kv_heads, shape.head_dim, device, dtype)
        self.embedding = self._random(shape.vocab, shape.hidden, scale=1.0)
        self.norm = torch.ones(shape.hidden, device=device, dtype=dtype)
        self.output = self.embedding
        if not shape.tied_embedding:
            self.output = self._random(shape.vocab, shape.hidden)
        self.layers = [self._layer(cache_tokens) for _ in range(layers)]
        self._cosine, self._sine = self._rotary(positions)

    def inputs(self, point: Point, tokens: Tensor | None = None) -> Inputs:
        """Make the buffers of a step; without `tokens` (int64), random ones."""
        b, count = point.decode_seqs, point.tokens
        if tokens is None:
            size = (count,)
            tokens = torch.randint(
                self.shape.vocab, size, generator=self._generator, device=self.device
            )
        chunk = torch.arange(point.history, point.history + point.chunk)
        positions = torch.cat([torch.full((b,), point.context - 1), chunk])
        sampled = torch.arange(b)
        if point.chunk:
            sampled = torch.cat([sampled, torch.tensor([count - 1])])
        return Inputs(point, tokens, positions.to(self.device), sampled.to(self.device))

    def logits(self, inputs: Inputs) -> Tensor:
        """Run a step; (sampled, vocab)."""
        return self._head(self._run(self._embed(inputs.tokens), inputs), inputs)

    def step(self, inputs: Inputs) -> Callable[[], object]:
        """Give the whole step as a function without arguments, which always does the same work."""
        return lambda: self.logits(inputs).argmax(-1)

    def layers_only(self, inputs: Inputs) -> Callable[[], object]:
        """Give the layers of a step alone."""
        start = self._embed(inputs.tokens)
        return lambda: self._run(start.clone(), inputs)

    def ends_only(self, inputs: Inputs) -> Callable[[], object]:
        """Give what lies outside the layers: embedding, last norm, output layer, choice."""
        return lambda: self._head(self._embed(inputs.tokens), inputs).argmax(-1)

    def _embed(self, tokens: Tensor) -> Tensor:
        return functional.embedding(tokens, self.embedding)

    def _head(self, x: Tensor, inputs: Inputs) -> Tensor:
        normed = functional.rms_norm(x[inputs.sampled], self.norm.shape, self.norm, _EPSILON)
        return functional.linear(normed, self.output)

    def _run(self, x: Tensor, inputs: Inputs) -> Tensor:
        """Add every layer to `x` (tokens, hidden) in place."""
        shape = self.shape
        cosine, sine = self._cosine[inputs.positions], self._sine[inputs.positions]
        for layer in self.layers:
            normed = functional.rms_norm(x, layer.norm.shape, layer.norm, _EPSILON)
            projected = functional.linear(normed, layer.project)
            projected = projected.view(len(x), shape.heads + 2 * shape.kv_heads, shape.head_dim)
            turned = projected[:, : shape.heads + shape.kv_heads]
            first, second = turned.chunk(2, dim=-1)
            turned = turned * cosine + torch.cat([-second, first], dim=-1) * sine
            query, key = turned.split([shape.heads, shape.kv_heads], dim=1)
            value = projected[:, shape.heads + shape.kv_heads :]
            x.addmm_(self._attend(query, key, value, layer, inputs.point), layer.out.t())
            normed = functional.rms_norm(x, layer.feed_norm.shape, layer.feed_norm, _EPSILON)
            up = functional.linear(normed, layer.up)
            if shape.ffn_matrices == 3:
                gate, up = up.chunk(2, dim=-1)
                x.addmm_(functional.silu(gate) * up, layer.down.t())
            else:
                x.addmm_(functional.gelu(up), layer.down.t())
        return x

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, layer: Layer, at: Point) -> Tensor:
        """Write keys and values to the cache and attend; (tokens, heads * head_dim)."""
        shape, b, parts = self.shape, at.decode_seqs, []
        width = shape.heads * shape.head_dim
        if b:
            # The query heads of a key-value head are laid in the place of queries of a sequence:
            # the cache is read once for all of them, as the kernels of engines do.
            grouped = query[:b].view(b, shape.kv_heads, -1, shape.head_dim)
            keys, values = (
                cache[: at.context_tokens].view(b, at.context, *cache.shape[1:])
                for cache in (layer.keys, layer.values)
            )
            keys[:, at.context - 1], values[:, at.context - 1] = key[:b], value[:b]
            attended = functional.scaled_dot_product_attention(
                grouped, keys.transpose(1, 2), values.transpose(1, 2)
            )
            parts.append(attended.reshape(b, width))
        if at.chunk:
            place = slice(at.context_tokens, at.cached_tokens)
            keys, values = layer.keys[place], layer.values[place]
            keys[at.history :], values[at.history :] = key[b:], value[b:]
            attended = self.chunk_attention(
                *(part.transpose(0, 1)[None] for part in (query[b:], keys, values))
            )
            parts.append(attended[0].transpose(0, 1).reshape(at.chunk, width))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _layer(self, cache_tokens: int) -> Layer:
        shape = self.shape
        cache = (cache_tokens, shape.kv_heads, shape.head_dim)
        projected = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        ones = torch.ones(shape.hidden, device=self.device, dtype=self.dtype)
        return Layer(
            norm=ones,
            project=self._random(projected, shape.hidden),
            out=self._random(shape.hidden, shape.heads * shape.head_dim),
            feed_norm=ones,
            up=self._random((shape.ffn_matrices - 1) * shape.ffn, shape.hidden),
            down=self._random(shape.hidden, shape.ffn),
            keys=self._random(*cache, scale=1.0),
            values=self._random(*cache, scale=1.0),
        )

    def _random(self, *size: int, scale: float | None = None) -> Tensor:
        """Normal numbers; by default scaled so that a product keeps the size of its input."""
        scale = size[-1] ** -0.5 if scale is None else scale
        empty = torch.empty(*size, device=self.device, dtype=self.dtype)
        return empty.normal_(0.0, scale, generator=self._generator)

    def _rotary(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine by position, (positions, 1, head_dim), halves alike."""
        half = torch.arange(0, self.shape.head_dim, 2, device=self.device) / self.shape.head_dim
        places = torch.arange(positions, device=self.device, dtype=torch.float32)
        angles = torch.outer(places, ROTARY_BASE**-half).repeat(1, 2)[:, None]
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)
