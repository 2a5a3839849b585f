"""What commands tell: fleets, objectives, and faults of what they are given, before they run."""

import hashlib
import json

import pytest
import yaml

from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments.metrics import percent_range
from scripts.experiments.runner import run_job

ROOFLINE = "groups: {a: {count: 2, model: Llama-3.1-8B, gpu: H100-SXM-80GB}}"
SCENARIO = "router-kv6k-rate9"


@pytest.fixture
def trace(tmp_path):
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0, 2.0], prompt_tokens=[10, 20, 30], output_tokens=[5, 6, 7]
    )
    return str(table.write(tmp_path / "own.csv"))


def fleet(tmp_path, text, name="mine.yaml"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def benchmark(folder, *words):
    rest = ["--routers", "jsq", "--seeds", "1", "--workers", "1", "-o", str(folder), *words]
    return main(["benchmark", "routing", *rest])


def test_estimated_step_times_are_said_to_be_estimates(trace, tmp_path, capsys):
    words = ["--trace", trace, "--fleet", fleet(tmp_path, ROOFLINE)]
    assert main(["simulate", *words, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["fleet"]
    assert (group["count"], group["cost_tier"]) == (2, "roofline")
    assert 0 < group["cost_error"] < 1 and group["kv_capacity_tokens"] > 0
    told = "2 x Llama-3.1-8B on H100-SXM-80GB TP1"
    assert main(["simulate", *words]) == 0
    text = capsys.readouterr().out
    assert told in text and "roofline, error about" in text and "order of magnitude" in text
    assert benchmark(tmp_path / "out", *words) == 0
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, report):
        assert told in text and "order of magnitude" in text
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["fleets"]["own"][0]["cost_tier"] == "roofline"


def test_the_report_says_what_a_trace_holds(trace, tmp_path):
    words = ["--trace", trace, "--fleet", "v100-llama2-7b-x4"]
    assert benchmark(tmp_path / "out", *words) == 0
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "3 requests in 2 s, 1.50 requests per second, source:" in report


def test_objectives_are_set_and_shown(trace, tmp_path, capsys):
    words = ["--trace", trace, "--fleet", "v100-llama2-7b-x4"]
    assert main(["simulate", *words, "--slo-e2e", "100", "--slo-ttft", "1e-9"]) == 0
    assert "requests within ttft 1e-09 s, e2e 100 s  0.0 %" in capsys.readouterr().out
    assert main(["simulate", *words, "--slo-e2e", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["slo_attainment"] == 1.0
    assert main(["simulate", *words]) == 0
    assert "requests within" not in capsys.readouterr().out
    assert benchmark(tmp_path / "out", *words, "--slo-tbt", "1e-9") == 0
    assert "SLO" in capsys.readouterr().out
    words = ["--scenarios", SCENARIO, "--requests", "20", "--slo-tbt", "1"]
    assert benchmark(tmp_path / "scenario", *words) == 0
    assert "Objectives: tbt 1 s." in (tmp_path / "scenario" / "report.html").read_text("utf-8")


def test_faults_of_a_fleet_name_the_fleet(trace, tmp_path, capsys):
    path = fleet(tmp_path, "groups: {a: {cuont: 2, preset: v100-llama2-7b}}", "typo.yaml")
    for name, said in ((path, f"{path}: groups.a"), ("nope", "nope: no fleet has this name")):
        assert main(["simulate", "--trace", trace, "--fleet", name]) == 2
        error = capsys.readouterr().err
        assert said in error and "own.csv" not in error
    assert "v100-llama2-7b-x4" in error


def policy_folder(tmp_path, most):
    pytest.importorskip("torch")
    from safetensors.torch import save

    from agents.policy_config import RoutingPolicyConfig, routing_features

    folder = tmp_path / f"agent-{most}"
    folder.mkdir()
    weights = save({})
    (folder / "policy.safetensors").write_bytes(weights)
    config = RoutingPolicyConfig(
        net_arch=[4],
        activation="tanh",
        window=1,
        max_instances=most,
        queue_order="fcfs",
        decision_interval_s=0.0,
        features=routing_features(),
        steps=1,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    (folder / "policy.json").write_text(config.model_dump_json())
    return folder


def test_agents_that_cannot_serve_are_refused_before_anything_runs(tmp_path, capsys):
    small = policy_folder(tmp_path, 2)
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = policy_folder(tmp_path, 4)
    (damaged / "policy.safetensors").write_bytes(b"other")
    for folder, said in (
        (small, f"was trained for at most 2 instances, scenario {SCENARIO} has 4"),
        (empty, "holds no trained policy: expected best/policy.json"),
        (damaged, "SHA-256 differs"),
        (tmp_path / "absent", "there is no such folder"),
    ):
        words = ("--scenarios", SCENARIO, "--requests", "20", "--agent", str(folder))
        assert benchmark(tmp_path / "out", *words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_reused_runs_are_counted(tmp_path, capsys):
    words = ("--scenarios", SCENARIO, "--requests", "20")
    assert benchmark(tmp_path / "out", *words) == 0
    assert "2 runs, " in capsys.readouterr().out
    assert benchmark(tmp_path / "out", *words, "--seeds", "2") == 0
    assert "4 runs (2 reused), " in capsys.readouterr().out


def test_a_run_without_a_result_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr("scripts.experiments.runner.run_job", fail)
    words = ("--scenarios", SCENARIO, "--requests", "20")
    with pytest.raises(ZeroDivisionError):
        benchmark(tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("scripts.experiments.runner.run_job", run_job)
    assert benchmark(tmp_path / "out", *words) == 0


def test_two_scenarios_of_one_name_are_told_by_their_files(tmp_path, capsys):
    paths = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    for path in paths:
        path.write_text(f"extends: {SCENARIO}\nname: twin\n")
    assert benchmark(tmp_path / "out", "--scenarios", *map(str, paths)) == 2
    error = capsys.readouterr().err
    assert all(str(path) in error for path in paths)
    assert "`name: twin`" in error


def test_an_interval_has_the_form_of_its_centre():
    assert percent_range(1.1, 0.96, 1.23) == "[2.0, 2.2]"
    assert percent_range(0.9, 0.5, 1.2) == "[+50, +120]"
    assert percent_range(1.5, 1.2, 9.0) == "[2.2, 10]"


def test_nothing_is_written_over_unasked(trace, tmp_path, capsys):
    base = ["simulate", "--trace", trace, "--fleet", "v100-llama2-7b-x4"]
    base += ["-o", str(tmp_path / "one")]
    assert main(base) == 0 == main(base)
    assert main([*base, "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert "another configuration (seed)" in error and "--overwrite" in error
    assert main([*base, "--seed", "1", "--overwrite"]) == 0
    (tmp_path / "one" / "config.yaml").unlink()
    assert main(base) == 2
    path = tmp_path / "scenario.yaml"
    path.write_text("mine")
    words = ["scenarios", SCENARIO, "-o", str(path)]
    assert main(words) == 2
    assert path.read_text() == "mine" and "exists" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_the_catalogue_lists_what_can_be_named(tmp_path, capsys):
    assert main(["catalogue", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [
        "routers",
        "schedulers",
        "gates",
        "gpus",
        "models",
        "fleets",
        "scenarios",
        "presets",
    ]
    assert SCENARIO in {row["scenario"] for row in found["scenarios"]}
    pull = next(row for row in found["routers"] if row["router"] == "pull")
    assert pull["parameters"] == {"theta": 0.15} and pull["source"]
    assert main(["catalogue", "gpus"]) == 0
    text = capsys.readouterr().out
    assert "H100-SXM-80GB" in text and "routers" not in text
    assert main(["catalogue", "cars"]) == 2
