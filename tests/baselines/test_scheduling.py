"""Charges of the multi-tenant schedulers, as plain Python and compiled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baselines.scheduling import application_weights, scheduler, traits_for
from baselines.scheduling.attained import charge_attained
from baselines.scheduling.counters import (
    MILLION,
    PROFILED_COST,
    charge_ahead,
    charge_profile,
    charge_tokens,
    smallest_counter,
)
from baselines.scheduling.normalised import (
    charge_at_end,
    charge_normalised,
    charge_ratios,
    charge_ratios_at_end,
)
from baselines.scheduling.rounds import charge_rounds
from envs.simulator.jit import compiled as compiled_function
from envs.workloads import RequestTable
from tests.baselines.bench import Bench

COMPILED = [charge_tokens, charge_profile, charge_ahead, charge_normalised, charge_at_end]
CHARGES = [*COMPILED, charge_ratios, charge_ratios_at_end, charge_rounds, charge_attained]
REQUEST = [("arrival_ps", "i8"), ("prompt", "i8"), ("predicted", "i8"), ("generated", "i8")]
TRAITS = [("weight", "f8"), ("prepaid", "i8"), ("system", "i4")]
TENANT = [
    ("counter", "i8"),
    ("service", "i8"),
    ("weight", "f8"),
    ("estimate", "i8"),
    ("seen", "i8"),
]
SCHEDULER = [(f"p{i}", "f8") for i in range(8)]


def test_vtc_charges_input_at_admission_and_output_as_it_comes() -> None:
    bench = Bench(charge_tokens, 1.0, 2.0)
    assert bench.serve(100, 30) == [0, 100 * MILLION, 60 * MILLION, 0]
    heavy = Bench(charge_tokens, 1.0, 2.0, weight=4.0)
    assert heavy.serve(100, 30) == [0, 25 * MILLION, 15 * MILLION, 0]


@pytest.mark.parametrize("charge", CHARGES)
def test_a_charge_in_parts_is_the_charge_at_once(charge: Any) -> None:
    values = {
        "charge_profile": PROFILED_COST,
        "charge_ahead": (0.7, 1.3, 4.0, 0.0),
        "charge_normalised": (0.7, 1.3, 1.0, 1.0),
        "charge_attained": (0.7, 1.3, 60.0, 0.8),
        "charge_rounds": (0.7, 1.3, 500.0),
    }
    for output in (1, 7, 100):
        totals = set()
        for parts in (1, 2, output):
            bench = Bench(charge, *values.get(charge.__name__, (0.7, 1.3)), weight=3.0)
            bench.serve(
                33, output, predicted=40, typical=77.0, parts=parts, typical_tokens=(7.0, 9.0)
            )
            totals.add(bench.tenant.counter)
        assert len(totals) == 1


def test_the_profiled_cost_of_a_whole_request() -> None:
    bench = Bench(charge_profile, *PROFILED_COST)
    bench.serve(256, 256, parts=256)
    x = y = 256
    a, b, c, d, e = PROFILED_COST
    cost = a * x + b * y + c * x * y + d * y * y + e
    assert bench.tenant.counter == pytest.approx(MILLION * cost, abs=2)


def test_predictions_are_charged_ahead_and_settled() -> None:
    bench = Bench(charge_ahead, 1.0, 2.0, 4.0, 0.0)
    assert bench.serve(10, 5, predicted=8) == [0, 26 * MILLION, 0, -6 * MILLION]
    assert bench.serve(10, 11, predicted=8, parts=11) == [0, 26 * MILLION, 6 * MILLION, 0]
    assert bench.serve(10, 8, predicted=8) == [0, 26 * MILLION, 0, 0]
    assert bench.serve(10, 3) == [0, 10 * MILLION, 6 * MILLION, 0]  # none predicted


def test_vtc_predict_learns_from_the_tenants_answers() -> None:
    bench = Bench(charge_ahead, 1.0, 2.0, 4.0, 1.0)
    assert bench.serve(10, 20) == [0, 10 * MILLION, 40 * MILLION, 0]
    assert bench.tenant.estimate == 20 * MILLION
    assert bench.serve(10, 30) == [0, 50 * MILLION, 20 * MILLION, 0]
    assert bench.tenant.estimate == 22 * MILLION
    assert bench.serve(10, 2)[3] == -40 * MILLION
    assert bench.tenant.estimate == 18 * MILLION


@pytest.mark.parametrize("predicted", [1, 5, 50, 5000])
def test_the_sum_is_that_of_vtc_whatever_was_predicted(predicted: int) -> None:
    plain, ahead = Bench(charge_tokens, 1.0, 2.0), Bench(charge_ahead, 1.0, 2.0, 4.0, 0.0)
    plain.serve(100, 50)
    ahead.serve(100, 50, predicted=predicted, parts=3)
    assert ahead.tenant.counter == plain.tenant.counter


def test_wsc_counts_typical_calls() -> None:
    flight, end = (
        Bench(charge_normalised, 1.0, 2.0, 1.0, 1.0),
        Bench(charge_at_end, 1.0, 2.0, 1.0, 1.0),
    )
    assert flight.serve(100, 50, typical=200.0) == [0, MILLION // 2, MILLION // 2, 0]
    assert end.serve(100, 50, typical=200.0) == [0, 0, 0, MILLION]


def test_wsc_of_one_application_is_vtc_scaled() -> None:
    wsc, vtc = Bench(charge_normalised, 1.0, 2.0, 1.0, 1.0), Bench(charge_tokens, 1.0, 2.0)
    for prompt, output in ((10, 3), (400, 90), (7, 200)):
        wsc.serve(prompt, output, typical=50.0)
        vtc.serve(prompt, output)
    assert wsc.tenant.counter * 50 == vtc.tenant.counter


def test_the_smallest_counter_is_first() -> None:
    assert smallest_counter(0, None, None, SimpleNamespace(counter=7), None) == 7


@pytest.mark.parametrize("charge", COMPILED)
def test_compiled_charges_equal_plain_ones(charge: Any) -> None:
    compiled: Any = compiled_function(charge)
    rng = np.random.default_rng(4)
    for _ in range(20):
        request = np.zeros(1, REQUEST).view(np.recarray)
        request.prompt, request.predicted, request.generated = rng.integers(1, 900, 3)
        traits = np.zeros(1, TRAITS).view(np.recarray)
        traits.weight, traits.prepaid = rng.uniform(1, 3000), rng.integers(0, 500)
        tenant = np.zeros(1, TENANT).view(np.recarray)
        tenant.weight, tenant.estimate = rng.uniform(0.5, 4), rng.integers(0, 10**9)
        tenant.seen = rng.integers(0, 2)
        scheduler = np.zeros(1, SCHEDULER).view(np.recarray)
        for i in range(8):
            scheduler[f"p{i}"] = rng.uniform(0, 3)
        event, start = int(rng.integers(0, 4)), int(rng.integers(0, 50))
        end = start + int(rng.integers(0, 500))
        seen = []
        for function in (charge, compiled):
            rows = [array.copy() for array in (request, traits, tenant, scheduler)]
            amount = function(event, start, end, *(array[0] for array in rows))
            seen.append((int(amount), *(array.tobytes() for array in rows)))
        assert seen[0] == seen[1]


def test_weights_are_typical_costs_of_the_application() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0, 1, 2],
        prompt_tokens=[100, 300, 50],
        system_tokens=[20, 40, 0],
        output_tokens=[10, 30, 5],
        application=["chat", "chat", "code"],
    )
    assert application_weights(table) == pytest.approx([240, 240, 60])
    # The paper's Eq. 2: user input once, system prompt twice, output once.
    paper = application_weights(table, alpha=1.0, beta=2.0, gamma=1.0)
    assert paper == pytest.approx([170 + 60 + 20, 170 + 60 + 20, 55])
    high = application_weights(table, "p99")
    assert high[0] == pytest.approx((80 + 180 * 0.99) + (20 + 20 * 0.99) + 2 * (10 + 20 * 0.99))


def test_weights_can_be_of_another_time() -> None:
    past = RequestTable.from_columns(
        arrival_s=[0, 1, 2],
        prompt_tokens=[100, 300, 50],
        output_tokens=[10, 30, 5],
        application=["chat", "chat", "code"],
    )
    table = RequestTable.from_columns(
        arrival_s=[0, 1, 2],
        prompt_tokens=[1, 1, 1],
        output_tokens=[1, 1, 1],
        application=["code", "new", "chat"],
    )
    # An application without a past is charged by what all calls take.
    expected = [60, 150 + 2 * 15, 240]
    assert application_weights(table, history=past) == pytest.approx(expected)
    assert traits_for(scheduler("wsc"), table, past)["weights"] == pytest.approx(expected)
    typical = traits_for(scheduler("wsc_ratios"), table, past)["typical"]
    assert typical[0] == pytest.approx([50, 5])
    assert application_weights(table) == pytest.approx([3, 3, 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "median"}, "statistic 'median' is unknown; choose mean or p99"),
        ({"beta": -1.0}, "give numbers of 0 or more"),
        ({"alpha": 0.0, "gamma": 0.0}, "weight 0; give a positive alpha or gamma"),
    ],
)
def test_weights_that_are_refused(options: dict[str, Any], message: str) -> None:
    table = RequestTable.from_columns(arrival_s=[0], prompt_tokens=[1], output_tokens=[1])
    with pytest.raises(ValueError, match=message):
        application_weights(table, **options)
