"""The reference itself, held against times worked out by hand from docs/simulator.md."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.reference_simulator import (
    NEVER,
    REJECTED_FLEET,
    REJECTED_INSTANCE,
    SERVED,
    ReferenceResult,
    ReferenceView,
    reference_simulate,
)
from tests.simulator.both import EVERY_TERM
from tests.simulator.case import Case, Engine
from tests.simulator.cases import random_case
from tests.simulator.differential import run_reference

COST = dataclasses.replace(EVERY_TERM, prefill_tail_ps=50)
ENGINE = Engine(
    cost=COST,
    kv_capacity_tokens=1000,
    max_num_seqs=4,
    max_batched_tokens=100,
    watermark=0.0,
)
HOLD = -1


def engine(**changes: Any) -> Engine:
    """Give the engine of these tests with some limits changed."""
    return dataclasses.replace(ENGINE, **changes)


def run(
    rows: Sequence[tuple[int, ...]],
    fleet: Sequence[Engine] = (ENGINE,),
    policy: Callable[[ReferenceView], int] = lambda view: 0,
    **options: Any,
) -> ReferenceResult:
    """Run rows of (arrival_ps, prompt, output[, predicted]); predicted defaults to output."""
    full = [row if len(row) == 4 else (*row, row[2]) for row in rows]
    arrival, prompt, output, predicted = zip(*full, strict=True) if full else ((),) * 4
    return reference_simulate(arrival, prompt, output, predicted, fleet, policy, **options)


def column(result: ReferenceResult, field: str) -> list[int]:
    """Give one field of every request."""
    return [getattr(request, field) for request in result.requests]


def test_one_request() -> None:
    """Prefill 103 + 5 * 6 = 133, then one decode of context 4: 11 + 8 = 19."""
    (request,) = run([(50, 3, 2)]).requests
    assert (request.dispatch_ps, request.admit_ps) == (50, 50)
    assert (request.first_token_ps, request.finish_ps) == (183, 202)
    assert (request.instance, request.preemptions, request.status) == (0, 0, SERVED)


def test_nothing_to_do() -> None:
    """No request, no decision."""
    result = run([])
    assert (result.requests, result.decisions, result.in_system_integral) == ([], [], 0)


def test_prefill_stops_the_decodes() -> None:
    """The second prompt: 102 + 5 * 3 = 117; decodes: 12 + 2 * 7 = 26, then 11 + 2 * 5 = 21."""
    result = run([(0, 3, 3), (10, 2, 2)])
    assert column(result, "admit_ps") == [0, 133]
    assert column(result, "first_token_ps") == [133, 250]
    assert column(result, "finish_ps") == [297, 276]


def test_simultaneous_prompts_share_a_prefill() -> None:
    """S is the sum of each request's own work: 105 + 5 * (6 + 3) = 150."""
    assert column(run([(0, 3, 1), (0, 2, 1)]), "finish_ps") == [150, 150]


def test_token_limit_of_a_prefill() -> None:
    """A first prompt beyond the limit goes alone: 104 + 2 * 50 + 5 * 21 = 309, then 101 + 5."""
    result = run([(0, 6, 1), (0, 1, 1)], [engine(max_batched_tokens=4)])
    assert column(result, "admit_ps") == [0, 309]
    assert column(result, "finish_ps") == [309, 415]


def test_arrival_at_the_end_of_an_iteration_joins_the_next() -> None:
    """The first prefill ends at 133; one picosecond later waits for the decode (19) to end."""
    assert column(run([(0, 3, 2), (133, 2, 1)]), "admit_ps") == [0, 133]
    assert column(run([(0, 3, 2), (134, 2, 1)]), "admit_ps") == [0, 152]


def test_preemption() -> None:
    """Two requests fill the cache of 8 after one decode; the second is recomputed.

    Prefill 106 + 5 * 12 = 166; decode of two, C = 8: 28; then C = 5: 21 and C = 6: 23 alone;
    the recomputed 5 tokens 105 + 5 * 15 = 180; a last decode, C = 6: 23.
    """
    result = run([(0, 3, 4), (0, 3, 4)], [engine(kv_capacity_tokens=8)])
    assert column(result, "finish_ps") == [238, 441]
    assert column(result, "first_token_ps") == [166, 166]
    assert column(result, "admit_ps") == [0, 0]
    assert column(result, "preemptions") == [0, 1]


