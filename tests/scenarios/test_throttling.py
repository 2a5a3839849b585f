"""The throttling presets, and adversaries in scenarios."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from baselines.routing import router
from baselines.scheduling import scheduler
from envs.scenarios import Scenario, ScenarioError, load_scenario, parse_scenario, scenario_names
from envs.scenarios import seeds as seeds_of
from envs.simulator import simulate
from envs.simulator.served import Served, by_cut
from envs.workloads import heaviest, sent_by, unmask

NAMES = [name for name in scenario_names() if name.startswith("throttling-")]
SEED = seeds_of("evaluation", 1)[0]
FLEET = {"groups": {"v100": {"preset": "v100-llama2-7b", "price_per_hour": 1.5}}}
CALLS = {"kind": "copilot", "requests": 200, "users": 20}


def small(adversary: dict[str, Any] | None, **keys: Any) -> Scenario:
    data = {"fleet": FLEET, "workload": CALLS, "adversary": adversary} | keys
    return parse_scenario(data, "small")


@pytest.mark.filterwarnings("ignore::envs.hardware.OutsideFitWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_load_is_as_described(name: str) -> None:
    scenario = load_scenario(name)
    (told,) = re.findall(r"([\d.]+) times the capacity", scenario.description)
    table, fleet = scenario.build(SEED)
    fleet = [replace(engine, queue=scheduler("vtc")) for engine in fleet]
    at_once = table.replace(arrival_s=np.zeros(len(table)))
    summary = simulate(at_once, fleet, router("jsq"), seed=SEED).summary()
    assert summary["rejected"] == 0
    assert summary["makespan_s"] / table.arrival_s[-1] == pytest.approx(float(told), rel=0.06)


def test_what_is_held_out_is_in_no_training_scenario() -> None:
    trained, unseen = set(), set()
    for name in NAMES:
        table = load_scenario(name).requests(SEED)
        if name.startswith("throttling-train-"):
            trained |= set(table.application.values())
        elif name.startswith("throttling-heldout-"):
            unseen |= set(table.application.values())
    assert len(unseen) == 4 and len(trained) >= 15
    assert not trained & unseen


@pytest.mark.parametrize("name", [name for name in NAMES if "adversary-" in name])
def test_attacks_differ_from_their_twin_in_the_attack_alone(name: str) -> None:
    scenario, twin = load_scenario(name), load_scenario("throttling-adversary-none")
    keys = {"name", "description", "adversary"}
    assert scenario.model_dump(exclude=keys) == twin.model_dump(exclude=keys)
    assert scenario.honest_twin().requests(SEED) == twin.requests(SEED)
    assert (scenario.requests(SEED) != twin.requests(SEED)) == (name != twin.name)


ATTACKS: list[dict[str, Any]] = [
    {"kind": "split_identities", "identities": 3},
    {"kind": "idle_then_burst", "period_s": 5.0},
    {"kind": "misdeclare_application", "application": "app-7"},
    {"kind": "inflate_calls", "calls": 6},
    {"kind": "pad_prompts", "factor": 3.0, "max_prompt_tokens": 2000},
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["kind"])
def test_the_attackers_are_those_that_are_asked_for(attack: dict[str, Any]) -> None:
    honest = small(None).requests(1)
    chosen = sorted(set(honest.tenant.values()) - set(heaviest(honest, 2)))[:1]
    for who, names in (
        ({}, heaviest(honest)),
        ({"heaviest": 2}, heaviest(honest, 2)),
        ({"tenants": chosen}, tuple(chosen)),
    ):
        scenario = small(attack | who)
        table = scenario.requests(1)
        assert scenario.adversary is not None
        assert scenario.adversary.attackers(table) == names
        others = table.request_id[~sent_by(table, names)]
        rows = [each.to_frame().set_index("request_id").loc[others] for each in (table, honest)]
        # Predictions are drawn anew.
        sent, meant = (each.drop(columns="predicted_output_tokens").astype(object) for each in rows)
        assert sent.equals(meant)
        assert parse_scenario(scenario.model_dump(exclude_unset=True)) == scenario


def test_predictions_and_models_are_drawn_after_the_attack() -> None:
    keys: dict[str, Any] = {"prediction": {"sigma": 0}, "clients": {"models": {"a": 1, "b": 1}}}
    table = small(ATTACKS[1], **keys).requests(2)
    assert np.array_equal(table.predicted_output_tokens, table.output_tokens)
    assert set(table.model.values()) == {"a", "b"}


def test_many_names_get_more_service() -> None:
    data = {"clients": {"closed_loop": True, "think_s": 2.0}, "workload": CALLS | {"users": 8}}
    data["fleet"] = {"groups": {"a": FLEET["groups"]["v100"] | {"max_num_seqs": 2}}}

    def done(adversary: dict[str, Any] | None) -> float:
        scenario = small(adversary, **data)
        honest = scenario.honest_twin().requests(SEED)
        table, fleet = scenario.build(SEED)
        fleet = [replace(engine, queue=scheduler("vtc")) for engine in fleet]
        result = simulate(table, fleet, router("jsq"), **scenario.options(table, SEED))
        result = replace(result, table=unmask(result.table, honest))
        run, half_s = Served.of(result), float(result.summary()["makespan_s"]) / 2
        assert by_cut(run)["interactions"] == len(np.unique(honest.interaction))
        return float((run.done(half_s) & sent_by(result.table, heaviest(honest))).sum())

    assert done({"kind": "split_identities", "identities": 20}) > 1.2 * done(None)


@pytest.mark.parametrize(
    ("adversary", "message"),
    [
        ({"kind": "split_identitys"}, "adversary.kind: .*did you mean split_identities"),
        ({"identities": 3}, "adversary: the key kind is required"),
        ({"kind": "pad_prompts", "facter": 2}, "adversary: unknown key 'facter'; did you mean"),
        ({"kind": "inflate_calls", "calls": 2}, "adversary.calls: .*greater than or equal to 3"),
        (
            {"kind": "pad_prompts", "tenants": ["a"], "heaviest": 2},
            "adversary: give tenants or heaviest, not both",
        ),
        ({"kind": "pad_prompts", "tenants": []}, "adversary.tenants: must have at least one"),
        ({"kind": "pad_prompts", "tenants": ["me"]}, "adversary: no request is of tenant 'me'"),
        ({"kind": "pad_prompts", "heaviest": 99}, "adversary: count is 99, but there are"),
        ({"kind": "misdeclare_application", "application": "x"}, "adversary: no request is of"),
    ],
)
def test_what_is_refused(adversary: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        small(adversary).requests(0)
