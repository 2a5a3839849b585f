"""Places go from state to state as docs/simulator.md says, in times worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.simulator.lifecycle import Eviction
from tests.simulator.elastic import Waits
from tests.simulator.seconds import (
    DELAYS,
    HOUR,
    Place,
    column,
    fleet_of,
    roles_held,
    row,
    seconds,
    states,
    until,
)

X, Y = ("x", "ready"), ("y", "ready")


def table(*values: int) -> np.ndarray:
    """A value for each role, in one region."""
    return np.array(values)[:, None]


def test_a_new_vm_is_provisioned_then_loads_weights_that_are_near() -> None:
    fleet = fleet_of([X, ("x", "off")])
    assert fleet.scale_out(0, 0, acquire=True) == 1
    assert until(fleet, 9) == ["ready", "provisioning"]
    assert until(fleet, 10) == ["ready", "loading"]
    assert until(fleet, 29) == ["ready", "loading"]
    assert until(fleet, 30) == ["ready", "ready"]
    until(fleet, 40)
    assert seconds(fleet) == {
        **{"ready": 50, "starting": 30, "acquired": 30, "waste": 30, "instance": 80, "gpu": 80}
    }
    assert (fleet.totals()["starts"], fleet.deployments["acquired"].tolist()) == (1, [[1]])


def test_weights_from_afar_lie_near_once_they_were_loaded() -> None:
    fleet = fleet_of([X, ("y", "off"), ("y", "off")])
    fleet.scale_out(1, 0, acquire=True)
    assert until(fleet, 109) == ["ready", "loading", "off"]
    assert until(fleet, 110) == ["ready", "ready", "off"]
    fleet.scale_out(1, 0, acquire=True)
    assert until(fleet, 140) == ["ready", "ready", "ready"]


def test_weights_are_near_or_afar_by_region() -> None:
    fleet = fleet_of([("x", "ready", "a"), ("x", "off", "a"), ("x", "off", "b")])
    for r in (0, 1):
        fleet.scale_out(0, r, acquire=True)
    assert until(fleet, 109) == ["ready", "ready", "loading"]
    assert until(fleet, 110) == ["ready", "ready", "ready"]


def test_a_donated_vm_with_the_weights_is_reclaimed() -> None:
    fleet = fleet_of([X, ("x", "donated")])
    assert fleet.scale_out(0, 0) == 1
    assert until(fleet, 4) == ["ready", "reclaiming"]
    assert until(fleet, 5) == ["ready", "ready"]
    assert seconds(fleet)["reclaimed"] == 5


def test_one_with_other_weights_is_reclaimed_and_loaded() -> None:
    fleet = fleet_of([X, Y, ("y", "donated"), ("y", "donated")])
    assert fleet.scale_out(0, 0) == 1
    assert until(fleet, 24) == ["ready", "ready", "loading", "donated"]
    assert until(fleet, 25) == ["ready", "ready", "ready", "donated"]
    assert roles_held(fleet) == [0, 1, 0, 1]
    assert seconds(fleet)["converted"] == 25


def test_donated_vms_with_the_weights_come_first_whatever_their_place() -> None:
    fleet = fleet_of([X, ("y", "donated"), ("x", "donated"), ("x", "off")])
    assert fleet.scale_out(0, 0, 9) == 2
    assert states(fleet) == ["ready", "loading", "reclaiming", "off"]
    assert fleet.scale_out(0, 0, 9) == 0, "none is left that is donated"


def test_lanes_of_a_model_share_its_weights() -> None:
    places: list[Place] = [
        ("x", "ready", "", 0, "interactive"),
        ("x", "donated", "", 0, "batch"),
        ("x", "off", "", 0, "batch"),
    ]
    fleet = fleet_of(places)
    assert fleet.scale_out(0, 0) == 1
    assert states(fleet)[1] == "reclaiming" and roles_held(fleet)[1] == 0
    assert until(fleet, 5)[1] == "ready"


def test_a_new_vm_is_of_the_first_kind_that_has_room() -> None:
    places: list[Place] = [X, ("x", "off", "", 1), ("x", "off", "", 0), ("x", "off", "", 0)]
    for quota, started in [(1, []), (2, [2]), (3, [2, 3]), (5, [1, 2, 3]), (4, [2, 3])]:
        fleet = fleet_of(places, terms={"quota": quota})
        fleet.scale_out(0, 0, 9, acquire=True)
        assert [i for i in (1, 2, 3) if states(fleet)[i] == "provisioning"] == started, quota
        assert fleet.regions["held"][0] == sum(fleet.places["gpus"][[0, *started]])


def test_what_drains_finishes_its_work_and_takes_nothing_new() -> None:
    fleet = fleet_of([X, ("x", "ready")], [row(0, 8), row(0, 2), row(3, 4)])
    until(fleet, 2)
    place = column(fleet, "instance")[0]
    assert fleet.scale_in(0, 0, 1) == 1 and states(fleet)[1 - place] == "donated"
    assert fleet.scale_in(0, 0, 1) == 1 and states(fleet)[place] == "draining"
    assert until(fleet, 7)[place] == "draining"
    assert until(fleet, 8) == ["donated", "donated"]
    assert column(fleet, "finish_ps")[:2] == [8, 2]
    assert column(fleet, "instance")[2] == -1, "nobody takes it"
    assert seconds(fleet)["draining"] == 6
    assert fleet.totals()["stops"] == 2


def test_work_is_lost_when_the_drain_limit_is_over_and_served_elsewhere() -> None:
    """Five tokens at 5.5 s; three more from there, the first with their prefill."""
    fleet = fleet_of([X, ("x", "off")], [row(0, 8)], drain_limit_s=3.5)
    until(fleet, 2)
    fleet.scale_in(0, 0, donate=False)
    assert until(fleet, 5.4)[0] == "draining"
    fleet.run_to(5.5)
    assert states(fleet) == ["off", "off"]
    assert column(fleet, "failures") == [1]
    fleet.scale_out(0, 0, acquire=True)
    until(fleet, 100)
    assert column(fleet, "finish_ps") == [5.5 + 10 + 20 + 3]
    assert fleet.totals()["lost_instances"] == 0, "the VM was not taken away"


def test_one_that_drains_towards_the_same_end_is_kept_before_any_start() -> None:
    for donate in (True, False):
        fleet = fleet_of([X, ("x", "donated"), ("x", "off")], [row(0, 9)])
        until(fleet, 1)
        fleet.scale_in(0, 0, donate=donate)
        until(fleet, 3)
        assert fleet.scale_out(0, 0, acquire=donate) == 1, "towards another end: not kept"
        assert states(fleet)[0] == "draining"
        assert fleet.scale_out(0, 0, acquire=not donate) == 1
        assert states(fleet)[0] == "ready"
        assert fleet.totals()["starts"] == 1
        until(fleet, 20)
        assert column(fleet, "finish_ps") == [9] and column(fleet, "failures") == [0]
        assert seconds(fleet)["draining"] == 2


def test_a_start_that_is_called_off() -> None:
    """No VM to donate; no weights; weights as they were; and the same to be given back."""
    ends = {}
    for name, wait in [("off", 3), ("off", 15), ("donated", 3)]:
        for donate in (True, False):
            fleet = fleet_of([X, ("x", name)])
            fleet.scale_out(0, 0, acquire=name == "off")
            state = until(fleet, wait)[1]
            assert fleet.scale_in(0, 0, donate=donate) == 1
            ends[state, donate] = (states(fleet)[1], roles_held(fleet)[1])
            assert until(fleet, 200) == ["ready", states(fleet)[1]], "nothing comes of it"
            assert fleet.totals()["stops"] == 1
            assert fleet.regions["bare"][0] == (ends[state, donate] == ("donated", -1))
    assert ends == {
        ("provisioning", True): ("off", -1),
        ("provisioning", False): ("off", -1),
        ("loading", True): ("donated", -1),
        ("loading", False): ("off", -1),
        ("reclaiming", True): ("donated", 0),
        ("reclaiming", False): ("off", -1),
    }


def test_weights_whose_loading_was_called_off_are_still_afar() -> None:
    fleet = fleet_of([X, ("y", "off")])
    fleet.scale_out(1, 0, acquire=True)
    until(fleet, 100)
    fleet.scale_in(1, 0)
    assert fleet.scale_out(1, 0) == 1 and states(fleet)[1] == "loading"
    assert until(fleet, 204)[1] == "loading"
    assert until(fleet, 205)[1] == "ready"


def test_what_starts_is_stopped_first_then_the_one_with_fewest_requests_ties_to_the_last() -> None:
    fleet = fleet_of([X, X, X, ("x", "donated")], [row(0, 50), row(0, 50), row(1, 50)])
    until(fleet, 2)
    busy = [sum(r == i for r in column(fleet, "instance")) for i in range(3)]
    assert busy == [1, 1, 1]
    fleet.scale_out(0, 0)
    fleet.scale_in(0, 0)
    assert states(fleet) == ["ready", "ready", "ready", "donated"]
    fleet.scale_in(0, 0)
    assert states(fleet) == ["ready", "ready", "draining", "donated"]
    fleet.scale_in(0, 0)
    assert states(fleet) == ["ready", "draining", "draining", "donated"]


def test_of_several_that_start_the_last_is_stopped_first() -> None:
    fleet = fleet_of([X, ("x", "donated"), ("x", "donated"), ("x", "off")])
    fleet.scale_out(0, 0, acquire=True)
    fleet.scale_out(0, 0, 2)
    assert states(fleet) == ["ready", "reclaiming", "reclaiming", "provisioning"]
    fleet.scale_in(0, 0, 2)
    assert states(fleet) == ["ready", "reclaiming", "donated", "off"]


def test_floors_and_ceilings_count_what_is_ready_and_starting() -> None:
    places: list[Place] = [X, *[("x", "donated")] * 4]
    fleet = fleet_of(places, floor=table(2), ceiling=table(3))
    assert fleet.scale_in(0, 0) == 0, "it is below its floor already"
    assert fleet.scale_out(0, 0, 9) == 2
    assert fleet.scale_in(0, 0, 9) == 1
    until(fleet, 100)
    assert fleet.deployments["ready"].tolist() == [[2]]
    assert fleet.scale_in(0, 0, 9) == 0


def test_quotas_hold_what_is_held_donated_vms_included() -> None:
    places: list[Place] = [X, ("x", "donated"), ("x", "off"), ("x", "off")]
    fleet = fleet_of(places, terms={"quota": 3})
    assert fleet.scale_out(0, 0, 9, acquire=True) == 1
    assert fleet.regions["held"][0] == 3
    assert fleet.give_back(0, 9) == 1 and fleet.regions["held"][0] == 2
    assert fleet.donate_new(0, 9) == 1
    assert states(fleet) == ["ready", "donated", "provisioning", "off"]
    assert (fleet.regions["held"][0], fleet.regions["bare"][0]) == (3, 1)
    assert fleet.regions["free"][0] == 1


def test_a_lost_vm_takes_up_no_quota() -> None:
    fleet = fleet_of([X, X, ("x", "off")], terms={"quota": 2})
    assert fleet.scale_out(0, 0, acquire=True) == 0
    fleet.evict(0)
    assert fleet.scale_out(0, 0, acquire=True) == 1
    assert states(fleet) == ["failed", "ready", "provisioning"]
    assert until(fleet, 50) == ["off", "ready", "ready"]
    assert fleet.scale_out(0, 0, acquire=True) == 0


def test_a_redeployed_instance_drains_loads_and_serves_the_other_model() -> None:
    places: list[Place] = [X, Y, ("x", "off")]
    fleet = fleet_of(places, [row(0, 6, "x"), row(1, 3, "y"), row(4, 2, "y")], ceiling=table(9, 2))
    until(fleet, 2)
    assert fleet.redeploy(0, 1, 0) == 1
    assert fleet.deployments["draining"][:, 0].tolist() == [1, 0]
    assert fleet.deployments["starting"][:, 0].tolist() == [0, 1]
    assert fleet.scale_out(1, 0, acquire=True) == 0, "it counts for the ceiling of where it goes"
    assert until(fleet, 6)[0] == "loading"
    assert column(fleet, "finish_ps")[0] == 6
    assert until(fleet, 25)[0] == "loading"
    assert until(fleet, 26)[0] == "ready" and roles_held(fleet) == [1, 1, -1]
    found = seconds(fleet)
    assert (found["draining"], found["redeployed"]) == (4, 20)
    assert fleet.totals()["starts"] == 1 and fleet.deployments["redeployed"].tolist() == [[0], [1]]


def test_redeployment_looks_for_the_kinds_that_can_have_the_role() -> None:
    """The idle one is of another kind than y can have."""
    places: list[Place] = [X, ("x", "ready", "", 1), Y]
    fleet = fleet_of(places, [row(0, 9, "x")])
    until(fleet, 1)
    assert column(fleet, "instance") == [0]
    assert fleet.redeploy(0, 1, 0, 2) == 1
    assert states(fleet) == ["draining", "ready", "ready"]


def test_redeployment_keeps_to_floor_and_ceiling_and_region() -> None:
    places: list[Place] = [X, X, X, Y]
    fleet = fleet_of(places, floor=table(1, 0))
    assert fleet.redeploy(0, 1, 0, 9) == 2
    assert fleet.redeploy(1, 1, 0, 9) == 0, "it serves that already"
    fleet = fleet_of(places, ceiling=table(9, 2))
    assert fleet.redeploy(0, 1, 0, 9) == 1
    assert states(fleet) == ["ready", "ready", "loading", "ready"]


def test_an_eviction_without_notice_is_a_failure() -> None:
    fleet = fleet_of([X, ("x", "off")], [row(0, 8)])
    until(fleet, 2.5)
    fleet.evict(0)
    assert states(fleet) == ["failed", "off"]
    assert column(fleet, "failures") == [1]
    assert until(fleet, 52)[0] == "failed"
    assert until(fleet, 52.5)[0] == "off"
    assert fleet.totals()["lost_instances"] == 1
    assert seconds(fleet)["gpu"] == 2.5, "nothing is paid for it"


@pytest.mark.parametrize(("notice", "gone", "failures"), [(3, 5, 1), (30, 8, 0)])
def test_in_its_notice_a_vm_drains(notice: float, gone: float, failures: int) -> None:
    """It is gone when its work is done, or else when the notice is over."""
    plan = {"evictions": (Eviction(0, 2.0, notice),)}
    fleet = fleet_of([X, ("x", "donated")], [row(0, 8)], **plan)
    assert until(fleet, 1)[0] == "ready"
    assert until(fleet, gone - 1)[0] == "draining"
    assert fleet.scale_out(0, 0) == 1 and states(fleet)[0] == "draining", "it can't be kept"
    assert until(fleet, gone)[0] == "failed"
    assert column(fleet, "failures") == [failures]
    assert until(fleet, gone + 50)[0] == "off"
    assert column(fleet, "finish_ps") == [gone - 1 + 5 + 3 if failures else 8]
    assert fleet.totals()["lost_instances"] == 1


def test_an_eviction_of_what_holds_no_work_takes_no_notice() -> None:
    places: list[Place] = [X, ("x", "donated"), ("x", "off"), ("x", "off"), X]
    fleet = fleet_of(places)
    fleet.scale_out(0, 0, acquire=True)
    for i in range(4):
        fleet.evict(i, 30.0)
    assert states(fleet) == ["failed", "failed", "failed", "off", "ready"]
    assert fleet.totals()["lost_instances"] == 3
    fleet.evict(0, 30.0)
    assert until(fleet, 50) == ["off", "off", "off", "off", "ready"]


def test_an_eviction_of_what_drains() -> None:
    """The earlier end counts, and where it was to go no longer does."""
    fleet = fleet_of([X, Y], [row(0, 20, "x")], drain_limit_s=10)
    until(fleet, 1)
    fleet.redeploy(0, 1, 0)
    assert fleet.deployments["starting"][:, 0].tolist() == [0, 1]
    fleet.evict(0, 30.0)
    assert fleet.deployments["starting"][:, 0].tolist() == [0, 0]
    assert fleet.deployments["draining"][:, 0].tolist() == [1, 0]
    until(fleet, 4)
    fleet.evict(0, 2.0)
    fleet.evict(0, 60.0)
    assert until(fleet, 5)[0] == "draining"
    assert until(fleet, 6)[0] == "failed"
    assert fleet.totals()["lost_instances"] == 1
    assert fleet.deployments["draining"][:, 0].tolist() == [0, 0]


def test_a_place_that_takes_no_time_to_be_repaired_is_free_at_once() -> None:
    fleet = fleet_of([X, ("x", "donated")], delays=replace(DELAYS, repair_s=0))
    for i in (0, 1):
        fleet.evict(i)
    assert states(fleet) == ["off", "off"]


def test_donated_vms_cost_and_earn() -> None:
    """Prices an hour and GPU: 4 and 6 dollars; 0.5 and 0.25 donated, which earn 1 and 2."""
    places: list[Place] = [X, ("x", "donated"), ("x", "donated", "", 1), ("x", "ready", "", 1)]
    fleet = fleet_of(places)
    until(fleet, HOUR / 2)
    totals = fleet.totals()
    assert totals["dollars"] == pytest.approx((4 + 2 * 6 + 0.5 + 2 * 0.25) / 2)
    assert totals["spot_income"] == pytest.approx((1 + 2 * 2) / 2)
    assert totals["net_dollars"] == pytest.approx(totals["dollars"] - totals["spot_income"])
    assert (totals["gpu_hours"], totals["donated_hours"]) == pytest.approx((1.5, 1.0))
    assert totals["instance_hours"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("goal", "dollars", "income"), [("donated", 0.5, 1.0), ("off", 0.0, 0.0), ("y", 0.0, 0.0)]
)
def test_what_drains_unpaid_counts_as_donated_if_it_is_to_be(
    goal: str, dollars: float, income: float
) -> None:
    """Four seconds ready, six drained."""
    fleet = fleet_of([X, Y], [row(0, 10, "x")], drain_billed=False, drain_limit_s=99)
    until(fleet, 4)
    if goal == "y":
        fleet.redeploy(0, 1, 0)
    else:
        fleet.scale_in(0, 0, donate=goal == "donated")
    until(fleet, 10)
    totals = fleet.totals()
    assert totals["dollars"] * HOUR == pytest.approx(4 * (4 + 10) + 6 * dollars)
    assert totals["spot_income"] * HOUR == pytest.approx(6 * income)
    assert totals["instance_hours"] * HOUR == pytest.approx(14)
    assert totals["draining_hours"] * HOUR == pytest.approx(6)


def test_samples_and_backlogs_by_the_clock() -> None:
    rows = [row(0, 40, "x"), *[row(1, 2, "x", tier=2)] * 3]
    waits = Waits(low=0.0, middle=0.5, at_middle=1)
    fleet = fleet_of([X, ("x", "donated")], rows, backlog=waits, kv=80, sample_s=5.0, pull_s=4.0)
    until(fleet, 6)
    fleet.scale_out(0, 0)
    until(fleet, 16)
    assert fleet.samples["ready"][:, 0, 0].tolist() == [1, 1, 2]
    assert fleet.samples["starting"][:, 0, 0].tolist() == [0, 1, 0]
    assert fleet.samples["donated"][:, 0, 0].tolist() == [1, 0, 0]
    assert fleet.samples["backlog"][:, 0, 0].tolist() == [2, 0, 0]
    assert fleet.sampled_accounts["count"][:, 0, 0].tolist() == [2, 0, 0]
    assert fleet.samples["kv"][0, 0, 0] == pytest.approx((6 + 1) / 80)
    assert column(fleet, "dispatch_ps")[1:3] == [4, 7], "at a signal of the clock, and a finish"
