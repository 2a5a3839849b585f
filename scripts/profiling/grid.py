"""Which steps are timed: decode, prefill and mixed ones, over batch, chunk and context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, order=True)
class Point:
    """One step: sequences that decode a token each, and a chunk of one prompt."""

    decode_seqs: int
    """b: sequences that decode."""
    context: int
    """Tokens that each of them attends to, its newest included [tokens]; 0 without decodes."""
    chunk: int
    """n: new prompt tokens; 0 = decode only."""
    history: int
    """Tokens of the same prompt that are already in the cache [tokens]."""

    @property
    def kind(self) -> str:
        """`decode`, `prefill` or `mixed`."""
        if not self.chunk:
            return "decode"
        return "mixed" if self.decode_seqs else "prefill"

    @property
    def tokens(self) -> int:
        """New tokens, which the dense layers see."""
        return self.decode_seqs + self.chunk

    @property
    def sampled(self) -> int:
        """Rows that reach the output layer: every decode, and the last token of the chunk."""
        return self.decode_seqs + (self.chunk > 0)

    @property
    def context_tokens(self) -> int:
        """C: summed context of the decoding sequences."""
        return self.decode_seqs * self.context

    @property
    def attention_work(self) -> float:
        """S: token pairs of prefill attention, `n h + n (n + 1) / 2`."""
        return self.chunk * self.history + self.chunk * (self.chunk + 1) / 2

    @property
    def cached_tokens(self) -> int:
        """Tokens in the cache at the end of the step."""
        return self.context_tokens + self.history + self.chunk

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.context, self.history + self.chunk)

    def __str__(self) -> str:
        """Tell the step in words."""
        parts = []
        if self.decode_seqs:
            parts.append(f"{self.decode_seqs} decodes of context {self.context}")
        if self.chunk:
            parts.append(f"chunk {self.chunk} after {self.history}")
        return " + ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values of which every combination is a step; an empty tuple leaves a kind out."""

    decode_batches: Sequence[int]
    contexts: Sequence[int]
    chunks: Sequence[int]
    histories: Sequence[int]
    mixed_batches: Sequence[int]
    mixed_contexts: Sequence[int]
    mixed_chunks: Sequence[int]

    def points(self, seed: int) -> list[Point]:
        """List all steps once, in a random order.

        In order of size, a GPU that warms up would look like one that is slow at large batches.

        Raises:
            ValueError: A value is not positive (a history may be 0), or there is no step at all.
        """
        for name, values in vars(self).items():
            least = 0 if name == "histories" else 1
            if any(value < least for value in values):
                option = name.replace("_", "-")
                raise ValueError(f"--{option}: {min(values)} must be at least {least}")
        found = {Point(b, c, 0, 0) for b in self.decode_batches for c in self.contexts}
        found |= {Point(0, 0, n, h) for n in self.chunks for h in self.histories}
        found |= {
            Point(b, c, n, 0)
            for b in self.mixed_batches
            for c in self.mixed_contexts
            for n in self.mixed_chunks
        }
        if not found:
            raise ValueError("nothing to time: name --decode-batches and --contexts, or --chunks")
        ordered = sorted(found)
        return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
