"""Attention of a prompt chunk to its history and itself, by the fastest way that is exact here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

ChunkAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From queries (1, heads, n, size) and keys and values (1, key-value heads, h + n, size) to
(1, heads, n, size): query i sees the first h + i + 1 keys."""


def lower_right(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Fused causal attention aligned at the last token: flash attention on CUDA."""
    new, total = query.shape[-2], key.shape[-2]
    if new == total:
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    bias = causal_lower_right(new, total)
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with the mask written out and the key-value heads repeated; works anywhere."""
    group = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(group, dim=1) for part in (key, value))
    new, total = query.shape[-2], key.shape[-2]
    allowed = torch.ones(new, total, dtype=torch.bool, device=query.device).tril(total - new)
    return scaled_dot_product_attention(query, key, value, attn_mask=allowed)


def choose(
    heads: int, kv_heads: int, head_dim: int, device: torch.device, dtype: torch.dtype
) -> ChunkAttention:
    """Give the first way that runs on this device and agrees with float32 arithmetic.

    Raises:
        ValueError: None of them does.
    """
    generator = torch.Generator(device).manual_seed(0)
    tolerance = 1e-4 if dtype is torch.float32 else 3e-2
    for attend in (lower_right, masked):
        exact = True
        for new, total in ((32, 32), (24, 72), (1, 40)):
            shapes = ((heads, new), (kv_heads, total), (kv_heads, total))
            query, key, value = (
                torch.randn(1, count, length, head_dim, generator=generator, device=device)
                for count, length in shapes
            )
            wanted = masked(query, key, value)
            try:
                got = attend(query.to(dtype), key.to(dtype), value.to(dtype)).float()
            except (RuntimeError, NotImplementedError, ValueError):
                exact = False
                break
            exact &= bool(torch.allclose(got, wanted, atol=tolerance, rtol=tolerance))
        if exact:
            return attend
    raise ValueError(f"no exact attention with {heads} heads of size {head_dim} on {device}")
