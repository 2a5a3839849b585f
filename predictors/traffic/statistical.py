"""Seasons by MSTL, and what is left by exponential smoothing or ARIMA (statsmodels)."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from .interface import DAY_S, LEVELS, WEEK_S, Floats, Forecaster, check, root, squared
from .series import Traffic

_FEWEST = 16
"""Bins below which nothing can be estimated."""
_ESTIMATED, _RUN = 672, 480
"""Last bins from which a model is estimated, and over which it runs before a forecast."""
_JUMPS = {"trend_jump": 24, "low_pass_jump": 24}
"""Bins between which the slow parts of MSTL are interpolated: 15 times faster, and seasons differ
by less than 0.1 %."""
_HELD_S, _AHEAD_S = 2 * DAY_S, 14_400.0
"""How much is held back to see how far forecasts miss, and how far ahead they look."""
_SAME = 1e-9
_RULED_OUT = (np.linalg.LinAlgError, ValueError, IndexError)
"""What an estimation may end with on a series that does not suit it."""


@dataclass
class _Fitted:
    """A series on the scale of its square root, cleared of its seasons.

    Attributes:
        rest: (n,) what is left.
        seasons: By length in bins: the last cycle, (length,).
        model: What the forecaster estimated.
    """

    rest: Floats
    seasons: dict[int, Floats]
    model: Any = None

    def season(self, start: int, stop: int) -> Floats:
        """The seasons at bins that are counted from the end of the fit."""
        at = np.arange(start, stop)
        parts = [cycle[at % length] for length, cycle in self.seasons.items()]
        return np.sum(parts, axis=0) if parts else np.zeros(stop - start)


@dataclass
class _Decomposed(Forecaster):
    """Seasons of a day and a week by MSTL, and a model of the rest.

    MSTL is of Bandara, Hyndman and Bergmeir (arXiv:2107.13462). `fit` finds the seasons and
    estimates the model; `forecast` lets the model run over the last bins with what was estimated,
    and adds the last cycle of each season. Seasons that few cycles tell of are fitted to noise, so
    the model's spread is too small: `fit` first does without the last two days, and widens the
    spread by as much as forecasts of these have missed.

    Attributes:
        window_s: Seconds of the history that are looked at; a season needs more than twice its
            length.
    """

    window_s: float = 21 * DAY_S
    _fits: list[_Fitted] = field(default_factory=list, repr=False)
    _wider: float = field(default=1.0, repr=False)
    _end_s: float = field(default=0.0, repr=False)
    _names: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    def fit(self, history: Traffic) -> None:
        """See the base class."""
        if history.bins < _FEWEST:
            raise ValueError(f"a history of {history.bins} bins; give {_FEWEST} or more")
        if history.names != self._names:
            self._fits = []
        y = root(history.values[:, -history.bins_of(self.window_s) :])
        seasons = [history.bins_of(season) for season in (DAY_S, WEEK_S)]
        held, ahead = history.bins_of(_HELD_S), history.bins_of(_AHEAD_S)
        with _quiet():
            if y.shape[1] - held > 2 * seasons[0] and held > ahead:
                self._wider = self._missed(y, seasons, held, ahead)
            self._fits = self._fitted(y, seasons)
        self._end_s, self._names = history.end_s, history.names

    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """See the base class."""
        found = check(horizon, levels)
        if not self._fits:
            self.fit(history)
        since = round((history.end_s - self._end_s) / history.bin_s)
        if history.names != self._names or since < 0 or since > history.bins:
            raise ValueError("the history is not that of the fit, or ends before it: fit again")
        new = root(history.values[:, history.bins - since :])
        with _quiet():
            mean, spread = self._paths(self._fits, new, horizon)
        return squared(mean[:, :, None] + self._wider * spread[:, :, None] * ndtri(found))

    def _fitted(self, y: Floats, seasons: Sequence[int]) -> list[_Fitted]:
        """Fits of (series, n) bins; what the model was before helps to find it."""
        lengths = [length for length in seasons if 1 < length < y.shape[1] / 2]
        found = [_cleared(series, lengths) for series in y]
        before = [fit.model for fit in self._fits] or [None] * len(found)
        for fitted, old in zip(found, before, strict=True):
            if float(np.ptp(fitted.rest)) > _SAME:
                fitted.model = self._estimate(fitted.rest[-_ESTIMATED:], old)
        return found

    def _missed(self, y: Floats, seasons: Sequence[int], held: int, ahead: int) -> float:
        """How many times wider the spread must be for 80 % of the last bins, at least 1."""
        known = y.shape[1] - held
        self._fits = self._fitted(y[:, :known], seasons)
        missed = []
        for since in range(0, held - ahead + 1, ahead):
            mean, spread = self._paths(self._fits, y[:, known : known + since], ahead)
            error = np.abs(y[:, known + since : known + since + ahead] - mean)
            missed.append((error / np.maximum(spread, _SAME))[spread.max(axis=1) > _SAME].ravel())
        every = np.concatenate(missed)
        return max(1.0, float(np.quantile(every, 0.8) / ndtri(0.9))) if len(every) else 1.0

    def _paths(self, fits: Sequence[_Fitted], new: Floats, horizon: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation after the bins since the fits, (series, horizon) each."""
        means, spreads = [], []
        for fitted, series in zip(fits, new, strict=True):
            since = len(series)
            rest = np.concatenate([fitted.rest, series - fitted.season(0, since)])
            mean, spread = self._path(fitted.model, rest[-_RUN:], horizon)
            means.append(mean + fitted.season(since, since + horizon))
            spreads.append(spread)
        return np.array(means), np.array(spreads)

    @abstractmethod
    def _estimate(self, rest: Floats, old: Any) -> Any:
        """A model of what is left, if one was there before from that; None is a random walk."""

    @abstractmethod
    def _path(self, model: Any, rest: Floats, horizon: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the next bins, (horizon,) each."""


class MstlEts(_Decomposed):
    """MSTL, and exponential smoothing of the rest: with or without a damped trend, by AICc."""

    def _estimate(self, rest: Floats, old: Any) -> Any:
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        fits = []
        for trend in ({}, {"trend": "add", "damped_trend": True}):
            try:
                result = ETSModel(rest, error="add", **trend).fit(disp=False)
            except _RULED_OUT:
                continue
            fits.append((float(result.aicc), trend, np.asarray(result.params)))
        return min(fits, key=lambda fit: fit[0])[1:] if fits else None

    def _path(self, model: Any, rest: Floats, horizon: int) -> tuple[Floats, Floats]:
        if model is None:
            return _walk(rest, horizon)
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        trend, params = model
        # Its intervals want an index.
        result = ETSModel(pd.Series(rest), error="add", **trend).smooth(params)
        ahead = result.get_prediction(start=len(rest), end=len(rest) + horizon - 1)
        mean = np.asarray(ahead.predicted_mean, np.float64)
        variance = np.asarray(ahead.forecast_variance, np.float64)
        return mean, np.sqrt(np.maximum(variance, 0.0))


class AutoArima(_Decomposed):
    """MSTL, and ARIMA of the rest, its orders by the steps of Hyndman and Khandakar (2008).

    Differences are taken where KPSS refuses stationarity at 5 %; then p and q, at most 2, go from
    the best of four starts to the best neighbour by AICc until none is better. The search is made
    once for a series: later fits estimate the parameters of the orders found.
    """

    def _estimate(self, rest: Floats, old: Any) -> Any:
        if old is not None:
            value, params = _arima(rest, old[0])
            return (old[0], params) if np.isfinite(value) else old
        d = int(_kpss(rest) < 0.05)
        tried: dict[tuple[int, int], tuple[float, Any]] = {}

        def aicc(p: int, q: int) -> float:
            if (p, q) not in tried:
                tried[p, q] = _arima(rest, (p, d, q))
            return tried[p, q][0]

        best = min([(1, 1), (0, 0), (1, 0), (0, 1)], key=lambda o: aicc(*o))
        while True:
            near = [(best[0] + i, best[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            near = [o for o in near if 0 <= min(o) and max(o) <= 2]
            step = min(near, key=lambda o: aicc(*o))
            if aicc(*step) >= aicc(*best):
                break
            best = step
        value, params = tried[best]
        return ((best[0], d, best[1]), params) if np.isfinite(value) else None

    def _path(self, model: Any, rest: Floats, horizon: int) -> tuple[Floats, Floats]:
        if model is None:
            return _walk(rest, horizon)
        order, params = model
        ahead = _model(rest, order).filter(params).get_forecast(horizon)
        return np.asarray(ahead.predicted_mean), np.asarray(ahead.se_mean)


def _model(rest: Floats, order: tuple[int, int, int]) -> Any:
    from statsmodels.tsa.arima.model import ARIMA

    return ARIMA(rest, order=order, trend="n" if order[1] else "c")


def _arima(rest: Floats, order: tuple[int, int, int]) -> tuple[float, Any]:
    """AICc and parameters; an infinite one where the estimation fails."""
    try:
        result = _model(rest, order).fit(method_kwargs={"maxiter": 50})
    except _RULED_OUT:
        return np.inf, None
    value = float(result.aicc)
    return (value if np.isfinite(value) else np.inf), np.asarray(result.params)


def _kpss(rest: Floats) -> float:
    from statsmodels.tsa.stattools import kpss

    try:
        return float(kpss(rest, regression="c", nlags="auto")[1])
    except _RULED_OUT:
        return 1.0


def _cleared(series: Floats, lengths: Sequence[int]) -> _Fitted:
    from statsmodels.tsa.seasonal import MSTL

    if not lengths or float(np.ptp(series)) < _SAME:
        return _Fitted(series, {})
    found = np.asarray(MSTL(series, periods=tuple(lengths), stl_kwargs=_JUMPS).fit().seasonal)
    found = found.reshape(len(series), -1)
    cycles = {length: found[-length:, i] for i, length in enumerate(lengths)}
    return _Fitted(series - found.sum(axis=1), cycles)


def _walk(rest: Floats, horizon: int) -> tuple[Floats, Floats]:
    """A random walk from the last value."""
    step = float(np.diff(rest).std()) if len(rest) > 1 else 0.0
    return np.full(horizon, rest[-1]), step * np.sqrt(np.arange(1.0, horizon + 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Estimation tells of starting values and iterations, of which nobody can do anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
