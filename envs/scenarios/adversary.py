"""Tenants that game the scheduler (`envs.workloads.adversaries`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from envs.scenarios.strict import Strict

if TYPE_CHECKING:
    from envs.workloads import RequestTable


class _Attack(Strict):
    """Who attacks."""

    tenants: list[str] | None = Field(default=None, min_length=1)
    """Names of the attackers; without it, the heaviest."""
    heaviest: int = Field(default=1, ge=1)
    """How many of the heaviest tenants (input + 2 x output tokens) attack."""

    @model_validator(mode="after")
    def _check_who(self) -> _Attack:
        if self.tenants is not None and "heaviest" in self.model_fields_set:
            raise ValueError("give tenants or heaviest, not both")
        return self

    def attackers(self, table: RequestTable) -> tuple[str, ...]:
        """Names of the attackers of an episode, told from its table before or after the attack.

        Raises:
            ValueError: There are not so many tenants.
        """
        from envs.workloads import heaviest

        if self.tenants is not None:
            return tuple(self.tenants)
        return heaviest(table, self.heaviest)

    def apply(self, table: RequestTable) -> RequestTable:
        """The requests with those of the attackers changed.

        Raises:
            ValueError: A tenant or an application is not in the table.
        """
        from envs.workloads import adversaries

        attack = getattr(adversaries, getattr(self, "kind"))  # noqa: B009, each has its own
        options: dict[str, Any] = self.model_dump(exclude={"kind", "tenants", "heaviest"})
        attacked: RequestTable = attack(table, self.attackers(table), **options)
        return attacked


class SplitIdentities(_Attack):
    """The attacker's interactions go to several identities in turn (Sybil)."""

    kind: Literal["split_identities"]
    identities: int = Field(default=8, ge=1, le=10_000)
    """Identities of each attacker."""


class IdleThenBurst(_Attack):
    """The attacker's calls of a period are sent at once, at its end."""

    kind: Literal["idle_then_burst"]
    period_s: float = Field(default=30.0, ge=0.001, le=9e6)
    """Seconds between bursts."""


class MisdeclareApplication(_Attack):
    """The attacker's calls claim to be of an application that usually costs more."""

    kind: Literal["misdeclare_application"]
    application: str | None = None
    """What they claim; without it, the one whose calls cost most of those that others use."""


class InflateCalls(_Attack):
    """The attacker's calls claim to be in the middle of long interactions."""

    kind: Literal["inflate_calls"]
    calls: int = Field(default=10, ge=3, le=1_000_000)
    """Calls that an interaction claims to have."""


class PadPrompts(_Attack):
    """The attacker's prompts are padded."""

    kind: Literal["pad_prompts"]
    factor: float = Field(default=2.0, ge=1)
    """Tokens of a padded prompt over those of the true one."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Pad no prompt beyond it; without it, beyond the longest of the episode."""


Adversary = Annotated[
    SplitIdentities | IdleThenBurst | MisdeclareApplication | InflateCalls | PadPrompts,
    Field(discriminator="kind"),
]
