"""`servegym benchmark routing`: paired, resumable, guarded, and honest about its intervals."""

import json
import re
import shutil
import sys
import types
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments import contenders
from scripts.experiments.bootstrap import resample

SCENARIO = "router-kv6k-rate9"
ROUTERS = ("round_robin", "jsq", "pull_sjf:theta=0.3")
FEW = 60


def run(folder, *words, seeds=5, routers=ROUTERS, scenarios=(SCENARIO,), requests=FEW):
    return main(
        ["benchmark", "routing", "--workers", "1", "--seeds", str(seeds), "-o", str(folder)]
        + (["--scenarios", *scenarios] if scenarios else [])
        + ["--routers", *routers, "--requests", str(requests), *words]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    assert run(folder, scenarios=(SCENARIO, "router-kv6k-rate8")) == 0
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.fixture
def served(monkeypatch):
    """The (seed, policy, table) of all full runs; compiling serves 20 requests."""
    seen = []
    real = contenders.Baseline.run

    def spy(self, episode):
        if len(episode.table) > 20:
            seen.append((episode.seed, self.label, episode.table))
        return real(self, episode)

    monkeypatch.setattr(contenders.Baseline, "run", spy)
    return seen


def test_a_first_look_is_short(tmp_path, capsys):
    words = ["--quick", "--scenarios", SCENARIO, "--routers", "jsq", "-o", str(tmp_path / "out")]
    assert main(["benchmark", "routing", *words]) == 0
    summary = pd.read_parquet(tmp_path / "out" / "summary.parquet")
    assert summary["seed"].nunique() == 2
    assert (summary["arrived"] == 300).all()
    assert main(["benchmark", "routing", *words, "--full"]) == 2
    assert "--quick and --full" in capsys.readouterr().err


def test_one_row_a_task_with_all_metrics(finished):
    summary = pd.read_parquet(finished / "summary.parquet")
    assert len(summary) == 2 * 3 * 5
    assert set(summary["router"]) == set(ROUTERS)
    assert not summary.duplicated(["scenario", "router", "seed"]).any()
    assert {"e2e_mean_s", "ttft_p99_s", "preemptions", "rejected", "unfinished"} <= set(summary)
    assert (summary["served"] + summary["rejected"] == FEW).all()
    again = pd.read_csv(finished / "summary.csv")
    pd.testing.assert_frame_equal(summary, again, check_dtype=False)


def test_the_table_has_a_mean_and_an_interval_for_every_metric(finished):
    summary = pd.read_parquet(finished / "summary.parquet")
    table = pd.read_csv(finished / "table.csv").set_index(["scenario", "router", "metric"])
    means = summary.groupby(["scenario", "router"])["e2e_mean_s"].mean()
    row = table.loc[(SCENARIO, "jsq", "e2e_mean_s")]
    base = means[SCENARIO, "round_robin"]
    assert row["mean"] == pytest.approx(means[SCENARIO, "jsq"])
    assert row["low"] < row["mean"] < row["high"]
    assert row["ratio_mean"] == pytest.approx(means[SCENARIO, "jsq"] / base - 1)


def test_requests_are_kept_and_fit_to_the_summary(finished):
    summary = pd.read_parquet(finished / "summary.parquet")
    one = summary.query("scenario == @SCENARIO and router == 'jsq'").iloc[0]
    requests = pd.read_parquet(finished / "requests" / f"{SCENARIO}.{one['seed']}.jsq.parquet")
    workload = RequestTable.read(finished / "workloads" / f"{SCENARIO}.{one['seed']}.parquet")
    assert list(requests["request_id"]) == list(workload.request_id)
    assert requests["finish_after_s"].mean() == pytest.approx(one["e2e_mean_s"], rel=1e-5)
    assert requests["preemptions"].sum() == one["preemptions"]
    together = pd.read_parquet(finished / "requests")
    means = together.groupby(["scenario", "router", "seed"], observed=True)["finish_after_s"].mean()
    assert means[SCENARIO, "jsq", one["seed"]] == pytest.approx(one["e2e_mean_s"], rel=1e-5)
    assert len(means) == len(summary)


def test_the_configuration_says_how_it_was_made(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["seeds"] == list(range(1_000_000, 1_000_005))
    assert {"command", "date", "machine", "versions", "hash", "options"} <= set(config)
    identity = config["identity"]
    assert identity["scenarios"][SCENARIO]["workload"]["requests"] == FEW
    assert identity["routers"]["pull_sjf:theta=0.3"]["parameters"] == {"theta": 0.3}


def test_all_policies_serve_the_same_requests_and_predictions(tmp_path, served):
    assert run(tmp_path, seeds=2) == 0
    by_seed = {}
    for seed, _, table in served:
        by_seed.setdefault(seed, []).append(table)
    assert [len(tables) for tables in by_seed.values()] == [3, 3]
    for tables in by_seed.values():
        assert all(table == tables[0] for table in tables)
        assert (tables[0].predicted_output_tokens != tables[0].output_tokens).any()
    first, second = (tables[0] for tables in by_seed.values())
    assert first != second


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys, served):
    real = contenders.Baseline.run

    def killed(self, episode):
        if len(served) == 4:
            raise KeyboardInterrupt
        return real(self, episode)

    with monkeypatch.context() as patch:
        patch.setattr(contenders.Baseline, "run", killed)
        assert run(tmp_path, seeds=3) == 130
    assert "interrupted: 4 results are kept" in capsys.readouterr().err
    assert run(tmp_path, seeds=3) == 0
    assert len(served) == 9
    assert len({(seed, router) for seed, router, _ in served}) == 9
    assert run(tmp_path, seeds=3) == 0
    assert len(served) == 9
    broken_off = pd.read_parquet(tmp_path / "summary.parquet").drop(columns="wall_s")
    assert run(tmp_path / "whole", seeds=3) == 0
    whole = pd.read_parquet(tmp_path / "whole" / "summary.parquet").drop(columns="wall_s")
    pd.testing.assert_frame_equal(broken_off, whole)


def test_seeds_and_policies_may_be_added(tmp_path, served):
    assert run(tmp_path, seeds=1, routers=ROUTERS[:2]) == 0
    assert run(tmp_path, seeds=2, routers=ROUTERS) == 0
    assert len(served) == 6
    assert len(pd.read_parquet(tmp_path / "summary.parquet")) == 6


def test_damaged_results_are_made_again(tmp_path, served):
    assert run(tmp_path, seeds=1) == 0
    next((tmp_path / "requests").glob("*.jsq.parquet")).write_bytes(b"PAR1 cut")
    assert run(tmp_path, seeds=1) == 0
    assert [router for _, router, _ in served[3:]] == ["jsq"]


def test_results_of_other_settings_are_not_mixed(tmp_path, capsys, served):
    assert run(tmp_path, seeds=1) == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path, seeds=1, requests=FEW + 1) == 2
    message = capsys.readouterr().err
    assert f"scenarios.{SCENARIO}.workload.requests is 60 there and 61 now" in message
    assert "--overwrite" in message
    assert run(tmp_path, "--no-requests", seeds=1) == 2
    assert "requests_kept is true there and false now" in capsys.readouterr().err
    assert len(served) == 3
    assert run(tmp_path, "--overwrite", seeds=1, requests=FEW + 1) == 0
    assert len(served) == 6
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "config.yaml").unlink()
    assert run(tmp_path, seeds=1, requests=FEW + 1) == 2
    assert "nobody knows what made the results" in capsys.readouterr().err


