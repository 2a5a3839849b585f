"""The prefix cache of an instance (docs/simulator.md, "Prefix cache")."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.reference.request import ReferenceRequest


@dataclass
class Prefix:
    """What is kept of one prefix."""

    length: int = 0
    left_at: int = 0  # F of the user that left last
    users: set[int] = field(default_factory=set)


class PrefixCache:
    """What was computed and not yet overwritten."""

    def __init__(self, enabled: bool, capacity: int, block: int) -> None:
        """Begin empty: `freed` starts with the KV capacity."""
        self.enabled = enabled
        self.block = block
        self.taken = 0
        self.freed = capacity
        self.prefixes: dict[int, Prefix] = {}
        self.kept: dict[int, tuple[int, int]] = {}  # by preempted request: its tokens, and F

    def hit(self, request: ReferenceRequest) -> int:
        """Tokens that need no prefill if it is admitted now (its own tokens are not yet taken)."""
        if not self.enabled:
            return 0
        shared = min(request.traits.prefix_tokens, self._alive(request.traits.prefix))
        kept, left_at = self.kept.get(request.index, (0, 0))
        own = min(kept, left_at - self.taken)
        tokens = min(max(shared, own, 0), request.tokens - 1)
        return tokens - tokens % self.block

    def admit(self, request: ReferenceRequest) -> None:
        """Count the tokens of an admission."""
        self.taken += request.tokens

    def generate(self, tokens: int) -> None:
        """Count generated tokens."""
        self.taken += tokens

    def complete(self, request: ReferenceRequest) -> None:
        """A request whose prefill completes becomes a user of its prefix."""
        name = request.traits.prefix
        if name >= 0 and request.traits.prefix_tokens > 0:
            length = max(self._alive(name), request.traits.prefix_tokens)
            prefix = self.prefixes.setdefault(name, Prefix())
            prefix.length = length
            prefix.users.add(request.index)

    def leave(self, request: ReferenceRequest, preempted: bool) -> None:
        """A request leaves service."""
        self.freed += request.tokens
        if preempted:
            kept = request.tokens if request.decoding else request.prefilled
            self.kept[request.index] = kept, self.freed
        prefix = self.prefixes.get(request.traits.prefix)
        if prefix is not None and request.index in prefix.users:
            prefix.users.remove(request.index)
            prefix.left_at = self.freed

    def _alive(self, name: int) -> int:
        prefix = self.prefixes.get(name)
        if prefix is None:
            return 0
        if prefix.users:
            return prefix.length
        return max(0, min(prefix.length, prefix.left_at - self.taken))
