"""Whatever a scenario's file holds: a scenario that works, or a ScenarioError that names it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs.scenarios import (
    Fleet,
    Scenario,
    ScenarioError,
    load_fleet,
    load_scenario,
    parse_scenario,
)
from envs.workloads import TraceError
from tests.fuzzing import Effort, damaged, efforts, nested, scalars

SCENARIO = """\
description: all keys
source: nowhere
extends: parent.yaml
fleet:
  groups:
    a:
      count: 2
      preset: v100-llama2-7b
      kv_capacity_tokens: 6000
      max_num_seqs: 64
      max_batched_tokens: 512
      batching: chunked
      queue: sjf
      watermark: 0.02
      admission: reserve
      adapter_tokens: 8
      kv_block_tokens: 16
      decode_steps: 5
      prefix_cache: true
      intake_per_iteration: 2
      serves: small
      price_per_hour: 1.5
    b: {model: Llama-2-7B, gpu: A100-SXM4-80GB, tensor_parallel: 2, precision: fp8}
workload: {kind: router_mix, requests: 20, rate: 5.0, arrivals: gamma, cv: 2.0}
prediction: {sigma: 0.3, overrun_tokens: 10, overrun_percent: 5}
router: {queue_order: sjf, decision_interval_s: 0.02, window: 4, poll_interval_s: 0.5}
clients: {closed_loop: true, think_s: 1.0, weights: {default: 2.0}, models: {small: 1, large: 3}}
rate_limit: {requests_per_minute: 60, kill_interactions: true}
failures: {outages: [{instance: 0, start_s: 1, end_s: 2.5}]}
adversary: {kind: split_identities, identities: 3, heaviest: 1}
slo: {ttft_s: 1.0, tbt_s: 0.1, e2e_s: 20}
"""
PARENT = "{fleet: v100-llama2-7b-x4, workload: {kind: azure_code, requests: 9, rate: 2.0}}\n"
POINTS = "fleet: v100-llama2-7b-x4\nworkload: {kind: router_classes, requests: 9, rate: 2.0}\n" + (
    "points: {a: {prediction: {sigma: 0.1}}, 8: {workload: {rate: 3.0}}}\n"
)
FLEET = yaml.safe_dump({"groups": yaml.safe_load(SCENARIO)["fleet"]["groups"]})
KEYS = st.sampled_from(
    "name description fleet groups a count preset model gpu engine workload kind requests rate "
    "clients models weights rate_limit failures outages instance serves queue "
    "arrivals cv path format columns limit prediction sigma router window slo ttft_s extends "
    "points adversary identities tenants heaviest".split()
)
NAMES = st.sampled_from(
    "router_mix azure_code trace gamma mmpp uniform at_once chunked sjf fp8 Llama-2-70B H100 "
    "parent.yaml points.yaml#a points.yaml#8 fuzzed.yaml v100-llama2-7b-x4 router-kv6k-rate8 "
    "a100-llama2-70b-tp8 inflate_calls pad_prompts".split()
)
VALUES = NAMES | nested(KEYS | NAMES | scalars.filter(lambda key: key == key))
TOKENS = [
    token.encode()
    for token in (
        "!!python/object/apply:os.system ['touch owned'] !!python/name:os.system !!int !!int '' "
        "!!float !!bool maybe !!timestamp x !!binary é !!set {a} !!omap [a] !!pairs [a] !!null "
        "!!str !!map !!seq !x &a *a *b <<: <<:*a --- ... ? | > % @ ` { } [ ] , : - # ~ ' \" .inf "
        ".nan 0x_ 0b_ 0o9 1:30 1:99:x 2024-99-99 9999-12-31T23:59:59-23:59 = \t \x00 \ufeff "
        "\x85 \U0001f600"
    ).split(" ")
] + [b"\n", b"\r\n", b"\n  ", b"\xff", b"\xed\xa0\x80", b'"\\ud800"', b'"\\UFFFFFFFF"']


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"parent": PARENT, "points": POINTS}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


class _Plain(yaml.SafeDumper):
    """Writes what a person would: no anchors for repeated parts."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def dumped(data: object) -> str:
    return yaml.dump(data, Dumper=_Plain, sort_keys=False, allow_unicode=True)


