"""Where requests go in several regions (SageServe's rules), worked out by hand."""

from __future__ import annotations

import pytest

from envs.simulator.regional import preferences, regional_router
from tests.simulator.seconds import Place, S, column, fleet_of, row, until

NETWORK = [("a", "b", S // 2), ("a", "c", S // 4), ("b", "c", S), ("b", "a", S)]


def three(*ready: str) -> list[Place]:
    """An instance in each of three regions, ready in some."""
    return [("x", "ready" if name in ready else "off", name) for name in "abc"]


def test_a_region_prefers_itself_then_the_nearest_then_the_first_named() -> None:
    times = {(a, b): ps / S for a, b, ps in NETWORK} | {("a", "a"): 9.0}
    orders = preferences(("a", "b", "c"), times)
    assert orders.tolist() == [[0, 2, 1], [1, 0, 2], [2, 0, 1]]
    assert preferences(("a", "b")).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(("ready", "served"), [("abc", 0), ("bc", 2), ("b", 1), ("ab", 0)])
def test_a_request_goes_to_the_first_region_that_has_an_instance(ready: str, served: int) -> None:
    fleet = fleet_of(three(*ready), [row(0, 2, "x", region="a")], network=NETWORK)
    until(fleet, 9)
    assert column(fleet, "instance") == [served]


@pytest.mark.parametrize(
    ("threshold", "reroute", "served"),
    [(0.5, True, 2), (0.51, True, 0), (0.5, False, 0), (0.0, True, 2), (2.0, True, 0)],
)
def test_a_region_is_passed_over_from_the_threshold_on(
    threshold: float, reroute: bool, served: int
) -> None:
    """At 9 s the first one has its prompt and nine tokens, of twenty."""
    rows = [row(0, 19, "x", region="a"), row(9, 2, "x", region="a")]
    routing = {"threshold": threshold, "reroute": reroute}
    fleet = fleet_of(three("a", "b", "c"), rows, network=NETWORK, routing=routing, kv=20)
    until(fleet, 12)
    assert column(fleet, "instance") == [0, served]


def test_where_all_are_full_the_least_used_takes_it() -> None:
    """Shares at 9 s: 10, 9 and 8 of twenty, where the prefills stopped nothing."""
    rows = [row(k, 19 - k, "x", region=name) for k, name in enumerate("abc")]
    rows.append(row(9, 2, "x", region="a"))
    fleet = fleet_of(three("a", "b", "c"), rows, routing={"threshold": 0.1}, kv=20)
    until(fleet, 9.5)
    assert column(fleet, "instance") == [0, 1, 2, 2]


def test_the_use_is_of_the_instances_that_can_have_the_request() -> None:
    """The interactive one is empty, the batch one full: NIW goes away, IW stays."""
    places: list[Place] = [
        ("x", "ready", "a", 0, "interactive"),
        ("x", "ready", "a", 0, "batch"),
        ("x", "ready", "b", 0, "batch"),
    ]
    rows = [row(0, 19, "x", region="a", tier=2), row(15, 2, "x", region="a", tier=2)]
    rows.append(row(15, 2, "x", region="a"))
    fleet = fleet_of(places, rows, kv=20)
    until(fleet, 18)
    assert column(fleet, "instance") == [1, 2, 0]


def test_in_a_region_the_fewest_tokens_to_prefill_decide_each_request_one_more() -> None:
    """Four at one instant: by index, then where fewest wait; ties go to the first."""
    rows = [row(0, 9, "x", region="a") for _ in range(4)]
    fleet = fleet_of([("x", "ready", "a"), ("x", "ready", "a")], rows)
    until(fleet, 1)
    assert column(fleet, "instance") == [0, 1, 0, 1]


def test_it_holds_only_where_nothing_is_ready() -> None:
    rows = [row(1, 2, "x", region="a")]
    fleet = fleet_of(three(), rows, network=NETWORK)
    until(fleet, 5)
    assert column(fleet, "instance") == [-1]
    fleet.scale_out(0, 1, acquire=True)
    until(fleet, 200)
    assert column(fleet, "dispatch_ps") == [5 + 10 + 100]
    assert column(fleet, "instance") == [1]


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="give 1 to 16"):
        regional_router([str(k) for k in range(17)])
    with pytest.raises(ValueError, match="threshold must be"):
        regional_router(["a"], threshold=-0.1)