def test_processes_change_nothing(finished, tmp_path):
    assert run(tmp_path, "--workers", "2", scenarios=(SCENARIO, "router-kv6k-rate8")) == 0
    here, there = (
        pd.read_parquet(folder / "summary.parquet").drop(columns="wall_s")
        for folder in (finished, tmp_path)
    )
    pd.testing.assert_frame_equal(here, there)


def test_without_requests_only_summaries_are_kept(tmp_path):
    assert run(tmp_path, "--no-requests", seeds=1) == 0
    assert not (tmp_path / "workloads").exists()
    assert all(len(pd.read_parquet(p)) == 0 for p in (tmp_path / "requests").iterdir())
    assert (tmp_path / "report.html").exists()


def test_json_is_all_that_stands_on_stdout(tmp_path, capfd):
    assert run(tmp_path, "--json") == 0
    data = json.loads(capfd.readouterr().out)
    (result,) = data["results"]
    routers = [row["router"] for row in result["routers"]]
    assert (result["scenario"], result["reference"], result["seeds"]) == (
        SCENARIO,
        "round_robin",
        5,
    )
    assert sorted(routers) == sorted(ROUTERS)
    e2e = [row["metrics"]["e2e_mean_s"] for row in result["routers"]]
    assert [m["mean"] for m in e2e] == sorted(m["mean"] for m in e2e)
    assert all(m["low"] <= m["mean"] <= m["high"] for m in e2e)


