"""Scenarios over a recorded trace."""

import numpy as np
import pytest

from envs.scenarios import ScenarioError, load_scenario, parse_scenario
from envs.workloads import RequestTable, TraceError
from tests.paths import DATA, needs_data
from tests.workloads import samples

FLEET = {"groups": {"v100": {"preset": "v100-llama2-7b", "price_per_hour": 0.0}}}


@pytest.fixture
def recorded(tmp_path):
    table = RequestTable.from_columns(
        arrival_s=np.arange(10.0),
        prompt_tokens=np.arange(10) + 1,
        output_tokens=3,
        deadline_s=np.arange(10.0) + 4.0,
    )
    table.write(tmp_path / "trace.csv")
    return tmp_path / "trace.csv"


def build(path, seed=0, **options):
    workload = {"kind": "trace", "path": str(path), **options}
    return parse_scenario({"fleet": FLEET, "workload": workload}).build(seed)[0]


def test_a_trace_is_replayed_as_recorded(recorded):
    table = build(recorded)
    assert table.arrival_s.tolist() == list(range(10))
    assert table.prompt_tokens.tolist() == list(range(1, 11))


def test_a_part_is_taken_and_counts_from_its_start(recorded):
    table = build(recorded, start_s=3, duration_s=4, limit=3)
    assert table.prompt_tokens.tolist() == [4, 5, 6]
    assert table.arrival_s.tolist() == [0, 1, 2]
    assert table.deadline_s.tolist() == [4, 5, 6]


def test_a_faster_rate_keeps_the_time_that_a_request_may_take(recorded):
    table = build(recorded, rate_scale=2.0)
    assert table.arrival_s.tolist() == [k / 2 for k in range(10)]
    assert np.allclose(table.deadline_s - table.arrival_s, 4.0)


def test_a_seed_changes_the_predictions_only(recorded):
    one, other = build(recorded, seed=1), build(recorded, seed=2)
    assert np.array_equal(one.output_tokens, other.output_tokens)
    assert not np.array_equal(one.predicted_output_tokens, other.predicted_output_tokens)


def test_the_path_is_seen_from_the_file(recorded, monkeypatch):
    path = recorded.with_name("mine.yaml")
    path.write_text(
        "fleet: {groups: {a: {preset: v100-llama2-7b, price_per_hour: 0}}}\n"
        "workload: {kind: trace, path: trace.csv}\n",
        encoding="utf-8",
    )
    scenario = load_scenario(path)
    monkeypatch.chdir(recorded.parent.parent)
    assert len(scenario.build(0)[0]) == 10


def test_what_is_not_there_is_told(recorded):
    with pytest.raises(ScenarioError, match=r"no request .* the last one arrives at 9 s"):
        build(recorded, start_s=20)
    with pytest.raises(TraceError, match=r"absent.csv"):
        build(recorded.with_name("absent.csv"))
    with pytest.raises(ScenarioError, match=r"workload: format 'azur' is unknown"):
        build(recorded, format="azur")


def test_requests_are_drawn_from_servegen_whatever_tells_the_format(tmp_path):
    path = samples.servegen(tmp_path)
    one, again, other = (build(path, seed=seed, duration_s=600) for seed in (1, 1, 2))
    assert one == again
    assert not np.array_equal(one.arrival_s, other.arrival_s)
    assert one == build(path, seed=1, duration_s=600, format="servegen")
    # Client rates are scaled, time is not compressed.
    double = build(path, seed=1, duration_s=600, rate_scale=2.0)
    assert len(double) == 2 * len(one) == 720
    assert 500 < double.arrival_s[-1] < 600
    later = build(path, seed=1, start_s=600, duration_s=600)
    assert len(later) == 600
    assert later.arrival_s[-1] < 600


@needs_data
def test_the_azure_trace():
    assert DATA is not None
    (path,) = (DATA / "azure_llm_2023").glob("*code*")
    table = build(path, start_s=600, duration_s=600)
    assert 500 < len(table) < 4000
    assert table.arrival_s[-1] < 600
