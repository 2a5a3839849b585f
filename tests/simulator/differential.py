"""Run a case through the kernel and through the reference, and list what differs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from envs.simulator import simulate, view
from envs.workloads import RequestTable
from tests.reference_simulator import ReferenceResult, ReferenceView, reference_simulate
from tests.simulator.cases import Case

PS_PER_S = 10**12
FIELDS = (
    "arrival_ps",
    "dispatch_ps",
    "admit_ps",
    "first_token_ps",
    "finish_ps",
    "instance",
    "preemptions",
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


def run_reference(case: Case) -> ReferenceResult:
    """Run the reference on a case."""
    decisions = 0

    def policy(seen: ReferenceView) -> int:
        nonlocal decisions
        decisions += 1
        return case.script.action(decisions, seen.now_ps, case.window * len(case.fleet))

    arrival, prompt, output, predicted = zip(*case.requests, strict=True)
    return reference_simulate(
        arrival,
        prompt,
        output,
        predicted,
        case.fleet,
        policy,
        queue_order=case.queue_order,
        decision_interval_ps=case.interval_ps,
        window=case.window,
    )


def reference_trace(case: Case) -> Trace:
    """Run the reference and bring its result into the compared form."""
    result = run_reference(case)
    predicted = [row[3] for row in case.requests]

    def seen(at: ReferenceView, i: int) -> Seen:
        at_instance = at.running[i] + at.waiting[i]
        return Seen(
            running=tuple(sorted(at.running[i])),
            waiting=len(at.waiting[i]),
            kv_tokens=at.kv_tokens[i],
            waiting_tokens=at.waiting_tokens[i],
            decode_work=sum(max(predicted[r] - generated, 1) for r, generated in at_instance),
            load=len(at_instance),
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
    )


def kernel_trace(case: Case) -> Trace:
    """Run the kernel, with a Python callable that records what it is shown."""
    decisions: list[Decision] = []

    def seen(now_ps: int, instances: Any, requests: Any, running: Any, i: int) -> Seen:
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
        decisions.append(
            Decision(
                now_ps,
                tuple(int(candidate) for candidate in candidates),
                tuple(seen(now_ps, instances, requests, running, i) for i in range(len(instances))),
                action,
            )
        )
        return action

    arrival, prompt, output, predicted = (np.array(c) for c in zip(*case.requests, strict=True))
    table = RequestTable.from_columns(
        arrival_s=arrival / PS_PER_S,
        prompt_tokens=prompt,
        output_tokens=output,
        predicted_output_tokens=predicted,
    )
    result = simulate(
        table,
        case.fleet,
        decide,
        queue_order=case.queue_order,
        decision_interval_s=case.interval_ps / PS_PER_S,
        window=case.window,
    )
    columns = [result.requests[field].tolist() for field in FIELDS]
    return Trace(list(zip(*columns, strict=True)), decisions)


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
        for field, want, got in zip(FIELDS, row, other, strict=True):
            if want != got:
                found.append(f"request {index}: {field}: reference {want}, kernel {got}")
    return found
