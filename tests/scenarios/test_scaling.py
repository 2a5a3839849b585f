"""The key `scaling` of a scenario: what it says, what it refuses, and a mend for it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs.scenarios import Scenario, ScenarioError, load_scenario, parse_scenario, scenario_names
from envs.simulator.lifecycle import LifecyclePlan, Role
from tests.fuzzing import Effort, efforts, nested, scalars

SCENARIO = """\
fleet:
  groups:
    x: {count: 3, preset: v100-llama2-7b, kv_capacity_tokens: 6000, serves: x, price_per_hour: 2.5}
    y: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 6000, serves: y, lane: interactive}
    wide: {model: Llama-2-70B, gpu: A100-SXM-80GB, tensor_parallel: 8, serves: x}
workload: {kind: o365, requests: 20, models: [x, y, z, w], regions: [a, b, c]}
scaling:
  regions:
    a: {quota: 9, price: 3.0, spot_price: 1.0, donated_price: 0.5}
    b: {}
    c: {spot_price: 2.0}
  network_s: {a: {b: 0.05, a: 0.001}, c: {b: 0.02}}
  start: {x: 2, y/interactive: 1}
  spare: donated
  floor: {x: 1}
  ceiling: {x: 3}
  delays: {provision_s: 1, load_local_s: 2, load_remote_s: 3, reclaim_s: 4, repair_s: 5, sigma: 0}
  drain_limit_s: 30
  drain_billed: false
  niw: {wait: true, low: 0.4, middle: 0.5, at_low: 3, at_middle: 2, promote_s: 100}
  tiers: {iw_f_ttft_s: 2, iw_n_ttft_s: 30, niw_e2e_s: 1000}
  routing: {threshold: 0.5, reroute: false}
  evictions: {mean_time_between_s: 1000, notice_s: 5}
  sample_s: 10
