"""`servegym validate`: measurements are read, compared, and told of whether they agree or not."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.simulator.served import Served
from scripts import validate
from scripts.cli import main
from scripts.validation import (
    a10g,
    configurations,
    fairserve,
    fairserve_cut,
    served,
    step_times,
    vllm_runs,
)
from scripts.validation.checks import COLUMNS, Band, Check, Section
from scripts.validation.closed_loop import CALLS, Harness, Load, calls, measure
from scripts.validation.engines import latencies
from scripts.validation.report import markdown, write
from scripts.validation.sampling import sampled
from tests.paths import DATA, needs_data


def test_a_band_is_a_share_or_a_distance() -> None:
    assert Band(0.1).allows(10.0, 11.0) and not Band(0.1).allows(10.0, 11.1)
    assert Band(0.1, absolute=2.0).allows(10.0, 12.0)
    assert not Band(absolute=2.0).allows(100.0, 103.0)
    assert Band(0.1, absolute=2.0).text("s") == "10 % or 2 s"
    bound = Band(at_most=40_000)
    assert bound.allows(8_000.0, 39_000.0) and not bound.allows(8_000.0, 41_000.0)
    assert bound.text("") == "at most 40,000"


def test_an_error_over_many_points_is_held_against_its_band() -> None:
    assert Check("a", "mean error", error=0.04, band=Band(0.05)).inside
    assert Check("a", "mean error", error=0.06, band=Band(0.05)).verdict == "OUTSIDE"
    assert Check("a", "mean error", error=0.06).inside is None


def test_rows_outside_their_band_are_written_too(tmp_path: Path) -> None:
    checks = [
        Check("run", "mean TTFT", 10.0, 12.0, "s", Band(0.1)),
        Check("run", "mean TPOT", 30.0, 31.0, "ms", Band(0.1)),
    ]
    below = [dataclasses.replace(check, setting="below") for check in checks]
    section = Section("vllm", "Runs <of> vLLM", ["about"], ["nothing"], checks, below)
    files = write(tmp_path / "out", [section], {"command": "validate"})
    page, text, table = (file.read_text(encoding="utf-8") for file in files)
    assert "2 rows, 1 outside" in page and "2 rows, 1 outside" in text
    assert "OUTSIDE" in page and text.count("OUTSIDE") == 2 and "Runs &lt;of&gt; vLLM" in page
    assert "+20.0%" in page and "http-equiv" in page
    rows = list(csv.DictReader(table.splitlines()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 4
    assert [row["verdict"] for row in rows] == ["OUTSIDE", "inside"] * 2
    assert "| Runs <of> vLLM | 1 | 2 | 1 | 2 |" in markdown([section])


def test_what_to_do_without_the_measurements(tmp_path: Path, capsys, monkeypatch) -> None:
    assert main(["validate", "--data", str(tmp_path / "absent")]) == 2
    shown = capsys.readouterr().err
    assert "absent: no such folder; name the folder of the measurements with --data" in shown
    monkeypatch.setenv("SERVEGYM_DATA", str(tmp_path))
    assert main(["validate", "--only", "vllm"]) == 2
    assert "has no vllm_runs, which the section vllm reads" in capsys.readouterr().err
    (tmp_path / "vllm_runs").mkdir()
    words = ["validate", "--only", "vllm", "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "vllm_runs: no run, which is a folder with a meta.json" in capsys.readouterr().err


def test_an_output_that_can_not_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(validate, "_run", lambda *_: pytest.fail("computed"))
    file = tmp_path / "file"
    file.touch()
    words = ["validate", "--data", str(tmp_path / "absent"), "--only", "fairserve", "-o"]
    assert main([*words, str(file)]) == 2
    assert "file is a file: name a folder with -o" in capsys.readouterr().err
    write(tmp_path, [Section("vllm", "vLLM", [], [], [Check("a", "b", 1.0, 1.0)])], {})
    assert main([*words, str(tmp_path)]) == 2
    assert "holds a page with the sections vllm besides" in capsys.readouterr().err
    # Without any measurements this section runs; here it gives an empty one.
    monkeypatch.setattr(validate, "_run", lambda *_: Section("fairserve", "F", [], [], []))
    assert main([*words, str(tmp_path), "--overwrite"]) == 0


def test_the_page_of_one_tiny_run(tmp_path: Path, capsys) -> None:
    # 60 requests at once on a small cache: the engine has to preempt.
    folder = tmp_path / "vllm_runs" / "RTX4090_tiny"
    folder.mkdir(parents=True)
    options = {"tensor_parallel_size": 1, "max_num_seqs": 64, "max_num_batched_tokens": 2048}
    meta = {
        "model": "meta-llama/Llama-3.1-8B",
        "engine_kwargs": options,
        "kv_cache": {"block_size": 16, "num_kv_tokens": 4_096},
        "started_at": "1970-01-01T00:00:00Z",
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    rows = [
        {
            "input_toks": 100,
            "output_toks": 60,
            "arrival_time": 0.0,
            "queued_ts": 5.0,
            "first_token_ts": 6.0 + i / 60,
            "last_token_ts": 9.0 + i / 60,
        }
        for i in range(60)
    ]
    with gzip.open(folder / "requests.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows))
    with gzip.open(folder / "timeseries.csv.gz", "wt") as file:
        file.write("t,running,waiting,kv_cache_pct\n1,30,30,99\n2,30,10,99\n3,5,0,20\n")
    out = tmp_path / "out"
    words = ["--data", str(tmp_path), "--only", "vllm", "-o", str(out), "--json"]
    assert main(["validate", *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["band"] for row in shown["details"]} == {""}
    assert {"mean TTFT", "p99 latency"} <= {row["quantity"] for row in shown["rows"]}
    assert "Plotly.newPlot" in (out / "report.html").read_text(encoding="utf-8")
    run = vllm_runs.read_run(folder)
    assert run.engine.kv_capacity_tokens == 4_096 and len(run.table) == 60
    assert vllm_runs.serve(run).requests["preemptions"].sum() > 0


def test_an_unknown_card_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "X1_model"
    folder.mkdir()
    (folder / "meta.json").write_text("{}")
    with gzip.open(folder / "requests.jsonl.gz", "wt") as file:
        file.write('{"queued_ts": 1.0}')
    with pytest.raises(ValueError, match="no GPU is known as 'X1'"):
        vllm_runs.read_run(folder)


@needs_data
def test_a_run_of_vllm_is_met() -> None:
    assert DATA is not None
    run = vllm_runs.read_run(DATA / "vllm_runs" / "RTX4090_Llama-3.1-8B")
    assert len(run.table) == 300 and run.engine.kv_capacity_tokens == 41_408
    assert run.ttft.mean() == pytest.approx(65.46, abs=0.01)
    result = vllm_runs.serve(run)
    simulated = latencies(result)
    for name in ("ttft", "tpot", "latency"):
        assert simulated[name].mean() == pytest.approx(getattr(run, name).mean(), rel=0.1)
    samples = sampled(run.table, run.engine)
    assert (np.diff(samples.seconds) == 1.0).all()
    assert samples.kv_tokens.max() <= run.engine.kv_capacity_tokens
    # Looking does not change what is seen: the last finish is where the samples end.
    last = result.requests["finish_ps"].max() / 1e12
    assert samples.seconds[-1] == pytest.approx(last, abs=1.1)
    assert samples.at(np.array([-1.0, 1e6]), samples.running).tolist() == [0.0, 0.0]


@needs_data
def test_a_run_of_the_a10g_is_met() -> None:
    assert DATA is not None
    runs = {run.name: run for run in a10g.read_runs(DATA / "vtc_a10g")}
    assert len(runs) == 13 and len(runs["real, vtc"].table) == 1_500
    run = runs["real, rpm20"]
    rows = {row.quantity: row for row in a10g.compare(run, a10g.serve(run))}
    assert rows["rejected requests"].measured == 342
    assert rows["mean service difference"].measured == pytest.approx(195.71, abs=0.01)
    assert all(row.inside for row in rows.values())


def _run(policy: str, waits_s: float) -> a10g.Run:
    """Two clients ask alike; one is served at once, the other waits."""
    arrival = np.repeat(np.arange(0.0, 600.0, 10.0), 2)
    tenant = np.tile([0, 1], 60)
    first = arrival + tenant * waits_s
    frame = pd.DataFrame(
        {
            "client_id": tenant,
            "arrival_s": arrival,
            "prompt_tokens": 100,
            "output_tokens": 100,
            "first_token_latency_s": first - arrival,
            "request_latency_s": first - arrival + 1.0,
        }
    )
    return a10g.Run(policy, "real", Served.measured(frame), a10g._table(frame))


def test_schedulers_that_swap_are_noticed() -> None:
    assert a10g.order_check([], []) is None
    fair, unfair = _run("vtc_predict", 1.0), _run("fcfs", 200.0)
    kept = a10g.order_check([fair, unfair], [fair.measured, unfair.measured])
    swapped = a10g.order_check([fair, unfair], [unfair.measured, fair.measured])
    assert kept is not None and kept.measured == 1 and kept.inside is True
    assert swapped is not None and swapped.simulated == 0 and swapped.inside is False


def test_runs_on_which_something_was_tuned_have_no_band(monkeypatch) -> None:
    runs = [_run("vtc", 1.0), _run("fcfs", 200.0)]
    monkeypatch.setattr(a10g, "read_runs", lambda _: runs)
    monkeypatch.setattr(a10g, "serve", lambda run, *_: run.measured)
    section = a10g.a10g_section(Path("."), lambda _: None)
    rows = {
        policy: [row for row in section.checks if row.case == f"real, {policy}"]
        for policy in ("vtc", "fcfs")
    }
    assert len(rows["vtc"]) == len(rows["fcfs"]) > 3
    assert all(row.band is None and "tuned on this run" in row.setting for row in rows["vtc"])
    assert any(row.band is not None for row in rows["fcfs"])
    # What repeats another row, or can not fail, is not counted.
    assert not [row for row in rows["fcfs"] if row.quantity == "rejected requests"]
    assert [r.band for r in rows["fcfs"] if r.quantity == "tokens per second"] == [None]


def test_a_pair_is_inside_with_all_its_rows_or_not() -> None:
    good, bad = (Check("a", "mean", error=error, band=Band(0.1)) for error in (0.05, 0.2))
    other = dataclasses.replace(good, case="b")
    free = Check("c", "mean", error=9.0)
    assert step_times.pairs_inside([good, bad, other, free]) == (1, 2)


def test_clients_send_one_call_after_the_other() -> None:
    load = Load(isl=200, osl=50, concurrency=4)
    fixed, varied = Harness("chunked", 2_048, 1.0), Harness("chunked", 2_048, 0.8)
    table = calls(load, fixed, seed=0)
    assert len(table) == 4 * CALLS and set(table.prompt_tokens) == {200}
    lengths = calls(load, varied, seed=0).output_tokens
    assert lengths.min() >= 40 and lengths.max() <= 50 and len(set(lengths)) > 5
    cost = a10g.engine("fcfs").cost
    alone = measure(cost, Load(200, 50, 1), fixed, seed=0)
    together = measure(cost, load, fixed, seed=0)
    assert together[0] > alone[0] and together[1] > alone[1]
    # One client alone waits for nobody: the first token takes one prefill step.
    step = cost.step_time(prefill_tokens=200, attention_work=200 * 201 / 2)
    assert alone[0] == pytest.approx(step, rel=1e-6)


@needs_data
def test_a_configuration_is_scored_on_points_that_taught_nothing() -> None:
    assert DATA is not None
    found = configurations.read_configurations(DATA)
    scored = [c.name for _, some in configurations.folds(found) for c in some]
    assert len(scored) == len(set(scored)) >= 20
    for teach, some in configurations.folds(found):
        assert not {c.name for c in teach} & {c.name for c in some}
    for one in found:
        assert one.pair not in {other.pair for other in configurations.other_pairs(one, found)}
    smallest = min(found, key=lambda c: int(c.points["batch_size"].sum()))
    learned = served.Learned(
        Harness("chunked", 8_192, 0.8), served.Outside(0.05, 0.0), frozenset(), ()
    )
    table = served.score(smallest, learned, seed=0)
    assert len(table) == len(smallest.points)
    assert (np.abs(table["tpot_ms"] / table["silicon_tpot_ms"] - 1)).mean() < 0.1
    assert math.isclose(learned.outside.of(table)[0], 0.05)
    unseen = served.score_unseen(smallest, learned, seed=0)
    assert (np.abs(unseen["tpot_ms"] / unseen["silicon_tpot_ms"] - 1)).mean() < 0.3
    taught = dataclasses.replace(learned, pairs=frozenset({smallest.pair}))
    with pytest.raises(ValueError, match="which is scored"):
        served.score_unseen(smallest, taught, seed=0)


def test_who_measured_is_read_from_the_measurements() -> None:
    exported = "source_file=2026-04-06.csv; model=Llama-3.1-70B; wip=False"
    assert configurations.campaign(exported) == configurations.INFERENCEMAX
    path = "source_file=/x/data/h100_sxm/trtllm/1.0.0rc3/Qwen.csv; silicon_concurrency=8"
    assert configurations.campaign(path) == "gap analysis 1.0.0rc3"
    with pytest.raises(ValueError, match="silicon_data_source 'other'"):
        configurations.campaign("other")


def test_tokens_that_are_sent_at_once_are_seen_late() -> None:
    points = pd.DataFrame(
        {
            "isl": [1024, 1024],
            "osl": [1024, 8192],
            "degree": [1, 1],
            "first_s": [0.1, 0.1],
            "between_s": [0.01, 0.01],
        }
    )
    seen = served.first_seen(points, frozenset({(1024, 1024, 1)}))
    assert seen == pytest.approx([0.29, 0.1])


def test_an_intake_before_the_scheduler_serves_in_order_of_arrival() -> None:
    rows = fairserve.compare("vtc", [fairserve.serve("vtc", seed=0)], "2 a step")
    assert [row.error for row in rows] == pytest.approx([0.0] * 4, abs=0.06)
    assert rows[3].simulated == pytest.approx(1.0, abs=0.01)
    # What the intake was chosen on counts for nothing.
    assert all(row.band is None for row in rows)


def test_fairserve_as_coded_throttles_few_calls_behind_an_intake() -> None:
    few, many = (fairserve.serve("oit10", 0, intake).rejected.sum() for intake in (2, 0))
    assert 0 < few < 100 < many
    found = fairserve_cut.cut_checks(
        "Table 3",
        {"oit10": fairserve_cut.TABLE_3["oit10"]},
        lambda policy: [fairserve.serve(policy, seed=0)],
        "2 a step",
    )
    by_name = {row.quantity: row for row in found}
    assert by_name["calls throttled"].simulated == few
    for name in ("calls", "interactions of several calls", "single calls"):
        assert abs(by_name[name].error) < 0.15
    assert all(row.band is None for row in found)
    rows = fairserve.compare("oit10", [fairserve.serve("oit10", seed=0)], "2 a step")
    assert rows[0].quantity == "calls finished"
