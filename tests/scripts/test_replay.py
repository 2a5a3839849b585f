"""`servegym replay`: a stream served as `servegym simulate` would, and written as it comes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from envs.scenarios import load_fleet
from envs.simulator import simulate
from envs.workloads import RequestTable
from scripts.cli import main
from scripts.experiments.contenders import find_router

FLEET = "groups:\n  small: {count: 2, preset: v100-llama2-7b, kv_capacity_tokens: 2000}\n"


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return str(path)


def sample() -> RequestTable:
    rng = np.random.default_rng(0)
    return RequestTable.from_columns(
        arrival_s=np.sort(rng.uniform(0.0, 50.0, 300)),
        prompt_tokens=np.append(rng.integers(1, 100, 299), 5000),
        output_tokens=rng.integers(1, 80, 300),
    ).with_predictions()


def replay(*words: object) -> int:
    return main(["replay", *map(str, words)])


def read(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return frame.sort_values("row").reset_index(drop=True)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz"])
def test_outcomes_are_those_of_a_simulation(
    ending: str, fleet: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace, out = sample().write(tmp_path / "log.csv"), tmp_path / f"out{ending}"
    words = ("--fleet", fleet, "--router", "pull", "--queue-order", "sjf", "--json")
    assert replay(trace, *words, "--rows", 37, "-o", out) == 0
    data = json.loads(capfd.readouterr().out)
    engines = load_fleet(fleet).engines()
    whole = simulate(sample(), engines, find_router("pull", {}), queue_order="sjf")
    frame, expected = read(out), whole.to_frame()
    assert frame["row"].tolist() == list(range(300))
    np.testing.assert_array_equal(frame["arrival_s"], whole.requests["arrival_ps"] / 1e12)
    for name in ("dispatch_s", "admit_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(frame[name], expected[name])
    for name in ("prompt_tokens", "output_tokens", "instance", "preemptions"):
        assert frame[name].tolist() == expected[name].tolist()
    assert frame["status"].tolist() == expected["status"].tolist()
    summary = whole.summary()
    assert data["summary"]["served"] == summary["served"] == 299
    assert data["summary"]["e2e_p90_s"] == pytest.approx(summary["e2e_p90_s"], rel=0.05)
    assert data["peak_memory_bytes"] > 2**20
    assert data["written_bytes"] == out.stat().st_size


def test_text_of_a_synthetic_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder" / "out.parquet"
    words = ("--requests", 2000, "--rate", 6, "--rows", 500)
    assert replay(*words, "-o", out) == 0
    text = capsys.readouterr().out
    assert "jsq: 2,000 of 2,000 requests served by 4 instances" in text
    assert (
        "fleet: 4 x Llama-2-7B" in text and "step times:" in text and "requests within" not in text
    )
    assert "requests/s" in text and "peak memory" in text and "out.parquet" in text
    assert pq.ParquetFile(out).num_row_groups == 5
    assert replay(*words, "-o", out) == 2
    assert "out.parquet exists" in capsys.readouterr().err
    assert replay(*words, "-o", out, "--overwrite", "--seed", 1) == 0
    assert len(read(out)) == 2000


def test_objectives_are_told_as_by_simulate(
    fleet: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = sample().write(tmp_path / "log.parquet")
    limits = ("--slo-ttft", 0.5, "--slo-e2e", 20)
    assert replay(trace, "--fleet", fleet, *limits) == 0
    shown = capfd.readouterr().out
    assert main(["simulate", "--trace", str(trace), "--fleet", fleet, *map(str, limits)]) == 0
    simulated = capfd.readouterr().out
    (line,) = (line for line in shown.splitlines() if "requests within" in line)
    assert line.split() in [other.split() for other in simulated.splitlines()]
    told = "\nrejected: 1, exceeds the KV cache of every instance\n"
    assert told in shown and told in simulated
    assert replay(trace, "--fleet", fleet, "--json") == 0
    assert "good_requests" not in json.loads(capfd.readouterr().out)["summary"]
    assert replay(trace, "--fleet", fleet, *limits, "--json") == 0
    found = json.loads(capfd.readouterr().out)["summary"]
    assert found["slo_attainment"] == found["good_requests"] / 300


@pytest.mark.parametrize("option", ["queue: edf", "prefix_cache: true", "adapter_tokens: 5"])
def test_what_a_stream_cannot_have_is_named(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET.replace("2000}", f"2000, {option}}}"))
    assert replay("--requests", 5, "--rate", 1, "--fleet", path) == 2
    error = capsys.readouterr().err
    assert option.partition(":")[0] in error and f"--fleet {path}" in error


def test_parts_change_nothing(fleet: str, tmp_path: Path) -> None:
    trace = sample().write(tmp_path / "log.parquet")
    frames = []
    for rows in (1, 50, 10_000):
        out = tmp_path / f"{rows}.parquet"
        assert replay(trace, "--fleet", fleet, "--rows", rows, "-o", out) == 0
        frames.append(read(out))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def test_ctrl_c_keeps_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.parquet"
    usual = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        while not out.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert replay("--requests", 10**7, "--rate", 6, "--rows", 5000, "-o", out) == 130
    thread.join()
    assert signal.getsignal(signal.SIGINT) is usual
    rows = len(read(out))
    assert 0 < rows < 10**7
    assert f"stopped with {rows:,} requests served or rejected" in capsys.readouterr().err


def test_predictions_are_those_of_the_trace_or_drawn(tmp_path: Path) -> None:
    bare = sample().to_frame()[["arrival_s", "prompt_tokens", "output_tokens"]]
    traces = {"told": sample(), "bare": RequestTable.from_frame(bare)}

    def finish(trace: str, *words: object) -> list[float]:
        path, out = traces[trace].write(tmp_path / "log.parquet"), tmp_path / "out.parquet"
        words = (*words, "--router", "pull", "--queue-order", "sjf", "--overwrite")
        assert replay(path, *words, "-o", out) == 0
        frame: list[float] = read(out)["finish_s"].tolist()
        return frame

    assert finish("told") == finish("told", "--seed", 1)
    assert finish("bare") == finish("bare", "--sigma", 0.5)


def test_a_fault_in_the_middle_keeps_what_was_written(
    fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = sample().write(tmp_path / "log.csv").read_text().splitlines()
    lines[200] = "0.0" + lines[200][lines[200].index(",") :]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    out = tmp_path / "out.csv"
    assert replay(tmp_path / "log.csv", "--fleet", fleet, "--rows", 50, "-o", out) == 2
    error = capsys.readouterr().err
    assert "line 201, column 'arrival_s'" in error and "Sort the trace by arrival" in error
    assert 50 < len(read(out)) < 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give TRACE, or --requests"),
        (["log.csv", "--requests", "5"], "log.csv and --requests 5 are both given: give one"),
        (["log.csv"], "log.csv: the file does not exist"),
        (["log.csv", "--rate", "5"], "--rate goes with --requests"),
        (["--requests", "5"], "--requests needs --rate"),
        (["--requests", "5", "--rate", "1", "--rows", "0"], "--rows 0"),
        (["--requests", "5", "--rate", "1", "--sigma", "-1"], "--sigma -1"),
        (["--requests", "5", "--rate", "1", "-o", "out.txt"], "let the name end in .parquet"),
        (["--requests", "5", "--rate", "1", "--router", "jsk"], "jsq"),
        (["--requests", "0", "--rate", "1"], "a stream of 0 requests"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
