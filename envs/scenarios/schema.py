"""A scenario: a fleet, a workload, what a policy is told, and what good service is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from envs.scenarios.adversary import Adversary
from envs.scenarios.conditions import (
    AdmissionPolicy,
    Clients,
    Failures,
    RequestLimit,
    Resend,
)
from envs.scenarios.errors import ScenarioError
from envs.scenarios.fleet import Fleet
from envs.scenarios.scaling import Scaling
from envs.scenarios.strict import Strict
from envs.scenarios.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from envs.simulator.config import EngineConfig
    from envs.simulator.gate import Gate
    from envs.workloads import RequestTable


class Prediction(Strict):
    """How well output lengths are predicted."""

    sigma: float = Field(default=0.5, ge=0)
    """Predictions are the truth times lognormal(0, sigma); 0 is an oracle."""
    spread: float | None = Field(default=None, ge=0, le=1)
    """Instead of that, errors uniform between -spread and +spread of the truth."""
    overrun_tokens: int = Field(default=1, ge=0, lt=2**15)
    """Output tokens that a request which has outlived its prediction is taken to have to come."""
    overrun_percent: int = Field(default=0, ge=0, lt=2**15)
    """The same as a share of the tokens generated; the larger counts."""


class Router(Strict):
    """The queue in front of the fleet and the clock of its decisions."""

    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the policy's own."""
    decision_interval_s: float = Field(default=0.0, ge=0, le=10_000)
    """Seconds between decisions; 0 decides on events."""
    window: int = Field(default=1, ge=1)
    """Queue positions among which a decision chooses."""
    poll_interval_s: float = Field(default=0.0, ge=0, le=10_000)
    """Seconds between the router's looks at the instances; 0 sees them live."""


class ServiceObjective(Strict):
    """Seconds within which a request must be served; without a value, any time will do."""

    ttft_s: float | None = Field(default=None, gt=0)
    """To the first token."""
    tbt_s: float | None = Field(default=None, gt=0)
    """Between tokens, mean over a request."""
    e2e_s: float | None = Field(default=None, gt=0)
    """To the last token."""

    def limits_s(self) -> tuple[float, float, float]:
        """TTFT, TBT and E2E limits in seconds, infinite where there is none."""
        ttft, tbt, e2e = (
            math.inf if limit is None else limit for limit in (self.ttft_s, self.tbt_s, self.e2e_s)
        )
        return ttft, tbt, e2e


