"""Fairness metrics against measured runs with published figures, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from envs.simulator.fairness import (
    accumulated_difference,
    backlogged_gap,
    demand_rate,
    fair_level,
    jain,
    service,
    service_difference,
    service_rate,
)
from envs.simulator.served import (
    Served,
    benign_throttles,
    by_cut,
    group_ttft,
    service_buckets,
    whole_run,
)
from tests.paths import DATA, needs_data


def measured(run: str) -> Served:
    assert DATA is not None
    return Served.measured(pd.read_csv(DATA / "vtc_a10g" / f"measured_{run}.csv.gz"))


# OSDI 2024, Table 2: max, mean, variance of the service difference, tokens per second, rejected.
TABLE_2 = {
    "fcfs": (759.97, 433.53, 32112, 777, 0),
    "vtc": (368.40, 251.66, 6549, 779, 0),
    "vtc_predict": (365.47, 240.33, 5322, 773, 0),
    "rpm5": (143.86, 83.58, 1020, 340, 919),
    "rpm20": (446.76, 195.71, 7450, 694, 342),
    "rpm30": (693.66, 309.45, 24221, 747, 176),
}


@needs_data
@pytest.mark.parametrize("run", TABLE_2)
def test_table_2_of_vtc(run: str) -> None:
    rows = measured(f"{run}_real")
    largest, mean, variance, tokens_per_s, rejected = TABLE_2[run]
    found = service_difference(rows, keep_rejected=False)
    assert (round(found.max, 2), round(found.mean, 2)) == (largest, mean)
    assert found.variance == pytest.approx(variance, abs=0.6)
    total = whole_run(rows)
    assert round(total["tokens_per_s"]) == tokens_per_s
    assert total["rejected"] == rejected


@needs_data
@pytest.mark.parametrize(
    ("run", "largest", "mean"), [("rpm5", 423, 266), ("rpm20", 545, 217), ("rpm30", 694, 321)]
)
def test_rejected_demand_can_be_kept(run: str, largest: float, mean: float) -> None:
    found = service_difference(measured(f"{run}_real"))
    assert (round(found.max), round(found.mean)) == (largest, mean)


@needs_data
@pytest.mark.parametrize(
    ("run", "mean", "groups"),
    [
        ("fcfs", 46.8, (41.1, 57.3, 49.0)),
        ("vtc", 39.7, (65.4, 3.9, 2.45)),
        ("vtc_predict", 39.7, (64.3, 5.9, 3.2)),
        ("rpm5", 0.21, (0.24, 0.20, 0.20)),
        ("rpm20", 3.68, (3.1, 4.3, 3.95)),
        ("rpm30", 19.9, (17.1, 23.7, 21.4)),
    ],
)
def test_first_tokens_by_group(run: str, mean: float, groups: tuple[float, ...]) -> None:
    rows = measured(f"{run}_real")
    assert whole_run(rows)["ttft_mean_s"] == pytest.approx(mean, abs=0.05)
    assert group_ttft(rows) == pytest.approx(groups, abs=0.051)


@needs_data
def test_percentiles_and_length_of_the_measured_runs() -> None:
    fcfs, vtc = whole_run(measured("fcfs_real")), whole_run(measured("vtc_real"))
    marks = [f"ttft_p{q}_s" for q in (50, 90, 99)]
    assert [fcfs[mark] for mark in marks] == pytest.approx([39.1, 112.8, 136.9], abs=0.06)
    assert [vtc[mark] for mark in marks] == pytest.approx([4.9, 148, 212], abs=0.6)
    assert (fcfs["total_s"], vtc["total_s"]) == pytest.approx((757.7, 755.9), abs=0.05)


@needs_data
@pytest.mark.parametrize(
    ("run", "largest"),
    [
        ("fcfs_overload", 259_268),
        ("vtc_overload", 8_063),
        ("fcfs_on_off_overload", 376_996),
        ("vtc_on_off_overload", 9_080),
    ],
)
def test_accumulated_difference_of_the_suites(run: str, largest: float) -> None:
    assert accumulated_difference(measured(run)) == pytest.approx(largest, abs=1)


@needs_data
def test_vtc_keeps_its_bound_where_fcfs_does_not() -> None:
    bound = 2 * max(1 * 256, 2 * 10_000)  # OSDI 2024, Theorem 4.4 with 10,000 tokens of KV cache
    assert backlogged_gap(measured("vtc_overload"), 300) < bound
    assert backlogged_gap(measured("fcfs_overload"), 300) > bound


def rows(**columns) -> Served:
    n = len(columns["arrival_s"])
    first = np.array(columns.get("first_token_s", columns["arrival_s"]), float)
    finish = np.array(columns["finish_s"], float)
    default = {
        "tenant": np.zeros(n, int),
        "prompt": np.full(n, 10),
        "output": np.full(n, 5),
        "rejected": np.zeros(n, bool),
        "interaction": np.arange(n),
        "calls": np.ones(n, int),
    }
    values = {k: np.asarray(columns.get(k, v)) for k, v in default.items()}
    arrival = np.array(columns["arrival_s"], float)
    return Served(arrival_s=arrival, first_token_s=first, finish_s=finish, **values)


NAN = float("nan")


def test_service_is_spread_over_the_generation() -> None:
    run = rows(arrival_s=[0, 0, 0], first_token_s=[10, 50, NAN], finish_s=[30, 50, NAN])
    assert service(run, 5.0) == pytest.approx([0])
    assert service(run, 20.0) == pytest.approx([10])  # half of 10 + 2 x 5
    assert service(run, 50.0) == pytest.approx([40])  # one token alone: all at once
    assert service_rate(run, 20.0, window_s=20.0) == pytest.approx([1.0])
    assert service(run, 100.0, cost=np.array([1.0, 2.0, 4.0])) == pytest.approx([3])


def test_demand_with_and_without_the_rejected() -> None:
    run = rows(
        arrival_s=[1, 2, 100],
        finish_s=[3, NAN, 101],
        rejected=[False, True, False],
        tenant=[0, 1, 1],
    )
    assert demand_rate(run, 0.0) * 60 == pytest.approx([20, 20])
    assert demand_rate(run, 0.0, keep_rejected=False) * 60 == pytest.approx([20, 0])


def test_fair_level_and_jain() -> None:
    assert fair_level(np.array([1.0, 5.0, 9.0]), 9.0) == pytest.approx(4.0)
    assert fair_level(np.array([1.0, 5.0]), 6.0) == float("inf")
    even = rows(arrival_s=[0, 0], finish_s=[1, 1], tenant=[0, 1])
    assert jain(even) == pytest.approx(1.0)
    one = rows(arrival_s=[0, 0], finish_s=[1, NAN], tenant=[0, 1])
    assert jain(one) == pytest.approx(0.5)
    assert jain(one, cut_s=2.0, unmet_only=True) != jain(one)
    assert np.isnan(jain(rows(arrival_s=[0], finish_s=[NAN])))
    # A small demand that is met in full counts as much as a large one at the fair level.
    small = rows(
        arrival_s=[0] * 4, finish_s=[1, 1, NAN, NAN], tenant=[0, 1, 1, 1], prompt=[5, 95, 95, 95]
    )
    assert jain(small) == pytest.approx(1.0)


def test_interactions_and_waste() -> None:
    run = rows(
        arrival_s=[0, 1, 2, 3, 4, 5],
        finish_s=[1, 2, 9, NAN, 5, NAN],
        tenant=[0, 0, 1, 1, 2, 3],
        interaction=[7, 7, 8, 8, 9, 10],
        calls=[2, 2, 2, 2, 1, 1],
        rejected=[False, False, False, True, False, True],
    )
    early, whole = by_cut(run, 5.0), by_cut(run)
    assert (early["calls"], early["users"]) == (3, 2)
    assert (whole["calls"], whole["users"]) == (4, 3)
    assert (whole["interactions"], whole["multi_call_interactions"]) == (2, 1)
    assert whole["single_call_interactions"] == 1
    assert (whole["rejected_calls"], whole["rejected_users"]) == (2, 2)
    assert (whole["rejected_interactions"], whole["broken_interactions"]) == (2, 1)
    assert whole["wasted_tokens"] == 15


def test_benign_throttles_hit_tenants_that_kept_to_the_limit() -> None:
    run = rows(
        arrival_s=[0, 1, 2, 0, 70],
        finish_s=[1, 2, NAN, NAN, 71],
        tenant=[0, 0, 0, 1, 1],
        rejected=[False, False, True, True, False],
    )
    assert benign_throttles(run, limit=2) == pytest.approx(0.2)
    assert benign_throttles(run, limit=3) == pytest.approx(0.4)


def test_buckets_of_normalised_service() -> None:
    run = rows(arrival_s=[0, 0, 0], finish_s=[1, 1, NAN], tenant=[0, 1, 3], output=[5, 20, 5])
    buckets = service_buckets(run, np.full(3, 20.0), 10.0)
    assert buckets == {"none": 1, "up_to_one": 1, "more": 1}


def test_the_gap_counts_only_while_both_wait() -> None:
    run = rows(
        arrival_s=[0, 0, 0, 0],
        first_token_s=[0, 10, 20, 20],
        finish_s=[10, 20, 30, 30],
        tenant=[0, 0, 1, 0],
    )
    # Until 20 s both wait and tenant 0 alone is served: twice 20.
    assert backlogged_gap(run, 2001) == pytest.approx(40, abs=0.1)
    alone = rows(arrival_s=[0, 50], first_token_s=[1, 51], finish_s=[9, 60], tenant=[0, 1])
    assert backlogged_gap(alone) == 0


def test_a_simulation_reads_as_a_measured_run() -> None:
    from baselines.routing import router
    from envs.scenarios import load_scenario
    from envs.simulator import simulate
    from envs.workloads import copilot_calls

    table = copilot_calls(200, 1, length_divisor=8, max_request_tokens=2000)
    engines = load_scenario("router-kv6k-rate8").fleet.engines()
    result = simulate(table, engines, router("jsq"), seed=0)
    run = Served.of(result)
    frame = result.to_frame()
    assert run.finish_s == pytest.approx(frame["finish_s"].to_numpy(), nan_ok=True)
    assert by_cut(run)["calls"] == result.summary()["served"]
    assert whole_run(run)["ttft_mean_s"] == pytest.approx(result.summary()["ttft_mean_s"])
    assert service(run, 1e9).sum() == pytest.approx(run.cost[run.finished].sum())
