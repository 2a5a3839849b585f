"""`servegym benchmark speed`: it measures, says what else ran, and writes all rounds."""

import json

from scripts.cli import main


def test_replay_and_steps_are_measured(tmp_path, capfd):
    file = tmp_path / "speed.json"
    words = ["--parts", "replay", "env", "--requests", "500", "--rounds", "2", "--seconds", "0.05"]
    assert main(["benchmark", "speed", *words, "-o", str(file), "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    data = json.loads(file.read_text())
    assert shown["replay"] == data["replay"] and "start" not in data
    assert [(r["instances"], r["load"]) for r in data["replay"]] == [
        (n, load) for n in (4, 20, 64) for load in ("light", "saturated")
    ]
    assert all(len(r["per_s"]) == 2 and min(r["per_s"]) > 0 for r in data["replay"])
    assert data["env"]["ratio"] > 0
    assert {"load_average_1min", "cpus", "processor"} <= set(data["machine"])


def test_the_text_has_a_line_a_measurement(tmp_path, capsys):
    words = ["--parts", "replay", "--requests", "200", "--rounds", "1"]
    assert main(["benchmark", "speed", *words, "-o", str(tmp_path / "speed.json")]) == 0
    text = capsys.readouterr().out
    assert "load average" in text
    assert sum(line.startswith("replay, ") for line in text.splitlines()) == 6


def test_nothing_to_measure_is_refused(capsys):
    assert main(["benchmark", "speed", "--rounds", "0"]) == 2
    assert "--rounds must be more than 0" in capsys.readouterr().err
