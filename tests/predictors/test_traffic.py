"""Forecasters of traffic: causal, ordered, right where the answer is known, open about oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.workloads import O365, RequestTable
from predictors.traffic import (
    FORECASTERS,
    LEVELS,
    Forecaster,
    InSampleArima,
    PerfectForecast,
    SeasonalNaive,
    Traffic,
    backtest,
    forecaster,
    scores,
    traffic,
)
from predictors.traffic.network import QuantileNetwork, Settings
from tests.fuzzing import quick

HOUR = 3600.0
HORIZON = 6
STATISTICAL = ("mstl_ets", "auto_arima", "oracle_in_sample_arima")


def with_slow(names: list[str]) -> list[Any]:
    """The forecasters, the one that searches for its order among the slow tests."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow) if name == "auto_arima" else name for name in names]


CAUSAL = [name for name, known in FORECASTERS.items() if known.oracle is None]
ORACLES = [name for name, known in FORECASTERS.items() if known.oracle is not None]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def daily(days: int = 16, noise: float = 0.1, seed: int = 0) -> Traffic:
    """Two series with a day and a week in them, bins of an hour."""
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    shape = 2.0 + np.sin(2 * np.pi * hours / 24.0) - 0.8 * (hours // 24 % 7 >= 5)
    values = (
        np.array([[100.0], [3.0]]) * shape * np.exp(noise * rng.standard_normal((2, len(hours))))
    )
    return Traffic(values, HOUR, (("a", "east"), ("b", "west")))


SERIES = daily()
ORIGIN = 24 * 14


def made(name: str, series: Traffic = SERIES) -> Forecaster:
    if name in STATISTICAL:
        pytest.importorskip("statsmodels", reason="the extra `forecast` is not installed")
    future = series if name in ORACLES else None
    return forecaster(name, bin_s=HOUR, horizon=HORIZON, future=future)


@pytest.mark.parametrize("name", FORECASTERS)
def test_paths_are_ordered_quantiles_of_every_series(name: str) -> None:
    path = made(name).forecast(SERIES.until(ORIGIN), HORIZON, (0.1, 0.5, 0.8))
    assert path.shape == (2, HORIZON, 3)
    assert np.isfinite(path).all() and (path >= 0).all() and (np.diff(path, axis=2) >= 0).all()
    ahead = SERIES.values[:, ORIGIN : ORIGIN + HORIZON]
    # The larger series stays the larger one, by about its size.
    assert 0.3 < path[0, :, 1].sum() / ahead[0].sum() < 3.0
    assert 0.3 < path[1, :, 1].sum() / ahead[1].sum() < 3.0


@pytest.mark.parametrize("name", with_slow(CAUSAL))
def test_the_future_changes_no_forecast(name: str) -> None:
    series = SERIES.until(ORIGIN + 2 + HORIZON)
    other = series.values.copy()
    other[:, ORIGIN:] = np.random.default_rng(1).uniform(0, 1e4, other[:, ORIGIN:].shape)
    changed = Traffic(other, HOUR, SERIES.names)
    options: dict[str, Any] = {"first": ORIGIN - 2, "step": 1, "horizon": HORIZON, "refit": 2}
    paths = [backtest(made(name), s, **options).quantiles for s in (series, changed)]
    # Origins up to the change know nothing of it; those after it do.
    assert np.array_equal(paths[0][:3], paths[1][:3])
    assert not np.array_equal(paths[0][-1], paths[1][-1])


@pytest.mark.parametrize("name", ("last", "naive_24h", "naive_168h"))
@pytest.mark.parametrize("bins", [1, 2, 30, 200])
def test_naive_forecasts_of_any_history(name: str, bins: int) -> None:
    @quick(10)
    @given(st.integers(0, 2**32), st.integers(1, 300))
    def holds(seed: int, horizon: int) -> None:
        values = np.random.default_rng(seed).gamma(0.5, 10.0, (3, bins + 300))
        values[2] = 0.0
        whole = Traffic(values, HOUR, (("a",), ("b",), ("c",)))
        path = made(name).forecast(whole.until(bins), horizon)
        assert path.shape == (3, horizon, len(LEVELS)) and (path[2] == 0).all()
        values[:, bins:] += 1.0
        again = made(name).forecast(Traffic(values, HOUR, whole.names).until(bins), horizon)
        assert np.array_equal(path, again)

    holds()


@pytest.mark.parametrize("name", ORACLES)
def test_oracles_take_the_future_and_others_refuse_it(name: str) -> None:
    assert made(name).oracle
    with pytest.raises(ValueError, match="is an oracle: give it the future"):
        forecaster(name)
    with pytest.raises(ValueError, match="go beyond it"):
        made(name).forecast(SERIES, HORIZON)
    with pytest.raises(ValueError, match="other series"):
        made(name).forecast(Traffic(SERIES.values, HOUR, (("x",), ("y",))).until(5), 1)
    with pytest.raises(ValueError, match="no oracle"):
        forecaster("naive_24h", future=SERIES)
    assert not any(made(other).oracle for other in CAUSAL)


def test_the_perfect_forecast_is_perfect_and_the_leak_is_a_leak() -> None:
    options: dict[str, Any] = {"first": ORIGIN, "step": 5, "horizon": HORIZON}
    best = scores(backtest(PerfectForecast(SERIES), SERIES, **options))
    assert best["wape"] == best["pinball"] == best["width_80"] == 0 == best["peak_wape"]
    assert best["coverage_80"] == 1
    pytest.importorskip("statsmodels", reason="the extra `forecast` is not installed")
    changed = SERIES.values.copy()
    changed[:, ORIGIN + 1] *= 3.0
    future = Traffic(changed, HOUR, SERIES.names)
    leak = [InSampleArima(f).forecast(SERIES.until(ORIGIN), 4, (0.5,)) for f in (SERIES, future)]
    assert (leak[1][:, 2] > 1.2 * leak[0][:, 2]).all()


def test_a_season_without_noise_is_forecast_exactly() -> None:
    series = daily(noise=0.0)
    path = SeasonalNaive(7 * 24 * HOUR).forecast(series.until(ORIGIN), 48, (0.1, 0.5, 0.9))
    assert np.allclose(path, series.values[:, ORIGIN : ORIGIN + 48, None])


@pytest.mark.parametrize("name", with_slow(["naive_168h", "mstl_ets", "auto_arima", "dlinear"]))
def test_forecasts_are_calibrated_and_better_than_the_last_bin(name: str) -> None:
    series = daily(23, noise=0.15, seed=4)
    options: dict[str, Any] = {"first": 24 * 18, "step": 7, "horizon": HORIZON}
    found = scores(backtest(made(name), series, **options))
    last = scores(backtest(made("last"), series, **options))
    assert found["pinball"] < 0.75 * last["pinball"]
    assert 0.6 < found["coverage_80"] < 0.97
    assert found["coverage_50"] < found["coverage_80"] < found["coverage_90"]


def test_a_network_repeats_and_comes_back_from_disk(tmp_path: Path) -> None:
    settings = Settings(HOUR, HORIZON, lookback=24, epochs=2, seed=3)
    networks = [QuantileNetwork(settings) for _ in range(2)]
    history = SERIES.until(ORIGIN)
    state = torch.random.get_rng_state()
    paths = [network.forecast(history, HORIZON) for network in networks]
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(*paths)
    back = QuantileNetwork.load(networks[0].save(tmp_path / "net"))
    assert np.array_equal(
        back.forecast(history, 3, (0.3, 0.6)), networks[1].forecast(history, 3, (0.3, 0.6))
    )
    with pytest.raises(ValueError, match="fit the network first"):
        QuantileNetwork(settings).save(tmp_path)
    (tmp_path / "net" / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="train it anew"):
        QuantileNetwork.load(tmp_path / "net")
    with pytest.raises(ValueError, match="forecasts 6 bins"):
        back.forecast(history, 7)
    with pytest.raises(ValueError, match="too short to train on"):
        QuantileNetwork(settings).fit(SERIES.until(100))


@pytest.mark.parametrize("name", ["mstl_ets", "auto_arima"])
def test_series_that_fall_silent_or_are_short(name: str) -> None:
    values = np.random.default_rng(0).uniform(1, 2, (2, 80))
    values[0, 20:] = 0.0
    values[1] = 0.0
    series = Traffic(values, HOUR, (("a",), ("b",)))
    path = made(name).forecast(series, 5)
    assert np.isfinite(path).all() and (path[1] == 0).all()
    with pytest.raises(ValueError, match="bins; give"):
        made(name).fit(series.until(4))
    model = made(name)
    model.fit(series)
    with pytest.raises(ValueError, match="fit again"):
        model.forecast(series.until(50), 5)


def test_bad_questions_are_refused() -> None:
    for horizon, levels in ((0, (0.5,)), (1, ()), (1, (0.5, 0.5)), (1, (0.0,)), (1, (0.9, 0.1))):
        with pytest.raises(ValueError, match=r"horizon|levels"):
            made("last").forecast(SERIES, horizon, levels)
    with pytest.raises(ValueError, match="no forecaster 'x'"):
        forecaster("x")
    with pytest.raises(ValueError, match="exceed"):
        backtest(made("last"), SERIES, first=SERIES.bins, step=1, horizon=1)
    for values in (np.zeros(3), np.full((1, 2), np.nan), np.full((1, 2), -1.0)):
        with pytest.raises(ValueError, match="values"):
            Traffic(values, HOUR, (("a",),))


def test_series_count_what_arrives() -> None:
    week = O365(scale=0.01, duration_s=20_000.0)
    table = week.requests(2)
    whole = traffic(table, 600.0, tiers=None)
    assert whole.values.shape == (12, 33) and whole.names[0] == ("Bloom-176B", "centralus")
    inside = table.arrival_s < 33 * 600.0
    tokens = (table.prompt_tokens + table.output_tokens)[inside].sum()
    assert whole.values.sum() * 600.0 == pytest.approx(tokens)
    parts = traffic(week.parts(2), 600.0, tiers=None)
    assert parts.names == whole.names and np.allclose(parts.values, whole.values)
    requests = traffic(table, 600.0, by=("tier",), unit="requests", tiers=None, duration_s=2400.0)
    assert requests.names == (("IW-F",), ("IW-N",), ("NIW",)) and requests.bins == 4
    early = table.tier.codes[table.arrival_s < 2400.0]
    assert np.allclose(requests.values.sum(1) * 600.0, np.bincount(early))
    assert len(traffic(table, 600.0, by=("tier",)).names) == 2


def test_no_traffic_is_refused() -> None:
    one = RequestTable.from_columns(arrival_s=[1.0], prompt_tokens=[1], output_tokens=[1])
    with pytest.raises(ValueError, match="no request of the tiers"):
        traffic(one, tiers=("NIW",))
    with pytest.raises(ValueError, match="end within the first bin"):
        traffic(one)
    with pytest.raises(ValueError, match="unit"):
        traffic(one, unit="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by"):
        traffic(one, by=("tenant",))
