"""`servegym benchmark forecast`: files, table, hook for what forecasts lead to, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from scripts.cli import main
from scripts.experiments.forecasts import DOWNSTREAM, Downstream, Run
from scripts.experiments.metrics import Metric

WORDS = (
    "benchmark forecast --shapes regular --scale 0.001 --forecasters last naive_24h oracle_perfect "
    "--reference last --history-days 2 --days 1 --bin-minutes 60 --workers 1 --seeds 2"
).split()


def _peak(run: Run) -> dict[str, float]:
    return {"bought": float(run.found.at(0.9).max()) + run.seed}


def test_files_table_and_hook(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric("bought", "Capacity bought", "bought")
    monkeypatch.setitem(DOWNSTREAM, "peak", Downstream((metric,), _peak))
    assert main([*WORDS, "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "forecaster" in shown and "naive_24h" in shown and "report.html" in shown
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = {row["router"]: row["metrics"] for row in results["results"][0]["routers"]}
    assert rows["oracle_perfect"]["wape"]["mean"] == 0
    assert rows["last"]["bought"]["mean"] > 0 and results["oracles"] == ["oracle_perfect"]
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert len(summary) == 6 and set(summary.seed) == {0, 1}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Capacity bought" not in page and "bought" in page and "(oracle)" in page
    assert "http-equiv" in page and "src=" not in page.split("</script>")[-1]


def test_a_scenario_is_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "week.yaml"
    file.write_text(
        "fleet: {groups: {a: {preset: v100-llama2-7b, price_per_hour: 0}}}\n"
        "workload: {kind: o365, scale: 0.0005, duration_s: 180000}\n"
    )
    words = ["--scenarios", str(file), "--history-days", "1", "--days", "0.5", "--json"]
    assert main([*WORDS, *words, "-o", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["scenario"] == str(file)
    assert main([*WORDS, "--scenarios", str(file), "-o", str(tmp_path / "out")]) == 2
    assert "days of demand; 3.17 are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--forecasters", "arma"], "no forecaster 'arma'"),
        (["--days", "0"], "--days 0"),
        (["--seeds", "0"], "--seeds"),
        (["--scale", "-1"], "--scale"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_use(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *words]) == 2
    assert told in capsys.readouterr().err
