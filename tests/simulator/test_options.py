"""Options of engines, clients and fleets, held against times worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from baselines.routing import router
from envs.simulator import simulate
from tests.reference_simulator import (
    REJECTED_FLEET,
    REJECTED_INTERACTION,
    REJECTED_LIMIT,
    SERVED,
    UNFINISHED,
)
from tests.simulator.both import EVERY_TERM, Run, case, column, engine, on_both
from tests.simulator.case import Limit, Row, Script
from tests.simulator.cases import EIGHTH_OF_A_SECOND
from tests.simulator.differential import kernel_table

SECOND = 8 * EIGHTH_OF_A_SECOND


@on_both
def test_a_static_batch_waits_for_its_longest_answer(run: Run) -> None:
    """102, then four decodes; the third has waited for them although there was room."""
    rows = [Row(0, 1, 5), Row(0, 1, 1), Row(5, 1, 1)]
    trace = run(case(rows, [engine(batching="static")]))
    assert column(trace, "admit_ps") == [0, 0, 142]
    assert column(trace, "finish_ps") == [142, 102, 243]


@on_both
@pytest.mark.parametrize(("steps", "admitted"), [(10, 201), (3, 131)])
def test_slora_decodes_between_prefills(run: Run, steps: int, admitted: int) -> None:
    """The prefill ends at 101, a decode takes 10."""
    rows = [Row(0, 1, 30), Row(5, 1, 30)]
    trace = run(case(rows, [engine(batching="slora", decode_steps=steps)]))
    assert column(trace, "admit_ps") == [0, admitted]


@on_both
@pytest.mark.parametrize(("predicted", "admitted"), [(6, 0), (7, 114)])
@pytest.mark.parametrize("admission", ["reserve", "oracle"])
def test_reserving_admission(run: Run, admission: str, predicted: int, admitted: int) -> None:
    """Two of 4 + 6 tokens fill 20. With 7 the second waits until 114.

    At 104 they would take 2 * 6 + 5 + 4 = 21 when the first ends, at 114 2 * 5 + 6 + 4 = 20.
    """
    rows = [Row(0, 4, predicted, predicted), Row(0, 4, predicted, predicted)]
    tight = engine(kv_capacity_tokens=20, admission=admission)
    trace = run(case(rows, [tight]))
    assert column(trace, "admit_ps") == [0, admitted]
    growth = run(case(rows, [dataclasses.replace(tight, admission="growth")]))
    assert column(growth, "admit_ps") == [0, 0]


@on_both
def test_reserve_counts_the_peak_not_the_sum(run: Run) -> None:
    """2 * 1 + 4 + 4 and 5 + 4 are both at most 10; the sum of the final lengths is 14."""
    rows = [Row(0, 4, 5, 5), Row(0, 4, 1, 1)]
    trace = run(case(rows, [engine(kv_capacity_tokens=10, admission="reserve")]))
    assert column(trace, "admit_ps") == [0, 0]


@on_both
@pytest.mark.parametrize(("tenant", "admitted"), [(0, 0), (1, 105)])
def test_adapters_take_room(run: Run, tenant: int, admitted: int) -> None:
    """5 + 5 prompt tokens and 6 for each tenant's adapter, in a cache of 20."""
    rows = [Row(0, 5, 1), Row(0, 5, 1, tenant=tenant)]
    trace = run(case(rows, [engine(kv_capacity_tokens=20, adapter_tokens=6)]))
    assert column(trace, "admit_ps") == [0, admitted]


@on_both
@pytest.mark.parametrize(("block", "admitted"), [(1, 0), (8, 109)])
def test_blocks_are_taken_whole(run: Run, block: int, admitted: int) -> None:
    """9 tokens take two blocks of 8, which leave nothing of 16."""
    rows = [Row(0, 9, 1), Row(0, 1, 1)]
    trace = run(case(rows, [engine(kv_capacity_tokens=16, kv_block_tokens=block)]))
    assert column(trace, "admit_ps") == [0, admitted]


