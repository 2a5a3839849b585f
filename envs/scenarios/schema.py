"""A scenario: a fleet, a workload, what a policy is told, and what good service is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import Field

from envs.scenarios.errors import ScenarioError
from envs.scenarios.fleet import Fleet
from envs.scenarios.strict import Strict
from envs.scenarios.workload import Workload

if TYPE_CHECKING:
    from envs.simulator.config import EngineConfig
    from envs.workloads import RequestTable


class Prediction(Strict):
    """How well output lengths are predicted."""

    sigma: float = Field(default=0.5, ge=0)
    """Predictions are the truth times lognormal(0, sigma); 0 is an oracle."""


class Router(Strict):
    """The queue in front of the fleet and the clock of its decisions."""

    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the policy's own."""
    decision_interval_s: float = Field(default=0.0, ge=0)
    """Seconds between decisions; 0 decides on events."""
    window: int = Field(default=1, ge=1)
    """Queue positions among which a decision chooses."""

    def settled(self) -> dict[str, Any]:
        """The options that were given, as arguments of `simulate`; the policy settles the rest."""
        return {name: getattr(self, name) for name in self.model_fields_set}


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
        known = "predicted_output_tokens" in table.given
        return table if known else self.predict(table, seed)

    def predict(self, table: RequestTable, seed: int) -> RequestTable:
        """Draw predicted output lengths for requests of an episode."""
        # A stream of its own: with the workload's seed, errors would follow the lengths.
        stream = np.random.SeedSequence([seed, 1]).generate_state(1)
        return table.with_predictions(self.prediction.sigma, seed=int(stream[0]))

    def to_yaml(self) -> str:
        """The scenario as YAML that `load_scenario` reads back to an equal one."""
        values = self.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
