"""`servegym benchmark scaling`: paired runs, resume, settings, the audit, pages and errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from baselines.scaling.strategies import setting
from envs.scaling.demand import Demand
from envs.scenarios import load_scenario, seeds
from scripts.cli import main
from scripts.experiments import (
    scaling_audit,
    scaling_claims,
    scaling_downstream,
    scaling_flaws,
)
from scripts.experiments.cases import Case
from scripts.experiments.forecasts import Run
from scripts.experiments.scaling_audit import burst_scalers, scalers
from scripts.experiments.scaling_claims import Findings, claims
from scripts.experiments.scaling_forecast import TrafficForecast
from scripts.experiments.scaling_metrics import SCALING
from scripts.experiments.scaling_runs import Scaler

pytestmark = pytest.mark.filterwarnings("ignore:cost model sageserve")

TINY = (
    "extends: scaling-tenth\nname: tiny\ndescription: Two hours.\n"
    "workload: {scale: 0.02, duration_s: 7200}\n"
)
NAMES = ("reactive", "lt_ua", "siloed", "mpc_perfect")


@pytest.fixture(scope="module", autouse=True)
def quick_to_measure() -> Iterator[None]:
    """Throughputs that need no search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setting, "sustainable_throughput", lambda *_, **__: 3_000.0)
        yield


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenarios") / "tiny.yaml"
    path.write_text(TINY)
    return path


