"""`servegym simulate`: one run, its numbers and its files."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from envs.workloads import RequestTable
from scripts.cli import main

FLEET = """
groups:
  small: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 2000, max_num_seqs: 8}
"""


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    table = RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 5.0, 30)),
        prompt_tokens=np.append(rng.integers(1, 100, 29), 5000),
        output_tokens=rng.integers(1, 50, 30),
    )
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return str(table.write(tmp_path / "log.csv")), str(tmp_path / "fleet.yaml")


def simulate(*words):
    return main(["simulate", *words])


def test_a_trace_on_a_fleet(files, tmp_path, capsys):
    trace, fleet = files
    out = tmp_path / "out"
    assert simulate("--trace", trace, "--fleet", fleet, "--router", "jsq", "-o", str(out)) == 0
    text = capsys.readouterr().out
    assert "29 of 30 requests served, 1 rejected by 2 instances" in text
    assert "rejected: 1, exceeds the KV cache of every instance\n" in text
    summary = json.loads((out / "summary.json").read_text())
    requests = pd.read_parquet(out / "requests.parquet")
    e2e = (requests["finish_s"] - requests["arrival_s"]).mean()
    assert summary["e2e_mean_s"] == pytest.approx(e2e)
    assert (requests["status"] == "served").sum() == summary["served"] == 29
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["scenario"]["fleet"]["groups"]["small"]["count"] == 2
    assert config["router"] == "jsq" and config["seed"] == 0


def test_json_and_limit(files, capfd):
    trace, fleet = files
    assert simulate("--trace", trace, "--fleet", fleet, "--limit", "10", "--json") == 0
    data = json.loads(capfd.readouterr().out)
    assert data["requests"] == data["summary"]["served"] == 10


def test_predictions_and_queue_order_matter_to_policies_that_hold(files, capfd):
    trace, fleet = files

    def e2e(*words):
        base = ("--trace", trace, "--fleet", fleet, "--router", "pull:theta=1", "--json")
        assert simulate(*base, "--rate-scale", "50", *words) == 0
        return json.loads(capfd.readouterr().out)["summary"]["e2e_mean_s"]

    assert e2e() == e2e()
    assert e2e("--queue-order", "sjf", "--sigma", "0") < e2e("--queue-order", "fcfs")
    assert e2e("--queue-order", "sjf", "--seed", "1") != e2e("--queue-order", "sjf", "--seed", "2")


def test_a_scenario(capfd):
    words = ("--scenario", "router-kv6k-rate9", "--limit", "40", "--router", "round_robin")
    assert simulate(*words, "--json") == 0
    data = json.loads(capfd.readouterr().out)
    assert (data["scenario"], data["router"]) == ("router-kv6k-rate9", "round_robin")
    assert data["summary"]["arrived"] == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --trace"),
        (["--trace", "x.csv"], "--fleet"),
        (["--trace", "x.csv", "--fleet", "v100-llama2-7b-x4"], "x.csv"),
        (["--scenario", "router-kv6k-rate9", "--fleet", "x"], "not with --scenario"),
        (["--scenario", "router-kv6k-rate9", "--router", "jsk"], "jsq"),
    ],
)
def test_wrong_use_is_told_in_one_line(words, said, capsys):
    assert simulate(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
