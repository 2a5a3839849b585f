"""Run a case through the kernel and through the reference, and list what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from envs.simulator import Simulation, simulate, view
from envs.workloads import RequestTable
from tests.reference_simulator import ReferenceResult, ReferenceView, reference_simulate
from tests.simulator.case import Case
from tests.simulator.elastic import ScriptedRun, account, reference_account

PS_PER_S = 10**12
FIELDS = (
    "arrival_ps",
    "dispatch_ps",
    "admit_ps",
    "first_token_ps",
    "finish_ps",
    "instance",
    "preemptions",
    "failures",
    "status",
)


class Seen(NamedTuple):
    """What a policy sees of one instance."""

    running: tuple[tuple[int, int], ...]  # (request, generated), by request
    waiting: int
    kv_tokens: int
    waiting_tokens: int
    decode_work: int
    load: int
    kv_demand: int


class Decision(NamedTuple):
    """One decision as both sides record it."""

    now_ps: int
    candidates: tuple[int, ...]
    instances: tuple[Seen, ...]
    action: int


class Trace(NamedTuple):
    """What is compared of a run."""

    requests: list[tuple[int, ...]]  # FIELDS of each
    decisions: list[Decision]
    tenant_counters: list[int]  # in order of the first request of each
    cached_tokens: int
    pools: dict[str, list[int]]


def run_reference(case: Case, **options: Any) -> ReferenceResult:
    """Run the reference on a case."""
    decisions = 0

    def policy(seen: ReferenceView) -> int:
        nonlocal decisions
        decisions += 1
        return case.script.action(decisions, seen.now_ps, case.window * len(case.fleet))

    rows = case.requests
    tenants = _tenants(case)
    policy = options.pop("policy", policy)
    return reference_simulate(
        [row.arrival_ps for row in rows],
        [row.prompt for row in rows],
        [row.output for row in rows],
        [row.predicted for row in rows],
        case.fleet,
        policy,
        model=[row.model for row in rows],
        region=[row.region for row in rows],
        tenant=[tenants.index(row.tenant) for row in rows],
        tier=[row.tier for row in rows],
        interaction=_interactions(case),
        call_index=[row.call_index for row in rows],
        deadline_ps=[row.deadline_ps for row in rows],
        priority=[row.priority for row in rows],
        prefix=[row.prefix for row in rows],
        prefix_tokens=[row.prefix_tokens for row in rows],
        weights=[row.weight for row in rows],
        tenant_weights=_tenant_weights(case),
        overrun_tokens=case.overrun_tokens,
        overrun_percent=case.overrun_percent,
        queue_order=case.queue_order,
        decision_interval_ps=case.interval_ps,
        window=case.window,
        closed_loop=case.closed_loop,
        think_ps=[row.think_ps for row in rows],
        rate_limit=case.rate_limit,
        outages=case.outages,
        poll_interval_ps=case.poll_ps,
        application=[row.application for row in rows],
        calls_in_interaction=case.calls,
        gate=case.judges,
        retry=case.judges,
        elastic=None if case.elastic is None else case.elastic.reference_options(),
        **options,
    )


def _tenants(case: Case) -> list[int]:
    """The tenants in order of appearance, which is that of their codes in a request table."""
    return list(dict.fromkeys(row.tenant for row in case.requests))


def _tenant_weights(case: Case) -> list[float]:
    return [case.tenant_weights[t] if case.tenant_weights else 1.0 for t in _tenants(case)]


def _interactions(case: Case) -> list[int]:
    """The interaction of each request; one of its own has a number that no other has."""
    rows = enumerate(case.requests)
    return [10_000 + k if row.interaction is None else row.interaction for k, row in rows]


def reference_trace(case: Case) -> Trace:
    """Run the reference and bring its result into the compared form."""
    result = run_reference(case)

    def seen(at: ReferenceView, i: int) -> Seen:
        return Seen(
            running=tuple(sorted(at.running[i])),
            waiting=len(at.waiting[i]),
            kv_tokens=at.kv_tokens[i],
            waiting_tokens=at.waiting_tokens[i],
            decode_work=at.predicted_remaining[i],
            load=len(at.running[i]) + len(at.waiting[i]),
            kv_demand=at.kv_tokens[i] + at.waiting_tokens[i],
        )

    return Trace(
        [tuple(getattr(request, field) for field in FIELDS) for request in result.requests],
        [
            Decision(
                at.now_ps,
                tuple(at.candidates),
                tuple(seen(at, i) for i in range(len(case.fleet))),
                action,
            )
            for at, action in result.decisions
        ],
        result.tenant_counters,
        result.cached_tokens,
        _reference_pools(case, result),
    )


def _reference_pools(case: Case, result: ReferenceResult) -> dict[str, list[int]]:
    """Pools are kept account of where something reads it."""
    elastic = case.elastic
    if elastic is None or (not elastic.changes and elastic.backlog is None):
        return {}
    return reference_account(result.pooled, case.fleet, elastic.limits_ps)


def seen_by_policy(now_ps: int, instances: Any, requests: Any, running: Any, i: int) -> Seen:
    """Ask the kernel's view functions what a policy may see of instance i."""
    done = view.iterations_done(instances, i, now_ps)
    in_service = [
        (
            int(running[i, j]),
            int(view.generated_tokens(instances, requests, running, i, j, done)),
        )
        for j in range(view.in_service(instances, i))
    ]
    return Seen(
        running=tuple(sorted(in_service)),
        waiting=int(instances[i]["waiting"]),
        kv_tokens=int(view.kv_tokens(instances, i, now_ps)),
        waiting_tokens=int(instances[i]["waiting_tokens"]),
        decode_work=int(view.decode_work(instances, requests, running, i, now_ps)),
        load=int(view.load(instances, i)),
        kv_demand=int(view.kv_demand(instances, i, now_ps)),
    )


