"""The throttling benchmark on recorded traces, and what rungs are told of answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.scenarios import seeds
from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments.bootstrap import resample
from scripts.experiments.cases import preset_case, trace_case
from scripts.experiments.history import history_of, past_requests
from scripts.experiments.throttles import LADDER, Throttle

FLEET = "a10g-llama2-7b-slora"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, count = np.random.default_rng(0), 80
    table = RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 12.0, count)),
        prompt_tokens=rng.integers(1, 200, count),
        output_tokens=rng.integers(1, 200, count),
        tenant=[f"t{k}" for k in rng.integers(0, 5, count)],
    )
    return table.write(tmp_path_factory.mktemp("trace") / "log.parquet")


def run(folder: Path, *words: str) -> int:
    given = ["benchmark", "throttling", "-o", str(folder), "--workers", "1", "--seeds", "2"]
    given += ["--contenders", "vtc", "token_bucket", "--slo-ttft", "1", "--tuning-runs", "0"]
    return main([*given, *words])


def test_a_trace_is_resampled_for_every_seed(trace: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--trace", str(trace), "--bootstrap-trace", "--rate-scale", "2") == 0
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert set(summary["router"]) == {"vtc", "token_bucket"}
    assert summary.groupby("router")["output_tokens_per_s"].nunique().eq(2).all()


def test_a_scenario_of_a_trace_can_be_resampled(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nfleet: {FLEET}\nworkload: {{kind: trace, path: {trace}}}\n")
    assert run(tmp_path / "out", "--scenarios", str(path), "--bootstrap-trace", "--quick") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trace", "TRACE"), "a recorded trace is the same for every seed"),
        (("--trace", "TRACE", "--scenarios", "x"), "--trace and --scenarios: give one of them"),
        (("--scenarios", "throttling-load-60", "--bootstrap-trace"), "--bootstrap-trace is for"),
        (("--scenarios", "throttling-load-60", "--rate-scale", "2"), "--rate-scale is for a trace"),
    ],
)
def test_wrong_use_is_told(
    words: tuple[str, ...],
    message: str,
    trace: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(trace) if word == "TRACE" else word for word in words]
    assert run(tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_past_of_a_resampled_trace_is_another_sample(trace: Path) -> None:
    case = trace_case(trace, FLEET, bootstrap=True)
    past = past_requests(case.scenario, bootstrap=True)
    (seed,) = seeds("train", 1)
    assert past == resample(case.scenario.requests(seed), seed)
    assert past != case.episode(seeds("evaluation", 1)[0]).table
    found = history_of(case.scenario, bootstrap=True)
    assert found is not None and found.fair_tokens_per_minute > 0
    assert history_of(case.scenario) is None


def test_rungs_are_told_true_answers_or_answers_within_half(trace: Path) -> None:
    table = trace_case(trace, FLEET, sigma=2.0).episode(1).table
    assert LADDER["vtc_predicted"].told(table, 1) is table
    told = LADDER["vtc_oracle"].told(table, 1)
    assert (told.predicted_output_tokens == table.output_tokens).all()
    near = LADDER["vtc_within_half"].told(table, 1)
    share = near.predicted_output_tokens / table.output_tokens
    large = table.output_tokens > 20
    assert 0.45 <= share[large].min() < 0.8 and 1.2 < share[large].max() <= 1.55
    assert near != LADDER["vtc_within_half"].told(table, 2)


def test_clients_retry_what_the_gate_of_minutes_turns_away() -> None:
    case = preset_case("throttling-a10g-copilot-retry", 400)
    plain = preset_case("throttling-a10g-copilot", 400)
    values = (("requests_per_minute", 5.0),)
    lost = {}
    for name in ("rpm_minute", "rpm_kill"):
        for each in (case, plain):
            requests = Throttle(name, values).run(each.episode(3)).requests
            lost[name, each.name] = int((requests["finish_ps"] < 0).sum())
    assert 0 < lost["rpm_minute", case.name] < lost["rpm_minute", plain.name]
    assert lost["rpm_kill", case.name] == lost["rpm_kill", plain.name] > 0


def test_weights_of_clients_reach_the_counters() -> None:
    episode = preset_case("throttling-vtc-weighted", 400).episode(2)
    served = Throttle("vtc").run(episode)
    assert set(episode.scenario.clients.weights.values()) == {1.0, 2.0, 3.0, 4.0}
    assert served.tenant_counters.min() > 0
