"""`servegym train-predictor` and `evaluate-predictor`, end to end on small files."""

import json

import pandas as pd
import pytest

from envs.workloads import router_mix
from scripts.cli import main
from tests.predictors.tiny import write


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), 240)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "small.yaml"
    path.write_text("{width: 16, layers: 1, hash_buckets: 512, last_words: 6, batch_size: 32}")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, prompts, small):
    folder = tmp_path_factory.mktemp("runs") / "text"
    words = ["--data", str(prompts), "--settings", small, "--epochs", "2", "-o", str(folder)]
    assert main(["train-predictor", *words, "--json"]) == 0
    return folder


def test_training_leaves_a_run_that_can_be_evaluated(run, prompts, tmp_path, capsys):
    assert {"config.yaml", "metadata.yaml", "best", "checkpoints"} <= {
        path.name for path in run.iterdir()
    }
    out = tmp_path / "out"
    words = ["--data", str(prompts), "--predictors", str(run), "majority", "-o", str(out)]
    assert main(["evaluate-predictor", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scores"]
    assert [row["predictor"] for row in found] == [str(run), "majority"]
    assert all(0 <= row["majority_rate"] <= 1 and row["latency_ms"] > 0 for row in found)
    assert len(pd.read_csv(out / "scores.csv")) == 2
    assert main(["evaluate-predictor", *words[:-2]]) == 0
    text = capsys.readouterr().out
    assert "majority" in text and "tau within task" in text and "below q95" in text


def test_what_was_trained_on_another_split_is_not_evaluated(run, prompts, capsys):
    words = ["--data", str(prompts), "--predictors", str(run), "--split-seed", "1"]
    assert main(["evaluate-predictor", *words]) == 2
    assert "with --split-seed 0" in capsys.readouterr().err


def test_a_finished_run_is_resumed_to_the_same_end(run, capsys):
    assert main(["train-predictor", "--resume", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 2
    assert main(["train-predictor", "--resume", str(run), "--epochs", "9"]) == 2
    assert "leave out --epochs" in capsys.readouterr().err


def test_a_trace_and_a_scenario_give_metadata_predictors(tmp_path, capsys):
    trace = router_mix(400, 8.0, 0).write(tmp_path / "trace.parquet")
    for source in (["--data", str(trace)], ["--scenario", "router-kv6k-rate9"]):
        folder = str(tmp_path / source[1].rpartition("/")[2].partition(".")[0])
        words = ["--epochs", "1", "-o", folder + "-run", "--json"]
        assert main(["train-predictor", *source, *words]) == 0
        assert json.loads(capsys.readouterr().out)["validation"]["tau"] > 0.1
    assert main(["evaluate-predictor", "--data", str(trace), "--predictors", "task_mean"]) == 0
    assert "task_mean" in capsys.readouterr().out


def test_each_task_is_left_out_in_turn(prompts, capsys):
    words = ["--data", str(prompts), "--predictors", "task_mean", "majority", "--transfer"]
    assert main(["evaluate-predictor", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scores"]
    assert {(row["task"], row["predictor"]) for row in found} == {
        (task, name) for task in ("essay", "report") for name in ("task_mean", "majority")
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --data FILE"),
        (["--data", "no.parquet"], "no.parquet"),
        (["--data", "P", "--model", "hash"], "did you mean hashed"),
        (["--data", "P", "--pretrained", "nowhere"], "Nothing is downloaded here"),
        (["--data", "P", "--buckets", "s3"], "--head classifier"),
        (["--data", "P", "--model", "majority", "--epochs", "3"], "--epochs is for models"),
        (["--data", "P", "--leave-out", "poems"], "no task 'poems'"),
    ],
)
def test_wrong_use_is_told(words, told, prompts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(prompts) if word == "P" else word for word in words]
    assert main(["train-predictor", *words]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/best"))