@pytest.mark.parametrize("queue", ["fcfs", "sjf"])
def test_preempted_requests_stand_at_the_head(queue: str) -> None:
    """Two are preempted at 259, the third before the second; a shorter one comes later."""
    rows = [(0, 7, 3, 7), (0, 1, 5, 8), (0, 1, 4, 9), (260, 1, 1, 1), (261, 1, 1, 1)]
    views: list[ReferenceView] = []

    def policy(view: ReferenceView) -> int:
        views.append(view)
        return 0

    result = run(rows, [engine(kv_capacity_tokens=9, queue=queue)], policy)
    assert views[-1].now_ps == 261
    assert views[-1].running == [[(0, 1)]]
    assert views[-1].waiting == [[(1, 1), (2, 1), (3, 0)]]
    assert (views[-1].kv_tokens, views[-1].waiting_tokens) == ([8], [5])
    assert column(result, "preemptions")[:3] == [0, 1, 1]


def test_chunked() -> None:
    """A budget of 4 tokens: (3 + 1), then a decode with 3, then with 1, then a decode.

    104 + 5 * 7 = 139; 104 + 7 + 3 * 4 + 5 * (3 * 1 + 6) = 168;
    102 + 7 + 3 * 5 + 5 * (1 * 4 + 1) = 149; 11 + 2 * 6 = 23.
    """
    chunked = engine(batching="chunked", max_num_seqs=2, max_batched_tokens=4)
    result = run([(0, 3, 3), (0, 5, 2)], [chunked])
    assert column(result, "admit_ps") == [0, 0]
    assert column(result, "first_token_ps") == [139, 456]
    assert column(result, "finish_ps") == [456, 479]


def test_chunked_preempts_a_partial_prefill() -> None:
    """The second request loses two prefilled tokens at 370 and starts again at 414.

    117 + 122 + 131 = 370; decodes 21 + 23; chunks 117 + 137 + 157.
    """
    tight = engine(batching="chunked", max_num_seqs=2, max_batched_tokens=2, kv_capacity_tokens=10)
    result = run([(0, 3, 4), (0, 6, 1)], [tight])
    assert column(result, "admit_ps") == [0, 117]
    assert column(result, "first_token_ps") == [239, 825]
    assert column(result, "finish_ps") == [414, 825]
    assert column(result, "preemptions") == [0, 1]


def test_admission_keeps_the_watermark_free_and_blocks_behind_the_head() -> None:
    """Of 20 tokens 2 stay free: 10 + 9 do not fit, and the last one waits behind the head."""
    result = run([(0, 10, 1), (0, 9, 1), (0, 1, 1)], [engine(kv_capacity_tokens=20, watermark=0.1)])
    first = 110 + 5 * 55
    assert column(result, "admit_ps") == [0, first, first]


def test_shortest_predicted_first_at_the_instance() -> None:
    """One at a time: the predictions decide, ties by index."""
    rows = [(0, 1, 1, 9), (1, 1, 1, 8), (2, 1, 1, 5), (3, 1, 1, 5)]
    result = run(rows, [engine(max_num_seqs=1, queue="sjf")])
    assert column(result, "admit_ps") == [0, 318, 106, 212]


def test_shortest_predicted_first_at_the_router() -> None:
    """The window shows the queue in its order, -1 where it is shorter."""
    result = run([(0, 1, 1, 8), (0, 1, 1, 5), (0, 1, 1, 5)], queue_order="sjf", window=2)
    assert [view.candidates for view, _ in result.decisions] == [[1, 2], [2, 0], [0, -1]]


def test_the_action_names_place_and_instance() -> None:
    """Action 3 of two instances: the second in the queue to the second instance."""
    result = run([(0, 1, 1), (0, 2, 1)], [ENGINE] * 2, lambda v: 3 if -1 not in v.candidates else 0,
                 window=2)  # fmt: skip
    assert column(result, "instance") == [0, 1]
    assert [view.candidates for view, _ in result.decisions] == [[0, 1], [0, -1]]


