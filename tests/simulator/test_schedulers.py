"""Schedulers and tenant counters, held against answers worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from envs.simulator import Simulation
from tests.simulator.both import Run, case, column, engine, on_both
from tests.simulator.case import Case, Row
from tests.simulator.cases import random_case
from tests.simulator.differential import kernel_options, kernel_table
from tests.simulator.schedulers import Order

TOKENS = Order("least_counter", charges="tokens")
"""VTC's counters: 1 for each prompt token, 2 for each token generated."""


def served_in_order(run: Run, rows: list[Row], queue: str | Order) -> list[int]:
    """Serve one at a time; the indices in order of admission."""
    one_by_one = engine(max_num_seqs=1, kv_capacity_tokens=20_000, queue=queue)
    admitted = column(run(case(rows, [one_by_one])), "admit_ps")
    return sorted(range(len(rows)), key=admitted.__getitem__)


@on_both
def test_earliest_deadline_first(run: Run) -> None:
    """Requests without a deadline come last, ties in order of index."""
    deadlines = [500, None, 90, 500, 0, None, 10**9]
    rows = [Row(0, 3, 2, deadline_ps=deadline) for deadline in deadlines]
    assert served_in_order(run, rows, "edf") == [4, 2, 0, 3, 6, 1, 5]


@on_both
@pytest.mark.parametrize(
    ("queue", "order"),
    [("fcfs", [0, 1, 2, 3]), ("pf", [2, 1, 3, 0]), ("priority", [1, 3, 0, 2])],
)
def test_orders_by_a_column(run: Run, queue: str, order: list[int]) -> None:
    tiers, priorities = (2, 1, 0, 1), (0, 5, -1, 5)
    rows = [Row(0, 1, 1, tier=t, priority=p) for t, p in zip(tiers, priorities, strict=True)]
    assert served_in_order(run, rows, queue) == order


@on_both
@pytest.mark.parametrize("queue", ["sjf", "srpt"])
def test_orders_by_predicted_length(run: Run, queue: str) -> None:
    rows = [Row(0, 1, 1, predicted=p) for p in (9, 2, 7, 2)]
    assert served_in_order(run, rows, queue) == [1, 3, 2, 0]


@on_both
def test_classes_of_dpa(run: Run) -> None:
    """At 100,111 one is severely expired, one has just expired, and three are urgent."""
    waiting = [
        (95_000, 0),  # expired less than 20,000 ago
        (500_000, 2),
        (120_000, 2),  # due in less than 50,000
        (600_000, 0),
        (130_000, 0),
        (None, 0),
        (140_000, 1),
        (50_000, 2),  # severely expired
    ]
    rows = [Row(0, 1, 10_002)]
    rows += [Row(1, 1, 1, deadline_ps=deadline, tier=tier) for deadline, tier in waiting]
    order = served_in_order(run, rows, Order("dpa", parameters=(20_000.0, 50_000.0)))
    assert order == [0, 8, 5, 7, 3, 4, 6, 2, 1]


@on_both
def test_equal_priorities_are_first_come_first_served(run: Run) -> None:
    for seed in range(20):
        drawn = random_case(seed)
        rows = tuple(dataclasses.replace(row, priority=3) for row in drawn.requests)
        plain = dataclasses.replace(
            drawn, requests=rows, window=1, queue_order="fcfs", closed_loop=False, outages=()
        )

        def with_queue(queue: str, plain: Case = plain) -> Case:
            fleet = (dataclasses.replace(engine, queue=queue) for engine in plain.fleet)
            return dataclasses.replace(plain, fleet=tuple(fleet))

        assert run(with_queue("priority")) == run(with_queue("fcfs")), plain.describe()


def late_tenant(arrival: int, **charging: Any) -> Case:
    """Tenant 0 has three requests of 7 in all each; tenant 1 has one of 5 that comes later."""
    rows = [Row(0, 5, 1), Row(0, 5, 1), Row(0, 5, 1), Row(arrival, 3, 1, tenant=1)]
    queue = dataclasses.replace(TOKENS, **charging)
    return case(rows, [engine(max_num_seqs=1, queue=queue)])


@on_both
@pytest.mark.parametrize(("lift", "counter"), [("none", 5), ("queued", 17), ("last", 17)])
def test_lift_beside_a_waiting_tenant(run: Run, lift: str, counter: int) -> None:
    """At 150 tenant 0 has 12 (two prompts, one token), and one request waiting."""
    trace = run(late_tenant(150, lift=lift))
    assert trace.tenant_counters == [21, counter]
    assert column(trace, "admit_ps") == [0, 105, 313, 210]


@on_both
@pytest.mark.parametrize(("lift", "counter"), [("none", 5), ("queued", 5), ("last", 24)])
def test_lift_when_nothing_waits(run: Run, lift: str, counter: int) -> None:
    """At 250 tenant 0 has 19 (three prompts, two tokens), and its last request is in service."""
    assert run(late_tenant(250, lift=lift)).tenant_counters == [21, counter]


@on_both
@pytest.mark.parametrize(("overcharge", "counter"), [(False, 8), (True, 10)])
def test_overcharge(run: Run, overcharge: bool, counter: int) -> None:
    """The first finishes with the prefill, at which the other is then in decode."""
    queue = dataclasses.replace(TOKENS, overcharge=overcharge)
    trace = run(case([Row(0, 1, 1), Row(0, 1, 2)], [engine(queue=queue)]))
    assert trace.tenant_counters == [counter]


@on_both
def test_prepaid_tokens_are_refunded(run: Run) -> None:
    """Of 9 predicted tokens 4 come; of 2 predicted 4 as well: 2 for each token in the end."""
    queue = Order("least_counter", charges="prepaid")
    rows = [Row(0, 3, 4, predicted=9), Row(0, 3, 4, predicted=2, tenant=1)]
    assert run(case(rows, [engine(queue=queue)])).tenant_counters == [11, 11]


@on_both
def test_two_instances_share_the_counters(run: Run) -> None:
    """Whoever serves them, 30 requests of one prompt token and one answer cost 3 each."""
    rows = [Row(10 * k, 1, 1, tenant=k % 3) for k in range(30)]
    fleet = [engine(queue=TOKENS), engine(queue=TOKENS)]
    trace = run(case(rows, fleet))
    assert trace.tenant_counters == [30, 30, 30]
    assert set(column(trace, "instance")) == {0, 1}


def largest_difference(queue: Order) -> int:
    """Largest difference of two counters while both tenants have requests waiting."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(2000):
        heavy = k % 4 == 0  # the other sends three times as many, but short ones
        size = rng.integers(20, 40, 2) if heavy else rng.integers(1, 10, 2)
        rows.append(Row(20 * k, int(size[0]), int(size[1]), tenant=int(heavy)))
    backlog = case(rows, [engine(queue=queue, kv_capacity_tokens=200)])
    fleet = [instance.config() for instance in backlog.fleet]
    simulation = Simulation(kernel_table(backlog), fleet, **kernel_options(backlog))
    differences = []
    for decision in range(len(rows)):
        assert simulation.advance()
        simulation.apply(0)
        if decision > 50 and decision % 10 == 0:
            first, second = simulation.result().tenant_counters
            differences.append(abs(int(first) - int(second)))
    return max(differences)


def test_backlogged_tenants_get_equal_service() -> None:
    """VTC, Lemma 4.3: with M tokens of KV the counters differ by max(L_input, 2 M) at most."""
    bound = 2 * 200
    assert largest_difference(TOKENS) <= bound
    assert largest_difference(dataclasses.replace(TOKENS, name="fcfs")) > 2 * bound
