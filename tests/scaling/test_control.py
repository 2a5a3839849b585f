"""What a controller sees, what its orders come to, and that it sees no future."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from envs.scaling.control import FleetView, Orders, Setting, carry_out, control
from envs.scaling.demand import Demand, demand_of
from envs.simulator.lifecycle import LifecycleFleet
from tests.simulator.elastic import Waits
from tests.simulator.seconds import Place, fleet_of, row, states, until

X, Y = ("x", "ready"), ("y", "ready")


def demand(fleet: LifecycleFleet, bin_s: float = 10.0, length: float = 100.0) -> Demand:
    models, regions = fleet.simulation.models, fleet.simulation.regions
    return demand_of(fleet.simulation.table, models, regions, length, bin_s)


def test_the_view_is_of_the_moment() -> None:
    places: list[Place] = [X, ("x", "donated"), ("y", "ready"), ("y", "off"), ("y", "off")]
    rows = [row(0, 9, "x"), row(0, 9, "x"), row(1, 2, "y", tier=1), row(1, 2, "x", tier=2)]
    waits = Waits(low=0.0, middle=0.0)
    fleet = fleet_of(places, rows, max_num_seqs=1, backlog=waits, terms={"quota": 4})
    until(fleet, 4)
    fleet.scale_out(1, 0, acquire=True)
    fleet.donate_new(0)
    fleet.scale_in(0, 0)
    seen = FleetView.of(fleet, demand(fleet, 2.0))
    assert seen.now_s == 4
    expected: dict[str, Any] = {
        "ready": [[0], [1]],
        "starting": [[0], [1]],
        "draining": [[1], [0]],
        "donated": [[1], [0]],
        "bare": [0],
        "free": [1],
        "held": [4],
        "quota": [4],
        "count": [[0], [2]],
        "changed_s": [[4], [4]],
        "waiting": [[1], [0]],
        "running": [[1], [0]],
        "kv": [[1.0], [0.0]],
        "backlog": [[1], [0]],
        "arrived": [[3], [1]],
        "finished": [[[0, 0, 0]], [[0, 1, 0]]],
    }
    for name, value in expected.items():
        assert getattr(seen, name).tolist() == value, name
    assert seen.demand.bins == 2
    seen.ready[:] = 9
    assert fleet.deployments["ready"].tolist() == [[0], [1]], "it is a copy"


def test_before_anything_was_scaled_that_is_long_ago() -> None:
    fleet = fleet_of([X])
    assert FleetView.of(fleet, demand(fleet)).changed_s.tolist() == [[-np.inf]]


def test_orders_are_carried_out_in_their_order_as_far_as_limits_go() -> None:
    """The stop makes room under the quota for nothing; what is given back does, at the end."""
    places: list[Place] = [X, X, Y, ("y", "off"), ("x", "donated")]
    fleet = fleet_of(places, terms={"quota": 4})
    orders = Orders.none(fleet.shape)
    orders.donate[0, 0], orders.reclaim[1, 0], orders.acquire[1, 0] = 1, 2, 1
    orders.redeploy.append((0, 1, 0, 5))
    orders.give_back[0] = 3
    assert carry_out(fleet, orders) == 1 + 1 + 2
    assert states(fleet) == ["loading", "loading", "ready", "off", "loading"]
    assert [int(p["source"]) for p in fleet.places[[0, 1, 4]]] == [3, 2, 2]
    again = Orders.none(fleet.shape)
    again.release[1, 0], again.acquire[1, 0] = 2, 3
    assert carry_out(fleet, again) == 2 + 2


def test_changes_reclaim_and_donate() -> None:
    orders = Orders.changing(np.array([[2, -1], [0, 3]]))
    assert orders.reclaim.tolist() == [[2, 0], [0, 3]]
    assert orders.donate.tolist() == [[0, 1], [0, 0]]
    assert not (orders.acquire.any() or orders.release.any() or orders.redeploy)


@dataclass
class Scripted:
    """Gives orders at moments, and writes down what it sees."""

    tick_s: float = 4.0
    oracle: bool = False
    orders: dict[float, Orders] = field(default_factory=dict)
    seen: list[FleetView] = field(default_factory=list)
    setting: Setting | None = None

    def begin(self, setting: Setting) -> None:
        self.setting, self.seen = setting, []

    def decide(self, view: FleetView) -> Orders | None:
        self.seen.append(view)
        return self.orders.get(view.now_s)


def setting(fleet: LifecycleFleet, history: Demand, length: float, **more: Any) -> Setting:
    size = len(fleet.plan.roles)
    return Setting(
        plan=fleet.plan,
        models=fleet.simulation.models,
        role_model=np.arange(size),
        throughput=np.full(size, 100.0),
        gpus=np.ones(size, np.int64),
        tier_limits_s=(1.0, 60.0, 100.0),
        history=history,
        duration_s=length,
        **more,
    )


def test_an_episode_runs_on_the_clock_of_its_controller() -> None:
    places: list[Place] = [X, ("x", "donated")]
    fleet = fleet_of(places, [row(3, 2, "x")])
    orders = Orders.changing(np.array([[1]]))
    scripted, passed = Scripted(orders={4.0: orders}), list[float]()
    control(fleet, scripted, setting(fleet, demand(fleet), 14.0), demand(fleet), passed.append)
    assert [view.now_s for view in scripted.seen] == [0, 4, 8, 12]
    assert passed == [4, 4, 4, 2] and fleet.now_s == 14
    assert [view.ready[0, 0] for view in scripted.seen] == [1, 1, 1, 2]
    assert scripted.setting is not None and scripted.setting.shape == (1, 1)
    assert scripted.setting.price.tolist() == [4.0]


def test_an_episode_ends_where_nothing_is_left() -> None:
    fleet = fleet_of([X], [row(3, 2, "x")], late=False)
    scripted = Scripted()
    control(fleet, scripted, setting(fleet, demand(fleet), 100.0), demand(fleet))
    assert [view.now_s for view in scripted.seen] == [0, 4] and fleet.now_s == 5


def test_a_controller_knows_the_ratios_of_the_past_alone() -> None:
    """Answers that are long in the episode were short before."""
    past = replace(demand(fleet_of([X])), ratio=np.array([1.25]), batch_ratio=np.array([1.5]))
    fleet = fleet_of([X], [row(1, 90, "x")])
    own = demand(fleet)
    assert own.ratio[0] > 40
    scripted = Scripted()
    control(fleet, scripted, setting(fleet, past, 24.0), own)
    for view in scripted.seen:
        assert view.demand.ratio.tolist() == [1.25] and view.demand.batch_ratio.tolist() == [1.5]
        assert view.demand.bins == int(view.now_s // 10)


def test_only_an_oracle_is_given_the_future() -> None:
    fleet = fleet_of([X])
    future = demand(fleet)
    with pytest.raises(ValueError, match="only an oracle"):
        control(fleet, Scripted(), setting(fleet, future, 9.0, future=future), future)
    control(fleet, Scripted(oracle=True), setting(fleet, future, 9.0, future=future), future)