def test_the_printed_table_fits_into_120_columns(copied, capsys):
    assert run(copied, scenarios=(SCENARIO,)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    text = "\n".join(lines)
    assert all(word in text for word in ("e2e s [95%]", "rej.", "empt", "tok/s", *ROUTERS))
    assert "do not fit" not in text
    assert re.search(r"round_robin +\S+ \[\S+, \S+\] +reference", text)


def test_chosen_metrics_are_printed(copied, capsys):
    assert run(copied, "--metrics", "tbt_p99_s") == 0
    text = capsys.readouterr().out
    assert "tbt" in text and "empt" not in text
    assert run(copied, "--metrics", "tbt_p98_s") == 2
    assert "tbt_p99_s" in capsys.readouterr().err


def test_few_seeds_are_shown_without_interval(tmp_path, capsys):
    assert run(tmp_path, seeds=2) == 0
    text = capsys.readouterr().out
    assert "n<5" in text and "[" not in text.replace("[95%]", "")
    assert "too few" in (tmp_path / "report.html").read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Counts what is open, and notes what a page would load."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [value for key, value in attrs if key in ("src", "href")]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_whole_file(finished):
    text = (finished / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert all(target.startswith("#") for target in checker.loaded)
    assert {target[1:] for target in checker.loaded} <= set(checker.ids)
    assert len(set(checker.ids)) == len(checker.ids)
    assert text.count("plotly.js v") == 1
    assert {"load-0", "bars-0", "trade-off-0", "bars-1", "trade-off-1"} <= set(checker.ids)
    assert all(name in text for name in (*ROUTERS, SCENARIO, "router-kv6k-rate8"))


def test_an_agent_is_one_more_row_and_any_name_is_escaped(tmp_path, monkeypatch, capsys):
    calls = []

    def run_agent(folder, table, scenario, seed):
        calls.append((folder, scenario.name, seed))
        router = contenders.find_router("jsq", {})
        from scripts.experiments.cases import Episode

        _, engines = scenario.build(seed)
        return Episode(scenario, seed, table, engines).run(router)

    monkeypatch.setattr(contenders.Agent, "check", lambda self, scenarios: None)
    monkeypatch.setitem(
        sys.modules, "agents.evaluation", types.SimpleNamespace(run_agent=run_agent)
    )
    agent = tmp_path / "<img src='http:x'> & co"
    agent.mkdir()
    (agent / "policy.bin").write_bytes(b"1")
    out = tmp_path / "out"
    assert run(out, "--agent", str(agent), seeds=2) == 0
    assert calls == [(agent, SCENARIO, seed) for seed in (1_000_000, 1_000_001)]
    summary = pd.read_parquet(out / "summary.parquet")
    label = f"agent:{agent.name}"
    a, b = (summary.query("router == @r")["e2e_mean_s"].tolist() for r in (label, "jsq"))
    assert a == b
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img" in text
    (agent / "policy.bin").write_bytes(b"2")
    capsys.readouterr()
    assert run(out, "--agent", str(agent), seeds=2) == 2
    assert "files is" in capsys.readouterr().err
    assert run(out, "--agent", str(tmp_path / "none"), seeds=2) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.fixture
def trace(tmp_path):
    rng = np.random.default_rng(0)
    table = RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 10.0, FEW)),
        prompt_tokens=rng.integers(1, 200, FEW),
        output_tokens=rng.integers(1, 200, FEW),
    )
    return table.write(tmp_path / "log.csv")


