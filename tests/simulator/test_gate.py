"""Mechanics of admission policies, held against answers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.admission import gate
from baselines.routing import router
from envs.simulator import EngineConfig, Gate, Retry, Simulation, simulate
from envs.simulator.gate import DROP, TURN_AWAY, WAIT
from envs.workloads import RequestTable
from tests.reference_simulator import (
    REJECTED_INSTANCE,
    REJECTED_INTERACTION,
    SERVED,
    UNFINISHED,
)
from tests.simulator.both import FLAT, Run, case, column, engine, on_both
from tests.simulator.case import Case, Row
from tests.simulator.gates import Given
from tests.simulator.hand_gates import (
    below,
    by_prompt,
    count_calls,
    later_and_later,
    no_misfit,
    none_told,
    told,
    until,
)

REJECTED_GATE, REJECTED_PATIENCE = 6, 7
MICROSECOND = 10**6  # ps
MINUTE = 60 * 10**12


def judged(
    rows: list[Row], policy: Gate, retry: Retry | None = None, fleet: Any = None, **options: Any
) -> Case:
    """A case with an admission policy."""
    given = Given(policy, retry or Retry())
    return case(rows, fleet or [engine()], judges=given, **options)


def policy(
    arrive: Any = None, look: Any = None, *parameters: float, finish: Any = None, **options: Any
) -> Gate:
    """An admission policy of these functions that lets a call wait for a microsecond."""
    return Gate(
        "test",
        arrive=arrive,
        look=look,
        finish=finish,
        parameters=parameters,
        parameter_names=tuple(f"p{k}" for k in range(len(parameters))),
        **{"delay_s": 1e-6, **options},
    )


def statuses(run: Run, made: Case) -> list[int]:
    """The status of every request."""
    return column(run(made), "status")


@on_both
def test_a_call_that_waits_comes_again(run: Run) -> None:
    trace = run(judged([Row(5, 7, 1)], policy(until, None, 2.5 * MICROSECOND, WAIT)))
    assert column(trace, "arrival_ps") == [5]
    assert column(trace, "dispatch_ps") == [5 + 3 * MICROSECOND]


@on_both
def test_the_policy_can_set_the_delay(run: Run) -> None:
    """1 + 1, then 2 + 1 microseconds: it stays what was written last, for all calls."""
    rows = [Row(0, 7, 1), Row(2 * MICROSECOND + 1, 1, 1)]
    trace = run(judged(rows, policy(later_and_later, None, 3 * MICROSECOND, MICROSECOND)))
    assert column(trace, "dispatch_ps") == [5 * MICROSECOND, 6 * MICROSECOND + 1]


@on_both
@pytest.mark.parametrize(("times", "status"), [(0, 6), (2, 6), (3, SERVED)])
def test_clients_send_again_with_doubling_back_off(run: Run, times: int, status: int) -> None:
    """At 0, 1, 1 + 2 and 3 + 4 microseconds."""
    turned_away = policy(until, None, 6.9 * MICROSECOND, TURN_AWAY)
    trace = run(judged([Row(0, 7, 1)], turned_away, Retry(times, 1e-6)))
    assert column(trace, "status") == [status]
    assert column(trace, "dispatch_ps") == [7 * MICROSECOND if status == SERVED else -1]


@on_both
@pytest.mark.parametrize("verdict", [TURN_AWAY, WAIT])
@pytest.mark.parametrize(("patience_s", "status"), [(2.999e-6, REJECTED_PATIENCE), (3e-6, SERVED)])
def test_patience_counts_from_the_first_arrival(
    run: Run, verdict: int, patience_s: float, status: int
) -> None:
    until_then = policy(until, None, 2.5 * MICROSECOND, verdict)
    made = judged([Row(9, 7, 1)], until_then, Retry(5, 1e-6, patience_s))
    assert statuses(run, made) == [status]


@on_both
@pytest.mark.parametrize(("kills", "status"), [(True, REJECTED_INTERACTION), (False, SERVED)])
def test_an_interaction_can_end_with_its_call(run: Run, kills: bool, status: int) -> None:
    """The second call is turned away for good; the third is over; the first was served."""
    rows = [Row(k, 7 if k == 1 else 3, 1, interaction=4, call_index=k) for k in range(3)]
    rows.append(Row(3, 3, 1))
    turned_away = policy(until, None, 1e15, TURN_AWAY, kills_interactions=kills)
    assert statuses(run, judged(rows, turned_away)) == [SERVED, REJECTED_GATE, status, SERVED]


@on_both
def test_a_call_that_is_to_come_again_ends_no_interaction(run: Run) -> None:
    rows = [Row(k, 7 if k == 0 else 3, 1, interaction=4, call_index=k) for k in range(2)]
    turned_away = policy(until, None, MICROSECOND, TURN_AWAY)
    assert statuses(run, judged(rows, turned_away, Retry(1, 1e-6))) == [SERVED, SERVED]


@on_both
def test_a_call_that_is_away_hears_of_it_when_it_comes_again(run: Run) -> None:
    """The first is to come again at 2 us; at 1 us the second is given up."""
    rows = [Row(0, 7, 1, interaction=4), Row(MICROSECOND, 7, 1, interaction=4, call_index=1)]
    put_off = policy(until, None, 1.5 * MICROSECOND, WAIT, delay_s=2e-6)
    made = judged(rows, put_off, Retry(patience_s=2e-6))
    assert statuses(run, made) == [SERVED, SERVED]
    impatient = judged([rows[0], Row(1, 7, 1, interaction=4)], put_off, Retry(patience_s=1e-6))
    assert statuses(run, impatient) == [REJECTED_PATIENCE, REJECTED_INTERACTION]


@on_both
def test_calls_in_waiting_queues_hear_of_it_at_the_head(run: Run) -> None:
    """One at a time: while the first is served the second waits and the third is turned away."""
    rows = [
        Row(0, 1, 9),
        Row(5, 1, 1, interaction=4),
        Row(10, 7, 1, interaction=4, call_index=1),
        Row(15, 1, 1),
    ]
    turned_away = policy(until, None, 1e15, TURN_AWAY)
    made = judged(rows, turned_away, fleet=[engine(max_num_seqs=1)])
    expected = [SERVED, REJECTED_INTERACTION, REJECTED_GATE, SERVED]
    assert statuses(run, made) == expected


@on_both
def test_a_closed_loop_ends_with_a_call_that_is_turned_away(run: Run) -> None:
    rows = [Row(0, 7, 1, interaction=4), Row(0, 3, 1, interaction=4, call_index=1)]
    turned_away = policy(until, None, 1e15, TURN_AWAY)
    trace = run(judged(rows, turned_away, closed_loop=True))
    assert column(trace, "status") == [REJECTED_GATE, UNFINISHED]
    assert column(trace, "arrival_ps") == [0, -1]


@on_both
def test_the_router_queue_is_by_first_arrival(run: Run) -> None:
    """The first comes again at 1 us, behind the second; the decision is at 4 us."""
    rows = [Row(0, 7, 1), Row(MICROSECOND // 2, 3, 1)]
    put_off = policy(until, None, MICROSECOND, WAIT)
    trace = run(judged(rows, put_off, interval_ps=4 * MICROSECOND))
    assert [decision.candidates for decision in trace.decisions] == [(0,), (1,)]


@on_both
@pytest.mark.parametrize(("limit", "status"), [(2, REJECTED_GATE), (3, SERVED)])
def test_calls_of_an_instant_are_counted_before_the_first_is_judged(
    run: Run, limit: int, status: int
) -> None:
    rows = [Row(0, 1, 1, application=k) for k in range(3)] + [Row(0, 1, 1, tenant=1)]
    made = judged(rows, policy(count_calls, None, limit, 1e9))
    assert statuses(run, made) == [status] * 3 + [SERVED]


@on_both
def test_the_minute_is_open_and_counts_what_was_turned_away(run: Run) -> None:
    rows = [Row(0, 1, 1), Row(1, 1, 1), Row(MINUTE, 1, 1), Row(MINUTE + 1, 1, 1)]
    assert statuses(run, judged(rows, policy(count_calls, None, 1, 1e9))) == [
        SERVED,
        REJECTED_GATE,
        REJECTED_GATE,  # with the one of 1 ps
        REJECTED_GATE,
    ]
    assert statuses(run, judged(rows, policy(count_calls, None, 2, 1e9))) == [SERVED] * 4


@on_both
def test_prompts_of_an_application_in_the_minute(run: Run) -> None:
    rows = [Row(k, 5, 1, tenant=k, application=k % 2) for k in range(4)]
    made = judged(rows, policy(count_calls, None, 9, 9))
    assert statuses(run, made) == [SERVED, SERVED, REJECTED_GATE, REJECTED_GATE]


BUSY = Row(0, 1, 3)  # in prefill until 101, finished at 121


@on_both
@pytest.mark.parametrize(
    ("verdict", "status", "behind"),
    [
        (TURN_AWAY, REJECTED_GATE, 101),
        (DROP, REJECTED_PATIENCE, 101),
        (WAIT, SERVED, 121),
        (17, SERVED, 121),  # no verdict
    ],
)
def test_verdicts_on_a_head_beside_others(run: Run, verdict: int, status: int, behind: int) -> None:
    trace = run(judged([BUSY, Row(50, 10 + verdict, 1), Row(60, 1, 1)], policy(None, by_prompt)))
    assert column(trace, "status") == [SERVED, status, SERVED]
    # Once nothing is in service, one that fits is admitted whatever is said of it.
    assert column(trace, "admit_ps")[1] == (121 if status == SERVED else -1)
    assert column(trace, "admit_ps")[2] == behind


@on_both
@pytest.mark.parametrize("verdict", [TURN_AWAY, DROP])
def test_where_nothing_is_in_service_the_next_one_is_looked_at(run: Run, verdict: int) -> None:
    trace = run(judged([Row(0, 10 + verdict, 1), Row(0, 1, 1)], policy(None, by_prompt)))
    assert column(trace, "admit_ps") == [-1, 0]


@on_both
@pytest.mark.parametrize("verdict", [TURN_AWAY, DROP])
@pytest.mark.parametrize(("kills", "status"), [(True, REJECTED_INTERACTION), (False, SERVED)])
def test_looks_can_end_interactions(run: Run, verdict: int, kills: bool, status: int) -> None:
    rows = [Row(0, 10 + verdict, 1, interaction=4), Row(0, 1, 1, interaction=4, call_index=1)]
    made = judged(rows, policy(None, by_prompt, kills_interactions=kills))
    assert statuses(run, made)[1] == status


@on_both
def test_the_token_limit_of_an_iteration_is_overload_too(run: Run) -> None:
    """100 tokens an iteration: 60 and 30 fit, 40 do not."""
    rows = [Row(0, 60, 1), Row(0, 30, 1), Row(0, 40, 1)]
    assert statuses(run, judged(rows, policy(None, no_misfit))) == [SERVED, SERVED, REJECTED_GATE]
    chunked = [engine(batching="chunked")]
    assert statuses(run, judged(rows, policy(None, no_misfit), fleet=chunked)) == [SERVED] * 3


@on_both
def test_one_that_does_not_fit_and_is_turned_away_ends_the_admission(run: Run) -> None:
    rows = [Row(0, 60, 1), Row(0, 50, 1), Row(0, 5, 1)]
    assert column(run(judged(rows, policy(None, no_misfit))), "admit_ps") == [0, -1, 160]


@on_both
def test_the_token_limit_ends_the_admission_whatever_may_be_skipped(run: Run) -> None:
    rows = [Row(0, 60, 1), Row(0, 50, 1), Row(0, 5, 1)]
    fleet = [engine(skip_ahead=3)]
    expected = [0, 160, 160]
    assert column(run(case(rows, fleet)), "admit_ps") == expected
    assert column(run(judged(rows, policy(None, by_prompt), fleet=fleet)), "admit_ps") == expected


@on_both
@pytest.mark.parametrize(("level", "status"), [(0.32, REJECTED_GATE), (0.33, SERVED)])
def test_saturation_by_kv(run: Run, level: float, status: int) -> None:
    """At 165 one of two instances holds 50 + 2 of 100 tokens: .52 / .8 / 2 = .325."""
    rows = [Row(0, 50, 30), Row(165, 7, 1)]
    fleet = [engine(kv_capacity_tokens=100)] * 2
    made = judged(rows, policy(below, None, level, 9.0, senses=True), fleet=fleet)
    assert statuses(run, made)[1] == status
    by_kv = judged(rows, policy(below, None, 9.0, level * 0.8, senses=True), fleet=fleet)
    assert statuses(run, by_kv)[1] == status


@on_both
@pytest.mark.parametrize(("level", "status"), [(0.74, REJECTED_GATE), (0.76, SERVED)])
def test_saturation_by_waiting_requests(run: Run, level: float, status: int) -> None:
    """Three wait of four that count as saturated."""
    rows = [Row(k, 1, 9) for k in range(4)] + [Row(50, 7, 1)]
    waits = policy(below, None, level, 9.0, senses=True, queue_limit=4.0)
    assert statuses(run, judged(rows, waits, fleet=[engine(max_num_seqs=1)]))[4] == status


def test_a_misdirected_call_is_told_of() -> None:
    """The first fits the second instance alone, and is sent to the first."""
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0], prompt_tokens=[500, 1], output_tokens=[1, 1]
    )
    cost: Any = FLAT
    fleet = [EngineConfig(cost, 100), EngineConfig(cost, 1000)]
    strict = policy(none_told, None, finish=told)
    result = simulate(table, fleet, lambda *seen: 0, gate=strict)
    assert result.requests["status"].tolist() == [REJECTED_INSTANCE, REJECTED_GATE]


def test_statuses_are_told_in_words() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 0.0], prompt_tokens=[11, 13], output_tokens=[1, 1]
    )
    cost: Any = FLAT
    result = simulate(table, [EngineConfig(cost, 100)], router("jsq"), gate=policy(None, by_prompt))
    assert result.to_frame()["status"].tolist() == [
        "rejected: by the admission policy",
        "rejected: waited too long",
    ]


def deferring() -> Simulation:
    """Calls that come again and again, in overload."""
    rng = np.random.default_rng(3)
    count = 120
    table = RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 20.0, count)),
        prompt_tokens=rng.integers(10, 90, count),
        output_tokens=rng.integers(1, 40, count),
        tenant=[f"tenant {k}" for k in rng.integers(0, 4, count)],
        interaction=rng.integers(0, 60, count),
    ).with_predictions(sigma=0.5, seed=1)
    cost: Any = FLAT
    return Simulation(
        table,
        [EngineConfig(cost, 200, skip_ahead=2)] * 2,
        gate=gate("token_bucket", tokens_per_minute=3000, burst_s=3),
        retry=Retry(times=6, backoff_s=0.5, patience_s=30.0),
    )


def away(simulation: Simulation) -> float:
    """Calls that have arrived and are to come again."""
    now = simulation.result().counters
    places = ("served", "rejected", "queued", "waiting", "running")
    return now["arrived"] - sum(now[name] for name in places)


def test_deferrals_survive_saving_restoring_and_forking() -> None:
    simulation, most = deferring(), 0.0
    while simulation.advance():
        most = max(most, away(simulation))
        saved, twin = simulation.save(), simulation.fork()
        simulation.apply(0)
        if away(twin) > 2:
            break
    assert most > 2
    simulation.restore(saved)
    elsewhere = deferring()
    elsewhere.restore(saved)
    ends = [one.run(lambda *seen: 0) for one in (simulation, twin, elsewhere)]
    for other in ends[1:]:
        assert np.array_equal(other.requests, ends[0].requests)
        assert other.counters == ends[0].counters
    assert ends[0].counters["rejected"] > 0
    assert away(simulation) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Gate("test", delay_s=0.0), "delay_s must be from"),
        (lambda: Gate("test", kv_limit=0.0), "must be positive"),
        (lambda: Gate("test", parameters=(1.0,) * 13), "at most 12 parameters"),
        (lambda: Retry(times=-1), "0 to 20 times"),
        (lambda: Retry(backoff_s=0.0), "backoff_s must be from"),
        (lambda: Retry(patience_s=-1.0), "patience_s must be from"),
    ],
)
def test_options_out_of_range_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
