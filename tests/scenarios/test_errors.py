"""Every fault is a ScenarioError that names the file, the key and the mend."""

import pickle

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.scenarios import Scenario, ScenarioError, load_fleet, load_scenario, parse_scenario

GROUP = {"preset": "v100-llama2-7b"}
WORKLOAD = {"kind": "router_mix", "rate": 5, "requests": 20}


def scenario(**changes):
    return {"fleet": {"groups": {"v100": GROUP}}, "workload": WORKLOAD} | changes


def group(**changes):
    return scenario(fleet={"groups": {"v100": GROUP | changes}})


FAULTS = {
    "unknown key": (scenario(flet=1), "unknown key 'flet'; did you mean fleet"),
    "unknown key of a group": (group(cuont=1), "fleet.groups.v100: .*did you mean count"),
    "unknown key of the workload": (
        scenario(workload=WORKLOAD | {"request": 3}),
        "workload: unknown key 'request'; did you mean requests",
    ),
    "key that is no text": (scenario(**{"router": {1: 2}}), "router: unknown key 1; known"),
    "text for a number": (
        scenario(workload=WORKLOAD | {"rate": "8"}),
        "workload.rate: must be a valid number, not '8'",
    ),
    "truth for a count": (group(count=True), "fleet.groups.v100.count: .* not True"),
    "fraction for a count": (group(count=1.5), "fleet.groups.v100.count"),
    "out of range": (group(watermark=1), "fleet.groups.v100.watermark: must be less than 1, not 1"),
    "infinite": (group(price_per_hour=float("inf")), "price_per_hour: must be a finite number"),
    "missing": (
        scenario(workload={"kind": "router_mix", "rate": 5}),
        "workload.requests: this key is required",
    ),
    "no workload": ({"fleet": {"groups": {"a": GROUP}}}, "workload: this key is required"),
    "no kind": (scenario(workload={"rate": 5}), "workload: the key kind is required"),
    "unknown kind": (
        scenario(workload=WORKLOAD | {"kind": "router_mixx"}),
        "workload.kind: there is no kind 'router_mixx'; did you mean router_mix",
    ),
    "kind that is no text": (
        scenario(workload={"kind": 3}),
        "workload.kind: there is no kind .*3.*; known: azure_code, .*, vtc$",
    ),
    "no mapping": (scenario(failures=3), "failures: must be a mapping of keys to values, not 3"),
    "no mapping of weights": (scenario(clients={"weights": [1]}), "weights: must be a mapping"),
    "no list": (scenario(failures={"outages": {}}), "failures.outages: must be a list"),
    "number for a name": (
        scenario(clients={"weights": {0: 2}}),
        "clients.weights.0: a name must be text: write it in quotes, '0'$",
    ),
    "text for truth": (scenario(clients={"closed_loop": "yes"}), "must be true or false, not 'y"),
    "scheduler with counters": (group(queue="vtc"), "not 'vtc'; .* are given with --queue"),
    "no groups": (scenario(fleet={"groups": {}}), "fleet.groups"),
    "preset and model": (group(model="Llama-2-7B"), "preset settles model: leave them out"),
    "preset and precision": (group(precision="fp8"), "preset settles precision: leave"),
    "unknown precision": (group(precision="fp6"), "groups.v100.precision: must be 'bf16', 'fp8'"),
    "neither preset nor model": (
        scenario(fleet={"groups": {"a": {"count": 1}}}),
        "fleet.groups.a: give a preset, or a model and a gpu",
    ),
    "small chunk budget": (
        group(batching="chunked", max_batched_tokens=8),
        "max_batched_tokens .8. of at least max_num_seqs .256.",
    ),
    "parameter of another process": (
        scenario(workload=WORKLOAD | {"cv": 2.0}),
        "cv: not of poisson arrivals",
    ),
    "unknown fleet": (
        scenario(fleet="v100-llama2-7b-x5"),
        "fleet: extends: v100-llama2-7b-x5: no fleet .* did you mean v100-llama2-7b-x4",
    ),
    "unknown parent": (scenario(extends="router-kv6k"), "extends: router-kv6k: .*kv6k-rate"),
    "parent that is no name": (scenario(extends=3), "extends: must be a name or a file, not 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told(fault):
    data, message = FAULTS[fault]
    with pytest.raises(ScenarioError, match=message) as caught:
        parse_scenario(data, "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"preset": "v100-llama-7b"}, {"preset": "nothing at all"}])
def test_unknown_names_of_the_catalogue_are_told_on_building(changes):
    data = group(**changes)
    with pytest.raises(ScenarioError, match=r"groups.v100: .*v100-llama2-7b"):
        parse_scenario(data).build(0)


@pytest.mark.parametrize(
    ("load", "text", "key"),
    [
        (load_fleet, "{name: own, groups: {a: {model: Llama-3.1-8B, gpu: A100}}}", "groups.a"),
        (
            load_scenario,
            "{fleet: {groups: {a: {model: Llama-3.1-8B, gpu: A100}}}, "
            "workload: {kind: router_mix, rate: 5, requests: 20}}",
            "fleet.groups.a",
        ),
    ],
)
def test_unknown_names_of_the_catalogue_are_told_with_the_file(load, text, key, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="called 'A100'") as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {key}: ")


def test_missing_presets_and_files(tmp_path):
    with pytest.raises(ScenarioError, match=r"no scenario has this name; did you mean router-kv6k"):
        load_scenario("router-kv6k-rat8")
    with pytest.raises(ScenarioError, match=r"none.yaml: there is no such scenario file"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match=r"none.yaml: there is no such fleet file"):
        load_fleet(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("- 1", "must be a mapping"),
        ("fleet: [", "line 1: not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: not valid YAML: the key 'a' stands twice"),
        ("a: 2024-99-99\n", "not valid YAML"),
        ("[" * 1000, "nested too deeply"),
        ("extends: self.yaml", "self.yaml: extends itself"),
        ("name: &a {fleet: *a}", "not valid YAML|fleet|name"),
        ("points: 3", "points: must map names"),
        ("points: {a: 3}", "points: must map names"),
        ("fleet: ../absent/fleet.yaml", "fleet: extends: .*there is no such fleet file"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "self.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=message) as caught:
        load_scenario(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "image.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ScenarioError, match=r"cannot be read|not valid YAML"):
        load_scenario(path)


def test_the_error_survives_a_process_boundary():
    error = ScenarioError("a.yaml", "is wrong", ("fleet", "groups"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.key) == ("a.yaml: fleet.groups: is wrong", ("fleet", "groups"))


KEYS = st.sampled_from(
    "name fleet workload prediction router slo groups v100 kind rate requests count preset model "
    "gpu sigma window extends points batching cv".split()
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["router_mix", "v100-llama2-7b", "v100-llama2-7b-x4", "chunked", "#", "."])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_random_data_is_a_scenario_or_a_scenario_error(data):
    check(data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([scenario, group]), st.dictionaries(KEYS, VALUES))
def test_random_changes_of_a_scenario_too(make, changes):
    check(make(**changes))
    check(scenario(workload=WORKLOAD | changes))


def check(data):
    try:
        found = parse_scenario(data)
    except ScenarioError as error:
        assert str(error)
        return
    assert isinstance(found, Scenario)
    assert parse_scenario(yaml.safe_load(found.to_yaml())) == found
