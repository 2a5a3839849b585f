"""`servegym benchmark throttling`: equal tuning budgets, paired, resumable, with honest metrics."""

from __future__ import annotations

import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.scheduling import schedulers
from envs.scenarios import seeds
from envs.scenarios.adversary import PadPrompts
from envs.simulator import SCHEDULERS
from envs.simulator.served import Served
from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments import cases, throttles
from scripts.experiments.cases import Case, preset_case, trace_case
from scripts.experiments.history import history_of, past_requests
from scripts.experiments.pareto import pareto_front
from scripts.experiments.rungs import Rung
from scripts.experiments.tenancy import (
    TIMELINE_POINTS,
    Limits,
    score,
    tenancy_of,
    timelines,
    without_heavy,
)
from scripts.experiments.tenancy_metrics import SCORE, TENANCY
from scripts.experiments.throttles import LADDER, TUNING_RUNS, Throttle
from scripts.experiments.throttling_runs import Measurement, default_cut_s
from tests.paths import ROOT

ENGINE = "{a10g: {preset: a10g-llama2-7b-slora, batching: slora, max_batched_tokens: 3072}}"
COPILOT = (
    f"name: copilot\nfleet: {{groups: {ENGINE}}}\n"
    "workload: {kind: copilot, requests: 300, max_request_tokens: 500}\n"
)
VTC = (
    f"name: clients\nfleet: {{groups: {ENGINE}}}\n"
    "workload: {kind: vtc, suite: overload, duration_s: 40}\n"
)
NAMES = ("fcfs", "vtc", "rpm_kill")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "copilot.yaml"
    path.write_text(COPILOT)
    return path


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "clients.yaml"
    path.write_text(VTC)
    return path


