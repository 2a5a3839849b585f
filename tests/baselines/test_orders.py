"""Orders of the multi-tenant schedulers, held against answers worked out by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baselines.scheduling import (
    application_weights,
    interaction_costs,
    reads_history,
    scheduler,
    schedulers,
    traits_for,
    typical_tokens,
)
from baselines.scheduling.attained import charge_attained, least_attained, survey_attained
from baselines.scheduling.counters import MILLION, charge_ahead
from baselines.scheduling.deadlines import charge_rates, latest_in_overload, next_token_deadline
from baselines.scheduling.interactions import (
    charge_virtual_time,
    finish_tag,
    smallest_interaction,
)
from baselines.scheduling.normalised import (
    charge_at_end,
    charge_normalised,
    charge_ratios,
    charge_ratios_at_end,
    open_interactions_first,
)
from baselines.scheduling.rounds import charge_rounds, round_of_cost, round_of_debt
from envs.simulator.scheduler import ADMIT, ARRIVE, FINISH
from envs.workloads import RequestTable
from tests.baselines.bench import Bench, parameters
from tests.simulator.both import Run, case, column, engine, on_both
from tests.simulator.case import Row
from tests.simulator.cases import random_case
from tests.simulator.differential import differences

SECOND = 10**12


def test_the_system_prompt_has_a_price_of_its_own() -> None:
    """60 of the user, 40 of the system at twice the price, 30 out at twice: 200 of 100."""
    for charge, parts in ((charge_normalised, [1.4, 0.6, 0.0]), (charge_at_end, [0.0, 0.0, 2.0])):
        bench = Bench(charge, 1.0, 2.0, 1.0, 2.0)
        charges = bench.serve(100, 30, system=40, typical=100.0)
        assert charges == [0, *(int(MILLION * part) for part in parts)]


@pytest.mark.parametrize(("exponent", "cost"), [(0.0, 160), (0.5, 16), (1.0, 1.6)])
def test_the_exponent_goes_from_vtc_to_typical_calls(exponent: float, cost: float) -> None:
    bench = Bench(charge_normalised, 1.0, 2.0, exponent, 1.0)
    bench.serve(100, 30, typical=100.0)
    assert bench.tenant.counter == pytest.approx(MILLION * cost, abs=1)


def test_a_sum_of_ratios() -> None:
    """100 / 50 in, 2 x 30 / 15 out."""
    typical = (50.0, 15.0)
    flight, end = Bench(charge_ratios, 1.0, 2.0), Bench(charge_ratios_at_end, 1.0, 2.0)
    assert flight.serve(100, 30, typical_tokens=typical) == [0, 2 * MILLION, 4 * MILLION, 0]
    assert end.serve(100, 30, typical_tokens=typical) == [0, 0, 0, 6 * MILLION]


def test_tenants_in_the_middle_of_an_interaction_are_ahead_by_the_bonus() -> None:
    row = parameters(1.0, 2.0, 1.0, 1.0, 3.0)
    waits = SimpleNamespace(counter=5 * MILLION, open=0)
    goes_on = SimpleNamespace(counter=7 * MILLION, open=1)
    ranks = [open_interactions_first(0, None, None, tenant, row) for tenant in (waits, goes_on)]
    assert ranks == [5 * MILLION, 4 * MILLION]


def test_without_a_limit_open_interactions_come_first() -> None:
    queue = scheduler("wsc_open")
    row = parameters(*queue.parameters)
    poor = SimpleNamespace(counter=0, open=0)
    rich = SimpleNamespace(counter=10**9 * MILLION // 2, open=2)
    assert open_interactions_first(0, None, None, rich, row) < open_interactions_first(
        0, None, None, poor, row
    )


def test_max_min_never_lifts() -> None:
    queue = scheduler("max_min")
    assert (queue.lift, queue.charge) == ("none", charge_ahead)
    assert queue.parameters[3] == 0.0  # what is predicted, not what the tenant made


def test_rounds_of_a_debt_and_of_a_saving() -> None:
    row = parameters(1.0, 1.0, 500.0)

    def at(counter: float, prompt: int) -> tuple[int, int]:
        tenant = SimpleNamespace(counter=int(counter * MILLION), seen=0, weight=1.0)
        request = SimpleNamespace(prompt=prompt)
        ranks = (f(0, request, None, tenant, row) for f in (round_of_debt, round_of_cost))
        return tuple(rank >> 24 for rank in ranks)  # type: ignore[return-value]

    assert at(0, 500) == (0, 0)
    assert at(0, 501) == (0, 1)
    assert at(499, 1) == (0, 0)
    assert at(500, 1) == (1, 1)
    assert at(1999, 2) == (3, 4)


def test_who_comes_back_joins_the_present_round_and_keeps_its_debt() -> None:
    row = parameters(1.0, 0.0, 10.0)
    row.m1 = 3.0
    request = SimpleNamespace(prompt=5)

    def arrives(counter: int, queued: int) -> int:
        tenant = SimpleNamespace(counter=counter, queued=queued, seen=0, weight=2.0)
        return charge_rounds(ARRIVE, 0, 0, request, None, tenant, row)

    assert arrives(20 * MILLION, 1) == 40 * MILLION
    assert arrives(70 * MILLION, 1) == 0
    assert arrives(20 * MILLION, 2) == 0


@on_both
@pytest.mark.parametrize(
    ("name", "values", "prompts", "served"),
    [
        # Ten a round: 6; 3 + 3 + 3 of the other; then 6 (12) and 6 (18); 3 (12).
        ("drr", {"quantum": 10}, [(0, 6)] * 3 + [(1, 3)] * 4, [0, 1, 1, 1, 0, 0, 1]),
        # Each answer is 2: 13, so in debt by 3; 5 + 5; 13 (26); 5; 5.
        ("mdrr", {"quantum": 10}, [(0, 11)] * 2 + [(1, 3)] * 4, [0, 1, 1, 0, 1, 1]),
    ],
)
def test_deficit_round_robin(
    run: Run,
    name: str,
    values: dict[str, float],
    prompts: list[tuple[int, int]],
    served: list[int],
) -> None:
    rows = [Row(0, prompt, 1, tenant=tenant) for tenant, prompt in prompts]
    queue = scheduler(name, **values)
    admitted = column(run(case(rows, [engine(max_num_seqs=1, queue=queue)])), "admit_ps")
    order = sorted(range(len(rows)), key=admitted.__getitem__)
    assert [prompts[k][0] for k in order] == served


def test_attained_service_halves() -> None:
    row = parameters(1.0, 2.0, 60.0, 0.8)
    tenant = SimpleNamespace(estimate=0, seen=0, weight=1.0)
    request = SimpleNamespace(prompt=10, generated=5)
    row.now_ps = 7 * SECOND
    assert charge_attained(FINISH, 0, 0, request, None, tenant, row) == 20 * MILLION
    assert (tenant.estimate, tenant.seen) == (20 * MILLION, 7 * SECOND)
    row.now_ps = 67 * SECOND
    assert charge_attained(FINISH, 0, 0, request, None, tenant, row) == 20 * MILLION
    assert tenant.estimate == 30 * MILLION
    assert charge_attained(ADMIT, 0, 0, request, None, tenant, row) == 0


def test_the_score_of_least_attained_service() -> None:
    """Least attained, but the wait of the head counts a fifth."""
    row = parameters(1.0, 2.0, 60.0, 0.8)
    attained, since = (40, 0, 10), (0, 10, 2)  # cost units, s
    tenants = [SimpleNamespace(estimate=a * MILLION, seen=20 * SECOND) for a in attained]
    heads = [SimpleNamespace(arrival_ps=s * SECOND) for s in since]
    now = 20 * SECOND
    for row.surveyed, (head, tenant) in enumerate(zip(heads, tenants, strict=True)):
        survey_attained(now, head, None, tenant, row)
    ranks = [least_attained(now, h, None, t, row) for h, t in zip(heads, tenants, strict=True)]
    scores = [0.2, 0.8, 0.8 * 0.75 + 0.2 * 0.8]
    assert [-rank / 1e15 for rank in ranks] == pytest.approx(scores)


def test_virtual_time_is_shared_by_the_interactions() -> None:
    row = parameters(1000.0)

    def event(kind: int, at_s: int, interactions: int, cost: float = 0.0, tag: int = 0) -> int:
        row.now_ps, row.interactions = at_s * SECOND, interactions
        traits = SimpleNamespace(interaction_cost=cost, tag=tag)
        assert charge_virtual_time(kind, 0, 0, None, traits, None, row) == 0
        return int(finish_tag(0, None, traits, None, row))

    assert event(ARRIVE, 0, 1, cost=50.0) == 1 + 50_000
    assert event(ARRIVE, 2, 2, cost=30.0) == 1 + 1000 * (2000 + 30)
    assert event(ARRIVE, 2, 2, cost=30.0, tag=7) == 7  # a later call
    event(FINISH, 3, 1)
    assert row.m0 == 2500.0
    assert event(ARRIVE, 4, 2, cost=1.0) == 1 + 1000 * (3500 + 1)


def test_costs_of_interactions() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0, 1, 2],
        prompt_tokens=[100, 10, 7],
        output_tokens=[9, 9, 9],
        predicted_output_tokens=[10, 4, 3],
        interaction=[5, 6, 5],
        call_index=[0, 0, 1],
        calls_in_interaction=[2, 1, 2],
    )
    usual = np.mean([118.0, 28.0, 25.0])
    assert interaction_costs(table).tolist() == [120 + usual, 18.0, 120 + usual]
    assert interaction_costs(table, true=True).tolist() == [143.0, 28.0, 143.0]
    kv = 1055 + np.mean([945.0, 135.0, 108.0])
    assert interaction_costs(table, "kv").tolist() == [kv, 50.0, kv]
    # It knows what is declared, and nothing of the later calls themselves.
    longer = table.replace(prompt_tokens=[100, 10, 7_000], predicted_output_tokens=[10, 4, 99])
    np.testing.assert_array_equal(
        interaction_costs(longer, history=table), interaction_costs(table)
    )
    past = table.replace(prompt_tokens=[1, 1, 1], output_tokens=[1, 1, 1])
    assert interaction_costs(table, history=past).tolist() == [123.0, 18.0, 123.0]
    ranks = [
        smallest_interaction(0, None, SimpleNamespace(interaction_cost=cost), None, None)
        for cost in interaction_costs(table)
    ]
    assert ranks[1] < ranks[0] == ranks[2]
    with pytest.raises(ValueError, match="measure 'time' is unknown; choose tokens or kv"):
        interaction_costs(table, "time")


def test_what_schedulers_take_of_a_table() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0, 1, 2],
        prompt_tokens=[100, 300, 50],
        output_tokens=[10, 30, 5],
        application=["chat", "chat", "code"],
    ).with_predictions(sigma=0)
    typical = typical_tokens(table)
    assert typical.tolist() == [[200.0, 20.0], [200.0, 20.0], [50.0, 5.0]]
    taken = {name: set(traits_for(queue, table)) for name, queue in schedulers().items()}
    for name, found in taken.items():
        expected = {
            "justitia": {"interaction_costs"},
            "shortest_interaction": {"interaction_costs"},
        }
        plain = {"typical"} if "ratios" in name else {"weights"} if "wsc" in name else set()
        assert found == expected.get(name, plain), name
        assert reads_history(scheduler(name)) == (name.startswith("wsc") or name in expected)
    assert traits_for(scheduler("wsc"), table)["weights"] == pytest.approx(
        application_weights(table)
    )


def test_the_abort_queue_turns_round_in_overload() -> None:
    row = parameters(0.7)

    def events(kind: int, count: int, at_s: int) -> None:
        row.now_ps = at_s * SECOND
        for _ in range(count):
            assert charge_rates(kind, 0, 0, None, None, None, row) == 0

    early, late = SimpleNamespace(arrival_ps=1), SimpleNamespace(arrival_ps=2)

    def latest_first() -> bool:
        ranks = [latest_in_overload(0, r, None, None, row) for r in (early, late)]
        return ranks[1] < ranks[0]

    events(ARRIVE, 3, 1)
    events(ADMIT, 2, 10)
    assert (row.m0, row.m1) == pytest.approx((2.1, 0.0))
    assert latest_first()
    events(ARRIVE, 1, 12)
    events(ADMIT, 1, 20)  # arrivals 0.7 x 1 + 0.3 x 2.1, batches 0.7 x 2
    assert (row.m0, row.m1) == pytest.approx((1.33, 1.4))
    assert not latest_first()


def test_deadlines_of_the_next_token() -> None:
    row = parameters(6.0, 0.1)
    for generated, deadline in ((0, 7.0), (1, 7.1), (20, 9.0)):
        request = SimpleNamespace(arrival_ps=SECOND, generated=generated)
        rank = next_token_deadline(0, request, None, None, row)
        assert rank == pytest.approx(deadline * SECOND)


@pytest.mark.parametrize("name", schedulers())
def test_compiled_orders_equal_plain_ones(name: str) -> None:
    """The reference calls them as Python, the kernel as machine code."""
    queue: Any = scheduler(name)
    if name == "justitia":  # cases take microseconds
        queue = scheduler(name, kv_tokens=1e8)
    for seed in range(30, 42):
        drawn = random_case(seed)
        fleet = tuple(dataclasses.replace(one, queue=queue) for one in drawn.fleet)
        changed = dataclasses.replace(drawn, fleet=fleet)
        assert not differences(changed), changed.describe()


def test_tokens_are_charged_by_all_counters_but_those_at_the_end() -> None:
    silent = []
    for name, queue in schedulers().items():
        if queue.charge is None:
            continue
        bench = Bench(queue.charge, *queue.parameters)
        if bench.serve(50, 20, predicted=4)[2] == 0:
            silent.append(name)
    assert sorted(silent) == sorted(
        [
            "las_bands",
            *("wsc_at_end", "wsc_at_end_open", "wsc_ratios_at_end", "wsc_ratios_at_end_open"),
            *("las", "drr", "justitia", "abort"),
        ]
    )
