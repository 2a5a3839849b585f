"""`servegym benchmark speed`: it measures, says what else ran, and writes all rounds."""

import json

import pytest

from scripts.cli import main
from scripts.experiments.children import in_child
from scripts.experiments.speed import exponent
from scripts.experiments.speed_text import speed_text


def benchmark(*words):
    return main(["benchmark", "speed", *map(str, words)])


def test_every_part_is_measured(tmp_path, capfd):
    file = tmp_path / "speed.json"
    assert benchmark("--quick", "--requests", 5000, "--seconds", 0.2, "-o", file, "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    data = json.loads(file.read_text())
    assert shown["replay"] == data["replay"] and "start" not in data and data["quick"]
    assert [(r["instances"], r["load"]) for r in data["replay"]] == [
        (n, load) for n in (1, 4, 64) for load in ("light", "saturated")
    ]
    for r in data["replay"] + data["growth"] + data["together"]:
        assert len(r["per_s"]) == 1 and min(r["per_s"]) > 0
        assert r["events_per_s"] > r["median_per_s"] and r["output_tokens_per_s"] > 0
        assert r["peak_memory_bytes"] > r["own_memory_bytes"] >= 0
    sizes = [(r["instances"], r["requests"]) for r in data["growth"]]
    assert sizes == [(n, requests) for n in (4, 64) for requests in (125, 500, 2000)]
    assert len(data["together"]) == 2
    assert min(data["vector"]["median_compiled_per_s"], data["vector"]["median_step_per_s"]) > 0
    assert data["env"]["ratio"] > 0
    assert {"load_average_1min", "cpus", "processor"} <= set(data["machine"])


def test_the_text_has_a_line_a_measurement(tmp_path, capsys):
    words = ["--quick", "--parts", "replay", "growth", "together", "--requests", 500]
    assert benchmark(*words, "-o", tmp_path / "speed.json") == 0
    text = capsys.readouterr().out
    assert "load average" in text and "instances^" in text and "requests^" in text
    assert sum(" instances, saturated" in line for line in text.splitlines()) == 3
    assert "both / one alone" in text


def test_a_quick_look_replaces_no_measurement(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "benchmark-speed.json").write_text("measured")
    assert benchmark("--quick", "--parts", "env", "--seconds", 0.1) == 0
    assert "written: runs/benchmark-speed-quick.json" in capsys.readouterr().out
    assert (tmp_path / "runs" / "benchmark-speed.json").read_text() == "measured"


def test_missed_floors_are_marked():
    host = {"processor": "p", "cpus": 1, "load_average_1min": 0}
    data = {"machine": host, "load_average_at_end": 0}
    slow = {
        "copies": 64,
        "median_compiled_per_s": 2e6,
        "median_between_per_s": 1.1e6,
        "median_step_per_s": 9e5,
    }
    start = {"cold_s": 61.0, "warm_s": 1.0}
    text = speed_text(data | {"vector": slow, "start": start})
    assert text.count("missed") == 2
    assert "1,000,000: missed" in text and "60 s at most: missed" in text
    assert "missed" not in speed_text(data | {"vector": slow | {"median_step_per_s": 1.1e6}})


@pytest.mark.parametrize("name", ["rounds", "requests", "seconds"])
def test_nothing_to_measure_is_refused(name, capsys):
    assert benchmark(f"--{name}", 0) == 2
    assert f"--{name} must be more than 0" in capsys.readouterr().err


def test_a_failure_in_a_child_is_told():
    assert in_child(exponent, [1.0, 10.0, 100.0], [3.0, 30.0, 300.0]) == pytest.approx(1.0)
    with pytest.raises(RuntimeError, match="failed: TypeError"):
        in_child(exponent, None, [1.0])


def test_a_fleet_that_is_scaled_is_measured(tmp_path, capsys):
    words = ["--quick", "--parts", "scaling", "week"]
    assert benchmark(*words, "-o", tmp_path / "speed.json") == 0
    data = json.loads((tmp_path / "speed.json").read_text())
    assert data["scaling"]["epochs"] == 96 and data["scaling"]["steps_per_s"] > 0
    assert data["week"]["requests"] > 100_000 and data["week"]["decisions"] == 7 * 24 * 240
    text = capsys.readouterr().out
    assert "places, reactive: drawn and run" in text and "peak memory" in text
