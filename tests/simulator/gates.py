"""Admission policies for tests: simple rules that read everything that one may read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LET_IN, TURN_AWAY, WAIT, DROP = 0, 1, 2, 3

Judge = Callable[..., int]


def often(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    if traits.call_index > 0 and interaction.served > 0:
        return LET_IN
    if tenant.recent > gate.p0:
        return TURN_AWAY
    return WAIT if application.recent_tokens > gate.p1 else LET_IN


def bucket(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    need = request.prompt + request.predicted
    if tenant.g0 + need > gate.p1:
        gate.delay_ps = int(gate.p2) * (1 + tenant.g1 % 3)
        tenant.g1 += 1
        return WAIT if tenant.g1 % 2 == 1 else TURN_AWAY
    tenant.g0 += need
    application.g2 += 1
    traits.reserved = need
    return LET_IN


def settle(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    tenant.g0 -= traits.reserved - request.generated // 2
    gate.m0 += interaction.tokens + application.g2
    return 0


def full(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    gate.m1 = gate.saturation
    if gate.saturation + gate.kv > 2.0 or gate.waiting > gate.p0 + gate.in_service:
        return TURN_AWAY
    return LET_IN


def pushing(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    if gate.fits == 0 and traits.call_index == 0 and tenant.recent > gate.p0:
        return TURN_AWAY
    return LET_IN if tenant.counter < gate.p1 or gate.fits == 0 else WAIT


def impatient(
    now_ps: int,
    request: Any,
    traits: Any,
    tenant: Any,
    application: Any,
    interaction: Any,
    gate: Any,
) -> int:
    if now_ps - request.arrival_ps > gate.p2:
        return DROP
    if tenant.running > gate.p0 + tenant.open // 2:
        return WAIT
    return LET_IN if gate.fits == 1 else WAIT


ARRIVALS: dict[str, Judge | None] = {"": None, "often": often, "bucket": bucket, "full": full}
LOOKS: dict[str, Judge | None] = {"": None, "pushing": pushing, "impatient": impatient}
ENDS: dict[str, Judge | None] = {"": None, "settle": settle}


@dataclass(frozen=True)
class Judges:
    """An admission policy by the names of its functions."""

    arrival: str = ""
    head: str = ""
    end: str = ""
    senses: bool = False
    kills_interactions: bool = True
    queue_limit: float = 5.0
    kv_limit: float = 0.8
    delay_s: float = 1.0
    parameters: tuple[float, ...] = ()
    times: int = 0
    backoff_s: float = 1.0
    patience_s: float = 1e6

    @property
    def arrive(self) -> Judge | None:
        """Judges arrivals."""
        return ARRIVALS[self.arrival]

    @property
    def look(self) -> Judge | None:
        """Judges heads of waiting queues."""
        return LOOKS[self.head]

    @property
    def finish(self) -> Judge | None:
        """Is told of calls that end."""
        return ENDS[self.end]

    def options(self) -> dict[str, Any]:
        """Give the same as the kernel takes it."""
        from envs.simulator import Gate, Retry

        given = dataclasses.asdict(self)
        for name in ("arrival", "head", "end"):
            given.pop(name)
        retry = Retry(**{name: given.pop(name) for name in ("times", "backoff_s", "patience_s")})
        names = tuple(f"p{k}" for k in range(len(self.parameters)))
        gate = Gate(
            "test",
            arrive=self.arrive,
            look=self.look,
            finish=self.finish,
            parameter_names=names,
            **given,
        )
        return {"gate": gate, "retry": retry}


@dataclass(frozen=True)
class Given:
    """An admission policy as the kernel takes it, and the clients' `Retry`."""

    gate: Any
    retry: Any

    def __getattr__(self, name: str) -> Any:
        """Give what the reference reads of either."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.gate if hasattr(self.gate, name) else self.retry, name)

    def options(self) -> dict[str, Any]:
        """Give the same as the kernel takes it."""
        return {"gate": self.gate, "retry": self.retry}
