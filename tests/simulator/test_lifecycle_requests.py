"""What requests meet with while the fleet changes: worked out by hand, in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.simulator.lifecycle import Delays, Eviction, LifecycleFleet, LifecyclePlan
from tests.reference_simulator import REJECTED_FLEET, SERVED, UNFINISHED
from tests.simulator.elastic import Waits
from tests.simulator.seconds import LATE, Place, S, column, fleet_of, row, states, until

X, Y = ("x", "ready"), ("y", "ready")
AT_ONCE = Delays(0, 0, 0, 0, 0, 0)


def test_a_model_without_an_instance_blocks_no_other() -> None:
    """The first waits until its instance is there; nobody else waits for it."""
    fleet = fleet_of([X, ("y", "donated")], [row(0, 2, "y"), row(1, 2, "x"), row(2, 2, "y")])
    until(fleet, 10)
    assert column(fleet, "finish_ps") == [-1, 3, -1]
    fleet.scale_out(1, 0)
    until(fleet, 30)
    assert column(fleet, "dispatch_ps") == [15, 1, 15]
    assert column(fleet, "finish_ps")[1:] == [3, 17]
    assert column(fleet, "status") == [SERVED] * 3


def test_what_is_set_aside_is_in_the_system_all_the_while() -> None:
    fleet = fleet_of([X, ("y", "donated")], [row(0, 2, "y"), row(1, 2, "x")])
    until(fleet, 10)
    head = fleet.simulation.state.head
    assert (head["queued"][0], head["stranded"][0]) == (0, 1)
    assert fleet.simulation.result().summary()["queued"] == 1
    assert head["area_ps"][0] == 10 * S + 2 * S
    fleet.scale_out(1, 0)
    until(fleet, 30)
    assert head["area_ps"][0] == 17 * S + 2 * S


def test_requests_are_rejected_by_the_fleet_as_it_was_given() -> None:
    """Model y could be served on a place that is off; model z never."""
    fleet = fleet_of([X, ("y", "off")], [row(1, 2, "y"), row(1, 2, "z"), row(1, 9999, "x")])
    until(fleet, 5)
    assert column(fleet, "status") == [UNFINISHED, REJECTED_FLEET, REJECTED_FLEET]


def test_lanes_serve_their_tiers() -> None:
    places: list[Place] = [("x", "ready", "", 0, "interactive"), ("x", "ready", "", 0, "batch")]
    fleet = fleet_of(places, [row(0, 2, "x", tier=tier) for tier in (0, 1, 2)])
    until(fleet, 9)
    assert column(fleet, "instance") == [0, 0, 1]
    assert fleet.scale_in(0, 0) == 1
    assert fleet.redeploy(1, 0, 0) == 1
    assert until(fleet, 29) == ["donated", "ready"]


@pytest.mark.parametrize(("busy", "kv", "released"), [(0, 20, True), (2, 20, False), (2, 99, True)])
def test_a_backlog_looks_at_instances_that_take_niw(busy: int, kv: int, released: bool) -> None:
    """The interactive one is idle or not, whatever the batch one has is what counts."""
    places: list[Place] = [("x", "ready", "", 0, "interactive"), ("x", "ready", "", 0, "batch")]
    rows = [row(0, 19, "x", tier=2), row(15, 2, "x", tier=2)]
    rows[:1] = [replace(rows[0], tier=busy)]
    waits = Waits(low=0.0, middle=0.5, at_middle=1)
    fleet = fleet_of(places, rows, backlog=waits, kv=kv, pull_s=16.0, late=False)
    if busy == 2:  # it waits as well
        assert until(fleet, 15)
        return
    until(fleet, 17)
    assert (column_all(fleet, "dispatch_ps")[1] == 16) == released


def column_all(fleet: LifecycleFleet, name: str) -> list[float]:
    return [v / S for v in fleet.simulation.state.arrays["requests"][name].tolist()]


def test_what_is_under_way_to_one_that_serves_another_model_turns_back() -> None:
    """Sent at 0, there at 30; by then the place serves y."""
    places: list[Place] = [("y", "ready", "a"), ("x", "ready", "b"), ("y", "off", "b")]
    rows = [row(0, 3, "x", region="a")]
    away = [("a", "b", 30 * S)]
    options: dict[str, Any] = {"network": away, "delays": AT_ONCE, "drain_limit_s": 5.0}
    fleet = fleet_of(places, rows, **options)
    until(fleet, 10)
    assert column(fleet, "instance") == [1]
    fleet.redeploy(1, 0, 1)
    assert until(fleet, 14)[1] == "draining"
    assert until(fleet, 16)[1] == "ready" and fleet.places["role"][1] == 0
    until(fleet, 50)
    assert column(fleet, "instance") == [-1] and column(fleet, "status") == [UNFINISHED]
    assert column(fleet, "failures") == [0], "it never was there"
    fleet.redeploy(0, 1, 1)
    until(fleet, 100)
    assert column(fleet, "finish_ps") == [50 + 30 + 3]


def test_time_stands_still_when_all_is_done() -> None:
    fleet = fleet_of([X, ("x", "off")], [row(0, 4, "x")], late=False)
    fleet.scale_out(0, 0, acquire=True)
    assert not fleet.run_to(1000)
    assert fleet.now_s == 4 and states(fleet)[1] == "provisioning"
    assert not fleet.run_to(2000) and fleet.now_s == 4
    assert fleet.totals()["instance_hours"] * 3600 == pytest.approx(4 + 4)


@pytest.mark.parametrize("clock", [0.0, 7.0])
def test_a_run_without_an_end_stops_where_nothing_but_the_clock_goes_on(clock: float) -> None:
    """One that nobody takes is left; a backlog is released first, whatever the use."""
    waits = Waits(low=0.0, middle=0.0, promote_ps=10**18)
    rows = [row(0, 4, "y"), row(1, 3, "x", tier=2)]
    places: list[Place] = [X, ("y", "off")]
    fleet = fleet_of(places, rows, late=False, pull_s=clock, sample_s=clock, backlog=waits)
    assert not fleet.run_to(float("inf"))
    status = fleet.simulation.state.arrays["requests"]["status"].tolist()
    assert status == [UNFINISHED, SERVED]
    assert fleet.now_s == (14 if clock else 4), "at the clock's next instant, where there is one"


def test_a_run_to_a_time_waits_for_whoever_changes_the_fleet() -> None:
    fleet = fleet_of([X, ("y", "off")], [row(0, 4, "y")], late=False)
    assert fleet.run_to(1000) and fleet.now_s == 1000
    fleet.scale_out(1, 0, acquire=True)
    assert not fleet.run_to(2000)
    assert fleet.now_s == 1000 + 110 + 4


def test_what_happens_at_one_instant_happens_in_order() -> None:
    """At 8 s: the work is done, the place is donated, an eviction is of a donated VM."""
    plan = {"evictions": (Eviction(0, 8.0, 30.0),), "sample_s": 8.0}
    fleet = fleet_of([X], [row(0, 8, "x"), row(8, 2, "x")], **plan)
    until(fleet, 2)
    fleet.scale_in(0, 0)
    assert until(fleet, 8) == ["failed"]
    assert column(fleet, "finish_ps")[0] == 8 and column(fleet, "instance")[1] == -1
    assert fleet.samples["donated"].tolist() == [[[0]]]
    assert fleet.totals()["lost_instances"] == 1


def test_delays_are_drawn_from_a_table_for_each_place() -> None:
    """Lognormal, cut at e^3 medians; the seed decides, and places do not share."""

    def times(seed: int, sigma: float, order: list[int]) -> list[float]:
        places: list[Place] = [X, *[("x", "donated")] * 3]
        fleet = fleet_of(places, delays=Delays(0, 0, 0, 5, 0, sigma))
        again = LifecycleFleet(
            fleet.simulation, fleet.plan, fleet.router, seed=seed, duration_s=LATE
        )
        found = []
        for i in order:
            again.places["state"][:] = 5  # donated
            again.places["state"][i] = 5
            again.places["state"][[j for j in range(4) if j != i]] = 0
            again.scale_out(0, 0)
            found.append(int(again.places["next_ps"][i]) / S)
        return found

    z = np.random.default_rng([7, 11]).standard_normal((4, 64))[1:, 0]
    expected = 5 * np.exp(np.minimum(2 * z, 3))
    assert times(7, 2.0, [1, 2, 3]) == pytest.approx(expected.tolist())
    assert times(7, 2.0, [3, 1, 2]) == pytest.approx(expected[[2, 0, 1]].tolist())
    assert times(7, 0.0, [1, 2, 3]) == [5, 5, 5]
    assert times(8, 2.0, [1, 2, 3]) != times(7, 2.0, [1, 2, 3])
    assert max(times(7, 1e5, [1, 2, 3])) == pytest.approx(5 * np.exp(3))


def test_clear_errors() -> None:
    fleet = fleet_of([X, ("x", "off")])
    plan = fleet.plan
    until(fleet, 10)
    for what, message in [
        (lambda: fleet.run_to(9), "has passed"),
        (lambda: fleet.run_to(float("nan")), "NaN"),
        (lambda: fleet.scale_out(1, 0), r"no deployment \(1, 0\): 1 roles, 1 regions"),
        (lambda: fleet.scale_in(0, 0, -1), "count must be 0 or more"),
        (lambda: fleet.redeploy(0, 3, 0), "no deployment"),
        (lambda: fleet.give_back(1), "no deployment"),
        (lambda: fleet.donate_new(-1), "no deployment"),
        (lambda: fleet.evict(2), "no place 2"),
        (lambda: fleet.evict(0, -1.0), "notice_s must be 0 or more"),
        (lambda: Eviction(0, -1.0), "time_s of an eviction"),
        (lambda: Delays(provision_s=-1.0), "provision_s must be from 0"),
        (lambda: Delays(sigma=float("nan")), "sigma must be from 0"),
        (lambda: again(fleet, floor=np.zeros((2, 1), int)), r"floor must be \(1, 1\)"),
        (lambda: again(fleet, floor=plan.ceiling + 1), "a floor is above its ceiling"),
        (lambda: again(fleet, floor=plan.floor - 1), "a floor must be 0 or more"),
        (lambda: again(fleet, donated=plan.ready), "ready and donated"),
        (lambda: again(fleet, kind=plan.kind + 2), "kind must be from 0 to 1"),
        (lambda: again(fleet, kind=np.array([0])), "kind has 1 values for 2"),
        (lambda: again(fleet, roles=plan.roles * 2), "named twice"),
        (lambda: again(fleet, pull_s=-1.0), "pull_s must be"),
        (lambda: again(fleet, regions=()), "needs a region"),
        (lambda: again(fleet, evictions=(Eviction(9, 1.0),)), "of place 9"),
        (lambda: again(fleet, regions=(replace(plan.regions[0], price=(1.0,)),)), "one value a"),
        (lambda: again(fleet, regions=(replace(plan.regions[0], quota=0),)), "its quota is 0"),
        (lambda: again(fleet, regions=(replace(plan.regions[0], name="q"),)), "in that order"),
    ]:
        with pytest.raises(ValueError, match=message):
            what()


def again(fleet: LifecycleFleet, **changes: Any) -> LifecycleFleet:
    plan: LifecyclePlan = replace(fleet.plan, **changes)
    return LifecycleFleet(fleet.simulation, plan, fleet.router)
