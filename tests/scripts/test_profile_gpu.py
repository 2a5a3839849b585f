"""Timing steps of a layer stack on the CPU: what it computes, and what it writes."""

import json
import math

import pandas as pd
import pytest
import torch

from envs.hardware.calibration import read_calibration, write_calibration
from envs.hardware.fitting.rows import calibration_row
from envs.hardware.fitting.steps import fit_steps
from scripts.cli import main
from scripts.profiling import steps
from scripts.profiling.clock import Timing
from scripts.profiling.grid import Point
from tests.scripts.tiny_model import stack_of, write_config

GRID = {
    "decode-batches": "1 4 16",
    "contexts": "8 256",
    "chunks": "4 16 64",
    "histories": "0 64",
    "mixed-batches": "2 4 8",
    "mixed-contexts": "16",
    "mixed-chunks": "16 64",
}


SETTINGS = steps.Settings(
    gpu="cpu",
    precision="fp32",
    layers=0,
    graphs="never",
    warmup=1,
    repeats=3,
    budget_s=1.0,
    settle_s=0.0,
    seed=0,
)


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


@pytest.fixture
def words(config, tmp_path):
    found = ["profile-gpu", "--model", str(config), "--device", "cpu", "--repeats", "3"]
    found += ["--warmup", "1", "-o", str(tmp_path / "steps.csv")]
    for name, values in GRID.items():
        found += [f"--{name}", *values.split()]
    return found


def test_profile_then_fit_gives_a_cost_model(words, tmp_path, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in ("decode", "prefill", "mixed"))
    path = tmp_path / "steps.csv"
    rows = pd.read_csv(path)
    assert len(rows) == 18 and (rows["seconds"] > 0).all()
    assert (rows["p10_s"] <= rows["seconds"]).all() and (rows["seconds"] <= rows["p90_s"]).all()
    notes = json.loads((tmp_path / "steps.csv.json").read_text())
    assert notes["identity"]["layers_timed"] == 4 and notes["attention"] == "lower_right"
    assert notes["clocks"] and notes["date"] and "whole steps" in notes["how"]

    (fit,) = fit_steps([path], seed=0)
    assert fit.cost.name == "tiny/cpu/tp1/torch/fp32" and set(fit.errors) == {
        "prefill",
        "decode",
        "mixed",
    }
    coefficients = {k: v for k, v in vars(fit.cost).items() if k.endswith("_s") and v is not None}
    assert all(math.isfinite(value) for value in coefficients.values())
    assert fit.cost.weights_s + fit.cost.token_s > 0
    assert (fit.cost.fit_seqs, fit.cost.fit_context, fit.cost.points) == (16, 256, 18)
    table = tmp_path / "calibration.csv"
    write_calibration(table, [calibration_row(fit)])
    ((cost, row),) = read_calibration(table)
    assert cost.tables(16, 64).decode_ps.min() > 0 and row["dataset"] == "steps"


def test_a_run_is_continued(words, tmp_path, capsys):
    path = tmp_path / "steps.csv"
    assert main(words) == 0
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-1][:12])  # one row lost, one torn
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["measured"], told["held"]) == (2, 16)
    assert path.read_text().startswith("".join(lines[:-2]))
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 0


def test_rows_of_other_settings_are_not_mixed(words, tmp_path, capsys):
    assert main(words) == 0
    assert main([*words, "--layers", "2"]) == 2
    assert "timed with another layers_timed" in capsys.readouterr().err
    assert main([*words, "--layers", "2", "--overwrite", "--dtype", "bf16"]) == 0
    assert "2 of 4 layers were timed and scaled" in capsys.readouterr().out
    (tmp_path / "steps.csv.json").unlink()
    assert main(words) == 2
    assert "nobody knows how it was timed" in capsys.readouterr().err


def test_files_of_others_stay_as_they_are(words, config, tmp_path, capsys):
    steps_file = config.with_suffix(".csv")
    before = config.read_text()
    for more in ([], ["--overwrite"]):
        assert main([*words, *more, "-o", str(steps_file)]) == 0
        assert config.read_text() == before
    other = tmp_path / "other.csv.json"
    for text in ("{}", '{"identity": 3}', "not JSON"):
        other.write_text(text)
        for more in ([], ["--overwrite"]):
            assert main([*words, *more, "-o", str(tmp_path / "other.csv")]) == 2
            assert "other.csv.json would take the notes" in capsys.readouterr().err
            assert other.read_text() == text and not (tmp_path / "other.csv").exists()
    own = tmp_path / "own.csv"
    own.write_text("arrival_s,prompt_tokens\n")
    assert main([*words, "--overwrite", "-o", str(own)]) == 2
    assert "own.csv holds no timed steps" in capsys.readouterr().err
    assert own.read_text() == "arrival_s,prompt_tokens\n"


def test_an_interrupted_run_keeps_its_rows(words, tmp_path, monkeypatch):
    timed, calls = steps._time, []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return timed(*args)

    monkeypatch.setattr(steps, "_time", interrupt)
    assert main(words) == 130
    assert len(pd.read_csv(tmp_path / "steps.csv")) == 4
    assert json.loads((tmp_path / "steps.csv.json").read_text())["clocks"]


def test_a_wide_spread_is_warned_of(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(steps, "measure", lambda *_: Timing(1.0, 0.9, 1.6, repeats=3))
    assert main(words) == 0
    assert "warning: 18 of 18 steps spread by more than 50%" in capsys.readouterr().err
    monkeypatch.setattr(steps, "measure", lambda *_: Timing(1.0, 0.9, 1.3, repeats=3))
    assert main([*words, "--overwrite"]) == 0
    assert "spread by" not in capsys.readouterr().err


def test_a_step_without_memory_is_left_out(words, monkeypatch, capsys):
    timed = steps._time

    def fail(stack, point, *rest):
        if point.decode_seqs == 16:
            raise torch.OutOfMemoryError("no room")
        return timed(stack, point, *rest)

    monkeypatch.setattr(steps, "_time", fail)
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["measured"] == 16 and set(told["skipped"].values()) == {"out of memory"}


def test_layers_are_scaled_to_the_depth(config, monkeypatch):
    stack = stack_of(config, layers=1)
    seconds = iter([3.0, 0.5])
    monkeypatch.setattr(steps, "measure", lambda *_: Timing(*([next(seconds)] * 3), repeats=3))
    timing = steps._time(stack, Point(1, 8, 0, 0), "never", SETTINGS)
    assert timing.median_s == 4 * 3.0 + 0.5


@pytest.mark.parametrize(("graphs", "recorded"), [("never", 0), ("decode", 1), ("all", 3)])
def test_which_steps_are_replayed_as_graphs(graphs, recorded, config, monkeypatch):
    stack, seen = stack_of(config, layers=4), []
    monkeypatch.setattr(steps, "graphed", lambda run: seen.append(run) or run)
    for point in (Point(2, 8, 0, 0), Point(0, 0, 4, 4), Point(1, 8, 4, 0)):
        assert steps._time(stack, point, graphs, SETTINGS).median_s > 0
    assert len(seen) == recorded


def test_time_is_taken_of_the_call_itself():
    import time

    from scripts.profiling.clock import measure

    timing = measure(lambda: time.sleep(0.01), torch.device("cpu"), 1, 5)
    assert 0.009 < timing.p10_s <= timing.median_s <= timing.p90_s and timing.repeats == 5
    assert measure(lambda: time.sleep(0.01), torch.device("cpu"), 1, 99, 0.02).repeats < 9