"""
KEYS = st.sampled_from(
    "regions a b quota price spot_price donated_price network_s start spare floor ceiling delays "
    "provision_s load_local_s load_remote_s reclaim_s repair_s sigma drain_limit_s drain_billed "
    "niw wait low middle at_low at_middle promote_s tiers iw_f_ttft_s niw_e2e_s routing threshold "
    "reroute evictions mean_time_between_s notice_s sample_s x y/interactive".split()
)
VALUES = nested(KEYS | scalars.filter(lambda key: key == key)) | st.sampled_from(
    ["donated", "off", "x", "y/interactive", 100_000]
)


def scenario(**changes: Any) -> Scenario:
    """The scenario with some keys of `scaling` changed."""
    data = yaml.safe_load(SCENARIO)
    data["scaling"] |= changes
    return parse_scenario(data)


def plan_of(found: Scenario, seed: int = 0, duration_s: float = 5000.0) -> LifecyclePlan:
    assert found.scaling is not None
    return found.scaling.plan(found.fleet, seed, duration_s)


def places(data: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    inside = data.items() if isinstance(data, dict) else ()
    return [place] * bool(place) + [p for k, v in inside for p in places(v, (*place, k))]


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """The data of the scenario with one or two keys of `scaling` lost, renamed or of any value."""
    data = copy.deepcopy(yaml.safe_load(SCENARIO))
    for _ in range(draw(st.integers(1, 2))):
        if not (found := places(data["scaling"])):
            break
        *path, key = draw(st.sampled_from(found))
        owner = data["scaling"]
        for part in path:
            owner = owner[part]
        match draw(st.sampled_from(["lose", "rename", "add", "value", "value", "value"])):
            case "lose":
                del owner[key]
            case "rename":
                owner[draw(KEYS)] = owner.pop(key)
            case "add":
                owner[draw(KEYS)] = draw(VALUES)
            case _:
                owner[key] = draw(VALUES)
    return data


@efforts
def test_whatever_it_holds_it_is_a_plan_or_an_error_in_words(effort: Effort) -> None:
    @effort(150)
    @given(changed())
    def check(data: dict[str, Any]) -> None:
        try:
            found = parse_scenario(data, "mine")
        except ScenarioError as error:
            assert str(error).startswith("mine") and "scaling" in str(error)
            return
        assert parse_scenario(yaml.safe_load(found.to_yaml())) == found
        assert found.scaling is not None
        found.scaling.router()
        found.scaling.backlog()
        try:
            plan = plan_of(found, duration_s=100.0)
        except ValueError as error:
            assert str(error)
            return
        assert len(plan.role) == 6 * len(found.scaling.regions)
        assert (plan.floor <= plan.ceiling).all()

    check()


def test_every_key_is_carried_out() -> None:
    found = scenario()
    plan, scaling = plan_of(found), found.scaling
    assert scaling is not None
    assert plan.roles == (Role("x"), Role("y", "interactive"))
    assert plan.role.tolist() == [0, 0, 0, 1, 1, 0] * 3
    assert plan.kind.tolist() == [0, 0, 0, 0, 0, 1] * 3
    assert plan.ready.tolist() == [True, True, False, True, False, False] * 3
    assert plan.floor.tolist() == [[1] * 3, [0] * 3]
    assert plan.ceiling.tolist() == [[3] * 3, [6] * 3], "one that is not named has its places"
    assert (plan.drain_limit_s, plan.drain_billed, plan.sample_s) == (30, False, 10)
    assert plan.delays.medians_s == (1, 2, 3, 4, 5) and plan.delays.sigma == 0
    a, b, c = plan.regions
    assert (a.quota, b.quota) == (9, 13), "without one, all that there are places for"
    assert (a.price, a.spot_price, a.donated_price) == ((3.0, 3.0), (1.0, 1.0), (0.5, 0.5))
    assert b.price[0] == 2.5 and c.donated_price == c.spot_price == (2.0, 2.0)
    assert scaling.network() == {
        **{("a", "b"): 0.05, ("b", "a"): 0.05, ("a", "a"): 0.001},
        **{("c", "b"): 0.02, ("b", "c"): 0.02},
    }
    assert scaling.tiers.limits_s() == (2, 30, 1000)
    parameters = dict(
        zip(scaling.router().parameter_names, scaling.router().parameters, strict=True)
    )
    assert (parameters["threshold"], parameters["reroute"], parameters["regions"]) == (0.5, 0, 3)
    waits = scaling.backlog()
    assert waits is not None and (waits.at_low, waits.promote_s) == (3, 100)
    assert scenario(niw={"wait": False}).scaling.backlog() is None  # type: ignore[union-attr]


def test_spare_places_are_donated_within_the_quota_or_off() -> None:
    """Three GPUs serve in region a, six more may be held: the last place would take eight."""
    plan = plan_of(scenario())
    assert plan.donated[:6].tolist() == [False, False, True, False, True, False]
    assert plan.donated[6:12].tolist() == [False, False, True, False, True, True]
    assert not plan_of(scenario(spare="off")).donated.any()
    tight = {name: {"quota": 4} for name in "abc"}
    assert (
        plan_of(scenario(regions=tight)).donated.tolist()
        == ([False] * 2 + [True] + [False] * 3) * 3
    )


def test_a_number_is_for_every_model() -> None:
    plan = plan_of(scenario(start=1, floor=2, ceiling=1))
    assert plan.ready.tolist() == [True, False, False, True, False, False] * 3
    assert plan.ceiling.tolist() == [[1] * 3] * 2
    assert plan.floor.tolist() == [[1] * 3] * 2, "a floor is at most the ceiling"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": {}}, "scaling.regions"),
        ({"regions": {str(k): {} for k in range(17)}}, "scaling.regions"),
        ({"network_s": {"a": {"q": 1.0}}}, "names the region 'q'; there are a, b, c"),
        ({"niw": {"low": 0.7, "middle": 0.6}}, r"niw: low \(0.7\) must be at most middle"),
        ({"spare": "gone"}, "scaling.spare"),
        ({"starts": 1}, "did you mean start"),
        ({"start": -1}, "scaling.start"),
        ({"delays": {"provision_s": -1}}, "scaling.delays.provision_s"),
        ({"evictions": {"mean_time_between_s": 0}}, "mean_time_between_s"),
        ({"sample_s": 0}, "scaling.sample_s"),
        ({"routing": {"threshold": 3}}, "scaling.routing.threshold"),
    ],
)
def test_errors_of_the_file_name_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": {"x": 5}}, "start of 'x' is 5, and a region has 4 places: raise the count"),
        ({"start": {"y": 1}}, "start names 'y'; there are x, y/interactive"),
        ({"floor": {"z": 1}}, "floor names 'z'; there are x, y/interactive"),
        ({"ceiling": {"x/any": 1}}, "ceiling names 'x/any'"),
        ({"evictions": {"mean_time_between_s": 1e-4}}, "raise mean_time_between_s"),
    ],
)
def test_errors_of_the_plan_name_the_mend(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(scenario(**changes))


def test_old_niw_needs_an_instance_that_takes_it_as_interactive() -> None:
    data = yaml.safe_load(SCENARIO)
    data["fleet"]["groups"]["y"]["lane"] = "batch"
    data["scaling"]["start"] = 1
    with pytest.raises(ValueError, match="only batch instances serve y: give it a group"):
        plan_of(parse_scenario(data))
    data["scaling"]["niw"]["wait"] = False
    assert Role("y", "batch") in plan_of(parse_scenario(data)).roles


def test_evictions_are_drawn_from_the_seed_place_by_place() -> None:
    found = scenario()
    first = plan_of(found, 3).evictions
    assert first and first == plan_of(found, 3).evictions != plan_of(found, 4).evictions
    assert all(0 < e.time_s < 5000 and e.notice_s == 5 for e in first)
    longer = plan_of(found, 3, 9000.0).evictions
    assert [e for e in longer if e.time_s < 5000] == list(first), "a longer run only adds some"
    assert plan_of(scenario(evictions=None)).evictions == ()
    many = plan_of(found, 5, 400_000.0).evictions
    gaps = np.concatenate([np.diff([e.time_s for e in many if e.place == i]) for i in range(18)])
    assert gaps.mean() == pytest.approx(1000, rel=0.05)


def test_presets_are_plans() -> None:
    """Their fleets hold no more than their quotas at the beginning."""
    names = [name for name in scenario_names() if name.startswith("scaling-")]
    assert len(names) >= 4
    for name in names:
        plan = plan_of(load_scenario(name))
        assert plan.ready.any() and (plan.floor <= plan.ceiling).all()
