"""What an operator knows of a service from its past: other requests of the same scenario."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from baselines.routing import router
from envs.scenarios import Scenario, seeds
from envs.simulator import simulate
from envs.workloads import RequestTable
from scripts.experiments.bootstrap import resample

_MINUTE_S = 60.0


@dataclass(frozen=True)
class History:
    """Requests of another time, and what follows from them.

    Attributes:
        table: Requests of the scenario's first training seed, before anybody games the scheduler;
            of a trace that is resampled, another sample of it.
        tokens_per_minute: Input and output tokens that the fleet serves in a minute when all of
            them wait from the start.
        tenants_per_minute: Tenants that call in a minute, on average over whole minutes.
    """

    table: RequestTable
    tokens_per_minute: float
    tenants_per_minute: float

    @property
    def fair_tokens_per_minute(self) -> float:
        """Tokens a minute of each tenant, if those that call share the fleet equally."""
        return self.tokens_per_minute / self.tenants_per_minute


def history_of(scenario: Scenario, bootstrap: bool = False) -> History | None:
    """The past of a scenario; None where it serves a recorded trace as it is, which has none.

    Args:
        scenario: The scenario.
        bootstrap: Whether a recorded trace is resampled for every seed; its past is then the
            sample of a training seed, which has the same means on average.

    Raises:
        ScenarioError: The scenario cannot be built.
    """
    table = past_requests(scenario, bootstrap)
    if table is None:
        return None
    return History(table, _capacity(_text(scenario), bootstrap), _tenants_per_minute(table))


def past_requests(scenario: Scenario, bootstrap: bool = False) -> RequestTable | None:
    """The requests of `history_of` alone."""
    workload = scenario.workload
    if workload.kind == "trace" and workload.read_format() != "servegen" and not bootstrap:
        return None
    return _requests(_text(scenario), bootstrap)


def _text(scenario: Scenario) -> str:
    """All that the past depends on, so that it is drawn once."""
    keep = {"name", "fleet", "workload", "prediction", "clients"}
    return scenario.model_dump_json(include=keep, exclude_unset=True)


@lru_cache(maxsize=8)
def _requests(text: str, bootstrap: bool) -> RequestTable:
    (seed,) = seeds("train", 1)
    table = Scenario.model_validate_json(text).requests(seed)
    return resample(table, seed) if bootstrap else table


@lru_cache(maxsize=64)
def _capacity(text: str, bootstrap: bool) -> float:
    table = _requests(text, bootstrap)
    waiting = table.replace(arrival_s=np.zeros(len(table)))
    result = simulate(waiting, Scenario.model_validate_json(text).fleet.engines(), router("jsq"))
    served = result.requests["finish_ps"] >= 0
    tokens = (table.prompt_tokens + table.output_tokens)[served].sum()
    seconds = result.requests["finish_ps"].max(initial=0) / 1e12
    return float(tokens / max(seconds, 1e-9) * _MINUTE_S)


def _tenants_per_minute(table: RequestTable) -> float:
    minutes = (table.arrival_s // _MINUTE_S).astype(np.int64)
    # The last minute is seldom a whole one.
    whole = max(int(minutes.max(initial=0)), 1)
    pairs = np.unique(
        np.stack([minutes, np.asarray(table.tenant.codes)])[:, minutes < whole], axis=1
    )
    return max(pairs.shape[1] / whole, 1.0)
