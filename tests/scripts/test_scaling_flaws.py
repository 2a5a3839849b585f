"""The flaws of the released SageServe: what each changes, and that all of them are the presets."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baselines.scaling.formulation import AS_PUBLISHED as PUBLISHED_FORM
from baselines.scaling.formulation import AS_RELEASED as RELEASED_FORM
from baselines.scaling.formulation import CORRECTED
from baselines.scaling.strategies.catalogue import strategies, strategy
from baselines.scaling.strategies.forecast import SeasonalForecast
from envs.hardware.sageserve import KV_TOKENS
from envs.scenarios import Scenario, load_scenario
from envs.workloads import RequestTable
from scripts.experiments.scaling_audit import STEPS, audit_case, scalers, variants
from scripts.experiments.scaling_flaws import (
    AS_PUBLISHED,
    AS_RELEASED,
    CHUNK_S,
    FIXED,
    NOT_EXPRESSED,
    Flaws,
    OnArrivals,
)

TUESDAY = load_scenario("scaling-corrected")
PLANNED = ("lt_i", "lt_u", "lt_ua")


def _terms(scenario: Scenario) -> dict[str, Any]:
    assert scenario.scaling is not None
    found = scenario.scaling.model_dump()
    for region in found["regions"].values():
        region.pop("price")
    return found


def _engines(scenario: Scenario) -> list[Any]:
    return [replace(engine, queue="fcfs") for engine in scenario.fleet.engines()]


def test_every_flaw_is_explained() -> None:
    for one in fields(Flaws):
        assert one.metadata["about"] and one.metadata["section"] and one.default is False
    assert NOT_EXPRESSED
    assert FIXED.names == ()
    assert AS_RELEASED.names == tuple(one.name for one in fields(Flaws))
    assert set(AS_PUBLISHED.names) < set(AS_RELEASED.names)


def test_all_of_them_are_the_released_preset() -> None:
    released, found = (
        load_scenario("scaling-released-tuesday"),
        AS_RELEASED.scenario(TUESDAY, "reactive"),
    )
    assert _engines(found) == _engines(released)
    assert _terms(found) == _terms(released)
    planned = AS_RELEASED.scenario(TUESDAY, "lt_u").scaling
    assert planned is not None and planned.start == 8 and not planned.routing.reroute


def test_the_published_ones_are_the_published_preset() -> None:
    published, found = (
        load_scenario("scaling-published-tuesday"),
        AS_PUBLISHED.scenario(TUESDAY, "lt_u"),
    )
    assert _engines(found) == _engines(published)
    assert _terms(found) == _terms(published)


def test_none_of_them_is_the_corrected_preset() -> None:
    assert FIXED.scenario(TUESDAY, "reactive") == TUESDAY
    found, tuesday = TUESDAY.scaling, load_scenario("scaling-tuesday").scaling
    assert found is not None and tuesday is not None
    assert {one.quota for one in found.regions.values()} == {320}
    assert found.model_copy(update={"regions": tuesday.regions}) == tuesday


@pytest.mark.parametrize("name", ["reactive", *PLANNED])
def test_parameters_are_those_of_the_strategy_as_released(name: str) -> None:
    kind = strategies()[name]
    forecast = SeasonalForecast() if kind.plans else None
    wanted = strategy(name, forecast, released=True)
    found = strategy(name, forecast, **AS_RELEASED.parameters(name))
    for key in kind.as_released:
        if key != "form":
            assert getattr(found, key) == getattr(wanted, key), key


def test_programs_are_those_of_the_three_forms() -> None:
    for flaws, form in (
        (AS_RELEASED, RELEASED_FORM),
        (AS_PUBLISHED, PUBLISHED_FORM),
        (FIXED, CORRECTED),
    ):
        assert replace(flaws.parameters("lt_i")["form"], name=form.name) == form
    assert FIXED.parameters("lt_ua") == {"form": CORRECTED}
    assert FIXED.parameters("mpc") == {}


def test_heads_and_units_are_switched_apart() -> None:
    tokens = {
        key: KV_TOKENS[form]["Llama-2-70B"]
        for key, form in (("old", "released"), ("new", "corrected"))
    }  # type: ignore[index]
    for names, preset, kv in (
        (("plain_steps", "wrong_units", "ungrouped_heads"), "released", "old"),
        (("plain_steps", "ungrouped_heads"), "units", "old"),
        (("plain_steps",), "units", "new"),
        (("ungrouped_heads",), "corrected", "old"),
    ):
        engine = Flaws.of(*names).scenario(TUESDAY, "reactive").fleet.engines()[0]
        assert engine.cost.name == f"sageserve-{preset}-Llama-2-70B"
        assert engine.kv_capacity_tokens == tokens[kv]


def test_niw_comes_with_its_chunk() -> None:
    table = RequestTable.from_columns(
        arrival_s=[10.0, 300.0, 301.0, 511.0],
        prompt_tokens=[1, 2, 3, 4],
        output_tokens=[1, 1, 1, 1],
        tier=["NIW", "IW-F", "NIW", "NIW"],
    )
    found = Flaws(early_niw=True).table(table)
    assert found.arrival_s.tolist() == [0.0, CHUNK_S, CHUNK_S, 300.0]
    assert found.prompt_tokens.tolist() == [1, 3, 4, 2]
    assert [found.tier.names[code] for code in found.tier.codes] == ["NIW", "NIW", "NIW", "IW-F"]
    assert FIXED.table(table) is table


def test_niw_is_not_served_where_pools_are_apart() -> None:
    flaws = Flaws(niw_unserved=True)
    apart, one = (flaws.scenario(TUESDAY, name).scaling for name in ("siloed", "reactive"))
    assert apart is not None and one is not None and TUESDAY.scaling is not None
    assert apart.niw.at_low == apart.niw.at_middle == 0 and one.niw == TUESDAY.scaling.niw


def test_each_pool_keeps_the_floor_of_one() -> None:
    for flaws, least in ((Flaws(floor_of_each_pool=True), {2}), (FIXED, {1})):
        terms = flaws.divided(TUESDAY, "siloed").scaling
        assert terms is not None and isinstance(terms.floor, dict) and len(terms.floor) == 8
        assert set(terms.floor.values()) == least
    assert Flaws(floor_of_each_pool=True).divided(TUESDAY, "reactive") is TUESDAY


def test_what_gets_no_request_is_not_looked_at() -> None:
    seen: list[np.ndarray] = []

    def decide(view: Any) -> None:
        seen.append(view.kv)

    setting = SimpleNamespace(models=("m", "n"), shape=(2, 1), role_model=np.array([0, 1]))
    inner = SimpleNamespace(
        tick_s=15.0, oracle=False, low=0.3, high=0.7, setting=setting,
        begin=lambda _: None, decide=decide,
    )  # fmt: skip
    watched = OnArrivals(inner)
    watched.begin(setting)  # type: ignore[arg-type]
    from tests.scripts.scaling_views import view

    watched.decide(view(kv=[[0.9], [0.1]], arrived=[[1], [0]]))
    assert seen[0].tolist() == [[0.9], [0.5]]


def test_where_gpus_are_counted_they_bound_the_start() -> None:
    counted = AS_RELEASED.without("uncounted_gpus").scenario(TUESDAY, "reactive").scaling
    assert counted is not None and counted.start == 10


def test_unknown_flaws_are_refused() -> None:
    with pytest.raises(ValueError, match="no flaw 'slow'; there are: unequal_starts"):
        AS_RELEASED.without("slow")


def test_variants_turn_off_what_they_say() -> None:
    found = {one.name: one for one in variants()}
    assert found["as released"].flaws == AS_RELEASED and found["corrected"].flaws == FIXED
    assert found["without second_away"].flaws == AS_RELEASED.without("second_away")
    last = found[list(STEPS)[-1]].flaws
    assert not set(last.names) & {name for names in STEPS.values() for name in names}
    labels = [one.label for one in scalers()]
    assert len(set(labels)) == len(labels)


def test_a_smaller_audit_has_a_smaller_fleet() -> None:
    small = audit_case(0.25, days=0.5, burst=True).scenario
    assert small.scaling is not None and small.scaling.start == 2 and small.scaling.floor == 1
    assert {group.count for group in small.fleet.groups.values()} == {5}
    assert {one.quota for one in small.scaling.regions.values()} == {80}
    assert small.workload.duration_s == 43_200 and small.workload.burst_copies == 8  # type: ignore[union-attr]
