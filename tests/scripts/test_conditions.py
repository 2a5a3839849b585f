"""Conditions of service on the command line: schedulers, polling, failures, clients, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from baselines.routing import router
from baselines.scheduling import application_weights, scheduler
from envs.simulator import simulate
from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments.cases import preset_case, trace_case
from scripts.experiments.contenders import Baseline
from scripts.experiments.disciplines import Discipline, all_schedulers

SCENARIO = "router-kv6k-rate9"
FLEET = """
groups:
  small: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 2000, max_num_seqs: 8}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Calls of three tenants, two interactions of which go on, and a fleet."""
    rng = np.random.default_rng(0)
    count = 90
    table = RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 10.0, count)),
        prompt_tokens=rng.integers(1, 200, count),
        output_tokens=rng.integers(20, 80, count),
        tenant=rng.choice(["a", "b", "c"], count, p=[0.8, 0.1, 0.1]),
        application=rng.choice(["x", "y"], count),
        interaction=np.repeat(np.arange(count // 3), 3),
        call_index=np.tile(np.arange(3), count // 3),
        calls_in_interaction=3,
    )
    (tmp_path / "fleet.yaml").write_text(FLEET)
    trace = table.write(tmp_path / "log.parquet")
    return ["--trace", str(trace), "--fleet", str(tmp_path / "fleet.yaml")]


@pytest.fixture
def summary(files: list[str], capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> dict[str, Any]:
        assert main(["simulate", *files, "--json", *words]) == 0
        data: dict[str, Any] = json.loads(capfd.readouterr().out)
        return data["summary"] | {"queue": data["fleet"][0]["queue"]}

    return run


def test_the_scheduler_of_every_instance(summary: Any) -> None:
    def under(queue: str) -> dict[str, Any]:
        found: dict[str, Any] = summary("--queue", queue, "--rate-scale", "4", "--sigma", "0")
        return found

    usual, fair, other = (under(queue) for queue in ("fcfs", "vtc", "vtc:output_weight=0"))
    assert [found["queue"] for found in (usual, fair, other)] == ["fcfs", "vtc", "vtc"]
    assert len({found["ttft_mean_s"] for found in (usual, fair, other)}) == 3
    assert under("sjf")["e2e_mean_s"] < usual["e2e_mean_s"]


def test_weighted_counters_get_the_weights_of_the_applications(files: list[str]) -> None:
    case = trace_case(Path(files[1]), files[3], queue=Discipline.parse("wsc:output_weight=1"))
    episode = case.episode(3)
    got = Baseline.parse("jsq").run(episode).requests
    expected = simulate(
        episode.table,
        [engine for engine in episode.engines if engine.queue == scheduler("wsc", output_weight=1)],
        router("jsq"),
        weights=application_weights(episode.table),
        seed=3,
    )
    np.testing.assert_array_equal(got, expected.requests)


def test_what_the_flags_do(summary: Any) -> None:
    usual = summary()
    assert summary("--poll-interval-s", "5")["e2e_mean_s"] > usual["e2e_mean_s"]
    down = summary("--outage", "0:2:9", "--outage", "1:9:10")
    assert down["failures"] > usual["failures"] == 0
    assert down["e2e_mean_s"] > usual["e2e_mean_s"]
    thought = summary("--closed-loop", "--think-s", "100")
    assert thought["makespan_s"] > 200 > usual["makespan_s"]
    limited, killed = (
        summary("--rate-limit", "20", *more) for more in ([], ["--kill-interactions"])
    )
    assert usual["limited"] == 0 < limited["limited"] < killed["limited"]


def test_conditions_are_told_and_kept(files: list[str], tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")
    words = ["simulate", *files, "-o", out]
    assert main([*words, "--queue", "vtc", "--outage", "0:2:9", "--poll-interval-s", "0.5"]) == 0
    text = capsys.readouterr().out
    told = "conditions: scheduler vtc; the router looks every 0.5 s; instance 0 down, 2 to 9 s"
    assert told in text
    assert "requests lost by failed instances" in text and "queue vtc" in text
    config = yaml.safe_load((Path(out) / "config.yaml").read_text())
    assert config["queue"] == "vtc"
    assert config["scenario"]["failures"]["outages"][0]["end_s"] == 9
    assert json.loads((Path(out) / "summary.json").read_text())["failures"] > 0
    for other in (["--queue", "lcf"], ["--queue", "vtc"]):
        assert main([*words, *other]) == 2
        assert "another configuration (scenario)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--queue", "vtcc"], "scheduler 'vtcc' is unknown; there are: fcfs,"),
        (["--queue", "vtc:weight=1"], "vtc has no parameter"),
        (["--queue", "vtc:output_weight"], "is not parameter=number"),
        (["--outage", "0:1"], "write INSTANCE:START:END"),
        (["--outage", "4:1:2"], "--outage: there is no instance 4, the fleet has 0 to 3"),
        (["--outage", "0:2:1"], "--outage 0:2:1: end_s (1) must be after start_s (2)"),
        (["--outage", "0:1:3", "--outage", "0:2:4"], "--outage: outages of instance 0 overlap"),
        (["--poll-interval-s", "-1"], "--poll-interval-s: must be greater than or equal to 0"),
        (["--think-s", "1"], "--think-s is for clients that wait: add --closed-loop"),
        (["--think-s", "-1", "--closed-loop"], "--think-s: must be greater than"),
        (["--kill-interactions"], "--kill-interactions is for a rate limit: add --rate-limit N"),
        (["--rate-limit", "0"], "--rate-limit: must be greater than or equal to 1, not 0"),
        (["--gate", "oitt"], "--gate: admission policy 'oitt' is unknown; choose of"),
        (["--gate", "oit:limit=3"], "--gate: oit has no parameter ['limit']"),
        (["--gate", "oit:tenant_limit"], "--gate 'oit:tenant_limit': 'tenant_limit' is not"),
        (["--skip-ahead", "-1"], "--skip-ahead: must be greater than or equal to 0, not -1"),
        (["--sigma", "-1"], "--sigma: must be greater than or equal to 0, not -1"),
    ],
)
def test_wrong_use_is_told_in_one_line(words: list[str], said: str, capsys: Any) -> None:
    assert main(["simulate", "--scenario", SCENARIO, "--limit", "10", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert ".yaml" not in error and "__root__" not in error


def test_faults_of_a_file_are_not_blamed_on_flags(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {SCENARIO}\nrouter: {{poll_interval_s: -1}}\n")
    assert main(["simulate", "--scenario", str(path), "--outage", "0:1:2"]) == 2
    assert f"{path}: router.poll_interval_s: must be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--queue", "vtc"), "scheduler vtc is for several tenants, and all requests are of one"),
        (("--rate-limit", "900"), "the rate limit is for each tenant, and all requests are of one"),
        (("--closed-loop",), "clients wait for answers (closed loop), but every interaction is a"),
        (("--outage", "1:5000:5001"), "instance 1 is down from 5000 s, but the last request fin"),
    ],
)
def test_settings_without_effect_are_noted(words: tuple[str, ...], told: str, capsys: Any) -> None:
    assert main(["simulate", "--scenario", SCENARIO, "--limit", "30", *words]) == 0
    error = capsys.readouterr().err
    assert f"note: {told}" in error and error.count("note:") == 1


def test_settings_with_effect_are_not_noted(files: list[str], capsys: Any) -> None:
    words = ("--queue", "vtc", "--rate-limit", "20", "--closed-loop", "--outage", "0:1:2")
    assert main(["simulate", *files, *words]) == 0
    assert "note:" not in capsys.readouterr().err


def test_models_that_nobody_serves_or_asks_for_are_told(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "mine.yaml"
    group = "{preset: v100-llama2-7b, serves: Foo}"
    text = f"fleet: {{groups: {{a: {group}}}}}\n"
    text += "workload: {kind: router_mix, rate: 5, requests: 20}\n"
    path.write_text(text)
    assert main(["simulate", "--scenario", str(path)]) == 0
    assert "note: instances serve Foo, but no request asks for" in capsys.readouterr().err
    path.write_text(text + "clients: {models: {Bar: 1}}\n")
    assert main(["simulate", "--scenario", str(path)]) == 0
    out, error = capsys.readouterr()
    assert "20 requests for model Bar, which no instance serves, will be rejected" in error
    assert "by 1 instance\nrejected: 20, no instance serves the model\n" in out
    assert benchmark(tmp_path / "out", "--scenarios", str(path)) == 0
    assert "note: mine: 150 requests for model Bar" in capsys.readouterr().err


def test_weights_of_the_table_served_are_told(files: list[str], capsys: Any) -> None:
    assert main(["simulate", *files, "--queue", "wsc"]) == 0
    told = "conditions: scheduler wsc (knows the mean answers of this table)"
    assert told in capsys.readouterr().out
    assert main(["catalogue", "schedulers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    knowing = [line.split()[0] for line in lines if "knows a trace's mean answers" in line]
    assert {"wsc", "wsc_at_end_open"} <= set(knowing)
    others = {name for name in knowing if not name.startswith("wsc")}
    assert others == {"justitia", "shortest_interaction"}
    # Where requests are drawn, the weights are of another draw.
    words = ["simulate", "--scenario", "throttling-a10g-copilot", "--limit", "50", "--queue", "wsc"]
    assert main(words) == 0
    assert "conditions: scheduler wsc\n" in capsys.readouterr().out


def test_admission_policies_on_the_command_line(summary: Any, capfd: Any) -> None:
    usual, limited, shared = (
        summary(*words)
        for words in (
            [],
            ["--gate", "token_bucket:tokens_per_minute=500"],
            ["--gate", "token_bucket:tokens_per_minute=500", "--queue", "vtc"],
        )
    )
    assert usual["rejected"] == 0 < limited["rejected"]
    assert shared["queue"] == "vtc" and shared["rejected"] > 0
    assert main(["catalogue", "gates"]) == 0
    shown = capfd.readouterr().out
    assert all(name in shown for name in ("oit", "tenant_limit=50", "dynamic_limits"))


def test_requests_that_do_not_fit_are_passed_over(files: list[str], capsys: Any) -> None:
    fleet = Path(files[3])
    fleet.write_text(fleet.read_text().replace("2000", "500"))
    words = ["simulate", *files, "--rate-scale", "9"]
    assert main([*words, "--skip-ahead", "8", "--json"]) == 0
    skipping = json.loads(capsys.readouterr().out)["summary"]
    assert main([*words, "--skip-ahead", "0", "--json"]) == 0
    stopping = json.loads(capsys.readouterr().out)["summary"]
    assert skipping["e2e_mean_s"] != stopping["e2e_mean_s"]
    assert trace_case(Path(files[1]), files[3], skip_ahead=3).engines()[1].skip_ahead == 3


def test_a_scenario_names_its_admission_policy(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "mine.yaml"
    gate = "gate: {name: token_bucket, tokens_per_minute: 300}\nretry: {times: 2, patience_s: 60}\n"
    path.write_text(f"extends: throttling-a10g-copilot\n{gate}")
    words = ["simulate", "--scenario", str(path), "--limit", "300"]
    assert main([*words, "--skip-ahead", "4"]) == 0
    out = capsys.readouterr().out
    assert "admission policy token_bucket:tokens_per_minute=300; clients send again up to 2" in out
    assert "passes over up to 4 requests" in out and "by the admission policy" in out
    # Another policy on the command line takes nothing of the file's.
    assert main([*words, "--gate", "oit"]) == 0
    assert "admission policy oit; " in capsys.readouterr().out
    path.write_text("extends: throttling-a10g-copilot\ngate: {name: oit, limit: 3}\n")
    assert main(words) == 2
    assert "gate: oit has no parameter ['limit']; it has: tenant_limit" in capsys.readouterr().err


def benchmark(folder: Path, *words: str) -> int:
    few = ["--scenarios", SCENARIO, "--routers", "jsq", "--seeds", "2", "--requests", "150"]
    return main(["benchmark", "routing", *few, "--workers", "1", "-o", str(folder), *words])


def test_a_sweep_over_staleness(tmp_path: Path, capsys: Any) -> None:
    assert benchmark(tmp_path, "--poll-intervals", "0", "10") == 0
    found = pd.read_parquet(tmp_path / "summary.parquet")
    assert set(found["scenario"]) == {f"{SCENARIO}-poll0", f"{SCENARIO}-poll10"}
    mean = found.groupby(["router", "scenario"])["e2e_mean_s"].mean()
    assert mean["jsq", f"{SCENARIO}-poll10"] > mean["jsq", f"{SCENARIO}-poll0"]
    blind = mean["round_robin"]
    assert blind[f"{SCENARIO}-poll10"] == blind[f"{SCENARIO}-poll0"]
    report = (tmp_path / "report.html").read_text()
    assert "Latency over staleness" in report and "the router looks every 10 s" in report
    capsys.readouterr()
    assert benchmark(tmp_path, "--poll-intervals", "0", "10", "1") == 0
    assert "(8 reused)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--poll-interval-s", "1"),
        ("--outage", "0:1:2"),
        ("--rate-limit", "10"),
        ("--queue", "vtc"),
        ("--queue", "vtc:output_weight=1"),
        ("--closed-loop",),
    ],
)
def test_results_of_other_conditions_are_not_mixed(
    words: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    case = preset_case(SCENARIO)
    assert benchmark(tmp_path) == 0
    assert benchmark(tmp_path, *words) == 2
    assert f"scenarios.{case.name}." in capsys.readouterr().err


def test_losses_stand_in_tables_where_there_are_some(tmp_path: Path, capsys: Any) -> None:
    assert benchmark(tmp_path, "--rate-limit", "100", "--outage", "0:5:9") == 0
    text = capsys.readouterr().out
    assert "limited" in text and "failed" in text and "cached" not in text
    table = pd.read_csv(tmp_path / "table.csv")
    assert {"limited", "failures", "cached_tokens"} <= set(table["metric"])
    requests = pd.read_parquet(tmp_path / "requests")
    summary = pd.read_parquet(tmp_path / "summary.parquet")
    assert requests["failures"].sum() == summary["failures"].sum() > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--queue", "vtc", "--agent", "x"), "--queue does not reach --agent"),
        (("--poll-interval-s", "1", "--poll-intervals", "2"), "give one of them"),
        (("--poll-intervals", "2", "2"), "is given twice"),
        (("--poll-intervals", "2", "-1"), "--poll-intervals -1: give seconds, 0 or more"),
        (("--requests", "0"), "--requests 0: give 1 or more"),
    ],
)
def test_what_does_not_go_together(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: Any
) -> None:
    assert benchmark(tmp_path, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["copilot", "azure_conversation"])
def test_workloads_without_a_rate_are_reported(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"fleet: v100-llama2-7b-x4\nworkload: {{kind: {kind}, requests: 40}}\n")
    words = ["benchmark", "routing", "--scenarios", str(path), "--routers", "jsq", "--seeds", "1"]
    assert main([*words, "--workers", "1", "-o", str(tmp_path / "out")]) == 0


def test_labels_of_schedulers_are_read_back() -> None:
    for name in all_schedulers():
        assert Discipline.parse(name).label == name
    own = Discipline.parse("vtc:output_weight=0.5,input_weight=2")
    assert Discipline.parse(own.label) == own
    assert own.identity()["parameters"] == {"input_weight": 2.0, "output_weight": 0.5}


def test_the_catalogue_lists_schedulers(capsys: Any) -> None:
    assert main(["catalogue", "schedulers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["schedulers"]
    assert [row["scheduler"] for row in rows] == list(all_schedulers())