@on_both
@pytest.mark.parametrize(("block", "hit"), [(1, 6), (4, 4)])
def test_a_prefix_hit_saves_its_prefill(run: Run, block: int, hit: int) -> None:
    """The first takes 108 + 5 * 36 = 288; of the second `hit` tokens are history."""
    rows = [Row(0, 8, 1, prefix=5, prefix_tokens=6), Row(1000, 8, 1, prefix=5, prefix_tokens=6)]
    fleet = [engine(cost=EVERY_TERM, prefix_cache=True, kv_block_tokens=block)]
    trace = run(case(rows, fleet))
    n = 8 - hit
    second = 100 + n + 5 * (n * hit + n * (n + 1) // 2)
    assert column(trace, "finish_ps") == [288, 1000 + second]
    assert trace.cached_tokens == hit
    without = run(case(rows, [dataclasses.replace(fleet[0], prefix_cache=False)]))
    assert column(without, "finish_ps") == [288, 1288]


@on_both
@pytest.mark.parametrize(("prompt", "hit"), [(10, 6), (14, 5), (18, 1), (19, 0)])
def test_a_prefix_is_overwritten_from_its_end(run: Run, prompt: int, hit: int) -> None:
    """Of 20 tokens the first leaves 9; another of `prompt` + 1 tokens is served in between."""
    shared = {"prefix": 0, "prefix_tokens": 6}
    rows = [Row(0, 8, 1, **shared), Row(1000, prompt, 1), Row(2000, 8, 1, **shared)]
    trace = run(case(rows, [engine(kv_capacity_tokens=20, prefix_cache=True)]))
    assert trace.cached_tokens == hit
    assert column(trace, "finish_ps")[2] == 2108 - hit


@on_both
def test_a_preempted_request_keeps_what_is_not_overwritten(run: Run) -> None:
    """At 194 the second leaves 5 tokens; by 238 the first has left 1 of them.

    Its prefill is then of 4 tokens over 1: 104 + 5 * (4 + 10) = 174, and a decode 11 + 2 * 6 = 23.
    """
    tight = engine(cost=EVERY_TERM, kv_capacity_tokens=8, prefix_cache=True)
    trace = run(case([Row(0, 3, 4), Row(0, 3, 4)], [tight]))
    assert column(trace, "preemptions") == [0, 1]
    assert column(trace, "finish_ps") == [238, 238 + 174 + 23]
    assert trace.cached_tokens == 1


@on_both
@pytest.mark.parametrize(("fails", "finish"), [(120, 323), (121, 314), (125, 314), (130, 314)])
def test_an_outage_loses_the_iteration_under_way(run: Run, fails: int, finish: int) -> None:
    """Tokens come at 101, 111, 121, ...; from 200 on those had are recomputed with the prompt."""
    trace = run(case([Row(0, 1, 5)], outages=((0, fails, 200),)))
    assert column(trace, "finish_ps") == [finish]
    assert column(trace, "dispatch_ps") == [200]
    assert column(trace, "first_token_ps") == [101]
    assert column(trace, "failures") == [1]


@on_both
def test_an_outage_empties_the_prefix_cache(run: Run) -> None:
    shared = {"prefix": 0, "prefix_tokens": 6}
    rows = [Row(0, 8, 1, **shared), Row(1000, 8, 1, **shared)]
    trace = run(case(rows, [engine(prefix_cache=True)], outages=((0, 500, 600),)))
    assert trace.cached_tokens == 0
    assert column(trace, "failures") == [0, 0]


@on_both
def test_back_to_back_outages(run: Run) -> None:
    """At 200 the instance recovers and fails again at once: nothing is dispatched to it."""
    trace = run(case([Row(0, 1, 1)], outages=((0, 50, 200), (0, 200, 300))))
    assert column(trace, "dispatch_ps") == [300]
    assert column(trace, "failures") == [1]


@on_both
def test_one_client_in_a_closed_loop_sees_the_sum_of_service_times(run: Run) -> None:
    """Prefills of 101 and no decode; it thinks 7 before the second call, 0 before the third."""
    rows = [
        Row(0, 1, 1, interaction=4),
        Row(0, 1, 1, interaction=4, call_index=1, think_ps=7),
        Row(0, 1, 1, interaction=4, call_index=2),
        Row(900, 1, 1, interaction=4, call_index=3),
    ]
    trace = run(case(rows, closed_loop=True))
    assert column(trace, "arrival_ps") == [0, 108, 209, 900]
    assert column(trace, "finish_ps") == [101, 209, 310, 1001]
    open_loop = run(case(rows))
    assert column(open_loop, "arrival_ps") == [0, 0, 0, 900]


@on_both
def test_after_a_rejection_the_rest_of_an_interaction_never_arrives(run: Run) -> None:
    rows = [Row(0, 1, 1, interaction=0), Row(0, 5000, 1, interaction=0, call_index=1)]
    rows += [Row(0, 1, 1, interaction=0, call_index=2)]
    trace = run(case(rows, closed_loop=True))
    assert column(trace, "arrival_ps") == [0, 101, -1]
    assert column(trace, "status") == [SERVED, REJECTED_FLEET, UNFINISHED]


@on_both
@pytest.mark.parametrize(
    ("intake", "admitted"), [(0, [101] * 3), (1, [101, 202, 303]), (2, [101, 101, 203])]
)
def test_ingress(run: Run, intake: int, admitted: list[int]) -> None:
    """While something is in service, so many enter after each iteration."""
    rows = [Row(0, 1, 40), *[Row(50, 1, 1)] * 3]
    trace = run(case(rows, [engine(intake_per_iteration=intake)]))
    assert column(trace, "admit_ps") == [0, *admitted]


@on_both
def test_an_idle_instance_takes_the_whole_line_in(run: Run) -> None:
    trace = run(case([Row(0, 1, 1)] * 3, [engine(intake_per_iteration=1)]))
    assert column(trace, "admit_ps") == [0, 0, 0]


@on_both
def test_rate_limit(run: Run) -> None:
    """An entry exactly 60 s ago does not count, one that was refused never does."""
    rows = [Row(0, 1, 1), Row(60 * SECOND - EIGHTH_OF_A_SECOND, 1, 1), Row(60 * SECOND, 1, 1)]
    rows += [Row(60 * SECOND, 1, 1, tenant=1)]
    trace = run(case(rows, rate_limit=Limit(1)))
    assert column(trace, "status") == [SERVED, REJECTED_LIMIT, SERVED, SERVED]
    assert column(trace, "dispatch_ps")[1] == column(trace, "instance")[1] == -1


@on_both
def test_a_killed_interaction(run: Run) -> None:
    """The call in service goes on; one that waits, and one that comes later, are rejected."""
    rows = [Row(0, 1, 2, interaction=0), Row(0, 1, 1, interaction=0)]
    rows += [Row(50, 1, 1, interaction=0), Row(61 * SECOND, 1, 1, interaction=0)]
    kill = Limit(2, kill_interactions=True)
    trace = run(case(rows, [engine(max_num_seqs=1)], rate_limit=kill))
    killed = REJECTED_INTERACTION
    assert column(trace, "status") == [SERVED, killed, REJECTED_LIMIT, killed]


@on_both
def test_models(run: Run) -> None:
    """Each to the instance that has its model; one that no instance has is rejected."""
    rows = [Row(40 * k, 1, 1, model="ab"[k % 2]) for k in range(20)]
    rows.append(Row(800, 1, 1, model="c"))
    plain = case(rows, [engine(model="a"), engine(model="b")])
    trace = run(dataclasses.replace(plain, script=Script(seed=1, hold_percent=20)))
    assert column(trace, "instance") == [0, 1] * 10 + [-1]
    assert column(trace, "status") == [SERVED] * 20 + [REJECTED_FLEET]


def test_the_router_acts_on_what_it_saw_at_the_last_poll() -> None:
    """Until the first look after time 0 every instance seems empty; at 1,000 the first is full."""
    rows = [Row(10 * k, 1, 400) for k in range(8)] + [Row(1_000, 1, 1), Row(1_001, 1, 1)]
    table = kernel_table(case(rows))
    fleet = [engine(max_num_seqs=20).config()] * 2
    live = simulate(table, fleet, router("jsq"))
    stale = simulate(table, fleet, router("jsq"), poll_interval_s=1e-9)
    assert live.requests["instance"].tolist() == [0, 1] * 5
    assert stale.requests["instance"].tolist() == [0] * 8 + [1, 1]
    again = simulate(table, fleet, router("jsq"), poll_interval_s=0.0)
    np.testing.assert_array_equal(again.requests, live.requests)
