"""Files made to confuse: told as a fault of the file, at once, and never executed."""

from __future__ import annotations

import pytest

from envs.scenarios import ScenarioError, load_scenario, parse_scenario
from envs.scenarios.yaml_file import read_yaml

FLEET = "fleet: v100-llama2-7b-x4\n"
WORKLOAD = "workload: {kind: router_mix, requests: 9, rate: 1.0}\n"
DOUBLED = "".join(f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}}}\n" for i in range(1, 60))
MERGED = "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))

FAULTS = {
    "aliases that double": ("a0: &a0 {x: 1}\n" + DOUBLED, "more than 100000 values"),
    "merge keys that double": ("a0: &a0 {x: 1}\n" + MERGED, "more than 100000 values"),
    "value inside itself": ("fleet: &f {groups: *f}", "line 1: .*contains itself"),
    "list inside itself": ("extends: &e [*e]", "line 1: .*contains itself"),
    "python object": ("name: !!python/object/apply:os.system ['true']", "line 1: .*python/object"),
    "tag without a number": ("name: !!int ''", "line 1: .*'' cannot be read as int"),
    "tag without a truth": ("a: 1\nname: !!bool maybe", "line 2: .*'maybe' cannot be read as bool"),
    "tag without a time": ("name: !!timestamp x", "line 1: .*'x' cannot be read as timestamp"),
    "date without a month": ("name: 2024-99-99", "line 1: .*cannot be read as timestamp"),
    "number too long to write": ("name: 0x" + "f" * 9999, "line 1: .*cannot be read as int"),
    "escape that is no character": ('name: "\\UFFFFFFFF"', "not valid YAML"),
    "character that YAML forbids": ("name: \0", "not valid YAML"),
    "name longer than files have": ("extends: " + "x" * 9999, "extends: .*no scenario has this"),
    "path longer than files have": ("fleet: ./" + "x" * 9999, "fleet: extends: .*no such fleet"),
    "parent that is a large list": (
        f"extends: [{'a, ' * 999}]",
        r"extends: must be a name .*\.\.\.",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_hostile_files_are_told(fault, tmp_path):
    text, message = FAULTS[fault]
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=message) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["count", "max_num_seqs"])
def test_numbers_too_long_to_write_are_told(key):
    data = {"fleet": {"groups": {"a": {"preset": "v100-llama2-7b", key: -(10**5000)}}}}
    with pytest.raises(ScenarioError, match=f"fleet.groups.a.{key}: .*a huge number"):
        parse_scenario(data)
    with pytest.raises(ScenarioError, match="unknown key a huge number"):
        parse_scenario({10**5000: 1})


def test_points_may_have_numbers_for_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FLEET + WORKLOAD + "points: {8: {workload: {rate: 8.0}}, a: {}}\n")
    assert load_scenario(f"{path}#8").workload.rate == 8.0
    with pytest.raises(ScenarioError, match="no point '9'; known: 8, a"):
        load_scenario(f"{path}#9")


def test_merged_keys_may_be_overridden_and_merged_again(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "fleet: {groups: {a: &a {preset: v100-llama2-7b, count: 1},\n"
        "  b: &b {<<: *a, count: 2}, c: {<<: *b, count: 3}}}\n" + WORKLOAD
    )
    groups = load_scenario(path).fleet.groups
    assert [groups[name].count for name in "abc"] == [1, 2, 3]


def test_a_merged_key_is_not_taken_for_a_repeated_one(tmp_path):
    path = tmp_path / "mine.yaml"
    # `flat` is built before `deep`, and merging it in spells out the merge keys of `deep`.
    path.write_text("deep: {a: {b: &b {<<: {x: 1}, x: 2}}}\nflat: {<<: *b}\n", encoding="utf-8")
    assert read_yaml(path) == {"deep": {"a": {"b": {"x": 2}}}, "flat": {"x": 2}}


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (FLEET + WORKLOAD).encode())
    assert load_scenario(path).workload.requests == 9
