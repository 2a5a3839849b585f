"""Admission policies: who may come in, as functions that are written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numba import from_dtype, types

from envs.simulator.address import address_or_none, caller
from envs.simulator.layout import (
    DROP,
    GATE_DTYPE,
    INTERACTION_DTYPE,
    LET_IN,
    NEVER,
    PS_PER_S,
    REQUEST_DTYPE,
    TENANT_DTYPE,
    TRAITS_DTYPE,
    TURN_AWAY,
    WAIT,
)
from envs.simulator.parameters import Range, check, replaced

__all__ = ["DROP", "LET_IN", "TURN_AWAY", "WAIT", "Gate", "Retry"]

_ROWS = tuple(
    from_dtype(dtype)
    for dtype in (REQUEST_DTYPE, TRAITS_DTYPE, TENANT_DTYPE, TENANT_DTYPE, INTERACTION_DTYPE)
)
JUDGE_SIGNATURE = types.int64(types.int64, *_ROWS, from_dtype(GATE_DTYPE))
MOST_PARAMETERS = 12

call_judge = caller(JUDGE_SIGNATURE)

Judge = Callable[..., int]


@dataclass(frozen=True)
class Gate:
    """An admission policy (docs/simulator.md, "Admission policy").

    Its functions are `judge(now_ps, request, traits, tenant, application, interaction, gate)`,
    all records: those of `Scheduler`, and `tenant` and `application` with `recent` and
    `recent_tokens` (calls and prompt tokens of the minute up to the latest call), `interaction`
    (in_system, running, served, tokens) and `gate` (p0 .. p11, and of the fleet `saturation`, `kv`,
    `waiting`, `in_service`). `tenant.g0` .. `g3` and those of `application`, `traits.reserved`,
    `gate.m0` .. `m5` and `gate.delay_ps` are their own to write.

    Attributes:
        name: Name on the command line and in tables.
        arrive: What to do with a call that arrives: LET_IN, TURN_AWAY, or WAIT, after which it
            comes again `gate.delay_ps` later.
        look: What to do with the next call of a waiting queue, of which `gate.fits` tells whether
            it passes the admission test and the token limit of the iteration:
            LET_IN if it fits, WAIT, TURN_AWAY, or DROP, after which the one behind it is looked
            at. Where nothing is in service, a call that fits is admitted whatever it says, but for
            TURN_AWAY and DROP.
        finish: Told of a call that has finished, and of one that is turned away after it was let
            in; the state of the fleet and counters are not brought up to date, and the result is
            not used.
        asks: Whether whoever runs the kernel decides on the first calls of interactions.
        kills_interactions: Whether a call that is turned away ends its interaction.
        senses: Whether it reads the state of the fleet.
        queue_limit: Waiting requests of an instance that count as saturation 1.
        kv_limit: Share of its KV cache that does.
        delay_s: Seconds until a call that waits comes again, where the policy sets none.
        parameters: Values of `p0`, `p1`, ...
        parameter_names: Their names.
        ranges: What they can be, in the same order; without one, any finite number.
        uses_prediction: Whether it reads predicted output lengths.
        source: Where it comes from.

    Raises:
        ValueError: An option or a parameter is out of range.
    """

    name: str
    arrive: Judge | None = None
    look: Judge | None = None
    finish: Judge | None = None
    asks: bool = False
    kills_interactions: bool = True
    senses: bool = False
    queue_limit: float = 5.0
    kv_limit: float = 0.8
    delay_s: float = 1.0
    parameters: tuple[float, ...] = ()
    parameter_names: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    uses_prediction: bool = False
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check(self, MOST_PARAMETERS)
        if not (self.queue_limit > 0 and self.kv_limit > 0):
            raise ValueError("queue_limit and kv_limit must be positive")
        if not 1e-6 <= self.delay_s <= 1e5:
            raise ValueError(f"delay_s must be from 1e-6 to 1e5 seconds, not {self.delay_s}")

    def with_parameters(self, **values: float) -> Gate:
        """Return the policy with some parameters replaced.

        Raises:
            ValueError: A name is unknown; the message lists those that exist. Or a value is out
                of its range.
        """
        return replace(self, parameters=replaced(self, values))

    def bind(self, row: np.void) -> None:
        """Write the addresses that the kernel calls, which hold for this process alone."""
        for name in ("arrive", "look", "finish"):
            row[f"{name}_at"] = address_or_none(getattr(self, name), JUDGE_SIGNATURE)

    def write(self, row: np.void) -> None:
        """Write the options that the kernel reads."""
        row["kills"] = int(self.kills_interactions)
        row["asks"] = int(self.asks)
        row["senses"] = int(self.senses)
        row["queue_limit"] = self.queue_limit
        row["kv_limit"] = self.kv_limit
        row["delay_ps"] = round(self.delay_s * PS_PER_S)
        row["deadline_ps"] = row["ttft_ps"] = NEVER
        for k, value in enumerate(self.parameters):
            row[f"p{k}"] = value


@dataclass(frozen=True)
class Retry:
    """Clients that send a call again when an admission policy has turned it away.

    Attributes:
        times: How often, at most.
        backoff_s: Seconds before the first time; each further wait is twice as long.
        patience_s: Seconds after its first arrival beyond which a call does not come again, also
            one that an admission policy lets wait: it is given up instead.

    Raises:
        ValueError: A value is out of range.
    """

    times: int = 0
    backoff_s: float = 1.0
    patience_s: float = 1e6

    def __post_init__(self) -> None:
        if not 0 <= self.times <= 20:
            raise ValueError(f"a client sends a call again 0 to 20 times, not {self.times}")
        if not 1e-6 <= self.backoff_s <= 1e4:
            raise ValueError(f"backoff_s must be from 1e-6 to 1e4 seconds, not {self.backoff_s}")
        if not 0 <= self.patience_s <= 1e6:
            raise ValueError(f"patience_s must be from 0 to 1e6 seconds, not {self.patience_s}")

    def write(self, row: np.void) -> None:
        """Write what the kernel reads."""
        row["retries"] = self.times
        row["backoff_ps"] = round(self.backoff_s * PS_PER_S)
        row["patience_ps"] = round(self.patience_s * PS_PER_S)
