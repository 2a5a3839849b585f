"""Seasonal naive forecasts: it will be as it was a day or a week ago."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .interface import DAY_S, LEVELS, WEEK_S, Floats, Forecaster, check, root, squared
from .series import Traffic

_FEWEST = 8
"""Differences below which their quantiles say nothing."""


@dataclass
class SeasonalNaive(Forecaster):
    """The value a season ago, with the quantiles that such forecasts have missed by.

    Differences are those of the square roots, over the whole history. Where that is shorter than
    the season and some bins, the next shorter one of a week, a day, one bin is taken.

    Attributes:
        season_s: Length of the season, seconds; 0 is the last bin.
    """

    season_s: float = DAY_S

    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """See the base class."""
        found = check(horizon, levels)
        y = root(history.values)
        season = self._season(history)
        ahead = np.arange(horizon)
        # The latest season that is known at every step of the path.
        base = y[:, history.bins + ahead - season * (ahead // season + 1)]
        if history.bins - season < 1:
            return np.repeat(squared(base)[:, :, None], len(found), axis=2)
        missed = np.quantile(y[:, season:] - y[:, :-season], found, axis=1).T
        # Without a season, the uncertainty of a random walk grows with its steps.
        steps = np.sqrt(ahead + 1.0) if season == 1 else np.ones(horizon)
        return squared(base[:, :, None] + steps[None, :, None] * missed[:, None, :])

    def _season(self, history: Traffic) -> int:
        for seconds in (self.season_s, *(s for s in (WEEK_S, DAY_S) if s < self.season_s)):
            season = history.bins_of(seconds)
            if season + _FEWEST <= history.bins:
                return season
        return 1