class Scenario(Strict):
    """One setting in which policies are trained or compared."""

    name: str
    description: str = ""
    source: str = ""
    """Where the figures are from."""
    fleet: Fleet
    workload: Workload
    prediction: Prediction = Prediction()
    router: Router = Router()
    slo: ServiceObjective = ServiceObjective()
    clients: Clients = Clients()
    rate_limit: RequestLimit | None = None
    """Requests that each tenant may send; without it, any number."""
    gate: AdmissionPolicy | None = None
    """Admission policy; without it, all come in."""
    retry: Resend | None = None
    """What clients do with calls that an admission policy turns away; without it, nothing."""
    failures: Failures = Failures()
    adversary: Adversary | None = None
    """Tenants that game the scheduler; without it, all are honest."""
    scaling: Scaling | None = None
    """Regions, prices and life cycle of a fleet that is scaled; without it, it stays as it is."""

    @model_validator(mode="after")
    def _check_outages(self) -> Scenario:
        count = sum(group.count for group in self.fleet.groups.values())
        for down in self.failures.outages:
            if down.instance >= count:
                raise ValueError(
                    f"failures.outages: there is no instance {down.instance}, the fleet has 0 to "
                    f"{count - 1}"
                )
        return self

    def build(self, seed: int) -> tuple[RequestTable, list[EngineConfig]]:
        """Draw one episode.

        Args:
            seed: Seed of everything that is drawn; take it from `seeds`, so that training and
                evaluation never share an episode.

        Returns:
            The requests with predicted output lengths (their own, where a trace has some), and
            one configuration per instance.

        Raises:
            ScenarioError: The catalogue lacks a name, or a parameter of the workload is refused.
            TraceError: A trace cannot be read.
        """
        engines = self.fleet.engines()
        return self.requests(seed), engines

    def requests(self, seed: int) -> RequestTable:
        """The requests of `build` alone."""
        from envs.workloads import TraceError

        try:
            table = self.workload.build(seed)
        except TraceError:
            raise
        except ValueError as error:
            raise ScenarioError(self.name, str(error), ("workload",)) from error
        if self.adversary is not None:
            try:
                table = self.adversary.apply(table)
            except TraceError:
                raise
            except ValueError as error:
                raise ScenarioError(self.name, str(error), ("adversary",)) from error
        return self.complete(table, seed)

    def honest_twin(self) -> Scenario:
        """The same scenario with nobody who games the scheduler.

        For the same seed it has the same requests before the attack: `envs.workloads.unmask`
        finds what those of the attacked episode really are in it.
        """
        return self.model_copy(update={"adversary": None})

    def complete(self, table: RequestTable, seed: int) -> RequestTable:
        """Draw what requests of an episode lack: predicted output lengths and models."""
        table = self.clients.draw_models(table, seed)
        if "predicted_output_tokens" in table.given:
            return table
        # A stream of its own: with the workload's seed, errors would follow the lengths.
        stream = np.random.SeedSequence([seed, 1]).generate_state(1)
        return table.with_predictions(
            self.prediction.sigma, seed=int(stream[0]), spread=self.prediction.spread
        )

    def options(
        self, table: RequestTable, seed: int, find_gate: Callable[..., Gate] | None = None
    ) -> dict[str, Any]:
        """How an episode is simulated: keyword arguments of `simulate` and `Simulation`.

        What the scenario leaves open of the router is not among them, so that `simulate` takes it
        from the policy.

        Args:
            table: The requests of the episode.
            seed: The seed of the episode, which draws its failures.
            find_gate: Gives an admission policy by name and parameters
                (`baselines.admission.gate`); only scenarios that name one need it.

        Raises:
            ScenarioError: A tenant with a weight is not in the table, there are too many
                failures, or the admission policy is unknown.
        """
        given = {name: getattr(self.router, name) for name in self.router.model_fields_set}
        size = sum(group.count for group in self.fleet.groups.values())
        duration_s = float(table.arrival_s[-1]) if len(table) else 0.0
        try:
            outages = self.failures.build(seed, size, duration_s)
            tenant_weights = self.clients.tenant_weights(table)
        except ValueError as error:
            raise ScenarioError(self.name, str(error)) from error
        return given | {
            "slo_s": self.slo.limits_s(),
            "overrun_tokens": self.prediction.overrun_tokens,
            "overrun_percent": self.prediction.overrun_percent,
            "closed_loop": self.clients.closed_loop,
            "think_s": self.clients.think_s,
            "tenant_weights": tenant_weights,
            "rate_limit": None if self.rate_limit is None else self.rate_limit.build(),
            "gate": self.find_gate(find_gate),
            "retry": None if self.retry is None else self.retry.build(),
            "outages": outages,
        }

    def find_gate(self, find: Callable[..., Gate] | None) -> Gate | None:
        """The admission policy, None where the scenario has none; arguments as `options`.

        Raises:
            ScenarioError: The policy or a parameter is unknown, or there is nobody to ask.
        """
        if self.gate is None:
            return None
        if find is None:
            raise ScenarioError(
                self.name,
                f"nobody here knows the admission policy {self.gate.name!r}: give `options` the "
                "function `gate` of baselines.admission, or leave the key out",
                ("gate",),
            )
        try:
            return self.gate.build(find)
        except ValueError as error:
            raise ScenarioError(self.name, str(error), ("gate",)) from None

    def to_yaml(self) -> str:
        """The scenario as YAML that `load_scenario` reads back to an equal one."""
        values = self.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