def recording_policy(case: Case, decisions: list[Decision]) -> Callable[..., int]:
    """Give a router that follows the script of the case and records what it is shown."""

    def decide(
        now_ps: int,
        instances: Any,
        requests: Any,
        running: Any,
        candidates: Any,
        parameters: Any,
        memory: Any,
    ) -> int:
        now_ps = int(now_ps)
        actions = case.window * len(case.fleet)
        action = case.script.action(len(decisions) + 1, now_ps, actions)
        shown = (now_ps, instances, requests, running)
        decisions.append(
            Decision(
                now_ps,
                tuple(int(candidate) for candidate in candidates),
                tuple(seen_by_policy(*shown, i) for i in range(len(instances))),
                action,
            )
        )
        return action

    return decide


def kernel_table(case: Case) -> RequestTable:
    """Give the requests of a case as the kernel takes them."""
    rows = case.requests
    columns: dict[str, Any] = {
        "arrival_s": [row.arrival_ps / PS_PER_S for row in rows],
        "prompt_tokens": [row.prompt for row in rows],
        "output_tokens": [row.output for row in rows],
        "predicted_output_tokens": [row.predicted for row in rows],
        "tenant": [f"tenant {row.tenant}" for row in rows],
        "tier": [("IW-F", "IW-N", "NIW")[row.tier] for row in rows],
        "interaction": _interactions(case),
        "call_index": [row.call_index for row in rows],
        "calls_in_interaction": case.calls,
        "application": [f"application {row.application}" for row in rows],
        "deadline_s": [
            np.inf if row.deadline_ps is None else row.deadline_ps / PS_PER_S for row in rows
        ],
        "priority": [row.priority for row in rows],
        "prefix_id": [row.prefix for row in rows],
        "prefix_tokens": [row.prefix_tokens for row in rows],
    }
    if any(row.model for row in rows):
        columns["model"] = [row.model for row in rows]
    if any(row.region for row in rows):
        columns["region"] = [row.region for row in rows]
    table = RequestTable.from_columns(**columns)
    assert table.arrival_ps.tolist() == [row.arrival_ps for row in rows], "case not exact in floats"
    return table