def run(folder: Path, scenario: Path, *words: str, names: tuple[str, ...] = NAMES) -> int:
    found = ["benchmark", "scaling", "--workers", "1", "-o", str(folder)]
    return main([*found, "--scenarios", str(scenario), "--strategies", *names, *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, scenario: Path) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    assert run(folder, scenario, "--seeds", "2") == 0
    return folder


def test_every_strategy_serves_the_same_requests(finished: Path) -> None:
    summary = pd.read_csv(finished / "summary.csv")
    assert set(summary["router"]) == set(NAMES)
    assert set(summary["seed"]) == set(seeds("evaluation", 2))
    for _, rows in summary.groupby("seed"):
        assert rows["arrived"].nunique() == 1
    planned = summary[summary["router"] == "lt_ua"]
    assert (planned["forecast_wape"] > 0).all()
    assert summary[summary["router"] == "reactive"]["forecast_wape"].isna().all()
    assert set(SCALING) <= set(summary)
    paid = summary["dollars"] - summary["spot_income"]
    assert np.allclose(summary["net_dollars"], paid)
    tiers = summary[["IW-F_attainment", "IW-N_attainment", "NIW_attainment"]].min(axis=1)
    assert np.allclose(summary["worst_attainment"], tiers)
    started = summary[["acquired", "reclaimed", "converted", "redeployed"]].sum(axis=1)
    assert (summary["starts"] == started).all()


def test_the_page_shows_all_of_it(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for text in ("Cost against service", "Share of KV in use", "Forecasts of the next hour"):
        assert text in page
    assert "mpc_perfect (oracle)" in page
    assert "src=" not in page.split("</script>")[-1]


def test_a_finished_run_is_reused(
    finished: Path, scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(finished, scenario, "--seeds", "2", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["runs"], data["reused"]) == (8, 8)
    assert data["oracles"] == ["mpc_perfect"]
    assert run(finished, scenario, "--seeds", "2", "--forecaster", "last") == 2
    assert "routers.lt_ua.forecaster" in capsys.readouterr().err


def test_settings_are_tried_on_other_seeds(tmp_path: Path, scenario: Path) -> None:
    names = ("reactive", "reactive:high=0.9")
    words = ("--seeds", "1", "--tune", "3", "--target", "0.5", "--queue", "edf")
    assert run(tmp_path, scenario, *words, names=names) == 0
    trials = pd.read_csv(tmp_path / "tuning.csv")
    assert list(trials.groupby("name")["chosen"].sum()) == [1, 1]
    assert len(trials) == 6 and trials["setting"].nunique() == 6
    tried = {path.name.split(".")[1] for path in (tmp_path / "tuning" / "requests").iterdir()}
    assert tried == {str(seed) for seed in seeds("validation", 2)}
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert set(summary["router"]) == {f"{name}+edf" for name in names}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strategies", "reactiv"], "did you mean reactive"),
        (["--strategies", "reactive:hihg=0.5"], "reactive has no parameter 'hihg'"),
        (["--strategies", "reactive:high=5"], "high of reactive is 5"),
        (["--strategies", "reactive:high"], "write name:parameter=value"),
        (["--forecaster", "arma"], "no forecaster 'arma'; there are: last"),
        (["--scenarios", "router-kv6k-rate8"], "says nothing of scaling"),
        (["--scenarios", "scaling-monday"], "no scenario has this name"),
        (["--days", "0"], "--days 0: give a number, more than 0"),
        (["--target", "98"], "--target 98: give a share"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--metrics", "dollar"], "no metric 'dollar'; there are: dollars"),
    ],
)
def test_what_is_wrong_is_told(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "scaling", "-o", str(tmp_path / "out"), *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_small_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {
        "STEPS": {"(a)": ("unequal_starts",), "(f)": ("guessed_waste", "bucket_maxima")},
        "SWEEP": (2, 10),
        "QUEUES": ("edf", "pf", "dpa"),
    }
    for name, value in few.items():
        for module in (scaling_audit, scaling_claims):
            monkeypatch.setattr(module, name, value, raising=False)
    # Its fit takes a minute; what it leads to is tested with the forecasters.
    monkeypatch.setattr(scaling_flaws.Flaws, "forecaster", lambda *_: "oracle_perfect")
    words = "benchmark scaling --audit --quick --scale 0.005 --days 0.09 --seeds 1 --workers 1"
    folder = tmp_path / "audit"
    assert main([*words.split(), "-o", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["claims"]
    assert {one["form"] for one in told} == {"as released", "as published", "corrected"}
    table = pd.read_csv(folder / "table.csv")
    assert len(table) == 5 * 4
    assert "What cannot be expressed here" in (folder / "report.html").read_text()
    runs = len(list((folder / "requests").iterdir()))
    assert main([*words.split(), "-o", str(folder)]) == 0
    shown = capsys.readouterr().out
    # What the flaws do not touch is run once.
    assert f"({runs} reused)" in shown
    assert runs < len(scalers(alone=False)) + len(burst_scalers())
    assert "order of p90 TTFT of A" in shown


def test_forecasts_are_causal_and_fitted_once_a_day() -> None:
    history, episode = _demand(0, 4 * 96), _demand(1, 96)
    made = TrafficForecast("naive_24h")
    made.begin(history, None)
    past = history.followed_by(episode.until(3 * 3600.0))
    path = made.path(past, 4, (0.9, 0.5))
    assert path.shape == (2, 1, 4, 2) and (path[..., 0] >= path[..., 1]).all()
    other = TrafficForecast("naive_24h")
    other.begin(history, None)
    assert np.array_equal(other.path(past, 4, (0.9, 0.5)), path)
    error = made.error(history, episode)
    assert error["forecast_wape"] > 0
    shown = made.shown(history, episode)
    assert shown["forecast_hours"] == [3.125, 3.375, 3.625, 3.875]
    assert shown["came"] == pytest.approx(episode.tokens.sum(axis=(0, 1))[12:16].tolist(), rel=1e-4)
    assert math.isnan(TrafficForecast("last").error(history, episode)["forecast_wape"])


def test_an_oracle_sees_what_comes_and_repeats_its_end() -> None:
    history, episode = _demand(0, 2 * 96), _demand(1, 8)
    made = TrafficForecast("oracle_perfect")
    with pytest.raises(ValueError, match="needs the future"):
        made.begin(history, None)
    made.begin(history, episode)
    path = made.path(history.followed_by(episode.until(6 * 900.0)), 4, (0.5,))[..., 0]
    wanted = episode.tokens[..., [6, 7, 7, 7]]
    assert np.allclose(path, wanted)
    path = made.path(history.followed_by(episode), 2, (0.5,))[..., 0]
    assert np.allclose(path, episode.tokens[..., [7, 7]])
    assert not TrafficForecast("last").oracle


def test_what_forecasts_lead_to(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_downstream, "_case", lambda: Case(load_scenario(str(scenario))))
    monkeypatch.setattr(scaling_downstream, "DOWNSTREAM", {})
    scaling_downstream.register()
    ((_, hook),) = scaling_downstream.DOWNSTREAM.items()
    run = Run(None, 3, None, "last", None, None)  # type: ignore[arg-type]
    found = hook.measure(run)
    assert set(found) == {metric.key for metric in hook.metrics}
    assert found["mpc_instance_hours"] > 0 and 0 <= found["mpc_attainment"] <= 1


def test_claims_need_their_runs() -> None:
    assert claims(Findings([])) == []


def test_names_and_values_make_a_strategy() -> None:
    found = Scaler.parse("lt_u:high=0.8,escapes=true,form=corrected", queue="dpa")
    assert found.label == "lt_u:high=0.8,escapes=True,form=corrected+dpa"
    assert Scaler.parse("mpc_perfect").oracle and not Scaler.parse("mpc").oracle
    assert Scaler.parse("mpc", "oracle_perfect").oracle
    few = Scaler.parse("reactive").candidates(4)
    assert len(few) == 4 and len({one.label for one in few}) == 4


def _demand(seed: int, bins: int) -> Demand:
    rng = np.random.default_rng(seed)
    prompt, ones = rng.uniform(50.0, 150.0, (2, 1, bins)), np.ones(2)
    return Demand(prompt, prompt, prompt, 900.0, 1.1 * ones, ones)
