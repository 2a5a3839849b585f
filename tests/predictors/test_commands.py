"""`servegym train-predictor` and `evaluate-predictor`, end to end on small files."""

import json

import pandas as pd
import pytest

from envs.workloads import router_mix
from envs.workloads.prompts import read_prompts, split
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
    least = {"--data": -1.0, "--scenario": 0.1}  # the trace is too short to learn from
    for source in (["--data", str(trace)], ["--scenario", "router-kv6k-rate9"]):
        folder = str(tmp_path / source[1].rpartition("/")[2].partition(".")[0])
        words = ["--epochs", "1", "-o", folder + "-run", "--json"]
        assert main(["train-predictor", *source, *words]) == 0
        assert json.loads(capsys.readouterr().out)["validation"]["tau"] > least[source[0]]
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


def benchmark(folder, *words):
    rest = ["--seeds", "1", "--workers", "1", "--json", "-o", str(folder)]
    return main(["benchmark", "routing", *words, *rest])


def routers_of(text):
    (result,) = json.loads(text)["results"]
    return {row["router"]: row["metrics"] for row in result["routers"]}


def test_policies_that_read_lengths_are_told_each_prediction(tmp_path, capsys):
    sources = ["oracle", "metadata", "metadata:quantile=0.9", "sigma=0.5", "majority", "none"]
    words = ["--scenarios", "router-kv4k-rate8", "--requests", "300", "--predictor", *sources]
    assert benchmark(tmp_path / "out", *words, "--routers", "pull_sjf", "jsq") == 0
    found = routers_of(capsys.readouterr().out)
    assert set(found) == {"jsq", "round_robin", *(f"pull_sjf@{name}" for name in sources)}
    means = {name: found[f"pull_sjf@{name}"]["e2e_mean_s"]["mean"] for name in sources}
    assert len(set(means.values())) == len(means) and means["oracle"] < means["none"]


def test_engines_that_reserve_by_predictions_reserve_the_quantile(tmp_path, capsys):
    words = ["--scenarios", "router-kv4k-rate8", "--requests", "300", "--routers", "jsq"]
    sources = ["none", "metadata:quantile=0.9", "oracle"]
    words += ["--predictor", *sources, "--admission", "reserve"]
    assert benchmark(tmp_path / "out", *words) == 0
    found = routers_of(capsys.readouterr().out)
    lost = [found[f"jsq@{name}"]["preemptions"]["mean"] for name in sources]
    assert lost[0] > lost[1] > lost[2] == 0


def test_text_predictors_serve_prompts_that_they_never_saw(run, prompts, tmp_path, capsys):
    scenario = tmp_path / "mine.yaml"
    scenario.write_text(
        "extends: router-kv4k-rate8\n"
        f"workload: {{kind: prompts, path: {prompts}, rate: 9, requests: 40}}\n"
    )
    words = ["--routers", "pull_sjf", "--predictor", str(run), "majority"]
    assert benchmark(tmp_path / "out", "--scenarios", str(scenario), *words) == 0
    found = routers_of(capsys.readouterr().out)
    assert set(found) == {"round_robin", f"pull_sjf@{run.name}", "pull_sjf@majority"}
    table = pd.read_parquet(next((tmp_path / "out" / "workloads").glob("*.parquet")))
    parts = split(read_prompts(prompts))
    assert set(table["request_id"]) <= set(parts["test"].tolist())
    scenario.write_text(scenario.read_text().replace("rate: 9", "rate: 9, split_seed: 1"))
    assert benchmark(tmp_path / "other", "--scenarios", str(scenario), *words) == 2
    assert "--split-seed 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sigma"], "sigma=0.5"),
        (["sigma=-1"], "sigma=0.5"),
        (["oracle:quantile=0.5"], "a trained predictor has quantiles"),
        (["metadata:quantile=2"], "within 0 and 1"),
        (["nowhere"], "no predictor 'nowhere'"),
        (["RUN"], "kind prompts"),
    ],
)
def test_faulty_predictors_are_told_before_anything_runs(words, told, run, tmp_path, capsys):
    words = [str(run) if word == "RUN" else word for word in words]
    assert (
        benchmark(tmp_path / "out", "--scenarios", "router-kv4k-rate8", "--predictor", *words) == 2
    )
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
