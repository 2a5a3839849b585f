"""What a folder of results is told apart by, and that its files are whole."""

import shutil

import pandas as pd
import pytest

from envs.workloads import RequestTable, TraceError
from scripts.cli import main
from scripts.experiments import machine
from scripts.experiments.cases import trace_case
from scripts.experiments.contenders import Agent, Baseline
from scripts.experiments.store import Store
from tests.paths import ROOT
from tests.workloads import samples

FLEET = "v100-llama2-7b-x4"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the files that count."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("envs", "baselines", "agents"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "scripts" / "experiments").mkdir(parents=True)
    for name in ("bootstrap.py", "cases.py", "history.py"):
        shutil.copy(ROOT / "scripts" / "experiments" / name, tmp_path / "scripts/experiments")
    before = machine.code_hash()
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    assert machine.code_hash() == before
    return tmp_path


@pytest.mark.parametrize(
    ("name", "episodes", "agents"),
    [
        ("envs/hardware/data/calibration.csv", True, False),
        ("envs/workloads/data/azure_2023_code.csv", True, False),
        ("envs/scenarios/fleets/v100-llama2-7b-x4.yaml", True, False),
        ("envs/simulator/kernel.py", True, False),
        ("baselines/routing/tokens.py", True, False),
        ("scripts/experiments/bootstrap.py", True, False),
        ("scripts/experiments/cases.py", True, False),
        ("scripts/experiments/history.py", True, False),
        ("agents/evaluation.py", False, True),
    ],
)
def test_every_file_that_can_change_a_result_counts(project, tmp_path, name, episodes, agents):
    agent = Agent(tmp_path / "agents" / "hyperparameters")
    before = machine.code_identity(), agent.identity()
    with (project / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    after = machine.code_identity(), agent.identity()
    assert [a != b for a, b in zip(after, before, strict=True)] == [episodes, agents]


def test_results_of_another_numba_are_not_mixed(tmp_path, monkeypatch, capsys):
    words = ["benchmark", "routing", "--scenarios", "router-kv6k-rate9", "--routers", "jsq"]
    words += ["--seeds", "1", "--requests", "20", "--workers", "1", "-o", str(tmp_path / "out")]
    assert main(words) == 0
    real = machine.versions()
    monkeypatch.setattr(machine, "versions", lambda: real | {"numba": "0.0"})
    assert main(words) == 2
    assert "numba is" in capsys.readouterr().err


def test_an_agents_identity_has_the_packages_that_it_runs_on(tmp_path):
    (tmp_path / "policy.json").write_text("{}")
    assert {"files", "code", "torch", "sb3-contrib"} <= set(Agent(tmp_path).identity())


def test_both_files_of_servegen_count(tmp_path):
    path = samples.servegen(tmp_path)
    case = trace_case(path, FLEET)
    before = case.identity()
    lengths = next(tmp_path.glob("*_lengths_quantiles.parquet"))
    frame = pd.read_parquet(lengths)
    frame["q99"] += 1
    frame.to_parquet(lengths)
    assert case.identity() != before
    lengths.unlink()
    with pytest.raises(TraceError, match="lengths_quantiles"):
        case.identity()


def test_drawn_traces_are_told_from_recorded_ones(tmp_path):
    table = RequestTable.from_columns(arrival_s=[0.0, 1.0], prompt_tokens=3, output_tokens=3)
    table.write(tmp_path / "log.parquet")
    assert trace_case(tmp_path / "log.parquet", FLEET).recorded
    drawn = trace_case(samples.servegen(tmp_path), FLEET)
    assert not drawn.recorded
    assert drawn.episode(1).table != drawn.episode(2).table
    assert drawn.episode(1).table == drawn.episode(1).table


def test_labels_tell_all_parameters_apart():
    values = (0.3, 0.30000001, 1 / 3, 2, 1e-7, 123456789.0)
    labels = [Baseline.parse(f"pull:theta={value!r}").label for value in values]
    assert labels[0] == "pull:theta=0.3"
    assert labels[3] == "pull:theta=2"
    assert len(set(labels)) == len(labels)
    assert [dict(Baseline.parse(label).parameters)["theta"] for label in labels] == list(values)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_parameters_are_finite(value):
    with pytest.raises(ValueError, match="parameter=number"):
        Baseline.parse(f"pull:theta={value}")


def test_a_clock_does_not_run_backwards():
    assert Baseline.parse("jsq:decision_interval_s=0").policy().decision_interval_s == 0
    with pytest.raises(ValueError, match="is negative"):
        Baseline.parse("jsq:decision_interval_s=-1")


@pytest.mark.parametrize("name", ["summary.csv", "summary.parquet"])
def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch, name):
    store = Store(tmp_path)
    store.write_frame(name, pd.DataFrame({"a": [1, 2]}))
    whole = (tmp_path / name).read_bytes()

    def broken(frame, path, **options):
        path.write_bytes(b"a")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", broken)
    with pytest.raises(OSError, match="No space"):
        store.write_frame(name, pd.DataFrame({"a": [3]}))
    assert (tmp_path / name).read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [name]
