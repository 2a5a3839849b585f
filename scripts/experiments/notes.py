"""What of a scenario's settings has no effect on the requests that are served, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scripts.common import counted

if TYPE_CHECKING:
    from envs.simulator import EngineConfig, Result
    from envs.workloads import RequestTable
    from scripts.experiments.cases import Case, Episode


def notes_before(case: Case, episode: Episode) -> list[str]:
    """What can be told before the requests are served."""
    found = [*_of_tenants(case, episode), *_of_models(episode.table, episode.engines)]
    calls = episode.table.interaction
    if case.scenario.clients.closed_loop and len(np.unique(calls)) == len(calls):
        found.append(
            "clients wait for answers (closed loop), but every interaction is a single call: they "
            "send as without it"
        )
    return found


def notes_after(case: Case, result: Result) -> list[str]:
    """What can be told only after."""
    end_s = float(result.requests["finish_ps"].max(initial=0)) / 1e12
    return [
        f"instance {down.instance} is down from {down.start_s:g} s, but the last request finished "
        f"at {end_s:.3g} s: this outage changes nothing"
        for down in case.scenario.failures.outages
        if down.start_s >= max(end_s, float(np.max(result.table.arrival_s, initial=0.0)))
    ]


def _of_tenants(case: Case, episode: Episode) -> list[str]:
    if len(np.unique(episode.table.tenant.codes)) > 1:
        return []
    found = []
    for name in dict.fromkeys(e.scheduler.name for e in episode.engines if _by_tenant(e)):
        found.append(f"scheduler {name} is for several tenants, and all requests are of one")
    if case.scenario.rate_limit is not None:
        found.append("the rate limit is for each tenant, and all requests are of one")
    return found


def _by_tenant(engine: EngineConfig) -> bool:
    return engine.scheduler.kind == "tenant"


def _of_models(table: RequestTable, engines: Sequence[EngineConfig]) -> list[str]:
    served = {engine.model for engine in engines}
    if served == {""}:
        return []
    codes, counts = np.unique(table.model.codes, return_counts=True)
    asked = dict(zip([table.model.names[code] for code in codes], counts.tolist(), strict=True))
    found = [
        f"instances serve {name}, but no request asks for that model: they serve only requests "
        "that name none"
        for name in sorted(served - set(asked) - {""})
    ]
    if "" in served:
        return found
    return found + [
        f"{counted(count, 'request')} for model {name}, which no instance serves, will be rejected"
        for name, count in sorted(asked.items())
        if name and name not in served
    ]
