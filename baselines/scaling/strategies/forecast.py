"""Forecasts that need no library: the last season again, and the future itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from envs.scaling.demand import Demand

Floats = npt.NDArray[np.float64]
DAY_S, WEEK_S = 86_400.0, 604_800.0
_FEWEST = 20
"""Pairs of bins below which nothing is said of the error."""


class SeasonalForecast:
    """What came a week ago, or a day where there is no week, times a quantile of past ratios.

    Ratios of a bin's tokens to those of the bin a season earlier are taken from the history, by
    model and region; the quantile of a level is that of the ratios.
    """

    oracle = False

    def begin(self, history: Demand, future: Demand | None = None) -> None:
        """See `Forecast`."""
        lag = _season(history.bins, history.bin_s, twice=True)
        tokens = history.tokens
        self.ratios: dict[tuple[int, int], Floats] = {}
        for place in np.ndindex(*tokens.shape[:2]):
            before, after = tokens[place][:-lag], tokens[place][lag:]
            seen = before > 0
            if seen.sum() >= _FEWEST:
                self.ratios[place[0], place[1]] = after[seen] / before[seen]

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """See `Forecast`."""
        lag = _season(past.bins, past.bin_s)
        ahead = past.bins + np.arange(horizon) - lag * (1 + np.arange(horizon) // lag)
        base = past.tokens[..., ahead]
        factors = np.ones((*base.shape[:2], len(levels)))
        for place, ratios in self.ratios.items():
            factors[place] = np.quantile(ratios, levels)
        return np.asarray(base[..., None] * factors[:, :, None, :])


class PerfectForecast:
    """What will come, at every level: an oracle, for bounds. After the end it stays as it was."""

    oracle = True

    def begin(self, history: Demand, future: Demand | None) -> None:
        """See `Forecast`.

        Raises:
            ValueError: The future is missing.
        """
        if future is None:
            raise ValueError("a perfect forecast needs the future")
        self.start, self.future = history.bins, future.tokens

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """See `Forecast`."""
        ahead = past.bins - self.start + np.arange(horizon)
        found = self.future[..., np.minimum(ahead, self.future.shape[-1] - 1)]
        return np.repeat(found[..., None], len(levels), axis=-1)


def _season(bins: int, bin_s: float, *, twice: bool = False) -> int:
    """Bins of the longest season that lies in so many, or lies there twice; 1 if none does."""
    for season_s in (WEEK_S, DAY_S):
        lag = round(season_s / bin_s)
        if 1 <= lag and lag * (2 if twice else 1) <= bins:
            return lag
    return 1