@pytest.mark.parametrize("action", [HOLD, 1, 2, 10**9])
def test_a_hold_cannot_stick(action: int) -> None:
    """Held until the prefill ends and the first finishes, then forced; 1 is an empty place."""
    rows = [(0, 3, 2)]
    result = run(rows, policy=lambda view: action, window=2)
    assert column(result, "dispatch_ps") == [0]
    result = run([(0, 3, 2), (0, 1, 1)], policy=lambda view: HOLD)
    assert [view.now_ps for view, _ in result.decisions] == [0, 0, 133, 152]
    assert column(result, "dispatch_ps") == [0, 152]


def test_a_hold_is_lifted_by_an_arrival() -> None:
    """Also by one that is rejected: it arrives all the same."""
    for prompt in (1, 5000):
        result = run([(0, 3, 1), (5, 1, 1), (9, prompt, 1)], policy=lambda view: HOLD)
        assert [view.now_ps for view, _ in result.decisions][:3] == [0, 5, 9]


def test_a_forced_dispatch_takes_the_first_instance_that_can_hold_it() -> None:
    """The first instance is too small."""
    result = run([(0, 30, 1)], [engine(kv_capacity_tokens=29), ENGINE], lambda view: HOLD)
    assert column(result, "instance") == [1]


def test_clocked_decisions() -> None:
    """One decision a tick; an arrival at a tick is seen by it; no tick without a queue."""
    result = run([(0, 1, 1), (0, 1, 1), (150, 1, 1), (500, 1, 1)], decision_interval_ps=100)
    assert column(result, "dispatch_ps") == [0, 100, 200, 500]
    assert [view.now_ps for view, _ in result.decisions] == [0, 100, 200, 500]
    result = run([(0, 3, 2), (1, 1, 1)], policy=lambda view: HOLD, decision_interval_ps=100)
    assert [view.now_ps for view, _ in result.decisions] == [0, 100, 200]  # the first ends at 152


def test_rejections() -> None:
    """Of 10 tokens 1 stays free: p + o - 1 may be 9."""
    small = engine(kv_capacity_tokens=10, watermark=0.1)
    result = run([(0, 8, 3), (0, 8, 2)], [small])
    assert column(result, "status") == [REJECTED_FLEET, SERVED]
    assert column(result, "dispatch_ps") == [-1, 0]
    assert len(result.decisions) == 1
    result = run([(0, 8, 3), (0, 8, 2)], [small, ENGINE])
    assert column(result, "status") == [REJECTED_INSTANCE, SERVED]
    assert column(result, "dispatch_ps") == [-1, 0]
    assert column(result, "finish_ps")[0] == -1


@functools.cache
def recipe() -> list[tuple[Case, ReferenceResult]]:
    """Give random cases and what the reference makes of them."""
    cases = [random_case(seed) for seed in range(150)]
    return [(case, run_reference(case)) for case in cases]


def test_littles_law_is_exact() -> None:
    """The integral of accepted requests in the system is the sum of their latencies."""
    for _, result in recipe():
        served = [request for request in result.requests if request.status == SERVED]
        latencies = sum(request.finish_ps - request.arrival_ps for request in served)
        assert result.in_system_integral == latencies
        assert all(request.generated == request.output for request in served)


def test_the_recipe_reaches_the_rare_paths() -> None:
    """Or the comparison with the kernel would prove little."""
    cases, results = zip(*recipe(), strict=True)
    requests = [request for result in results for request in result.requests]
    for batching in ("prefill_first", "chunked", "slora", "static"):
        preempting = sum(
            any(
                r.preemptions and r.instance >= 0 and case.fleet[r.instance].batching == batching
                for r in result.requests
            )
            for case, result in zip(cases, results, strict=True)
        )
        assert preempting >= 2, batching
    assert any(request.preemptions > 1 for request in requests)
    assert {request.status for request in requests} == set(range(8))
    assert any(request.dispatch_ps > request.arrival_ps for request in requests)
    assert len({request.finish_ps for request in requests}) < len(requests)
    assert sum(request.failures for request in requests) > 20
    assert any(request.failures > 1 for request in requests)
    assert any(request.failures and request.generated > 1 for request in requests)
    assert sum(result.cached_tokens > 0 for result in results) > 20
    assert sum(any(result.tenant_counters) for result in results) > 40
    assert any(request.arrival_ps == NEVER for request in requests)
