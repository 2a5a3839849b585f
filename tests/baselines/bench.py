"""Rows of requests, tenants and policies for tests, and a bench that charges whole requests."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from envs.simulator.scheduler import ADMIT, ARRIVE, FINISH, TOKENS


def parameters(*values: float) -> SimpleNamespace:
    """Row of a scheduler or an admission policy with such parameters."""
    filled = {f"p{i}": value for i, value in enumerate([*values, *[0.0] * (12 - len(values))])}
    own = {f"m{i}": 0.0 for i in range(6)}
    return SimpleNamespace(**filled, **own, now_ps=0, interactions=0, surveyed=0)


class Bench:
    """Requests of one tenant, charged one after the other."""

    def __init__(self, charge: Any, *values: float, weight: float = 1.0) -> None:
        """Take the charge and its parameters, and the weight of the tenant."""
        self.charge, self.scheduler = charge, parameters(*values)
        numbers = dict.fromkeys(("counter", "service", "queued", "estimate", "seen"), 0)
        self.tenant = SimpleNamespace(weight=weight, **numbers)

    def serve(
        self,
        prompt: int,
        output: int,
        predicted: int = -1,
        typical: float = 1.0,
        parts: int = 1,
        system: int = 0,
        typical_tokens: tuple[float, float] = (1.0, 1.0),
    ) -> list[int]:
        """Charges of arrival, admission, generation in some parts, and the end."""
        request = SimpleNamespace(arrival_ps=0, prompt=prompt, predicted=predicted, generated=0)
        traits = SimpleNamespace(
            weight=typical,
            prepaid=0,
            system=system,
            typical_prompt=typical_tokens[0],
            typical_output=typical_tokens[1],
            interaction_cost=1.0,
            tag=0,
        )

        def charged(event: int, start: int = 0, end: int = 0) -> int:
            arguments = (event, start, end, request, traits, self.tenant, self.scheduler)
            amount = self.charge(*arguments)
            self.tenant.counter += amount
            return amount

        first = [charged(ARRIVE), charged(ADMIT)]
        edges = np.linspace(0, output, parts + 1).astype(int).tolist()
        tokens = sum(charged(TOKENS, a, b) for a, b in pairwise(edges))
        request.generated = output
        return [*first, tokens, charged(FINISH)]
