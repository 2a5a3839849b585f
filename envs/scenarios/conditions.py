"""What a fleet has to live with: clients that wait for answers, rate limits, failures."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from envs.scenarios.strict import Strict

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.simulator.config import Outage, RateLimit
    from envs.simulator.gate import Gate, Retry
    from envs.workloads import RequestTable

MOST_OUTAGES = 100_000
"""Failures that may be expected of an episode; more is a slip of the pen."""
_MODELS, _FAILURES = 4, 3  # streams of a seed, beside those of the predictions and the bootstrap

Positive = Annotated[float, Field(gt=0)]


class Clients(Strict):
    """Who sends the requests."""

    closed_loop: bool = False
    """Whether the next call of an interaction is sent only after the one before has finished."""
    think_s: float = Field(default=0.0, ge=0, le=9e6)
    """Seconds between the two."""
    weights: dict[str, Positive] = Field(default_factory=dict)
    """Weight of a tenant by its name, for schedulers with counters; others have 1."""
    models: dict[str, Positive] = Field(default_factory=dict)
    """Share of the requests by the model that they ask for, drawn where the workload names none.
    Shares need not sum to 1."""

    @model_validator(mode="after")
    def _check_together(self) -> Clients:
        if self.think_s and not self.closed_loop:
            raise ValueError("think_s is for clients that wait: add closed_loop: true")
        return self

    def tenant_weights(self, table: RequestTable) -> np.ndarray | None:
        """The weight of each tenant of a table, None where all are equal.

        Raises:
            ValueError: A tenant is named that the table does not have.
        """
        if not self.weights:
            return None
        names = table.tenant.names
        if unknown := sorted(set(self.weights) - set(names)):
            raise ValueError(
                f"weights: no request is of tenant {unknown[0]!r}; tenants are "
                f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            )
        return np.array([self.weights.get(name, 1.0) for name in names])

    def draw_models(self, table: RequestTable, seed: int) -> RequestTable:
        """The requests with models, drawn where the table names none."""
        if not self.models or "model" in table.given:
            return table
        rng = np.random.default_rng(np.random.SeedSequence([seed, _MODELS]))
        shares = np.array(list(self.models.values()))
        shares /= shares.max()  # else the sum may be beyond the range of numbers
        drawn = rng.choice(len(shares), len(table), p=shares / shares.sum())
        return table.replace(model=np.array(list(self.models), object)[drawn])


class RequestLimit(Strict):
    """Requests that a tenant may send (docs/simulator.md, "Rate limit")."""

    requests_per_minute: int = Field(ge=1, le=2**20)
    """Requests of a tenant that may enter the waiting queues in any 60 s."""
    kill_interactions: bool = False
    """Whether a rejected call ends its interaction."""

    def build(self) -> RateLimit:
        """The limit as the simulator takes it."""
        from envs.simulator.config import RateLimit

        return RateLimit(self.requests_per_minute, self.kill_interactions)


class AdmissionPolicy(Strict):
    """Who may come in: the name of an admission policy, and values of its parameters.

    Whoever serves the scenario looks the name up (`baselines.admission`), as the policies are no
    part of the environments.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    name: str = Field(min_length=1)
    """Its name, of `servegym catalogue gates`; all other keys are its parameters."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        """Which parameters there are, only the policy knows."""
        return data

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters that were given."""
        return dict(self.__pydantic_extra__)

    def build(self, find: Callable[..., Gate]) -> Gate:
        """The policy as the simulator takes it.

        Args:
            find: Gives a policy by name and parameters: `baselines.admission.gate`.

        Raises:
            ValueError: There is no such policy, or it has no such parameter.
        """
        return find(self.name, **self.parameters)


class Resend(Strict):
    """Clients that send a call again when an admission policy has turned it away."""

    times: int = Field(default=0, ge=0, le=20)
    """How often, at most."""
    backoff_s: float = Field(default=1.0, ge=1e-6, le=1e4)
    """Seconds before the first time; each further wait is twice as long."""
    patience_s: float = Field(default=1e6, ge=0, le=1e6)
    """Seconds after its first arrival at which a call is given up."""

    def build(self) -> Retry:
        """The same as the simulator takes it."""
        from envs.simulator.gate import Retry

        return Retry(self.times, self.backoff_s, self.patience_s)


class Down(Strict):
    """An instance that fails and comes back."""

    instance: int = Field(ge=0)
    """Its place in the fleet, counted from 0 through the groups."""
    start_s: float = Field(ge=0, le=9e6)
    """When it fails, in seconds of the episode."""
    end_s: float = Field(gt=0, le=9e6)
    """When it is back."""

    @model_validator(mode="after")
    def _check_together(self) -> Down:
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s ({self.end_s:g}) must be after start_s ({self.start_s:g})")
        return self


class Failures(Strict):
    """Instances that fail: at given times, or by chance (docs/simulator.md, "Failures").

    By chance, each instance is up and then down for exponential times, anew in every episode,
    and fails for the last time before the last arrival.
    """

    outages: list[Down] = Field(default_factory=list)
    """The failures, the same in every episode."""
    mean_time_between_failures_s: float | None = Field(default=None, gt=0)
    """Mean seconds from the start or a repair to the next failure of an instance."""
    mean_time_to_repair_s: float | None = Field(default=None, gt=0, le=1e5)
    """Mean seconds that a failed instance is down."""

    @model_validator(mode="after")
    def _check_together(self) -> Failures:
        means = (self.mean_time_between_failures_s, self.mean_time_to_repair_s)
        if (means[0] is None) != (means[1] is None):
            raise ValueError(
                "mean_time_between_failures_s and mean_time_to_repair_s: give both or neither"
            )
        if self.outages and means[0] is not None:
            raise ValueError("give outages or mean times, not both")
        ordered = sorted(self.outages, key=lambda down: (down.instance, down.start_s))
        for one, next_one in pairwise(ordered):
            if one.instance == next_one.instance and next_one.start_s < one.end_s:
                raise ValueError(f"outages of instance {one.instance} overlap")
        return self

    def build(self, seed: int, instances: int, duration_s: float) -> list[Outage]:
        """The failures of an episode, as the simulator takes them.

        Args:
            seed: Seed of the episode.
            instances: Size of the fleet.
            duration_s: Seconds in which instances fail.

        Raises:
            ValueError: More than `MOST_OUTAGES` are expected.
        """
        from envs.simulator.config import Outage

        if self.outages:
            return [Outage(down.instance, down.start_s, down.end_s) for down in self.outages]
        up_s, down_s = self.mean_time_between_failures_s, self.mean_time_to_repair_s
        if up_s is None or down_s is None:
            return []
        expected = instances * duration_s / (up_s + down_s)
        if expected > MOST_OUTAGES:
            raise ValueError(
                f"about {expected:.0f} failures in {duration_s:.0f} s are more than the "
                f"{MOST_OUTAGES} that are drawn: raise mean_time_between_failures_s"
            )
        found = []
        for instance in range(instances):
            # A stream each, so that a larger fleet keeps the failures of its first instances.
            rng = np.random.default_rng(np.random.SeedSequence([seed, _FAILURES, instance]))
            start = rng.exponential(up_s)
            while start < duration_s:
                end = start + max(rng.exponential(down_s), 1e-6)
                found.append(Outage(instance, float(start), float(end)))
                start = end + rng.exponential(up_s)
        return found
