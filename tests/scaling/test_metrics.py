"""What a fleet has cost and how its tiers were served, against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from envs.scaling import metrics
from envs.simulator.lifecycle import LifecycleFleet
from tests.simulator.elastic import Waits
from tests.simulator.living import begun, ordered
from tests.simulator.living_cases import random_life
from tests.simulator.seconds import HOUR, Place, fleet_of, row, until

X = ("x", "ready")


def frame(fleet: LifecycleFleet) -> pd.DataFrame:
    """What is known of each request now, in seconds."""
    simulation = fleet.simulation
    rows, table = simulation.state.arrays["requests"], simulation.table
    columns = {n: rows[f"{n}_ps"] / 1e12 for n in ("arrival", "first_token", "finish")}
    found = pd.DataFrame(columns | {"status": rows["status"]})
    found["tier"] = [table.tier.names[code] for code in table.tier.codes]
    return found[(found.arrival >= 0) & (found.arrival <= fleet.now_s)]


def by_frame(rows: pd.DataFrame, now_s: float, limits: dict[str, float]) -> dict[str, float]:
    """The metrics of tiers, request by request."""
    found: dict[str, float] = {}
    decided_in_all = met_in_all = 0
    for tier, limit in limits.items():
        mine = rows[rows.tier == tier]
        met = decided = rejected = 0
        for one in mine.itertuples():
            end: Any = one.finish if tier == "NIW" else one.first_token
            arrival: Any = one.arrival
            if end > 0:
                decided += 1
                met += end - arrival <= limit + 1e-9
            elif one.status not in (0, 3):
                decided += 1
                rejected += 1
            elif now_s - arrival > limit:
                decided += 1
        found |= {
            f"{tier}_requests": len(mine),
            f"{tier}_decided": decided,
            f"{tier}_missed": decided - met,
            f"{tier}_rejected": rejected,
            f"{tier}_attainment": met / decided if decided else float("nan"),
        }
        decided_in_all, met_in_all = decided_in_all + decided, met_in_all + met
    found["attainment"] = met_in_all / decided_in_all if decided_in_all else float("nan")
    found["unfinished"] = int((rows.status == 3).sum())
    return found


LIMITS = {"IW-F": 1.0, "IW-N": 3.0, "NIW": 9.0}


def mixed(count: int = 30) -> list[Any]:
    rng = np.random.default_rng(5)
    rows = [
        row(int(rng.integers(0, 60)), int(rng.integers(1, 12)), "x", tier=int(rng.integers(0, 3)))
        for _ in range(count)
    ]
    return [*rows, row(5, 1, "z"), row(6, 5000, "x", tier=2)]


@pytest.mark.parametrize("now_s", [0, 4, 20, 61, 200])
def test_tiers_are_as_their_requests_tell(now_s: int) -> None:
    fleet = fleet_of([X], mixed(), max_num_seqs=2)
    limits = fleet.simulation.state.arrays["backlog"]
    for tier, limit in enumerate(LIMITS.values()):
        limits[f"limit_{tier}_ps"] = int(limit * 1e12)
    until(fleet, now_s)
    found = metrics.requests_by_tier(fleet)
    rows = frame(fleet)
    for name, value in by_frame(rows, now_s, LIMITS).items():
        assert found[name] == pytest.approx(value, nan_ok=True), name
    for tier in LIMITS:
        mine = rows[(rows.tier == tier) & (rows.first_token > 0)]
        waits = mine.first_token - mine.arrival
        for mark in (50, 95):
            expected = waits.quantile(mark / 100) if len(waits) else float("nan")
            assert found[f"{tier}_ttft_p{mark}_s"] == pytest.approx(expected, nan_ok=True)
    done = rows[rows.finish > 0]
    expected = (done.finish - done.arrival).quantile(0.9) if len(done) else float("nan")
    assert found["e2e_p90_s"] == pytest.approx(expected, nan_ok=True)


def test_one_that_was_promoted_keeps_its_tier() -> None:
    waits = Waits(low=0.0, middle=0.0, promote_ps=5 * 10**12)
    fleet = fleet_of([X], [row(0, 2, "x", tier=2)], backlog=waits, pull_s=5.0)
    until(fleet, 20)
    found = metrics.requests_by_tier(fleet)
    assert (found["NIW_requests"], found["IW-N_requests"]) == (1, 0)
    assert found["NIW_e2e_p50_s"] == 7


def test_marks_of_a_model() -> None:
    rows = [row(0, 4, "x"), row(0, 4, "x", tier=1), row(9, 2, "y"), row(0, 9, "x", tier=2)]
    fleet = fleet_of([X, ("y", "ready")], rows)
    until(fleet, 50)
    assert metrics.latency_marks(fleet, "x")["e2e_p99_s"] == pytest.approx(4)
    assert metrics.latency_marks(fleet, "y")["e2e_p50_s"] == pytest.approx(2)
    assert np.isnan(metrics.latency_marks(fleet, "z")["e2e_p50_s"])
    assert metrics.latency_marks(fleet, "", ("NIW",))["e2e_p50_s"] == pytest.approx(9)


def test_instance_hours_are_the_integral_of_the_samples() -> None:
    """Everything changes at whole seconds, and samples are taken at the halves between them.

    What is redeployed drains from 20 s to 33 s, and counts as starting where it goes, too.
    """
    places: list[Place] = [X, ("x", "donated"), ("y", "ready"), ("y", "off")]
    fleet = fleet_of(places, [row(0, 40, "x"), row(3, 30, "y")], sample_s=0.5)
    for time, name, given in [
        (2, "scale_out", (0, 0, 1, 0)),
        (5, "scale_out", (1, 0, 1, 1)),
        (11, "scale_in", (0, 0, 1, 1)),
        (20, "redeploy", (1, 0, 0, 1)),
        (45, "scale_in", (1, 0, 1, 0)),
        (80, "scale_in", (0, 0, 1, 0)),
    ]:
        until(fleet, time)
        ordered(fleet, name, given)
    until(fleet, 200)
    between = {name: fleet.samples[name][::2].sum(axis=0) for name in ("ready", "draining")}
    for name, sums in between.items():
        assert sums == pytest.approx(fleet.deployments[f"{name}_s"]), name
    starting = fleet.samples["starting"][::2].sum(axis=0) - [[33 - 20], [0]]
    assert starting == pytest.approx(fleet.deployments["starting_s"])
    paid = sum(between.values()) + starting
    assert metrics.instance_hours(fleet) * HOUR == pytest.approx(paid)


@pytest.mark.parametrize("seed", range(600, 620))
def test_instance_hours_are_what_was_counted_between_changes(seed: int) -> None:
    """Of random fleets whose places change at orders alone: counts times the time to the next."""
    living = random_life(seed)
    fleet = begun(living)
    total = 0.0
    for time, name, given in living.orders[:-1]:
        before, then = fleet.now_s, fleet.deployments.copy()
        changes = int(fleet.head["changes"][0])
        fleet.look()
        spent = metrics.instance_hours(fleet).sum()
        if not fleet.run_to(time / 1e12):
            break
        if int(fleet.head["changes"][0]) == changes:
            live = then["ready"] + then["starting"]
            drains = then["draining"].sum() if living.plan.drain_billed else 0
            # One that is to be redeployed drains here, and starts where it goes.
            coming = int((fleet.places["state"] == 4).sum() and _coming(fleet))
            hours = (live.sum() - coming + drains) * (fleet.now_s - before) / HOUR
            now = metrics.instance_hours(fleet).sum()
            assert now - spent == pytest.approx(hours, rel=1e-6, abs=1e-18)
            total += hours
        ordered(fleet, name, given)
    assert total >= 0


def _coming(fleet: LifecycleFleet) -> int:
    drains = fleet.places["state"] == 4
    return int((fleet.places["goal"][drains] == 2).sum())


def sampled(live: list[int], sample_s: float = 60.0) -> LifecycleFleet:
    """A fleet with these instances in its samples."""
    fleet = fleet_of([X], sample_s=sample_s)
    fleet.arrays["samples"]["ready"][: len(live), 0] = [n // 2 for n in live]
    fleet.arrays["samples"]["starting"][: len(live), 0] = [n - n // 2 for n in live]
    fleet.head["sampled"] = len(live)
    return fleet


def test_instance_hours_as_released_take_the_most_of_each_quarter() -> None:
    fleet = sampled([3] * 15 + [2] * 14 + [7] + [1])
    assert metrics.released_instance_hours(fleet).tolist() == [[(3 + 7 + 1) * 0.25]]
    assert metrics.released_instance_hours(sampled([])).tolist() == [[0.0]]
    assert metrics.released_instance_hours(fleet_of([X])).tolist() == [[0.0]], "without samples"


def test_waste_as_released_guesses_the_source_by_the_count() -> None:
    """From 8 to 12: two below ten at 2.5 minutes, two above at 10; falls waste nothing."""
    assert metrics.released_waste_hours(sampled([8, 12, 5, 6]))[0, 0] * 60 == pytest.approx(
        2 * 2.5 + 2 * 10 + 2.5
    )
    assert metrics.released_waste_hours(sampled([11, 13]))[0, 0] * 60 == pytest.approx(20)
    assert metrics.released_waste_hours(sampled([5])).tolist() == [[0.0]]


def test_use_is_the_mean_over_samples_with_an_instance() -> None:
    fleet = sampled([2, 2, 2, 0])
    fleet.arrays["samples"]["kv"][:4, 0] = [0.5, 0.25, 0.75, 0.9]
    assert metrics.utilisation(fleet).tolist() == [[0.5]]


def test_the_summary_holds_everything() -> None:
    fleet = fleet_of([X, ("x", "donated")], mixed())
    until(fleet, 100)
    found = metrics.summary(fleet)
    assert found["served"] + found["rejected"] + found["unfinished"] == found["arrived"]
    assert found["instance_hours"] * HOUR == pytest.approx(100)
    assert {"net_dollars", "waste_hours", "NIW_attainment", "kv_mean"} <= found.keys()
