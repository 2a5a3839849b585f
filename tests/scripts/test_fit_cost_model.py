"""The fit of a file of timed steps, and its way into the table."""

import json

import numpy as np
import pandas as pd
import pytest

from envs.hardware import CostModel
from envs.hardware.calibration import read_calibration
from envs.hardware.fitting.law import Fit
from envs.hardware.fitting.steps import REQUIRED, fit_steps, read_steps
from scripts.cli import main
from scripts.profiling.grid import Point


def written(path, gpu="A40", change=None):
    """Steps of a known law, on the default grid's corners."""
    law = CostModel(
        "law", "Llama-3.1-8B", gpu, weights_s=9e-3, token_s=60e-6, linear_s=1e-6, context_s=60e-9,
        mixed_context_s=90e-9, attention_s=2e-10, decode_sequence_s=5e-6, sharpness=4,
    )  # fmt: skip
    points = [Point(b, c, 0, 0) for b in (1, 16, 256) for c in (128, 1024, 4096)]
    points += [Point(0, 0, n, h) for n in (16, 128, 1024, 4096) for h in (0, 2048)]
    points += [Point(b, 1024, n, 0) for b in (8, 64) for n in (64, 256, 1024)]
    rows = []
    for p in points:
        step = (p.decode_seqs, p.context_tokens, p.chunk, p.attention_work)
        seconds = law.step_time(*step)
        rows.append(("Llama-3.1-8B", gpu, 1, "torch", "bf16", *step, seconds))
    table = pd.DataFrame(rows, columns=list(REQUIRED))
    if change is not None:
        change(table)
    table.to_csv(path, index=False)
    return law


def test_a_known_law_is_found_again_and_put_into_the_table(tmp_path, capsys, monkeypatch):
    found = []
    monkeypatch.setattr(
        "scripts.fit_cost_model.fit_steps",
        lambda *given: found or found.extend(fit_steps(*given)) or found,
    )
    path, out = tmp_path / "steps.csv", tmp_path / "tables"
    law = written(path)
    words = ["fit-cost-model", "--steps", str(path), "-o", str(out)]
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    families = shown["families"]
    assert shown["written"] == str(out / "calibration.csv")
    assert {row["step"] for row in families if row["family"] == "steps"} == {
        "prefill",
        "decode",
        "mixed",
    }
    before = len(read_calibration())
    table = read_calibration(out / "calibration.csv")
    assert len(table) == before + 1
    cost = table[-1][0]
    assert cost.error < 0.02 and cost.source == "steps of steps.csv"
    for step in ((64, 64 * 2048), (0, 0, 2048, 2048 * 2049 / 2), (16, 16_384, 512, 512 * 513 / 2)):
        assert cost.step_time(*step) == pytest.approx(law.step_time(*step), rel=0.03)
    assert (cost.fit_seqs, cost.fit_tokens, cost.fit_context) == (256, 4096, 6144)
    assert main(words) == 0  # the same pair again replaces its row
    assert len(read_calibration(out / "calibration.csv")) == before + 1
    assert "(replaced)" in capsys.readouterr().err


def test_a_bad_fit_is_left_out(tmp_path, capsys, monkeypatch):
    cost = CostModel("m/g", "m", "g")
    errors = {"decode": np.array([0.1, -0.3])}
    bad = Fit(cost, "steps", "", errors, {"decode": np.ones(2)})
    monkeypatch.setattr("scripts.fit_cost_model.fit_steps", lambda *_: [bad])
    words = ["fit-cost-model", "--steps", "steps.csv", "-o", str(tmp_path)]
    assert main(words) == 1
    assert "refused, held-out error 20%: m/g" in capsys.readouterr().err
    assert len(read_calibration(tmp_path / "calibration.csv")) == len(read_calibration())
    assert main([*words, "--max-error", "0.3"]) == 0
    assert len(read_calibration(tmp_path / "calibration.csv")) == len(read_calibration()) + 1
    assert "not in the catalogue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("seconds", 0, "line 3: seconds"),
        ("decode_seqs", -1, "line 3: decode_seqs"),
        ("prefill_tokens", "x", "line 3: prefill_tokens"),
        ("tensor_parallel", 0, "line 3: tensor_parallel"),
    ],
)
def test_faulty_rows_are_named(column, value, told, tmp_path):
    path = tmp_path / "steps.csv"

    def spoil(table):
        table[column] = table[column].astype(object)
        table.loc[1, column] = value

    written(path, change=spoil)
    with pytest.raises(ValueError, match=told):
        read_steps(path)


def test_faulty_files_are_named(tmp_path, capsys):
    path = tmp_path / "steps.csv"
    written(path)
    pd.read_csv(path).drop(columns="seconds").to_csv(path, index=False)
    with pytest.raises(ValueError, match="columns seconds are missing"):
        read_steps(path)
    written(path)
    table = pd.read_csv(path)
    table[table["prefill_tokens"] == 0].to_csv(path, index=False)
    assert main(["fit-cost-model", "--steps", str(path), "-o", str(tmp_path)]) == 2
    assert "0 prefill steps" in capsys.readouterr().err
    assert main(["fit-cost-model"]) == 2