def test_a_trace_varies_only_in_predictions_and_says_so(tmp_path, trace, capsys, served):
    assert run(tmp_path / "out", "--trace", str(trace), scenarios=(), seeds=2) == 0
    assert "only predicted lengths and randomised routers vary" in capsys.readouterr().out
    first, *_, last = (table for _, _, table in served)
    assert (first.arrival_s == last.arrival_s).all()
    assert (first.predicted_output_tokens != last.predicted_output_tokens).any()
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "only predicted lengths" in report and "log.csv" in report


def test_a_trace_can_be_resampled_and_scaled(tmp_path, trace, capsys, served):
    words = ("--trace", str(trace), "--bootstrap-trace", "--rate-scale", "2")
    assert run(tmp_path / "out", *words, scenarios=(), seeds=2) == 0
    assert "only predicted lengths" not in capsys.readouterr().out
    first, *_, last = (table for _, _, table in served)
    assert (first.prompt_tokens != last.prompt_tokens).any()
    assert first.arrival_s[-1] < 8.0


def test_resampled_traces_keep_blocks_and_gaps():
    n = 400
    table = RequestTable.from_columns(
        arrival_s=np.arange(n) * 0.5,
        prompt_tokens=np.arange(1, n + 1),
        output_tokens=np.arange(1, n + 1),
        deadline_s=np.arange(n) * 0.5 + 3.0,
    )
    drawn = resample(table, seed=3)
    assert len(drawn) == n and drawn == resample(table, seed=3) != resample(table, seed=4)
    assert np.diff(drawn.arrival_s) == pytest.approx(0.5)
    assert drawn.deadline_s - drawn.arrival_s == pytest.approx(3.0)
    follows = np.diff(drawn.prompt_tokens) % n == 1
    assert 0.94 <= follows.mean() < 1.0
    assert (drawn.prompt_tokens == drawn.output_tokens).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--routers", "jsk"], "jsq"),
        (["--routers", "pull_sjf:theta"], "parameter=number"),
        (["--routers", "jsq:theta=1"], "no parameter"),
        (["--scenarios", "router-kv6k-rate99"], "router-kv6k-rate9"),
        (["--seeds", "0"], "seeds"),
        (["--workers", "0"], "--workers 0"),
        (["--rate-scale", "2"], "give --trace too"),
        (["--trace", "none.csv"], "none.csv"),
        (["--trace", "none.csv", "--scenarios", SCENARIO], "give one of them"),
        (["--scenarios", SCENARIO, SCENARIO], "given twice"),
        (["--slo-ttft", "0"], "--slo-ttft 0"),
        (["--routers", "none.py:mine"], "none.py: cannot be read"),
        (["--routers", "mine.py"], "write FILE.py:NAME"),
    ],
)
def test_wrong_use_is_told_in_one_line(words, said, tmp_path, capsys):
    assert main(["benchmark", "routing", "-o", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_policies_are_read_as_they_name_themselves():
    parse = contenders.Baseline.parse
    assert parse("pull(theta=0.3)") == parse("pull:theta=0.3")
    assert parse("jsq+sjf").policy().queue_order == "sjf"
    assert parse(parse("min_min").label) == parse("min_min")
    for name in contenders.standard_routers():
        assert parse(parse(name).label) == parse(name)