def limited(found: Scenario) -> Scenario:
    """The scenario with counts at which it is built in an instant."""
    plain = yaml.safe_load(found.to_yaml())
    if plain["workload"]["kind"] != "trace":
        plain["workload"]["requests"] = min(plain["workload"]["requests"], 20)
    for group in plain["fleet"]["groups"].values():
        group["count"] = min(group.get("count", 1), 2)
    return parse_scenario(plain)


def check_scenario(found: Scenario) -> None:
    again = parse_scenario(yaml.safe_load(found.to_yaml()))
    assert again == found
    try:
        few = limited(found)
        table, engines = few.build(0)
        assert "outages" in few.options(table, 0)
    except (ScenarioError, TraceError) as error:
        assert str(error)
        return
    assert 1 <= len(table) <= 20 and engines
    assert (table.predicted_output_tokens >= 1).all()


def check_file(path: Path, point: str = "") -> None:
    try:
        found = load_scenario(f"{path}{point}")
    except ScenarioError as error:
        assert path.name in str(error)
        return
    check_scenario(found)


def check_fleet(path: Path) -> None:
    try:
        found = load_fleet(path)
    except ScenarioError as error:
        assert path.name in str(error)
        return
    assert isinstance(found, Fleet)
    groups = {n: {**g.model_dump(exclude_unset=True), "count": 1} for n, g in found.groups.items()}
    try:
        assert len(Fleet(groups=groups).engines()) == len(groups)
    except ScenarioError as error:
        assert "groups" in str(error)


def places(data: object, place: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Paths of all values."""
    inside = data.items() if isinstance(data, dict) else ()
    return [place] * bool(place) + [p for k, v in inside for p in places(v, (*place, k))]


@st.composite
def changed(draw: st.DrawFn, text: str) -> dict[str, object]:
    """The data of a valid file with one or two keys lost, renamed, added or of another value."""
    data = copy.deepcopy(yaml.safe_load(text))
    for _ in range(draw(st.integers(1, 2))):
        if not (found := places(data)):
            break
        *path, key = draw(st.sampled_from(found))
        owner = data
        for part in path:
            owner = owner[part]
        match draw(st.sampled_from(["lose", "rename", "add", "value", "value", "value"])):
            case "lose":
                del owner[key]
            case "rename":
                owner[draw(KEYS | scalars.filter(lambda k: k == k))] = owner.pop(key)
            case "add":
                owner[draw(KEYS)] = draw(VALUES)
            case _:
                owner[key] = draw(VALUES)
    return data


@efforts
def test_arbitrary_data(effort: Effort) -> None:
    @effort(60)
    @given(VALUES)
    def check(data: object) -> None:
        try:
            found = parse_scenario(data, "mine")
        except ScenarioError as error:
            assert str(error).startswith("mine")
            return
        check_scenario(found)

    check()


@efforts
@pytest.mark.parametrize("text", [SCENARIO, PARENT, POINTS], ids=["all", "parent", "points"])
def test_changed_scenarios(effort: Effort, text: str, folder: Path) -> None:
    path = folder / "fuzzed.yaml"

    @effort(60)
    @given(changed(text), st.sampled_from(["", "", "#a", "#8", "#", "#none"]))
    def check(data: object, point: str) -> None:
        path.write_text(dumped(data), encoding="utf-8")
        check_file(path, point)

    check()


@efforts
def test_changed_fleets(effort: Effort, folder: Path) -> None:
    path = folder / "fuzzed.yaml"

    @effort(40)
    @given(changed(FLEET))
    def check(data: object) -> None:
        path.write_text(dumped(data), encoding="utf-8")
        check_fleet(path)

    check()


@efforts
def test_damaged_files(effort: Effort, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "fuzzed.yaml"
    monkeypatch.chdir(folder)

    @effort(60)
    @given(
        st.sampled_from([SCENARIO, PARENT, POINTS]).flatmap(
            lambda text: damaged(text.encode(), TOKENS)
        )
    )
    def check(data: bytes) -> None:
        path.write_bytes(data)
        check_file(path)
        check_fleet(path)

    check()
    assert not (folder / "owned").exists()


@efforts
def test_arbitrary_bytes(effort: Effort, folder: Path) -> None:
    path = folder / "fuzzed.yaml"
    tokens = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=3), max_size=12)

    @effort(60)
    @given(st.binary(max_size=60) | tokens.map(b" ".join))
    def check(data: bytes) -> None:
        path.write_bytes(data)
        check_file(path)

    check()
