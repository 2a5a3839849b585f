"""Rolling-origin evaluation of a forecaster: it knows the past of each origin, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .interface import LEVELS, Floats, Forecaster, check
from .series import Traffic

_CENTRAL = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class Backtest:
    """Forecasts from many origins, and what came.

    Attributes:
        origins: (o,) bins that were known.
        levels: (q,) probabilities.
        quantiles: (o, series, horizon, q).
        actual: (o, series, horizon).
        fit_s: CPU seconds of every refit of all series.
        forecast_s: CPU seconds of every forecast of all series.
    """

    origins: npt.NDArray[np.int64]
    levels: Floats
    quantiles: Floats
    actual: Floats
    fit_s: tuple[float, ...]
    forecast_s: tuple[float, ...]

    def at(self, level: float) -> Floats:
        """(o, series, horizon) of a level that was forecast.

        Raises:
            ValueError: It was not.
        """
        place = np.flatnonzero(np.isclose(self.levels, level))
        if not len(place):
            raise ValueError(f"level {level:g} is none of {self.levels.tolist()}")
        return self.quantiles[..., place[0]]


def backtest(
    forecaster: Forecaster,
    series: Traffic,
    *,
    first: int,
    step: int,
    horizon: int,
    levels: Sequence[float] = LEVELS,
    refit: int | None = None,
) -> Backtest:
    """Forecast from origin to origin.

    The forecaster is given copies of the past, so that only an oracle, which was given the
    future, can know it.

    Args:
        forecaster: What forecasts; it is fitted here.
        series: The whole time.
        first: Bins known at the first origin.
        step: Bins from an origin to the next.
        horizon: Bins ahead.
        levels: Probabilities.
        refit: Bins after which it is fitted anew, at the next origin; None fits it once.

    Raises:
        ValueError: An argument is out of range, or no origin has its horizon inside the series.
    """
    found = check(horizon, levels)
    for name, value in {"first": first, "step": step, "refit": refit or 1}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; give 1 or more bins")
    origins = np.arange(first, series.bins - horizon + 1, step)
    if not len(origins):
        raise ValueError(f"{first} bins of history and {horizon} ahead exceed {series.bins} bins")
    quantiles, fits, forecasts, fitted = [], [], [], -1
    for origin in origins.tolist():
        history = series.until(origin)
        if fitted < 0 or (refit is not None and origin - fitted >= refit):
            start = time.process_time()
            forecaster.fit(history)
            fits.append(time.process_time() - start)
            fitted = origin
        start = time.process_time()
        quantiles.append(forecaster.forecast(history, horizon, levels))
        forecasts.append(time.process_time() - start)
    actual = np.stack([series.values[:, o : o + horizon] for o in origins])
    return Backtest(origins, found, np.stack(quantiles), actual, tuple(fits), tuple(forecasts))


def scores(found: Backtest) -> dict[str, float]:
    """How good the forecasts were, over all origins, series and steps.

    Returns:
        `wape`: sum of the errors of the median over the sum of the traffic (the published error);
        `bias`: the same with its sign; `mae`, in the unit of the series; `pinball`: twice the
        pinball loss, mean over the levels, over the mean traffic; `coverage_50`, `_80`, `_90`:
        share inside the central interval, where its ends were forecast; `width_80`: its mean width
        over the mean traffic; `peak_wape`: error of the highest median of a path against the
        highest value that came (what capacity is planned by); `peak_missed`: share of the paths
        whose highest value exceeds their highest 90 % quantile; `fit_s` and `fit_most_s`: CPU
        seconds of a refit of all series, mean and most; `forecast_s`: of a forecast, mean.
    """
    y, total = found.actual, max(float(found.actual.sum()), 1e-300)
    median = found.at(0.5)
    missed = y[..., None] - found.quantiles
    pinball = np.maximum(found.levels * missed, (found.levels - 1.0) * missed)
    out = {
        "wape": float(np.abs(median - y).sum()) / total,
        "bias": float((median - y).sum()) / total,
        "mae": float(np.abs(median - y).mean()),
        "pinball": 2.0 * float(pinball.mean()) * y.size / total,
    }
    for share in _CENTRAL:
        ends = [(1.0 - share) / 2.0, (1.0 + share) / 2.0]
        if all(np.isclose(found.levels, end).any() for end in ends):
            low, high = (found.at(end) for end in ends)
            out[f"coverage_{100 * share:.0f}"] = float(((low <= y) & (y <= high)).mean())
            if share == 0.8:
                out["width_80"] = float((high - low).sum()) / total
    peak = y.max(axis=2)
    out["peak_wape"] = float(np.abs(median.max(axis=2) - peak).sum()) / max(
        float(peak.sum()), 1e-300
    )
    if np.isclose(found.levels, 0.9).any():
        out["peak_missed"] = float((peak > found.at(0.9).max(axis=2)).mean())
    out["fit_s"], out["fit_most_s"] = float(np.mean(found.fit_s)), max(found.fit_s)
    out["forecast_s"] = float(np.mean(found.forecast_s))
    return out
