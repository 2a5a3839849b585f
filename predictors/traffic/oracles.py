"""Forecasters that know the future: bounds and published mistakes, never policies."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from .interface import LEVELS, Floats, Forecaster, check
from .series import Traffic


class Oracle(Forecaster):
    """A forecaster that was given the future, so that nobody has it by accident.

    Args:
        future: The series from the beginning to beyond every horizon.
    """

    oracle: ClassVar[bool] = True

    def __init__(self, future: Traffic) -> None:
        self.future = future

    def _ahead(self, history: Traffic, horizon: int) -> slice:
        """The bins of the future after the history.

        Raises:
            ValueError: The future is that of other series, or does not reach so far.
        """
        future = self.future
        if (history.names, history.bin_s) != (future.names, future.bin_s):
            raise ValueError("the future given is of other series than the history")
        first = round((history.end_s - future.start_s) / future.bin_s)
        if first < 0 or first + horizon > future.bins:
            raise ValueError(
                f"the future given ends at {future.end_s:g} s; {horizon} bins after "
                f"{history.end_s:g} s go beyond it"
            )
        return slice(first, first + horizon)


class PerfectForecast(Oracle):
    """What will come: every quantile is the value itself."""

    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """See the base class."""
        found = check(horizon, levels)
        values = self.future.values[:, self._ahead(history, horizon)]
        return np.repeat(values[:, :, None], len(found), axis=2)


class InSampleArima(Oracle):
    """The leak of SageServe's release: one-step predictions of a fit to the whole series.

    ARIMA(3, 1, 2), estimated once on all bins, the future with them; each bin is predicted from
    all bins before it, also those after the history (its notebooks: `predict()`).
    Quantiles are normal, with the standard deviation of its residuals.

    Args:
        future: The series from the beginning to beyond every horizon.
    """

    order: ClassVar[tuple[int, int, int]] = (3, 1, 2)

    def __init__(self, future: Traffic) -> None:
        super().__init__(future)
        self._known: tuple[Floats, Floats] | None = None

    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """See the base class."""
        found, ahead = check(horizon, levels), self._ahead(history, horizon)
        if self._known is None:
            self._known = self._predicted()
        predicted, spread = self._known
        return np.maximum(predicted[:, ahead, None] + spread[:, None, None] * ndtri(found), 0.0)

    def fit(self, history: Traffic) -> None:
        """The fit is to the whole series and is made once, whatever the history."""
        self._known = self._known or self._predicted()

    def _predicted(self) -> tuple[Floats, Floats]:
        from statsmodels.tsa.arima.model import ARIMA

        predicted, spread = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for series in self.future.values:
                # A series that is a thousand times larger would be estimated less well.
                scale = float(series.mean()) or 1.0
                result = ARIMA(series / scale, order=self.order).fit()
                predicted.append(np.asarray(result.predict()) * scale)
                spread.append(float(np.std(np.asarray(result.resid)[1:])) * scale)
        return np.array(predicted), np.array(spread)