def run(folder: Path, scenario: Path, *words: str, names: tuple[str, ...] = NAMES) -> int:
    found = ["benchmark", "throttling", "--workers", "1", "--slo-ttft", "1", "-o", str(folder)]
    return main([*found, "--scenarios", str(scenario), "--contenders", *names, *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenario: Path) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    assert run(folder, scenario, "--seeds", "5", "--tuning-runs", "6", "--isolation") == 0
    return folder


def test_every_contender_has_all_metrics_on_every_seed(finished: Path) -> None:
    summary = pd.read_csv(finished / "summary.csv")
    assert len(summary) == 3 * 5
    assert set(summary["router"]) == set(NAMES)
    assert set(TENANCY) <= set(summary)
    assert set(summary["cut_s"]) == {round(2 * 100 / 72, 3)}
    for _, row in summary.iterrows():
        assert row["score"] == pytest.approx(score(row))
        assert row["isolation_ratio"] > 0
    assert (summary.query("router == 'fcfs'")["throttled_calls"] == 0).all()
    assert (summary.query("router == 'rpm_kill'")["throttled_calls"] > 0).all()


def test_differences_are_paired(finished: Path) -> None:
    summary = pd.read_csv(finished / "summary.csv").set_index(["router", "seed"])["calls"]
    table = pd.read_csv(finished / "table.csv").set_index(["router", "metric"])
    row = table.loc["fcfs", "calls"]
    assert row["reference"] == "vtc"
    assert row["difference_mean"] == pytest.approx((summary["fcfs"] - summary["vtc"]).mean())
    assert row["difference_low"] <= row["difference_mean"] <= row["difference_high"]


def test_settings_are_chosen_by_mean_score_at_equal_budget(finished: Path) -> None:
    trials = pd.read_csv(finished / "tuning.csv")
    for name in ("vtc", "rpm_kill"):
        mine = trials[trials["name"] == name]
        assert mine["seeds"].sum() == 6
        assert list(mine["chosen"]) == [i == mine["score"].argmax() for i in range(len(mine))]
    assert list(trials[trials["name"] == "fcfs"]["seeds"]) == [0]
    # The runs behind it were on other seeds than the evaluation.
    folders = (finished / "requests", finished / "tuning" / "requests")
    evaluation, tuning = ({path.name.split(".")[1] for path in f.iterdir()} for f in folders)
    assert evaluation == {str(1_000_000 + k) for k in range(5)}
    assert tuning == {"2000000"}
    assert len(pd.read_parquet(finished / "requests").groupby(["router", "seed"])) == 15


def test_a_finished_run_is_reused(
    finished: Path, scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--seeds", "5", "--tuning-runs", "6", "--isolation")
    assert run(finished, scenario, *words, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["runs"], data["tuning_runs"], data["reused"]) == (15, 12, 27)
    assert data["settings"]["copilot"]["fcfs"] == "fcfs"
    (result,) = data["results"]
    assert next(row["router"] for row in result["routers"]) in NAMES
    metrics = result["routers"][0]["metrics"]
    assert {"difference_to_reference", "ratio_to_reference", "mean"} <= set(metrics["jain"])
    assert run(finished, scenario, *words, "--benign-rpm", "3") == 2
    assert "measured.benign_rpm is 10 there and 3 now" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(
    tmp_path: Path,
    scenario: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, ran = Throttle.run, []

    def stopped(self: Throttle, episode: object) -> object:
        if len(episode.table) > 20:  # type: ignore[attr-defined]
            ran.append(self.label)
            if len(ran) == 3:
                raise KeyboardInterrupt
        return real(self, episode)  # type: ignore[arg-type]

    monkeypatch.setattr(throttles.Throttle, "run", stopped)
    words = ("--seeds", "2", "--tuning-runs", "0")
    assert run(tmp_path, scenario, *words) == 130
    assert "interrupted: 2 results are kept" in capsys.readouterr().err
    assert run(tmp_path, scenario, *words) == 0
    assert len(ran) == 3 + 4


def test_the_page_has_views_settings_and_notes(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    for part in ("How to read this", "Trade-offs", "Who is served when", "Settings", "All metrics"):
        assert part in text
    assert len(re.findall(r'id="view-0-\w', text)) == 4
    assert "service-0" in text
    body = text[text.index("<body>") :]
    assert not re.findall(r'(?:src|href)="(?!#)', body)


def test_the_table_fits_and_says_how_it_was_judged(
    tmp_path: Path, clients: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quick", "--seeds", "1", "--requests", "60", "--metrics", "jain", "light_ttft_p99_s")
    assert run(tmp_path, clients, *words, "--cut-s", "35", names=("vtc", "srpt")) == 0
    shown = capsys.readouterr().out
    assert "looked at 35 s" in shown
    assert "settings: as published or given" in shown
    assert "2 runs, 0 to tune" in shown
    assert max(map(len, shown.splitlines())) <= 130
    assert (tmp_path / "requests").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--contenders", "vct"), "contender 'vct' is unknown; there are: fcfs"),
        (("--contenders", "rpm:limit=3"), "it has: requests_per_minute"),
        (("--contenders", "vtc:weight"), "write name:parameter=number"),
        (("--reference", "nobody"), "contender 'nobody' is unknown"),
        (("--cut-s", "0"), "--cut-s 0: give seconds, more than 0"),
        (("--slo-interaction", "-1"), "--slo-interaction -1"),
        (("--benign-rpm", "0"), "--benign-rpm 0: give 1 or more"),
        (("--requests", "0"), "--requests 0: give 1 or more"),
        (("--slo-ttft", "9"), "leaves no time to see whether first tokens come within 9 s"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--tuning-runs", "-1"), "--tuning-runs -1: give 0 or more"),
        (("--workers", "0"), "--workers 0"),
        (("--metrics", "jian"), "no metric 'jian'; there are: jain"),
        (("--timelines", "wsc"), "--timelines wsc: no such contender"),
        (("--think-s", "3"), "--think-s is for clients that wait: add --closed-loop"),
        (("--router", "nearest"), "nearest"),
    ],
)
def test_wrong_options_are_told(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    scenario: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["benchmark", "throttling", "-o", str(tmp_path / "new"), "--scenarios", str(scenario)]
    names = [] if "--contenders" in words else ["--contenders", "fcfs"]
    assert main([*given, *names, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_grids_divide_the_budget_and_begin_with_the_published_setting() -> None:
    known = SCHEDULERS | schedulers()
    for rung in LADDER.values():
        settings = rung.settings()
        assert TUNING_RUNS % len(settings) == 0, rung.name
        assert len(set(settings)) == len(settings)
        for values in settings:
            rung.parts(values)
        defaults = dict(zip(known[rung.queue].parameter_names, known[rung.queue].parameters))  # noqa: B905
        for name, value in settings[0]:
            assert value == defaults.get(name, value)


def test_unequal_budgets_are_told(
    tmp_path: Path, clients: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--seeds", "1", "--requests", "30", "--tuning-runs", "7", "--cut-s", "20")
    assert run(tmp_path, clients, *words, names=("vtc", "vtc_profile")) == 0
    assert "of 7 tuning runs the contenders use 4 to 6" in capsys.readouterr().err
    assert list(pd.read_csv(tmp_path / "tuning.csv")["seeds"]) == [1] * 10


def test_a_grid_is_thinned_evenly() -> None:
    rung = Rung("all", "vtc", {"output_weight": (2.0, 1.0), "input_weight": (1.0, 2.0, 3.0)})
    assert len(rung.settings()) == 6
    assert rung.settings(3) == rung.settings()[::2]
    assert rung.settings(10) == rung.settings()


def test_every_multi_tenant_scheduler_is_on_the_ladder_and_in_the_docs() -> None:
    assert set(schedulers()) <= {rung.queue for rung in LADDER.values()}
    page = (ROOT / "docs" / "throttling.md").read_text()
    assert not [name for name in LADDER if f"`{name}`" not in page]


def test_limits_follow_what_the_fleet_serves(scenario: Path) -> None:
    setting = preset_case(str(scenario)).scenario
    past = history_of(setting)
    assert past is not None
    assert past.tokens_per_minute > past.fair_tokens_per_minute > 0
    for name, values, limit in (
        ("token_bucket", (("fair_shares", 4.0),), 4 * past.fair_tokens_per_minute),
        ("dynamic_limits", (), past.tokens_per_minute),
        ("token_bucket", (("tokens_per_minute", 7.0),), 7.0),
    ):
        found = LADDER[name].parts(values, past)[2]["gate"]
        given = dict(zip(found.parameter_names, found.parameters, strict=True))
        assert given["tokens_per_minute"] == pytest.approx(limit)
    tight = LADDER["hold_back"].parts((("kv_limit", 0.1),))[2]["gate"]
    assert (tight.kv_limit, tight.queue_limit) == (0.1, 1e12)


def test_the_past_is_of_other_requests_before_any_attack(scenario: Path, tmp_path: Path) -> None:
    setting = preset_case(str(scenario)).scenario
    past = past_requests(setting)
    assert past is not None
    assert not np.array_equal(past.arrival_s, setting.requests(seeds("evaluation", 1)[0]).arrival_s)
    attacked = setting.model_copy(update={"adversary": PadPrompts(kind="pad_prompts")})
    again = past_requests(attacked)
    assert again is not None
    assert np.array_equal(again.prompt_tokens, past.prompt_tokens)
    assert history_of(setting) == history_of(attacked)
    trace = past.write(tmp_path / "log.parquet")
    served = trace_case(trace, "a10g-llama2-7b-slora")
    assert history_of(served.scenario) is None
    with pytest.raises(ValueError, match="token_bucket: its limit is relative"):
        Throttle("token_bucket").run(served.episode(0))


@pytest.mark.parametrize("name", ["fairserve", "token_bucket", "hold_back", "fcfs_skip", "max_min"])
def test_new_rungs_serve_an_episode(name: str, scenario: Path) -> None:
    rung = LADDER[name]
    result = Throttle(name, rung.settings()[-1]).run(preset_case(str(scenario)).episode(3))
    assert (result.requests["finish_ps"] >= 0).any()


def test_counters_are_charged_by_the_past(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = preset_case(str(scenario)).episode(4)
    usual = Throttle("wsc").run(episode)
    monkeypatch.setattr(cases, "past_requests", lambda *_: None)
    own = Throttle("wsc").run(episode)
    assert not np.allclose(usual.tenant_counters, own.tenant_counters)


def test_parameters_reach_scheduler_admission_and_engine() -> None:
    def gate(**parameters: float) -> dict[str, float]:
        return parameters

    grid = {"output_weight": (2.0, 4.0), "decode_steps": (10.0, 5.0), "k": (1.0,)}
    rung = Rung("x", "vtc", grid, admission=gate)
    scheduler, engine, options = rung.parts((("decode_steps", 5.0), ("output_weight", 4.0)))
    assert dict(zip(scheduler.parameter_names, scheduler.parameters, strict=True)) == {
        "input_weight": 1.0,
        "output_weight": 4.0,
    }
    assert (engine, options) == ({"decode_steps": 5}, {"k": 1.0})
    assert Throttle.parse("rpm:requests_per_minute=3").rung.name == "rpm"
    assert pickle.loads(pickle.dumps(Throttle("vtc"))) == Throttle("vtc")


def test_a_rung_can_be_told_true_lengths_and_options_of_the_table(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RequestTable] = []

    def weights(table: RequestTable) -> dict[str, np.ndarray]:
        seen.append(table)
        return {"weights": np.full(len(table), 7.0)}

    monkeypatch.setitem(LADDER, "told", Rung("told", "wsc", of_table=weights, oracle=True))
    episode = preset_case(str(scenario)).episode(4)
    told = Throttle("told").run(episode)
    (table,) = seen
    assert (table.predicted_output_tokens == table.output_tokens).all()
    assert (episode.table.predicted_output_tokens != table.output_tokens).any()
    # With equal weights it counts tokens, seven of which make a unit.
    plain = Throttle("vtc").run(episode)
    assert told.tenant_counters.sum() * 7 == pytest.approx(plain.tenant_counters.sum(), rel=0.2)


def test_metrics_of_a_run_agree_with_its_requests(scenario: Path) -> None:
    case = preset_case(str(scenario))
    episode = case.episode(3)
    result = Throttle("rpm_kill", (("requests_per_minute", 2.0),)).run(episode)
    found = tenancy_of(result, Limits(4.0, ttft_s=1.0, deadline_s=2.0, benign_rpm=2))
    rows = Served.of(result)
    done = rows.finished & (rows.finish_s <= 4.0)
    tokens = rows.prompt + rows.output
    assert found["calls"] == done.sum()
    assert found["tokens_per_s"] == pytest.approx(tokens[done].sum() / 4.0)
    assert found["throttled_calls"] == rows.rejected.sum()
    killed = set(rows.interaction[rows.rejected])
    assert found["interrupted_users"] <= found["broken_interactions"] <= len(killed)
    assert found["multi_call_interactions"] <= found["agent_calls"] <= found["calls"]
    wasted = [
        t for t, i, d in zip(tokens, rows.interaction, done, strict=True) if d and i in killed
    ]
    assert found["wasted_tokens"] == sum(wasted)
    assert found["benign_throttle_rate"] == 0.0
    assert math.isnan(found["difference_mean"])
    shares = ("unserved_users", "users_up_to_one", "users_above_one")
    assert sum(found[key] for key in shares) == pytest.approx(1.0)
    assert found["goodput_tokens_per_s"] <= found["tokens_per_s"]
    assert found["all_ttft_p99_s"] == 4.0
    with pytest.raises(ValueError, match="nothing arrives by the cut"):
        tenancy_of(result, Limits(-1.0))


def test_the_score_is_the_weighted_sum_of_what_is_known() -> None:
    found = dict.fromkeys(SCORE, 0.0) | {"jain": 0.5, "goodput_share": 0.2, "waste_share": 0.1}
    assert score(found) == pytest.approx(0.125 + 0.05 - 0.1)
    assert score(found | {"benign_throttle_rate": math.nan}) == score(found)


def test_timelines_end_with_all_service(clients: Path) -> None:
    episode = preset_case(str(clients)).episode(1)
    result = Throttle("vtc").run(episode)
    curves = timelines(result, 1e4)
    rows = Served.of(result)
    last = sum(values[-1] for key, values in curves.items() if key != "time_s")
    assert last == pytest.approx(rows.cost.sum(), rel=1e-4)
    assert {len(values) for values in curves.values()} == {TIMELINE_POINTS}
    assert all(np.all(np.diff(values) >= 0) for key, values in curves.items() if key != "others")


def test_heavy_tenants_are_left_out_of_the_twin(scenario: Path) -> None:
    table = preset_case(str(scenario)).scenario.requests(2)
    fewer = without_heavy(table)
    assert 0 < len(fewer) < len(table)
    called = {table.tenant.names[k] for k in set(table.tenant.codes)}
    gone = called - {fewer.tenant.names[k] for k in set(fewer.tenant.codes)}
    tokens = pd.Series(table.prompt_tokens + 2 * table.output_tokens)
    share = tokens.groupby(np.array(table.tenant.names)[table.tenant.codes]).sum()
    assert share[list(gone)].sum() >= share.sum() / 3
    assert share[list(gone)].min() >= share.drop(list(gone)).max()


@pytest.mark.parametrize(
    ("workload", "cut_s"),
    [
        ("{kind: copilot}", 100.0),
        ("{kind: copilot, requests: 50, duration_s: 36}", 50.0),
        ("{kind: vtc, suite: overload, duration_s: 25}", 25.0),
        ("{kind: vtc, suite: overload, requests: 9}", 4.0),
    ],
)
def test_the_cut_is_the_end_of_the_arrivals(workload: str, cut_s: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.yaml"
    path.write_text(f"name: cut\nfleet: {{groups: {ENGINE}}}\nworkload: {workload}\n")
    case: Case = preset_case(str(path))
    few = RequestTable.from_columns(
        arrival_s=np.array([0.0, 3.2]), prompt_tokens=np.ones(2, int), output_tokens=np.ones(2, int)
    )
    table = few if "requests: 9" in workload else case.scenario.requests(0)
    assert default_cut_s(case.scenario, table) == cut_s
    assert Measurement(cut_s=70.0).limits(case.scenario, table).cut_s == 70.0


def test_the_front_holds_what_none_beats_in_both() -> None:
    points = [(1.0, 5.0), (2.0, 5.0), (3.0, 1.0), (2.0, 2.0), (3.0, 1.0), (math.nan, 9.0)]
    assert pareto_front(points) == [1, 2, 4]
    assert pareto_front(points, (-1, 1)) == [0]
    assert pareto_front([]) == []