def kernel_options(case: Case) -> dict[str, Any]:
    """Give the keyword arguments of a case for `simulate` and `Simulation`."""
    rows = case.requests
    options: dict[str, Any] = {
        "queue_order": case.queue_order,
        "decision_interval_s": case.interval_ps / PS_PER_S,
        "window": case.window,
    }
    # What is off is left out, so that the defaults are tested as well.
    if case.closed_loop:
        options |= {
            "closed_loop": True,
            "think_s": np.array([row.think_ps / PS_PER_S for row in rows]),
        }
    if case.rate_limit is not None:
        from envs.simulator import RateLimit

        limit = case.rate_limit
        options["rate_limit"] = RateLimit(
            requests_per_minute=limit.requests_per_minute,
            kill_interactions=limit.kill_interactions,
        )
    if case.outages:
        from envs.simulator import Outage

        options["outages"] = [
            Outage(instance=i, start_s=start / PS_PER_S, end_s=end / PS_PER_S)
            for i, start, end in case.outages
        ]
    if case.poll_ps:
        options["poll_interval_s"] = case.poll_ps / PS_PER_S
    if case.judges is not None:
        options |= case.judges.options()
    if case.overrun_tokens != 1:
        options["overrun_tokens"] = case.overrun_tokens
    if case.overrun_percent:
        options["overrun_percent"] = case.overrun_percent
    if any(row.weight != 1.0 for row in rows):
        options["weights"] = np.array([row.weight for row in rows])
    if case.tenant_weights:
        options["tenant_weights"] = np.array(_tenant_weights(case))
    if case.elastic is not None:
        options |= case.elastic.options()
    return options


def kernel_trace(case: Case) -> Trace:
    """Run the kernel, with a Python callable that records what it is shown."""
    decisions: list[Decision] = []
    fleet = [engine.config() for engine in case.fleet]
    router = recording_policy(case, decisions)
    pools = {}
    if case.elastic is None:
        result = simulate(kernel_table(case), fleet, router, **kernel_options(case))
    else:
        simulation = Simulation(kernel_table(case), fleet, **kernel_options(case))
        if case.elastic.changes:
            ScriptedRun(simulation, router, case.elastic.changes).finish()
        else:
            simulation.run(router)
        result = simulation.result()
        pools = account(simulation.regions, simulation.models, simulation.state.arrays["pools"])
    counters = result.tenant_counters.tolist()
    if not any(counters):  # where nothing is charged, none need be kept
        counters = [0] * len(_tenants(case))
    return Trace(
        list(zip(*(result.requests[field].tolist() for field in FIELDS), strict=True)),
        decisions,
        counters,
        int(result.counters["cached_tokens"]),
        pools,
    )


def differences(case: Case) -> list[str]:
    """Give what differs between kernel and reference, in words; empty where they are equal."""
    expected, actual = reference_trace(case), kernel_trace(case)
    found = []
    for number, (want, got) in enumerate(zip(expected.decisions, actual.decisions, strict=False)):
        if want != got:
            found.append(f"decision {number}: reference {want}\n{'':12}kernel    {got}")
            break  # every later one follows from the first
    if len(expected.decisions) != len(actual.decisions):
        lengths = f"{len(expected.decisions)}, kernel {len(actual.decisions)}"
        found.append(f"decisions: reference {lengths}")
    for index, (row, other) in enumerate(zip(expected.requests, actual.requests, strict=True)):
        for field, was, is_now in zip(FIELDS, row, other, strict=True):
            if was != is_now:
                found.append(f"request {index}: {field}: reference {was}, kernel {is_now}")
    for name in ("tenant_counters", "cached_tokens", "pools"):
        sums = getattr(expected, name), getattr(actual, name)
        if sums[0] != sums[1]:
            found.append(f"{name}: reference {sums[0]}, kernel {sums[1]}")
    return found
